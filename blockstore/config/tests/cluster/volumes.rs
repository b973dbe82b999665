//! Volumes: created, created again, grown, set, removed.

use mooring_config::{
    ChangeReason, Class, ClassWish, ClusterVersion, Command, Done, Fault, Filesystem, Refused,
    Setting, SliceChange, VolumeRequest,
    placement::{Hints, plan_resize, plan_set},
};
use mooring_terms::{ErrorKind, NodeId};

use crate::Cluster;

fn sized(size: u64) -> VolumeRequest {
    VolumeRequest { size: Some(size), ..VolumeRequest::default() }
}

#[test]
fn defaults_follow_the_cluster_and_are_said() {
    let mut c = Cluster::of(1);
    let one = c.volume_of("one", &VolumeRequest::default());
    assert_eq!(c.get(one).spec.replicas, 1);
    let mut c = Cluster::of(5);
    let v = c.volume_of("data", &VolumeRequest::default());
    let volume = c.get(v);
    assert_eq!((volume.spec.replicas, volume.spec.size), (3, 10 << 30));
    assert_eq!((volume.spec.fs, volume.slices.len()), (Filesystem::Ext4, 1));
    let slice = c.slice(v);
    assert_eq!((slice.in_sync.len(), slice.min_in_sync, slice.epoch.0), (3, 2, 1));
    assert!(!volume.formatted);
    let two = c.volume("two", 2);
    assert_eq!(c.slice(two).min_in_sync, 1);
}

#[test]
fn creating_again_is_the_same_volume_or_names_the_difference() {
    let mut c = Cluster::of(3);
    let v = c.volume_of("data", &sized(1 << 30));
    for request in [sized(1 << 30), sized((1 << 30) - 5), VolumeRequest::default()] {
        let again = c.plan("data", &request).unwrap();
        assert_eq!(c.must(again), Done::Volume { volume: v, existed: true });
    }
    let other = VolumeRequest { fs: Some(Filesystem::Xfs), replicas: Some(2), ..sized(2 << 30) };
    let command = c.plan("data", &other).unwrap();
    let refused = c.refused(command);
    assert_eq!(
        refused.to_string(),
        "volume \"data\" exists and differs: size is 1073741824, not 2147483648; \
         replicas is 3, not 2; fs is ext4, not xfs"
    );
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

#[test]
fn names_are_dns_labels() {
    let mut c = Cluster::of(1);
    let long = "a".repeat(63);
    for good in ["a", "a-b", "0", "data-1", &long] {
        c.volume(good, 1);
    }
    let too_long = "a".repeat(64);
    for bad in ["", "-a", "a-", "A", "a.b", "a b", "ä", "a_b", "a/b", &too_long] {
        let command = c.plan(bad, &sized(1 << 30)).unwrap();
        assert!(matches!(c.refused(command), Refused::BadName { .. }), "{bad:?}");
    }
}

#[test]
fn a_bad_specification_says_everything_that_is_wrong() {
    let c = Cluster::of(3);
    let request = VolumeRequest {
        size: Some(5),
        slice_blocks: Some(0),
        replicas: Some(2),
        min_in_sync: Some(3),
        nodes: vec![NodeId(1), NodeId(2), NodeId(3)],
        ..VolumeRequest::default()
    };
    let Err(Refused::BadVolume { faults }) = c.plan("data", &request) else { panic!() };
    assert_eq!(faults.len(), 4, "{faults:?}");
    for replicas in [0, 8] {
        let request = VolumeRequest { replicas: Some(replicas), ..VolumeRequest::default() };
        let Err(Refused::BadVolume { faults }) = c.plan("data", &request) else { panic!() };
        assert_eq!(faults, [Fault::Replicas { replicas }]);
    }
    let many = VolumeRequest { slice_blocks: Some(1), ..sized(1 << 40) };
    assert!(matches!(c.plan("data", &many), Err(Refused::BadVolume { .. })));
    let huge = VolumeRequest { slice_blocks: Some(u64::MAX), ..sized(u64::MAX) };
    assert!(matches!(c.plan("data", &huge), Err(Refused::BadVolume { .. })));
}

#[test]
fn a_volume_grows_by_slices_and_never_shrinks() {
    let mut c = Cluster::of(3);
    let request = VolumeRequest { slice_blocks: Some(1 << 18), ..sized(1 << 30) };
    let v = c.volume_of("data", &request);
    assert_eq!(c.get(v).slices.len(), 1);
    let grow = plan_resize(&c.state, &Hints::default(), &c.get(v), (3 << 30) + 1).unwrap();
    c.must(grow.clone());
    assert_eq!((c.get(v).slices.len(), c.get(v).spec.size), (4, (3 << 30) + 4_096));
    c.must(Command::ResizeVolume { volume: v, size: (3 << 30) + 4_096, placement: vec![] });
    let refused = c.refused(Command::ResizeVolume { volume: v, size: 1 << 30, placement: vec![] });
    assert!(matches!(refused, Refused::Shrinks { .. }));
    let shapeless = Command::ResizeVolume { volume: v, size: 9 << 30, placement: vec![] };
    assert!(matches!(c.refused(shapeless), Refused::PlacementShape));
    let whole = c.volume_of("whole", &sized(1 << 30));
    let grow = plan_resize(&c.state, &Hints::default(), &c.get(whole), 1 << 45).unwrap();
    c.must(grow);
    assert_eq!(c.get(whole).slices.len(), 1, "a private volume stays in one slice");
}

#[test]
fn settings_change_in_use_all_or_nothing() {
    let mut c = Cluster::of(3);
    let v = c.volume("data", 3);
    let set = |pairs: &[(&str, &str)]| {
        let settings = pairs.iter().map(|(key, value)| Setting::parse(key, value).unwrap());
        Command::SetVolume { volume: v, settings: settings.collect() }
    };
    c.must(set(&[
        ("replicas", "2"),
        ("replace_after", "90s"),
        ("io_timeout", "250ms"),
        ("class", "high"),
        ("label.team", "blue"),
    ]));
    let spec = c.get(v).spec.clone();
    assert_eq!((spec.replicas, spec.replace_after_ms, spec.io_timeout_ms), (2, 90_000, Some(250)));
    assert_eq!(spec.class, Some(ClassWish { class: Class::High, required: true }));
    assert_eq!(spec.labels["team"], "blue");
    assert_eq!(c.slice(v).min_in_sync, 1, "the default follows the number of replicas");
    c.must(set(&[("replicas", "3"), ("min_in_sync", "3"), ("io_timeout", "none")]));
    assert_eq!(c.slice(v).min_in_sync, 3);
    let refused = c.refused(set(&[("replace_after", "1h"), ("replicas", "2")]));
    assert!(refused.to_string().contains("min_in_sync can't be 3 with 2 replicas"), "{refused}");
    assert_eq!(c.get(v).spec.replace_after_ms, 90_000, "nothing of it was done");
    c.must(set(&[("label.team", ""), ("min_in_sync", "default"), ("class", "any")]));
    assert!(c.get(v).spec.labels.is_empty());
    for (key, value) in [
        ("replicas", "x"),
        ("size", "1"),
        ("class", "fast"),
        ("replace_after", "1y"),
        ("label.", "x"),
    ] {
        let refused = Setting::parse(key, value).unwrap_err();
        assert!(refused.to_string().contains("say replicas=N"), "{refused}");
    }
    let more = Setting::parse("replicas", "4").unwrap();
    let refused = plan_set(&c.state, &Hints::default(), &c.get(v), &[more]).unwrap_err();
    assert!(refused.to_string().starts_with("4 replicas need 4 nodes with usable pools; 3"));
}

#[test]
fn a_placement_that_is_no_longer_good_is_refused_to_be_chosen_again() {
    let mut c = Cluster::of(3);
    let command = c.plan("data", &VolumeRequest::default()).unwrap();
    let pool = c.pool_of(NodeId(2));
    c.must(Command::DrainPool { pool, drain: true });
    let refused = c.refused(command.clone());
    assert_eq!(refused, Refused::PlacementStale { pool });
    assert_eq!(refused.kind(), ErrorKind::Retry);
    c.must(Command::DrainPool { pool, drain: false });
    let Command::CreateVolume { name, request, spec, mut placement } = command else { panic!() };
    placement[0][1] = placement[0][0];
    let twice = Command::CreateVolume { name, request, spec, placement };
    assert_eq!(c.refused(twice), Refused::PlacementShape, "two replicas on one node");
}

fn shared(size: u64) -> VolumeRequest {
    VolumeRequest { fs: Some(Filesystem::Shared), ..sized(size) }
}

#[test]
fn a_shared_volume_has_slices_of_4_gib_or_what_was_asked_for() {
    let c = Cluster::of(3);
    let slices = |request: &VolumeRequest| {
        let spec = request.resolve(&c.state).unwrap();
        assert!(spec.is_shared());
        (spec.slice_count(), spec.slice_blocks)
    };
    assert_eq!(slices(&shared(1 << 30)), (1, 1 << 20));
    assert_eq!(slices(&shared(10 << 30)), (3, 1 << 20));
    assert_eq!(slices(&shared(10 << 40)), (2_560, 1 << 20));
    // The largest has larger ones, so that a node can have something to do for each of them.
    assert_eq!(slices(&shared(1 << 50)), (8_192, 1 << 25));
    let request = VolumeRequest { slice_blocks: Some(1 << 18), ..shared(10 << 30) };
    assert_eq!(slices(&request), (10, 1 << 18));
}

#[test]
fn there_are_no_shared_volumes_before_every_node_knows_them() {
    let mut c = Cluster::at_version(ClusterVersion(1));
    c.pool(1, 100);
    c.start(1, 1, &[]);
    let command = c.plan("data", &shared(1 << 30)).unwrap();
    let refused = c.refused(command.clone());
    assert!(matches!(refused, Refused::NotYet { .. }), "{refused}");
    c.must(Command::RaiseVersion(ClusterVersion(2)));
    c.must(command);
}

#[test]
fn ten_tebibytes_are_one_command_and_fail_over_in_one() {
    let mut c = Cluster::new();
    c.pool(1, 100_000);
    for number in 2..=3 {
        c.node(&format!("n{number}"), &[]);
        c.pool(number, 100_000);
    }
    for number in 1..=3 {
        c.start(number, 1, &[]);
    }
    let command = c.plan("data", &shared(10 << 40)).unwrap();
    let bytes = postcard::to_stdvec(&command).unwrap().len();
    assert!(bytes < 32 << 10, "the command has {bytes} bytes");
    let Done::Volume { volume, .. } = c.must(command) else { panic!() };
    let row = c.get(volume);
    let bytes = postcard::to_stdvec(&*row).unwrap().len();
    assert!(bytes < 512 << 10, "the volume's row has {bytes} bytes");
    // Node 1 dies: each of its primaries goes to the next member.
    let lost = row.slices().filter(|(_, config)| config.primary == NodeId(1));
    let changes: Vec<SliceChange> = lost
        .map(|(slice, config)| {
            let mut in_sync = config.in_sync.clone();
            in_sync.retain(|member| member.node != NodeId(1));
            let by = in_sync[0].node;
            let reason = ChangeReason::PrimaryLost;
            SliceChange { slice, expected: config.epoch, by, primary: by, in_sync, reason }
        })
        .collect();
    assert!(changes.len() > 600, "{} of 2,560 have their primary on node 1", changes.len());
    let asked = changes.len();
    let Done::Slices(answers) = c.must(Command::change_slices(changes)) else { panic!() };
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), asked);
}
