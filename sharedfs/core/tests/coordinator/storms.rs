//! Many requests of several clients in any order, with slow answers, lost clients and failovers; what
//! clients believe never conflicts, everything that was asked is answered in the end, and the tree is
//! sound.

use mooring_sharedfs_core::coordinator::{Operation, Reply};
use mooring_sharedfs_core::leases::LeaseLevel;
use mooring_sharedfs_core::{Ino, SessionId};
use proptest::prelude::*;

use super::chmod;
use super::cluster::{Cluster, commit, file, name};

#[derive(Clone, Debug)]
enum Step {
    Create(usize, u8),
    Unlink(usize, u8),
    Lease(usize, u64, bool),
    Chmod(usize, u64),
    Write(usize, u64),
    Close(usize, u64),
    Slow(usize),
    Answer(usize),
    Cut(usize),
    HoldJournal(bool),
    Flush,
    Pass(u64),
    FailOver,
}

fn step() -> impl Strategy<Value = Step> {
    let (who, ino) = (0..3_usize, 2..6_u64);
    prop_oneof![
        4 => (who.clone(), 0..4_u8).prop_map(|(w, n)| Step::Create(w, n)),
        2 => (who.clone(), 0..4_u8).prop_map(|(w, n)| Step::Unlink(w, n)),
        5 => (who.clone(), ino.clone(), any::<bool>()).prop_map(|(w, i, l)| Step::Lease(w, i, l)),
        3 => (who.clone(), ino.clone()).prop_map(|(w, i)| Step::Chmod(w, i)),
        3 => (who.clone(), ino.clone()).prop_map(|(w, i)| Step::Write(w, i)),
        2 => (who.clone(), ino).prop_map(|(w, i)| Step::Close(w, i)),
        2 => who.clone().prop_map(Step::Slow),
        3 => who.clone().prop_map(Step::Answer),
        1 => who.prop_map(Step::Cut),
        2 => any::<bool>().prop_map(Step::HoldJournal),
        2 => Just(Step::Flush),
        2 => (1..800_u64).prop_map(Step::Pass),
        1 => Just(Step::FailOver),
    ]
}

/// Asks, if the client has nothing on the way.
fn ask(
    c: &mut Cluster,
    busy: &mut [bool],
    clients: &[SessionId],
    who: usize,
    operation: Operation,
) {
    if !busy[who] {
        c.ask_wanting(clients[who], operation, &[(Ino::ROOT, LeaseLevel::Sole)]);
        busy[who] = c.reply(clients[who]).is_none();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn coherence_and_an_answer_to_everything(steps in proptest::collection::vec(step(), 1..60)) {
        let mut c = Cluster::new();
        let clients: Vec<SessionId> = (0..3).map(|_| c.mount()).collect();
        let mut busy = [false; 3];
        let mut cut = [false; 3];
        for step in steps {
            match step {
                Step::Create(w, n) => ask(&mut c, &mut busy, &clients, w, file(&n.to_string())),
                Step::Unlink(w, n) => {
                    let operation = Operation::Unlink { dir: Ino::ROOT, name: name(&n.to_string()) };
                    ask(&mut c, &mut busy, &clients, w, operation);
                }
                Step::Lease(w, i, write) => {
                    let level = if write { LeaseLevel::Write } else { LeaseLevel::Read };
                    let operation = Operation::Lease { ino: Ino(i), level };
                    ask(&mut c, &mut busy, &clients, w, operation);
                }
                Step::Chmod(w, i) => ask(&mut c, &mut busy, &clients, w, chmod(Ino(i), 0o600)),
                Step::Write(w, i) => ask(&mut c, &mut busy, &clients, w, commit(Ino(i), b"some")),
                Step::Close(w, i) => {
                    ask(&mut c, &mut busy, &clients, w, Operation::Close { ino: Ino(i) });
                }
                Step::Slow(w) => c.slow_to_answer(clients[w]),
                Step::Answer(w) => c.answer_recalls(clients[w]),
                Step::Cut(w) => {
                    c.cut_off(clients[w]);
                    cut[w] = true;
                }
                Step::HoldJournal(hold) => {
                    c.hold_journal = hold;
                    c.deliver();
                }
                Step::Flush => {
                    c.hold_journal = false;
                    c.flush();
                }
                Step::Pass(ms) => {
                    let alive: Vec<SessionId> =
                        (0..3).filter(|&w| !cut[w]).map(|w| clients[w]).collect();
                    c.pass(ms, &alive);
                }
                Step::FailOver => {
                    c.hold_journal = false;
                    c.fail_over();
                    for w in (0..3).filter(|&w| !cut[w]) {
                        c.reclaim(clients[w]);
                        if busy[w] {
                            c.ask_again(clients[w]);
                        }
                    }
                }
            }
            for (w, busy) in busy.iter_mut().enumerate() {
                *busy = *busy && c.reply(clients[w]).is_none();
            }
            for ino in (1..6).map(Ino) {
                let believed: Vec<LeaseLevel> = (0..3)
                    .filter(|&w| !cut[w])
                    .map(|w| c.believes(clients[w], ino))
                    .filter(|&level| level > LeaseLevel::None)
                    .collect();
                let alone = believed.iter().any(|&level| level > LeaseLevel::Read);
                prop_assert!(!alone || believed.len() == 1, "{ino:?}: {believed:?}");
            }
            c.assert_sound();
        }
        // Everything heals: whoever is cut off is fenced, everybody else answers.
        c.hold_journal = false;
        let alive: Vec<SessionId> = (0..3).filter(|&w| !cut[w]).map(|w| clients[w]).collect();
        for &session in &alive {
            c.answer_recalls(session);
        }
        c.pass(3000, &alive);
        c.flush();
        prop_assert_eq!(c.waiting(), 0);
        for &session in &alive {
            let asked = busy[clients.iter().position(|&other| other == session).unwrap()];
            prop_assert!(!asked || c.reply(session).is_some(), "no answer");
            c.ask(session, Operation::Statfs);
            prop_assert!(matches!(c.reply(session), Some(Reply::Statistics(_))));
            prop_assert!(!c.has_recalls(session));
        }
        c.assert_sound();
    }
}
