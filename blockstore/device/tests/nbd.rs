//! What other people's NBD clients do with a device, and what strangers may try.
#![allow(clippy::disallowed_methods, reason = "tests of processes run in real time")]
#![allow(clippy::unwrap_used, reason = "in a test's functions too a panic is the report")]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mooring_device::nbd::{NbdHost, NbdTls};
use mooring_device::{Device, DeviceError, DeviceHost, DeviceKind, IoError};
use support::memory_io::MemoryIo;
use support::{Background, Place, eventually, run, try_run};

const MIB: usize = 1 << 20;
const SOON: Duration = Duration::from_secs(5);

fn host(place: &Place) -> NbdHost {
    NbdHost::new(&place.path("nbd"), Some(place.holder())).expect("a place for sockets")
}

fn attach(place: &Place, bytes: usize) -> (Arc<MemoryIo>, Arc<dyn Device>) {
    let io = Arc::new(MemoryIo::new(bytes));
    let device = host(place).attach("vol", io.clone(), false, b"note".to_vec());
    (io, device.expect("a device"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn socket(place: &Place) -> std::path::PathBuf {
    place.path("nbd/vol.sock")
}

/// What a program says that must fail.
fn refused(program: &str, arguments: &[&str]) -> String {
    let output = try_run(program, arguments);
    assert!(!output.status.success(), "{program} {arguments:?} must be refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Bytes that repeat nowhere near.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * 31) ^ (i >> 9)) as u8).collect()
}

#[test]
fn nbdinfo_is_told_what_there_is() {
    let place = Place::new();
    let (_io, device) = attach(&place, 64 * MIB);
    let uri = device.address();
    assert_eq!(uri, format!("nbd+unix:///vol?socket={}", text(&socket(&place))));
    assert_eq!((device.kind(), device.block_device()), (DeviceKind::NbdSocket, None));
    let told = run("nbdinfo", [&uri]);
    for line in [
        "protocol: newstyle-fixed without TLS, using structured packets",
        "export-size: 67108864 (64M)",
        "base:allocation",
        "is_read_only: false",
        "can_cache: false",
        "can_df: true",
        "can_fast_zero: true",
        "can_flush: true",
        "can_fua: true",
        "can_multi_conn: true",
        "can_trim: true",
        "can_zero: true",
        "block_size_minimum: 1",
        "block_size_preferred: 4096",
        "block_size_maximum: 33554432",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let list = run("nbdinfo", ["--list", &uri]);
    assert!(list.contains("export=\"vol\""), "{list}");
    // The default export is the volume, too; another name is refused, in words.
    let default = format!("nbd+unix:///?socket={}", text(&socket(&place)));
    assert_eq!(run("nbdinfo", ["--size", &default]).trim(), "67108864");
    let other = format!("nbd+unix:///other?socket={}", text(&socket(&place)));
    let why = refused("nbdinfo", &[&other]);
    assert!(why.contains("No such file"), "{why}");
    let map = run("nbdinfo", ["--map", &uri]);
    assert_eq!(map.split_whitespace().collect::<Vec<_>>()[..3], ["0", "67108864", "0"], "{map}");
    device.detach().expect("nobody is connected");
    assert!(!socket(&place).exists());
}

#[test]
fn nbdcopy_and_qemu_img_read_what_they_wrote() {
    let place = Place::new();
    let (io, device) = attach(&place, 40 * MIB);
    let uri = device.address();
    let (from, to) = (place.path("from"), place.path("to"));
    let mut content = pattern(40 * MIB);
    content[8 * MIB..16 * MIB].fill(0);
    std::fs::write(&from, &content).unwrap();
    run("nbdcopy", ["--flush", text(&from), &uri]);
    assert!(io.at(0, 40 * MIB) == content);
    assert!(io.flushes.load(Ordering::SeqCst) > 0, "--flush reaches the volume");
    run("nbdcopy", ["--connections=4", &uri, text(&to)]);
    assert!(std::fs::read(&to).unwrap() == content);
    run("qemu-img", ["compare", "-f", "raw", "-F", "raw", text(&from), &uri]);
    content.reverse();
    std::fs::write(&from, &content).unwrap();
    run("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", text(&from), &uri]);
    assert!(io.at(0, 40 * MIB) == content);
    run("qemu-img", ["compare", "-f", "raw", "-F", "raw", text(&from), &uri]);
    let qcow = place.path("copy.qcow2");
    run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", &uri, text(&qcow)]);
    run("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", text(&qcow), &uri]);
    device.detach().expect("nobody is connected");
}

/// Has qemu-io carry out commands, and fails with what it says if one of them does.
fn qemu_io(uri: &str, commands: &[&str]) -> String {
    let mut arguments = vec!["-f", "raw", "--cache=none"];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(uri);
    let said = run("qemu-io", arguments);
    assert!(!said.contains("failed") && !said.contains("error"), "{said}");
    said
}

#[test]
fn qemu_io_writes_discards_and_zeroes_any_bytes() {
    let place = Place::new();
    let (io, device) = attach(&place, 16 * MIB);
    let uri = device.address();
    let script = [
        "write -P 0x11 0 1M",
        "write -P 0x22 512 512",
        "write -P 0x33 4000 200",
        "write -P 0x44 8191 1",
        "write -f -P 0x55 65537 70001",
        "flush",
        "read -P 0x11 0 512",
        "read -P 0x22 512 512",
        "read -P 0x33 4000 200",
        "read -P 0x11 4200 3991",
        "read -P 0x44 8191 1",
        "read -P 0x55 65537 70001",
        "write -z 1000 9000",
        "read -P 0 1000 9000",
        "read -P 0x11 10000 1",
        "discard 128k 64k",
        "discard 1 1",
        "write -z -u 512k 256k",
        "read -P 0 512k 256k",
        "aio_write -P 0x66 2M 4M",
        "aio_write -P 0x77 6M 4M",
        "aio_flush",
        "read -P 0x66 2M 4M",
        "read -P 0x77 6M 4M",
    ];
    qemu_io(&uri, &script);
    assert_eq!(io.at(8191, 1), [0], "zeroed");
    assert_eq!(io.at(999, 2), [0x22, 0]);
    assert!(io.discarded.load(Ordering::SeqCst) >= 64 << 10);
    assert!(io.zeroed.load(Ordering::SeqCst) >= 256 << 10);
    assert!(device.stats().writes >= 7);
    device.detach().expect("nobody is connected");
}

#[test]
fn fio_verifies_through_its_nbd_engine() {
    let place = Place::new();
    let (_io, device) = attach(&place, 64 * MIB);
    let uri = format!("--uri={}", device.address());
    for bs in ["--bs=4k", "--bs=1536", "--bs=64k"] {
        run(
            "fio",
            [
                "--name=nbd",
                "--ioengine=nbd",
                &uri,
                "--rw=randrw",
                bs,
                "--size=48M",
                "--iodepth=16",
                "--verify=crc32c",
                "--verify_fatal=1",
                "--time_based=0",
                "--io_size=16M",
            ],
        );
    }
    assert!(device.stats().writes > 1000);
}

#[test]
fn a_larger_size_is_told_to_whoever_connects() {
    let place = Place::new();
    let (io, device) = attach(&place, MIB);
    let uri = device.address();
    io.grow(3 * MIB);
    assert_eq!(device.grow().unwrap(), 3 * MIB as u64);
    assert_eq!(run("nbdinfo", ["--size", &uri]).trim(), "3145728");
    qemu_io(&uri, &["write -P 1 2M 1M"]);
}

#[test]
fn an_error_of_the_volume_reaches_the_client_and_others_go_on() {
    let place = Place::new();
    let (io, device) = attach(&place, MIB);
    let uri = device.address();
    *io.refuse.lock() = Some(IoError::NoSpace);
    let output = try_run("qemu-io", ["-f", "raw", "-c", "write 0 4k", &uri]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("No space left"), "{said}");
    *io.refuse.lock() = None;
    qemu_io(&uri, &["write 0 4k"]);
}

// -- by hand ---------------------------------------------------------------------------------------

/// A connection that has got through a handshake with EXPORT_NAME: simple replies.
fn connect(place: &Place) -> UnixStream {
    let mut stream = UnixStream::connect(socket(place)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).unwrap();
    stream.write_all(&3_u32.to_be_bytes()).unwrap();
    stream.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\0").unwrap();
    let mut told = [0; 10];
    stream.read_exact(&mut told).unwrap();
    stream
}

fn request(command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend(0_u16.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// The error and cookie of the next simple reply.
fn reply(stream: &mut UnixStream) -> (u32, u64) {
    let mut bytes = [0; 16];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[..4], 0x6744_6698_u32.to_be_bytes());
    let error = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
    (error, u64::from_be_bytes(bytes[8..].try_into().unwrap()))
}

/// Whether the other side has hung up.
fn hung_up(stream: &mut UnixStream) -> bool {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn garbage_and_oversized_requests_cost_nobody_else_anything() {
    let place = Place::new();
    let (_io, device) = attach(&place, 8 * MIB);
    let mut busy = Background::start("qemu-io", {
        let mut arguments = vec!["-f".to_owned(), "raw".to_owned()];
        for i in 0..200 {
            arguments.extend(["-c".to_owned(), format!("write -P {} {}k 64k", i % 255, i * 8)]);
            arguments.extend(["-c".to_owned(), "sleep 5".to_owned()]);
        }
        arguments.push(device.address());
        arguments
    });
    // No handshake at all, of one kind or the other.
    for garbage in
        [&b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"[..], &[0xff; 4096], b"NBDMAGICIHAVEOPT"]
    {
        let mut stream = UnixStream::connect(socket(&place)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let _ = stream.write_all(garbage);
        assert!(hung_up(&mut stream));
    }
    // An option that claims 4 GiB: refused, and the rest of it swallowed.
    let mut stream = UnixStream::connect(socket(&place)).unwrap();
    stream.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x07\xff\xff\xff\xff").unwrap();
    stream.write_all(&vec![1; MIB]).unwrap();
    drop(stream);
    // A write that claims too much: refused, once it is through; and the connection goes on.
    let mut stream = connect(&place);
    stream.write_all(&request(1, 7, 0, 33 << 20)).unwrap();
    stream.write_all(&vec![1; 33 << 20]).unwrap();
    assert_eq!(reply(&mut stream), (28, 7));
    for (command, offset, length, error) in [
        (0, 8 * MIB as u64, 1, 22),
        (6, u64::MAX, 9, 28),
        (5, 0, 1, 22),
        (77, 0, 0, 22),
        (0, 0, u32::MAX, 22),
    ] {
        stream.write_all(&request(command, 8, offset, length)).unwrap();
        assert_eq!(reply(&mut stream), (error, 8), "{command} {offset} {length}");
    }
    stream.write_all(b"and now something else altogether").unwrap();
    assert!(hung_up(&mut stream));
    // Gone in the middle of a write, and of a header.
    for cut in [10, 28, 1000] {
        let mut stream = connect(&place);
        let mut bytes = request(1, 1, 0, 4096);
        bytes.resize(28 + 4096, 9);
        stream.write_all(&bytes[..cut]).unwrap();
    }
    let status = busy.wait(Duration::from_secs(30)).expect("the honest client ends");
    assert!(status.success());
    assert!(!busy.said().contains("failed"));
    eventually(SOON, || (device.stats().in_flight == 0).then_some(()))
        .expect("nothing stays behind");
    device.detach().expect("nobody is connected any more");
}

#[test]
fn a_client_that_reads_nothing_keeps_little_and_holds_up_nobody() {
    let place = Place::new();
    let (_io, device) = attach(&place, 64 * MIB);
    let mut greedy = connect(&place);
    greedy.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let before = resident();
    // 16 GiB of answers that nobody takes.
    for cookie in 0..512 {
        if greedy.write_all(&request(0, cookie, 0, 32 << 20)).is_err() {
            break;
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    let kept = resident().saturating_sub(before);
    assert!(kept < 150 << 20, "{} MiB are kept for it", kept >> 20);
    qemu_io(&device.address(), &["write -P 3 0 1M", "read -P 3 0 1M"]);
    // It is served on, as soon as it reads.
    assert_eq!(reply(&mut greedy), (0, 0));
    let refused = device.detach().expect_err("it is connected");
    let DeviceError::Busy { users, .. } = refused else { panic!("{refused}") };
    assert!(users[0].to_string().contains(&format!("process {}", std::process::id())), "{users:?}");
    drop(greedy);
    device.detach().expect("it has gone");
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn answers_come_in_any_order_and_a_failed_device_answers_at_once() {
    let place = Place::new();
    let (io, device) = attach(&place, MIB);
    let mut stream = connect(&place);
    io.stuck.store(true, Ordering::SeqCst);
    for cookie in 1..=3 {
        stream.write_all(&request(0, cookie, 0, 512)).unwrap();
    }
    eventually(SOON, || (io.waiting.lock().len() == 3).then_some(())).expect("three wait");
    // The last first.
    let last = io.waiting.lock().pop().unwrap();
    last();
    assert_eq!(reply(&mut stream), (0, 3));
    stream.read_exact(&mut [0; 512]).unwrap();
    let began = Instant::now();
    device.fail().unwrap();
    let mut answered = [reply(&mut stream), reply(&mut stream)];
    answered.sort();
    assert_eq!(answered, [(5, 1), (5, 2)]);
    assert!(began.elapsed() < Duration::from_secs(1));
    // What comes later fails, too; what the volume answers late goes nowhere.
    stream.write_all(&request(3, 4, 0, 0)).unwrap();
    assert_eq!(reply(&mut stream), (5, 4));
    io.go_on();
    assert!(!device.is_serving());
    device.detach_forced().unwrap();
    assert!(hung_up(&mut stream));
    assert!(!socket(&place).exists());
}

#[test]
fn a_client_that_says_goodbye_has_its_answers_first() {
    let place = Place::new();
    let (io, _device) = attach(&place, MIB);
    let mut stream = connect(&place);
    io.stuck.store(true, Ordering::SeqCst);
    stream.write_all(&request(3, 1, 0, 0)).unwrap();
    stream.write_all(&request(2, 2, 0, 0)).unwrap();
    eventually(SOON, || (io.waiting.lock().len() == 1).then_some(())).expect("the flush waits");
    io.go_on();
    assert_eq!(reply(&mut stream), (0, 1));
    assert!(hung_up(&mut stream));
}

#[test]
fn clients_wait_for_the_next_daemon_at_the_same_socket() {
    let place = Place::new();
    let (io, device) = attach(&place, MIB);
    // As when the daemon dies: its threads and descriptors go, nothing is detached.
    drop(device);
    let uri = format!("nbd+unix:///vol?socket={}", text(&socket(&place)));
    let mut waiting = Background::start("nbdinfo", ["--size", &uri]);
    assert!(waiting.wait(Duration::from_millis(700)).is_none(), "it waits to be taken");
    let next = host(&place);
    assert_eq!(next.held().unwrap(), [("vol".to_owned(), b"note".to_vec())]);
    assert_eq!(place.host().held().unwrap(), [], "it is no loop device");
    let device = next.resume("vol", io).expect("it is taken back");
    assert!(waiting.wait(SOON).expect("it is served").success());
    qemu_io(&uri, &["write 0 4k"]);
    let twice = next.attach("vol", Arc::new(MemoryIo::new(MIB)), false, Vec::new());
    assert!(matches!(twice, Err(DeviceError::AlreadyAttached { .. })));
    device.detach().unwrap();
    assert_eq!(host(&place).held().unwrap(), []);
    // What a crash has left, and no holder knows, is swept.
    std::fs::write(place.path("nbd/stale.sock"), b"").unwrap();
    assert_eq!(next.sweep().unwrap().cleaned, ["stale"]);
}

#[test]
fn a_device_whose_holder_has_died_is_given_to_the_next() {
    let place = Place::new();
    let io = Arc::new(MemoryIo::new(MIB));
    let old = place.holder();
    let first = NbdHost::new(&place.path("nbd"), Some(Arc::clone(&old))).unwrap();
    let device = first.attach("vol", io.clone(), false, b"note".to_vec()).unwrap();
    assert!(!device.keep_with(&old).unwrap(), "it has it");
    old.stop(true).unwrap();
    old.wait_until_gone().unwrap();
    qemu_io(&device.address(), &["write 0 4k"]);
    let next = place.holder();
    first.change_holder(Arc::clone(&next));
    assert!(device.keep_with(&next).unwrap());
    drop((device, first, next));
    let later = host(&place);
    assert_eq!(later.held().unwrap(), [("vol".to_owned(), b"note".to_vec())]);
    let device = later.resume("vol", io).unwrap();
    qemu_io(&device.address(), &["write 0 4k"]);
    device.detach().unwrap();
}

// -- TCP -------------------------------------------------------------------------------------------

/// Makes an authority, a server's certificate for localhost and a client's, as libnbd and qemu want
/// them in a directory.
fn certificates(directory: &Path) -> NbdTls {
    std::fs::create_dir_all(directory).unwrap();
    let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "the tests' authority");
    parameters.key_usages =
        vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::DigitalSignature];
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    write("ca-cert.pem", authority.pem());
    for (name, usage) in [
        ("server", rcgen::ExtendedKeyUsagePurpose::ServerAuth),
        ("client", rcgen::ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        parameters.extended_key_usages = vec![usage];
        parameters.key_usages =
            vec![rcgen::KeyUsagePurpose::DigitalSignature, rcgen::KeyUsagePurpose::KeyEncipherment];
        let certificate = parameters.signed_by(&key, &issuer).unwrap();
        write(&format!("{name}-cert.pem"), certificate.pem());
        write(&format!("{name}-key.pem"), key.serialize_pem());
    }
    NbdTls {
        certificate: directory.join("server-cert.pem"),
        key: directory.join("server-key.pem"),
        authority: directory.join("ca-cert.pem"),
    }
}

#[test]
fn over_tcp_only_certified_clients_get_past_the_handshake() {
    let place = Place::new();
    let ours = place.path("ours");
    let tls = certificates(&ours).load().expect("certificates that fit");
    let host = host(&place);
    let (io, other) = (Arc::new(MemoryIo::new(8 * MIB)), Arc::new(MemoryIo::new(MIB)));
    let device = host.attach("vol", io.clone(), false, Vec::new()).unwrap();
    let _other = host.attach("other", other, true, Vec::new()).unwrap();
    let listening = host.listen("127.0.0.1:0".parse().unwrap(), Some(tls)).expect("a port");
    let port = listening.address().port();
    let uri = |name: &str, certificates: &Path| {
        format!("nbds://localhost:{port}/{name}?tls-certificates={}", text(certificates))
    };
    let told = run("nbdinfo", [&uri("vol", &ours)]);
    assert!(told.contains("with TLS") && told.contains("export-size: 8388608"), "{told}");
    assert!(run("nbdinfo", [&uri("other", &ours)]).contains("is_read_only: true"));
    let list = run("nbdinfo", ["--list", &uri("", &ours)]);
    assert!(list.contains("\"vol\"") && list.contains("\"other\""), "{list}");
    let (from, to) = (place.path("from"), place.path("to"));
    let content = pattern(8 * MIB);
    std::fs::write(&from, &content).unwrap();
    run("nbdcopy", [text(&from), &uri("vol", &ours)]);
    assert!(io.at(0, 8 * MIB) == content);
    run("nbdcopy", [&uri("vol", &ours), text(&to)]);
    assert!(std::fs::read(&to).unwrap() == content);
    // In the clear, with another authority's certificate, with none: not a byte.
    let plain = refused("nbdinfo", &[&format!("nbd://localhost:{port}/vol")]);
    assert!(plain.contains("server replied with error"), "{plain}");
    let theirs = place.path("theirs");
    certificates(&theirs);
    // They trust our server, and show what their own authority has signed.
    std::fs::copy(ours.join("ca-cert.pem"), theirs.join("ca-cert.pem")).unwrap();
    refused("nbdinfo", &[&uri("vol", &theirs)]);
    std::fs::remove_file(theirs.join("client-cert.pem")).unwrap();
    std::fs::remove_file(theirs.join("client-key.pem")).unwrap();
    refused("nbdinfo", &[&uri("vol", &theirs)]);
    listening.stop();
    refused("nbdinfo", &[&uri("vol", &ours)]);
    device.detach().expect("nobody is connected");
}

#[test]
fn qemu_speaks_tls_to_it() {
    let place = Place::new();
    let ours = place.path("ours");
    let tls = certificates(&ours).load().unwrap();
    let host = host(&place);
    let _device = host.attach("vol", Arc::new(MemoryIo::new(8 * MIB)), false, Vec::new()).unwrap();
    let listening = host.listen("127.0.0.1:0".parse().unwrap(), Some(tls)).unwrap();
    let credentials =
        format!("tls-creds-x509,id=tls0,dir={},endpoint=client,verify-peer=on", text(&ours));
    let image = format!(
        "driver=nbd,host=localhost,port={},export=vol,tls-creds=tls0",
        listening.address().port()
    );
    let output = Command::new("qemu-io")
        .args(["--object", &credentials, "--image-opts", &image])
        .args(["-c", "write -P 9 1000 3M", "-c", "read -P 9 1000 3M"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains("failed"), "{said}");
}
