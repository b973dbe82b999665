//! Sessions of a shared volume: let in by the coordinator, slice by slice, and fenced for good.

use std::collections::BTreeMap;
use std::time::Duration;

use mooring_config::SliceConfig;
use mooring_replication::{
    ClientCommand, ClientEvent, ClientId, ClientOptions, ClientRole, Credential, Event, Io, IoPart,
    Operation, Options, Outcome, Refusal, Registration, Reply, ReplyMessage, RequestId, StreamId,
    VolumeBlock, VolumeClient, VolumeRange,
};
use mooring_terms::{
    AttachmentEpoch, BlockIndex, BlockRange, Epoch, NodeId, Sequence, SessionId, SliceIndex, Time,
    Version,
};

use crate::cluster::{Cluster, SLICE, write};
use crate::store::{data_of, value_of};
use crate::storms::Numbers;

const LEASE_US: u64 = 1_200_000;

impl Cluster {
    /// Registers by hand; gives the primary's moment.
    fn register(&mut self, number: u64, as_of: Option<Time>, sessions: &[u64]) -> Time {
        let named = |&session: &u64| (SessionId(session), NodeId(session));
        let sessions = sessions.iter().map(named).collect();
        let registration = Registration { number, as_of, sessions };
        match self.ask(Operation::Register(registration)) {
            Outcome::Registered { at, .. } => at,
            other => panic!("{other:?}"),
        }
    }

    fn request_of(&mut self, session: u64, operation: Operation) -> RequestId {
        self.next_number += 1;
        let (client, number) = (ClientId(100 + session), self.next_number);
        let id = RequestId { client, stream: StreamId(self.stream), number };
        let (epoch, primary) = (self.raft.config.epoch, self.raft.config.primary.0);
        let attachment = self.attachment;
        let credential = Credential::Session { attachment, session: SessionId(session) };
        self.request_as(credential, primary, id, epoch, operation);
        id
    }

    fn reply_to(&mut self, id: RequestId) -> Outcome {
        self.run_until("answered", |c| c.replies.contains_key(&id));
        let (_, Reply { outcome, .. }) = self.replies.remove(&id).expect("it is answered");
        outcome
    }

    fn ask_of(&mut self, session: u64, operation: Operation) -> Outcome {
        let id = self.request_of(session, operation);
        self.reply_to(id)
    }

    /// A coordinator with these sessions.
    fn share(&mut self, sessions: &[u64]) {
        self.attach(2, |options| options.role = ClientRole::Coordinator);
        for &session in sessions {
            self.add_session(session);
        }
        self.lease();
    }

    /// Runs with a coordinator that looks after its lease.
    fn run_leased(&mut self, us: u64) {
        for _ in 0..us.div_ceil(300_000) {
            self.lease();
            self.run(300_000.min(us));
        }
    }

    fn write_of(&mut self, session: u64, block: u64, value: u64) -> Version {
        let io = Io::Write { first: VolumeBlock(block), data: data_of(value, 1), fua: false };
        match self.io_at(session, io).as_deref() {
            Ok([IoPart::Written(SliceIndex(0), version)]) => *version,
            other => panic!("session {session}: {other:?}"),
        }
    }
}

fn read(block: u64) -> Operation {
    Operation::Read(BlockRange::new(BlockIndex(block), 1))
}

fn is_unknown(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::NotRegistered))
}

#[test]
fn nobody_is_served_who_was_not_let_in() {
    let mut c = Cluster::new(3);
    c.write(1, 11);
    for operation in [read(1), write(1, 12, false), Operation::Flush] {
        assert!(is_unknown(&c.ask_of(5, operation)));
    }
    // Without a moment of this primary, a registration lets nobody in.
    let at = c.register(1, None, &[5]);
    assert!(is_unknown(&c.ask_of(5, read(1))));
    c.register(2, Some(at), &[5]);
    assert!(matches!(c.ask_of(5, read(1)), Outcome::Read(_)));
    assert!(is_unknown(&c.ask_of(6, read(1))));
    let register = Operation::Register(Registration::default());
    for operation in [Operation::Seal, register] {
        assert_eq!(c.ask_of(5, operation), Outcome::Refused(Refusal::Invalid));
    }
}

#[test]
fn a_session_is_served_from_its_own_node_alone() {
    let mut c = Cluster::new(3);
    let at = c.register(1, None, &[]);
    let elsewhere = vec![(SessionId(5), NodeId(7)), (SessionId(6), NodeId(6))];
    let registration = Registration { number: 2, as_of: Some(at), sessions: elsewhere };
    assert!(matches!(c.ask(Operation::Register(registration)), Outcome::Registered { .. }));
    for operation in [read(1), write(1, 12, false), Operation::Flush] {
        assert!(is_unknown(&c.ask_of(5, operation)), "asked from node 5");
    }
    assert!(matches!(c.ask_of(6, write(1, 13, false)), Outcome::Written(_)));
}

#[test]
fn who_is_left_out_is_fenced_and_the_others_go_on() {
    let mut c = Cluster::new(3);
    let at = c.register(1, None, &[]);
    c.register(2, Some(at), &[5, 6]);
    assert!(matches!(c.ask_of(5, write(1, 11, false)), Outcome::Written(_)));
    c.register(3, Some(at), &[6]);
    assert!(is_unknown(&c.ask_of(5, write(1, 12, false))));
    // What comes late changes nothing.
    c.register(2, Some(at), &[5, 6]);
    assert!(is_unknown(&c.ask_of(5, write(1, 13, false))));
    assert!(matches!(c.ask_of(6, write(2, 14, false)), Outcome::Written(_)));
    assert_eq!(c.read(1), 11);
}

#[test]
fn a_registration_holds_for_a_lease_from_the_moment_it_names() {
    let mut c = Cluster::new(3);
    let at = c.register(1, None, &[]);
    c.run(LEASE_US / 2);
    // However late it comes, and however often.
    c.register(2, Some(at), &[5]);
    assert!(matches!(c.ask_of(5, read(1)), Outcome::Read(_)));
    c.run(LEASE_US / 2);
    assert!(is_unknown(&c.ask_of(5, read(1))));
    let later = c.register(3, Some(at), &[5]);
    assert!(is_unknown(&c.ask_of(5, read(1))));
    let ahead = Time(later.0 * 1000);
    c.register(4, Some(ahead), &[5]);
    c.run(LEASE_US + 1000);
    assert!(is_unknown(&c.ask_of(5, read(1))), "a moment to come counts as now");
}

#[test]
fn a_new_primary_serves_no_session() {
    let mut c = Cluster::new(3);
    let at = c.register(1, None, &[]);
    c.register(2, Some(at), &[5, 6]);
    c.register(3, Some(at), &[6]);
    c.event(1, Event::HandOver { to: NodeId(2) });
    c.run_until("another primary", |c| c.primary() == Some(2));
    for session in [5, 6] {
        assert!(is_unknown(&c.ask_of(session, write(1, 12, false))));
    }
    // Nor does the first one, when it is primary again.
    c.event(2, Event::HandOver { to: NodeId(1) });
    c.run_until("back again", |c| c.primary() == Some(1));
    for session in [5, 6] {
        assert!(is_unknown(&c.ask_of(session, write(1, 13, false))));
    }
    assert_eq!(c.read(1), 0);
}

#[cfg(feature = "mutations")]
#[test]
fn a_fence_that_a_new_primary_forgets_is_seen() {
    let mut c = Cluster::unstarted(3, 2);
    c.options.mutation = Some(mooring_replication::Mutation::FenceForgotten);
    (1..=3).for_each(|node| c.start(node));
    c.run_until("it serves", |c| c.primary().is_some());
    c.seal(1);
    let at = c.register(1, None, &[]);
    c.register(2, Some(at), &[6]);
    assert!(is_unknown(&c.ask_of(5, write(1, 12, false))));
    c.event(1, Event::HandOver { to: NodeId(2) });
    c.run_until("another primary", |c| c.primary() == Some(2));
    assert!(matches!(c.ask_of(5, write(1, 12, false)), Outcome::Written(_)));
}

#[test]
fn a_primary_that_goes_on_in_a_new_epoch_keeps_its_sessions() {
    let mut c = Cluster::new(3);
    let at = c.register(1, None, &[]);
    c.register(2, Some(at), &[5]);
    c.event(1, Event::Message { from: NodeId(3), message: failed_message(&c, 3) });
    c.run_until("without it", |c| c.raft.config.epoch > Epoch(1) && c.primary() == Some(1));
    assert!(c.now < 1_000_000 + LEASE_US);
    assert!(matches!(c.ask_of(5, write(1, 12, false)), Outcome::Written(_)));
}

/// What node `from` says when its pool has failed.
fn failed_message(c: &Cluster, from: u64) -> mooring_replication::Message {
    let incarnation = c.nodes[&from].process.as_ref().expect("it is up").incarnation;
    mooring_replication::Message {
        slice: SLICE,
        epoch: c.raft.config.epoch,
        from: incarnation,
        to: None,
        body: mooring_replication::MessageBody::Failed,
    }
}

#[test]
fn a_seal_ends_the_sessions_of_the_attachment_before() {
    let mut c = Cluster::new(3);
    let at = c.register(1, None, &[]);
    c.register(2, Some(at), &[5]);
    c.seal(2);
    assert!(is_unknown(&c.ask_of(5, read(1))), "the new one has let nobody in");
    c.attachment = AttachmentEpoch(1);
    let fenced = Outcome::Refused(Refusal::Fenced { by: AttachmentEpoch(2) });
    assert_eq!(c.ask_of(5, write(1, 12, false)), fenced);
    let register =
        Registration { number: 9, as_of: Some(at), sessions: vec![(SessionId(5), NodeId(5))] };
    assert_eq!(c.ask(Operation::Register(register)), fenced);
    c.attachment = AttachmentEpoch(2);
    let at = c.register(1, None, &[]);
    c.register(2, Some(at), &[5]);
    assert!(matches!(c.ask_of(5, write(1, 12, false)), Outcome::Written(_)));
}

#[test]
fn a_read_under_way_is_not_answered_to_who_was_fenced_meanwhile() {
    let mut c = Cluster::new(3);
    let at = c.register(1, None, &[]);
    c.register(2, Some(at), &[5, 6]);
    c.hang_disk(1);
    let (five, six) = (c.request_of(5, read(1)), c.request_of(6, read(1)));
    c.run(2_000);
    c.register(3, Some(at), &[6]);
    c.unhang_disk(1);
    assert!(is_unknown(&c.reply_to(five)));
    assert!(matches!(c.reply_to(six), Outcome::Read(_)));
}

#[test]
fn a_fence_passes_writes_that_wait_and_takes_those_of_the_fenced_out() {
    let mut c = Cluster::unstarted(3, 2);
    c.options.window_bytes = 20 * 4096;
    (1..=3).for_each(|node| c.start(node));
    c.run_until("it serves", |c| c.primary().is_some());
    c.seal(1);
    let at = c.register(1, None, &[]);
    c.register(2, Some(at), &[5, 6]);
    c.hang_disk(2);
    let ids: Vec<RequestId> =
        (0..60).map(|i| c.request_of(5 + i % 2, write(i, 77, false))).collect();
    c.run(1_000);
    let before = c.now;
    c.register(3, Some(at), &[6]);
    assert!(c.now - before < 10_000, "it waited behind writes for {} us", c.now - before);
    let done = |c: &Cluster, id: &RequestId| c.replies.contains_key(id);
    assert!(ids.iter().any(|id| !done(&c, id)), "some wait");
    let last = c.status(1).expect("it is up").last.sequence;
    c.unhang_disk(2);
    c.run(100_000);
    let mut fenced = 0;
    for (i, id) in ids.iter().enumerate() {
        match c.replies[id].1.outcome {
            Outcome::Written(version) if i % 2 == 0 => assert!(version.sequence <= last),
            Outcome::Refused(Refusal::NotRegistered) => fenced += 1,
            _ => {}
        }
    }
    assert!(fenced > 0, "some of the fenced session's waited");
}

#[test]
fn answers_name_versions_and_blocks_are_asked_for_theirs() {
    let mut c = Cluster::new(3);
    let Outcome::Written(first) = c.ask(write(3, 1, false)) else { panic!("not written") };
    c.kill(3);
    c.run(3_000_000);
    let Outcome::Written(second) = c.ask(write(4, 2, true)) else { panic!("not written") };
    assert!(second > first && second.epoch > first.epoch);
    let range = BlockRange::new(BlockIndex(2), 4);
    let one = |block, version| (BlockRange::new(BlockIndex(block), 1), version);
    let versions =
        vec![one(2, Version::ZERO), one(3, first), one(4, second), one(5, Version::ZERO)];
    assert_eq!(c.ask(Operation::Versions(range)), Outcome::Versions(versions));
    assert!(c.status(1).expect("it is up").stable >= Sequence(second.sequence.0));
}

#[test]
fn sessions_come_in_by_knocking_and_write_beside_each_other() {
    let mut c = Cluster::new(3);
    c.share(&[5, 6]);
    let first = c.write_of(5, 1, 51);
    let second = c.write_of(6, 2, 62);
    assert!(second > first);
    let range = VolumeRange { first: VolumeBlock(1), count: 2 };
    let versions = vec![IoPart::Versions(1, first), IoPart::Versions(1, second)];
    assert_eq!(c.io(Io::Versions(range)), Ok(versions));
    assert_eq!((c.device_read(1), c.device_read(2)), (51, 62));
    // A flush of the coordinator covers what sessions wrote; there is nothing more to do for theirs.
    assert_eq!(c.io(Io::FlushSlices(vec![SliceIndex(0)])), Ok(Vec::new()));
    for node in c.nodes.values() {
        assert_eq!(node.store.durable, node.store.len());
    }
    assert_eq!(c.io_at(5, Io::Flush), Ok(Vec::new()));
}

#[test]
fn sessions_outlive_a_change_of_primary() {
    let mut c = Cluster::new(3);
    c.share(&[5]);
    c.write_of(5, 1, 51);
    c.kill(1);
    let before = c.now;
    let io = Io::Write { first: VolumeBlock(1), data: data_of(52, 1), fua: false };
    let id = c.submit_at(5, io);
    while !c.devices[&5].done.contains_key(&id) {
        assert!(c.now - before < 4_000_000, "stall of {} us", c.now - before);
        c.run_leased(300_000);
    }
    assert_eq!(c.device_read(1), 52);
}

#[test]
fn a_fenced_session_is_let_in_nowhere_again() {
    let mut c = Cluster::new(3);
    c.share(&[5, 6]);
    c.write_of(5, 1, 51);
    c.client_event(0, ClientEvent::Fence { session: SessionId(5) });
    c.run_until("fenced", |c| c.device().sessions_fenced.contains(&5));
    let io = Io::Write { first: VolumeBlock(1), data: data_of(52, 1), fua: false };
    let id = c.submit_at(5, io);
    c.run_leased(2_000_000);
    c.event(1, Event::HandOver { to: NodeId(2) });
    c.run_leased(5_000_000);
    assert!(!c.devices[&5].done.contains_key(&id), "it waits until it is told that it is over");
    assert_eq!(c.device_read(1), 51);
    c.write_of(6, 1, 61);
}

#[test]
fn where_the_primary_is_out_of_reach_a_fence_is_done_by_time() {
    let mut c = Cluster::new(3);
    c.share(&[5]);
    c.write_of(5, 1, 51);
    // Coordinator and primary can't reach each other; the session reaches the primary.
    c.device_mut().cut.extend([1, 2, 3]);
    let streams = std::mem::take(&mut c.device_mut().streams);
    for node in streams.into_keys() {
        c.client_event(0, ClientEvent::Disconnected { node: NodeId(node) });
    }
    c.write_of(5, 1, 52);
    let start = c.now;
    c.client_event(0, ClientEvent::Fence { session: SessionId(5) });
    assert!(c.device().sessions_fenced.is_empty());
    c.run_until("fenced", |c| c.device().sessions_fenced.contains(&5));
    assert!(c.now - start <= 1_500_000, "{} us", c.now - start);
    let io = Io::Write { first: VolumeBlock(1), data: data_of(53, 1), fua: false };
    let id = c.submit_at(5, io);
    c.run(5_000_000);
    assert!(!c.devices[&5].done.contains_key(&id));
    assert_eq!(c.read(1), 52);
}

#[test]
fn an_idle_slice_with_sessions_falls_silent() {
    let mut c = Cluster::new(3);
    c.share(&[5]);
    c.write_of(5, 1, 51);
    c.run_leased(15_000_000);
    let requests = c.device().requests;
    c.run_leased(10_000_000);
    assert_eq!(c.device().requests, requests);
    c.lease();
    c.write_of(5, 1, 52);
}

#[test]
fn after_a_power_cut_of_all_a_session_hears_of_its_loss_once_and_overwrites_nobody() {
    let mut c = Cluster::new(3);
    c.share(&[5]);
    c.write_of(5, 1, 51);
    assert_eq!(c.io_at(5, Io::Flush), Ok(Vec::new()));
    c.write_of(5, 1, 52);
    let own = Io::Write { first: VolumeBlock(9), data: data_of(91, 1), fua: false };
    assert!(c.io(own).is_ok());
    for node in 1..=3 {
        c.cut_power(node);
    }
    for node in 1..=3 {
        c.start(node);
    }
    c.settle();
    assert!(c.raft.config.tail_lost > Epoch(0));
    c.run_leased(1_000_000);
    // The coordinator is over: what commits name of the slice has to be looked at.
    assert!(c.device().tail_lost);
    c.attach(3, |options| options.role = ClientRole::Coordinator);
    c.client_event(0, ClientEvent::Register { session: SessionId(5), node: NodeId(5) });
    c.client_event(5, ClientEvent::Coordinator { attachment: AttachmentEpoch(3) });
    c.run_leased(1_000_000);
    let tail_lost = c.raft.config.tail_lost;
    assert_eq!(c.device().client.tail_lost(SliceIndex(0)), tail_lost, "the next one knows");
    assert!(c.io_at(5, Io::Flush).is_err());
    assert_eq!(c.io_at(5, Io::Flush), Ok(Vec::new()));
    assert_eq!(c.device_read(1), 51);
    assert_eq!(c.device_read(9), 91, "what it wrote itself was sent again before it ended");
    c.write_of(5, 1, 53);
    assert!(!c.device().tail_lost, "this loss is not its own");
}

/// A coordinator of two slices, driven by hand: slice 1's primary is never reached.
struct ByHand {
    client: VolumeClient,
    now: Time,
    out: Vec<ClientCommand>,
}

impl ByHand {
    fn new() -> Self {
        let (id, attachment) = (ClientId(1), AttachmentEpoch(2));
        let options = ClientOptions {
            role: ClientRole::Coordinator,
            ..ClientOptions::new(id, SLICE.volume, attachment, 2 << 20, 1 << 20)
        };
        let client = VolumeClient::new(options);
        Self { client, now: Time(Duration::from_secs(100)), out: Vec::new() }
    }

    fn event(&mut self, event: ClientEvent) {
        self.client.handle(self.now, event, &mut self.out);
        self.client.check_invariants();
    }

    /// The seal of a slice is answered, whose primary is the node of the same number plus one.
    fn seal(&mut self, slice: u32) {
        let node = NodeId(u64::from(slice) + 1);
        let config = Cluster::unstarted(3, 2).raft.config;
        let config = SliceConfig { primary: node, ..config };
        self.event(ClientEvent::Config { slice: SliceIndex(slice), config });
        self.event(ClientEvent::Connected { node, stream: StreamId(1) });
        let of_slice = |command: &ClientCommand| match command {
            ClientCommand::Send { message, .. } if message.slice.index.0 == slice => {
                Some(message.clone())
            }
            _ => None,
        };
        let asked = self.out.iter().find_map(of_slice).expect("a seal is asked for");
        assert_eq!(asked.request.operation, Operation::Seal);
        let reply = Reply { epoch: Epoch(1), durable: Sequence(1), outcome: Outcome::Sealed };
        let message = ReplyMessage { slice: asked.slice, id: asked.id, reply };
        self.event(ClientEvent::Reply { from: node, message });
    }

    fn is_fenced(&self) -> bool {
        let fenced = |one: &ClientCommand| matches!(one, ClientCommand::SessionFenced { .. });
        self.out.iter().any(fenced)
    }
}

#[test]
fn a_slice_that_is_not_sealed_holds_a_fence_up_until_the_coordinator_before_is_over() {
    let mut c = ByHand::new();
    let session = SessionId(5);
    c.event(ClientEvent::Fence { session });
    c.now = c.now + Duration::from_secs(60);
    c.event(ClientEvent::Tick);
    assert!(!c.is_fenced(), "not before slice 0 is sealed");
    c.seal(0);
    let sealed = |one: &ClientCommand| matches!(one, ClientCommand::Sealed);
    assert!(c.out.iter().any(sealed), "slice 0 opens the volume");
    assert!(!c.is_fenced());
    let due = c.client.deadline().expect("it will be over");
    assert!(due <= c.now + Duration::from_secs(3));
    c.now = c.now + Duration::from_millis(2_999);
    c.event(ClientEvent::Tick);
    assert!(!c.is_fenced());
    c.now = c.now + Duration::from_millis(1);
    c.event(ClientEvent::Tick);
    assert!(c.is_fenced());
}

#[test]
fn where_all_slices_are_sealed_a_fence_of_who_is_nowhere_is_done_at_once() {
    let mut c = ByHand::new();
    c.seal(0);
    c.seal(1);
    c.event(ClientEvent::Fence { session: SessionId(5) });
    assert!(c.is_fenced());
}

/// Everything at once, repeatably: sessions write, each a block of its own, while primaries and streams
/// fail, coordinators follow each other and sessions are fenced. What a session's block has when its
/// fence is done, it has for ever.
struct Storm {
    c: Cluster,
    numbers: Numbers,
    /// What the blocks of fenced sessions have.
    fenced: BTreeMap<u64, u64>,
    next_session: u64,
    value: u64,
}

impl Storm {
    fn new(seed: u64, options: Options) -> Self {
        let mut c = Cluster::unstarted(3, 2);
        c.options = options;
        (1..=3).for_each(|node| c.start(node));
        c.run_until("it serves", |c| c.primary().is_some());
        c.share(&[]);
        let (numbers, fenced) = (Numbers(seed), BTreeMap::new());
        Self { c, numbers, fenced, next_session: 10, value: 0 }
    }

    /// Sessions that may still write; a fenced one goes on trying, too.
    fn sessions(&self) -> Vec<u64> {
        self.c.devices.keys().copied().filter(|key| (10..1000).contains(key)).collect()
    }

    fn write(&mut self) {
        let sessions = self.sessions();
        if sessions.is_empty() {
            return;
        }
        let session = sessions[self.numbers.below(sessions.len() as u64) as usize];
        self.value += 1;
        let data = data_of(self.value, 1);
        self.c.submit_at(session, Io::Write { first: VolumeBlock(session), data, fua: false });
    }

    fn act(&mut self) {
        let node = 1 + self.numbers.below(3);
        let other = 1 + (node + self.numbers.below(2)) % 3;
        let sessions = self.sessions();
        match self.numbers.below(12) {
            0 | 1 if sessions.len() < 12 => {
                self.c.add_session(self.next_session);
                self.next_session += 1;
            }
            2..=4 if !sessions.is_empty() => {
                let session = sessions[self.numbers.below(sessions.len() as u64) as usize];
                if !self.fenced.contains_key(&session) {
                    self.c.client_event(0, ClientEvent::Fence { session: SessionId(session) });
                }
            }
            5 if self.c.in_sync().len() == 3 && self.c.is_up(node) => self.c.kill(node),
            6 => self.start_all(),
            7 => self.c.event(node, Event::HandOver { to: NodeId(other) }),
            8 => self.c.hang_up(node),
            9 => self.c.glitch(node, other),
            10 => self.c.pause(node),
            11 => (1..=3).for_each(|node| self.c.resume(node)),
            _ => {}
        }
    }

    fn start_all(&mut self) {
        for node in 1..=3 {
            self.c.resume(node);
            if !self.c.is_up(node) {
                self.c.start(node);
            }
        }
    }

    /// Notes what the blocks of those have whose fence is done.
    fn note_fenced(&mut self) {
        let done = self.c.device().sessions_fenced.clone();
        for session in done {
            if self.fenced.contains_key(&session) {
                continue;
            }
            let range = VolumeRange { first: VolumeBlock(session), count: 1 };
            let id = self.c.submit(Io::Read(range));
            self.start_all();
            for _ in 0..100 {
                if self.c.device().done.contains_key(&id) {
                    break;
                }
                self.c.run_leased(300_000);
            }
            let value = match self.c.device().done[&id].as_deref() {
                Ok([IoPart::Zeros(1)]) => 0,
                Ok([IoPart::Data(data)]) => value_of(data.bytes()),
                other => panic!("{other:?}"),
            };
            self.fenced.insert(session, value);
        }
    }

    fn run(&mut self) {
        for _ in 0..60 {
            for _ in 0..self.numbers.below(10) {
                self.write();
                let pause = self.numbers.below(300);
                self.c.run(pause);
            }
            self.act();
            let pause = [1_000, 20_000, 300_000, 1_000_000][self.numbers.below(4) as usize];
            self.c.run_leased(pause);
            self.note_fenced();
        }
        self.start_all();
        self.c.run_leased(6_000_000);
        for (session, value) in self.fenced.clone() {
            assert_eq!(
                self.c.device_read(session),
                value,
                "session {session} wrote after its fence"
            );
        }
        for session in self.sessions() {
            let pending = self.c.devices[&session].client.pending();
            let fencing = self.fenced.contains_key(&session);
            assert!(fencing || pending == 0, "session {session} waits for {pending}");
        }
    }
}

#[test]
fn storms_of_sessions_leave_the_fenced_nothing() {
    let first: u64 = std::env::var("STORM").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let count: u64 = std::env::var("STORMS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    for seed in first..first + count {
        let storm = std::panic::catch_unwind(|| Storm::new(seed, Options::default()).run());
        assert!(storm.is_ok(), "storm {seed}: run with STORM={seed} STORMS=1");
    }
}

#[cfg(feature = "mutations")]
#[test]
fn storms_find_a_fence_that_is_forgotten_by_a_new_primary() {
    let mutation = Some(mooring_replication::Mutation::FenceForgotten);
    let options = Options { mutation, ..Options::default() };
    let found = (1..100).any(|seed| {
        let options = options.clone();
        std::panic::catch_unwind(|| Storm::new(seed, options).run()).is_err()
    });
    assert!(found, "no storm found it");
}
