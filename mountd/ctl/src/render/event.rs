//! `mountctl events`

use mooring_api::{Event, Severity};

/// One event on one line.
pub fn event(event: &Event) -> String {
    let severity = match event.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    format!("{} {} {severity:7} {}: {}", event.number, event.at, event.kind, event.message)
}
