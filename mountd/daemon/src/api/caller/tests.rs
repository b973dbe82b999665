//! Who is let in over the network, and how far.

use std::collections::BTreeMap;

use mooring_config::{
    Actor, ClusterId, Command, Fingerprint as Listed, Genesis, NEWEST_VERSION, NewNode,
    Rights as Granted, WrappedKey,
};
use mooring_transport::CertificateAuthority;

use super::*;

const NOW: UnixMillis = UnixMillis(10_000);
const SECRET: &str = "mooring-api-0101010101010101010101010101010101010101010101010101010101010101";

/// A cluster whose first node has this key, with one token.
fn cluster(key: Listed, rights: Granted, expires: Option<UnixMillis>) -> ClusterState {
    let mut state = ClusterState::default();
    let mut must = |command: Command| {
        let by = Actor { node: None, name: "test".to_owned() };
        state.apply(UnixMillis(1), &by, &command).expect("a test's command is accepted");
    };
    must(Command::Create(Box::new(Genesis {
        cluster: ClusterId([1; 16]),
        name: "test".to_owned(),
        ca_certificate: Vec::new(),
        ca_key: WrappedKey(Vec::new()),
        gossip_key: [1; 32],
        version: NEWEST_VERSION,
        first: NewNode {
            name: "alpha".to_owned(),
            addresses: Vec::new(),
            fingerprint: key,
            labels: BTreeMap::new(),
            version: NEWEST_VERSION,
        },
    })));
    let hash = hash_of(SECRET).expect("it is a token");
    must(Command::CreateApiToken { hash, name: "ci".to_owned(), rights, expires });
    state
}

fn ask(
    state: &ClusterState,
    header: Option<&str>,
    certificate: Option<&[u8]>,
    (method, path): (Method, &str),
) -> Result<Caller, ApiError> {
    let mut headers = HeaderMap::new();
    if let Some(header) = header {
        headers.insert(AUTHORIZATION, header.parse().expect("a header"));
    }
    admit(state, NOW, &Credentials { certificate, headers: &headers }, (&method, path))
}

fn refused(answer: Result<Caller, ApiError>) -> String {
    let error = answer.expect_err("it is refused");
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    error.message
}

#[test]
fn only_a_token_that_is_known_and_not_over_is_let_in() {
    let state = cluster(Listed([9; 32]), Granted::Read, Some(UnixMillis(NOW.0 + 1)));
    let look = || (Method::GET, "/v1/volumes");
    let header = format!("Bearer {SECRET}");
    let caller = ask(&state, Some(&header), None, look()).expect("it is let in");
    assert_eq!(caller, Caller { name: "token ci".to_owned(), rights: Rights::Read });
    assert!(refused(ask(&state, None, None, look())).contains("needs a token"));
    let wrong = header.replace("0101", "0102");
    assert!(refused(ask(&state, Some(&wrong), None, look())).contains("not known"));
    for garbage in ["", "Bearer", "Basic YTpi", SECRET] {
        refused(ask(&state, Some(garbage), None, look()));
    }
    for garbage in
        ["Bearer ", "Bearer mooring-AZ3k", "Bearer mooring-api-xyz", "Bearer mooring-api-01"]
    {
        assert!(refused(ask(&state, Some(garbage), None, look())).contains(TOKEN_PREFIX));
    }
    let over = cluster(Listed([9; 32]), Granted::Read, Some(NOW));
    assert!(refused(ask(&over, Some(&header), None, look())).contains("ci is over"));
    let for_ever = cluster(Listed([9; 32]), Granted::Read, None);
    assert!(ask(&for_ever, Some(&header), None, look()).is_ok());
}

#[test]
fn rights_go_as_far_as_they_go_and_force_is_one_of_them() {
    let header = format!("Bearer {SECRET}");
    let change = || (Method::PATCH, "/v1/volumes/db");
    let tokens = || (Method::GET, "/v1/tokens");
    for (granted, may_change, may_force) in [
        (Granted::Read, false, false),
        (Granted::Operate, true, false),
        (Granted::Force, true, true),
    ] {
        let state = cluster(Listed([9; 32]), granted, None);
        let asked = |what| ask(&state, Some(&header), None, what);
        assert!(asked((Method::GET, "/v1/status")).is_ok());
        assert_eq!(asked(change()).is_ok(), may_change, "{granted:?}");
        assert_eq!(asked(tokens()).is_ok(), may_force, "{granted:?}");
        let caller = asked((Method::GET, "/v1/status")).expect("it may look");
        assert!(caller.may_force(false).is_ok());
        assert_eq!(caller.may_force(true).is_ok(), may_force);
    }
    let state = cluster(Listed([9; 32]), Granted::Operate, None);
    let unknown = ask(&state, Some(&header), None, (Method::GET, "/v1/secrets"));
    assert_eq!(unknown.expect_err("there is none").kind, ErrorKind::NotFound);
}

#[test]
fn a_node_in_the_table_is_known_by_its_certificate_and_a_removed_one_is_not() {
    let authority = CertificateAuthority::create().expect("keys can be made");
    let issue = || {
        let now = std::time::SystemTime::UNIX_EPOCH;
        let life = std::time::Duration::from_secs(60);
        authority.issue(mooring_terms::NodeId(1), &[], now, life).expect("it signs")
    };
    let (listed, removed) = (issue(), issue());
    let state = cluster(Listed(*listed.fingerprint().as_bytes()), Granted::Read, None);
    let force = || (Method::POST, "/v1/mounts");
    let caller = ask(&state, None, Some(listed.certificate()), force()).expect("it is let in");
    assert_eq!(caller.name(), "node alpha");
    assert!(refused(ask(&state, None, Some(removed.certificate()), force())).contains("no node"));
    assert!(refused(ask(&state, None, Some(b"garbage"), force())).contains("no node"));
}
