//! Requests that wait, and taking them up again.

use super::event::Command;
use super::execute::Executed;
use super::request::{Answer, Reply, Request};
use super::{Coordinator, Turn};
use crate::leases::{LeaseLevel, Need};
use crate::ops::Progress;
use crate::sessions::SessionState;
use crate::tree::TreeStore;
use crate::{Context, FsError, Ino, Result, Transaction};

/// A request that is not done yet.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    request: Request,
    /// What it needed when it was tried last.
    needs: Vec<(Ino, Need)>,
    /// Some of it was done, or there was no space: its turn comes with [`super::Event::Continue`].
    later: bool,
}

impl Waiting {
    pub(super) fn new(request: Request) -> Self {
        Self { request, needs: Vec::new(), later: false }
    }
}

impl Coordinator {
    /// Tries all that wait, in the order of their coming.
    pub(super) fn retry<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>) -> Result<()> {
        let arrivals: Vec<u64> = self.waiting.keys().copied().collect();
        for arrival in arrivals {
            if self.waiting.get(&arrival).is_some_and(|waiting| !waiting.later) {
                self.retry_one(turn, arrival)?;
            }
        }
        Ok(())
    }

    /// Lets those go on that waited for [`super::Event::Continue`].
    pub(super) fn retry_later(&mut self) {
        for waiting in self.waiting.values_mut() {
            waiting.later = false;
        }
    }

    /// Tries one request.
    pub(super) fn retry_one<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        arrival: u64,
    ) -> Result<()> {
        let Some(mut waiting) = self.waiting.remove(&arrival) else { return Ok(()) };
        let session = waiting.request.id.session;
        if self.sessions.state(session) != Some(SessionState::Active) {
            turn.out.push(Command::NoSession(waiting.request.id));
            return Ok(());
        }
        let view = Transaction::new(turn.store, Context { now: turn.date });
        waiting.needs = match waiting.request.operation.needs(&view) {
            Ok(needs) => needs,
            Err(error) => return self.refuse(turn, &waiting.request, error),
        };
        if self.sessions.in_grace() || self.is_behind(arrival, &waiting) {
            self.waiting.insert(arrival, waiting);
            return Ok(());
        }
        let in_the_way =
            waiting.needs.iter().any(|&(ino, need)| !self.leases.allows(session, ino, need));
        if in_the_way {
            let mut recalls = Vec::new();
            for &(ino, need) in &waiting.needs {
                self.leases.recall(turn.now, session, ino, need, &mut recalls);
            }
            // Behind the answers that granted what is recalled.
            for recall in recalls {
                self.tell(turn.out, Command::Recall(recall));
            }
            self.waiting.insert(arrival, waiting);
            return Ok(());
        }
        match self.execute(turn, &waiting.request, &waiting.needs) {
            Ok(Executed::Replied(reply)) => self.answer(turn, &waiting.request, reply),
            Ok(Executed::Step(Progress::More)) => {
                waiting.later = true;
                self.waiting.insert(arrival, waiting);
                turn.out.push(Command::Continue);
            }
            Ok(Executed::Step(Progress::Done)) => {
                self.answer(turn, &waiting.request, Reply::Done);
            }
            // Blocks are on their way back: they will do.
            Err(FsError::NoSpace { coming: true }) if self.quarantined().next().is_some() => {
                waiting.later = true;
                self.waiting.insert(arrival, waiting);
                turn.out.push(Command::Sync);
            }
            Err(FsError::Unavailable) => return Err(FsError::Unavailable),
            Err(error) => return self.refuse(turn, &waiting.request, error),
        }
        Ok(())
    }

    fn refuse<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        request: &Request,
        error: FsError,
    ) -> Result<()> {
        if let FsError::Damaged(damage) = error {
            turn.out.push(Command::Damaged(damage));
        }
        self.answer(turn, request, Reply::Refused(error));
        Ok(())
    }

    /// Answers a request that is done, with what it gets of the leases that it wanted.
    fn answer<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>, request: &Request, reply: Reply) {
        let id = request.id;
        let bytes = Answer::encode_reply(&reply);
        self.sessions.replied(id.session, id.slot, id.number, &bytes);
        let mut leases = Vec::new();
        let refused = matches!(reply, Reply::Refused(_));
        for &(ino, level) in request.wanted.iter().filter(|_| !refused) {
            // A later request would only have it recalled at once.
            if self.waiting.values().any(|w| w.needs.iter().any(|&(other, _)| other == ino)) {
                continue;
            }
            let level = level.min(LeaseLevel::Write);
            if let Some((level, number)) = self.leases.grant(turn.now, id.session, ino, level) {
                leases.push((ino, level, number));
            }
        }
        self.tell(turn.out, Command::Answer(id, Answer { reply, leases }));
    }

    /// Whether somebody who came earlier waits for one of the same inodes. Whoever holds a lease that
    /// covers what it asks passes: it may be writing back what the other waits for.
    fn is_behind(&self, arrival: u64, waiting: &Waiting) -> bool {
        let session = waiting.request.id.session;
        let mut earlier = self.waiting.range(..arrival).map(|(_, earlier)| earlier);
        earlier.any(|earlier| {
            earlier.request.id.session != session
                && waiting.needs.iter().any(|&(ino, need)| {
                    let meets = earlier.needs.iter().any(|&(other, others)| {
                        other == ino && (need == Need::Change || others == Need::Change)
                    });
                    let covering = match need {
                        Need::Read => LeaseLevel::Read,
                        Need::Change => LeaseLevel::Write,
                    };
                    meets && self.leases.level(session, ino) < covering
                })
        })
    }
}
