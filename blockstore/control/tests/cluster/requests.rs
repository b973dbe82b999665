//! Requests between nodes: answers, timeouts, broken connections, too many, garbage.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use mooring_control::rpc::{
    MAX_BODY_BYTES, Malformed, MemoryNetwork, OUTSTANDING, Rpc, RpcError, Service, Wire, WireDown,
};
use mooring_terms::{ErrorKind, NodeId};
use parking_lot::Mutex;
use tokio::runtime::Handle;

const LONG: Duration = Duration::from_secs(10);

/// Answers who asked, and what; never, if asked to wait; with an error, if the body is empty.
struct Echo;

#[async_trait]
impl Service for Echo {
    async fn call(&self, from: NodeId, body: Bytes) -> Result<Bytes, Malformed> {
        if body.is_empty() {
            return Err(Malformed);
        }
        if body == "wait" {
            std::future::pending::<()>().await;
        }
        Ok(format!("{from} said {}", String::from_utf8_lossy(&body)).into())
    }
}

fn pair() -> (Arc<MemoryNetwork>, Arc<Rpc>, Arc<Rpc>) {
    let network = MemoryNetwork::new();
    let end = |number| {
        let rpc = Rpc::new(NodeId(number), network.wire(NodeId(number)), Handle::current());
        network.attach(&rpc);
        rpc.serve("echo", Arc::new(Echo));
        rpc
    };
    let (one, two) = (end(1), end(2));
    (network, one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered_by_another_node_and_by_this_one() {
    let (_network, one, _two) = pair();
    let answer = one.call(NodeId(2), "echo", "hello".into(), LONG).await;
    assert_eq!(answer, Ok("1 said hello".into()));
    let answer = one.call(NodeId(1), "echo", "hello".into(), LONG).await;
    assert_eq!(answer, Ok("1 said hello".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_has_its_own_error_and_its_time() {
    let (network, one, _two) = pair();
    let two = NodeId(2);
    let ask = async |service: &str, body: &'static str, limit| {
        one.call(two, service, body.into(), limit).await.unwrap_err()
    };
    assert_eq!(ask("echo", "", LONG).await, RpcError::Malformed(two));
    assert_eq!(ask("nothing", "x", LONG).await, RpcError::NoService(two));
    let started = Instant::now();
    let late = ask("echo", "wait", Duration::from_millis(50)).await;
    assert_eq!((late, late.may_have_been_handled()), (RpcError::Timeout(two), true));
    assert!(started.elapsed() < Duration::from_secs(2));
    let large = one.call(two, "echo", vec![0; MAX_BODY_BYTES + 1].into(), LONG).await.unwrap_err();
    assert_eq!(large.kind(), ErrorKind::Invalid);
    let nobody = one.call(NodeId(9), "echo", "x".into(), LONG).await.unwrap_err();
    assert_eq!((nobody, nobody.may_have_been_handled()), (RpcError::Down(NodeId(9)), false));

    let waiting = {
        let one = Arc::clone(&one);
        tokio::spawn(async move { one.call(two, "echo", "wait".into(), LONG).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    network.cut(NodeId(1), two);
    assert_eq!(waiting.await.unwrap(), Err(RpcError::Broken(two)), "at once, not after 10 s");
    assert_eq!(ask("echo", "x", LONG).await, RpcError::Down(two));
    network.heal();
    assert!(one.call(two, "echo", "x".into(), LONG).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_under_way_are_bounded_and_given_up_ones_make_room() {
    let (_network, one, _two) = pair();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..OUTSTANDING {
        let one = Arc::clone(&one);
        // Those that find no room, because of the calls below, try again: in the end all wait.
        tasks.spawn(async move {
            while let Err(RpcError::Busy(_)) =
                one.call(NodeId(2), "echo", "wait".into(), LONG).await
            {
                tokio::task::yield_now().await;
            }
        });
    }
    let started = Instant::now();
    let refused = loop {
        match one.call(NodeId(2), "echo", "x".into(), LONG).await {
            Err(error) => break error,
            Ok(_) => assert!(started.elapsed() < LONG, "never full"),
        }
    };
    assert_eq!(refused, RpcError::Busy(NodeId(2)));
    assert!(
        one.call(NodeId(1), "echo", "x".into(), LONG).await.is_ok(),
        "others are not concerned"
    );
    tasks.shutdown().await;
    // The other side still works on them, and counts them too.
    let refused = one.call(NodeId(2), "echo", "x".into(), LONG).await;
    assert_eq!(refused, Err(RpcError::Busy(NodeId(2))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_waits_for_the_way_back() {
    let (network, one, _two) = pair();
    // As at the start of a node: its own stream stands, that of the other side doesn't yet.
    network.cut_one_way(NodeId(2), NodeId(1));
    let call = tokio::spawn(async move { one.call(NodeId(2), "echo", "x".into(), LONG).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!call.is_finished());
    network.heal();
    let answer = tokio::time::timeout(Duration::from_secs(1), call).await;
    assert_eq!(answer.expect("soon, not after 10 s").unwrap(), Ok("1 said x".into()));
}

/// Takes what is sent, and delivers nothing.
#[derive(Default)]
struct Recorder(Mutex<Vec<Bytes>>);

impl Wire for Recorder {
    fn send(&self, _to: NodeId, frame: Bytes) -> Result<(), WireDown> {
        self.0.lock().push(frame);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_dropped_and_only_the_node_asked_may_answer() {
    let recorder = Arc::new(Recorder::default());
    let rpc = Rpc::new(NodeId(1), Arc::clone(&recorder) as Arc<dyn Wire>, Handle::current());
    rpc.serve("echo", Arc::new(Echo));
    let call = {
        let rpc = Arc::clone(&rpc);
        tokio::spawn(async move { rpc.call(NodeId(2), "echo", "x".into(), LONG).await })
    };
    while recorder.0.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let request = recorder.0.lock()[0].clone();
    for length in 0..request.len() {
        rpc.incoming(NodeId(3), request.slice(..length));
    }
    for byte in 0..=255_u8 {
        rpc.incoming(NodeId(3), vec![byte; 40].into());
        let mut kind = request.to_vec();
        kind[1] = byte.max(3);
        rpc.incoming(NodeId(3), kind.into());
    }
    // A reply with the number of the request: version, kind, number, status, body.
    let mut reply = request[..10].to_vec();
    reply[1] = 2;
    rpc.incoming(NodeId(2), reply.clone().into());
    reply.extend_from_slice(b"\0forged");
    rpc.incoming(NodeId(3), reply.clone().into());
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!call.is_finished(), "neither half an answer nor a stranger's counts");
    reply.truncate(10);
    reply.extend_from_slice(b"\0real");
    rpc.incoming(NodeId(2), reply.into());
    assert_eq!(call.await.unwrap(), Ok("real".into()));
}
