//! Who is refused, what is closed, and that nothing else suffers from it.
#![allow(clippy::disallowed_methods)] // Real threads and sockets: real time.
#![allow(clippy::unwrap_used)] // In a test a panic is the report.

mod support;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use mooring_terms::NodeId;
use mooring_transport::proto::{self, Hello, Kind};
use mooring_transport::{
    CertificateAuthority, Channel, Error, HttpHandler, Identity, JoinHandler, Limits, Message,
    SendError, Services, StreamId, Token, Transport, join,
};
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::Accepted;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, SignatureScheme,
};
use rustls::{ServerConnection, Stream};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Event, Recorder, TlsNode, YEAR, introduce, is_connected, issue, tls_node};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

/// A client that believes any server, as a stranger would.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
    }
}

/// A raw TLS client with the given ALPN, and a certificate if it has one.
struct Stranger {
    tls: ClientConnection,
    socket: TcpStream,
}

impl Stranger {
    fn connect(address: SocketAddr, alpn: &[&[u8]], identity: Option<&Identity>) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivatePkcs8KeyDer::from(identity.key().to_bytes().to_vec());
                let chain = vec![identity.certificate().clone()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(key)).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from("mooring").unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(support::LONG)).unwrap();
        Self { tls, socket }
    }

    fn node(address: SocketAddr, identity: Option<&Identity>) -> Self {
        Self::connect(address, &[b"mooring/1"], identity)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = Stream::new(&mut self.tls, &mut self.socket);
        stream.write_all(bytes)?;
        stream.flush()
    }

    fn hello(&mut self, node: NodeId, number: u64) -> io::Result<()> {
        let stream = StreamId { boot: 5, number };
        let hello = Hello { node, channel: Channel::Data, stream };
        self.write(&proto::encode_single(Kind::Hello, &hello.encode()).unwrap())
    }

    /// What comes until the connection ends; the error is the end's.
    fn read_to_end(&mut self) -> (Vec<u8>, Option<io::Error>) {
        let mut bytes = Vec::new();
        let error = Stream::new(&mut self.tls, &mut self.socket).read_to_end(&mut bytes).err();
        (bytes, error)
    }

    /// The peer's frame.
    fn read_frame(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 256];
        let count = Stream::new(&mut self.tls, &mut self.socket).read(&mut bytes)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    fn welcomed(mut self, node: NodeId) -> bool {
        self.hello(node, 1).is_ok() && self.read_frame().is_ok_and(|frame| !frame.is_empty())
    }
}

/// Nodes 1 and 2 of one cluster, started, and what belongs to them.
struct Fixture {
    authority: CertificateAuthority,
    identity_of_two: Identity,
    one: TlsNode,
    two: TlsNode,
    at_one: Arc<Recorder>,
    at_two: Arc<Recorder>,
}

fn copy(identity: &Identity) -> Identity {
    Identity::from_bytes(&identity.to_bytes()).unwrap()
}

fn fixture() -> Fixture {
    fixture_with(Limits::default(), SystemTime::now())
}

fn fixture_with(limits: Limits, issued: SystemTime) -> Fixture {
    support::show_logs();
    let authority = CertificateAuthority::create().unwrap();
    let issue = |node| authority.issue(node, &[], issued, YEAR).unwrap();
    let identity_of_two = issue(TWO);
    let one = tls_node(issue(ONE), ONE, limits.clone());
    let two = tls_node(copy(&identity_of_two), TWO, limits);
    introduce(&[&one, &two]);
    let (at_one, at_two) = (Recorder::new(), Recorder::new());
    one.start(Arc::clone(&at_one) as _);
    two.start(Arc::clone(&at_two) as _);
    Fixture { authority, identity_of_two, one, two, at_one, at_two }
}

impl Fixture {
    fn address(&self) -> SocketAddr {
        self.one.endpoint.local_addr()
    }

    fn connect(&self) {
        self.two.endpoint.connect(ONE, Channel::Data);
        self.at_two.wait_connected(ONE, Channel::Data);
    }

    /// Node 1 still serves node 2, and got nothing from anybody else.
    fn assert_unharmed(&self) {
        self.connect();
        let before = self.at_one.messages(TWO, Channel::Data).len();
        self.two.endpoint.send(ONE, Channel::Data, Message::new(&b"still here"[..])).unwrap();
        self.at_one.wait_messages(TWO, Channel::Data, before + 1);
        let foreign = |e: &Event| matches!(e, Event::Message(node, ..) if *node != TWO);
        assert!(!self.at_one.events().iter().any(foreign));
    }
}

#[test]
fn a_stranger_without_certificate_is_refused() {
    let f = fixture();
    assert!(!Stranger::node(f.address(), None).welcomed(TWO));
    f.assert_unharmed();
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let f = fixture();
    let foreign = issue(&CertificateAuthority::create().unwrap(), TWO);
    assert!(!Stranger::node(f.address(), Some(&foreign)).welcomed(TWO));
    // Not even when somebody has listed its key.
    f.one.table.insert(NodeId(7), foreign.fingerprint(), f.address());
    assert!(!Stranger::node(f.address(), Some(&foreign)).welcomed(NodeId(7)));
    f.assert_unharmed();
}

#[test]
fn a_key_that_is_not_in_the_table_is_refused() {
    let f = fixture();
    let unlisted = issue(&f.authority, NodeId(3));
    assert!(!Stranger::node(f.address(), Some(&unlisted)).welcomed(NodeId(3)));
    // The same key once it is listed: what was refused was the missing row.
    f.one.table.insert(NodeId(3), unlisted.fingerprint(), f.address());
    assert!(Stranger::node(f.address(), Some(&unlisted)).welcomed(NodeId(3)));
    f.assert_unharmed();
}

#[test]
fn a_node_that_calls_itself_another_is_refused() {
    let f = fixture();
    assert!(!Stranger::node(f.address(), Some(&f.identity_of_two)).welcomed(ONE));
    assert!(Stranger::node(f.address(), Some(&f.identity_of_two)).welcomed(TWO));
}

#[test]
fn a_dialled_peer_that_is_not_the_one_meant_is_refused() {
    let f = fixture();
    // Node 2 is told that node 3 listens where node 1 does.
    let three = issue(&f.authority, NodeId(3));
    f.two.table.insert(NodeId(3), three.fingerprint(), f.address());
    f.two.endpoint.connect(NodeId(3), Channel::Data);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!is_connected(&f.at_two.events(), NodeId(3), Channel::Data));
    assert_eq!(
        f.two.endpoint.send(NodeId(3), Channel::Data, Message::default()),
        Err(SendError::Down)
    );
    f.assert_unharmed();
}

#[test]
fn a_removed_node_is_cut_both_ways_and_stays_out() {
    let f = fixture();
    f.connect();
    f.one.endpoint.connect(TWO, Channel::Data);
    f.at_one.wait_connected(TWO, Channel::Data);
    let row = f.one.table.remove(TWO);
    f.one.endpoint.refresh();
    f.at_two.wait("the cut", |events| !is_connected(events, ONE, Channel::Data));
    f.at_one.wait("the cut", |events| {
        !is_connected(events, TWO, Channel::Data)
            && events.iter().any(|event| matches!(event, Event::Closed(TWO, ..)))
    });
    std::thread::sleep(Duration::from_millis(200));
    assert!(!is_connected(&f.at_two.events(), ONE, Channel::Data));
    assert!(!is_connected(&f.at_one.events(), TWO, Channel::Data));
    f.one.table.insert(TWO, row.0, row.1);
    f.assert_unharmed();
}

#[test]
fn a_refresh_without_changes_cuts_nothing() {
    let f = fixture();
    f.connect();
    f.one.endpoint.refresh();
    f.two.endpoint.refresh();
    f.assert_unharmed();
    let downs = f.at_two.events().iter().filter(|e| matches!(e, Event::Disconnected(..))).count();
    assert_eq!(downs, 0);
}

#[test]
fn expired_certificates_are_good_between_admitted_nodes() {
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
    let f = fixture_with(Limits::default(), long_ago);
    assert!(f.identity_of_two.renewal_due(SystemTime::now()).unwrap());
    f.assert_unharmed();
    let future = fixture_with(Limits::default(), SystemTime::now() + 10 * YEAR);
    future.assert_unharmed();
}

#[test]
fn a_renewed_certificate_is_taken_up_without_a_restart() {
    let f = fixture();
    f.connect();
    let request = f.identity_of_two.key().request().unwrap();
    let certificate = f.authority.sign(&request, TWO, &[], SystemTime::now(), YEAR).unwrap();
    let renewed = f.identity_of_two.renewed(certificate).unwrap();
    f.two.endpoint.renew(&renewed).unwrap();
    // The stream that is open goes on; the next one is made with the new certificate.
    f.assert_unharmed();
    f.two.endpoint.break_stream(ONE, Channel::Data);
    f.at_two.wait("a new stream", |events| {
        let ups = events.iter().filter(|event| matches!(event, Event::Connected(..))).count();
        ups == 2
    });
    f.assert_unharmed();
    // Whoever dials node 2 sees it.
    let mut client = Stranger::connect(f.two.endpoint.local_addr(), &[b"mooring/1"], None);
    let _ = client.hello(ONE, 1);
    let shown = client.tls.peer_certificates().unwrap()[0].clone();
    assert_eq!(&shown, renewed.certificate());
    let other_key = issue(&f.authority, TWO);
    assert!(matches!(f.two.endpoint.renew(&other_key), Err(Error::WrongKey { .. })));
}

#[test]
fn plain_garbage_is_closed() {
    let f = fixture();
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    let zeros = vec![0; 100_000];
    let record_head = vec![22, 3, 1, 255, 255];
    let noise: Vec<u8> =
        (0..50_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (garbage, is_http) in [(http, true), (zeros, false), (record_head, false), (noise, false)] {
        let mut socket = TcpStream::connect(f.address()).unwrap();
        // It may be closed before all is written.
        let _ = socket.write_all(&garbage);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        if is_http {
            // Whoever forgot the s of https is told.
            let text = String::from_utf8_lossy(&answer);
            assert!(text.starts_with("HTTP/1.1 400 ") && text.ends_with("use https\"}"), "{text}");
        } else {
            assert!(answer.len() < 100, "{} bytes of answer", answer.len());
        }
    }
    f.assert_unharmed();
}

#[test]
fn an_unknown_protocol_is_refused() {
    let f = fixture();
    let mut client = Stranger::connect(f.address(), &[b"h2", b"mooring/99"], None);
    assert!(client.write(b"hello").is_err() || client.read_to_end().0.is_empty());
    // Nobody serves HTTP or requests to join here.
    for alpn in [&b"http/1.1"[..], b"mooring-join/1"] {
        let mut client = Stranger::connect(f.address(), &[alpn], None);
        assert!(client.write(b"hello").is_err() || client.read_to_end().0.is_empty());
    }
    f.assert_unharmed();
}

#[test]
fn bad_frames_of_an_admitted_node_close_its_stream_only() {
    let f = fixture();
    let good = mooring_transport::assembler::encode_joined(&Message::new(&b"hi"[..]));
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let bad = [
        with(0, b"XXXX"),
        with(4, &[77]),
        with(5, &[1]),
        with(6, &u16::MAX.to_le_bytes()),
        with(8, &u32::MAX.to_le_bytes()),
        with(8, &((16_u32 << 20) + 1).to_le_bytes()),
        with(12, &u32::MAX.to_le_bytes()),
    ];
    for (number, frame) in (1..).zip(bad) {
        let mut client = Stranger::node(f.address(), Some(&f.identity_of_two));
        client.hello(TWO, number).unwrap();
        assert!(!client.read_frame().unwrap().is_empty());
        client.write(&good).unwrap();
        f.at_one.wait_messages(TWO, Channel::Data, number as usize);
        client.write(&frame).unwrap();
        let closed = |e: &&Event| matches!(e, Event::Closed(.., s) if s.number == number);
        f.at_one.wait("the close", |events| events.iter().filter(closed).count() == 1);
        assert!(client.read_to_end().0.is_empty());
    }
    f.assert_unharmed();
}

#[test]
fn an_older_stream_never_speaks_after_a_newer_one() {
    let f = fixture();
    let good = mooring_transport::assembler::encode_joined(&Message::new(&b"hi"[..]));
    let open = |number| {
        let mut client = Stranger::node(f.address(), Some(&f.identity_of_two));
        client.hello(TWO, number).unwrap();
        client
    };
    let mut old = open(1);
    assert!(!old.read_frame().unwrap().is_empty());
    old.write(&good).unwrap();
    f.at_one.wait_messages(TWO, Channel::Data, 1);
    let mut new = open(2);
    assert!(!new.read_frame().unwrap().is_empty());
    // The old one was cut before the new one was welcomed.
    let _ = old.write(&good);
    new.write(&good).unwrap();
    f.at_one.wait_messages(TWO, Channel::Data, 2);
    let streams: Vec<_> =
        f.at_one.messages(TWO, Channel::Data).iter().map(|(stream, _)| stream.number).collect();
    assert_eq!(streams, [1, 2]);
    // An older number of the same boot comes too late for good.
    let mut older = open(1);
    assert!(older.read_frame().is_ok_and(|frame| frame.is_empty()) || older.read_frame().is_err());
    new.write(&good).unwrap();
    f.at_one.wait_messages(TWO, Channel::Data, 3);
}

#[test]
fn slow_handshakes_are_cut_off_and_bounded_in_number() {
    let limits = Limits { handshake: Duration::from_secs(1), ..Limits::default() };
    let f = fixture_with(limits, SystemTime::now());
    f.connect();
    let began = Instant::now();
    let mut slow: Vec<_> = (0..40).map(|_| TcpStream::connect(f.address()).unwrap()).collect();
    // A byte now and then doesn't prolong it.
    for byte in [22_u8, 3, 1] {
        for socket in &mut slow {
            let _ = socket.write_all(&[byte]);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // An open stream doesn't notice, and those beyond the limit of one address were closed at once.
    f.assert_unharmed();
    let is_open = |socket: &mut TcpStream, patience| {
        socket.set_read_timeout(Some(patience)).unwrap();
        matches!(socket.read(&mut [0; 64]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    };
    let open = slow.iter_mut().filter_map(|s| is_open(s, Duration::from_millis(5)).then_some(()));
    assert!((1..=16).contains(&open.count()));
    let rest = Duration::from_secs(3);
    assert!(!slow.iter_mut().any(|socket| is_open(socket, rest)));
    assert!(began.elapsed() < Duration::from_secs(3), "it took {:?}", began.elapsed());
    // And afterwards there is room again.
    assert!(Stranger::node(f.address(), Some(&f.identity_of_two)).welcomed(TWO));
}

/// Collects log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn refusals_are_logged_with_the_address_and_a_flood_is_not_logged_line_by_line() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).finish();
    // Each test is a process of its own under nextest; under `cargo test` another may be first.
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        return;
    }
    let f = fixture();
    let mut first = TcpStream::connect(f.address()).unwrap();
    let address = first.local_addr().unwrap().to_string();
    first.write_all(b"rubbish, and enough of it").unwrap();
    let _ = first.read_to_end(&mut Vec::new());
    let mut others = vec![b"other rubbish, as much of it".to_vec(), vec![22, 3, 1, 255, 255, 0]];
    others.resize(300, b"rubbish, and enough of it".to_vec());
    for rubbish in others.iter().rev() {
        let mut socket = TcpStream::connect(f.address()).unwrap();
        let _ = socket.write_all(rubbish);
        let _ = socket.read_to_end(&mut Vec::new());
    }
    // A connection is closed a moment before its refusal is logged.
    let deadline = Instant::now() + support::LONG;
    let text = loop {
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
        if text.contains("suppressed=29") || Instant::now() > deadline {
            break text;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let refused = text.lines().filter(|line| line.contains("refused")).count();
    assert_eq!(text.matches(&address).count(), 1, "{text}");
    assert!((1..=3).contains(&refused), "{text}");
    assert!(text.contains("suppressed=29"), "{text}");
}

/// Answers requests to join by turning them round.
#[derive(Default)]
struct Reverse(AtomicUsize);

impl JoinHandler for Reverse {
    fn join(&self, _: SocketAddr, request: Bytes) -> Bytes {
        self.0.fetch_add(1, Ordering::SeqCst);
        request.iter().rev().copied().collect::<Vec<_>>().into()
    }
}

#[test]
fn joining_works_with_the_right_token_only_and_is_limited() {
    support::show_logs();
    let authority = CertificateAuthority::create().unwrap();
    let node = tls_node(issue(&authority, ONE), ONE, Limits::default());
    let handler = Arc::new(Reverse::default());
    let join = Some(Arc::clone(&handler) as Arc<dyn JoinHandler>);
    node.endpoint
        .start(Services { handler: Recorder::new(), join, http: None, links: None })
        .unwrap();
    let address = node.endpoint.local_addr();
    let token = Token::generate(authority.fingerprint()).unwrap();
    let request: Vec<u8> = (0..(64_u32 << 10)).map(|i| i as u8).collect();
    let answer = join::request(address, &token, &request).unwrap();
    assert!(answer.iter().eq(request.iter().rev()));
    let too_long = join::request(address, &token, &vec![0; (64 << 10) + 1]);
    assert!(matches!(too_long, Err(Error::Frame { .. })));
    let foreign = Token::generate(CertificateAuthority::create().unwrap().fingerprint()).unwrap();
    let refused = join::request(address, &foreign, b"secret");
    assert!(matches!(refused, Err(Error::Handshake { .. })), "{refused:?}");
    assert_eq!(handler.0.load(Ordering::SeqCst), 1);
    let served = (0..30).filter(|_| join::request(address, &token, b"x").is_ok()).count();
    assert!((5..12).contains(&served), "{served} requests in a row");
    // A client without token that sends what is no request.
    let mut client = Stranger::connect(address, &[b"mooring-join/1"], None);
    assert!(client.write(b"not a frame at all").is_err() || client.read_to_end().0.is_empty());
}

#[test]
fn nobody_there_is_an_error_in_time() {
    let token = Token::generate(CertificateAuthority::create().unwrap().fingerprint()).unwrap();
    let listener = std::net::TcpListener::bind(support::loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = join::request(address, &token, b"x");
    assert!(matches!(refused, Err(Error::Connection { .. })), "{refused:?}");
}

/// Answers each connection with the number of client certificates.
struct Http;

impl HttpHandler for Http {
    fn accepted(
        &self,
        mut stream: TcpStream,
        _: SocketAddr,
        accepted: Accepted,
        config: Arc<ServerConfig>,
    ) {
        let mut tls: ServerConnection = match accepted.into_connection(config) {
            Ok(tls) => tls,
            Err((error, _)) => panic!("{error}"),
        };
        let mut request = [0; 4];
        if Stream::new(&mut tls, &mut stream).read_exact(&mut request).is_err() {
            return;
        }
        let count = tls.peer_certificates().map_or(0, <[_]>::len);
        let _ = Stream::new(&mut tls, &mut stream).write_all(&[b'0' + count as u8]);
        tls.send_close_notify();
        let _ = tls.complete_io(&mut stream);
    }
}

#[test]
fn http_connections_are_handed_over_with_or_without_a_certificate_of_the_cluster() {
    support::show_logs();
    let authority = CertificateAuthority::create().unwrap();
    let node = tls_node(issue(&authority, ONE), ONE, Limits::default());
    let http: Option<Arc<dyn HttpHandler>> = Some(Arc::new(Http));
    node.endpoint
        .start(Services { handler: Recorder::new(), join: None, http, links: None })
        .unwrap();
    let address = node.endpoint.local_addr();
    let ask = |alpn: &[&[u8]], identity: Option<&Identity>| {
        let mut client = Stranger::connect(address, alpn, identity);
        client.write(b"GET ").ok();
        client.read_to_end().0
    };
    assert_eq!(ask(&[b"h2", b"http/1.1"], None), b"0");
    assert_eq!(ask(&[], None), b"0");
    let listed = issue(&authority, TWO);
    assert_eq!(ask(&[b"http/1.1"], Some(&listed)), b"1");
    let foreign = issue(&CertificateAuthority::create().unwrap(), TWO);
    assert_eq!(ask(&[b"http/1.1"], Some(&foreign)), b"");
}

#[test]
fn a_shut_down_endpoint_reports_the_end_of_its_streams() {
    let f = fixture();
    f.connect();
    f.assert_unharmed();
    f.two.endpoint.shutdown();
    assert!(!is_connected(&f.at_two.events(), ONE, Channel::Data));
    f.at_one.wait("the close", |events| matches!(events.last(), Some(Event::Closed(TWO, ..))));
    assert_eq!(f.two.endpoint.send(ONE, Channel::Data, Message::default()), Err(SendError::Down));
}
