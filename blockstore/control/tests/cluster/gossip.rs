//! Gossip over real sockets.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use mooring_config::{Boot, ClusterId, ClusterVersion, GossipKey};
use mooring_control::gossip::{Gossip, GossipOptions, NodeHints, PoolHint, ResyncHint};
use mooring_terms::{NodeId, PoolId, SliceId, SliceIndex, VolumeId};

const INTERVAL: Duration = Duration::from_millis(50);

fn key(id: u32) -> GossipKey {
    GossipKey { id, bytes: [id as u8; 32] }
}

/// Addresses that were free a moment ago.
fn free(count: usize) -> Vec<SocketAddr> {
    let sockets: Vec<_> = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap()).collect()
}

async fn start(
    node: u64,
    boot: u64,
    listen: SocketAddr,
    peer: SocketAddr,
    keys: &[GossipKey],
) -> Gossip {
    let options = GossipOptions {
        node: NodeId(node),
        boot: Boot(boot),
        cluster: ClusterId([1; 16]),
        listen,
        advertise: None,
        peers: vec![peer],
        interval: INTERVAL,
    };
    Gossip::start(options, keys).await.unwrap()
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !so().await {
        assert!(started.elapsed() < Duration::from_secs(10), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn full(node: u64) -> NodeHints {
    let slice = |n| SliceId { volume: VolumeId(n), index: SliceIndex(0) };
    NodeHints {
        version: Some((ClusterVersion(1), "0.1.0".to_owned())),
        load: Some(u32::try_from(node).unwrap()),
        pools: [(PoolId(node), PoolHint { size: 1 << 40, used: 1 << 30 })].into(),
        resyncs: (0..500).map(|n| (slice(n), ResyncHint { done: n, total: 1 << 20 })).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_spread_change_and_go_and_a_restarted_node_is_one_node() {
    let at = free(3);
    let nodes = [
        start(1, 1, at[0], at[1], &[key(1)]).await,
        start(2, 1, at[1], at[0], &[key(1)]).await,
        start(3, 1, at[2], at[0], &[key(1)]).await,
    ];
    for (number, node) in (1..).zip(&nodes) {
        node.publish(&full(number)).await;
    }
    until("everyone knows everything", async || {
        for node in &nodes {
            let peers = node.peers().await;
            if !(1..=3)
                .all(|n| peers.get(&NodeId(n)).is_some_and(|p| p.hints == full(n) && p.alive))
            {
                return false;
            }
        }
        true
    })
    .await;
    nodes[0].publish(&NodeHints { load: Some(7), ..NodeHints::default() }).await;
    until("what is no longer said is gone", async || {
        let hints = nodes[2].peers().await[&NodeId(1)].hints.clone();
        hints.load == Some(7) && hints.resyncs.is_empty() && hints.pools.is_empty()
    })
    .await;

    let [first, second, third] = nodes;
    drop(second);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = start(2, 2, at[1], at[0], &[key(1)]).await;
    second.publish(&NodeHints { load: Some(9), ..NodeHints::default() }).await;
    until("the new generation is the node", async || {
        let peers = third.peers().await;
        let peer = &peers[&NodeId(2)];
        peers.len() == 3 && peer.boot == Boot(2) && peer.alive && peer.hints.load == Some(9)
    })
    .await;
    drop(second);
    until("the dead are noticed", async || !third.peers().await[&NodeId(2)].alive).await;
    let counters = first.counters();
    assert_eq!((counters.forged, counters.unknown_key, counters.malformed), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_and_counted_and_keys_rotate() {
    let at = free(3);
    let first = start(1, 1, at[0], at[1], &[key(1)]).await;
    let second = start(2, 1, at[1], at[0], &[key(1)]).await;
    let stranger = GossipKey { id: 1, bytes: [99; 32] };
    let _stranger = start(9, 1, at[2], at[0], &[stranger]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for garbage in [&b""[..], b"x", &[1; 40], &[0xff; 1_400], &[7; 9_000]] {
        socket.send_to(garbage, at[0]).unwrap();
    }
    second.publish(&NodeHints { load: Some(3), ..NodeHints::default() }).await;
    until("all is counted", async || {
        let counters = first.counters();
        counters.forged >= 2 && counters.malformed + counters.unknown_key >= 4
    })
    .await;
    until("gossip goes on", async || {
        first.peers().await.get(&NodeId(2)).is_some_and(|peer| peer.hints.load == Some(3))
    })
    .await;
    assert!(!first.peers().await.contains_key(&NodeId(9)), "nothing of the stranger got in");

    // The second hears of the rotation later than the first.
    first.set_keys(&[key(1), key(2)]);
    second.publish(&NodeHints { load: Some(4), ..NodeHints::default() }).await;
    tokio::time::sleep(INTERVAL * 4).await;
    second.set_keys(&[key(1), key(2)]);
    until("the new key is in use", async || first.peers().await[&NodeId(2)].hints.load == Some(4))
        .await;
}
