//! Leases: what each client may keep of an inode, and taking that back.
//!
//! ```text
//!   grant ──> held ──recall sent──> recalled to a lower level ──answered──> held lower, or gone
//!                └── given back, session over ──> gone
//! ```
//! Levels, each allowing what the one below does:
//!
//! | level | allows | beside others' |
//! |---|---|---|
//! | `Read` | caching attributes and data, or a directory's entries | `Read` |
//! | `Sole` | telling the kernel, too: entry times above zero | nothing |
//! | `Write` | buffering data, size and dates | nothing |
//! | `Exclusive` | (directories) doing operations inside at the client | nothing |
//!
//! `Exclusive` is given with all that a directory holds, or on one that is empty because it is new; what
//! is made under it is its maker's from birth ([`Leases::born`]).
//!
//! Every change of what a client holds has a number of its own, [`LeaseNumber`], which a recall
//! carries and its answer repeats: so an answer is never taken for that of another recall.
//!
//! An inode of which leases are recalled twice within a short time is *contended* from then on, until
//! none was wanted for as long: nothing is granted on it, and operations come to the coordinator. Two
//! hosts that create files in one directory in turn then need one round trip each, not a recall each.
//! The exception is `Read` for pages of a client's kernel ([`Leases::grant_kept`]): a mapping shows
//! them until a recall takes them back.
//!
//! Both ends are bounded: a session holds at most a certain number of leases, and nothing new is
//! granted to it beyond; and a recall that isn't answered within [`Bounds::recall`] says that its
//! holder is to be fenced, however alive it seems.
//!
//! Invariants ([`Leases::check_invariants`]): levels that exclude each other are never held on one
//! inode, and a lease that is being recalled counts as what it was until the answer is there.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mooring_terms::Time;

use crate::{Ino, SessionId};

/// What a client may keep; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LeaseLevel {
    /// Nothing.
    None,
    /// Attributes and data, or entries.
    Read,
    /// The same, and nobody else has any.
    Sole,
    /// Changes.
    Write,
    /// Everything inside a directory.
    Exclusive,
}

/// The number of one change of what a client holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseNumber(pub u64);

/// What an operation does with an inode, as far as others' leases are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// It reads: others may read, too, and must have written back what they changed.
    Read,
    /// It changes something: others may keep nothing.
    Change,
}

/// A recall to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// To whom.
    pub session: SessionId,
    /// Of what.
    pub ino: Ino,
    /// What it may keep: what it has above this it writes back and invalidates.
    pub keep: LeaseLevel,
    /// The number of what is recalled; the answer carries it.
    pub number: LeaseNumber,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    level: LeaseLevel,
    number: LeaseNumber,
    /// To what level it is being recalled, and since when.
    recalled: Option<(LeaseLevel, Time)>,
}

/// What keeps the table small, and those who wait from waiting for ever.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long after a recall another one makes the inode contended, and for how long it is.
    pub contention: Duration,
    /// How long a client has for answering a recall.
    pub recall: Duration,
    /// How many leases a session can hold.
    pub held: usize,
}

#[derive(Clone, Debug, Default)]
struct OfInode {
    holders: BTreeMap<SessionId, Held>,
    /// When something was recalled last.
    recalled_at: Option<Time>,
    contended_until: Time,
}

/// All leases of a volume.
#[derive(Clone, Debug)]
pub struct Leases {
    inodes: BTreeMap<Ino, OfInode>,
    /// What each session holds, so that its end costs no search.
    sessions: BTreeMap<SessionId, BTreeSet<Ino>>,
    /// What is being recalled, by when that began.
    recalls: BTreeSet<(Time, SessionId, Ino)>,
    last: LeaseNumber,
    bounds: Bounds,
}

impl LeaseLevel {
    /// The most that somebody else may hold beside this.
    fn beside(self) -> Self {
        match self {
            Self::None => Self::Exclusive,
            Self::Read => Self::Read,
            Self::Sole | Self::Write | Self::Exclusive => Self::None,
        }
    }
}

impl Need {
    /// The most that somebody else may hold when the operation is done.
    fn beside(self) -> LeaseLevel {
        match self {
            Self::Read => LeaseLevel::Read,
            Self::Change => LeaseLevel::None,
        }
    }
}

impl Leases {
    /// No leases.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let (inodes, sessions, recalls) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { inodes, sessions, recalls, last: LeaseNumber(0), bounds }
    }

    /// What `session` holds of `ino`; what is being recalled, it still holds.
    #[must_use]
    pub fn level(&self, session: SessionId, ino: Ino) -> LeaseLevel {
        self.held(session, ino).map_or(LeaseLevel::None, |held| held.level)
    }

    /// Grants up to `wanted`, as far as it goes without taking anything from anybody: possibly
    /// nothing new. Returns what the session holds now, if it holds anything.
    pub fn grant(
        &mut self,
        now: Time,
        session: SessionId,
        ino: Ino,
        wanted: LeaseLevel,
    ) -> Option<(LeaseLevel, LeaseNumber)> {
        let mut most = wanted;
        if let Some(of) = self.inodes.get(&ino) {
            if now < of.contended_until {
                most = LeaseLevel::None;
            }
            for (_, held) in of.holders.iter().filter(|(holder, _)| **holder != session) {
                // What is being recalled is waited for by somebody: nothing is granted beside it.
                most = most.min(if held.recalled.is_some() {
                    LeaseLevel::None
                } else {
                    held.level.beside()
                });
            }
        }
        let own = self.held(session, ino);
        let unchanged = own.is_some_and(|own| own.recalled.is_some() || own.level >= most);
        let full = own.is_none() && self.count(session) >= self.bounds.held;
        if unchanged || full || most == LeaseLevel::None {
            return own.map(|own| (own.level, own.number));
        }
        Some((most, self.put(session, ino, most)))
    }

    /// Grants `Read` for bytes that only a recall brings back, also of what is contended or being
    /// recalled for somebody: whoever waits recalls this one, too. Nothing, beside what excludes it or
    /// beyond the session's bound.
    pub fn grant_kept(
        &mut self,
        session: SessionId,
        ino: Ino,
    ) -> Option<(LeaseLevel, LeaseNumber)> {
        if let Some(own) = self.held(session, ino) {
            return Some((own.level, own.number));
        }
        let fits = self.allows(session, ino, Need::Read);
        let full = self.count(session) >= self.bounds.held;
        (fits && !full).then(|| (LeaseLevel::Read, self.put(session, ino, LeaseLevel::Read)))
    }

    /// The lease on an inode that `session` has just made: nobody else can have heard of it.
    pub fn born(&mut self, session: SessionId, ino: Ino, level: LeaseLevel) -> LeaseNumber {
        match self.held(session, ino) {
            // It was reclaimed before the batch that made it was done.
            Some(held) => held.number,
            None => self.put(session, ino, level),
        }
    }

    /// What `session` held of an inode that it has removed, and knows to be gone.
    pub fn gone(&mut self, session: SessionId, ino: Ino) {
        if self.held(session, ino).is_some_and(|held| held.recalled.is_none()) {
            self.remove(session, ino);
        }
    }

    /// Takes a lease that a client says it held before a failover; whether it can have it.
    pub fn reclaim(
        &mut self,
        session: SessionId,
        ino: Ino,
        level: LeaseLevel,
    ) -> Option<LeaseNumber> {
        let of = self.inodes.get(&ino).into_iter().flat_map(|of| &of.holders);
        let mut others = of.filter(|(holder, _)| **holder != session);
        let compatible = others.all(|(_, held)| held.level <= level.beside());
        (compatible && level > LeaseLevel::None).then(|| self.put(session, ino, level))
    }

    /// Whether nobody but `session` holds more of `ino` than `need` leaves them.
    #[must_use]
    pub fn allows(&self, session: SessionId, ino: Ino, need: Need) -> bool {
        let of = self.inodes.get(&ino).into_iter().flat_map(|of| &of.holders);
        of.into_iter().all(|(&holder, held)| holder == session || held.level <= need.beside())
    }

    /// Recalls what stands in the way of `need`. Those that are on the way already are not sent
    /// again, unless they would leave too much.
    pub fn recall(
        &mut self,
        now: Time,
        session: SessionId,
        ino: Ino,
        need: Need,
        out: &mut Vec<Recall>,
    ) {
        let Some(of) = self.inodes.get_mut(&ino) else { return };
        let keep = need.beside();
        let before = out.len();
        for (&holder, held) in &mut of.holders {
            if holder == session || held.level <= keep {
                continue;
            }
            if held.recalled.is_none_or(|(recalled, _)| recalled > keep) {
                // A recall that goes further is due when the one before was.
                let since = held.recalled.map_or(now, |(_, since)| since);
                held.recalled = Some((keep, since));
                self.recalls.insert((since, holder, ino));
                out.push(Recall { session: holder, ino, keep, number: held.number });
            }
        }
        if out.len() > before {
            if of.recalled_at.is_some_and(|at| now < at + self.bounds.contention) {
                of.contended_until = now + self.bounds.contention;
            }
            of.recalled_at = Some(now);
        }
    }

    /// A client's answer to a recall, or its own giving back: it keeps `kept`. An answer for another
    /// number is old, and does nothing; whether it did something.
    pub fn answered(
        &mut self,
        session: SessionId,
        ino: Ino,
        number: LeaseNumber,
        kept: LeaseLevel,
    ) -> bool {
        match self.held(session, ino) {
            Some(held) if held.number == number && kept < held.level => {
                // An answer to a milder recall than the one on the way: that one is still to come.
                let recalled = held.recalled.filter(|&(recalled, _)| recalled < kept);
                if let (Some((_, since)), None) = (held.recalled, recalled) {
                    self.recalls.remove(&(since, session, ino));
                }
                if kept == LeaseLevel::None {
                    self.remove(session, ino);
                } else if let Some(of) = self.inodes.get_mut(&ino) {
                    of.holders.insert(session, Held { level: kept, number, recalled });
                }
                true
            }
            _ => false,
        }
    }

    /// Forgets all that a session held: it gave it back, or it is fenced. The inodes are returned.
    pub fn end_session(&mut self, session: SessionId) -> BTreeSet<Ino> {
        let inos = self.sessions.remove(&session).unwrap_or_default();
        for &ino in &inos {
            self.remove(session, ino);
        }
        inos
    }

    /// Who holds what of `ino`.
    pub fn of(&self, ino: Ino) -> impl Iterator<Item = (SessionId, LeaseLevel)> + '_ {
        let of = self.inodes.get(&ino).into_iter().flat_map(|of| &of.holders);
        of.map(|(&session, held)| (session, held.level))
    }

    /// What is being recalled from a session, to be sent again.
    pub fn recalls_of(&self, session: SessionId) -> impl Iterator<Item = Recall> + '_ {
        let of = self.recalls.iter().filter(move |(_, holder, _)| *holder == session);
        of.filter_map(move |&(_, _, ino)| {
            let held = self.held(session, ino)?;
            Some(Recall { session, ino, keep: held.recalled?.0, number: held.number })
        })
    }

    /// Whether `session` was asked to give something of `ino` back and has not answered yet.
    #[must_use]
    pub fn is_recalled(&self, session: SessionId, ino: Ino) -> bool {
        self.held(session, ino).is_some_and(|held| held.recalled.is_some())
    }

    /// Who has not answered a recall in time.
    #[must_use]
    pub fn overdue(&self, now: Time) -> BTreeSet<SessionId> {
        let over = self.recalls.iter().take_while(|(since, ..)| *since + self.bounds.recall <= now);
        over.map(|(_, session, _)| *session).collect()
    }

    /// When the next recall is to be answered at the latest, of those of sessions that `serving`
    /// says are served.
    pub fn next_overdue(&self, serving: impl Fn(SessionId) -> bool) -> Option<Time> {
        let next = self.recalls.iter().find(|(_, session, _)| serving(*session));
        next.map(|&(since, ..)| since + self.bounds.recall)
    }

    /// How many leases a session holds.
    #[must_use]
    pub fn count(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, BTreeSet::len)
    }

    /// The levels of all that a session holds.
    pub fn levels_of(&self, session: SessionId) -> impl Iterator<Item = LeaseLevel> + '_ {
        let inos = self.sessions.get(&session).into_iter().flatten();
        inos.map(move |&ino| self.level(session, ino))
    }

    fn held(&self, session: SessionId, ino: Ino) -> Option<Held> {
        self.inodes.get(&ino)?.holders.get(&session).copied()
    }

    fn put(&mut self, session: SessionId, ino: Ino, level: LeaseLevel) -> LeaseNumber {
        self.last = LeaseNumber(self.last.0 + 1);
        let number = self.last;
        let held = Held { level, number, recalled: None };
        self.forget_recall(session, ino);
        self.inodes.entry(ino).or_default().holders.insert(session, held);
        self.sessions.entry(session).or_default().insert(ino);
        number
    }

    fn forget_recall(&mut self, session: SessionId, ino: Ino) {
        if let Some((_, since)) = self.held(session, ino).and_then(|held| held.recalled) {
            self.recalls.remove(&(since, session, ino));
        }
    }

    fn remove(&mut self, session: SessionId, ino: Ino) {
        self.forget_recall(session, ino);
        if let Some(of) = self.inodes.get_mut(&ino) {
            of.holders.remove(&session);
        }
        if let Some(inos) = self.sessions.get_mut(&session) {
            inos.remove(&ino);
            if inos.is_empty() {
                self.sessions.remove(&session);
            }
        }
    }

    /// Forgets inodes that nobody holds and that are not contended any more.
    pub fn forget_idle(&mut self, now: Time) {
        let recent = |at: Time| now < at + self.bounds.contention;
        self.inodes.retain(|_, of| {
            !of.holders.is_empty() || now < of.contended_until || of.recalled_at.is_some_and(recent)
        });
    }

    /// Of how many inodes something is known.
    pub(crate) fn inodes(&self) -> u64 {
        self.inodes.len() as u64
    }

    /// Panics if the table is not what the module's comment promises.
    ///
    /// # Panics
    /// See there.
    pub fn check_invariants(&self) {
        let (mut count, mut recalled) = (0, 0);
        for (ino, of) in &self.inodes {
            for (session, held) in &of.holders {
                count += 1;
                assert!(held.level > LeaseLevel::None, "{session:?} holds nothing of {ino:?}");
                assert!(held.recalled.is_none_or(|(recalled, _)| recalled < held.level));
                let due = held
                    .recalled
                    .is_none_or(|(_, since)| self.recalls.contains(&(since, *session, *ino)));
                assert!(due, "nobody watches over the recall of {ino:?} from {session:?}");
                recalled += usize::from(held.recalled.is_some());
                let listed = self.sessions.get(session).is_some_and(|inos| inos.contains(ino));
                assert!(listed, "{session:?} is not known to hold {ino:?}");
                for (other, beside) in of.holders.iter().filter(|(other, _)| *other != session) {
                    let fits = beside.level <= held.level.beside();
                    assert!(fits, "{ino:?}: {session:?} {held:?} beside {other:?} {beside:?}");
                }
            }
        }
        assert_eq!(count, self.sessions.values().map(BTreeSet::len).sum::<usize>());
        assert_eq!(recalled, self.recalls.len());
    }
}
