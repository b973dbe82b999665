//! What people ask and tell a running coordinator. Answered between two turns, when the tree is as the
//! journal has it.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use mooring_sharedfs_core::check::check;
use mooring_sharedfs_core::coordinator::{ClientStatus, Event};
use mooring_sharedfs_core::ops::Statistics;
use mooring_sharedfs_core::{Context, Damage, FsError, SessionId, Transaction};
use mooring_sharedfs_store::Blocks;

use crate::clock::Clock;
use crate::coordinator::Coordinator;
use crate::report::Stopped;
use crate::shell::{Arrival, Shell};

/// How long a coordinator may take to answer; it may be waiting for a slice in failover.
const PATIENCE: Duration = Duration::from_millis(1_200);

/// A question, and where its answer goes.
pub(crate) enum Question {
    Clients(Sender<Vec<ClientStatus>>),
    Statistics(Sender<Result<Statistics, FsError>>),
    Evict(SessionId, Sender<bool>),
    Check(Sender<Result<Vec<Damage>, FsError>>),
}

/// It has stopped, or is held up: nothing can be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator does not answer")]
pub struct Silent;

impl Coordinator {
    /// Who its clients are, and what each holds and waits for.
    ///
    /// # Errors
    /// [`Silent`].
    pub fn clients(&self) -> Result<Vec<ClientStatus>, Silent> {
        self.ask(Question::Clients, PATIENCE)
    }

    /// How much space there is and is left.
    ///
    /// # Errors
    /// [`Silent`]; or damage.
    pub fn statistics(&self) -> Result<Result<Statistics, FsError>, Silent> {
        self.ask(Question::Statistics, PATIENCE)
    }

    /// Ends a client's session: it is fenced, and what it held is given away. Whether there was one.
    ///
    /// # Errors
    /// [`Silent`].
    pub fn evict(&self, session: SessionId) -> Result<bool, Silent> {
        self.ask(|answer| Question::Evict(session, answer), PATIENCE)
    }

    /// Checks the whole structure as it is now, on a thread of its own, while it is used. Empty: it is
    /// sound. Takes some 20 bytes of memory for each inode and extent.
    ///
    /// # Errors
    /// [`Silent`], also when it takes longer than `patience`; or the tree can't be read.
    pub fn check(&self, patience: Duration) -> Result<Result<Vec<Damage>, FsError>, Silent> {
        self.ask(Question::Check, patience)
    }

    fn ask<T>(
        &self,
        question: impl FnOnce(Sender<T>) -> Question,
        patience: Duration,
    ) -> Result<T, Silent> {
        let (told, answer) = channel();
        self.send(Arrival::Question(question(told)));
        answer.recv_timeout(patience).map_err(|_| Silent)
    }
}

impl<B: Blocks> Shell<B> {
    /// Answers what was asked, between two turns.
    pub(crate) fn answer(&mut self) -> Result<(), Stopped> {
        for question in std::mem::take(&mut self.questions) {
            // Whoever has not waited for the answer needs none.
            match question {
                Question::Clients(told) => told.send(self.core.clients()).unwrap_or_default(),
                Question::Statistics(told) => {
                    let view = Transaction::new(&self.store, Context { now: Clock::date() });
                    told.send(view.statfs()).unwrap_or_default();
                }
                Question::Evict(session, told) => {
                    let known = self.core.session_row(session).is_some();
                    if known {
                        self.handle(Event::End(session))?;
                        self.settle()?;
                    }
                    told.send(known).unwrap_or_default();
                }
                Question::Check(told) => {
                    let snapshot = self.store.snapshot()?;
                    let begun = std::thread::Builder::new()
                        .name("fsck".to_owned())
                        .spawn(move || told.send(check(&snapshot)).unwrap_or_default());
                    if let Err(error) = begun {
                        tracing::error!(%error, "no thread to check on");
                    }
                }
            }
        }
        Ok(())
    }
}
