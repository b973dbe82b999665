//! What a coordinator reports, as events that people see and as turns in its life.

use std::sync::Arc;

use blockstore::{About, Node, Severity};
use mooring_sharedfs_coordinator::{Observer, Report, Stopped};
use mooring_sharedfs_core::sessions::EndReason;
use mooring_terms::{BLOCK_SIZE, NodeId, VolumeId};
use tokio::sync::watch;

/// How far a coordinator has come, for whoever runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its tree is being opened.
    Opening,
    /// It takes letters.
    Open,
    /// It is over; whether it may be begun again at once.
    Over,
}

/// One coordinator's.
pub struct EventObserver {
    node: Arc<Node>,
    volume: VolumeId,
    name: String,
    stage: watch::Sender<Stage>,
}

impl EventObserver {
    /// For a volume that people know as `name`.
    pub fn new(node: Arc<Node>, volume: VolumeId, name: String) -> Arc<Self> {
        Arc::new(Self { node, volume, name, stage: watch::Sender::new(Stage::Opening) })
    }

    /// How far it has come.
    pub fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    fn push(&self, severity: Severity, kind: &'static str, message: &str, about: About) {
        let message = format!("volume {}: {message}", self.name);
        self.node.events().push(
            severity,
            kind,
            message,
            About { volume: Some(self.volume), ..about },
        );
    }

    fn name_of(&self, node: u64) -> String {
        let state = self.node.state();
        let row = state.nodes().get(&NodeId(node));
        row.map_or_else(|| NodeId(node).to_string(), |row| row.name.clone())
    }
}

impl Observer for EventObserver {
    fn report(&self, report: Report) {
        let about = About::default();
        match report {
            Report::Formatted => {
                self.push(Severity::Info, "formatted", "a shared file system was made", about);
            }
            Report::Opened { replayed, sessions } => {
                tracing::info!(volume = self.name, replayed, sessions, "the coordinator is open");
                self.stage.send_replace(Stage::Open);
            }
            Report::Serving => tracing::info!(volume = self.name, "the coordinator serves"),
            Report::Lost(lost) => {
                let (ino, from) = (lost.ino, lost.block.0 * BLOCK_SIZE as u64);
                let bytes = lost.count * BLOCK_SIZE as u64;
                let message = format!(
                    "inode {ino} lacks bytes, among the {bytes} from offset {from}: what was written there and not fsynced went with the power of all replicas"
                );
                self.push(Severity::Error, "data-lost", &message, about);
            }
            Report::NotMended(lost) => {
                let (ino, from) = (lost.ino, lost.block.0 * BLOCK_SIZE as u64);
                let message = format!(
                    "inode {ino} shows bytes again that it had given up, in the block at offset {from}: the zeros there went with the power of all replicas, and no pool has space to write them again"
                );
                self.push(Severity::Error, "not-mended", &message, about);
            }
            Report::Ended(session, row, EndReason::Ended) => {
                tracing::debug!(volume = self.name, %session, ?row, "a session was given up");
            }
            Report::Ended(session, row, reason) => {
                let Some(row) = row else { return };
                let node = self.name_of(row.node);
                let why = match reason {
                    EndReason::RecallUnanswered => "it did not give back what others asked for",
                    EndReason::Silent | EndReason::Ended => "nothing was heard of it",
                };
                let message =
                    format!("the mount on node {node} (session {session}) is over: {why}");
                let about = About { node: Some(NodeId(row.node)), ..about };
                self.push(Severity::Warning, "mount-ended", &message, about);
            }
            Report::Damaged(damage) => {
                let message =
                    format!("its file system is damaged: {damage:?} (mountctl fsck says more)");
                self.push(Severity::Error, "damaged", &message, about);
            }
            Report::Stopped(why) => {
                match why {
                    Stopped::Asked | Stopped::Fenced => {
                        tracing::info!(volume = self.name, %why, "the coordinator has ended");
                    }
                    other => {
                        let message = format!("its coordinator has failed: {other}");
                        self.push(Severity::Error, "coordinator-failed", &message, about);
                    }
                }
                self.stage.send_replace(Stage::Over);
            }
        }
    }
}
