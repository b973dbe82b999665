//! The replication core: one write over three replicas in memory, and its messages as bytes.
#![allow(clippy::unwrap_used)] // A measurement that fails may panic.
#![allow(missing_docs)] // What the macros of criterion make.
#![allow(dead_code)] // Each program uses a part of the small cluster of the scenarios.

#[path = "../../blockstore/replication/tests/scenarios/cluster.rs"]
mod cluster;
#[path = "../../blockstore/replication/tests/scenarios/device.rs"]
mod device;
#[path = "../../blockstore/replication/tests/scenarios/store.rs"]
mod store;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mooring_replication::{Append, Message, MessageBody};
use mooring_terms::{BlockIndex, Body, Epoch, Incarnation, Record, Sequence, Version};

use crate::cluster::{Cluster, SLICE};

/// One write: request, record to two replicas, acknowledgements, answer. Engines and network are
/// models in memory, so that what counts is the cores and the codec.
fn round_trip(c: &mut Criterion) {
    let mut group = c.benchmark_group("replication");
    let mut cluster = Cluster::new(3);
    let mut value = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("write over 3 replicas", |b| {
        b.iter(|| {
            value += 1;
            cluster.write(value % 512, value);
        });
    });
    group.finish();
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    let version = |sequence| Version::new(Epoch(1), Sequence(sequence));
    let records = |count: u64| -> Vec<Record> {
        (1..=count)
            .map(|sequence| {
                let data = store::data_of(sequence, 1);
                let body = Body::Write { first: BlockIndex(sequence * 7), data };
                Record { version: version(sequence), body }
            })
            .collect()
    };
    for count in [1, 16] {
        let append = Append {
            previous: version(0),
            records: records(count),
            committed: Sequence(0),
            stable: Sequence(0),
            sync: Sequence(0),
        };
        let (epoch, from, to) = (Epoch(1), Incarnation(1001), Some(Incarnation(2001)));
        let body = MessageBody::Append(append);
        let message = Message { slice: SLICE, epoch, from, to, body };
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("encode {count} x 4 KiB"), |b| {
            b.iter(|| black_box(message.clone().encode()));
        });
        let (header, frames) = message.clone().encode();
        group.bench_function(format!("decode {count} x 4 KiB"), |b| {
            b.iter(|| black_box(Message::decode(&header, frames.clone()).unwrap()));
        });
    }
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group!(name = all; config = short(); targets = round_trip, codec);
criterion_main!(all);
