//! Every route of the API, in one place: the daemon serves these, the client calls these.
//!
//! ```text
//!   GET    /v1/status                           Status
//!   GET    /v1/cluster                          Membership
//!   POST   /v1/cluster/create                   Membership
//!   POST   /v1/cluster/token      CreateToken   Token                    not idempotent
//!   POST   /v1/cluster/join       JoinCluster   Membership
//!   PUT    /v1/cluster/voters     SetVoters     Membership
//!   GET    /v1/tokens                           [AccessToken]
//!   POST   /v1/tokens             CreateAccessToken  NewAccessToken      not idempotent
//!   DELETE /v1/tokens/{token}                   204
//!   GET    /v1/nodes                            [Node]
//!   GET    /v1/nodes/{node}                     NodeDetail
//!   PATCH  /v1/nodes/{node}       ChangeLabels  Node
//!   PUT    /v1/nodes/{node}/drain               Task
//!   DELETE /v1/nodes/{node}/drain               204
//!   DELETE /v1/nodes/{node}       ?force        204
//!   GET    /v1/pools                            [Pool]
//!   POST   /v1/pools              AddPool       Pool
//!   GET    /v1/pools/{pool}                     Pool
//!   DELETE /v1/pools/{pool}       ?force        Task
//!   GET    /v1/volumes                          [Volume]
//!   POST   /v1/volumes            CreateVolume  CreatedVolume
//!   GET    /v1/volumes/{volume}                 VolumeDetail
//!   PATCH  /v1/volumes/{volume}   ChangeVolume  Volume
//!   DELETE /v1/volumes/{volume}   ?force        204
//!   PUT    /v1/volumes/{volume}/size            ResizeVolume  Volume
//!   POST   /v1/volumes/{volume}/accept-loss     AcceptLoss    AcceptedLoss
//!   GET    /v1/volumes/{volume}/resync          [Resync]
//!   GET    /v1/volumes/{volume}/clients         [SharedClient]
//!   DELETE /v1/volumes/{volume}/clients/{client}              204
//!   POST   /v1/volumes/{volume}/check           Check
//!   POST   /v1/volumes/{volume}/attachment      Attach        Attachment
//!   DELETE /v1/volumes/{volume}/attachment      ?force        204
//!   GET    /v1/mounts                           [Mount]
//!   POST   /v1/mounts             MountVolume   Mounted
//!   DELETE /v1/mounts             ?volume|dir|all&force       [Unmounted]
//!   GET    /v1/events             ?after&follow Events
//!   GET    /v1/tasks                            [Task]
//!   GET    /v1/tasks/{task}                     Task
//!   GET    /v1/openapi.json                     OpenAPI document
//!   GET    /metrics                             Prometheus text
//! ```
//!
//! Conventions: bodies are JSON; 200 with a body or 204 without; anything else is an
//! [`crate::ApiError`]. Every request may be sent again with the same effect, and says so if not.
//! Unknown fields in a request are refused (`invalid`), in an answer passed over.
//!
//! On the daemon's socket everything is allowed. Over the network a token comes along
//! (`Authorization: Bearer`), whose rights must include the route's; where a request can be forced,
//! force is a right of its own.

use std::time::Duration;

use hyper::Method;

use crate::access::Rights;

/// One route: a method, a path whose `{...}` are names, what one must be allowed to do, and how long
/// its answer may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The HTTP method.
    pub method: Method,
    /// The path, with `{name}` for a part that is filled in.
    pub path: &'static str,
    /// The least rights that a caller over the network needs.
    pub rights: Rights,
    /// How long a client waits for the answer unless told otherwise.
    pub patience: Duration,
}

/// For what is answered from memory.
const QUICK: Duration = Duration::from_secs(10);
/// For what changes the configuration, perhaps through an election, or waits for a takeover.
const CHANGE: Duration = Duration::from_secs(60);
/// For what runs mkfs or fsck, or waits for dirty pages to be written.
const LONG: Duration = Duration::from_secs(600);

/// How long the daemon lets `GET /v1/events?follow=true` wait for an event.
pub const EVENTS_WAIT: Duration = Duration::from_secs(25);
/// How many events one answer holds at most.
pub const EVENTS_PAGE: usize = 1_000;

/// Declares the routes and the list of all.
macro_rules! routes {
    ($($(#[$doc:meta])* $name:ident = $method:ident $path:literal $rights:ident $patience:expr;)*) => {
        $($(#[$doc])* pub const $name: Route = Route {
            method: Method::$method,
            path: $path,
            rights: Rights::$rights,
            patience: $patience,
        };)*

        /// Every route, in the order of the table above.
        pub const ALL: &[Route] = &[$($name),*];
    };
}

routes! {
    /// Health, why, what to do: [`crate::Status`]. Answered from memory, also without a quorum.
    STATUS = GET "/v1/status" Read QUICK;
    /// This node's membership: [`crate::Membership`]; `not-found` before it has one.
    CLUSTER = GET "/v1/cluster" Read QUICK;
    /// Makes a cluster of this node alone; no body. Idempotent: a node that belongs to a cluster
    /// answers with it, and `changed` is false.
    CLUSTER_CREATE = POST "/v1/cluster/create" Force CHANGE;
    /// Makes a token: [`crate::CreateToken`] -> [`crate::Token`]. NOT idempotent: each request
    /// makes one more.
    CLUSTER_TOKEN = POST "/v1/cluster/token" Force CHANGE;
    /// Joins a cluster: [`crate::JoinCluster`] -> [`crate::Membership`]. Idempotent: a node that
    /// belongs already to that cluster answers with it, and the token's use isn't counted again;
    /// one that belongs to another is refused with `in-use`.
    CLUSTER_JOIN = POST "/v1/cluster/join" Force CHANGE;
    /// Says how many nodes vote: [`crate::SetVoters`] -> [`crate::Membership`], once they do.
    /// Idempotent. `invalid` if there are too few nodes for three.
    CLUSTER_VOTERS = PUT "/v1/cluster/voters" Operate CHANGE;
    /// The tokens of the API, by name: list of [`crate::AccessToken`].
    TOKENS = GET "/v1/tokens" Force QUICK;
    /// Makes a token for the API: [`crate::CreateAccessToken`] -> [`crate::NewAccessToken`]. NOT
    /// idempotent: the secret is shown once, and a name that is taken is `exists`.
    TOKEN_CREATE = POST "/v1/tokens" Force CHANGE;
    /// Ends a token at once, on every node; `not-found` the second time.
    TOKEN_REVOKE = DELETE "/v1/tokens/{token}" Force CHANGE;
    /// Every node: list of [`crate::Node`], by name.
    NODES = GET "/v1/nodes" Read QUICK;
    /// One node: [`crate::NodeDetail`].
    NODE = GET "/v1/nodes/{node}" Read QUICK;
    /// Changes labels: [`crate::ChangeLabels`] -> [`crate::Node`]. Idempotent.
    NODE_CHANGE = PATCH "/v1/nodes/{node}" Operate CHANGE;
    /// Moves every replica and primary off a node, and places none there: -> [`crate::Task`].
    /// Idempotent: a drain that is running is answered; one that is complete, as done.
    NODE_DRAIN = PUT "/v1/nodes/{node}/drain" Operate CHANGE;
    /// Ends a drain; what has moved stays where it is. Idempotent.
    NODE_UNDRAIN = DELETE "/v1/nodes/{node}/drain" Operate CHANGE;
    /// Removes a node, cuts its streams; [`crate::ForceQuery`]. `in-use` while it holds replicas,
    /// unless forced; `not-found` the second time.
    NODE_REMOVE = DELETE "/v1/nodes/{node}" Operate CHANGE;
    /// Every pool: list of [`crate::Pool`], by node and path.
    POOLS = GET "/v1/pools" Read QUICK;
    /// Adds a pool to this node: [`crate::AddPool`] -> [`crate::Pool`], whose `task` measures its
    /// class unless one is given. Idempotent: a path that is a pool already is answered as it is.
    POOL_ADD = POST "/v1/pools" Force CHANGE;
    /// One pool: [`crate::Pool`].
    POOL = GET "/v1/pools/{pool}" Read QUICK;
    /// Moves a pool's replicas elsewhere, then removes it: -> [`crate::Task`]. Forced
    /// ([`crate::ForceQuery`]): removes it at once. Refused where a volume would lose its last
    /// in-sync replica (`in-use`) or there is no room elsewhere (`no-space`). Idempotent while it
    /// runs; then `not-found`.
    POOL_REMOVE = DELETE "/v1/pools/{pool}" Operate CHANGE;
    /// Every volume: list of [`crate::Volume`], by name. Answered from memory.
    VOLUMES = GET "/v1/volumes" Read QUICK;
    /// Creates a volume: [`crate::CreateVolume`] -> [`crate::CreatedVolume`]. Idempotent: one with
    /// that name that agrees in all that was asked for is answered, another is `exists`.
    VOLUME_CREATE = POST "/v1/volumes" Operate CHANGE;
    /// One volume with its slices: [`crate::VolumeDetail`].
    VOLUME = GET "/v1/volumes/{volume}" Read QUICK;
    /// Changes a volume's policy, in use or not: [`crate::ChangeVolume`] -> [`crate::Volume`].
    /// Idempotent.
    VOLUME_CHANGE = PATCH "/v1/volumes/{volume}" Operate CHANGE;
    /// Removes a volume and its data; [`crate::ForceQuery`]. `in-use` while attached, unless
    /// forced; `not-found` the second time.
    VOLUME_REMOVE = DELETE "/v1/volumes/{volume}" Operate CHANGE;
    /// Grows a volume, its device and its file system: [`crate::ResizeVolume`] ->
    /// [`crate::Volume`]. Idempotent; a smaller size is `invalid`.
    VOLUME_RESIZE = PUT "/v1/volumes/{volume}/size" Operate LONG;
    /// Makes an older replica the history: [`crate::AcceptLoss`] -> [`crate::AcceptedLoss`].
    /// Idempotent: a volume that has its history is answered with no slices.
    VOLUME_ACCEPT_LOSS = POST "/v1/volumes/{volume}/accept-loss" Force CHANGE;
    /// The joins that are running: list of [`crate::Resync`].
    VOLUME_RESYNC = GET "/v1/volumes/{volume}/resync" Read QUICK;
    /// Who has a shared volume mounted: list of [`crate::SharedClient`], as its coordinator says.
    VOLUME_CLIENTS = GET "/v1/volumes/{volume}/clients" Read QUICK;
    /// Ends a mount of a shared volume: it is fenced and gives errors, and what it held is given away.
    /// `not-found` the second time.
    VOLUME_EVICT = DELETE "/v1/volumes/{volume}/clients/{client}" Operate CHANGE;
    /// Checks the whole structure of a shared volume, while it is used: [`crate::Check`]. No body.
    VOLUME_CHECK = POST "/v1/volumes/{volume}/check" Operate LONG;
    /// Attaches a volume to this node: [`crate::Attach`] -> [`crate::Attachment`], with a device.
    /// Idempotent. `in-use` while a node that is alive has it, unless forced; one that is gone is
    /// fenced, after waiting for it to be gone.
    VOLUME_ATTACH = POST "/v1/volumes/{volume}/attachment" Operate CHANGE;
    /// Detaches a volume from this node; [`crate::ForceQuery`]. Idempotent: 204 if it isn't
    /// attached. `in-use` while mounted or open, unless forced. Forced, also from another node.
    VOLUME_DETACH = DELETE "/v1/volumes/{volume}/attachment" Operate CHANGE;
    /// The mounts of this node: list of [`crate::Mount`], by directory.
    MOUNTS = GET "/v1/mounts" Read QUICK;
    /// Mounts a volume on this node: [`crate::MountVolume`] -> [`crate::Mounted`]. Idempotent:
    /// the same volume on the same directory is answered as it is.
    MOUNT = POST "/v1/mounts" Force LONG;
    /// Unmounts: [`crate::UnmountQuery`] -> list of [`crate::Unmounted`], and detaches what was
    /// attached only for its mount. `not-found` if a volume or directory that is named isn't
    /// mounted; with `all`, an empty list.
    UNMOUNT = DELETE "/v1/mounts" Force LONG;
    /// Events of this node: [`crate::EventsQuery`] -> [`crate::Events`]. The patience is for the
    /// answer after the wait.
    EVENTS = GET "/v1/events" Read QUICK;
    /// The tasks of this node, and those that ended lately: list of [`crate::Task`].
    TASKS = GET "/v1/tasks" Read QUICK;
    /// One task: [`crate::Task`].
    TASK = GET "/v1/tasks/{task}" Read QUICK;
    /// The OpenAPI document of this API.
    OPENAPI = GET "/v1/openapi.json" Read QUICK;
    /// Prometheus metrics, as text.
    METRICS = GET "/metrics" Read QUICK;
}

/// The route of a request; none if the API has none such.
#[must_use]
pub fn find(method: &Method, path: &str) -> Option<&'static Route> {
    ALL.iter().find(|route| route.method == *method && route.matches(path))
}

impl Route {
    /// Whether a request's path is one of this route's.
    fn matches(&self, path: &str) -> bool {
        let (mut ours, mut theirs) = (self.path.split('/'), path.split('/'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(name), Some(part)) if name.starts_with('{') => {
                    if part.is_empty() {
                        return false;
                    }
                }
                (Some(ours), Some(theirs)) if ours == theirs => {}
                _ => return false,
            }
        }
    }

    /// The path with its `{...}` filled in, in order.
    ///
    /// # Panics
    /// If there are more or fewer values than `{...}`.
    #[must_use]
    pub fn fill(&self, values: &[&str]) -> String {
        let mut values = values.iter();
        let parts: Vec<&str> = self
            .path
            .split('/')
            .map(|part| match part.starts_with('{') {
                true => values.next().expect("a value for each {...} of the path"),
                false => part,
            })
            .collect();
        assert!(values.next().is_none(), "a {{...}} of the path for each value");
        parts.join("/")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_routes_are_the_same() {
        let distinct: BTreeSet<_> =
            ALL.iter().map(|route| (route.method.as_str(), route.path)).collect();
        assert_eq!(distinct.len(), ALL.len());
    }

    #[test]
    fn the_table_in_the_doc_is_complete() {
        let doc = include_str!("routes.rs");
        for route in ALL {
            let line = format!("//!   {:6} {} ", route.method.as_str(), route.path);
            assert!(doc.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_request_is_found_by_method_and_path_alone() {
        for route in ALL {
            let names = vec!["x"; route.path.matches('{').count()];
            let path = route.fill(&names);
            assert_eq!(find(&route.method, &path), Some(route));
            assert_eq!(find(&route.method, &format!("{path}/")), None, "{path}/");
            assert_eq!(find(&Method::TRACE, &path), None);
        }
        for path in ["", "/", "/v1", "/v1/volumes//size", "/v1/tokens/"] {
            assert_eq!(find(&Method::GET, path), None, "{path}");
        }
    }

    #[test]
    fn to_look_is_the_least_of_rights_and_secrets_need_the_most() {
        for route in ALL {
            let looks = route.method == Method::GET;
            assert_eq!(looks && !route.path.contains("token"), route.rights == Rights::Read);
            if route.path.contains("token") {
                assert_eq!(route.rights, Rights::Force, "{}", route.path);
            }
        }
    }

    #[test]
    fn paths_are_filled_in() {
        assert_eq!(VOLUME_RESIZE.fill(&["db"]), "/v1/volumes/db/size");
        assert_eq!(VOLUMES.fill(&[]), "/v1/volumes");
    }
}
