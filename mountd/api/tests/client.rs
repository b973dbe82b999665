//! The client against a daemon that isn't one: every route is called, every way to fail is told
//! apart.

// Helpers outside a test function are tests too.
#![allow(clippy::unwrap_used)]

mod fake;

use std::collections::BTreeSet;
use std::time::Duration;

use fake::{Asked, Fake, Reply};
use mooring_api::{
    AcceptLoss, AddPool, ApiError, Attach, ByteSize, ChangeLabels, ChangeVolume, Client,
    ClientError, CreateAccessToken, CreateToken, CreateVolume, Endpoint, ErrorKind, EventsQuery,
    ForceQuery, JoinCluster, MountVolume, NodeName, PoolId, ResizeVolume, Rights, Secret,
    SetVoters, TaskId, TokenName, UnmountQuery, VolumeName, VoterTarget, routes,
};

fn volume() -> VolumeName {
    VolumeName::new("db").unwrap()
}

fn node() -> NodeName {
    NodeName::new("alpha").unwrap()
}

/// Calls every method; answers don't matter.
async fn call_everything(client: &Client) {
    let (volume, node, force) = (volume(), node(), ForceQuery { force: true });
    let _ = client.status().await;
    let _ = client.cluster().await;
    let _ = client.create_cluster().await;
    let _ = client.create_token(&CreateToken::default()).await;
    let join = JoinCluster { address: "10.0.0.1:7700".into(), token: Secret::new("t") };
    let _ = client.join_cluster(&join).await;
    let _ = client.set_voters(SetVoters { voters: VoterTarget::Three }).await;
    let _ = client.access_tokens().await;
    let ci = TokenName::new("ci").unwrap();
    let made = CreateAccessToken { name: ci.clone(), rights: Rights::Read, ttl: None };
    let _ = client.create_access_token(&made).await;
    let _ = client.revoke_access_token(&ci).await;
    let _ = client.nodes().await;
    let _ = client.node(&node).await;
    let _ = client.change_node(&node, &ChangeLabels::default()).await;
    let _ = client.drain_node(&node).await;
    let _ = client.undrain_node(&node).await;
    let _ = client.remove_node(&node, force).await;
    let _ = client.pools().await;
    let pool = AddPool { path: "/p".into(), size: None, class: None, force: false };
    let _ = client.add_pool(&pool).await;
    let _ = client.pool(PoolId(3)).await;
    let _ = client.remove_pool(PoolId(3), force).await;
    let _ = client.volumes().await;
    let _ = client.create_volume(&CreateVolume::new(volume.clone())).await;
    let _ = client.volume(&volume).await;
    let _ = client.change_volume(&volume, &ChangeVolume::default()).await;
    let _ = client.remove_volume(&volume, force).await;
    let _ = client.resize_volume(&volume, &ResizeVolume { size: ByteSize::gib(1) }).await;
    let _ = client.accept_loss(&volume, &AcceptLoss { from: node, force: true }).await;
    let _ = client.resync(&volume).await;
    let _ = client.shared_clients(&volume).await;
    let _ = client.evict(&volume, 7).await;
    let _ = client.check(&volume).await;
    let _ = client.attach(&volume, &Attach::default()).await;
    let _ = client.detach(&volume, force).await;
    let _ = client.mounts().await;
    let mount = MountVolume {
        volume: volume.clone(),
        dir: "/mnt".into(),
        options: Vec::new(),
        read_only: false,
        backend: None,
        force: false,
    };
    let _ = client.mount(&mount).await;
    let query = UnmountQuery { volume: Some(volume), ..Default::default() };
    let _ = client.unmount(&query).await;
    let _ = client.events(EventsQuery { after: 7, follow: true }).await;
    let _ = client.tasks().await;
    let _ = client.task(TaskId(5)).await;
    let _ = client.openapi().await;
    let _ = client.metrics().await;
}

/// Whether `target` is what `path` looks like, filled in.
fn matches(path: &str, target: &str) -> bool {
    let target = target.split('?').next().unwrap();
    let parts = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let (path, target) = (parts(path), parts(target));
    path.len() == target.len()
        && path.iter().zip(&target).all(|(p, t)| p.starts_with('{') || p == t)
}

#[tokio::test]
async fn every_route_is_in_the_client() {
    let fake = Fake::start(|_| Reply::ok("{}"));
    call_everything(&Client::unix(fake.socket())).await;
    let asked = fake.asked();
    let routes_of = |asked: &Asked| {
        let fit = |route: &&routes::Route| {
            route.method.as_str() == asked.method && matches(route.path, &asked.target)
        };
        let fits: Vec<_> = routes::ALL.iter().filter(fit).collect();
        assert_eq!(fits.len(), 1, "{asked:?} is one route");
        (fits[0].method.to_string(), fits[0].path)
    };
    let called: BTreeSet<_> = asked.iter().map(routes_of).collect();
    let all: BTreeSet<_> =
        routes::ALL.iter().map(|route| (route.method.to_string(), route.path)).collect();
    assert_eq!(called, all);
    let sent = |method: &str, target: &str| {
        asked.iter().any(|asked| asked.method == method && asked.target == target)
    };
    assert!(sent("DELETE", "/v1/volumes/db?force=true"));
    assert!(sent("GET", "/v1/events?after=7&follow=true"));
    let join = asked.iter().find(|asked| asked.target == "/v1/cluster/join").unwrap();
    assert_eq!(join.body, r#"{"address":"10.0.0.1:7700","token":"t"}"#);
}

#[tokio::test]
async fn an_answer_is_what_the_daemon_said() {
    let fake = Fake::start(|asked| match asked.target.as_str() {
        "/v1/volumes" => Reply::ok("[]"),
        "/metrics" => Reply::ok("up 1\n"),
        _ => Reply::Json(204, String::new()),
    });
    let client = Client::unix(fake.socket());
    assert_eq!(client.volumes().await.unwrap(), []);
    assert_eq!(client.metrics().await.unwrap(), "up 1\n");
    client.undrain_node(&node()).await.unwrap();
}

#[tokio::test]
async fn each_error_of_the_daemon_arrives_whole() {
    for kind in ErrorKind::ALL {
        let error = ApiError::new(kind, "no").hint("do").detail("node", "beta");
        let json = serde_json::to_string(&error).unwrap();
        let fake = Fake::start(move |_| Reply::Json(kind.status().as_u16(), json.clone()));
        match Client::unix(fake.socket()).status().await.unwrap_err() {
            ClientError::Api(got) => assert_eq!(got, error),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    let error = Client::unix(&socket).status().await.unwrap_err();
    assert!(error.to_string().starts_with("mountd is not running on this machine (no socket at"));
    assert!(error.hint().contains("start it with"), "{}", error.hint());
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // A socket that outlived its daemon.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let error = Client::unix(&socket).status().await.unwrap_err();
    assert!(error.to_string().contains("nobody answers"), "{error}");
    let error = Client::unix(dir.path().join("a".repeat(200))).status().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn a_daemon_that_hangs_is_not_waited_for_for_ever() {
    let fake = Fake::start(|_| Reply::Hang);
    let client = Client::unix(fake.socket()).with_timeout(Duration::from_millis(100));
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    assert_eq!(error.to_string(), "mountd gave no answer to GET /v1/status within 100ms");
}

#[tokio::test]
async fn garbage_is_an_error_and_no_panic() {
    let kinds = |bytes: &'static [u8]| async move {
        let fake = Fake::start(move |_| Reply::Bytes(bytes.to_vec()));
        Client::unix(fake.socket()).status().await.unwrap_err()
    };
    assert!(matches!(kinds(b"").await, ClientError::Broken { .. }));
    assert!(matches!(kinds(b"\0\xff\r\n\r\n").await, ClientError::Broken { .. }));
    let cut = kinds(b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n{").await;
    assert!(matches!(cut, ClientError::Broken { .. }), "{cut:?}");
    let html = kinds(b"HTTP/1.1 200 X\r\ncontent-length: 6\r\n\r\n<html>").await;
    assert!(matches!(html, ClientError::Garbled { .. }), "{html:?}");
    let other = kinds(b"HTTP/1.1 404 X\r\ncontent-length: 6\r\n\r\n<html>").await;
    assert!(matches!(other, ClientError::NotMountd { .. }), "{other:?}");
    let huge = kinds(b"HTTP/1.1 200 X\r\ncontent-length: 99999999999\r\n\r\n").await;
    assert!(!huge.hint().is_empty(), "{huge:?}");
}

#[tokio::test]
async fn a_token_is_not_sent_to_another_machine() {
    let token = Some(Secret::new("secret"));
    let client = Client::new(Endpoint::parse("tcp://192.0.2.1:7700", token));
    let error = client.status().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(!format!("{error} {client:?}").contains("secret"));
}
