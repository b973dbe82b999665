//! One holder at a time, and each grant with a higher epoch.

use mooring_config::{
    AttachMode, Boot, ChangeReason, Command, CoordinatorDuty, Done, Filesystem, Refused,
    SliceChange, VolumeRequest,
};
use mooring_terms::{AttachmentEpoch, ErrorKind, NodeId, SliceId, SliceIndex, VolumeId};

use crate::Cluster;

fn attach(volume: VolumeId, node: u64, holder_gone: bool, force: bool) -> Command {
    let (node, boot, mode) = (NodeId(node), Boot(1), AttachMode::ReadWrite);
    Command::Attach { volume, node, boot, mode, holder_gone, force }
}

fn attached(epoch: u64, fenced: Option<u64>) -> Done {
    Done::Attached { epoch: AttachmentEpoch(epoch), fenced: fenced.map(NodeId) }
}

#[test]
fn a_volume_has_one_holder_and_the_refusal_names_it() {
    let mut c = Cluster::of(3);
    let v = c.volume("data", 3);
    assert_eq!(c.must(attach(v, 1, false, false)), attached(1, None));
    assert_eq!(
        c.must(attach(v, 1, false, false)),
        attached(1, None),
        "asking again changes nothing"
    );
    let refused = c.refused(attach(v, 2, false, false));
    assert_eq!(
        refused.to_string(),
        "volume \"data\" is attached to node n1: detach it there first, or force it"
    );
    assert_eq!(c.must(attach(v, 2, true, false)), attached(2, Some(1)), "n1 is gone");
    assert_eq!(c.must(attach(v, 3, false, true)), attached(3, Some(2)), "taken by force");
    assert_eq!(c.get(v).attachment.unwrap().node, NodeId(3));
}

#[test]
fn detaching_is_the_holders_or_forced_and_epochs_go_on() {
    let mut c = Cluster::of(2);
    let v = c.volume("data", 2);
    let detach = |epoch: Option<u64>, node, force| Command::Detach {
        volume: v,
        epoch: epoch.map(AttachmentEpoch),
        node: NodeId(node),
        force,
    };
    assert_eq!(c.must(detach(None, 1, false)), Done::Ok, "nothing is attached");
    c.must(attach(v, 1, false, false));
    assert!(matches!(c.refused(detach(None, 2, false)), Refused::Attached { .. }));
    let late = c.refused(detach(Some(7), 1, false));
    assert_eq!(late.kind(), ErrorKind::Fenced);
    c.must(detach(Some(1), 1, false));
    assert_eq!(c.must(attach(v, 2, false, false)), attached(2, None));
    c.must(detach(None, 1, true));
    assert_eq!(c.get(v).attachment, None);
    assert_eq!(c.get(v).last_attachment, AttachmentEpoch(2));
}

#[test]
fn a_restarted_node_keeps_only_what_its_holder_process_serves() {
    let mut c = Cluster::of(2);
    let (kept, lost, other) = (c.volume("kept", 2), c.volume("lost", 2), c.volume("other", 2));
    c.must(attach(kept, 1, false, false));
    c.must(attach(lost, 1, false, false));
    c.must(attach(other, 2, false, false));
    assert_eq!(c.start(1, 2, &[kept, other]), [lost]);
    let holder = c.get(kept).attachment.unwrap();
    assert_eq!((holder.boot, holder.epoch), (Boot(2), AttachmentEpoch(1)));
    assert_eq!(c.get(lost).attachment, None);
    assert_eq!(c.get(other).attachment.unwrap().node, NodeId(2), "not n1's to give up or keep");
    assert_eq!(c.start(1, 2, &[]), [], "the same start, told again");
    let stale = c.refused(attach(lost, 1, false, false));
    assert_eq!(stale.kind(), ErrorKind::Fenced, "from the earlier boot: {stale}");
}

#[test]
fn an_attached_volume_is_removed_only_by_force() {
    let mut c = Cluster::of(1);
    let v = c.volume("data", 1);
    c.must(attach(v, 1, false, false));
    let refused = c.refused(Command::RemoveVolume { volume: v, force: false });
    assert!(refused.to_string().contains("attached to node n1"), "{refused}");
    c.must(Command::RemoveVolume { volume: v, force: true });
    assert!(c.state.volume(v).is_none() && c.state.volume_by_name("data").is_none());
    assert_ne!(c.volume("data", 1), v, "numbers are never given again");
}

#[test]
fn only_the_holder_says_that_the_volume_is_formatted() {
    let mut c = Cluster::of(1);
    let v = c.volume("data", 1);
    let formatted = |epoch| Command::VolumeFormatted { volume: v, epoch: AttachmentEpoch(epoch) };
    assert!(matches!(c.refused(formatted(0)), Refused::NotAttached { .. }));
    c.must(attach(v, 1, false, false));
    assert!(matches!(c.refused(formatted(2)), Refused::NotAttached { .. }));
    c.must(formatted(1));
    assert!(c.get(v).formatted);
}

/// A shared volume of three slices on three nodes.
fn shared(c: &mut Cluster) -> VolumeId {
    let request = VolumeRequest {
        size: Some(10 << 30),
        fs: Some(Filesystem::Shared),
        replicas: Some(3),
        ..VolumeRequest::default()
    };
    c.volume_of("shared", &request)
}

/// Moves the primary of a slice to `to`, as its former primary does.
fn hand_over(c: &mut Cluster, volume: VolumeId, slice: usize, to: u64) {
    let before = c.get(volume).slices[slice].clone();
    let index = SliceIndex(u32::try_from(slice).unwrap());
    let change = SliceChange {
        slice: SliceId { volume, index },
        expected: before.epoch,
        by: before.primary,
        reason: ChangeReason::HandOver,
        primary: NodeId(to),
        in_sync: before.in_sync.clone(),
    };
    match c.must(Command::ChangeSlices { changes: vec![change], gone: Default::default() }) {
        Done::Slices(answers) => assert!(answers.iter().all(Result::is_ok), "{answers:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_coordinators_attachment_goes_where_slice_0_has_its_primary_and_nowhere_else() {
    let mut c = Cluster::of(3);
    let v = shared(&mut c);
    let first = c.get(v).slices[0].primary.0;
    let (second, third) = (first % 3 + 1, (first + 1) % 3 + 1);
    for (gone, force) in [(false, false), (true, false), (false, true)] {
        let refused = c.refused(attach(v, second, gone, force));
        assert!(matches!(refused, Refused::CoordinatedElsewhere { .. }), "{refused}");
    }
    assert_eq!(c.must(attach(v, first, false, false)), attached(1, None));
    // The next one of the same node has an epoch of its own.
    assert_eq!(c.must(attach(v, first, false, false)), attached(2, None));
    // Another slice's primary is nobody's business.
    if c.get(v).slices[1].primary != NodeId(second) {
        hand_over(&mut c, v, 1, second);
    }
    assert_eq!(c.get(v).coordinator(), Some(NodeId(first)));
    hand_over(&mut c, v, 0, second);
    assert!(matches!(
        c.refused(attach(v, first, true, true)),
        Refused::CoordinatedElsewhere { .. }
    ));
    // Nobody has to find the one before gone.
    assert_eq!(c.must(attach(v, second, false, false)), attached(3, Some(first)));
    hand_over(&mut c, v, 0, third);
    assert_eq!(c.must(attach(v, third, false, false)), attached(4, Some(second)));
}

#[test]
fn a_node_claims_ends_or_leaves_alone_the_coordinator_of_a_shared_volume() {
    use CoordinatorDuty::{Claim, End, Rest};
    let mut c = Cluster::of(3);
    let (v, private) = (shared(&mut c), c.volume("private", 3));
    let first = c.get(v).slices[0].primary.0;
    let second = first % 3 + 1;
    let epoch = |number| Some(AttachmentEpoch(number));
    let duty = |c: &Cluster, node, running| c.get(v).coordinator_duty(NodeId(node), running);
    assert_eq!((duty(&c, first, None), duty(&c, second, None)), (Claim, Rest));
    // Granted by a state that is newer than this one.
    assert_eq!(duty(&c, first, epoch(1)), Rest);
    c.must(attach(v, first, false, false));
    assert_eq!(duty(&c, first, epoch(1)), Rest);
    // Its coordinator has ended by itself.
    assert_eq!(duty(&c, first, None), Claim);
    hand_over(&mut c, v, 0, second);
    assert_eq!((duty(&c, first, epoch(1)), duty(&c, second, None)), (End, Claim));
    c.must(attach(v, second, false, false));
    assert_eq!((duty(&c, second, epoch(2)), duty(&c, first, None)), (Rest, Rest));
    // A restart gives it up, and claims it again.
    c.start(second, 2, &[]);
    assert_eq!((duty(&c, second, epoch(2)), duty(&c, second, None)), (End, Claim));
    for node in 1..=3 {
        assert_eq!(c.get(private).coordinator_duty(NodeId(node), None), Rest);
    }
    c.must(Command::RemoveVolume { volume: v, force: false });
}
