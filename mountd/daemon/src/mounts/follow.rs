//! What follows by itself: unmounted by somebody else, so detached; resized, so grown.
//!
//! Both may wait for a volume that waits for its replicas, so each volume's is done beside the others'.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use blockstore::Node;
use mooring_terms::VolumeId;

use super::{Mounts, of_in};
use crate::attachments::Attachments;
use crate::mount_table;

/// Detaches what was attached for a mount alone when somebody else has unmounted it: umount(8), a
/// container's end, the fstab.
pub async fn follow_unmounts(mounts: Arc<Mounts>) {
    let mut changes = mount_table::changes();
    let under_way = UnderWay::default();
    loop {
        // Once for all: a host with many containers mounts often.
        let table = mount_table::read().unwrap_or_default();
        mounts.shared.sweep(&table);
        let all = if table.is_empty() { Vec::new() } else { mounts.attachments.all() };
        for attached in all.into_iter().filter(|attached| attached.for_mount) {
            match of_in(&table, &attached) {
                Ok(found) if !found.is_empty() => {
                    attached.seen_mounted.store(true, Ordering::Relaxed);
                }
                Ok(_) if attached.seen_mounted.load(Ordering::Relaxed) => {
                    // Its device is flushed, which may wait for the volume: no other volume's end may.
                    let mounts = Arc::clone(&mounts);
                    under_way.begin(attached.volume.id(), move || {
                        let (mounts, attached) = (Arc::clone(&mounts), Arc::clone(&attached));
                        async move { mounts.end_unused(&attached).await }
                    });
                }
                Ok(_) | Err(_) => {}
            }
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

/// Grows devices and file systems of this node as the configuration says, wherever the resize was
/// asked for.
pub async fn follow_sizes(node: Arc<Node>, attachments: Arc<Attachments>, mounts: Arc<Mounts>) {
    let mut states = node.watch();
    let under_way = UnderWay::default();
    loop {
        let state = Arc::clone(&states.borrow_and_update().state);
        for attached in attachments.all() {
            let id = attached.volume.id();
            if let Some(row) = state.volume(id) {
                let timeout = row.spec.io_timeout_ms.map(Duration::from_millis);
                if let Err(error) = attached.device.set_io_timeout(timeout) {
                    tracing::warn!(volume = attached.name, %error, "the device keeps its io_timeout");
                }
            }
            let wanted = state.volume(id).map_or(0, |row| row.spec.size);
            if wanted <= attached.device.size_bytes() || attached.volume.is_broken() {
                continue;
            }
            attached.volume.resized(wanted);
            // The file system's own tools read and write the volume: one that waits holds up no other.
            let mounts = Arc::clone(&mounts);
            under_way.begin(id, move || {
                let (mounts, name) = (Arc::clone(&mounts), attached.name.clone());
                async move {
                    if let Err(error) = mounts.grow(id).await {
                        tracing::warn!(volume = name, %error, "the device or its file system did not grow");
                    }
                }
            });
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// Volumes for which something is being done, and whether it is to be done once more: one at a time
/// for each volume, beside all others.
#[derive(Clone, Default)]
struct UnderWay(Arc<parking_lot::Mutex<BTreeMap<VolumeId, bool>>>);

impl UnderWay {
    /// Has `work` done for a volume; once more, if it is under way already.
    fn begin<W: Future<Output = ()> + Send + 'static>(
        &self,
        volume: VolumeId,
        work: impl Fn() -> W + Send + 'static,
    ) {
        let mut all = self.0.lock();
        if let Some(again) = all.get_mut(&volume) {
            *again = true;
            return;
        }
        all.insert(volume, false);
        drop(all);
        let under_way = self.clone();
        tokio::spawn(async move {
            loop {
                work().await;
                let mut all = under_way.0.lock();
                match all.get_mut(&volume) {
                    Some(again) if *again => *again = false,
                    _ => {
                        all.remove(&volume);
                        return;
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn work_for_one_volume_waits_for_none_of_another_and_is_done_again_if_asked() {
        let under_way = UnderWay::default();
        let (go, done) =
            (Arc::new(Semaphore::new(0)), Arc::new(parking_lot::Mutex::new(Vec::new())));
        let begin = |volume: u64, waits: bool| {
            let (go, done) = (Arc::clone(&go), Arc::clone(&done));
            under_way.begin(VolumeId(volume), move || {
                let (go, done) = (Arc::clone(&go), Arc::clone(&done));
                async move {
                    if waits {
                        go.acquire().await.expect("it is never closed").forget();
                    }
                    done.lock().push(volume);
                }
            });
        };
        begin(1, true);
        tokio::task::yield_now().await;
        begin(1, true);
        begin(1, true);
        begin(2, false);
        while done.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(*done.lock(), [2]);
        go.add_permits(5);
        while !under_way.0.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(*done.lock(), [2, 1, 1], "once more, for both that asked meanwhile");
    }
}
