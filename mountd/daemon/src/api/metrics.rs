//! Prometheus metrics, gathered when they are asked for. Every name and unit stands here.
//!
//! | metric | labels | meaning |
//! |---|---|---|
//! | `mooring_up` | `node`, `version` | 1 |
//! | `mooring_raft_leader`, `_term`, `_applied` | | as this node sees it; leader is 1 on the leader |
//! | `mooring_pool_size_bytes`, `_live_bytes`, `_free_bytes`, `_failed` | `pool`, `path` | pools of this node |
//! | `mooring_slice_primary`, `_epoch`, `_sequence`, `_too_few` | `volume`, `slice` | replicas of this node |
//! | `mooring_slice_used_bytes` | `volume`, `slice` | what the replica of this node holds |
//! | `mooring_volume_used_bytes` | `volume` | what its slices hold whose primaries are here |
//! | `mooring_slice_lag_records` | `volume`, `slice`, `replica` | at a primary: records the other lacks |
//! | `mooring_device_reads_total`, `_writes_total`, `_flushes_total`, `_discards_total`, `_errors_total`, `_read_bytes_total`, `_written_bytes_total`, `_in_flight` | `volume` | devices of this node |
//! | `mooring_coordinator_clients`, `_letters_total`, `_batches_total`, `_records_total`, `_checkpoints_total` | `volume` | coordinators of this node: mounts, what they wrote, what was journaled |
//! | `mooring_mount_operations_total` | `volume`, `dir`, `kind` | requests to mounts of shared volumes on this node |
//! | `mooring_mount_at_once_total`, `_read_bytes_total`, `_written_bytes_total`, `_recalls_total`, `_write_back_errors_total`, `_dirty_bytes` | `volume`, `dir` | the same mounts: answered without asking anybody; bytes; leases others wanted; what could not be stored; what is not stored yet |
//! | `mooring_events_total` | `kind` | events since the daemon's start |

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use mooring_terms::BLOCK_SIZE;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::daemon::{Daemon, Running};

/// The type of the text.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels of one time series.
type Labels = Vec<(&'static str, String)>;

/// The metrics of one scrape.
#[derive(Default)]
struct Scrape {
    gauges: BTreeMap<(&'static str, &'static str), Family<Labels, Gauge>>,
    counters: BTreeMap<(&'static str, &'static str), Family<Labels, Counter>>,
}

impl Scrape {
    fn set(&mut self, name: &'static str, help: &'static str, labels: &Labels, value: u64) {
        let family = self.gauges.entry((name, help)).or_default();
        family.get_or_create(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// A value that only grows; `_total` is put behind its name.
    fn count(&mut self, name: &'static str, help: &'static str, labels: &Labels, value: u64) {
        let family = self.counters.entry((name, help)).or_default();
        family.get_or_create(labels).inc_by(value);
    }

    fn encode(self) -> String {
        let mut registry = Registry::with_prefix("mooring");
        for ((name, help), family) in self.gauges {
            registry.register(name, help, family);
        }
        for ((name, help), family) in self.counters {
            registry.register(name, help, family);
        }
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            let _ = writeln!(text, "# the metrics could not be encoded");
        }
        text
    }
}

pub async fn metrics(State(daemon): State<Arc<Daemon>>) -> impl IntoResponse {
    let mut scrape = Scrape::default();
    let up =
        vec![("node", daemon.name().to_owned()), ("version", env!("CARGO_PKG_VERSION").to_owned())];
    scrape.set("up", "The daemon answers", &up, 1);
    if let Ok(running) = daemon.running() {
        raft(&mut scrape, &running);
        replicas(&mut scrape, &running);
        used(&mut scrape, &running).await;
        devices(&mut scrape, &running);
        coordinators(&mut scrape, &running).await;
        shared_mounts(&mut scrape, &running);
        for (kind, count) in running.node.events().counts() {
            let labels = vec![("kind", kind.to_owned())];
            scrape.count("events", "Events since the daemon's start", &labels, count);
        }
    }
    ([(CONTENT_TYPE, OPEN_METRICS)], scrape.encode())
}

fn raft(scrape: &mut Scrape, running: &Running) {
    let status = running.node.control().status();
    let leads = status.leader == Some(status.node);
    let none = Labels::new();
    scrape.set("raft_leader", "Whether this node leads", &none, u64::from(leads));
    scrape.set("raft_term", "Raft's term", &none, status.term);
    scrape.set("raft_applied", "The last entry applied here", &none, status.applied);
}

fn replicas(scrape: &mut Scrape, running: &Running) {
    let state = running.node.state();
    let report = running.node.report(&[]);
    for (id, pool) in &report.pools {
        let path = state.pool(*id).map(|row| row.path.clone()).unwrap_or_default();
        let labels = vec![("pool", id.to_string()), ("path", path)];
        scrape.set("pool_size_bytes", "What the pool may hold", &labels, pool.size);
        scrape.set("pool_live_bytes", "What it holds", &labels, pool.live);
        scrape.set("pool_free_bytes", "What can still be promised", &labels, pool.free);
        scrape.set("pool_failed", "An I/O error has stopped it", &labels, u64::from(pool.failed));
    }
    for (id, slice) in &report.slices {
        let volume = state.volume(id.volume).map(|row| row.name.clone()).unwrap_or_default();
        let labels = vec![("volume", volume), ("slice", id.index.to_string())];
        scrape.set("slice_primary", "This replica serves", &labels, u64::from(slice.serves));
        scrape.set("slice_epoch", "The newest epoch known", &labels, u64::from(slice.epoch.0));
        scrape.set("slice_sequence", "The last record", &labels, slice.last.sequence.0);
        scrape.set("slice_too_few", "I/O waits for replicas", &labels, u64::from(slice.too_few));
        for other in &slice.others {
            let mut labels = labels.clone();
            labels.push(("replica", state.node_name(other.node)));
            scrape.set("slice_lag_records", "Records that it lacks", &labels, other.lag);
        }
    }
}

async fn used(scrape: &mut Scrape, running: &Running) {
    let node = Arc::clone(&running.node);
    // It may read from disk.
    let Ok(used) = tokio::task::spawn_blocking(move || node.allocated(&[])).await else { return };
    let (state, here) = (running.node.state(), running.node.id());
    let mut volumes = BTreeMap::<String, u64>::new();
    for (id, blocks) in used {
        let bytes = blocks.saturating_mul(BLOCK_SIZE as u64);
        let Some(row) = state.volume(id.volume) else { continue };
        let labels = vec![("volume", row.name.clone()), ("slice", id.index.to_string())];
        scrape.set("slice_used_bytes", "What the replica holds", &labels, bytes);
        if state.slice(id).is_some_and(|config| config.primary == here) {
            *volumes.entry(row.name.clone()).or_default() += bytes;
        }
    }
    for (volume, bytes) in volumes {
        let labels = vec![("volume", volume)];
        scrape.set("volume_used_bytes", "What its slices served here hold", &labels, bytes);
    }
}

fn devices(scrape: &mut Scrape, running: &Running) {
    for attached in running.attachments.all() {
        let labels = vec![("volume", attached.name.clone())];
        let stats = attached.device.stats();
        scrape.count("device_reads", "Reads", &labels, stats.reads);
        scrape.count("device_read_bytes", "Bytes asked for", &labels, stats.read_bytes);
        scrape.count("device_writes", "Writes", &labels, stats.writes);
        scrape.count("device_written_bytes", "Bytes written", &labels, stats.write_bytes);
        scrape.count("device_flushes", "Flushes", &labels, stats.flushes);
        scrape.count("device_discards", "Discards", &labels, stats.discards);
        scrape.count("device_errors", "Requests that failed", &labels, stats.errors);
        scrape.set("device_in_flight", "Requests that wait", &labels, stats.in_flight);
    }
}

fn shared_mounts(scrape: &mut Scrape, running: &Running) {
    for said in running.mounts.shared().said(None) {
        let dir = said.asked.dir.display().to_string();
        let labels = vec![("volume", said.asked.name), ("dir", dir)];
        let done = said.done;
        for (kind, count) in done.operations {
            let mut labels = labels.clone();
            labels.push(("kind", kind));
            scrape.count("mount_operations", "Requests of the kernel", &labels, count);
        }
        scrape.count("mount_at_once", "Answered without asking anybody", &labels, done.at_once);
        scrape.count("mount_read_bytes", "Bytes read", &labels, done.read_bytes);
        scrape.count("mount_written_bytes", "Bytes written", &labels, done.written_bytes);
        scrape.count("mount_recalls", "Leases that others wanted", &labels, done.recalls);
        let errors = done.write_back_errors;
        scrape.count("mount_write_back_errors", "Writes of blocks that failed", &labels, errors);
        let dirty = said.unwritten.unwrap_or(done.dirty_bytes);
        scrape.set("mount_dirty_bytes", "Written and not stored yet", &labels, dirty);
    }
}

async fn coordinators(scrape: &mut Scrape, running: &Running) {
    let state = running.node.state();
    for (volume, coordinator) in running.coordinators.all() {
        let name = state.volume(volume).map(|row| row.name.clone()).unwrap_or_default();
        let labels = vec![("volume", name)];
        let counters = coordinator.counters();
        scrape.count("coordinator_letters", "Letters of clients", &labels, counters.letters);
        scrape.count("coordinator_batches", "Batches journaled", &labels, counters.batches);
        scrape.count("coordinator_records", "Records in them", &labels, counters.records);
        scrape.count("coordinator_checkpoints", "Of the tree", &labels, counters.checkpoints);
        // One that is held up is asked again with the next scrape.
        let asked = tokio::task::spawn_blocking(move || coordinator.clients()).await;
        if let Ok(Ok(clients)) = asked {
            let count = clients.len() as u64;
            scrape.set("coordinator_clients", "Mounts of the volume", &labels, count);
        }
    }
}
