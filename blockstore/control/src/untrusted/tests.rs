#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../../../../tests/fuzz/seeds.rs"]
mod seeds;

use std::collections::BTreeMap;

use mooring_config::{Actor, Command, Fingerprint};
use mooring_terms::PoolId;
use openraft::{CommittedLeaderId, LogId, Vote};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, proptest};

use super::*;
use crate::raft::Entry;

/// A valid body of each kind, in the order of [`BODIES`].
fn examples() -> Vec<Bytes> {
    let at = LogId::new(CommittedLeaderId::new(3, 1), 40);
    let vote = Vote::new_committed(3, 1);
    let failed = Command::PoolFailed {
        pool: PoolId(7),
        incarnation: mooring_terms::Incarnation(1 << 60),
        reason: "input/output error".to_owned(),
    };
    let by = Actor { node: Some(NodeId(2)), name: "root".to_owned() };
    let id =
        mooring_config::ProposalId { node: NodeId(2), boot: mooring_config::Boot(5), number: 9 };
    let proposal = Proposal { id, at: mooring_config::UnixMillis(1), by, command: failed };
    let entry = Entry { log_id: at, payload: openraft::EntryPayload::Blank };
    let append = AppendEntriesRequest::<TypeConfig> {
        vote,
        prev_log_id: Some(at),
        entries: vec![entry],
        leader_commit: None,
    };
    let join = JoinRequest {
        secret: [7; 32],
        name: "two".to_owned(),
        addresses: vec![SocketAddr::from(([10, 0, 0, 2], 7700))],
        labels: BTreeMap::from([("zone".to_owned(), "b".to_owned())]),
        version: mooring_config::NEWEST_VERSION,
        request: vec![0x30, 0x82],
    };
    let row = crate::certificates::PeerRow {
        node: NodeId(1),
        name: "one".to_owned(),
        fingerprint: Fingerprint([1; 32]),
        addresses: Vec::new(),
    };
    let admitted = Admitted {
        node: NodeId(2),
        cluster: mooring_config::ClusterId([5; 16]),
        cluster_name: "one-cluster".to_owned(),
        certificate: vec![0x30],
        authority: vec![0x30, 0x31],
        peers: vec![row],
    };
    vec![
        encode(&append),
        encode(&Ok::<_, Stopped>(AppendEntriesResponse::<u64>::HigherVote(vote))),
        encode(&VoteRequest::new(vote, Some(at))),
        encode(&Ok::<_, Stopped>(VoteResponse::new(vote, Some(at), true))),
        encode(&InstallSnapshotRequest::<TypeConfig> {
            vote,
            meta: openraft::SnapshotMeta::default(),
            offset: 1 << 20,
            data: vec![1; 20],
            done: true,
        }),
        encode(&SnapshotRefused::Stopped),
        encode(&proposal),
        encode(&Outcome::NotLeader { leader: Some(NodeId(1)) }),
        encode(&ReadAnswer::Index(77)),
        encode(&join),
        encode(&Ok::<_, NotSigned>(admitted)),
        encode(&Machine::default()),
    ]
}

/// A request to the service of [`frames`], and an answer to its call.
fn framed() -> Vec<u8> {
    let number = 1_u64.to_le_bytes();
    let request = [&[1, 1][..], &number, &[4], b"echo", b"body"].concat();
    let reply = [&[1, 2][..], &number, &[0], b"body"].concat();
    let length = |frame: &[u8]| (frame.len() as u16).to_le_bytes();
    [&length(&request)[..], &request, &length(&reply), &reply].concat()
}

/// A message of one piece, and one of two.
fn pieced() -> Vec<u8> {
    let hints = b"load=350\npool.7=1000 200\nresync.4/0=17 4000\nversion=1 0.1.0\n";
    let piece = |id: u8, index: u8, count: u8, bytes: &[u8]| {
        let piece = [&[id; 8][..], &[index, count], bytes].concat();
        [&[1][..], &(piece.len() as u16).to_le_bytes(), &piece].concat()
    };
    let first = [b'x'; 1_100];
    [piece(1, 0, 1, hints), piece(2, 1, 2, hints), piece(2, 0, 2, &first)].concat()
}

#[test]
fn the_fuzzers_seeds_are_what_nodes_say() {
    let examples = examples();
    assert_eq!(examples.len(), BODIES.len());
    for (kind, (body, example)) in BODIES.iter().zip(&examples).enumerate() {
        assert!((body.survives)(example), "{}", body.name);
        let name = body.name.replace(' ', "-").replace(['.', '\''], "-");
        seeds::check("control", &name, &[&[kind as u8], &**example].concat());
    }
    frames(&framed());
    pieces(&pieced());
    seeds::check("control", "frames", &[&[0xfe], &*framed()].concat());
    seeds::check("control", "pieces", &[&[0xff], &*pieced()].concat());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        for body in BODIES {
            (body.survives)(&bytes);
        }
        frames(&bytes);
        pieces(&bytes);
    }

    #[test]
    fn mutated_bodies_never_panic(which in 0..BODIES.len(), at in any::<usize>(), to in any::<u8>(), cut in any::<usize>()) {
        let mut bytes = examples().swap_remove(which).to_vec();
        let at = at % bytes.len();
        bytes[at] = to;
        for body in BODIES {
            (body.survives)(&bytes);
        }
        bytes.truncate(cut % (bytes.len() + 1));
        (BODIES[which].survives)(&bytes);
    }

    #[test]
    fn mutated_frames_and_pieces_never_panic(changes in vec((any::<usize>(), any::<u8>()), 1..4)) {
        for (mut bytes, taken) in [(framed(), frames as fn(&[u8])), (pieced(), pieces)] {
            for (at, to) in &changes {
                let at = at % bytes.len();
                bytes[at] = *to;
            }
            taken(&bytes);
        }
    }
}
