//! One holder at a time, and each grant with a higher epoch.

use mooring_config::{AttachMode, Boot, Command, Done, Refused};
use mooring_terms::{AttachmentEpoch, ErrorKind, NodeId, VolumeId};

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
