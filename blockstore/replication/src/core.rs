//! What a replica has in every role: its configuration, its log, its space, its streams.

use std::collections::BTreeSet;

use mooring_config::{ClusterVersion, Member, SliceConfig};
use mooring_terms::{Epoch, Incarnation, NodeId, SliceId, Time};

use crate::command::Command;
use crate::event::{ProposalId, Token};
use crate::lease::Leases;
use crate::log::Log;
use crate::message::{Hello, JoinId, Message, MessageBody, Position};
use crate::note::Note;
use crate::options::Options;
use crate::space::Space;

/// One call of `handle`: when it is, whom to ask about other nodes, and where commands go.
pub(crate) struct Turn<'a> {
    pub(crate) now: Time,
    pub(crate) leases: &'a dyn Leases,
    pub(crate) out: &'a mut Vec<Command>,
}

/// What a replica has in every role.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) slice: SliceId,
    pub(crate) me: Member,
    pub(crate) options: Options,
    /// The newest known; none until Raft tells the first.
    pub(crate) config: Option<SliceConfig>,
    /// What may be written to other nodes.
    pub(crate) version: ClusterVersion,
    pub(crate) log: Log,
    pub(crate) space: Space,
    /// The nodes that my messages reach.
    pub(crate) connected: BTreeSet<NodeId>,
    /// Earlier openings of the pool since which nothing was lost.
    pub(crate) kept: Vec<Incarnation>,
    pub(crate) damaged: bool,
    /// The attempt to bring this replica level that it is in.
    pub(crate) join: Option<JoinId>,
    vouched: (Option<Epoch>, Vec<NodeId>),
    tokens: u64,
    proposals: u64,
}

impl Core {
    pub(crate) fn new(slice: SliceId, me: Member, log: Log, options: Options) -> Self {
        Self {
            slice,
            me,
            options,
            config: None,
            version: ClusterVersion(1),
            log,
            space: Space::default(),
            connected: BTreeSet::new(),
            kept: Vec::new(),
            damaged: false,
            join: None,
            vouched: (None, Vec::new()),
            tokens: 0,
            proposals: 0,
        }
    }

    /// The newest epoch known.
    pub(crate) fn epoch(&self) -> Epoch {
        let known = self.config.as_ref().map_or(Epoch(0), |config| config.epoch);
        known.max(self.log.state.promised)
    }

    /// The configuration that a role was made for.
    pub(crate) fn config(&self) -> &SliceConfig {
        self.config.as_ref().expect("a role beside idle begins with a configuration")
    }

    /// A name for a new read or query.
    pub(crate) fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    /// A name for a new proposal.
    pub(crate) fn proposal(&mut self) -> ProposalId {
        self.proposals += 1;
        ProposalId(self.proposals)
    }

    /// Whether the deliberate bug is on.
    #[cfg(feature = "mutations")]
    pub(crate) fn has(&self, mutation: crate::Mutation) -> bool {
        self.options.mutation == Some(mutation)
    }

    /// Where this replica is.
    pub(crate) fn position(&self) -> Position {
        Position {
            last: self.log.last,
            stable: self.log.forgotten,
            epochs: self.log.state.epochs.clone(),
            standing: self.log.state.standing,
            join: self.join,
            damaged: self.damaged,
        }
    }

    /// Sends `body` to the replica on `to`, meant for the opening `incarnation`.
    pub(crate) fn send(
        &self,
        turn: &mut Turn<'_>,
        to: NodeId,
        incarnation: Option<Incarnation>,
        body: MessageBody,
    ) {
        if !self.connected.contains(&to) {
            return;
        }
        let epoch = self.epoch();
        let from = self.me.incarnation;
        let message = Message { slice: self.slice, epoch, from, to: incarnation, body };
        turn.out.push(Command::Send { to, message });
    }

    /// Says to `to` who this is and where it stands.
    pub(crate) fn hello(&self, turn: &mut Turn<'_>, to: NodeId, answer: bool) {
        let hello = Hello { position: self.position(), answer };
        self.send(turn, to, None, MessageBody::Hello(hello));
    }

    /// Tells the configuration to every other member, since Raft may be applied late there.
    pub(crate) fn tell_config(&self, turn: &mut Turn<'_>) {
        let config = self.config();
        for node in self.others(config) {
            self.send(turn, node, None, MessageBody::Newer(config.clone()));
        }
    }

    /// The nodes of the other members of `config`.
    pub(crate) fn others(&self, config: &SliceConfig) -> Vec<NodeId> {
        let all = config.in_sync.iter().chain(&config.joining);
        all.map(|member| member.node).filter(|&node| node != self.me.node).collect()
    }

    /// Sets what this node's beacons vouch for; says it only when it changes.
    pub(crate) fn vouch(&mut self, turn: &mut Turn<'_>, epoch: Option<Epoch>, peers: Vec<NodeId>) {
        let wanted = (epoch, peers);
        if self.vouched != wanted {
            self.vouched.clone_from(&wanted);
            let (epoch, peers) = wanted;
            turn.out.push(Command::Vouch { epoch, peers });
        }
    }

    /// Tells people.
    pub(crate) fn note(&self, turn: &mut Turn<'_>, note: Note) {
        turn.out.push(Command::Note(note));
    }
}

/// `if mutated!(core, Name)`: whether a deliberate bug is on; `false` where they are compiled out.
macro_rules! mutated {
    ($core:expr, $mutation:ident) => {{
        #[cfg(feature = "mutations")]
        let on = $core.has($crate::Mutation::$mutation);
        #[cfg(not(feature = "mutations"))]
        let on = {
            let _ = &$core;
            false
        };
        on
    }};
}
pub(crate) use mutated;
