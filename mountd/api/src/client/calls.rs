//! One method a route. What each does, and whether it can be repeated, stands at its route.

use serde_json::Value;

use super::{Call, Client, ClientError};
use crate::access::{AccessToken, CreateAccessToken, NewAccessToken};
use crate::cluster::{CreateToken, JoinCluster, Membership, SetVoters, Token};
use crate::device::{Attach, Attachment, Mount, MountVolume, Mounted, UnmountQuery, Unmounted};
use crate::event::{Events, EventsQuery};
use crate::name::{NodeName, TokenName, VolumeName};
use crate::node::{ChangeLabels, ForceQuery, Node, NodeDetail};
use crate::pool::{AddPool, Pool, PoolId};
use crate::routes;
use crate::shared::{Check, SharedClient};
use crate::slice::Resync;
use crate::status::Status;
use crate::task::{Task, TaskId};
use crate::volume::{
    AcceptLoss, AcceptedLoss, ChangeVolume, CreateVolume, CreatedVolume, ResizeVolume, Volume,
    VolumeDetail,
};

/// Every error is a [`ClientError`]: the daemon can't be asked, or says no.
#[allow(clippy::missing_errors_doc)]
impl Client {
    /// [`routes::STATUS`]
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.fetch(Call::new(&routes::STATUS, &[])).await
    }

    /// [`routes::CLUSTER`]
    pub async fn cluster(&self) -> Result<Membership, ClientError> {
        self.fetch(Call::new(&routes::CLUSTER, &[])).await
    }

    /// [`routes::CLUSTER_CREATE`]
    pub async fn create_cluster(&self) -> Result<Membership, ClientError> {
        self.fetch(Call::new(&routes::CLUSTER_CREATE, &[])).await
    }

    /// [`routes::CLUSTER_TOKEN`]
    pub async fn create_token(&self, token: &CreateToken) -> Result<Token, ClientError> {
        self.fetch(Call::new(&routes::CLUSTER_TOKEN, &[]).body(token)).await
    }

    /// [`routes::CLUSTER_JOIN`]
    pub async fn join_cluster(&self, join: &JoinCluster) -> Result<Membership, ClientError> {
        self.fetch(Call::new(&routes::CLUSTER_JOIN, &[]).body(join)).await
    }

    /// [`routes::CLUSTER_VOTERS`]
    pub async fn set_voters(&self, voters: SetVoters) -> Result<Membership, ClientError> {
        self.fetch(Call::new(&routes::CLUSTER_VOTERS, &[]).body(&voters)).await
    }

    /// [`routes::TOKENS`]
    pub async fn access_tokens(&self) -> Result<Vec<AccessToken>, ClientError> {
        self.fetch(Call::new(&routes::TOKENS, &[])).await
    }

    /// [`routes::TOKEN_CREATE`]
    pub async fn create_access_token(
        &self,
        token: &CreateAccessToken,
    ) -> Result<NewAccessToken, ClientError> {
        self.fetch(Call::new(&routes::TOKEN_CREATE, &[]).body(token)).await
    }

    /// [`routes::TOKEN_REVOKE`]
    pub async fn revoke_access_token(&self, token: &TokenName) -> Result<(), ClientError> {
        self.order(Call::new(&routes::TOKEN_REVOKE, &[token.as_str()])).await
    }

    /// [`routes::NODES`]
    pub async fn nodes(&self) -> Result<Vec<Node>, ClientError> {
        self.fetch(Call::new(&routes::NODES, &[])).await
    }

    /// [`routes::NODE`]
    pub async fn node(&self, node: &NodeName) -> Result<NodeDetail, ClientError> {
        self.fetch(Call::new(&routes::NODE, &[node.as_str()])).await
    }

    /// [`routes::NODE_CHANGE`]
    pub async fn change_node(
        &self,
        node: &NodeName,
        labels: &ChangeLabels,
    ) -> Result<Node, ClientError> {
        self.fetch(Call::new(&routes::NODE_CHANGE, &[node.as_str()]).body(labels)).await
    }

    /// [`routes::NODE_DRAIN`]
    pub async fn drain_node(&self, node: &NodeName) -> Result<Task, ClientError> {
        self.fetch(Call::new(&routes::NODE_DRAIN, &[node.as_str()])).await
    }

    /// [`routes::NODE_UNDRAIN`]
    pub async fn undrain_node(&self, node: &NodeName) -> Result<(), ClientError> {
        self.order(Call::new(&routes::NODE_UNDRAIN, &[node.as_str()])).await
    }

    /// [`routes::NODE_REMOVE`]
    pub async fn remove_node(&self, node: &NodeName, force: ForceQuery) -> Result<(), ClientError> {
        self.order(Call::new(&routes::NODE_REMOVE, &[node.as_str()]).query(&force)).await
    }

    /// [`routes::POOLS`]
    pub async fn pools(&self) -> Result<Vec<Pool>, ClientError> {
        self.fetch(Call::new(&routes::POOLS, &[])).await
    }

    /// [`routes::POOL_ADD`]
    pub async fn add_pool(&self, pool: &AddPool) -> Result<Pool, ClientError> {
        self.fetch(Call::new(&routes::POOL_ADD, &[]).body(pool)).await
    }

    /// [`routes::POOL`]
    pub async fn pool(&self, pool: PoolId) -> Result<Pool, ClientError> {
        self.fetch(Call::new(&routes::POOL, &[&pool.to_string()])).await
    }

    /// [`routes::POOL_REMOVE`]
    pub async fn remove_pool(&self, pool: PoolId, force: ForceQuery) -> Result<Task, ClientError> {
        self.fetch(Call::new(&routes::POOL_REMOVE, &[&pool.to_string()]).query(&force)).await
    }

    /// [`routes::VOLUMES`]
    pub async fn volumes(&self) -> Result<Vec<Volume>, ClientError> {
        self.fetch(Call::new(&routes::VOLUMES, &[])).await
    }

    /// [`routes::VOLUME_CREATE`]
    pub async fn create_volume(&self, volume: &CreateVolume) -> Result<CreatedVolume, ClientError> {
        self.fetch(Call::new(&routes::VOLUME_CREATE, &[]).body(volume)).await
    }

    /// [`routes::VOLUME`]
    pub async fn volume(&self, volume: &VolumeName) -> Result<VolumeDetail, ClientError> {
        self.fetch(Call::new(&routes::VOLUME, &[volume.as_str()])).await
    }

    /// [`routes::VOLUME_CHANGE`]
    pub async fn change_volume(
        &self,
        volume: &VolumeName,
        change: &ChangeVolume,
    ) -> Result<Volume, ClientError> {
        self.fetch(Call::new(&routes::VOLUME_CHANGE, &[volume.as_str()]).body(change)).await
    }

    /// [`routes::VOLUME_REMOVE`]
    pub async fn remove_volume(
        &self,
        volume: &VolumeName,
        force: ForceQuery,
    ) -> Result<(), ClientError> {
        self.order(Call::new(&routes::VOLUME_REMOVE, &[volume.as_str()]).query(&force)).await
    }

    /// [`routes::VOLUME_RESIZE`]
    pub async fn resize_volume(
        &self,
        volume: &VolumeName,
        resize: &ResizeVolume,
    ) -> Result<Volume, ClientError> {
        self.fetch(Call::new(&routes::VOLUME_RESIZE, &[volume.as_str()]).body(resize)).await
    }

    /// [`routes::VOLUME_ACCEPT_LOSS`]
    pub async fn accept_loss(
        &self,
        volume: &VolumeName,
        accept: &AcceptLoss,
    ) -> Result<AcceptedLoss, ClientError> {
        self.fetch(Call::new(&routes::VOLUME_ACCEPT_LOSS, &[volume.as_str()]).body(accept)).await
    }

    /// [`routes::VOLUME_RESYNC`]
    pub async fn resync(&self, volume: &VolumeName) -> Result<Vec<Resync>, ClientError> {
        self.fetch(Call::new(&routes::VOLUME_RESYNC, &[volume.as_str()])).await
    }

    /// [`routes::VOLUME_CLIENTS`]
    pub async fn shared_clients(
        &self,
        volume: &VolumeName,
    ) -> Result<Vec<SharedClient>, ClientError> {
        self.fetch(Call::new(&routes::VOLUME_CLIENTS, &[volume.as_str()])).await
    }

    /// [`routes::VOLUME_EVICT`]
    pub async fn evict(&self, volume: &VolumeName, client: u64) -> Result<(), ClientError> {
        let client = client.to_string();
        self.order(Call::new(&routes::VOLUME_EVICT, &[volume.as_str(), &client])).await
    }

    /// [`routes::VOLUME_CHECK`]
    pub async fn check(&self, volume: &VolumeName) -> Result<Check, ClientError> {
        self.fetch(Call::new(&routes::VOLUME_CHECK, &[volume.as_str()])).await
    }

    /// [`routes::VOLUME_ATTACH`]
    pub async fn attach(
        &self,
        volume: &VolumeName,
        attach: &Attach,
    ) -> Result<Attachment, ClientError> {
        self.fetch(Call::new(&routes::VOLUME_ATTACH, &[volume.as_str()]).body(attach)).await
    }

    /// [`routes::VOLUME_DETACH`]
    pub async fn detach(&self, volume: &VolumeName, force: ForceQuery) -> Result<(), ClientError> {
        self.order(Call::new(&routes::VOLUME_DETACH, &[volume.as_str()]).query(&force)).await
    }

    /// [`routes::MOUNTS`]
    pub async fn mounts(&self) -> Result<Vec<Mount>, ClientError> {
        self.fetch(Call::new(&routes::MOUNTS, &[])).await
    }

    /// [`routes::MOUNT`]
    pub async fn mount(&self, mount: &MountVolume) -> Result<Mounted, ClientError> {
        self.fetch(Call::new(&routes::MOUNT, &[]).body(mount)).await
    }

    /// [`routes::UNMOUNT`]
    pub async fn unmount(&self, query: &UnmountQuery) -> Result<Vec<Unmounted>, ClientError> {
        self.fetch(Call::new(&routes::UNMOUNT, &[]).query(query)).await
    }

    /// [`routes::EVENTS`]. With `follow`, the daemon's wait comes on top of the time limit.
    pub async fn events(&self, query: EventsQuery) -> Result<Events, ClientError> {
        let mut call = Call::new(&routes::EVENTS, &[]).query(&query);
        if query.follow {
            call.extra_wait = routes::EVENTS_WAIT;
        }
        self.fetch(call).await
    }

    /// [`routes::TASKS`]
    pub async fn tasks(&self) -> Result<Vec<Task>, ClientError> {
        self.fetch(Call::new(&routes::TASKS, &[])).await
    }

    /// [`routes::TASK`]
    pub async fn task(&self, task: TaskId) -> Result<Task, ClientError> {
        self.fetch(Call::new(&routes::TASK, &[&task.to_string()])).await
    }

    /// [`routes::OPENAPI`]
    pub async fn openapi(&self) -> Result<Value, ClientError> {
        self.fetch(Call::new(&routes::OPENAPI, &[])).await
    }

    /// [`routes::METRICS`]
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let answer = self.send(&Call::new(&routes::METRICS, &[])).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}
