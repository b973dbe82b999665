//! What the API's types look like in JSON. A change here is a change of the API: programs that
//! other people wrote depend on it.

#[path = "../../../tests/fuzz/seeds.rs"]
mod seeds;

use std::fmt::Debug;

use mooring_api::{
    AcceptLoss, AcceptedLoss, AccessToken, AddPool, Attach, Attachment, ChangeLabels, ChangeVolume,
    CreateAccessToken, CreateToken, CreateVolume, CreatedVolume, Events, JoinCluster, Membership,
    Mount, MountVolume, Mounted, NewAccessToken, NodeDetail, Pool, ResizeVolume, Resync, SetVoters,
    SharedClient, Status, Task, Token, Unmounted, VolumeDetail,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// `json` becomes a `T` and the very same JSON again, and so does the `T`.
fn keeps<T: Serialize + DeserializeOwned + PartialEq + Debug>(json: &str) {
    let name = std::any::type_name::<T>();
    let value: T = serde_json::from_str(json).unwrap_or_else(|e| panic!("{name}: {e}\n{json}"));
    let again = serde_json::to_value(&value).expect("it came from JSON");
    let given: Value = serde_json::from_str(json).expect("it was read a moment ago");
    assert_eq!(again, given, "{name}");
    let back: T = serde_json::from_value(again).expect("it is the same JSON");
    assert_eq!(back, value, "{name}");
}

/// Parts that several samples share.
macro_rules! node_json {
    () => {
        r#"{"name":"alpha","id":1,"address":"10.0.0.1:7700","state":"up","silent_for":"200ms",
        "voter":true,"leader":false,"labels":{"zone":"east"},"version":"0.1.0","pools":1,
        "size":1073741824,"used":4096}"#
    };
}
macro_rules! pool_json {
    () => {
        r#"{"id":3,"node":"alpha","path":"/pool","backing":"directory","class":"high",
        "class_set":false,"speed":{"random_write_iops":4000,"random_read_iops":90000,
        "write_bandwidth":500000000,"read_bandwidth":900000000},"state":"ok","fault":"",
        "size":1073741824,"used":8192,"live":4096,"replicas":2,"incarnation":"00ff00ff00ff00ff",
        "task":null}"#
    };
}
macro_rules! volume_json {
    () => {
        r#"{"name":"db","id":7,"size":10737418240,"used":4096,"fs":"ext4","health":"degraded",
        "why":"2 of 3 replicas in sync","policy":{"replicas":3,"min_in_sync":2,"class":null,
        "nodes":[],"labels":{"app":"shop"},"replace_after":"10m","io_timeout":null},"in_sync":2,
        "attached_to":"alpha","created_at":1795338300000}"#
    };
}
macro_rules! attachment_json {
    () => {
        r#"{"volume":"db","node":"alpha","epoch":4,"state":"serving","device":"/dev/loop0",
        "backend":"loop","read_only":false,"since":1795338300000}"#
    };
}
macro_rules! mount_json {
    () => {
        r#"{"volume":"db","dir":"/mnt","device":"/dev/loop0","fs":"ext4","options":["noatime"],
        "read_only":false}"#
    };
}
macro_rules! resync_json {
    () => {
        r#"{"slice":0,"node":"beta","phase":"copying","copied":4096,"seen":8192,"of":1048576}"#
    };
}

#[test]
fn requests_keep_their_form() {
    keeps::<CreateToken>(r#"{"ttl":"1h","uses":3}"#);
    keeps::<CreateAccessToken>(r#"{"name":"ci","rights":"read","ttl":"90d"}"#);
    for voters in ["1", "3", "auto"] {
        keeps::<SetVoters>(&format!(r#"{{"voters":"{voters}"}}"#));
    }
    keeps::<JoinCluster>(r#"{"address":"10.0.0.1:7700","token":"abc"}"#);
    keeps::<ChangeLabels>(r#"{"set":{"zone":"east"},"remove":["rack"]}"#);
    keeps::<AddPool>(r#"{"path":"/pool","size":1073741824,"class":"low","force":false}"#);
    keeps::<CreateVolume>(
        r#"{"name":"db","size":10737418240,"replicas":3,"min_in_sync":null,"fs":"xfs",
        "slice_size":1073741824,"class":"high","nodes":["alpha"],"labels":{"app":"shop"},"replace_after":"10m","io_timeout":"30s"}"#,
    );
    keeps::<ChangeVolume>(
        r#"{"replicas":2,"min_in_sync":1,"class":"any","replace_after":"5m","io_timeout":"none",
        "set_labels":{"a":"b"},"remove_labels":["c"]}"#,
    );
    keeps::<ChangeVolume>("{}");
    keeps::<ResizeVolume>(r#"{"size":21474836480}"#);
    keeps::<AcceptLoss>(r#"{"from":"beta","force":true}"#);
    keeps::<Attach>(r#"{"backend":"nbd","read_only":true,"force":false}"#);
    keeps::<MountVolume>(
        r#"{"volume":"db","dir":"/mnt","options":["noatime"],"read_only":false,"backend":null,
        "force":true}"#,
    );
}

#[test]
fn answers_keep_their_form() {
    keeps::<Membership>(
        r#"{"cluster":"6f1c","node":"alpha","node_id":1,"changed":true,"ca_fingerprint":"ab12",
        "ca_certificate":"-----BEGIN CERTIFICATE-----","voters":["alpha"]}"#,
    );
    keeps::<AccessToken>(
        r#"{"name":"ci","rights":"operate","expires_at":1795338300000,"expired":false}"#,
    );
    keeps::<NewAccessToken>(
        r#"{"token":"abc","name":"ci","rights":"force","expires_at":null,"expired":false}"#,
    );
    keeps::<Token>(
        r#"{"token":"abc","expires_at":1795338300000,"uses":1,"address":"10.0.0.1:7700"}"#,
    );
    keeps::<NodeDetail>(&format!(
        r#"{{"node":{},"fingerprint":"ab12","pools":[{}],"replicas":2,"primaries":1,
        "attachments":[{}],"drain":9}}"#,
        node_json!(),
        pool_json!(),
        attachment_json!()
    ));
    keeps::<SharedClient>(
        r#"{"client":7,"node":"alpha","reclaiming":false,"open_files":2,"read_leases":3,
        "write_leases":1,"recalled":0,"locks":1,"lock_waits":0,"requests":4,"mount":{
        "dir":"/srv/home","options":["ro"],"dirty_bytes":4096,"operations":{"lookup":5,"read":2},
        "at_once":6,"read_bytes":8192,"written_bytes":0,"recalls":1,"write_back_errors":0}}"#,
    );
    keeps::<Pool>(pool_json!());
    keeps::<CreatedVolume>(&format!(
        r#"{{"volume":{},"created":true,
        "chosen":[{{"option":"replicas","value":"3","why":"3 nodes have pools"}}]}}"#,
        volume_json!()
    ));
    keeps::<AcceptedLoss>(
        r#"{"volume":"db","from":"beta","slices":[{"slice":0,"kept":{"epoch":3,"sequence":99}}]}"#,
    );
    keeps::<Attachment>(attachment_json!());
    keeps::<Mount>(mount_json!());
    keeps::<Mounted>(&format!(
        r#"{{"mount":{},"mounted":true,"formatted":true,"grown":false}}"#,
        mount_json!()
    ));
    keeps::<Unmounted>(r#"{"volume":"db","dir":"/mnt","detached":true}"#);
    keeps::<Resync>(resync_json!());
    keeps::<Events>(
        r#"{"events":[{"number":8,"at":1795338300000,"severity":"warning","kind":"replica-lost",
        "message":"db lost its replica on beta","node":"beta","volume":"db","pool":3,
        "details":{"epoch":"4"}},{"number":9,"at":1795338300001,"severity":"info","kind":"attached",
        "message":"db is attached to alpha"}],"next":9,"gap":false}"#,
    );
    keeps::<Task>(
        r#"{"id":9,"kind":"drain-node","node":"alpha","subject":"beta","state":"failed","done":3,
        "total":5,"unit":"replicas","message":"moving db","error":{"kind":"no-space",
        "message":"no pool has room","hint":"add a pool"},"started_at":1795338300000,
        "ended_at":1795338301000}"#,
    );
}

#[test]
fn a_volume_in_full_keeps_its_form() {
    keeps::<VolumeDetail>(&format!(
        r#"{{"volume":{},"reasons":[{{"health":"degraded","what":"beta is joining",
        "remedy":"wait"}}],"slice_size":10737418240,"slices":[{{"index":0,"epoch":4,
        "primary":"alpha","tail_lost":false,"last":{{"epoch":4,"sequence":120}},
        "lease_left":"900ms","replicas":[{{"node":"alpha","pool":3,"role":"primary",
        "received":120,"durable":118,"lag_records":0,"used":4096,"lost_since":null,"replaced_at":null,
        "join":null}},{{"node":"beta","pool":5,"role":"joining","received":80,"durable":80,
        "lag_records":40,"used":null,"lost_since":1795338300000,"replaced_at":1795338900000,"join":{}}}]}}],
        "attachment":{},"mounts":[{}],"mounted_on":["alpha","beta"]}}"#,
        volume_json!(),
        resync_json!(),
        attachment_json!(),
        mount_json!()
    ));
}

#[test]
fn status_keeps_its_form() {
    keeps::<Status>(
        r#"{"health":"down","summary":"down: no quorum","reasons":[{"health":"down",
        "what":"1 of 3 voters is reachable","remedy":"start mountd on beta or gamma"}],
        "node":{"name":"alpha","id":1,"address":"10.0.0.1:7700","version":"0.1.0",
        "started_at":1795338300000,"pid":77,"attachments":1,"mounts":1},
        "cluster":{"id":"6f1c","version":1,"leader":null,"term":12,"applied":3456,
        "voters":[{"node":"alpha","reachable":true,"silent_for":null},
        {"node":"beta","reachable":false,"silent_for":"1m30s"}],"quorum":false,
        "survives_a_failure":false,"counts":{"nodes":3,"nodes_up":1,"pools":3,"pools_ok":1,
        "volumes":4,"volumes_ok":1,"volumes_degraded":2,"volumes_down":1,"false_failovers":0}},
        "transport":{"kind":"zeromq","protected":false},
        "backends":[{"backend":"ublk","usable":false,"chosen":false,
        "why":"the kernel has no ublk_drv"},{"backend":"loop","usable":true,"chosen":true,
        "why":""}]}"#,
    );
}

#[test]
fn what_is_left_out_of_a_request_is_chosen() {
    let token: CreateToken = serde_json::from_str("{}").expect("every field has a default");
    assert_eq!(token, CreateToken::default());
    let volume: CreateVolume =
        serde_json::from_str(r#"{"name":"db","size":"10G"}"#).expect("only the name is needed");
    assert_eq!(volume.size.map(|size| size.bytes()), Some(10 << 30));
    assert_eq!(volume.replicas, None);
}

#[test]
fn unknown_fields_are_refused_in_requests_and_passed_over_in_answers() {
    let error = serde_json::from_str::<CreateVolume>(r#"{"name":"db","replica":3}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `replica`"), "{error}");
    let newer = r#"{"volume":"db","dir":"/mnt","detached":true,"later":1}"#;
    assert!(serde_json::from_str::<Unmounted>(newer).is_ok());
}

#[test]
fn the_fuzzers_seeds_are_requests_and_words() {
    let add = r#"{"path":"/srv/mooring","size":107374182400,"class":"high","force":false}"#;
    let create = r#"{"name":"db","size":10737418240,"replicas":3,"fs":"ext4"}"#;
    serde_json::from_str::<AddPool>(add).unwrap();
    serde_json::from_str::<CreateVolume>(create).unwrap();
    "10G".parse::<mooring_api::ByteSize>().unwrap();
    "10m".parse::<mooring_api::Span>().unwrap();
    "db-1".parse::<mooring_api::VolumeName>().unwrap();
    let words = [("add-pool", 0, add), ("create-volume", 1, create), ("size", 2, "10G")];
    for (name, which, text) in words.into_iter().chain([("span", 3, "10m"), ("name", 4, "db-1")]) {
        seeds::check("api", name, &[&[which][..], text.as_bytes()].concat());
    }
}
