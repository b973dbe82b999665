//! Where a command's words go: what was asked for to stdout, all the rest to stderr.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;

use serde::Serialize;

use crate::failure::Failure;
use crate::render::Look;

/// How this run writes.
pub struct Output {
    /// JSON instead of text.
    json: bool,
    /// How text may look on stdout.
    look: Look,
    /// Whether a person watches stderr.
    watched: bool,
}

impl Output {
    /// As stdout, stderr and `NO_COLOR` of this process ask for.
    pub fn of_process(json: bool) -> Self {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let terminal = stdout().is_terminal();
        let look = if terminal && colour { Look::Coloured } else { Look::Plain };
        Self { json, look, watched: stderr().is_terminal() }
    }

    /// Whether JSON was asked for.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether a moving bar makes sense.
    pub fn watched(&self) -> bool {
        self.watched
    }

    /// Gives `answer` as JSON if that was asked for, else as `text` makes it.
    ///
    /// # Errors
    /// If stdout can't be written to.
    pub fn answer<T: Serialize + ?Sized>(
        &self,
        answer: &T,
        text: impl FnOnce(&T, Look) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string_pretty(answer);
            return self.line(&json.expect("an answer came from JSON"));
        }
        self.line(&text(answer, self.look))
    }

    /// One JSON value on a line of its own, for what has no end.
    ///
    /// # Errors
    /// If stdout can't be written to.
    pub fn json_line<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        self.line(&serde_json::to_string(value).expect("an answer came from JSON"))
    }

    /// `text` and the end of its line on stdout; nothing if it is empty.
    ///
    /// # Errors
    /// If stdout can't be written to.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        if text.is_empty() {
            return Ok(());
        }
        let mut out = stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::Output)
    }

    /// A remark for people on stderr; none with JSON.
    pub fn note(&self, text: &str) {
        if !self.json {
            // There is nowhere to say that stderr is closed.
            let _ = writeln!(stderr(), "{text}");
        }
    }

    /// Says on stderr why the command failed.
    pub fn fail(&self, failure: &Failure) -> ExitCode {
        if failure.is_closed_pipe() {
            return ExitCode::FAILURE;
        }
        let text = if self.json {
            serde_json::to_string(&failure.as_api_error()).expect("an error is plain text")
        } else {
            failure_text(failure)
        };
        let _ = writeln!(stderr(), "{text}");
        failure.exit_code()
    }
}

/// What went wrong, and on a second line what to do.
pub fn failure_text(failure: &Failure) -> String {
    match failure.hint() {
        hint if hint.is_empty() => format!("error: {failure}"),
        hint => format!("error: {failure}\n  hint: {hint}"),
    }
}
