//! A node's way into a cluster, interrupted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mooring_config::Boot;
use mooring_control::rpc::Rpc;
use mooring_control::{Control, Options, Timings};
use mooring_terms::NodeId;
use tokio::runtime::{Handle, Runtime};

use crate::node::membership::{NoWire, create_or_find};
use crate::{NewMember, NodeStore, create};

#[test]
fn a_cluster_whose_making_was_interrupted_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = NodeStore::open(folder.path()).unwrap();
    let member = NewMember {
        name: "one".to_owned(),
        listen: SocketAddr::from(([127, 0, 0, 1], 7700)),
        labels: BTreeMap::new(),
    };
    Runtime::new().unwrap().block_on(async {
        // The cluster is made, and the daemon dies before it has remembered that it belongs to it.
        let rpc = Rpc::new(NodeId(1), Arc::new(NoWire), Handle::current());
        let options = Options {
            node: NodeId(1),
            boot: Boot(1),
            store: folder.path().join("raft.redb"),
            timings: Timings::default(),
        };
        let control = Control::start(options, rpc).await.unwrap();
        let made = create_or_find(&store, &control, member.clone(), None).await.unwrap();
        control.shutdown().await.unwrap();
        drop(control);
        assert_eq!(store.membership().unwrap(), None);

        create(&store, folder.path(), member, Timings::default()).await.unwrap();
        assert_eq!(store.membership().unwrap(), Some(made.0));
        assert!(store.identity().unwrap().is_some());
    });
}
