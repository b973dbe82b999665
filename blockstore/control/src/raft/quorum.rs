//! Whether a leader still has a majority behind it.
//!
//! openraft 0.9 lets a leader without followers lead on; it only tells for how long no majority has
//! answered, and nothing of the kind for voters that have just been given their vote. Then this
//! node's own contacts have to do.

use mooring_terms::NodeId;
use openraft::{EmptyNode, RaftMetrics};

use crate::contacts::Contacts;
use crate::timing::Timings;

/// What a leader's metrics and contacts say; of no meaning on other nodes.
pub(crate) fn has_quorum(
    metrics: &RaftMetrics<u64, EmptyNode>,
    contacts: &Contacts,
    timings: &Timings,
) -> bool {
    let limit = timings.quorum_lost_after();
    if let Some(millis) = metrics.millis_since_quorum_ack {
        return u128::from(millis) <= limit.as_millis();
    }
    let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
    let heard = |id: &&u64| {
        **id == metrics.id
            // Not leading for long enough to say: then nobody has been silent yet.
            || contacts.silence(NodeId(**id)).is_none_or(|silence| silence <= limit)
    };
    voters.iter().filter(heard).count() > voters.len() / 2
}
