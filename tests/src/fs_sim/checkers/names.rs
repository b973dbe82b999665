//! The names of the shared directory as one value: what they stand for, and what calls do with them.
//!
//! Each name has 21 bits: 0 where it is not there, else an inode; or, with the highest of them, the number
//! of a call of unknown outcome that may have made one.

use super::{Act, Result};
use crate::fs_sim::NAMES;

const BITS: u32 = 21;
const UNKNOWN: u64 = 1 << (BITS - 1);

const _: () = assert!(NAMES as u32 * BITS <= u64::BITS);

fn get(names: u64, name: u8) -> u64 {
    names >> (u32::from(name) * BITS) & ((1 << BITS) - 1)
}

fn set(names: u64, name: u8, value: u64) -> u64 {
    let at = u32::from(name) * BITS;
    names & !(((1 << BITS) - 1) << at) | value << at
}

fn inode(value: u64) -> u64 {
    assert!(value < UNKNOWN, "inode {value} has no room");
    value
}

/// What of a call stands in for an inode that nobody was told of.
fn made_by(call: u64) -> u64 {
    UNKNOWN | (call & (UNKNOWN - 1))
}

/// The names after a call has come; nothing if it can't come here. Without a result nobody knows it.
pub fn take(names: u64, call: u64, act: Act, result: Option<Result>) -> Option<u64> {
    let refused = result == Some(Result::Refused);
    match act {
        Act::Lookup(name) => match result {
            Some(Result::Done(found)) => look(names, name, inode(found)),
            _ => None,
        },
        Act::Create(name) => match (get(names, name) != 0, result) {
            (true, Some(Result::Refused)) => Some(names),
            (false, Some(Result::Done(made))) => Some(set(names, name, inode(made))),
            (false, None) => Some(set(names, name, made_by(call))),
            _ => None,
        },
        Act::Unlink(name) => match get(names, name) != 0 {
            true if !refused => Some(set(names, name, 0)),
            false if refused => Some(names),
            _ => None,
        },
        Act::Rename(from, to, exchange) => {
            let (moved, replaced) = (get(names, from), get(names, to));
            match moved != 0 && (!exchange || replaced != 0) {
                true if refused => None,
                // Two names of one inode stay.
                true if moved == replaced => Some(names),
                true => {
                    let left = if exchange { replaced } else { 0 };
                    Some(set(set(names, from, left), to, moved))
                }
                false => refused.then_some(names),
            }
        }
        Act::Link(of, to) => {
            let named = (0..NAMES).any(|name| get(names, name) == of);
            // What a call of unknown outcome made may be this inode.
            let maybe = (0..NAMES).any(|name| get(names, name) & UNKNOWN != 0);
            match get(names, to) == 0 && (named || maybe) {
                true if !refused => Some(set(names, to, inode(of))),
                true if !named => Some(names),
                false if refused => Some(names),
                _ => None,
            }
        }
        Act::Read | Act::Write(_) => None,
    }
}

/// A lookup says what an inode is that a call of unknown outcome made: under all its names.
fn look(names: u64, name: u8, found: u64) -> Option<u64> {
    let there = get(names, name);
    if there & UNKNOWN == 0 {
        return (there == found).then_some(names);
    }
    let known = |names: u64, other: u8| match get(names, other) == there {
        true => set(names, other, found),
        false => names,
    };
    (found != 0).then(|| (0..NAMES).fold(names, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Option<Result> = Some(Result::Done(0));

    fn with(names: &[(u8, u64)]) -> u64 {
        names.iter().fold(0, |all, &(name, value)| set(all, name, value))
    }

    #[test]
    fn a_rename_moves_replaces_and_exchanges() {
        let both = with(&[(0, 7), (1, 8)]);
        assert_eq!(take(both, 1, Act::Rename(0, 1, false), DONE), Some(with(&[(1, 7)])));
        assert_eq!(take(both, 1, Act::Rename(0, 1, true), DONE), Some(with(&[(0, 8), (1, 7)])));
        let one = with(&[(0, 7)]);
        assert_eq!(take(one, 1, Act::Rename(0, 1, true), DONE), None, "there is only one");
        assert_eq!(take(one, 1, Act::Rename(1, 0, false), Some(Result::Refused)), Some(one));
        assert_eq!(take(one, 1, Act::Rename(0, 1, false), Some(Result::Refused)), None);
        let same = with(&[(0, 7), (2, 7)]);
        assert_eq!(take(same, 1, Act::Rename(0, 2, false), DONE), Some(same));
    }

    #[test]
    fn what_nobody_was_told_of_is_known_under_all_its_names_once_it_is_seen() {
        let made = take(0, 5, Act::Create(0), None).expect("it may come");
        let moved = take(made, 6, Act::Rename(0, 2, false), DONE).expect("it is there");
        assert_eq!(take(moved, 7, Act::Lookup(0), DONE), Some(moved));
        let seen = take(moved, 8, Act::Lookup(2), Some(Result::Done(9))).expect("it may be");
        assert_eq!(seen, with(&[(2, 9)]));
        assert_eq!(take(seen, 9, Act::Lookup(2), Some(Result::Done(10))), None);
    }

    #[test]
    fn a_link_needs_an_inode_with_a_name_and_a_name_that_is_free() {
        let one = with(&[(0, 7)]);
        assert_eq!(take(one, 1, Act::Link(7, 1), DONE), Some(with(&[(0, 7), (1, 7)])));
        assert_eq!(take(one, 1, Act::Link(7, 0), DONE), None);
        assert_eq!(take(one, 1, Act::Link(8, 1), DONE), None, "it has no name any more");
        assert_eq!(take(one, 1, Act::Link(8, 1), Some(Result::Refused)), Some(one));
    }
}
