//! Records from the primary into the log: the same for a secondary and for a joining replica.

use mooring_terms::{Body, Epoch, Record};

use crate::command::Command;
use crate::core::{Core, mutated};
use crate::history;
use crate::message::Append;
use crate::space;

/// What became of the records of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// At least one was appended.
    Appended,
    /// All were there already.
    Known,
    /// One before them is missing, or one was damaged on the way: send again.
    Gap,
    /// They contradict what this log has.
    Diverged,
    /// There is no space set aside for them.
    NoSpace,
}

/// Appends what is new of `append`. Records of the epoch `paid_from` on are covered by the credit
/// that this replica has granted; for older ones (and all, at a joining replica) it pays by itself.
pub(crate) fn take(
    core: &mut Core,
    out: &mut Vec<Command>,
    append: &Append,
    paid_from: Option<Epoch>,
) -> Taken {
    let mut previous = append.previous;
    let mut taken = Taken::Known;
    for record in &append.records {
        let version = record.version;
        if version.sequence != previous.sequence.next() || version.epoch < previous.epoch {
            return Taken::Diverged;
        }
        if version.sequence <= core.log.last.sequence {
            let own = history::version_of(&core.log.state.epochs, version.sequence);
            let unchecked = mutated!(core, PositionsBeforePromise);
            if own.is_some_and(|own| own != version) && !unchecked {
                return Taken::Diverged;
            }
        } else if previous.sequence != core.log.last.sequence {
            return Taken::Gap;
        } else if previous != core.log.last && !mutated!(core, PositionsBeforePromise) {
            return Taken::Diverged;
        } else if is_damaged(record) {
            return Taken::Gap;
        } else if paid_from.is_none_or(|from| version.epoch < from)
            && core.space.reserved < space::cost(record)
        {
            return Taken::NoSpace;
        } else {
            core.space.spend(space::cost(record));
            core.log.append(out, record.clone());
            taken = Taken::Appended;
        }
        previous = version;
    }
    if append.records.is_empty() && append.previous.sequence > core.log.last.sequence {
        return Taken::Gap;
    }
    taken
}

/// Whether the record's data doesn't match its checksums.
pub(crate) fn is_damaged(record: &Record) -> bool {
    match &record.body {
        Body::Write { data, .. } => data.first_corrupt().is_some(),
        Body::Discard(_) | Body::Control(_) => false,
    }
}
