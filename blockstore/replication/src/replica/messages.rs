//! Messages from other replicas: which epoch they speak of, and which role takes them.

use mooring_config::Member;
use mooring_terms::NodeId;

use super::{Replica, Role};
use crate::command::Command;
use crate::core::{Turn, mutated};
use crate::joiner::Joiner;
use crate::message::{Ack, Message, MessageBody, Promised};
use crate::note::Note;
use crate::take::take;

impl Replica {
    pub(super) fn on_message(&mut self, turn: &mut Turn<'_>, from: NodeId, message: Message) {
        let meant = message.to.is_none_or(|to| to == self.core.me.incarnation);
        if !meant && !mutated!(self.core, IncarnationUnchecked) {
            return;
        }
        self.notice_false_take_over(turn, from, &message);
        if mutated!(self.core, PositionsBeforePromise)
            && self.answer_before_promise(turn, from, &message)
        {
            return;
        }
        match &message.body {
            MessageBody::Newer(_)
                if mutated!(self.core, EpochUnchecked) && matches!(self.role, Role::Primary(_)) =>
            {
                return;
            }
            MessageBody::Newer(_)
                if mutated!(self.core, PositionsBeforePromise)
                    && matches!(self.role, Role::Secondary(_)) =>
            {
                return;
            }
            MessageBody::Newer(config) => return self.on_config(turn, config.clone()),
            MessageBody::Raise(raise) => self.on_config(turn, raise.config.clone()),
            _ => {}
        }
        let known = self.core.epoch();
        if message.epoch > known {
            // Asks for the configuration by showing how old the own is.
            return self.core.hello(turn, from, false);
        }
        if mutated!(self.core, EpochUnchecked) && self.take_unchecked(turn, from, &message) {
            return;
        }
        if message.epoch < known {
            if let Some(config) = &self.core.config
                && config.epoch > message.epoch
            {
                let newer = MessageBody::Newer(config.clone());
                self.core.send(turn, from, None, newer);
            }
            return;
        }
        self.on_current_message(turn, from, message);
    }

    /// A message of the present epoch.
    fn on_current_message(&mut self, turn: &mut Turn<'_>, from: NodeId, message: Message) {
        let core = &mut self.core;
        let is_join = matches!(message.body, MessageBody::JoinBegin(_));
        if is_join
            && let Role::Secondary(_) = &self.role
            && core.config().primary == from
        {
            // Its log contradicts the primary's, and the minimum keeps it listed: it is brought
            // level where it stands.
            self.role = Role::Joiner(Joiner::new(core, turn, None));
        }
        match &mut self.role {
            Role::Primary(primary) => {
                primary.on_message(core, turn, from, message.from, message.body);
            }
            Role::Secondary(secondary) => match message.body {
                MessageBody::Hello(hello) if hello.answer => core.hello(turn, from, false),
                body => secondary.on_message(core, turn, from, body),
            },
            Role::Joiner(joiner) => match message.body {
                MessageBody::Hello(hello) => {
                    if hello.answer {
                        core.hello(turn, from, false);
                        joiner.repeat(core, turn);
                    }
                    if let Some(restart) = &mut joiner.restart {
                        restart.on_hello(core, turn, from, message.from, &hello);
                    }
                }
                MessageBody::Pulled(pulled) => {
                    if let Some(restart) = &mut joiner.restart {
                        restart.on_pulled(core, turn, from, pulled.records);
                    }
                }
                body => joiner.on_message(core, turn, from, body),
            },
            Role::Failed(failed) => failed.on_connected(core, turn, from),
            Role::Idle => {}
        }
    }

    /// The primary that this one took over from is alive: worth counting.
    fn notice_false_take_over(&mut self, turn: &mut Turn<'_>, from: NodeId, message: &Message) {
        let same = |old: &mut Member| old.node == from && old.incarnation == message.from;
        if self.took_over_from.take_if(same).is_some() {
            self.core.note(turn, Note::FalseTakeOver { from });
        }
    }

    /// The deliberate bug: tells the position without having promised.
    fn answer_before_promise(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        message: &Message,
    ) -> bool {
        let MessageBody::Raise(raise) = &message.body else { return false };
        let known = self.core.epoch();
        if raise.config.epoch <= known || !matches!(self.role, Role::Secondary(_)) {
            return false;
        }
        let position = self.core.position();
        let body = MessageBody::Promised(Promised { sent: raise.sent, position });
        let message = Message {
            slice: self.core.slice,
            epoch: raise.config.epoch,
            from: self.core.me.incarnation,
            to: None,
            body,
        };
        turn.out.push(Command::Send { to: from, message });
        true
    }

    /// The deliberate bug: takes and acknowledges what an older epoch's primary sends.
    fn take_unchecked(&mut self, turn: &mut Turn<'_>, from: NodeId, message: &Message) -> bool {
        let core = &mut self.core;
        let MessageBody::Append(append) = &message.body else { return false };
        let Some(last) = append.records.last().map(|record| record.version) else { return false };
        if message.epoch >= core.epoch() {
            return false;
        }
        if matches!(self.role, Role::Secondary(_)) && last.epoch >= core.log.last.epoch {
            take(core, turn.out, append, Some(last.epoch));
        }
        let received = last.sequence.min(core.log.last.sequence);
        let (want, credit, full, resend) = (0, 0, false, false);
        let ack = Ack { received, durable: received, want, credit, full, resend };
        let message = Message {
            slice: core.slice,
            epoch: message.epoch,
            from: core.me.incarnation,
            to: None,
            body: MessageBody::Ack(ack),
        };
        turn.out.push(Command::Send { to: from, message });
        true
    }
}
