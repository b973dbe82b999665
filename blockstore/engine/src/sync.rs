//! Making the log durable: whoever comes first syncs for all who wait.

use std::sync::atomic::Ordering;

use parking_lot::{Condvar, Mutex};

use crate::disk::Area;
use crate::mutation::{Mutation, is_on};
use crate::pool::Pool;
use crate::{LogNumber, Result};

/// Who syncs, who waits.
#[derive(Default)]
pub(crate) struct Commit {
    syncing: Mutex<bool>,
    done: Condvar,
}

impl Pool {
    /// Makes everything durable that was appended before the call. Concurrent callers share one
    /// sync; no lock is held during it.
    ///
    /// Returns the highest log number known durable.
    ///
    /// # Errors
    /// [`crate::EngineError::Io`] and [`crate::EngineError::Poisoned`]: then nobody can say what is
    /// durable beyond [`Pool::durable`].
    pub fn sync(&self) -> Result<LogNumber> {
        let wanted = self.log.lock().last();
        let mut syncing = self.commit.syncing.lock();
        loop {
            self.core.check()?;
            if self.durable() >= wanted {
                return Ok(self.durable());
            }
            if !*syncing {
                break;
            }
            self.commit.done.wait(&mut syncing);
        }
        *syncing = true;
        drop(syncing);
        let result = self.sync_now();
        *self.commit.syncing.lock() = false;
        self.commit.done.notify_all();
        result
    }

    /// O2: all segments written since the last sync, then the position.
    fn sync_now(&self) -> Result<LogNumber> {
        let (last, segments) = {
            let mut log = self.log.lock();
            log.synced();
            (log.last(), std::mem::take(&mut log.unsynced))
        };
        if !is_on(Mutation::SyncUnsynced) {
            for segment in segments {
                self.core.sync(Area::Segment(segment))?;
            }
        }
        self.core.durable.fetch_max(last.0, Ordering::AcqRel);
        Ok(last)
    }
}
