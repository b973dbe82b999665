//! The state machine as Raft runs it: the state, and which proposals have been answered.

use std::collections::BTreeMap;

use mooring_terms::NodeId;
use serde::{Deserialize, Serialize};

use crate::{Boot, ClusterState, Proposal, ProposalId, Refused, Response};

/// How many answers are remembered a node: more than a node ever has proposals under way.
const ANSWERS_KEPT: usize = 512;

/// The state machine. The same proposals in the same order give the same machine on every node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    state: ClusterState,
    answered: BTreeMap<NodeId, Answered>,
}

/// The answers that one node got, for proposals that come again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Answered {
    boot: Boot,
    /// Numbers up to this one have been forgotten.
    forgotten: u64,
    answers: BTreeMap<u64, Response>,
}

impl Machine {
    /// The state.
    #[must_use]
    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Applies `proposal`, unless it was applied before: then its answer is given again.
    ///
    /// # Errors
    /// [`Refused`]; the state is then as it was, but for its date.
    pub fn apply(&mut self, proposal: &Proposal) -> Response {
        if proposal.command.is_repeatable() {
            return self.state.apply(proposal.at, &proposal.by, &proposal.command);
        }
        if let Some(answer) = self.earlier_answer(proposal.id) {
            return answer;
        }
        let answer = self.state.apply(proposal.at, &proposal.by, &proposal.command);
        self.remember(proposal.id, &answer);
        answer
    }

    fn earlier_answer(&self, id: ProposalId) -> Option<Response> {
        let answered = self.answered.get(&id.node)?;
        if id.boot < answered.boot {
            return Some(Err(Refused::EarlierBoot {
                node: id.node,
                claimed: id.boot,
                current: answered.boot,
            }));
        }
        if id.boot > answered.boot {
            return None;
        }
        if let Some(answer) = answered.answers.get(&id.number) {
            return Some(answer.clone());
        }
        (id.number <= answered.forgotten).then_some(Err(Refused::OutcomeForgotten))
    }

    fn remember(&mut self, id: ProposalId, answer: &Response) {
        // A node that has been removed, or was never admitted, leaves nothing behind.
        if self.state.node(id.node).is_none() {
            self.answered.remove(&id.node);
            return;
        }
        let answered = self.answered.entry(id.node).or_default();
        if id.boot > answered.boot {
            *answered = Answered { boot: id.boot, ..Answered::default() };
        }
        answered.answers.insert(id.number, answer.clone());
        while answered.answers.len() > ANSWERS_KEPT {
            if let Some((number, _)) = answered.answers.pop_first() {
                answered.forgotten = answered.forgotten.max(number);
            }
        }
    }
}
