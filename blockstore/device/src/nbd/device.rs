//! One volume that is served over NBD.
#![allow(
    clippy::disallowed_methods,
    reason = "waits for clients that are about to go, in real time"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::export::Export;
use super::host::Table;
use super::listener::Listener;
use crate::holder::{HolderClient, HolderError, Mode};
use crate::{Device, DeviceError, DeviceKind, DeviceStats, User};

/// Clients that just had their last answer are given this long to go before a detach is refused.
const PASSERS_BY: Duration = Duration::from_secs(1);

const POLL: Duration = Duration::from_millis(20);

/// A volume behind a unix socket that speaks NBD. There is no block device: its users are programs
/// that speak NBD themselves.
///
/// ```text
///   Attached ──detach──> Detached
///      └──fail──> Failed ──detach / detach_forced──> Detached
/// ```
pub struct NbdDevice {
    parts: Parts,
    /// Held by whoever takes it away, or gives it to another holder.
    turn: Mutex<()>,
    detached: AtomicBool,
}

pub(super) struct Parts {
    pub(super) name: String,
    /// Its name in the holder.
    pub(super) held: String,
    pub(super) path: PathBuf,
    pub(super) export: Arc<Export>,
    pub(super) listener: Listener,
    /// What the holder stores beside the socket.
    pub(super) blob: Vec<u8>,
    pub(super) holder: Mutex<Option<Arc<HolderClient>>>,
    pub(super) table: Arc<Table>,
}

impl NbdDevice {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts, turn: Mutex::new(()), detached: AtomicBool::new(false) }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.parts.path
    }

    fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Acquire)
    }

    /// Takes no more clients, and sends those away that there are. Without `force`, refused while
    /// there are any.
    fn close(&self, force: bool) -> Result<(), DeviceError> {
        let deadline = Instant::now() + PASSERS_BY;
        while let Err(clients) = self.parts.export.close(force) {
            if Instant::now() >= deadline {
                let users = clients.into_iter().map(|peer| User::NbdClient { peer }).collect();
                return Err(DeviceError::Busy { path: self.parts.path.clone(), users });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn take_away(&self) -> Result<(), DeviceError> {
        self.parts.listener.close();
        self.parts.table.remove(&self.parts.export);
        self.detached.store(true, Ordering::Release);
        match std::fs::remove_file(&self.parts.path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(device = self.parts.name, %source, "its socket can't be removed");
            }
            _ => {}
        }
        let holder = self.parts.holder.lock();
        match holder.as_ref().map(|holder| holder.forget(&self.parts.held)) {
            // A holder that has ended keeps nothing.
            Some(Err(HolderError::Broken { source })) => {
                tracing::warn!(device = self.parts.name, %source, "the holder is gone");
                Ok(())
            }
            Some(other) => Ok(other?),
            None => Ok(()),
        }
    }
}

impl Device for NbdDevice {
    fn block_device(&self) -> Option<&Path> {
        None
    }

    fn address(&self) -> String {
        format!("nbd+unix:///{}?socket={}", self.parts.name, self.parts.path.display())
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::NbdSocket
    }

    fn size_bytes(&self) -> u64 {
        self.parts.export.size()
    }

    fn is_serving(&self) -> bool {
        !self.is_detached() && !self.parts.export.has_failed()
    }

    fn grow(&self) -> Result<u64, DeviceError> {
        if self.is_detached() {
            let (name, missing) = (self.parts.name.clone(), "the attached device");
            return Err(DeviceError::Gone { name, missing });
        }
        // Whoever connects is told the size; who is connected may use it, but has no way to be told.
        Ok(self.parts.export.size())
    }

    fn detach(&self) -> Result<(), DeviceError> {
        let _turn = self.turn.lock();
        if self.is_detached() {
            return Ok(());
        }
        self.close(self.parts.export.has_failed())?;
        self.take_away()?;
        tracing::info!(device = self.parts.name, "detached");
        Ok(())
    }

    fn fail(&self) -> Result<(), DeviceError> {
        // Not under the lock: a detach may be waiting for its clients.
        self.parts.export.fail();
        tracing::warn!(device = self.parts.name, "failed: all I/O gets errors");
        Ok(())
    }

    fn detach_forced(&self) -> Result<(), DeviceError> {
        self.fail()?;
        // A detach that waits for its clients has the turn for a second at most.
        let _turn = self.turn.lock();
        if self.is_detached() {
            return Ok(());
        }
        self.close(true)?;
        self.take_away()
    }

    fn keep_with(&self, holder: &Arc<HolderClient>) -> Result<bool, DeviceError> {
        let _turn = self.turn.lock();
        let mut keeps = self.parts.holder.lock();
        if keeps.as_ref().is_some_and(|keeps| Arc::ptr_eq(keeps, holder)) {
            return Ok(false);
        }
        if self.is_detached() {
            let (name, missing) = (self.parts.name.clone(), "the attached device");
            return Err(DeviceError::Gone { name, missing });
        }
        let socket = self.parts.listener.socket();
        holder.keep(&self.parts.held, &self.parts.blob, &[socket], Mode::Keep)?;
        *keeps = Some(Arc::clone(holder));
        Ok(true)
    }

    fn stats(&self) -> DeviceStats {
        self.parts.export.stats()
    }
}
