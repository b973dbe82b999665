//! Dials a peer: TCP, TLS with the node that is meant, hello, welcome.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use mooring_terms::NodeId;
use rustls::{ClientConfig, ClientConnection, Stream};

use crate::assembler::Assembler;
use crate::contract::Channel;
use crate::endpoint::core::Core;
use crate::endpoint::socket;
use crate::endpoint::writer::Writer;
use crate::error::Error;
use crate::proto::{self, Hello, Kind};
use crate::tls::config::any_name;
use crate::tls::timed::Timed;

/// How long a peer may take to accept the connection itself: short, so that a healed network is
/// found out soon.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// A stream that the peer has welcomed.
pub(crate) fn dial(core: &Core, peer: NodeId, channel: Channel) -> Result<Writer, Error> {
    let address = core.admission().address_of(peer).ok_or(Error::UnknownNode(peer))?;
    let limit = core.limits().handshake;
    let connection = |source| Error::Connection { address, source };
    let socket = connect(address, limit)?;
    socket::prepare(&socket).map_err(connection)?;
    let hello = Hello { node: core.node(), channel, stream: core.next_stream() };
    let config = core.configs().client(peer)?;
    let (tls, welcome) =
        exchange(&socket, address, config, limit, (Kind::Hello, &hello.encode()), Kind::Welcome)?;
    if Hello::decode(&welcome) != Ok(hello) {
        return Err(Error::Closed { address });
    }
    Writer::new(tls, Arc::new(socket)).map_err(connection)
}

/// A connection, and nothing said on it.
pub(crate) fn connect(address: SocketAddr, limit: Duration) -> Result<TcpStream, Error> {
    TcpStream::connect_timeout(&address, CONNECT_LIMIT.min(limit))
        .map_err(|source| from_io(address, source))
}

/// Shakes hands, sends one frame and takes one.
pub(crate) fn exchange(
    socket: &TcpStream,
    address: SocketAddr,
    config: Arc<ClientConfig>,
    limit: Duration,
    (kind, request): (Kind, &[u8]),
    expected: Kind,
) -> Result<(ClientConnection, bytes::Bytes), Error> {
    let frame = |source| Error::Frame { address, source };
    let mut tls = ClientConnection::new(config, any_name())?;
    let mut timed = Timed::new(socket, limit);
    let mut stream = Stream::new(&mut tls, &mut timed);
    let request = proto::encode_single(kind, request).map_err(frame)?;
    stream.write_all(&request).map_err(|source| from_io(address, source))?;
    stream.flush().map_err(|source| from_io(address, source))?;
    let mut assembler = Assembler::new(expected);
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).map_err(|source| from_io(address, source))?;
        if count == 0 {
            return Err(Error::Closed { address });
        }
        let mut input = &buffer[..count];
        if let Some(parts) = assembler.feed(&mut input).map_err(frame)? {
            let Some(answer) = parts.into_iter().next().filter(|_| input.is_empty()) else {
                return Err(Error::Closed { address });
            };
            return Ok((tls, answer));
        }
    }
}

/// The TLS library hands its errors on inside I/O errors.
fn from_io(address: SocketAddr, source: io::Error) -> Error {
    if let Some(tls) = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Error::Handshake { address, source: tls.clone() };
    }
    match source.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Error::TimedOut { address },
        io::ErrorKind::UnexpectedEof => Error::Closed { address },
        _ => Error::Connection { address, source },
    }
}

/// A connection for one request, as [`exchange`].
pub(crate) fn request(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    limit: Duration,
    request: (Kind, &[u8]),
    expected: Kind,
) -> Result<bytes::Bytes, Error> {
    let socket = connect(address, limit)?;
    socket.set_nodelay(true).map_err(|source| Error::Connection { address, source })?;
    exchange(&socket, address, config, limit, request, expected).map(|(_, answer)| answer)
}
