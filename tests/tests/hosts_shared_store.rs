//! Shared volumes beneath their file system: a process beside the daemon does I/O on several slices over
//! its links, through the loss of its daemon and of primaries, and is fenced.
//!
//! The process is this program once more, in a host: the test `process`, which is none.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use std::env;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use blockstore::{Client, Coordinator, IoError, IoPart, SharedVolume, VolumeBlock, VolumeRange};
use bytes::Bytes;
use mooring_sharedfs_core::SessionId;
use mooring_sharedfs_core::coordinator::{
    Claim, RenewNumber, ToClient, ToCoordinator, read_letter, write_letters,
};
use mooring_sharedfs_core::format::SessionRow;
use mooring_sharedfs_core::sessions::EndReason;
use mooring_terms::{AttachmentEpoch, BLOCK_SIZE, VolumeId};
use mooring_tests::hosts::{
    Cluster, FAILOVER, Process, Result, Volume, on_cluster, seconds, wait_until,
};
use nix::sys::signal::Signal;

const DOOR: &str = "/run/mooring/links.sock";
/// Blocks of a slice, and slices.
const SLICE_BLOCKS: u64 = (256 << 20) / BLOCK_SIZE as u64;
const SLICES: u64 = 4;
/// Far from where the file system begins to put data.
const FIRST: u64 = SLICE_BLOCKS / 2;
/// How often a session is renewed.
const RENEW: Duration = Duration::from_millis(300);

/// A mount's process, but for the mount: a session that is kept, and nothing in it.
#[derive(Default)]
struct Session {
    client: Mutex<Option<Arc<Client>>>,
    begun: Mutex<Option<SessionId>>,
    ended: Mutex<Option<EndReason>>,
    tokens: AtomicU64,
}

impl Session {
    fn say(&self, message: ToCoordinator) {
        let client = self.client.lock().unwrap().clone();
        for letter in write_letters(&[message]) {
            // Where the coordinator is lost, it is met again.
            let _ = client.as_ref().map(|client| client.send(letter.into()));
        }
    }

    fn introduce(&self) {
        let Some(client) = self.client.lock().unwrap().clone() else { return };
        let session = *self.begun.lock().unwrap();
        match session {
            Some(session) => self.say(ToCoordinator::Hello(session)),
            None => {
                let row = SessionRow { node: client.node().0, mount: client.id(), slots: 1 };
                let token = self.tokens.fetch_add(1, Ordering::Relaxed) + 1;
                self.say(ToCoordinator::Begin(token, row));
            }
        }
    }
}

impl Coordinator for Session {
    fn met(&self, _epoch: AttachmentEpoch) {
        self.introduce();
    }

    fn letter(&self, letter: Bytes) {
        for message in read_letter::<ToClient>(&letter).unwrap() {
            match message {
                ToClient::Begun(_, session) => *self.begun.lock().unwrap() = Some(session),
                ToClient::Reclaim => {
                    let session = self.begun.lock().unwrap().unwrap();
                    let done = Claim::Done;
                    self.say(ToCoordinator::Reclaim(session, done));
                }
                ToClient::Ended(reason) => *self.ended.lock().unwrap() = Some(reason),
                _ => {}
            }
        }
    }

    fn lost(&self) {}
}

fn write(volume: &SharedVolume, block: u64, byte: u8) -> std::result::Result<(), IoError> {
    let (done, answer) = mpsc::channel();
    let data = Bytes::from(vec![byte; BLOCK_SIZE]);
    volume.write(
        VolumeBlock(block),
        data,
        Box::new(move |result| {
            let _ = done.send(result.map(drop));
        }),
    );
    answer.recv().unwrap()
}

fn read(volume: &SharedVolume, block: u64) -> std::result::Result<u8, IoError> {
    let (done, answer) = mpsc::channel();
    let range = VolumeRange { first: VolumeBlock(block), count: 1 };
    volume.read(
        range,
        Box::new(move |result| {
            let _ = done.send(result);
        }),
    );
    Ok(match answer.recv().unwrap()?.as_slice() {
        [IoPart::Data(data)] => {
            assert_eq!(data.first_corrupt(), None);
            data.bytes()[0]
        }
        _ => 0,
    })
}

/// How the I/O on one slice goes.
struct Progress {
    done: AtomicU64,
    /// The longest that one took, in milliseconds.
    longest: AtomicU64,
    /// When the one under way began.
    begun: Mutex<Instant>,
}

impl Progress {
    fn new() -> Arc<Self> {
        let (done, longest) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { done, longest, begun: Mutex::new(Instant::now()) })
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// The one that is not answered counts.
    fn longest(&self) -> u64 {
        let since = self.begun.lock().unwrap().elapsed();
        self.longest.load(Ordering::Relaxed).max(u64::try_from(since.as_millis()).unwrap())
    }
}

/// Writes and reads its own blocks of a slice until there is an error.
fn use_slice(volume: &SharedVolume, slice: u64, progress: &Progress) -> IoError {
    let first = SLICE_BLOCKS * slice + FIRST;
    for (round, block) in (1_u64..).zip((0..64).cycle()) {
        let (block, byte) = (first + block, (round / 64 % 250 + 1) as u8);
        let begun = Instant::now();
        *progress.begun.lock().unwrap() = begun;
        let answer = write(volume, block, byte).and_then(|()| read(volume, block));
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap();
        match answer {
            Ok(found) => assert_eq!(found, byte, "block {block}"),
            Err(error) => return error,
        }
        progress.longest.fetch_max(took, Ordering::Relaxed);
        progress.done.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(5));
    }
    unreachable!("rounds don't end")
}

/// See the module. Prints a line whenever something has happened.
#[test]
#[ignore = "run by the others, in a host"]
fn process() {
    let Ok(volume) = env::var("SHARED_VOLUME") else { return };
    let session = Arc::new(Session::default());
    let client = Client::new(Path::new(DOOR), VolumeId(volume.parse().unwrap()), session.clone());
    let client = client.unwrap();
    *session.client.lock().unwrap() = Some(Arc::clone(&client));
    session.introduce();
    let begun = Instant::now();
    let id = loop {
        assert!(begun.elapsed() < Duration::from_secs(20), "no session");
        if let Some(id) = *session.begun.lock().unwrap() {
            break id;
        }
        sleep(Duration::from_millis(10));
    };
    let volume = Arc::new(client.open(mooring_terms::SessionId(id.0)).unwrap());
    let slices: Vec<_> = (0..SLICES).map(|_| Progress::new()).collect();
    let users: Vec<_> = (0..)
        .zip(slices.clone())
        .map(|(slice, progress)| {
            let volume = volume.clone();
            thread::spawn(move || use_slice(&volume, slice, &progress))
        })
        .collect();
    let done = || slices.iter().map(|slice| slice.done()).sum::<u64>();
    println!("session {}", id.0);
    for number in 0.. {
        sleep(RENEW);
        session.say(ToCoordinator::Renew(id, RenewNumber(number)));
        let fewest = slices.iter().map(|slice| slice.done()).min().unwrap();
        let longest = slices.iter().map(|slice| slice.longest()).max().unwrap();
        println!("done {fewest} longest {longest}");
        let ended = *session.ended.lock().unwrap();
        if let Some(reason) = ended {
            let before = done();
            let told = Instant::now();
            volume.close();
            let errors: Vec<IoError> = users.into_iter().map(|user| user.join().unwrap()).collect();
            let since = done() - before;
            println!(
                "ended {reason:?} {errors:?} served {since} took {}",
                told.elapsed().as_millis()
            );
            return;
        }
        if users.iter().any(thread::JoinHandle::is_finished) {
            let errors = users.into_iter().filter(thread::JoinHandle::is_finished);
            let errors: Vec<_> = errors.map(thread::JoinHandle::join).collect();
            println!("failed {errors:?}");
            return;
        }
    }
}

/// A process on a host, doing I/O.
struct User {
    process: Process,
}

impl User {
    fn start(volume: &Volume, host: usize) -> Result<Self> {
        let id = volume.inspect(1)?["volume"]["id"].as_u64().unwrap();
        let program = env::current_exe().unwrap();
        let command = format!(
            "SHARED_VOLUME={id} exec {} --exact process --ignored --nocapture",
            program.display()
        );
        let user = Self { process: volume.cluster()[host].spawn(command)? };
        user.goes_on(20)?;
        Ok(user)
    }

    /// What the last line that begins so says behind it.
    fn last(&self, beginning: &str) -> Option<String> {
        let printed = self.process.printed();
        let line = printed.lines().rev().find_map(|line| line.strip_prefix(beginning));
        line.map(str::to_owned)
    }

    /// I/Os done in the slice with the fewest, and the longest of all in milliseconds.
    fn done(&self) -> (u64, u64) {
        let Some(line) = self.last("done ") else { return (0, 0) };
        let (done, longest) = line.split_once(" longest ").unwrap();
        (done.parse().unwrap(), longest.parse().unwrap())
    }

    /// So many more I/Os succeed in every slice.
    fn goes_on(&self, count: u64) -> Result<()> {
        let (before, _) = self.done();
        wait_until(seconds(30), "the process does I/O", || {
            assert!(self.process.is_running(), "{}", self.process.printed());
            Ok(self.done().0 > before + count)
        })
    }

    /// Nothing has failed, and nothing took longer than that.
    fn is_well(&self, what: &str, at_most: Duration) {
        let (done, longest) = self.done();
        println!("{what}: {done} I/Os a slice, the longest took {longest} ms");
        assert!(self.last("failed ").is_none(), "{}", self.process.printed());
        assert!(Duration::from_millis(longest) <= at_most, "{what}: stalled {longest} ms");
    }
}

fn create<'a>(cluster: &'a Cluster<'a>) -> Result<Volume<'a>> {
    let volume = cluster.create("home --shared --size 1G --slice-size 256M --replicas 3")?;
    volume.wait_in_sync(3, 1)?;
    Ok(volume)
}

/// The host of a slice's primary.
fn primary(volume: &Volume, slice: usize, seen_from: usize) -> Result<usize> {
    let told = volume.inspect(seen_from)?;
    let name = told["slices"][slice]["primary"].as_str().unwrap_or_default().to_owned();
    Ok(name.trim_start_matches("host").parse().unwrap_or(0))
}

#[test]
fn process_outlives_a_kill_of_its_own_daemon() {
    on_cluster(3, |cluster| {
        let volume = create(cluster)?;
        // Not where the coordinator is: that is another test's.
        let host = cluster.other_than(&[volume.primary(1)?]);
        let user = User::start(&volume, host)?;
        for _ in 0..2 {
            cluster[host].kill_mountd()?;
            cluster[host].restart_mountd()?;
            user.goes_on(50)?;
            volume.wait_in_sync(3, host)?;
        }
        user.is_well("kill -9 of the own daemon", FAILOVER);
        Ok(())
    });
}

#[test]
fn process_goes_on_when_a_primary_or_its_coordinator_is_lost() {
    on_cluster(3, |cluster| {
        let volume = create(cluster)?;
        let coordinator = volume.primary(1)?;
        let host = cluster.other_than(&[coordinator]);
        let user = User::start(&volume, host)?;
        let other = (0..4).map(|slice| primary(&volume, slice, 1)).collect::<Result<Vec<_>>>()?;
        println!("primaries: {other:?}, process on host{host}");
        cluster[coordinator].power_cut()?;
        user.goes_on(100)?;
        user.is_well("loss of the coordinator's node", FAILOVER);
        Ok(())
    });
}

#[test]
fn fenced_session_gets_errors_at_once_and_is_served_nowhere() {
    on_cluster(3, |cluster| {
        let volume = create(cluster)?;
        let host = cluster.other_than(&[volume.primary(1)?]);
        let (user, other) = (User::start(&volume, host)?, User::start(&volume, host)?);
        // For longer than its lease: the coordinator can't tell it from a dead one.
        user.process.signal(Signal::SIGSTOP);
        sleep(seconds(4));
        user.process.signal(Signal::SIGCONT);
        wait_until(seconds(10), "the session is over", || Ok(user.last("ended ").is_some()))?;
        let told = user.last("ended ").unwrap();
        println!("{told}");
        assert!(told.contains("[Closed, Closed, Closed, Closed]"), "{told}");
        let took: u64 = told.rsplit_once(' ').unwrap().1.parse().unwrap();
        assert!(took < 500, "{told}");
        other.goes_on(50)?;
        other.is_well("the other process", FAILOVER);
        Ok(())
    });
}
