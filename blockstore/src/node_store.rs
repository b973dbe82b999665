//! What a node knows of itself across restarts: its key, its membership, how often it was started.
//!
//! One small redb file, `node.redb`, in a directory that only root can enter. redb holds a lock on
//! it, so a second daemon on the same data is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mooring_config::Boot;
use mooring_terms::{ErrorKind, NodeId, PoolId};
use mooring_transport::{Identity, NodeKey};
use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::admission::Peer;
use crate::speed::Speed;

/// The file's one table.
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");
const KEY: &str = "key";
const BOOT: &str = "boot";
const MEMBERSHIP: &str = "membership";
const IDENTITY: &str = "identity";
const CA_UNWRAP: &str = "ca-unwrap";
const BEGINNING: &str = "beginning";
const BEGINNING_IDENTITY: &str = "beginning-identity";

/// A node's place in its cluster, as of its last start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The cluster's id, 16 bytes.
    pub cluster: [u8; 16],
    /// The node's number in it.
    pub node: NodeId,
    /// The nodes that were there when it joined: they count until Raft brings the whole table.
    pub peers: Vec<Peer>,
}

/// Why the node's own facts can't be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum NodeStoreError {
    /// Another daemon runs on the same data.
    #[error("{} is in use by another mountd: stop it, or give this one a --data of its own", .0.display())]
    InUse(PathBuf),
    /// The directory can't be made or entered.
    #[error("can't use {} as data directory: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is damaged or of another kind.
    #[error(
        "{} can't be read: {source}. If it is damaged, remove the node (mountctl node rm, on another node), empty its data directory and join again: the pools' data is resynced",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What redb said.
        source: Box<redb::Error>,
    },
    /// A fact in the file can't be decoded.
    #[error("{}: the stored {fact} can't be decoded", path.display())]
    Undecodable {
        /// The file.
        path: PathBuf,
        /// Which.
        fact: &'static str,
    },
    /// A key can't be made.
    #[error(transparent)]
    Key(#[from] mooring_transport::Error),
}

impl NodeStoreError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse(_) | Self::Directory { .. } => ErrorKind::Invalid,
            Self::Damaged { .. } | Self::Undecodable { .. } => ErrorKind::Corrupt,
            Self::Key(_) => ErrorKind::Fatal,
        }
    }
}

/// The file, open. Cheap to clone.
#[derive(Clone)]
pub struct NodeStore {
    database: Arc<Database>,
    path: PathBuf,
}

impl NodeStore {
    /// Opens or makes the file in `directory`, which is made for root alone if it doesn't exist.
    ///
    /// # Errors
    /// [`NodeStoreError::InUse`], [`NodeStoreError::Directory`], [`NodeStoreError::Damaged`].
    pub fn open(directory: &Path) -> Result<Self, NodeStoreError> {
        let failed = |source| NodeStoreError::Directory { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(failed)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let path = directory.join("node.redb");
        let database = Database::create(&path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => NodeStoreError::InUse(directory.to_owned()),
            other => NodeStoreError::Damaged { path: path.clone(), source: Box::new(other.into()) },
        })?;
        Ok(Self { database: Arc::new(database), path })
    }

    /// The node's key; made at the first start.
    ///
    /// # Errors
    /// [`NodeStoreError`].
    pub fn key(&self) -> Result<NodeKey, NodeStoreError> {
        if let Some(bytes) = self.get(KEY)? {
            return Ok(NodeKey::from_bytes(&bytes)?);
        }
        let key = NodeKey::generate()?;
        self.put(&[(KEY, &key.to_bytes())])?;
        Ok(key)
    }

    /// Counts a start of the daemon, and gives its number: the first is 1.
    ///
    /// # Errors
    /// [`NodeStoreError`].
    pub fn next_boot(&self) -> Result<Boot, NodeStoreError> {
        let boot: u64 = self.decoded(BOOT)?.unwrap_or(0) + 1;
        self.put(&[(BOOT, &encode(&boot))])?;
        Ok(Boot(boot))
    }

    /// The node's place in its cluster; `None` before it has one.
    ///
    /// # Errors
    /// [`NodeStoreError`].
    pub fn membership(&self) -> Result<Option<Membership>, NodeStoreError> {
        self.decoded(MEMBERSHIP)
    }

    /// The node's certificate and that of its authority; `None` before it has them.
    ///
    /// # Errors
    /// [`NodeStoreError`].
    pub fn identity(&self) -> Result<Option<Identity>, NodeStoreError> {
        self.get(IDENTITY)?.map(|bytes| Ok(Identity::from_bytes(&bytes)?)).transpose()
    }

    /// Keeps a membership together with its identity.
    ///
    /// # Errors
    /// [`NodeStoreError`].
    pub fn set_membership(
        &self,
        membership: &Membership,
        identity: &Identity,
    ) -> Result<(), NodeStoreError> {
        self.put(&[(MEMBERSHIP, &encode(membership)), (IDENTITY, &identity.to_bytes())])
    }

    /// Keeps what this node is to be in a cluster that it is about to make.
    ///
    /// # Errors
    /// [`NodeStoreError`].
    pub fn set_beginning(
        &self,
        membership: &Membership,
        identity: &Identity,
    ) -> Result<(), NodeStoreError> {
        self.put(&[(BEGINNING, &encode(membership)), (BEGINNING_IDENTITY, &identity.to_bytes())])
    }

    /// What this node was to be in a cluster that it was about to make; `None` if it never was.
    ///
    /// # Errors
    /// [`NodeStoreError`].
    pub fn beginning(&self) -> Result<Option<(Membership, Identity)>, NodeStoreError> {
        let Some(membership) = self.decoded(BEGINNING)? else { return Ok(None) };
        let Some(bytes) = self.get(BEGINNING_IDENTITY)? else { return Ok(None) };
        Ok(Some((membership, Identity::from_bytes(&bytes)?)))
    }

    /// Keeps a renewed certificate.
    ///
    /// # Errors
    /// [`NodeStoreError`].
    pub fn set_identity(&self, identity: &Identity) -> Result<(), NodeStoreError> {
        self.put(&[(IDENTITY, &identity.to_bytes())])
    }

    /// What unwraps the CA's key; on voters only.
    ///
    /// # Errors
    /// [`NodeStoreError`].
    pub fn ca_unwrap(&self) -> Result<Option<Zeroizing<[u8; 32]>>, NodeStoreError> {
        Ok(self.decoded(CA_UNWRAP)?.map(Zeroizing::new))
    }

    /// Keeps what unwraps the CA's key.
    ///
    /// # Errors
    /// [`NodeStoreError`].
    pub fn set_ca_unwrap(&self, key: &[u8; 32]) -> Result<(), NodeStoreError> {
        if self.ca_unwrap()?.is_some_and(|kept| *kept == *key) {
            return Ok(());
        }
        self.put(&[(CA_UNWRAP, &encode(key))])
    }

    /// Whether a pool's last opening ended in an I/O error.
    ///
    /// # Errors
    /// [`NodeStoreError`].
    pub fn pool_failed(&self, pool: PoolId) -> Result<bool, NodeStoreError> {
        Ok(self.get(&format!("pool-failed-{pool}"))?.is_some_and(|value| value == [1]))
    }

    /// Remembers whether a pool's opening ended in an I/O error.
    ///
    /// # Errors
    /// [`NodeStoreError`].
    pub fn set_pool_failed(&self, pool: PoolId, failed: bool) -> Result<(), NodeStoreError> {
        if self.pool_failed(pool)? == failed {
            return Ok(());
        }
        self.put(&[(&format!("pool-failed-{pool}"), &[u8::from(failed)])])
    }

    /// What was measured when a pool was added.
    ///
    /// # Errors
    /// [`NodeStoreError`].
    pub fn pool_speed(&self, pool: PoolId) -> Result<Option<Speed>, NodeStoreError> {
        let stored = self.get(&format!("pool-speed-{pool}"))?;
        // Only shown: figures that can't be read are none.
        Ok(stored.and_then(|bytes| postcard::from_bytes(&bytes).ok()))
    }

    /// Keeps what was measured when a pool was added.
    ///
    /// # Errors
    /// [`NodeStoreError`].
    pub fn set_pool_speed(&self, pool: PoolId, speed: Speed) -> Result<(), NodeStoreError> {
        let bytes = postcard::to_stdvec(&speed).expect("plain data encodes");
        self.put(&[(&format!("pool-speed-{pool}"), &bytes)])
    }

    fn decoded<T: for<'a> Deserialize<'a>>(
        &self,
        fact: &'static str,
    ) -> Result<Option<T>, NodeStoreError> {
        self.get(fact)?
            .map(|bytes| {
                postcard::from_bytes(&bytes)
                    .map_err(|_| NodeStoreError::Undecodable { path: self.path.clone(), fact })
            })
            .transpose()
    }

    fn get(&self, fact: &str) -> Result<Option<Vec<u8>>, NodeStoreError> {
        let read = || -> Result<_, redb::Error> {
            let transaction = self.database.begin_read()?;
            match transaction.open_table(FACTS) {
                Ok(table) => Ok(table.get(fact)?.map(|value| value.value().to_vec())),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(other) => Err(other.into()),
            }
        };
        read().map_err(|source| self.damaged(source))
    }

    fn put(&self, facts: &[(&str, &[u8])]) -> Result<(), NodeStoreError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(FACTS)?;
                for (fact, value) in facts {
                    table.insert(*fact, *value)?;
                }
            }
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|source| self.damaged(source))
    }

    fn damaged(&self, source: redb::Error) -> NodeStoreError {
        NodeStoreError::Damaged { path: self.path.clone(), source: Box::new(source) }
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data encodes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_membership_and_starts_outlive_the_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let membership = Membership {
            cluster: [7; 16],
            node: NodeId(3),
            peers: vec![Peer {
                node: NodeId(1),
                fingerprint: [1; 32],
                address: ([10, 0, 0, 1], 7700).into(),
            }],
        };
        let fingerprint = {
            let store = NodeStore::open(directory.path()).expect("it opens");
            assert_eq!(store.membership().expect("it reads"), None);
            assert_eq!(store.next_boot().expect("it counts"), Boot(1));
            let key = store.key().expect("a key");
            let authority =
                mooring_transport::CertificateAuthority::create().expect("an authority");
            let identity = authority
                .issue(
                    NodeId(3),
                    &[],
                    std::time::SystemTime::UNIX_EPOCH,
                    std::time::Duration::from_secs(3_600),
                )
                .expect("an identity");
            store.set_membership(&membership, &identity).expect("it writes");
            key.fingerprint()
        };
        let store = NodeStore::open(directory.path()).expect("it opens again");
        assert_eq!(store.membership().expect("it reads"), Some(membership));
        assert_eq!(store.key().expect("the same key").fingerprint(), fingerprint);
        assert_eq!(store.next_boot().expect("it counts on"), Boot(2));
        assert!(store.identity().expect("it reads").is_some());
    }

    #[test]
    fn a_second_daemon_on_the_same_data_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let _first = NodeStore::open(directory.path()).expect("it opens");
        let second = NodeStore::open(directory.path()).err().expect("it is refused");
        assert!(matches!(second, NodeStoreError::InUse(_)), "{second}");
    }
}
