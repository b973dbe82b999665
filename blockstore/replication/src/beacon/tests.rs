//! Two nodes and a network between them.

use std::time::Duration;

use mooring_terms::{SliceIndex, VolumeId};

use super::*;

fn slice(volume: u64) -> SliceId {
    SliceId { volume: VolumeId(volume), index: SliceIndex(0) }
}

fn at(ms: u64) -> Time {
    Time(Duration::from_millis(ms))
}

struct Pair {
    now: u64,
    nodes: [Beacons; 2],
    cut: bool,
    woken: [Vec<SliceId>; 2],
    messages: usize,
    bytes: usize,
}

impl Pair {
    fn new() -> Self {
        let beacons = || Beacons::new(&Options::default());
        Self {
            now: 1000,
            nodes: [beacons(), beacons()],
            cut: false,
            woken: [Vec::new(), Vec::new()],
            messages: 0,
            bytes: 0,
        }
    }

    fn id(i: usize) -> NodeId {
        NodeId(i as u64 + 1)
    }

    fn vouch(&mut self, i: usize, volume: u64, epoch: u32) {
        let event = BeaconEvent::Vouch {
            slice: slice(volume),
            epoch: Some(Epoch(epoch)),
            peers: vec![Self::id(1 - i)],
        };
        self.give(i, event);
    }

    fn give(&mut self, i: usize, event: BeaconEvent) {
        let mut out = Vec::new();
        self.nodes[i].handle(at(self.now), event, &mut out);
        for command in out {
            match command {
                BeaconCommand::Send { message, .. } if !self.cut => {
                    self.messages += 1;
                    let bytes = message.encode();
                    self.bytes += bytes.len();
                    let message = BeaconMessage::decode(&bytes).unwrap();
                    let from = Self::id(i);
                    self.give(1 - i, BeaconEvent::Message { from, message });
                }
                BeaconCommand::Send { .. } => {}
                BeaconCommand::Wake { slices } => self.woken[i].extend(slices),
            }
        }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += 1;
            for i in 0..2 {
                if self.nodes[i].deadline().is_some_and(|due| due <= at(self.now)) {
                    self.give(i, BeaconEvent::Tick);
                }
            }
        }
    }

    fn answered(&self, i: usize, volume: u64, epoch: u32) -> Option<Time> {
        self.nodes[i].answered(Self::id(1 - i), slice(volume), Epoch(epoch))
    }

    fn heard(&self, i: usize, volume: u64, epoch: u32) -> Option<Time> {
        self.nodes[i].heard(Self::id(1 - i), slice(volume), Epoch(epoch))
    }
}

#[test]
fn what_both_vouch_for_is_answered_and_heard() {
    let mut pair = Pair::new();
    pair.vouch(0, 1, 3);
    pair.vouch(1, 1, 3);
    pair.run(500);
    assert!(pair.answered(0, 1, 3) >= Some(at(pair.now - 200)));
    assert!(pair.heard(1, 1, 3) >= Some(at(pair.now - 200)));
    assert_eq!(pair.answered(0, 1, 4), None);
    assert_eq!(pair.answered(0, 2, 3), None);
}

#[test]
fn a_slice_with_another_epoch_counts_as_silent_and_its_neighbours_do_not() {
    let mut pair = Pair::new();
    for volume in 0..500 {
        pair.vouch(0, volume, 3);
        pair.vouch(1, volume, if volume == 7 { 4 } else { 3 });
    }
    pair.run(3000);
    assert_eq!(pair.answered(0, 7, 3), None);
    assert_eq!(pair.heard(1, 7, 4), None);
    for volume in (0..500).filter(|volume| *volume != 7) {
        assert!(pair.answered(0, volume, 3) >= Some(at(pair.now - 250)), "volume {volume}");
        assert!(pair.heard(1, volume, 3) >= Some(at(pair.now - 250)), "volume {volume}");
    }
    assert!(pair.woken[0].contains(&slice(7)));
    assert!(!pair.woken[0].contains(&slice(8)));
}

#[test]
fn what_was_answered_stays_so_when_another_peer_is_placed() {
    let mut pair = Pair::new();
    pair.vouch(0, 1, 3);
    pair.vouch(1, 1, 3);
    pair.run(500);
    let (answered, heard) = (pair.answered(0, 1, 3), pair.heard(0, 1, 3));
    assert!(answered.is_some() && heard.is_some());
    let peers = vec![Pair::id(1), NodeId(9)];
    let event = BeaconEvent::Vouch { slice: slice(1), epoch: Some(Epoch(3)), peers };
    pair.give(0, event);
    assert!(pair.answered(0, 1, 3) >= answered);
    assert!(pair.heard(0, 1, 3) >= heard);
}

#[test]
fn an_answer_speaks_only_for_what_was_vouched_for_when_the_beacon_was_sent() {
    let mut pair = Pair::new();
    pair.vouch(0, 1, 3);
    pair.vouch(1, 1, 4);
    pair.run(1000);
    pair.cut = true;
    pair.vouch(0, 1, 4);
    assert_eq!(pair.answered(0, 1, 4), None);
    pair.cut = false;
    pair.run(300);
    assert!(pair.answered(0, 1, 4).is_some());
}

#[test]
fn silence_and_return_wake_the_slices() {
    let mut pair = Pair::new();
    for volume in 0..3 {
        pair.vouch(0, volume, 1);
        pair.vouch(1, volume, 1);
    }
    pair.run(2000);
    assert!(pair.woken.iter().all(Vec::is_empty), "{:?}", pair.woken);
    pair.cut = true;
    pair.run(1500);
    assert_eq!(pair.woken[0].len(), 3, "the lease is over");
    pair.run(800);
    assert_eq!(pair.woken[0].len(), 6, "the grace is over too");
    pair.cut = false;
    pair.run(400);
    assert!(pair.woken[0].len() > 6, "it is back");
}

#[test]
fn who_vouches_for_nothing_is_neither_answered_nor_heard() {
    let mut pair = Pair::new();
    pair.vouch(0, 1, 1);
    pair.vouch(1, 1, 1);
    pair.run(1000);
    pair.give(1, BeaconEvent::Mute { slice: slice(1), muted: true });
    let last = pair.answered(0, 1, 1);
    pair.run(2000);
    assert_eq!(pair.answered(0, 1, 1), last);
    assert_eq!(pair.heard(1, 1, 1), None);
    pair.give(1, BeaconEvent::Mute { slice: slice(1), muted: false });
    pair.run(500);
    assert!(pair.answered(0, 1, 1) > last);
}

#[test]
fn a_node_that_was_stopped_restarts_its_grace() {
    let mut pair = Pair::new();
    pair.vouch(0, 1, 1);
    pair.vouch(1, 1, 1);
    pair.run(1000);
    pair.now += 3000;
    pair.cut = true;
    pair.give(1, BeaconEvent::Tick);
    assert_eq!(pair.heard(1, 1, 1), Some(at(pair.now)));
    let sent = pair.answered(1, 1, 1).unwrap();
    assert!(sent < at(pair.now - 2900), "a primary never extends");
}

#[test]
fn a_hundred_thousand_slices_cost_no_more_than_one() {
    let mut pair = Pair::new();
    for volume in 0..100_000 {
        pair.vouch(0, volume, 1);
        pair.vouch(1, volume, 1);
    }
    pair.run(1000);
    (pair.messages, pair.bytes) = (0, 0);
    pair.run(2000);
    assert!(pair.messages <= 44, "{} messages in two seconds", pair.messages);
    assert!(pair.bytes / pair.messages < 700, "{} bytes a message", pair.bytes / pair.messages);
}

#[test]
fn answers_are_kept_when_another_peer_is_added() {
    let mut pair = Pair::new();
    pair.vouch(0, 1, 1);
    pair.vouch(1, 1, 1);
    pair.run(1000);
    let peer = Pair::id(1);
    let before = pair.nodes[0].answered(peer, slice(1), Epoch(1)).expect("a second of beacons");
    let peers = vec![peer, NodeId(9)];
    pair.give(0, BeaconEvent::Vouch { slice: slice(1), epoch: Some(Epoch(1)), peers });
    assert_eq!(pair.nodes[0].answered(peer, slice(1), Epoch(1)), Some(before));
    assert_eq!(pair.nodes[0].answered(NodeId(9), slice(1), Epoch(1)), None);
    pair.vouch(0, 1, 2);
    assert_eq!(pair.nodes[0].answered(peer, slice(1), Epoch(2)), None, "another epoch is news");
}
