//! Joining, renewing, and the wrapping key.

use std::sync::Arc;

use mooring_config::{Command, Done, Refused, Role, TokenHash, UnixMillis};
use mooring_control::certificates::{
    Certificates, JoinRequest, NotSigned, begin, new_gossip_key, new_key,
};
use mooring_terms::{ErrorKind, NodeId};
use mooring_transport::{Fingerprint, Identity, NodeKey, Token};

use crate::{Cluster, by};

struct Signing {
    cluster: Cluster,
    first: Arc<Certificates>,
    token: Token,
    identity: Identity,
}

async fn signing() -> Signing {
    let beginning = begin(
        "test".to_owned(),
        "n1".to_owned(),
        vec!["127.0.0.1:7700".parse().unwrap()],
        [].into(),
    )
    .unwrap();
    let authority = Fingerprint::of_certificate(beginning.identity.authority()).unwrap();
    let cluster = Cluster::begun_with(beginning.genesis).await;
    let first = Certificates::start(cluster.at(1).clone(), Some(beginning.wrapping_key));
    let token = Token::generate(authority).unwrap();
    let hash = TokenHash(*token.hash().as_bytes());
    let expires = UnixMillis(u64::MAX);
    cluster.must(1, Command::CreateJoinToken { hash, expires, uses: 2 }).await;
    Signing { cluster, first, token, identity: beginning.identity }
}

fn request(token: &Token, name: &str) -> (NodeKey, JoinRequest) {
    let (key, request) = new_key().unwrap();
    let join = JoinRequest {
        secret: *token.secret(),
        name: name.to_owned(),
        addresses: vec!["127.0.0.2:7700".parse().unwrap()],
        labels: [("zone".to_owned(), "z".to_owned())].into(),
        version: mooring_config::NEWEST_VERSION,
        request,
    };
    (key, join)
}

async fn join(
    at: &Certificates,
    join: &JoinRequest,
) -> Result<mooring_control::certificates::Admitted, NotSigned> {
    Certificates::read_join_answer(&at.join(&Certificates::join_request(join)).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_at_any_node_and_renews_and_asking_again_is_the_same() {
    let Signing { mut cluster, first, token, identity } = signing().await;
    let (key, wanted) = request(&token, "n2");
    let admitted = join(&first, &wanted).await.unwrap();
    assert_eq!(admitted.node, NodeId(2));
    assert_eq!(admitted.peers.len(), 1);
    assert_eq!(admitted.peers[0].fingerprint.0, *identity.fingerprint().as_bytes());
    let second_identity =
        Identity::new(key, admitted.certificate.clone(), admitted.authority.clone()).unwrap();
    assert_eq!(join(&first, &wanted).await.unwrap().node, NodeId(2), "the answer was lost");
    cluster.start(2).await;
    cluster.until("n2 follows", |c| c.at(2).state().nodes().len() == 2).await;
    let row = cluster.at(2).state().node(NodeId(2)).unwrap().clone();
    assert_eq!((row.label("zone"), row.role), (Some("z"), Role::Learner));

    // Node 2 can't sign, so it asks node 1.
    let second = Certificates::start(cluster.at(2).clone(), None);
    cluster.until("n2 knows the voter", |c| !c.at(2).status().voters.is_empty()).await;
    let (_, third) = request(&token, "n3");
    assert_eq!(join(&second, &third).await.unwrap().node, NodeId(3));
    let (_, fourth) = request(&token, "n4");
    let refused = join(&second, &fourth).await.unwrap_err();
    assert_eq!(refused, NotSigned::Refused(Refused::TokenUseless), "it was good for two");

    let renewed = second.renew(&second_identity).await.unwrap();
    assert_eq!(renewed.fingerprint(), second_identity.fingerprint());
    assert_ne!(renewed.certificate(), second_identity.certificate());
    let own = first.renew(&identity).await.unwrap();
    assert_eq!(own.fingerprint(), identity.fingerprint());
    let other = second.renew(&identity).await.err();
    assert_eq!(other, Some(NotSigned::UnknownKey), "a node renews only its own key");
    assert!(second.wrapping_key().is_none());
    second.obtain_wrapping_key().await.unwrap();
    assert!(second.wrapping_key().is_none(), "a learner gets no key");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_taken_names_and_garbage_use_nothing_up() {
    let Signing { first, token, cluster, .. } = signing().await;
    let authority = token.authority();
    let (_, wrong) = request(&Token::generate(authority).unwrap(), "n2");
    let before = cluster.at(1).status().applied;
    let refused = join(&first, &wrong).await.unwrap_err();
    assert_eq!(cluster.at(1).status().applied, before, "a stranger writes to Raft's log");
    assert_eq!(refused, NotSigned::Refused(Refused::TokenUseless));
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let (_, taken) = request(&token, "n1");
    let refused = join(&first, &taken).await.unwrap_err();
    assert!(matches!(refused, NotSigned::Refused(Refused::NodeNameTaken { .. })), "{refused}");
    let (_, mut forged) = request(&token, "n2");
    let last = forged.request.len() - 20;
    forged.request[last] ^= 1;
    assert_eq!(join(&first, &forged).await.unwrap_err(), NotSigned::Malformed);
    for garbage in [&b""[..], b"garbage", &[0xff; 70_000]] {
        let answer = Certificates::read_join_answer(&first.join(garbage).await);
        assert_eq!(answer.unwrap_err(), NotSigned::Malformed);
    }
    let hash = TokenHash(*token.hash().as_bytes());
    assert_eq!(cluster.at(1).state().join_tokens()[&hash].uses_left, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_voters_get_the_wrapping_key_and_sign_when_the_first_is_gone() {
    let Signing { mut cluster, first, token, .. } = signing().await;
    let mut others = Vec::new();
    for number in [2, 3] {
        let (_, wanted) = request(&token, &format!("n{number}"));
        assert_eq!(join(&first, &wanted).await.unwrap().node, NodeId(number));
        cluster.start(number).await;
    }
    cluster
        .until("all three vote", |c| {
            let votes = |n| c.at(n).state().node(NodeId(n)).is_some_and(|r| r.role == Role::Voter);
            (1..=3).all(votes)
                && (1..=3).all(|n| c.at(n).status().voters.len() == 3 && !c.at(n).status().changing)
        })
        .await;
    for number in [2, 3] {
        let certificates = Certificates::start(cluster.at(number).clone(), None);
        certificates.obtain_wrapping_key().await.unwrap();
        assert_eq!(certificates.wrapping_key(), first.wrapping_key());
        others.push(certificates);
    }
    cluster.network.isolate(NodeId(1));
    cluster.until("another leads", |c| c.leader().is_some_and(|leader| leader != 1)).await;
    let fresh = Token::generate(token.authority()).unwrap();
    let hash = TokenHash(*fresh.hash().as_bytes());
    let command = Command::CreateJoinToken { hash, expires: UnixMillis(u64::MAX), uses: 1 };
    assert_eq!(cluster.at(2).propose(by(), command).await.unwrap(), Done::Ok);
    let (_, wanted) = request(&fresh, "n4");
    assert_eq!(join(&others[1], &wanted).await.unwrap().node, NodeId(4));
    assert_ne!(new_gossip_key().unwrap(), new_gossip_key().unwrap());
}
