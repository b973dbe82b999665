//! Watches the holder process, and replaces it when it has died.
//!
//! ```text
//!   asleep until the holder's end ─> start another ─> hand every device to it ─> asleep
//! ```
//! I/O goes on meanwhile: the daemon has every descriptor too. But from the holder's end until another
//! one has the devices, the daemon's own end would turn them to errors; so this is an event, and it
//! is made short.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use blockstore::{About, EventLog, Severity};
use mooring_device::holder::{self, HolderClient, HolderError};

use crate::attachments::Attachments;

/// Between two tries to start a holder.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The watch over one holder after another.
pub struct HolderWatch {
    socket: PathBuf,
    attachments: Arc<Attachments>,
    events: Arc<EventLog>,
}

/// Connects to the holder at `socket`, after starting one if none runs.
///
/// # Errors
/// [`HolderError`].
pub fn connect(socket: &Path) -> Result<Arc<HolderClient>, HolderError> {
    // After an upgrade the file that this process was started from may be gone; its program isn't.
    let program = std::env::current_exe().ok().filter(|program| program.exists());
    let mut command = Command::new(program.unwrap_or_else(|| PathBuf::from("/proc/self/exe")));
    command.arg0("mountd").arg("holder").arg(socket);
    holder::ensure_running(socket, &mut command).map(Arc::new)
}

impl HolderWatch {
    /// Watches `holder`, which listens at `socket`, for as long as this process lives.
    ///
    /// # Errors
    /// If the system has no thread for it.
    pub fn start(
        holder: Arc<HolderClient>,
        attachments: Arc<Attachments>,
        events: Arc<EventLog>,
    ) -> std::io::Result<()> {
        let watch = Self { socket: holder.path().to_owned(), attachments, events };
        std::thread::Builder::new()
            .name("holder-watch".to_owned())
            .spawn(move || watch.run(holder))
            .map(drop)
    }

    fn run(&self, mut holder: Arc<HolderClient>) {
        loop {
            if let Err(error) = holder.wait_until_gone() {
                tracing::error!(%error, "the holder can't be watched any more");
                return;
            }
            self.say(
                Severity::Error,
                "holder-died",
                format!(
                    "the holder process {} has ended: until another has the devices, they would not survive the end of mountd",
                    holder.pid()
                ),
            );
            let next = self.start_another();
            let (kept, lost) = self.attachments.change_holder(&next);
            for (name, error) in lost {
                let message = format!("volume {name}: its device has no holder any more: {error}");
                self.say(Severity::Error, "device-without-holder", message);
            }
            self.say(
                Severity::Warning,
                "holder-replaced",
                format!(
                    "the holder process {} has taken the place of {}, with {kept} devices",
                    next.pid(),
                    holder.pid()
                ),
            );
            holder = next;
        }
    }

    fn start_another(&self) -> Arc<HolderClient> {
        loop {
            match connect(&self.socket) {
                Ok(holder) => return holder,
                Err(error) => tracing::error!(%error, "no holder yet; trying again"),
            }
            std::thread::sleep(TRY_AGAIN);
        }
    }

    fn say(&self, severity: Severity, kind: &'static str, message: String) {
        self.events.push(severity, kind, message, About::default());
    }
}
