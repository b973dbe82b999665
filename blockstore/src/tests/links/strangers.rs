//! Who has no business at the door, at the port, or with a volume.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use mooring_replication::{
    ClientId, Credential, Operation, Outcome, Refusal, ReplyMessage, Request, RequestId,
    RequestMessage, StreamId,
};
use mooring_terms::{AttachmentEpoch, BlockIndex, BlockRange, Epoch, NodeId, VolumeId};
use mooring_transport::{Link, LinkHandler, Message};
use parking_lot::Mutex;

use super::{Ear, LONG, Shared, at, begin_write, slice, wait, write};
use crate::remote::{Client, RemoteError};
use crate::wire::{ClientHello, Envelope};

const NOBODY: u32 = 65_534;

#[test]
fn only_root_comes_in_at_the_door() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let shared = Shared::new();
    let path = shared.door(1);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Even if somebody opens it to all.
    for path in [shared.dir.path(), &path] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let stranger = thread::spawn(move || {
        let nobody = rustix::fs::Uid::from_raw(NOBODY);
        // Of this thread alone.
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        Client::new(&path, VolumeId(1), Arc::new(Ear::default())).err()
    });
    let refused = stranger.join().unwrap();
    assert!(matches!(refused, Some(RemoteError::Silent { .. })), "{refused:?}");
}

#[test]
fn a_volume_or_daemon_that_is_not_there_is_an_error() {
    let shared = Shared::new();
    let ear = || Arc::new(Ear::default());
    let nowhere = Client::new(&shared.dir.path().join("none"), VolumeId(1), ear());
    assert!(matches!(nowhere.err(), Some(RemoteError::NoDaemon { .. })));
    let (client, _) = shared.client(1);
    let session = mooring_terms::SessionId(1);
    let volume = client.open(session).unwrap();
    assert!(matches!(client.open(session).err(), Some(RemoteError::OpenedTwice)));
    drop(volume);
}

#[test]
fn a_node_that_is_removed_has_no_links_any_more() {
    let shared = Shared::new();
    let volume = shared.process(2, 11);
    write(&volume, at(2, 1), 1);
    shared.rig.remove_row(2);
    // Slice 2 is on node 3: over TLS.
    let late = begin_write(&volume, at(2, 1), 2);
    assert!(late.recv_timeout(super::A_WHILE).is_err(), "it was let in");
}

/// A process that says what it likes.
#[derive(Default)]
struct Liar {
    link: Mutex<Option<Arc<Link>>>,
    replies: Mutex<Vec<ReplyMessage>>,
    closed: Mutex<bool>,
}

impl LinkHandler for Liar {
    fn opened(&self, link: &Arc<Link>) {
        *self.link.lock() = Some(Arc::clone(link));
    }

    fn messages(&self, _link: &Arc<Link>, messages: Vec<Message>) {
        for message in messages {
            if let Ok(Envelope::Reply(reply)) = Envelope::decode(message) {
                self.replies.lock().push(reply);
            }
        }
    }

    fn closed(&self, _link: &Arc<Link>) {
        *self.closed.lock() = true;
    }
}

impl Liar {
    fn at(shared: &Shared, node: u64) -> Arc<Self> {
        let liar = Arc::new(Self::default());
        let socket = UnixStream::connect(shared.door(node)).unwrap();
        let link = Link::over_unix(socket, NodeId(node), 1 << 20).unwrap();
        let running = Arc::clone(&liar);
        thread::spawn(move || link.run(&*running));
        wait("it is linked", || liar.link.lock().is_some());
        liar
    }

    fn say(&self, envelope: Envelope) {
        self.link.lock().as_ref().unwrap().send(envelope.encode()).unwrap();
    }

    fn ask(&self, client: u64, number: u64, credential: Credential, operation: Operation) {
        let id = RequestId { client: ClientId(client), stream: StreamId(1), number };
        let request = Request { epoch: Epoch(1), credential, operation };
        self.say(Envelope::Request(RequestMessage { slice: slice(0), id, request }));
    }
}

#[test]
fn a_process_does_nothing_under_an_attachment_and_nothing_in_anothers_name() {
    let shared = Shared::new();
    let liar = Liar::at(&shared, 1);
    let attachment = Credential::Attachment(AttachmentEpoch(1));
    let read = || Operation::Read(BlockRange::new(BlockIndex(0), 1));
    // Nobody who didn't introduce itself is answered.
    liar.ask(99, 1, attachment, read());
    let hello = |client| ClientHello { client, stream: StreamId(1), volume: VolumeId(1) };
    liar.say(Envelope::Client(hello(ClientId(99))));
    for (number, operation) in (2..).zip([read(), Operation::Flush, Operation::Seal]) {
        liar.ask(99, number, attachment, operation);
    }
    wait("it is answered", || liar.replies.lock().len() == 3);
    thread::sleep(Duration::from_millis(100));
    for reply in liar.replies.lock().iter() {
        assert!(reply.id.number > 1, "it was not introduced then");
        assert_eq!(reply.reply.outcome, Outcome::Refused(Refusal::Busy));
    }
    // The coordinator's client is number 7.
    liar.say(Envelope::Client(hello(ClientId(7))));
    let (done, answer) = mpsc::channel();
    let range =
        mooring_replication::VolumeRange { first: mooring_replication::VolumeBlock(0), count: 1 };
    shared.coordinator.read(range, Box::new(move |result| done.send(result.is_ok()).unwrap()));
    assert_eq!(answer.recv_timeout(LONG), Ok(true), "its answers went elsewhere");
}

#[test]
fn what_is_no_message_cuts_the_link() {
    let shared = Shared::new();
    let liar = Liar::at(&shared, 1);
    let rubbish = Message::with_payload(vec![1, 6], vec![vec![0xff; 40].into()]);
    liar.link.lock().as_ref().unwrap().send(rubbish).unwrap();
    wait("it is cut", || *liar.closed.lock());
}
