//! A stream to a peer over a DEALER: dialled, then fed from the queue as credits come back.
#![allow(clippy::disallowed_methods)] // A shell: deadlines of real connections.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mooring_terms::NodeId;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use zeromq::{DealerSocket, Socket, SocketRecv, SocketSend, ZmqError, ZmqMessage};

use crate::contract::{Channel, MESSAGE_COST, Message};
use crate::endpoint::core::Core;
use crate::endpoint::dial::connect;
use crate::endpoint::outgoing::Outgoing;
use crate::endpoint::socket;
use crate::error::Error;
use crate::fingerprint::Fingerprint;
use crate::proto::Hello;
use crate::zeromq::carry::{Doorway, carry, runtime};
use crate::zeromq::credit::Sent;
use crate::zeromq::greeting::Greeting;

/// What of the window is with the crate, the network and the peer at once. Since no message costs
/// less than 128 bytes, the crate never has the 100,000 at which its `send` would wait.
const HANDED_OVER: u64 = 12 << 20;

/// A stream that the peer has welcomed.
pub(crate) struct Line {
    runtime: Runtime,
    dealer: DealerSocket,
    carried: JoinHandle<io::Error>,
    /// The name that the peer goes by; not a proof of who it is.
    fingerprint: Fingerprint,
}

/// Dials a peer and greets it.
pub(crate) fn dial(core: &Core, peer: NodeId, channel: Channel) -> Result<Line, Error> {
    let address = core.admission().address_of(peer).ok_or(Error::UnknownNode(peer))?;
    let to = core.admission().fingerprint_of(peer).ok_or(Error::UnknownNode(peer))?;
    let limit = core.limits().handshake;
    let connection = |source| Error::Connection { address, source };
    let network = connect(address, limit)?;
    socket::prepare(&network).map_err(connection)?;
    let hello = Hello { node: core.node(), channel, stream: core.next_stream() };
    let greeting = Greeting { hello, from: core.configs().fingerprint, to };
    let runtime = runtime().map_err(Error::Resource)?;
    let greeted = runtime.block_on(async {
        let greeted = greet(&network, address, &greeting);
        tokio::time::timeout(limit, greeted).await.map_err(|_| Error::TimedOut { address })?
    });
    let (dealer, carried) = greeted?;
    Ok(Line { runtime, dealer, carried, fingerprint: to })
}

/// The handshakes: ZMTP's, then ours.
async fn greet(
    network: &TcpStream,
    address: SocketAddr,
    greeting: &Greeting,
) -> Result<(DealerSocket, JoinHandle<io::Error>), Error> {
    let connection = |source| Error::Connection { address, source };
    let doorway = Doorway::open().map_err(Error::Resource)?;
    let endpoint = doorway.endpoint();
    // What comes back is small for ever: a greeting, then credits.
    let never = Arc::new(AtomicBool::new(false));
    let mut carried = carry(network, doorway, never).map_err(Error::Resource)?;
    let mut dealer = DealerSocket::new();
    let exchanged = async {
        dealer.connect(&endpoint).await?;
        dealer.send(ZmqMessage::from(greeting.encode())).await?;
        dealer.recv().await
    };
    let answer = tokio::select! {
        answer = exchanged => answer.map_err(|error| connection(from_zmq(error)))?,
        end = &mut carried => return Err(match end {
            Ok(error) if error.kind() == io::ErrorKind::UnexpectedEof => Error::Closed { address },
            Ok(error) => connection(error),
            Err(error) => connection(error.into()),
        }),
    };
    if answer.get(0).and_then(|frame| Greeting::decode(frame)) != Some(*greeting) {
        return Err(Error::Closed { address });
    }
    Ok((dealer, carried))
}

impl Line {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Sends what is queued until the stream ends; gives the reason.
    pub(crate) fn serve(self, outgoing: &Outgoing, core: &Core) -> io::Error {
        let Self { runtime, mut dealer, mut carried, .. } = self;
        runtime.block_on(async {
            match feed(&mut dealer, &mut carried, outgoing, core).await {
                Ok(()) => io::ErrorKind::ConnectionAborted.into(),
                Err(error) => error,
            }
        })
    }
}

/// Ends well when the stream is cut or no longer wanted.
async fn feed(
    dealer: &mut DealerSocket,
    carried: &mut JoinHandle<io::Error>,
    outgoing: &Outgoing,
    core: &Core,
) -> io::Result<()> {
    let mut sent = Sent::default();
    while !outgoing.is_to_end(core) {
        while sent.outstanding() < HANDED_OVER {
            let Some((cost, message)) = outgoing.take() else { break };
            sent.add(cost);
            dealer.send(to_zmq(message)).await.map_err(from_zmq)?;
        }
        tokio::select! {
            credit = dealer.recv() => {
                let credit = credit.map_err(from_zmq)?;
                let freed = credit.get(0).and_then(|frame| sent.credit(frame));
                outgoing.release(freed.ok_or(io::ErrorKind::InvalidData)?);
            }
            end = &mut *carried => return Err(end?),
            () = outgoing.waker().notified() => {}
        }
    }
    Ok(())
}

fn to_zmq(message: Message) -> ZmqMessage {
    let mut frames = ZmqMessage::from(message.header);
    message.payload.into_iter().for_each(|frame| frames.push_back(frame));
    frames
}

fn from_zmq(error: ZmqError) -> io::Error {
    io::Error::other(error)
}

const _: () = assert!(HANDED_OVER / (MESSAGE_COST as u64) < 100_000);
