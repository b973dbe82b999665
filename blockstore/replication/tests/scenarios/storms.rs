//! Everything at once, repeatably: a device writes while nodes, disks, streams and Raft fail, and
//! once all is well again every block has its last acknowledged value or a later one.

use std::collections::BTreeMap;

use mooring_replication::{
    ClientId, Event, Io, IoError, IoId, Operation, Outcome, RequestId, StreamId, VolumeBlock,
    VolumeRange,
};
use mooring_terms::{BlockIndex, BlockRange, Epoch, NodeId};

use crate::cluster::{Cluster, values};

/// A repeatable sequence of numbers (splitmix64; Steele, Lea and Flood, 2014).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// What a block was written with: the values submitted, in order, and how many are acknowledged.
#[derive(Default)]
struct Block {
    values: Vec<u64>,
    acknowledged: usize,
}

struct Storm {
    c: Cluster,
    numbers: Numbers,
    blocks: BTreeMap<u64, Block>,
    pending: BTreeMap<IoId, (u64, usize)>,
    value: u64,
    hung: bool,
    /// Reads at any node by another client: block, and how many of its writes were acknowledged.
    reads: BTreeMap<RequestId, (u64, usize)>,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let mut c = Cluster::new(3);
        c.attach(2, |_| {});
        let (blocks, pending) = (BTreeMap::new(), BTreeMap::new());
        let (numbers, reads) = (Numbers(seed), BTreeMap::new());
        Self { c, numbers, blocks, pending, value: 0, hung: false, reads }
    }

    fn write(&mut self) {
        self.value += 1;
        let number = self.numbers.below(24);
        let block = self.blocks.entry(number).or_default();
        let id = if self.numbers.below(5) == 0 {
            block.values.push(0);
            let range = VolumeRange { first: VolumeBlock(number), count: 1 };
            self.c.submit(Io::Discard { range, fua: false })
        } else {
            block.values.push(self.value);
            self.c.submit_write(number, self.value)
        };
        self.pending.insert(id, (number, block.values.len()));
    }

    /// Asks a node for a block, whether it is primary or not: whoever answers must be right.
    fn read_anywhere(&mut self) {
        self.collect();
        let number = self.numbers.below(24);
        let node = 1 + self.numbers.below(3);
        let epoch = self.c.status(node).map_or(Epoch(1), |status| status.epoch);
        self.c.next_number += 1;
        let id = RequestId {
            client: ClientId(1),
            stream: StreamId(self.c.stream),
            number: self.c.next_number,
        };
        let acknowledged = self.blocks.get(&number).map_or(0, |block| block.acknowledged);
        self.reads.insert(id, (number, acknowledged));
        let range = BlockRange::new(BlockIndex(number), 1);
        self.c.request_at(node, id, epoch, Operation::Read(range));
    }

    fn check_reads(&mut self) {
        if self.c.raft.config.tail_lost > Epoch(0) {
            // Until the device has sent again what it kept, another client sees that it is gone.
            return self.reads.clear();
        }
        let (replies, blocks) = (&self.c.replies, &self.blocks);
        self.reads.retain(|id, (number, acknowledged)| {
            let Some((node, reply)) = replies.get(id) else { return true };
            if let Outcome::Read(extents) = &reply.outcome {
                let value = values(extents)[0];
                let all = blocks.get(number).map_or(&[][..], |block| &block.values);
                let fresh = &all[acknowledged.saturating_sub(1)..];
                let right = fresh.contains(&value) || (*acknowledged == 0 && value == 0);
                assert!(right, "node {node} says {value} in block {number}, not {fresh:?}");
            }
            false
        });
    }

    fn collect(&mut self) {
        let done = &self.c.device().done;
        let blocks = &mut self.blocks;
        self.pending.retain(|id, (number, count)| match done.get(id) {
            None => true,
            Some(result) => {
                assert_eq!(*result, Ok(Vec::new()));
                let block = blocks.get_mut(number).expect("it was written");
                block.acknowledged = block.acknowledged.max(*count);
                false
            }
        });
    }

    fn fault(&mut self) {
        let c = &mut self.c;
        let node = 1 + self.numbers.below(3);
        let other = 1 + (node + self.numbers.below(2)) % 3;
        match self.numbers.below(18) {
            0 if c.is_up(node) => c.kill(node),
            1 if c.is_up(node) => c.cut_power(node),
            2..=4 => {
                for node in 1..=3 {
                    if !c.is_up(node) && self.numbers.below(2) == 0 {
                        c.start(node);
                    }
                }
            }
            5 => c.cut(node, other),
            6 | 7 => {
                for (a, b) in [(1, 2), (1, 3), (2, 3)] {
                    c.heal(a, b);
                }
            }
            8 => c.glitch(node, other),
            9 => c.hang_up(node),
            10 => c.raft.forget_outcomes = 1,
            11 => {
                if self.hung {
                    for node in 1..=3 {
                        c.unhang_disk(node);
                    }
                } else if c.is_up(node) {
                    c.hang_disk(node);
                }
                self.hung = !self.hung;
            }
            12 => c.event(node, Event::HandOver { to: NodeId(other) }),
            14 | 15 => c.pause(node),
            16 | 17 => (1..=3).for_each(|node| c.resume(node)),
            13 => c.raft.up = !c.raft.up,
            _ => {}
        }
    }

    fn calm(&mut self) {
        let c = &mut self.c;
        c.raft.up = true;
        c.raft.forget_outcomes = 0;
        for node in 1..=3 {
            c.resume(node);
            c.unhang_disk(node);
            if !c.is_up(node) {
                c.start(node);
            }
        }
        for (a, b) in [(1, 2), (1, 3), (2, 3)] {
            c.heal(a, b);
        }
        c.run_until("all is written", |c| c.device().client.pending() == 0);
        self.collect();
        self.c.settle();
        self.c.check_replicas_agree();
        for (&number, block) in &self.blocks {
            let range = VolumeRange { first: VolumeBlock(number), count: 1 };
            assert!(!matches!(self.c.io(Io::Read(range)), Err(IoError::TailLost)));
            let value = self.c.device_read(number);
            let expected = &block.values[block.acknowledged.saturating_sub(1)..];
            assert!(expected.contains(&value), "block {number} has {value}, not {expected:?}");
        }
    }

    fn run(&mut self) {
        for _ in 0..60 {
            for _ in 0..self.numbers.below(8) {
                self.write();
                let pause = self.numbers.below(400);
                self.c.run(pause);
            }
            if self.numbers.below(4) == 0 {
                self.c.submit(Io::Flush);
            }
            for _ in 0..self.numbers.below(4) {
                self.read_anywhere();
            }
            if self.numbers.below(3) == 0 {
                self.fault();
            }
            let pause = [1_000, 20_000, 300_000, 2_500_000][self.numbers.below(4) as usize];
            self.c.run(pause);
            self.collect();
            self.check_reads();
        }
        self.calm();
    }
}

#[test]
fn storms_lose_nothing() {
    let first: u64 = std::env::var("STORM").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let count: u64 = std::env::var("STORMS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    for seed in first..first + count {
        let storm = std::panic::catch_unwind(|| Storm::new(seed).run());
        assert!(storm.is_ok(), "storm {seed}: run with STORM={seed} STORMS=1");
    }
}
