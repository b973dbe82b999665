//! What the core wants done: one match.

use std::sync::mpsc::Sender;

use mooring_sharedfs_core::coordinator::{Command, Event, ToClient};
use mooring_sharedfs_core::{Context, Damage, FsError, QuarantineNumber, SessionId, Transaction};
use mooring_sharedfs_store::Blocks;
use mooring_terms::NodeId;

use crate::clock::Clock;
use crate::report::{Report, Stopped};
use crate::shell::{Arrival, Shell};
use crate::slices::{Done, SliceError};

/// As many runs of one freeing are discarded; what a file of more pieces had beyond is given back all the
/// same, and takes space in the pools until it is written again.
const RUNS_MAX: usize = 1 << 20;

impl<B: Blocks> Shell<B> {
    /// Does what the core wants, in order.
    pub(crate) fn carry_out(&mut self, commands: Vec<Command>) -> Result<(), Stopped> {
        for command in commands {
            if let Command::Ended(session, reason) = &command {
                let row = self.core.session_row(*session).copied();
                self.observer.report(Report::Ended(*session, row, *reason));
            }
            if let Some((session, message)) = ToClient::of(&command) {
                self.address(session, message);
                continue;
            }
            match command {
                Command::Journal(number, record) => {
                    self.recorded = number;
                    self.record_bytes += record.bytes();
                    self.records.push(record);
                }
                Command::ReadBlocks(io, blocks) => {
                    let done = move |read| Event::BlocksRead(io, read);
                    self.slices.read(blocks, event(&self.sender, done));
                }
                Command::WriteBlocks(io, blocks) => {
                    let done = move |versions| Event::BlocksWritten(io, versions);
                    self.slices.write(blocks, event(&self.sender, done));
                }
                Command::FlushSlices(io, slices) => {
                    let done = move |()| Event::Flushed(io);
                    self.slices.flush(slices, surely(&self.sender, done));
                }
                Command::Register(session) => {
                    if let Some(row) = self.core.session_row(session) {
                        self.slices.register(session, NodeId(row.node));
                    }
                }
                Command::Fence(session) => {
                    let done = move |()| Event::Fenced(session);
                    self.slices.fence(session, surely(&self.sender, done));
                }
                Command::Discard(number) => self.discard(number)?,
                Command::Continue => self.again = true,
                Command::Sync => self.syncing.want(),
                Command::Damaged(damage) => self.observer.report(Report::Damaged(damage)),
                // Messages, which were sent.
                _ => {}
            }
        }
        Ok(())
    }

    fn address(&mut self, session: SessionId, message: ToClient) {
        let (peer, message) = match message {
            ToClient::Begun(ours, session) => match self.streams.begun(ours, session) {
                Some((peer, theirs)) => (Some(peer), ToClient::Begun(theirs, session)),
                None => (None, message),
            },
            message => (self.streams.of(session), message),
        };
        // Without a stream it is lost: the client asks again when it has one, and is asked again.
        if let Some(peer) = peer {
            self.tell(peer, message);
        }
    }

    fn discard(&mut self, number: QuarantineNumber) -> Result<(), Stopped> {
        let view = Transaction::new(&self.store, Context { now: Clock::date() });
        let sender = self.sender.clone();
        let runs = match view.quarantined(number, RUNS_MAX) {
            Ok(runs) => runs,
            // They are never given away again: who gives them back will find the same.
            Err(FsError::Damaged(damage)) => {
                self.observer.report(Report::Damaged(damage));
                let _ = sender.send(Arrival::Done(Ok(Event::Discarded(number))));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let done: Done<()> = Box::new(move |discarded| {
            let event = match discarded {
                // It may still be done later, on blocks that are somebody else's by then.
                Err(error @ (SliceError::Fenced | SliceError::Lost)) => Err(error),
                // Space is all that a discard is about.
                Ok(()) | Err(SliceError::NoSpace | SliceError::Damaged(_)) => {
                    Ok(Event::Discarded(number))
                }
            };
            drop(sender.send(Arrival::Done(event)));
        });
        self.slices.discard(runs, done);
        Ok(())
    }
}

/// Makes an event of an outcome, also of one that concerns a request alone.
fn event<T>(
    sender: &Sender<Arrival>,
    make: impl FnOnce(mooring_sharedfs_core::Result<T>) -> Event + Send + 'static,
) -> Done<T> {
    let sender = sender.clone();
    Box::new(move |result| {
        let event = match result {
            Ok(value) => Ok(make(Ok(value))),
            Err(SliceError::Damaged(block)) => {
                Ok(make(Err(FsError::Damaged(Damage::Block(block)))))
            }
            Err(SliceError::NoSpace) => Ok(make(Err(FsError::NoSpace { coming: false }))),
            Err(error @ (SliceError::Fenced | SliceError::Lost)) => Err(error),
        };
        // Whoever is gone needs nothing.
        drop(sender.send(Arrival::Done(event)));
    })
}

/// Makes an event of an outcome that can't fail unless everything does.
fn surely<T>(sender: &Sender<Arrival>, make: impl FnOnce(T) -> Event + Send + 'static) -> Done<T> {
    let sender = sender.clone();
    Box::new(move |result| drop(sender.send(Arrival::Done(result.map(make)))))
}
