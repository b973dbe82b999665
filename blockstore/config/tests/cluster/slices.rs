//! Compare-and-set of slices: who may ask, what is refused, what is never given up.

use mooring_config::{
    AttachMode, Boot, ChangeReason, ChangeRefused, Command, Done, Member, Refused, SliceChange,
};
use mooring_terms::{AttachmentEpoch, Epoch, ErrorKind, NodeId, VolumeId};

use crate::{Cluster, first_slice};

struct Slice {
    c: Cluster,
    v: VolumeId,
    primary: NodeId,
    secondaries: [NodeId; 2],
}

/// Three nodes, one volume of three replicas.
fn slice() -> Slice {
    let mut c = Cluster::of(3);
    let v = c.volume("data", 3);
    let config = c.slice(v);
    let others: Vec<NodeId> =
        config.in_sync.iter().map(|m| m.node).filter(|n| *n != config.primary).collect();
    Slice { c, v, primary: config.primary, secondaries: [others[0], others[1]] }
}

impl Slice {
    /// A change by `by` to this primary and these in-sync nodes, as their members are now.
    fn change(&self, by: NodeId, reason: ChangeReason, nodes: &[NodeId]) -> SliceChange {
        let config = self.c.slice(self.v);
        let members = nodes.iter().map(|node| *config.member(*node).unwrap());
        SliceChange {
            slice: first_slice(self.v),
            expected: config.epoch,
            by,
            primary: nodes[0],
            in_sync: members.collect(),
            reason,
        }
    }

    fn ask(&mut self, change: SliceChange) -> Result<Epoch, ChangeRefused> {
        match self.c.must(Command::change_slices(vec![change])) {
            Done::Slices(answers) => answers[0].clone(),
            other => panic!("{other:?}"),
        }
    }
}

use ChangeReason::{AllRestarted, HandOver, Joined, PrimaryLost, PrimaryRestarted, SecondaryLost};

#[test]
fn whoever_is_first_wins_and_the_other_learns_its_epoch_is_old() {
    let mut s = slice();
    let [a, b] = s.secondaries;
    let by_primary = s.change(s.primary, SecondaryLost, &[s.primary, b]);
    let by_secondary = s.change(a, PrimaryLost, &[a, b]);
    assert_eq!(s.ask(by_secondary.clone()), Ok(Epoch(2)));
    let (expected, current) = (Epoch(1), Epoch(2));
    assert_eq!(s.ask(by_primary), Err(ChangeRefused::EpochChanged { expected, current }));
    let config = s.c.slice(s.v);
    assert_eq!((config.primary, config.in_sync.len(), config.joining.len()), (a, 2, 1));
    assert_eq!(s.ask(by_secondary), Ok(Epoch(2)), "asked again after a lost answer");
}

#[test]
fn only_the_primary_and_its_successor_have_a_say() {
    let mut s = slice();
    let [a, b] = s.secondaries;
    let p = s.primary;
    for (by, reason, nodes) in [
        (a, SecondaryLost, vec![p, a]),
        (a, HandOver, vec![a, b, p]),
        (a, PrimaryLost, vec![b, a]),
        (a, PrimaryLost, vec![a, b, p]),
        (p, PrimaryLost, vec![a, b]),
        (NodeId(9), AllRestarted, vec![a, b, p]),
        (a, Joined, vec![p, a, b]),
        (b, PrimaryRestarted, vec![p, a, b]),
    ] {
        let change = s.change(by, reason, &nodes);
        let refused = s.ask(change).unwrap_err();
        assert!(matches!(refused, ChangeRefused::NotEntitled { .. }), "{reason:?} by {by:?}");
    }
}

#[test]
fn the_in_sync_set_never_shrinks_below_the_minimum() {
    let mut s = slice();
    let [a, b] = s.secondaries;
    let lost = s.change(a, PrimaryLost, &[a, b]);
    s.ask(lost).unwrap();
    let lost = s.change(a, SecondaryLost, &[a]);
    assert_eq!(s.ask(lost), Err(ChangeRefused::TooFew { left: 1, min: 2 }));
}

#[test]
fn a_joined_replica_must_be_named_with_its_pools_present_opening() {
    let mut s = slice();
    let [a, b] = s.secondaries;
    let lost = s.change(s.primary, SecondaryLost, &[s.primary, b]);
    s.ask(lost).unwrap();
    let joiner = *s.c.slice(s.v).member(a).unwrap();
    s.c.reopen(joiner.pool);
    let stale = s.change(s.primary, Joined, &[s.primary, a, b]);
    assert_eq!(s.ask(stale.clone()), Err(ChangeRefused::UnknownMember { node: a }));
    let now = s.c.current(&joiner);
    let in_sync = stale.in_sync.iter().map(|m| if m.node == a { now } else { *m }).collect();
    assert_eq!(s.ask(SliceChange { in_sync, ..stale }), Ok(Epoch(3)));
    assert!(s.c.slice(s.v).joining.is_empty());
}

#[test]
fn a_restarted_replica_is_never_made_primary_as_it_is() {
    let mut s = slice();
    let [a, b] = s.secondaries;
    let member = *s.c.slice(s.v).member(a).unwrap();
    s.c.reopen(member.pool);
    let takes_over = s.change(a, PrimaryLost, &[a, b]);
    assert_eq!(s.ask(takes_over), Err(ChangeRefused::PrimaryNotLevel { node: a }));
    let handed_over = s.change(s.primary, HandOver, &[a, b, s.primary]);
    assert_eq!(s.ask(handed_over), Err(ChangeRefused::PrimaryNotLevel { node: a }));

    // The primary itself, restarted, lists itself anew.
    let own = *s.c.slice(s.v).member(s.primary).unwrap();
    s.c.reopen(own.pool);
    let mut change = s.change(s.primary, PrimaryRestarted, &[s.primary, b]);
    assert!(matches!(s.ask(change.clone()), Err(ChangeRefused::PrimaryNotLevel { .. })));
    change.in_sync[0] = s.c.current(&own);
    s.ask(change).unwrap();
}

#[test]
fn when_all_were_restarted_the_tail_is_marked_lost() {
    let mut s = slice();
    let members = s.c.slice(s.v).in_sync;
    for member in &members {
        s.c.reopen(member.pool);
    }
    let [a, b] = s.secondaries;
    let mut change = s.change(b, AllRestarted, &[b, a, s.primary]);
    change.in_sync = change.in_sync.iter().map(|m| s.c.current(m)).collect();
    s.ask(change).unwrap();
    let config = s.c.slice(s.v);
    assert_eq!((config.tail_lost, config.primary), (config.epoch, b));
    let text: Vec<String> = s.c.state.events().iter().map(|e| e.what.to_string()).collect();
    assert!(text.iter().any(|t| t.contains("unflushed writes may be gone")), "{text:?}");
}

#[test]
fn a_batch_answers_each_on_its_own() {
    let mut s = slice();
    let [a, b] = s.secondaries;
    let other = s.c.volume("other", 3);
    let good = s.change(a, PrimaryLost, &[a, b]);
    let missing = SliceChange { slice: first_slice(VolumeId(99)), ..good.clone() };
    let config = s.c.slice(other);
    let stale = SliceChange { slice: first_slice(other), expected: Epoch(7), ..good.clone() };
    let two = SliceChange { in_sync: vec![config.in_sync[0]; 2], ..good.clone() };
    let batch = Command::change_slices(vec![missing, good, stale, two]);
    let Done::Slices(answers) = s.c.must(batch) else { panic!() };
    assert!(matches!(answers[0], Err(ChangeRefused::NotFound(_))));
    assert_eq!(answers[1], Ok(Epoch(2)));
    assert!(matches!(answers[2], Err(ChangeRefused::EpochChanged { .. })));
    assert!(answers[3].is_err());
    let many = Command::change_slices(vec![s.change(a, HandOver, &[a]); 16_385]);
    assert!(matches!(s.c.refused(many), Refused::BatchTooLarge { .. }));
}

#[test]
fn a_failed_pools_secondaries_leave_at_once_its_primaries_resign() {
    let mut s = slice();
    let [a, _] = s.secondaries;
    let fail = |c: &Cluster, member: &Member| Command::PoolFailed {
        pool: member.pool,
        incarnation: c.state.pool(member.pool).unwrap().incarnation,
        reason: "EIO".to_owned(),
    };
    let secondary = *s.c.slice(s.v).member(a).unwrap();
    let command = fail(&s.c, &secondary);
    s.c.must(command.clone());
    let config = s.c.slice(s.v);
    assert_eq!((config.epoch, config.in_sync.len()), (Epoch(2), 2));
    assert!(config.in_sync_member(a).is_none() && config.member(a).is_some());
    s.c.must(command);
    assert_eq!(s.c.slice(s.v).epoch, Epoch(2), "reported twice");

    let primary = *s.c.slice(s.v).member(s.primary).unwrap();
    let command = fail(&s.c, &primary);
    s.c.must(command);
    let config = s.c.slice(s.v);
    assert_eq!((config.epoch, config.primary), (Epoch(2), s.primary), "that is for the members");

    s.c.reopen(secondary.pool);
    let late = Command::PoolFailed {
        pool: secondary.pool,
        incarnation: secondary.incarnation,
        reason: "late".to_owned(),
    };
    s.c.must(late);
    assert!(s.c.state.opened(secondary.pool).is_some(), "the opening before has failed");
}

#[test]
fn a_loss_is_accepted_only_where_nothing_better_is_there() {
    let mut s = slice();
    let [a, b] = s.secondaries;
    let lost = s.change(s.primary, SecondaryLost, &[s.primary, b]);
    s.ask(lost).unwrap();
    let accept = |gone: &[NodeId], from, force| Command::AcceptLoss {
        volume: s.v,
        from,
        gone: gone.iter().copied().collect(),
        force,
    };
    let (p, v) = (s.primary, s.v);
    let refused = s.c.refused(accept(&[p], a, false));
    assert!(
        matches!(&refused, Refused::NothingLost { nodes, .. } if nodes.len() == 1),
        "{refused}"
    );
    let Done::LossAccepted(losses) = s.c.must(accept(&[p, b], a, false)) else { panic!() };
    assert_eq!((losses.len(), losses[0].before.in_sync.len(), losses[0].epoch), (1, 2, Epoch(3)));
    let config = s.c.slice(v);
    assert_eq!((config.primary, config.in_sync.len(), config.joining.len()), (a, 1, 2));
    assert_eq!(config.tail_lost, config.epoch, "the replica was older");
    let refused = s.c.refused(accept(&[], NodeId(9), true));
    assert!(matches!(refused, Refused::NoReplicaThere { .. }));
}

#[test]
fn the_last_in_sync_replica_goes_on_alone_without_loss() {
    let mut s = slice();
    let [a, b] = s.secondaries;
    let lost = s.change(a, PrimaryLost, &[a, b]);
    s.ask(lost).unwrap();
    let (p, v) = (s.primary, s.v);
    let accept = Command::AcceptLoss { volume: v, from: b, gone: [p, a].into(), force: false };
    s.c.must(accept);
    let config = s.c.slice(v);
    assert_eq!(config.seal, AttachmentEpoch(0), "no attachment ends");
    assert!(config.tail_lost == Epoch(0) && config.primary == b && config.in_sync.len() == 1);
}

#[test]
fn an_unknown_volume_or_node_is_not_found() {
    let mut s = slice();
    let attach = |volume, node| Command::Attach {
        volume,
        node,
        boot: Boot(1),
        mode: AttachMode::ReadOnly,
        holder_gone: false,
        force: false,
    };
    let v = s.v;
    assert_eq!(s.c.refused(attach(VolumeId(9), NodeId(1))).kind(), ErrorKind::NotFound);
    assert_eq!(s.c.refused(attach(v, NodeId(9))).kind(), ErrorKind::NotFound);
}

#[test]
fn nobody_who_was_not_restarted_is_given_up_while_he_is_there() {
    let mut s = slice();
    let [a, b] = s.secondaries;
    for node in [s.primary, a] {
        let pool = s.c.slice(s.v).member(node).unwrap().pool;
        s.c.reopen(pool);
    }
    let mut change = s.change(a, AllRestarted, &[a, s.primary]);
    for member in &mut change.in_sync {
        member.incarnation = s.c.state.opened(member.pool).unwrap();
    }
    let propose = |change: &SliceChange, gone: &[NodeId]| {
        let (changes, gone) = (vec![change.clone()], gone.iter().copied().collect());
        Command::ChangeSlices { changes, gone }
    };
    let Done::Slices(answers) = s.c.must(propose(&change, &[])) else { panic!() };
    assert_eq!(answers, [Err(ChangeRefused::StillThere { node: b })]);
    let Done::Slices(answers) = s.c.must(propose(&change, &[b])) else { panic!() };
    assert_eq!(answers, [Ok(Epoch(2))], "the leader finds it gone");
    assert_eq!(s.c.slice(s.v).tail_lost, Epoch(2));
}

#[test]
fn an_accepted_loss_ends_every_attachment() {
    let mut s = slice();
    let [a, b] = s.secondaries;
    let (p, v) = (s.primary, s.v);
    let attach = |node| {
        let (boot, mode) = (Boot(1), AttachMode::ReadWrite);
        Command::Attach { volume: v, node, boot, mode, holder_gone: true, force: false }
    };
    s.c.must(attach(p));
    s.c.must(attach(b));
    let lost = s.change(p, SecondaryLost, &[p, b]);
    s.ask(lost).unwrap();
    let accept = Command::AcceptLoss { volume: v, from: a, gone: [p, b].into(), force: false };
    s.c.must(accept);
    assert_eq!(s.c.get(v).attachment, None, "what its holder knows of the volume is no longer so");
    let floor = s.c.slice(v).seal;
    assert_eq!(floor, AttachmentEpoch(3), "above whatever was granted");
    let Done::Attached { epoch, .. } = s.c.must(attach(a)) else { panic!() };
    assert!(epoch > floor, "who comes next has to seal");
}
