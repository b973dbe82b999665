//! Proposals are applied once; the machine survives encoding; random commands break nothing.

use mooring_config::{
    Actor, Boot, Command, Done, MAX_EVENTS, Machine, Proposal, ProposalId, Refused, UnixMillis,
    VoterCount,
};
use mooring_terms::{NodeId, PoolId, VolumeId};
use proptest::prelude::*;

use crate::{Cluster, TOKEN, new_node};

fn proposal(node: u64, boot: u64, number: u64, command: Command) -> Proposal {
    let id = ProposalId { node: NodeId(node), boot: Boot(boot), number };
    Proposal { id, at: UnixMillis(number), by: Actor::system(NodeId(node)), command }
}

fn machine() -> Machine {
    let mut machine = Machine::default();
    let genesis = mooring_config::Genesis {
        cluster: mooring_config::ClusterId([1; 16]),
        name: "test".to_owned(),
        ca_certificate: vec![],
        ca_key: mooring_config::WrappedKey::default(),
        gossip_key: [0; 32],
        version: mooring_config::NEWEST_VERSION,
        first: new_node("n1", 1, &[]),
    };
    machine.apply(&proposal(1, 1, 1, Command::Create(Box::new(genesis)))).unwrap();
    machine
}

fn token(uses: u32) -> Command {
    Command::CreateJoinToken { hash: TOKEN, expires: UnixMillis(u64::MAX), uses }
}

#[test]
fn a_proposal_that_comes_again_is_not_applied_again() {
    let mut machine = machine();
    machine.apply(&proposal(1, 1, 2, token(1))).unwrap();
    let node = new_node("n2", 2, &[]);
    let admit = Command::AdmitNode(Box::new(mooring_config::Admission { token: TOKEN, node }));
    let admit = proposal(1, 1, 3, admit);
    assert_eq!(machine.apply(&admit), Ok(Done::Node(NodeId(2))));
    let once = machine.clone();
    assert_eq!(machine.apply(&admit), Ok(Done::Node(NodeId(2))));
    let refused = proposal(1, 1, 4, Command::RevokeApiToken { name: "x".to_owned() });
    assert_eq!(machine.apply(&refused), Err(Refused::NoToken));
    assert_eq!(machine.apply(&refused), Err(Refused::NoToken));
    assert_eq!(machine.state().nodes().len(), once.state().nodes().len());
    let early = proposal(1, 0, 9, token(1));
    assert!(matches!(machine.apply(&early), Err(Refused::EarlierBoot { .. })));
}

#[test]
fn answers_are_forgotten_in_the_end_and_that_is_said() {
    let mut machine = machine();
    for number in 2..2_000 {
        machine.apply(&proposal(1, 1, number, token(1))).unwrap();
    }
    let old = proposal(1, 1, 5, Command::SetVoters(VoterCount::One));
    assert_eq!(machine.apply(&old), Err(Refused::OutcomeForgotten));
    assert_eq!(machine.state().voter_count(), VoterCount::Auto);
    assert!(machine.state().events().len() <= MAX_EVENTS);
    let restarted = proposal(1, 2, 1, Command::SetVoters(VoterCount::One));
    assert_eq!(machine.apply(&restarted), Ok(Done::Ok), "a later start begins anew");
}

#[test]
fn the_machine_survives_encoding() {
    let mut machine = machine();
    machine.apply(&proposal(1, 1, 2, token(3))).unwrap();
    let bytes = postcard::to_stdvec(&machine).unwrap();
    assert_eq!(postcard::from_bytes::<Machine>(&bytes).unwrap(), machine);
}

/// Commands over a few nodes, pools and volumes, most of them senseless.
fn any_command() -> impl Strategy<Value = Command> {
    let node = (1_u64..6).prop_map(NodeId);
    let pool = (1_u64..8).prop_map(PoolId);
    let volume = (1_u64..6).prop_map(VolumeId);
    prop_oneof![
        (node.clone(), any::<bool>()).prop_map(|(node, drain)| Command::DrainNode { node, drain }),
        (pool.clone(), any::<bool>()).prop_map(|(pool, drain)| Command::DrainPool { pool, drain }),
        (pool.clone(), any::<u64>()).prop_map(|(pool, incarnation)| Command::PoolOpened {
            pool,
            incarnation: mooring_terms::Incarnation(incarnation),
            size: 100 << 30,
        }),
        (pool.clone(), 1_u64..8).prop_map(|(pool, incarnation)| Command::PoolFailed {
            pool,
            incarnation: mooring_terms::Incarnation(incarnation),
            reason: "EIO".to_owned(),
        }),
        (pool.clone(), any::<bool>()).prop_map(|(pool, force)| Command::RemovePool { pool, force }),
        (node.clone(), any::<bool>(), any::<bool>()).prop_map(|(node, gone, force)| {
            Command::RemoveNode { node, gone, force, gossip_key: [1; 32] }
        }),
        (volume.clone(), any::<bool>())
            .prop_map(|(volume, force)| Command::RemoveVolume { volume, force }),
        (volume.clone(), node.clone(), any::<bool>(), any::<bool>()).prop_map(
            |(volume, node, holder_gone, force)| Command::Attach {
                volume,
                node,
                boot: Boot(1),
                mode: mooring_config::AttachMode::ReadWrite,
                holder_gone,
                force,
            }
        ),
        (volume.clone(), node.clone(), any::<bool>())
            .prop_map(|(volume, node, force)| Command::Detach { volume, epoch: None, node, force }),
        (volume.clone(), 1_u32..5).prop_map(|(volume, replicas)| Command::SetVolume {
            volume,
            settings: vec![mooring_config::Setting::Replicas(replicas)],
        }),
        (volume.clone(), pool).prop_map(|(volume, pool)| Command::AssignReplicas(vec![
            mooring_config::Assignment { slice: crate::first_slice(volume), pool }
        ])),
        (volume.clone(), node.clone(), 1_u32..4).prop_map(|(volume, node, epoch)| {
            let slice = crate::first_slice(volume);
            let expected = mooring_terms::Epoch(epoch);
            Command::RemoveReplicas(vec![mooring_config::Removal { slice, expected, node }])
        }),
        (volume, node, any::<bool>()).prop_map(|(volume, from, force)| Command::AcceptLoss {
            volume,
            from,
            gone: [NodeId(1), NodeId(2)].into(),
            force,
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// `Cluster::apply` checks all invariants after each command, and that refusals change nothing.
    #[test]
    fn no_sequence_of_commands_breaks_the_invariants(
        commands in proptest::collection::vec(any_command(), 1..80),
    ) {
        let mut c = Cluster::of(5);
        for (name, replicas) in [("a", 1), ("b", 2), ("c", 3), ("d", 3), ("e", 5)] {
            c.volume(name, replicas);
        }
        for command in commands {
            let _ = c.apply(command);
        }
        let bytes = postcard::to_stdvec(&c.state).unwrap();
        prop_assert!(postcard::from_bytes::<mooring_config::ClusterState>(&bytes).unwrap() == c.state);
    }
}
