use proptest::prelude::*;

use super::*;

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const FILE: Ino = Ino(9);

fn at(ms: u64) -> Time {
    Time(Duration::from_millis(ms))
}

fn leases() -> Leases {
    let (contention, recall) = (Duration::from_millis(100), Duration::from_secs(10));
    Leases::new(Bounds { contention, recall, held: 100 })
}

fn recalls(leases: &mut Leases, now: Time, session: SessionId, need: Need) -> Vec<Recall> {
    let mut out = Vec::new();
    leases.recall(now, session, FILE, need, &mut out);
    leases.check_invariants();
    out
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    let mut leases = leases();
    assert_eq!(leases.grant(at(0), A, FILE, LeaseLevel::Sole).unwrap().0, LeaseLevel::Sole);
    // Nothing is granted beside it, and nothing is taken away without a recall.
    assert_eq!(leases.grant(at(0), B, FILE, LeaseLevel::Read), None);
    assert!(!leases.allows(B, FILE, Need::Read));
    let sent = recalls(&mut leases, at(0), B, Need::Read);
    assert_eq!((sent[0].session, sent[0].keep), (A, LeaseLevel::Read));
    assert!(leases.answered(A, FILE, sent[0].number, LeaseLevel::Read));
    assert!(leases.allows(B, FILE, Need::Read));
    assert_eq!(leases.grant(at(0), B, FILE, LeaseLevel::Write).unwrap().0, LeaseLevel::Read);
    assert!(!leases.allows(B, FILE, Need::Change), "A reads, too");
    assert!(leases.allows(A, FILE, Need::Read));
}

#[test]
fn a_recall_is_sent_once_unless_more_must_go() {
    let mut leases = leases();
    let (_, number) = leases.grant(at(0), A, FILE, LeaseLevel::Write).unwrap();
    let sent = recalls(&mut leases, at(0), B, Need::Read);
    assert_eq!(sent.len(), 1);
    assert_eq!(recalls(&mut leases, at(0), B, Need::Read), []);
    let more = recalls(&mut leases, at(0), B, Need::Change);
    assert_eq!((more[0].keep, more[0].number), (LeaseLevel::None, number));
    // The answer to the first one leaves the second on the way.
    assert!(leases.answered(A, FILE, number, LeaseLevel::Read));
    assert!(!leases.allows(B, FILE, Need::Change));
    assert_eq!(recalls(&mut leases, at(0), B, Need::Change), []);
    assert!(leases.answered(A, FILE, number, LeaseLevel::None));
    assert!(leases.allows(B, FILE, Need::Change));
    assert!(!leases.answered(A, FILE, number, LeaseLevel::None), "an answer counts once");
}

#[test]
fn an_answer_to_an_older_lease_takes_nothing_from_a_newer_one() {
    let mut leases = leases();
    let (_, old) = leases.grant(at(0), A, FILE, LeaseLevel::Read).unwrap();
    assert!(leases.answered(A, FILE, old, LeaseLevel::None));
    let (_, new) = leases.grant(at(500), A, FILE, LeaseLevel::Write).unwrap();
    assert!(!leases.answered(A, FILE, old, LeaseLevel::None));
    assert_eq!(leases.level(A, FILE), LeaseLevel::Write);
    assert!(leases.answered(A, FILE, new, LeaseLevel::None));
}

#[test]
fn what_two_hosts_want_in_turn_nobody_gets_for_a_while() {
    let mut leases = leases();
    let sole = |leases: &mut Leases, now, who| {
        leases.grant(now, who, FILE, LeaseLevel::Sole).map(|(level, _)| level)
    };
    let give_back = |leases: &mut Leases, now, to| {
        let sent = recalls(leases, now, to, Need::Change);
        assert_eq!(sole(leases, now, to), None, "a recall is on the way");
        for recall in sent {
            leases.answered(recall.session, FILE, recall.number, LeaseLevel::None);
        }
    };
    assert_eq!(sole(&mut leases, at(0), A), Some(LeaseLevel::Sole));
    // Once is no quarrel: the other one has it now.
    give_back(&mut leases, at(10), B);
    assert_eq!(sole(&mut leases, at(10), B), Some(LeaseLevel::Sole));
    give_back(&mut leases, at(60), A);
    assert_eq!(sole(&mut leases, at(60), A), None);
    assert_eq!(sole(&mut leases, at(159), A), None);
    assert_eq!(sole(&mut leases, at(160), A), Some(LeaseLevel::Sole));
}

#[test]
fn nothing_is_granted_beside_what_is_being_recalled() {
    let mut leases = leases();
    let (c, d) = (SessionId(3), SessionId(4));
    for reader in [A, B] {
        leases.grant(at(0), reader, FILE, LeaseLevel::Read);
    }
    assert_eq!(recalls(&mut leases, at(0), c, Need::Change).len(), 2);
    assert_eq!(leases.grant(at(0), d, FILE, LeaseLevel::Read), None, "somebody waits");
}

#[test]
fn pages_of_a_kernel_get_their_lease_whoever_waits_and_lose_it_to_whoever_waits() {
    let mut leases = leases();
    let (c, d) = (SessionId(3), SessionId(4));
    leases.grant(at(0), A, FILE, LeaseLevel::Read);
    assert_eq!(recalls(&mut leases, at(0), c, Need::Change).len(), 1);
    assert_eq!(leases.grant(at(0), d, FILE, LeaseLevel::Read), None);
    let (level, number) = leases.grant_kept(d, FILE).unwrap();
    assert_eq!(level, LeaseLevel::Read);
    assert_eq!(leases.grant_kept(d, FILE), Some((level, number)), "it is held");
    leases.check_invariants();
    let more = recalls(&mut leases, at(1), c, Need::Change);
    assert_eq!(more.iter().map(|recall| recall.session).collect::<Vec<_>>(), [d]);
    leases.end_session(A);
    leases.end_session(d);
    leases.grant(at(5000), A, FILE, LeaseLevel::Write);
    assert_eq!(leases.grant_kept(d, FILE), None, "what excludes it excludes it");
}

#[test]
fn after_a_failover_only_what_fits_is_reclaimed() {
    let mut leases = leases();
    assert!(leases.reclaim(A, FILE, LeaseLevel::Write).is_some());
    assert!(leases.reclaim(B, FILE, LeaseLevel::Read).is_none());
    assert!(leases.reclaim(A, FILE, LeaseLevel::Write).is_some(), "it may say so twice");
    assert_eq!(leases.end_session(A), BTreeSet::from([FILE]));
    assert!(leases.reclaim(B, FILE, LeaseLevel::Read).is_some());
    leases.check_invariants();
}

fn level() -> impl Strategy<Value = LeaseLevel> {
    prop_oneof![Just(LeaseLevel::Read), Just(LeaseLevel::Sole), Just(LeaseLevel::Write)]
}

#[derive(Clone, Debug)]
enum Step {
    Grant(u64, u64, LeaseLevel),
    Recall(u64, u64, bool),
    /// The answer to the recall of this number among those on the way.
    Answer(usize),
    GiveBack(u64, u64),
    End(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (session, ino) = (1..4_u64, 1..3_u64);
    prop_oneof![
        4 => (session.clone(), ino.clone(), level()).prop_map(|(s, i, l)| Step::Grant(s, i, l)),
        3 => (session.clone(), ino.clone(), any::<bool>()).prop_map(|(s, i, c)| Step::Recall(s, i, c)),
        4 => (0..4_usize).prop_map(Step::Answer),
        1 => (session.clone(), ino).prop_map(|(s, i)| Step::GiveBack(s, i)),
        1 => session.prop_map(Step::End),
    ]
}

proptest! {
    /// Clients as they are: each believes what it was told last. What they believe never conflicts,
    /// and once every recall is answered, whoever asked may go on.
    #[test]
    fn clients_never_believe_in_what_excludes_each_other(steps in proptest::collection::vec(step(), 1..80)) {
        let mut leases = leases();
        let mut believed: BTreeMap<(SessionId, Ino), (LeaseLevel, LeaseNumber)> = BTreeMap::new();
        let mut on_the_way: Vec<Recall> = Vec::new();
        let answer = |leases: &mut Leases,
                          believed: &mut BTreeMap<(SessionId, Ino), (LeaseLevel, LeaseNumber)>,
                          recall: Recall| {
            let key = (recall.session, recall.ino);
            if let Some((level, number)) = believed.get_mut(&key)
                && *number == recall.number
            {
                *level = (*level).min(recall.keep);
                leases.answered(recall.session, recall.ino, recall.number, *level);
                if *level == LeaseLevel::None {
                    believed.remove(&key);
                }
            }
        };
        for (i, step) in steps.into_iter().enumerate() {
            let now = at(i as u64 * 30);
            match step {
                Step::Grant(session, ino, wanted) => {
                    let key = (SessionId(session), Ino(ino));
                    if let Some(granted) = leases.grant(now, key.0, key.1, wanted) {
                        believed.insert(key, granted);
                    }
                }
                Step::Recall(session, ino, change) => {
                    let need = if change { Need::Change } else { Need::Read };
                    leases.recall(now, SessionId(session), Ino(ino), need, &mut on_the_way);
                }
                Step::Answer(index) if index < on_the_way.len() => {
                    let recall = on_the_way.remove(index);
                    answer(&mut leases, &mut believed, recall);
                }
                Step::Answer(_) => {}
                Step::GiveBack(session, ino) => {
                    let key = (SessionId(session), Ino(ino));
                    if let Some((_, number)) = believed.remove(&key) {
                        leases.answered(key.0, key.1, number, LeaseLevel::None);
                    }
                }
                Step::End(session) => {
                    leases.end_session(SessionId(session));
                    believed.retain(|(of, _), _| of.0 != session);
                    on_the_way.retain(|recall| recall.session.0 != session);
                }
            }
            leases.check_invariants();
            for (&(session, ino), &(level, _)) in &believed {
                prop_assert_eq!(leases.level(session, ino), level, "both sides know the same");
                for (&(other, _), &(beside, _)) in believed.iter().filter(|((_, of), _)| *of == ino) {
                    prop_assert!(other == session || beside <= level.beside());
                }
            }
        }
        let mut last = Vec::new();
        leases.recall(at(0), SessionId(9), Ino(1), Need::Change, &mut last);
        for recall in on_the_way.drain(..).chain(last) {
            answer(&mut leases, &mut believed, recall);
        }
        prop_assert!(leases.allows(SessionId(9), Ino(1), Need::Change));
    }
}
