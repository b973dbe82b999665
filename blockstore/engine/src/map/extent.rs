//! Runs of blocks with one entry, and putting layers over them.

use super::{Entry, Upper};
use mooring_terms::Version;

/// Consecutive blocks with one entry. Data comes one block a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) entry: Entry,
}

impl Extent {
    pub(crate) fn end(&self) -> u64 {
        self.first + self.count
    }
}

/// Puts the runs of a layer over the runs below it; both are in order and without overlap. Where
/// nothing lies below, the layer's holes stand: a reader sees what was discarded with its version
/// until the merge finds that it was never written.
pub(crate) fn combine(below: &[Extent], cut: Option<Version>, upper: &[Upper]) -> Vec<Extent> {
    let mut out = Vec::with_capacity(below.len() + upper.len());
    let mut below = below.iter().map(|extent| cut_off(*extent, cut)).peekable();
    let mut rest: Option<Extent> = below.next();
    for run in upper {
        let mut at = run.first;
        // What lies before the run, and then piece by piece what lies beneath it.
        while let Some(extent) = rest {
            if extent.end() <= run.first {
                out.push(extent);
                rest = below.next();
                continue;
            }
            if extent.first >= run.end() {
                break;
            }
            if extent.first < run.first {
                out.push(Extent { count: run.first - extent.first, ..extent });
            }
            let (from, to) = (extent.first.max(run.first), extent.end().min(run.end()));
            if at < from {
                out.push(Extent { first: at, count: from - at, entry: run.entry });
            }
            let entry = run.over(Some(extent.entry)).unwrap_or(run.entry);
            out.push(Extent { first: from, count: to - from, entry });
            at = to;
            if extent.end() > run.end() {
                rest = Some(Extent { first: to, count: extent.end() - to, entry: extent.entry });
                break;
            }
            rest = below.next();
        }
        if at < run.end() {
            out.push(Extent { first: at, count: run.end() - at, entry: run.entry });
        }
    }
    out.extend(rest);
    out.extend(below);
    out
}

fn cut_off(extent: Extent, cut: Option<Version>) -> Extent {
    cut.map_or(extent, |cut| Extent { entry: extent.entry.cut_off(cut), ..extent })
}

/// Joins neighbours with the same version and the same kind of content.
pub(crate) fn coalesce(extents: &mut Vec<Extent>) {
    extents.dedup_by(|next, previous| {
        let same = previous.end() == next.first
            && previous.entry.version == next.entry.version
            && previous.entry.content.same_kind(&next.entry.content);
        if same {
            previous.count += next.count;
        }
        same
    });
}
