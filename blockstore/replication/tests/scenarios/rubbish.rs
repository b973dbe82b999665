//! What comes over the wire that nobody sends.

use bytes::Bytes;
use mooring_replication::{
    Append, BeaconMessage, BlocksRead, ClientId, Control, CopyStep, Credential, Event, Hello,
    JoinBegin, JoinFrom, JoinId, Message, MessageBody, Missing, Operation, Outcome, Position,
    Promised, Pulled, Raise, Refusal, Registration, Reply, ReplyMessage, Request, RequestId,
    RequestMessage, Standing, State, StreamId, Want, WireError,
};
use mooring_terms::{
    AttachmentEpoch, BlockIndex, BlockRange, Body, Epoch, Extent, Incarnation, NodeId, Record,
    Sequence, SessionId, Time, Version,
};

#[path = "../../../../tests/fuzz/seeds.rs"]
mod seeds;

use crate::cluster::{Cluster, SLICE, write};
use crate::store::data_of;

/// A repeatable sequence of numbers (xorshift64, Marsaglia 2003).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn version(epoch: u32, sequence: u64) -> Version {
    Version::new(Epoch(epoch), Sequence(sequence))
}

fn records() -> Vec<Record> {
    let body = Body::Write { first: BlockIndex(4), data: data_of(7, 3) };
    let control = Control::Seal { attachment: AttachmentEpoch(4) };
    vec![
        Record { version: version(2, 9), body },
        Record { version: version(2, 10), body: Body::Discard(BlockRange::new(BlockIndex(1), 5)) },
        Record { version: version(2, 11), body: Body::Control(control.encode()) },
    ]
}

fn extents() -> Vec<Extent> {
    vec![
        Extent::Data { version: version(1, 2), first: BlockIndex(0), data: data_of(1, 2) },
        Extent::Hole { version: version(1, 3), range: BlockRange::new(BlockIndex(2), 9) },
        Extent::Missing {
            version: Version::new(Epoch(4), Sequence(40)),
            range: BlockRange::new(BlockIndex(11), 1),
        },
    ]
}

fn position() -> Position {
    Position {
        last: version(2, 8),
        stable: Sequence(3),
        epochs: Vec::new(),
        standing: Standing::Joining { complete_to: version(1, 1) },
        join: None,
        damaged: true,
    }
}

fn bodies(c: &Cluster) -> Vec<MessageBody> {
    let (records, extents) = (records(), extents());
    vec![
        MessageBody::Hello(Hello { position: position(), answer: true }),
        MessageBody::Newer(c.raft.config.clone()),
        MessageBody::Raise(Raise { config: c.raft.config.clone(), sent: Time::ZERO }),
        MessageBody::Promised(Promised { sent: Time::ZERO, position: position() }),
        MessageBody::Pulled(Pulled { after: Sequence(8), records: records.clone() }),
        MessageBody::Append(Append {
            previous: version(2, 8),
            records,
            committed: Sequence(8),
            stable: Sequence(7),
            sync: Sequence(11),
        }),
        MessageBody::Want(Want { number: u64::MAX, credit: u64::MAX }),
        MessageBody::BlocksRead(BlocksRead { token: 3, extents: extents.clone() }),
        MessageBody::JoinBegin(JoinBegin { join: JoinId(1), after: version(9, u64::MAX) }),
        MessageBody::Missing(Missing {
            join: JoinId(1),
            from: BlockIndex(0),
            ranges: vec![BlockRange::new(BlockIndex(0), u64::MAX)],
            next: Some(BlockIndex(u64::MAX)),
        }),
        MessageBody::JoinFrom(JoinFrom {
            join: JoinId(1),
            after: version(1, 1),
            last: version(1, 1),
            epochs: Vec::new(),
            seal: AttachmentEpoch(u64::MAX),
        }),
        MessageBody::Copy(CopyStep { join: JoinId(1), number: u64::MAX, extents }),
        MessageBody::Failed,
    ]
}

fn message(body: MessageBody) -> Message {
    let (epoch, from, to) = (Epoch(1), Incarnation(2001), Some(Incarnation(1001)));
    Message { slice: SLICE, epoch, from, to, body }
}

#[test]
fn every_message_survives_its_encoding_and_its_data_is_not_copied() {
    let c = Cluster::unstarted(3, 1);
    for body in bodies(&c) {
        let message = message(body);
        let (header, frames) = message.clone().encode();
        if let MessageBody::Append(append) = &message.body
            && let Body::Write { data, .. } = &append.records[0].body
        {
            assert_eq!(frames[0].as_ptr(), data.bytes().as_ptr());
        }
        assert_eq!(Message::decode(&header, frames), Ok(message));
    }
}

#[test]
fn requests_and_replies_survive_their_encoding() {
    let id = RequestId { client: ClientId(3), stream: StreamId(4), number: 5 };
    let credential = Credential::Session { attachment: AttachmentEpoch(9), session: SessionId(12) };
    let range = BlockRange::new(BlockIndex(1), 2);
    let operations = [
        Operation::Read(range),
        write(3, 4, true),
        Operation::Discard { range, fua: false },
        Operation::Flush,
        Operation::Seal,
        Operation::Versions(range),
        register(),
    ];
    for operation in operations {
        let request = Request { epoch: Epoch(7), credential, operation };
        let message = RequestMessage { slice: SLICE, id, request };
        let (header, frames) = message.clone().encode();
        assert_eq!(RequestMessage::decode(&header, frames), Ok(message));
    }
    let moved = Refusal::Moved { epoch: Epoch(4), primary: None, tail_lost: Epoch(2) };
    let outcomes = [
        Outcome::Read(extents()),
        written(3),
        written(7),
        Outcome::Refused(moved),
        versions(),
        registered(),
    ];
    for outcome in outcomes {
        let reply = Reply { epoch: Epoch(7), durable: Sequence(3), outcome };
        let message = ReplyMessage { slice: SLICE, id, reply };
        let (header, frames) = message.clone().encode();
        assert_eq!(ReplyMessage::decode(&header, frames), Ok(message));
    }
}

fn register() -> Operation {
    let sessions = vec![(SessionId(3), NodeId(1)), (SessionId(1 << 40), NodeId(1 << 50))];
    Operation::Register(Registration { number: 6, as_of: Some(Time::ZERO), sessions })
}

fn written(epoch: u32) -> Outcome {
    Outcome::Written(Version::new(Epoch(epoch), Sequence(4)))
}

fn versions() -> Outcome {
    let range = BlockRange::new(BlockIndex(1), 2);
    Outcome::Versions(vec![(range, Version::new(Epoch(2), Sequence(9)))])
}

fn registered() -> Outcome {
    Outcome::Registered { at: Time::ZERO, used: vec![SessionId(3)] }
}

/// Everything that goes over the wire or into the log: kind, header and frames.
fn encodings(c: &Cluster) -> Vec<(u8, Bytes, Vec<Bytes>)> {
    let id = RequestId { client: ClientId(3), stream: StreamId(4), number: 5 };
    let credential = Credential::Attachment(AttachmentEpoch(9));
    let range = BlockRange::new(BlockIndex(1), 2);
    let mut all = Vec::new();
    let mut add = |kind, (header, frames)| all.push((kind, header, frames));
    for body in bodies(c) {
        add(0, message(body).encode());
    }
    let discard = Operation::Discard { range, fua: true };
    let others = [discard, Operation::Seal, register()];
    for operation in [Operation::Read(range), write(3, 4, true)].into_iter().chain(others) {
        let request = Request { epoch: Epoch(7), credential, operation };
        add(1, RequestMessage { slice: SLICE, id, request }.encode());
    }
    let moved = Refusal::Moved { epoch: Epoch(4), primary: None, tail_lost: Epoch(2) };
    let others = [Outcome::Refused(moved), versions(), registered()];
    for outcome in [Outcome::Read(extents()), Outcome::Flushed].into_iter().chain(others) {
        let reply = Reply { epoch: Epoch(7), durable: Sequence(3), outcome };
        add(2, ReplyMessage { slice: SLICE, id, reply }.encode());
    }
    let lists = vec![(SLICE, Epoch(3)), (SLICE, Epoch(4))];
    let beacon = BeaconMessage::Beacon { sent: Time::ZERO, hashes: vec![7, 8], lists };
    add(3, (beacon.encode(), Vec::new()));
    add(4, (Control::Seal { attachment: AttachmentEpoch(4) }.encode(), Vec::new()));
    add(5, (State { promised: Epoch(3), ..State::new() }.encode(), Vec::new()));
    all
}

fn is_taken(kind: u8, header: &[u8], frames: Vec<Bytes>) -> bool {
    match kind {
        0 => Message::decode(header, frames).is_ok(),
        1 => RequestMessage::decode(header, frames).is_ok(),
        2 => ReplyMessage::decode(header, frames).is_ok(),
        3 => BeaconMessage::decode(header).is_ok(),
        4 => Control::decode(header).is_ok(),
        _ => State::decode(header).is_ok(),
    }
}

#[test]
fn decoders_refuse_rubbish_and_never_panic() {
    let valid = encodings(&Cluster::unstarted(3, 1));
    for (kind, header, frames) in &valid {
        assert!(is_taken(*kind, header, frames.clone()), "kind {kind} is not valid");
    }
    let mut numbers = Numbers(42);
    let (mut taken, mut refused) = ([0; 6], [0; 6]);
    for _ in 0..60_000 {
        let (kind, header, frames) = &valid[numbers.next() as usize % valid.len()];
        let (mut bytes, mut frames) = (header.to_vec(), frames.clone());
        for _ in 0..1 + numbers.next() % 3 {
            let at = numbers.next() as usize % bytes.len().max(1);
            match numbers.next() % 6 {
                0 => bytes.truncate(at),
                1 => bytes.push(numbers.next() as u8),
                2 if !frames.is_empty() => drop(frames.pop()),
                3 => frames.push(Bytes::from(vec![0; numbers.next() as usize % 3 * 4096])),
                _ if !bytes.is_empty() => bytes[at] = numbers.next() as u8,
                _ => {}
            }
        }
        // Also where another kind is waited for: peers lie about that, too.
        let kind = if numbers.next().is_multiple_of(10) { numbers.next() as u8 % 6 } else { *kind };
        let count = if is_taken(kind, &bytes, frames) { &mut taken } else { &mut refused };
        count[usize::from(kind)] += 1;
    }
    // Some changes are within what a field may hold; most are not, and both ways are tried.
    let enough = |counts: &[u32; 6]| counts.iter().all(|&count| count > 100);
    assert!(enough(&taken) && enough(&refused), "{taken:?} taken, {refused:?} refused");
    assert_eq!(Message::decode(&[7, 1, 2], Vec::new()), Err(WireError::Version(7)));
}

#[test]
fn the_fuzzers_seeds_are_what_is_sent() {
    for (i, (kind, header, frames)) in encodings(&Cluster::unstarted(3, 1)).iter().enumerate() {
        let mut input = vec![*kind];
        input.extend((header.len() as u16).to_le_bytes());
        input.extend_from_slice(header);
        for frame in frames {
            input.extend((frame.len() as u32).to_le_bytes());
            input.extend_from_slice(frame);
        }
        seeds::check("replication", &format!("{kind}-{i:02}"), &input);
    }
}

#[test]
fn messages_out_of_place_harm_nobody() {
    for target in 1..=3 {
        let mut c = Cluster::new(3);
        c.write(1, 1);
        for from in 1..=3 {
            for body in bodies(&c) {
                let mut message = message(body);
                message.to = None;
                message.from = Incarnation(from * 1000 + 1);
                let from = NodeId(from);
                c.event(target, Event::Message { from, message });
                c.run(2_000);
            }
        }
        c.write(2, 2);
        c.settle();
        assert_eq!((c.read(1), c.read(2)), (1, 2));
        c.check_replicas_agree();
    }
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut c = Cluster::new(3);
    let empty = BlockRange::new(BlockIndex(3), 0);
    let wide = BlockRange::new(BlockIndex(u64::MAX), 2);
    for range in [empty, wide] {
        assert_eq!(c.ask(Operation::Read(range)), Outcome::Refused(Refusal::Invalid));
        let discard = Operation::Discard { range, fua: false };
        assert_eq!(c.ask(discard), Outcome::Refused(Refusal::Invalid));
    }
    let good = data_of(5, 2);
    let data = mooring_terms::Data::from_parts(good.bytes().clone(), [1, 2].into()).unwrap();
    let write = Operation::Write { first: BlockIndex(8), data, fua: false };
    let outcome = c.ask(write);
    assert_eq!(outcome, Outcome::Refused(Refusal::Damaged { block: BlockIndex(8) }));
    assert_eq!(c.read(8), 0);
}

#[test]
fn a_superseded_client_stream_is_heard_no_more_and_what_it_was_admitted_is_finished() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.hang_disk(2);
    let client = ClientId(50);
    let id = |stream, number| RequestId { client, stream: StreamId(stream), number };
    c.request_at(1, id(1, 1), Epoch(1), write(1, 10, false));
    c.run(1_000);
    c.event(1, Event::ClientStream { client, stream: StreamId(2) });
    c.request_at(1, id(1, 2), Epoch(1), write(1, 66, false));
    c.request_at(1, id(2, 3), Epoch(1), write(1, 30, false));
    c.run(1_000);
    assert_eq!(c.value_at(1, 1), Some(10), "the new stream waits for what was admitted");
    c.unhang_disk(2);
    c.run(10_000);
    assert_eq!(c.read(1), 30);
    c.check_replicas_agree();
}
