//! The daemon's side of links: where processes of the cluster's nodes come in.
//!
//! ```text
//!   link ── requests of sessions ──> slices here              replies go back on the link
//!        ── ask ───────────────────> what the configuration says
//!        ── call, letter, knock ───> the coordinator, if it is here (`letters.rs`)
//! ```
//! Links from other nodes come in at the node's port, whose handshake says which node it is; those of
//! this machine at a unix socket, whose other end must be root's.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use mooring_replication::ClientEvent;
use mooring_terms::{NodeId, SessionId, SliceIndex, VolumeId};
use mooring_transport::{Link, LinkHandler, Message};
use parking_lot::Mutex;

use super::letters::post;
use super::proto::{Ask, LinkMessage};
use crate::data_plane::DataPlane;
use crate::wire::Home;

/// Bytes that wait for one process at most.
pub const LINK_WINDOW: usize = 64 << 20;
/// Slices that one question may name.
const MOST_ASKED: usize = 1_024;
/// After a process could not be taken in: it may be that there are too many files open.
const PAUSE: Duration = Duration::from_millis(50);

impl LinkHandler for DataPlane {
    fn opened(&self, link: &Arc<Link>) {
        tracing::debug!(peer = %link.peer(), "a process has linked itself");
    }

    fn messages(&self, link: &Arc<Link>, messages: Vec<Message>) {
        let home = Home::Link(Arc::clone(link));
        for (message, letter) in self.take_requests(&home, messages) {
            match message {
                LinkMessage::Ask(ask) => self.tell_of(link, &ask),
                LinkMessage::Knock { volume, session, slice } => {
                    self.knocked(link, volume, session, slice);
                }
                LinkMessage::Call { volume, client } => self.desk().call(link, volume, client),
                LinkMessage::Letter(place) => self.desk().letter(link, place, letter),
                LinkMessage::Told(_)
                | LinkMessage::Admitted { .. }
                | LinkMessage::Here(_)
                | LinkMessage::Away(_) => {
                    tracing::warn!(peer = %link.peer(), "a process said what only daemons say");
                    link.cut();
                }
            }
        }
    }

    fn closed(&self, link: &Arc<Link>) {
        self.forget_home(&Home::Link(Arc::clone(link)));
        self.desk().gone(link);
    }
}

impl DataPlane {
    fn tell_of(&self, link: &Arc<Link>, ask: &Ask) {
        let Some(config) = self.config() else { return };
        let slices = &ask.slices[..ask.slices.len().min(MOST_ASKED)];
        let mut told = config.tell(ask.volume, slices);
        if ask.identity && link.is_local() {
            told.identity = config.identity();
        }
        post(link, LinkMessage::Told(Box::new(told)));
    }

    /// A session was refused somewhere: it is let in there, if it is its own node that says so.
    fn knocked(&self, link: &Arc<Link>, volume: VolumeId, session: SessionId, slice: SliceIndex) {
        if !self.desk().may_knock(volume, session, link.peer()) {
            return;
        }
        if let Some(coordinator) = self.volume(volume) {
            coordinator.tell(ClientEvent::Admit { slice, session });
        }
    }
}

/// The unix socket where processes of this machine's root come in; closed, with its links, when
/// dropped.
pub struct Door {
    listener: UnixListener,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    links: Mutex<Vec<Weak<Link>>>,
    over: AtomicBool,
}

impl Door {
    /// Listens at `path`; a socket that lies there from an earlier daemon is replaced.
    pub fn open(path: &Path, plane: &Arc<DataPlane>, me: NodeId) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let door = Self { listener: listener.try_clone()?, shared: Arc::default() };
        let (shared, plane) = (Arc::clone(&door.shared), Arc::downgrade(plane));
        thread::Builder::new().name("link-door".to_owned()).spawn(move || {
            while !shared.over.load(Ordering::Acquire) {
                let taken = listener.accept();
                let Some(plane) = plane.upgrade().filter(|_| !shared.is_over()) else { return };
                if let Err(error) = taken.and_then(|(socket, _)| shared.take_in(socket, plane, me))
                {
                    tracing::warn!(%error, "a process was not let in");
                    thread::sleep(PAUSE);
                }
            }
        })?;
        Ok(door)
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn take_in(&self, socket: UnixStream, plane: Arc<DataPlane>, me: NodeId) -> io::Result<()> {
        let who = rustix::net::sockopt::socket_peercred(&socket)?;
        if !may_enter(who.uid) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let link = Link::over_unix(socket, me, LINK_WINDOW)?;
        let mut links = self.links.lock();
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(&link));
        drop(links);
        if self.is_over() {
            link.cut();
        }
        thread::Builder::new().name("link".to_owned()).spawn(move || link.run(&*plane))?;
        Ok(())
    }
}

/// Root speaks for its node; nobody else does.
fn may_enter(uid: rustix::fs::Uid) -> bool {
    uid.is_root()
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        for link in self.shared.links.lock().iter().filter_map(Weak::upgrade) {
            link.cut();
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::Uid;

    use super::*;

    #[test]
    fn only_root_may_enter() {
        assert!(may_enter(Uid::ROOT));
        assert!(!may_enter(Uid::from_raw(1_000)));
    }
}
