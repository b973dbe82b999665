//! One incoming node stream: its handshake, its hello, and its messages until it ends. Where a call of
//! the handler takes long, another thread goes on with the stream.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::time::Instant;

use mooring_terms::NodeId;
use thiserror::Error;
use tracing::{debug, warn};

use crate::assembler::Assembler;
use crate::contract::{Channel, Message};
use crate::endpoint::accept::AcceptError;
use crate::endpoint::core::Core;
use crate::endpoint::permits::Permit;
use crate::endpoint::post::Post;
use crate::endpoint::socket;
use crate::endpoint::streams::Turn;
use crate::fingerprint::Fingerprint;
use crate::proto::{self, FrameError, Hello, Kind};
use crate::tls::receive::{Receive, ReceiveError};
use crate::tls::timed::Timed;

/// Why a node whose certificate was believed is refused all the same.
#[derive(Debug, Error)]
pub(crate) enum HelloRefusal {
    #[error("it shows no certificate")]
    NoCertificate,
    #[error("its key was removed from the table of nodes")]
    Removed,
    #[error("it says that it is {said:?}, but its key is that of {is:?}")]
    WrongNode { said: NodeId, is: NodeId },
    #[error("a newer stream of {0:?} is there already, or the one before does not end")]
    Stale(NodeId),
}

/// A stream that may deliver.
struct Established {
    receive: Receive,
    hello: Hello,
    turn: Turn,
}

/// What the thread of a stream works with.
pub(crate) struct Reader {
    socket: Arc<TcpStream>,
    peer: SocketAddr,
    receive: Receive,
    assembler: Assembler,
    hello: Hello,
    turn: Turn,
    /// Messages that are complete, and not yet handed over.
    ready: VecDeque<Message>,
    /// Why nothing follows what is ready.
    over: Option<ReceiveError>,
}

/// Where a stream's thread leaves its reader during a call.
pub(crate) type ReaderPost = Post<Box<Reader>>;

/// The first frame of a stream, as it arrives.
struct Greeting {
    assembler: Assembler,
    hello: Option<Hello>,
}

impl Greeting {
    fn new() -> Self {
        Self { assembler: Assembler::new(Kind::Hello), hello: None }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), ReceiveError> {
        if self.hello.is_none()
            && let Some(parts) = self.assembler.feed(&mut bytes)?
        {
            let body = parts.first().map_or(&[][..], |part| part);
            self.hello = Some(Hello::decode(body)?);
        }
        // Whoever is not yet welcome has nothing to say after its hello.
        if bytes.is_empty() { Ok(()) } else { Err(FrameError::Hello.into()) }
    }
}

/// Serves the stream that begins with `received` until it ends.
pub(crate) fn run(
    core: &Arc<Core>,
    socket: TcpStream,
    peer: SocketAddr,
    received: &[u8],
    permit: Permit,
    deadline: Instant,
) -> Result<(), AcceptError> {
    let socket = Arc::new(socket);
    let established =
        establish(core, &socket, received, deadline).map_err(|error| match error {
            ReceiveError::Io(error) => AcceptError::Io(error),
            ReceiveError::Tls(error) => AcceptError::Tls(error),
            ReceiveError::Frame(error) => AcceptError::Frame(error),
            ReceiveError::Closed | ReceiveError::Cut => AcceptError::Closed,
        })?;
    drop(permit);
    socket.set_read_timeout(None)?;
    let Established { receive, hello, turn } = established;
    let assembler = Assembler::new(Kind::Message);
    let (ready, over) = (VecDeque::new(), None);
    let reader = Reader { socket, peer, receive, assembler, hello, turn, ready, over };
    let post = Arc::new(Post::new());
    let mut posts = core.posts.lock();
    posts.retain(|post| post.strong_count() > 0);
    posts.push(Arc::downgrade(&post));
    drop(posts);
    serve(core, &post, 0, Box::new(reader));
    Ok(())
}

/// Starts threads in the place of those that have been in one call since this was last called.
pub(crate) fn relieve(core: &Arc<Core>) {
    let posts: Vec<_> = core.posts.lock().iter().filter_map(Weak::upgrade).collect();
    for post in posts {
        let Some((holder, reader)) = post.relieve() else { continue };
        let (node, channel) = (reader.hello.node, reader.hello.channel);
        warn!(%node, %channel, "a message takes long; its stream goes on on another thread");
        let serving = Arc::clone(core);
        let begun = core.spawn("mooring-in", move || serve(&serving, &post, holder, reader));
        if let Err(error) = begun {
            warn!(%node, %channel, %error, "no thread for a stream; it is closed");
        }
    }
}

/// Hands over messages until the stream ends, or until somebody else does so.
fn serve(core: &Arc<Core>, post: &ReaderPost, holder: u64, mut reader: Box<Reader>) {
    ReaderPost::begin();
    let handler = core.handler();
    let reason = loop {
        while !reader.ready.is_empty() {
            if reader.turn.is_cut() {
                reader.ready.clear();
                reader.over = Some(ReceiveError::Cut);
                break;
            }
            let Hello { node, channel, stream } = reader.hello;
            let call = handler.take(node, channel, stream, &mut reader.ready);
            match post.call(holder, reader, call) {
                Some(back) => reader = back,
                None => return,
            }
        }
        match reader.over.take() {
            Some(reason) => break reason,
            None => reader.fill(),
        }
    };
    let Hello { node, channel, stream } = reader.hello;
    match reason {
        ReceiveError::Frame(error) => log_bad_frame(core, reader.peer, node, channel, error),
        reason => debug!(peer = %reader.peer, %node, %channel, %reason, "incoming stream closed"),
    }
    handler.incoming_closed(node, channel, stream);
}

impl Reader {
    /// Reads once, and puts the messages that are complete among the ready ones.
    fn fill(&mut self) {
        let Self { receive, assembler, ready, socket, over, .. } = self;
        let mut sink = |mut bytes: &[u8]| {
            while let Some(message) = assembler.feed_message(&mut bytes)? {
                ready.push_back(message);
            }
            Ok(())
        };
        *over = receive.receive(&mut &**socket, &mut sink).err();
    }
}

/// Handshake, hello, turn, welcome: all before the deadline.
fn establish(
    core: &Arc<Core>,
    socket: &Arc<TcpStream>,
    received: &[u8],
    deadline: Instant,
) -> Result<Established, ReceiveError> {
    let mut timed = Timed::until(socket, deadline);
    socket::prepare(socket)?;
    let mut receive = Receive::new(Arc::clone(&core.configs().node_server), received)?;
    let mut greeting = Greeting::new();
    receive.handshake(&mut timed, &mut |bytes| greeting.take(bytes))?;
    let refuse = |refusal| ReceiveError::Io(std::io::Error::other(refusal));
    let certificate =
        receive.peer_certificates().first().ok_or_else(|| refuse(HelloRefusal::NoCertificate))?;
    let fingerprint = Fingerprint::of_certificate(certificate).map_err(|_| ReceiveError::Closed)?;
    let admitted =
        || core.admission().node_of(&fingerprint).ok_or_else(|| refuse(HelloRefusal::Removed));
    let is = admitted()?;
    let hello = loop {
        match greeting.hello {
            Some(hello) => break hello,
            None => receive.receive(&mut timed, &mut |bytes| greeting.take(bytes))?,
        }
    };
    if hello.node != is {
        return Err(refuse(HelloRefusal::WrongNode { said: hello.node, is }));
    }
    let turn = core
        .incoming
        .enter(&hello, fingerprint, socket, deadline)
        .ok_or_else(|| refuse(HelloRefusal::Stale(is)))?;
    // A refresh before this point did not see the stream.
    if admitted()? != is {
        return Err(refuse(HelloRefusal::Removed));
    }
    let welcome = proto::encode_single(Kind::Welcome, &hello.encode())?;
    receive.send(&mut timed, &welcome)?;
    Ok(Established { receive, hello, turn })
}

fn log_bad_frame(core: &Core, peer: SocketAddr, node: NodeId, channel: Channel, error: FrameError) {
    if let Some(suppressed) = core.log.allow(peer.ip(), &error) {
        warn!(%peer, %node, %channel, %error, suppressed, "bad frame; stream closed");
    }
}
