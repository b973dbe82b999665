//! The receiving end of a node stream: TLS over a large buffer of its own.
//!
//! ```text
//!   socket ──read, up to 64 KiB──▶ buffer ──decrypted, record by record──▶ the caller's sink
//! ```
//! The library's own buffering reads 4 KiB at a time, which is two system calls for a block and
//! sixteen for what comes in one here.
//!
//! Invariant: `start <= end <= buffer.len()`; `buffer[start..end]` is received and not yet processed.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use thiserror::Error;

use crate::proto::FrameError;

/// One read: three full records and more.
const BUFFER_BYTES: usize = 64 << 10;
/// The longest record, with its head: room that must be free behind what is buffered.
const RECORD_BYTES: usize = 5 + (16 << 10) + 256;

/// Why a stream ends.
#[derive(Debug, Error)]
pub(crate) enum ReceiveError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("bad frame: {0}")]
    Frame(#[from] FrameError),
    #[error("closed by the peer")]
    Closed,
    #[error("cut, or replaced by a newer stream")]
    Cut,
}

/// Where processing what is buffered has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// More must be read before anything can happen.
    NeedInput,
    /// As before, and the handshake is complete: the client's certificate was believed.
    Established,
}

/// A server-side TLS connection that is read from, mostly.
pub(crate) struct Receive {
    tls: UnbufferedServerConnection,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    outgoing: Vec<u8>,
}

impl Receive {
    /// A connection of which `received` was read already (the client's first message).
    pub(crate) fn new(config: Arc<ServerConfig>, received: &[u8]) -> Result<Self, rustls::Error> {
        let mut buffer = vec![0; BUFFER_BYTES.max(received.len() + RECORD_BYTES)];
        buffer[..received.len()].copy_from_slice(received);
        Ok(Self {
            tls: UnbufferedServerConnection::new(config)?,
            buffer,
            start: 0,
            end: received.len(),
            outgoing: Vec::new(),
        })
    }

    /// Completes the handshake. On an error the peer has been told why. What the client sent right
    /// behind it is given to `sink`; it comes from the client whose certificate was believed.
    pub(crate) fn handshake(
        &mut self,
        io: &mut (impl Read + Write),
        sink: &mut dyn FnMut(&[u8]) -> Result<(), ReceiveError>,
    ) -> Result<(), ReceiveError> {
        loop {
            match self.process(io, sink) {
                Ok(Progress::Established) => return Ok(()),
                Ok(Progress::NeedInput) => self.read(io)?,
                Err(error) => {
                    self.send_alert(io);
                    return Err(error);
                }
            }
        }
    }

    /// The certificates that the client showed, its own first.
    pub(crate) fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.tls.peer_certificates().unwrap_or(&[])
    }

    /// Reads once and gives what was decrypted to `sink`, in order.
    pub(crate) fn receive(
        &mut self,
        io: &mut (impl Read + Write),
        sink: &mut dyn FnMut(&[u8]) -> Result<(), ReceiveError>,
    ) -> Result<(), ReceiveError> {
        self.read(io)?;
        self.process(io, sink).map(drop)
    }

    /// Encrypts and writes `bytes`, at most one record.
    pub(crate) fn send(&mut self, io: &mut impl Write, bytes: &[u8]) -> Result<(), ReceiveError> {
        let status = self.tls.process_tls_records(&mut self.buffer[self.start..self.end]);
        let ConnectionState::WriteTraffic(mut traffic) = status.state? else {
            return Err(ReceiveError::Closed);
        };
        let mut size = bytes.len() + 256;
        loop {
            self.outgoing.resize(size, 0);
            match traffic.encrypt(bytes, &mut self.outgoing) {
                Ok(written) => {
                    io.write_all(&self.outgoing[..written])?;
                    break;
                }
                Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    size = required_size;
                }
                Err(EncryptError::EncryptExhausted) => return Err(ReceiveError::Closed),
            }
        }
        self.start += status.discard;
        self.outgoing.clear();
        Ok(())
    }

    /// Works through what is buffered, until more is needed.
    fn process(
        &mut self,
        io: &mut impl Write,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), ReceiveError>,
    ) -> Result<Progress, ReceiveError> {
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.tls.process_tls_records(&mut self.buffer[self.start..self.end]);
            let progress = match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        sink(record.payload)?;
                    }
                    None
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(&mut self.outgoing, |out| data.encode(out))?;
                    None
                }
                ConnectionState::TransmitTlsData(data) => {
                    io.write_all(&self.outgoing)?;
                    self.outgoing.clear();
                    data.done();
                    None
                }
                ConnectionState::BlockedHandshake => Some(Progress::NeedInput),
                ConnectionState::WriteTraffic(_) => Some(Progress::Established),
                _ => return Err(ReceiveError::Closed),
            };
            self.start += discard;
            if let Some(progress) = progress {
                return Ok(progress);
            }
        }
    }

    /// Reads once, behind what is buffered.
    fn read(&mut self, io: &mut impl Read) -> Result<(), ReceiveError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < RECORD_BYTES {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            // Only handshake messages can be longer than the buffer; none of ours is.
            return Err(rustls::Error::General("handshake too long".into()).into());
        }
        loop {
            match io.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(ReceiveError::Closed),
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells the peer why it is refused, as far as the socket takes it.
    ///
    /// rustls goes on from where the error left it, so it must be given the same bytes again: with
    /// others it panics if more handshake messages were in them.
    fn send_alert(&mut self, io: &mut impl Write) {
        while let Ok(ConnectionState::EncodeTlsData(mut data)) =
            self.tls.process_tls_records(&mut self.buffer[self.start..self.end]).state
        {
            if append(&mut self.outgoing, |out| data.encode(out)).is_err() {
                break;
            }
        }
        // The refusal itself is what gets reported.
        let _ = io.write_all(&self.outgoing);
        self.outgoing.clear();
    }
}

/// Encodes behind what `out` holds, with as much room as it takes.
fn append(
    out: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), ReceiveError> {
    let used = out.len();
    let mut room = 2048;
    loop {
        out.resize(used + room, 0);
        match encode(&mut out[used..]) {
            Ok(written) => {
                out.truncate(used + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                room = required_size;
            }
            Err(EncodeError::AlreadyEncoded) => return Err(ReceiveError::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::thread;
    use std::time::{Duration, SystemTime};

    use mooring_terms::NodeId;
    use rustls::{ClientConnection, Stream};

    use super::*;
    use crate::admission::Admission;
    use crate::authority::CertificateAuthority;
    use crate::fingerprint::Fingerprint;
    use crate::tls::config::{Configs, any_name};

    /// A table in which every key is node 1.
    struct Everyone;

    impl Admission for Everyone {
        fn node_of(&self, _: &Fingerprint) -> Option<NodeId> {
            Some(NodeId(1))
        }

        fn fingerprint_of(&self, _: NodeId) -> Option<Fingerprint> {
            None
        }

        fn address_of(&self, _: NodeId) -> Option<SocketAddr> {
            None
        }
    }

    fn configs() -> Configs {
        let authority = CertificateAuthority::create().unwrap();
        let life = Duration::from_secs(86_400);
        let identity = authority.issue(NodeId(1), &[], SystemTime::UNIX_EPOCH, life).unwrap();
        Configs::new(&identity, Arc::new(Everyone)).unwrap()
    }

    /// Keys are renewed after 2^24 records, some 64 GiB of single blocks: too many for a test, so
    /// the client is made to do it.
    #[test]
    fn a_stream_survives_the_renewal_of_its_keys() {
        let configs = configs();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = configs.client(NodeId(1)).unwrap();
        let sender = thread::spawn(move || {
            let mut socket = TcpStream::connect(address).unwrap();
            let mut tls = ClientConnection::new(client, any_name()).unwrap();
            for part in 0..20_u8 {
                Stream::new(&mut tls, &mut socket).write_all(&[part; 50_000]).unwrap();
                tls.refresh_traffic_keys().unwrap();
            }
            Stream::new(&mut tls, &mut socket).write_all(b"end").unwrap();
        });
        let (mut socket, _) = listener.accept().unwrap();
        let mut receive = Receive::new(Arc::clone(&configs.node_server), &[]).unwrap();
        let mut received = Vec::new();
        let mut sink = |bytes: &[u8]| {
            received.extend_from_slice(bytes);
            Ok(())
        };
        receive.handshake(&mut socket, &mut sink).unwrap();
        while receive.receive(&mut socket, &mut sink).is_ok() {}
        sender.join().unwrap();
        assert_eq!(received.len(), 20 * 50_000 + 3);
        assert!(
            (0..20)
                .all(|part| received[part * 50_000..][..50_000].iter().all(|&b| b == part as u8))
        );
    }

    #[test]
    fn random_bytes_behind_a_handshake_end_the_stream_without_a_panic() {
        let configs = configs();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = configs.client(NodeId(1)).unwrap();
        let sender = thread::spawn(move || {
            let mut socket = TcpStream::connect(address).unwrap();
            let mut tls = ClientConnection::new(client, any_name()).unwrap();
            Stream::new(&mut tls, &mut socket).write_all(b"good").unwrap();
            // A record that nobody encrypted.
            let mut record = vec![23, 3, 3, 0, 100];
            record.extend_from_slice(&[77; 100]);
            socket.write_all(&record).unwrap();
            let _ = socket.read(&mut [0]);
        });
        let (mut socket, _) = listener.accept().unwrap();
        let mut receive = Receive::new(Arc::clone(&configs.node_server), &[]).unwrap();
        let mut received = Vec::new();
        let mut sink = |bytes: &[u8]| {
            received.extend_from_slice(bytes);
            Ok(())
        };
        receive.handshake(&mut socket, &mut sink).unwrap();
        let error = loop {
            if let Err(error) = receive.receive(&mut socket, &mut sink) {
                break error;
            }
        };
        drop(socket);
        sender.join().unwrap();
        assert!(matches!(error, ReceiveError::Tls(_)), "{error}");
        assert_eq!(received, b"good");
    }
}
