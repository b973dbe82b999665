//! Which session speaks on which stream.
//!
//! ```text
//!   new stream ──Begin──> begun ──Begun──> session's      a session has one stream: the newest on which
//!        └───────Hello────────────────────> session's     its client has said who it is
//! ```
//! What comes on any other stream is given to nobody: an answer that was overtaken by a recall on the newer
//! stream would be believed.

use std::collections::BTreeMap;

use mooring_sharedfs_core::SessionId;
use mooring_sharedfs_core::coordinator::ToCoordinator;
use mooring_terms::NodeId;

use crate::peers::PeerId;

/// What a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// A session was asked for, by the client's number and by ours.
    Beginning { theirs: u64, ours: u64 },
    /// It is the session's.
    Of(SessionId),
}

/// What is to be done with a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Give it to the core.
    Event(ToCoordinator),
    /// Give it to the core, and cut this older stream.
    Supersedes(ToCoordinator, PeerId),
    /// Its stream was superseded: nothing.
    Nothing,
    /// No client says that: cut the stream.
    Rubbish,
}

/// All streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    standing: BTreeMap<PeerId, Standing>,
    of: BTreeMap<SessionId, PeerId>,
    beginning: BTreeMap<u64, PeerId>,
    last_begin: u64,
}

impl Streams {
    /// Takes a message in. `node_of` says whose a session is, if there is such a session.
    pub(crate) fn take(
        &mut self,
        from: PeerId,
        message: ToCoordinator,
        node_of: impl FnOnce(SessionId) -> Option<NodeId>,
    ) -> Taken {
        match (message, self.standing.get(&from)) {
            (ToCoordinator::Begin(theirs, row), None) => {
                if row.node != from.node.0 {
                    return Taken::Rubbish;
                }
                self.last_begin += 1;
                let ours = self.last_begin;
                self.standing.insert(from, Standing::Beginning { theirs, ours });
                self.beginning.insert(ours, from);
                Taken::Event(ToCoordinator::Begin(ours, row))
            }
            (ToCoordinator::Hello(session), None) => self.hello(from, session, node_of(session)),
            (ToCoordinator::Begin(..) | ToCoordinator::Hello(_), Some(_)) => Taken::Rubbish,
            (message, Some(&Standing::Of(session))) if session_of(&message) == Some(session) => {
                match self.of.get(&session) {
                    Some(&newest) if newest == from => Taken::Event(message),
                    _ => Taken::Nothing,
                }
            }
            _ => Taken::Rubbish,
        }
    }

    fn hello(&mut self, from: PeerId, session: SessionId, node: Option<NodeId>) -> Taken {
        let before = self.of.get(&session).copied();
        // Who speaks for a session that is over is told so by the core; but never in another's place.
        if node.is_some_and(|node| node != from.node)
            || before.is_some_and(|before| before.stream > from.stream || before.node != from.node)
        {
            return Taken::Rubbish;
        }
        self.standing.insert(from, Standing::Of(session));
        self.of.insert(session, from);
        let hello = ToCoordinator::Hello(session);
        match before {
            Some(before) => Taken::Supersedes(hello, before),
            None => Taken::Event(hello),
        }
    }

    /// A session that was asked for is there: where it was asked for, and under which number there.
    /// `None` if that stream is gone.
    pub(crate) fn begun(&mut self, ours: u64, session: SessionId) -> Option<(PeerId, u64)> {
        let peer = self.beginning.remove(&ours)?;
        match self.standing.get_mut(&peer) {
            Some(standing @ &mut Standing::Beginning { theirs, .. }) => {
                *standing = Standing::Of(session);
                // Somebody has spoken for it before there was one: what else it says is rubbish.
                if let Some(stranger) = self.of.insert(session, peer) {
                    self.standing.remove(&stranger);
                }
                Some((peer, theirs))
            }
            _ => None,
        }
    }

    /// The stream of a session.
    pub(crate) fn of(&self, session: SessionId) -> Option<PeerId> {
        self.of.get(&session).copied()
    }

    /// A stream is gone.
    pub(crate) fn gone(&mut self, peer: PeerId) {
        match self.standing.remove(&peer) {
            Some(Standing::Of(session)) if self.of(session) == Some(peer) => {
                self.of.remove(&session);
            }
            Some(Standing::Beginning { ours, .. }) => drop(self.beginning.remove(&ours)),
            _ => {}
        }
    }

    /// All streams that are there.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.standing.keys().copied()
    }
}

/// The session that a message names.
fn session_of(message: &ToCoordinator) -> Option<SessionId> {
    match message {
        ToCoordinator::Hello(session)
        | ToCoordinator::Renew(session, _)
        | ToCoordinator::Answered(session, ..)
        | ToCoordinator::LayoutsReturned(session, _)
        | ToCoordinator::Reclaim(session, _)
        | ToCoordinator::End(session) => Some(*session),
        ToCoordinator::Request(request) => Some(request.id.session),
        ToCoordinator::Begin(..) => None,
    }
}
