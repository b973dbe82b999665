//! Batches: what a client has done under exclusive leases, and answered its programs already.
//!
//! All steps are one record, with one reply: after a failover a batch was done, or it comes again as a
//! whole. Each step is done by the very operation that the client did it with, on the rows that the
//! client knew, so none can be refused. If one is all the same (the volume is damaged, or the client
//! wrong), those behind it are not done either.

use std::collections::BTreeSet;

use super::ending::Work;
use super::event::Command;
use super::execute::Executed;
use super::request::{Answer, Operation, Reply, RequestId, Step};
use super::{Coordinator, Turn};
use crate::file::Commit;
use crate::format::Record;
use crate::leases::LeaseLevel;
use crate::ops::{Make, New, Progress, Removed};
use crate::tree::{Layered, TreeStore};
use crate::{Context, FsError, Ino, QuarantineNumber, Result, SessionId, Transaction};

/// What the tables learn from a step.
enum Deed<'s> {
    Nothing,
    Made(Ino, LeaseLevel),
    Removed(Option<Removed>),
    Committed(Ino, &'s Commit),
}

impl Deed<'_> {
    /// The inode whose blocks the step has freed, if any.
    fn freed_of(&self) -> Option<Ino> {
        match self {
            Self::Removed(Some(removed)) => Some(removed.attributes.ino),
            Self::Committed(ino, _) => Some(*ino),
            _ => None,
        }
    }
}

impl Coordinator {
    /// Does the steps of a batch whose needs are met.
    pub(super) fn execute_batch<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        id: RequestId,
        steps: &[Step],
    ) -> Result<Executed> {
        let mut layers = Layered::new(turn.store);
        let (mut deeds, mut claims) = (Vec::new(), Vec::new());
        let mut refused = None;
        for step in steps {
            let context = Context { now: step.date };
            let mut transaction = Transaction::new(&layers, context).naming(step.made);
            match self.deed(&mut transaction, id.session, step) {
                Ok(deed) => {
                    let outcome = transaction.finish();
                    layers.put(&outcome.record.changes);
                    claims.extend(outcome.record.claims);
                    deeds.push((deed, outcome.freed));
                }
                Err(FsError::Unavailable) => return Err(FsError::Unavailable),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        let reply = Reply::Batch { done: deeds.len() as u64, refused };
        let mut last = Transaction::new(&layers, Context { now: turn.date });
        last.record_reply(id.session, id.slot, id.number, Answer::encode_reply(&reply));
        let replied = last.finish().record.changes;
        layers.put(&replied);
        let record = Record { changes: layers.into_changes(), claims };
        self.record(turn, record)?;
        if let Some(FsError::Damaged(damage)) = refused {
            turn.out.push(Command::Damaged(damage));
        }
        for (deed, freed) in deeds {
            self.learn_deed(turn, id.session, &deed, freed)?;
        }
        Ok(Executed::Replied(reply))
    }

    fn deed<'s>(
        &self,
        t: &mut Transaction<'_>,
        session: SessionId,
        step: &'s Step,
    ) -> Result<Deed<'s>> {
        let caller = &step.caller;
        let open = |ino: Ino| self.opens.is_open(ino);
        Ok(match &step.operation {
            Operation::Make { dir, name, make } if step.made.is_some() => {
                let made = t.make(caller, *dir, name, make)?;
                Deed::Made(made.ino, level_of(make))
            }
            Operation::Link { ino, dir, name } => {
                t.link(caller, *ino, *dir, name)?;
                Deed::Nothing
            }
            Operation::Unlink { dir, name } => {
                Deed::Removed(Some(t.unlink(caller, *dir, name, open)?))
            }
            Operation::Rmdir { dir, name } => {
                Deed::Removed(Some(t.rmdir(caller, *dir, name, open)?))
            }
            Operation::Rename { from, to, mode } => {
                let (from, to) = ((from.0, &from.1), (to.0, &to.1));
                Deed::Removed(t.rename(caller, from, to, *mode, open)?)
            }
            Operation::Setattr { ino, set } if set.size.is_none() => {
                match t.setattr(caller, *ino, set)? {
                    (_, Progress::Done) => Deed::Nothing,
                    (_, Progress::More) => return Err(FsError::Invalid),
                }
            }
            Operation::Commit { ino, commit } => {
                t.commit(session, *ino, commit)?;
                Deed::Committed(*ino, commit)
            }
            _ => return Err(FsError::Invalid),
        })
    }

    fn learn_deed<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        session: SessionId,
        deed: &Deed<'_>,
        freed: Option<QuarantineNumber>,
    ) -> Result<()> {
        if let Deed::Committed(ino, commit) = deed {
            self.layouts.entry(*ino).or_default().insert(session);
            self.wrote(turn, *ino, commit)?;
        }
        if let Some(number) = freed {
            let of = deed.freed_of().and_then(|ino| self.layouts.get(&ino));
            let holders: BTreeSet<SessionId> = of.into_iter().flatten().copied().collect();
            self.freed(turn, number, holders);
        }
        match deed {
            Deed::Made(ino, level) => {
                let number = self.leases.born(session, *ino, *level);
                self.granted.push((*ino, *level, number));
            }
            Deed::Removed(Some(removed)) => {
                let ino = removed.attributes.ino;
                if removed.orphan && !self.opens.is_open(ino) {
                    self.work.insert(Work::Reap(ino));
                    turn.out.push(Command::Continue);
                } else if !removed.orphan && removed.attributes.links == 0 {
                    self.granted.retain(|(born, ..)| *born != ino);
                    self.leases.gone(session, ino);
                    self.forget_layout(session, ino);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What whoever makes something holds of it.
fn level_of(make: &Make) -> LeaseLevel {
    match make.new {
        New::Directory => LeaseLevel::Exclusive,
        _ => LeaseLevel::Write,
    }
}
