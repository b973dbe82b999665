//! One whole node, alone in a cluster, with a pool in a directory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mooring_config::placement::{Hints, plan_create};
use mooring_config::{Class, VolumeRequest};
use mooring_control::Timings;
use mooring_replication::Options;
use mooring_terms::{PoolId, SliceId, SliceIndex, VolumeId};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::node::pools::OpenPool;
use crate::pool_store::POOL_MIN_BYTES;
use crate::{NewMember, Node, NodeOptions, NodeStore, create};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The node, and what it stands on.
pub struct Alone {
    pub node: Arc<Node>,
    pub pool: PoolId,
    pub runtime: Runtime,
    _folder: TempDir,
}

impl Alone {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let store = NodeStore::open(folder.path()).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let (node, pool) = runtime.block_on(async {
            let member = NewMember { name: "one".to_owned(), listen, labels: BTreeMap::new() };
            create(&store, folder.path(), member, Timings::default()).await.unwrap();
            let membership = store.membership().unwrap().unwrap();
            let identity = store.identity().unwrap().unwrap();
            let options = NodeOptions {
                listen,
                data: folder.path().to_owned(),
                replication: Options::default(),
                timings: Timings::default(),
                pool_memory: 16 << 20,
                still_held: Vec::new(),
                unprotected: mooring_transport::Unprotected::default(),
            };
            let node = Node::start(options, store, membership, identity, None).await.unwrap();
            let (place, size) = (folder.path().join("pool"), Some(POOL_MIN_BYTES));
            let progress = Arc::new(|_| ());
            let class = Some(Class::Medium);
            let added = node.add_pool("test", &place, size, class, false, progress).await;
            (node, added.unwrap())
        });
        Self { node, pool, runtime, _folder: folder }
    }

    pub fn open_pool(&self) -> OpenPool {
        self.node.pools.get(self.pool).unwrap()
    }

    /// Makes a volume and waits until its replica is held here.
    pub fn make_volume(&self, name: &str) -> SliceId {
        let request = VolumeRequest { replicas: Some(1), ..VolumeRequest::default() };
        let planned = plan_create(&self.node.state(), &Hints::default(), name, &request);
        self.runtime.block_on(self.node.propose("test", planned.unwrap())).unwrap();
        let volume = self.node.state().volume_by_name(name).unwrap().id;
        let slice = SliceId { volume, index: SliceIndex(0) };
        self.wait("the replica is held", || self.node.plane.slice(slice).is_some());
        slice
    }

    /// A replica in the pool of a volume that there isn't.
    pub fn stray(&self, volume: u64) -> SliceId {
        let slice = SliceId { volume: VolumeId(volume), index: SliceIndex(0) };
        self.open_pool().pool.engine().create(slice, bytes::Bytes::new()).unwrap();
        slice
    }

    pub fn holds(&self, slice: SliceId) -> bool {
        self.open_pool().pool.engine().replica(slice).is_ok()
    }

    pub fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.runtime.block_on(self.node.stop());
    }
}
