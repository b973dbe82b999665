//! Seeds that have failed once, each with what it found. They are run before all others, for ever.

/// The seeds.
pub const REGRESSIONS: &[(u64, &str)] = &[
    (84, "a joiner that said hello under an earlier epoch was never joined"),
    (163, "missing blocks were asked for while their copies were on the way"),
    (250, "a tail was given up though a replica that had it came back with Raft's majority"),
    (276, "a join stood still when its first position was lost with a stream"),
    (392, "a joiner without space lost the records that it had dropped"),
    (579, "a joiner without space gathered copies without bound"),
    (677, "a repair was appended without space set aside for it"),
    (822, "the checker took an older client's flush for one of a newer client's writes"),
    (1083, "a client forgot that it had let go of an acknowledged write"),
    (2728, "a block left out of a join read as zeros where it had never been"),
    (11_850, "what a peer had answered was forgotten when another was placed: taken for stuck"),
    (11_900, "what a peer had answered was forgotten when another was placed: taken for silent"),
    (1_723, "rot in the log of the last replica in sync, cut off by power, was taken for a stall"),
    (1893, "a new epoch in the middle of a join ended it"),
];

/// Seeds that fail today and whose cause is not settled, with what they break: test runs leave them
/// out and say so, a soak does not. Each must leave this list by being understood.
pub const OPEN: &[(u64, &str)] = &[];
