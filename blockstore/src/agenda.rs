//! What a thread has told to cores and not carried out yet.
//!
//! ```text
//!   burst of requests or messages ── accept, accept, accept ──> queues of slices and volumes
//!                                                  carry_out ──> each queue run once, for all of them
//! ```
//! Whoever has several events at hand tells all of them first: then what they lead to is one write
//! and one message to each peer rather than many. A queue that somebody else runs meanwhile is empty
//! when its turn comes, which does no harm.
//!
//! It must not be kept: what is on it waits.

use std::sync::Arc;

use crate::errands::{self, Cover};
use crate::slice::Slice;
use crate::volume::Volume;

/// See the module.
#[derive(Default)]
pub struct Agenda {
    slices: Vec<Arc<Slice>>,
    volumes: Vec<Arc<Volume>>,
}

impl Agenda {
    /// The queue of `slice` has to be run.
    pub fn add_slice(&mut self, slice: Arc<Slice>) {
        if !self.slices.iter().any(|known| Arc::ptr_eq(known, &slice)) {
            self.slices.push(slice);
        }
    }

    /// The queue of `volume` has to be run.
    pub fn add_volume(&mut self, volume: Arc<Volume>) {
        if !self.volumes.iter().any(|known| Arc::ptr_eq(known, &volume)) {
            self.volumes.push(volume);
        }
    }

    /// Runs all queues. What waits for a disk is done at the end, by a thread of this `cover`.
    pub fn carry_out(mut self, cover: Cover) {
        errands::scope(cover, || {
            loop {
                if let Some(volume) = self.volumes.pop() {
                    volume.run_queue(&mut self);
                } else if let Some(slice) = self.slices.pop() {
                    slice.run_queue();
                } else {
                    return;
                }
            }
        });
    }
}
