//! The hosts: a mount's process with the real client core, the kernel beside it, and its programs.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mooring_sharedfs_client::{
    Client, Command, Event, HandleId, InvalidationNumber, IoNumber, KernelId, KernelOperation,
    KernelRequest, Options, StreamNumber, Turn,
};
use mooring_sharedfs_core::coordinator::{Answer, Operation, Reply, ToClient, ToCoordinator};
use mooring_sharedfs_core::{BlockAddress, Caller, FileBlock, FsError, Ino, Timestamp};
use mooring_terms::Time;

use super::kernel::Kernel;
use super::programs::Program;
use super::volume::{SLICE_BLOCKS, Writer};
use super::{Blocks, Happening, Sim};
use crate::sim::CoverageKind as Kind;

/// A host with one mount.
pub struct Host {
    /// Which mount: each that a host ever had has a number.
    pub mount: u64,
    pub client: Client,
    pub kernel: Kernel,
    pub programs: Vec<Program>,
    pub requests: u64,
    pub asked: BTreeMap<KernelId, usize>,
    /// Pages that are being written back.
    pub written_back: BTreeMap<KernelId, (Ino, FileBlock)>,
    /// Streams that were opened; the open one, and to which coordinator.
    stream: u64,
    pub connected: Option<(u64, u64)>,
    dialing: bool,
    pub cut_until: Time,
    pub stopped_until: Time,
    pub late_until: Time,
    held: Vec<Event>,
    tick: Option<Time>,
    /// When the last message in each direction arrives.
    last: [Time; 2],
}

impl Sim {
    fn new_client(&self, mount: u64) -> Client {
        Client::new(Options {
            node: mount,
            mount,
            slice_blocks: SLICE_BLOCKS,
            epoch: self.plan.epoch,
            alone: self.plan.alone,
            dirty_max: 64 << 10,
            pages_max: 128 << 10,
            leases_max: 12,
            #[cfg(feature = "mutations")]
            mutation: self.plan.bugs.client,
            ..Options::default()
        })
    }

    /// A host mounts, for the first time or again.
    pub(super) fn mount(&mut self, host: u32) {
        self.last_mount += 1;
        let mount = self.last_mount;
        let left = if self.queue.now() < self.plan.healed { u32::MAX } else { 0 };
        let programs = (0..self.plan.programs).map(|_| Program::new(left)).collect();
        let (stream, cut_until) =
            self.hosts.get(&host).map_or((0, Time::ZERO), |of| (of.stream, of.cut_until));
        let of = Host {
            mount,
            client: self.new_client(mount),
            kernel: Kernel::default(),
            programs,
            requests: 0,
            asked: BTreeMap::new(),
            written_back: BTreeMap::new(),
            stream,
            connected: None,
            dialing: false,
            cut_until,
            stopped_until: Time::ZERO,
            late_until: Time::ZERO,
            held: Vec::new(),
            tick: None,
            last: [Time::ZERO; 2],
        };
        self.hosts.insert(host, of);
        self.dial(host);
        for at in 0..self.plan.programs {
            let delay = self.prng.micros(0, 50_000);
            self.queue.after(delay, Happening::Work(host, mount, at));
        }
    }

    /// A mount's process is gone: nobody knows what became of what its programs had asked.
    pub(super) fn kill(&mut self, host: u32) {
        let Some(of) = self.hosts.get_mut(&host) else { return };
        let calls: Vec<u64> =
            of.programs.iter().filter_map(|program| program.call.map(|(_, id, _)| id)).collect();
        of.programs.clear();
        of.connected = None;
        for call in calls {
            self.unknown(call);
        }
    }

    pub(super) fn dial(&mut self, host: u32) {
        let delay = self.prng.millis(1, 40);
        let now = self.queue.now();
        let Some(of) = self.hosts.get_mut(&host) else { return };
        if of.dialing {
            return;
        }
        of.dialing = true;
        let at = (now + delay).max(of.cut_until);
        self.queue.at(at, Happening::Dialed(host, of.mount));
    }

    pub(super) fn dialed(&mut self, host: u32) {
        let now = self.queue.now();
        let life = self.server.life;
        let up = self.server.coordinator.is_some();
        let Some(of) = self.hosts.get_mut(&host) else { return };
        of.dialing = false;
        if !up || now < of.cut_until || of.client.ended().is_some() {
            if of.client.ended().is_none() {
                self.dial(host);
            }
            return;
        }
        of.stream += 1;
        of.connected = Some((of.stream, life));
        let stream = StreamNumber(of.stream);
        self.host_event(host, Event::Connected(stream));
    }

    pub(super) fn disconnect(&mut self, host: u32) {
        let Some(of) = self.hosts.get_mut(&host) else { return };
        if let Some((stream, _)) = of.connected.take() {
            self.host_event(host, Event::Disconnected(StreamNumber(stream)));
            self.dial(host);
        }
    }

    /// An event for a mount's process, which may be stopped.
    pub(super) fn host_event(&mut self, host: u32, event: Event) {
        let now = self.queue.now();
        let Some(of) = self.hosts.get_mut(&host).filter(|of| !of.programs.is_empty()) else {
            return;
        };
        if now < of.stopped_until {
            of.held.push(event);
            return;
        }
        let date = Timestamp { seconds: now.0.as_secs() as i64, nanoseconds: now.0.subsec_nanos() };
        let mut out = Vec::new();
        of.client.handle(&mut Turn { now, date, out: &mut out }, event);
        of.client.check_invariants();
        self.run_host(host, out);
        self.schedule_tick(host);
    }

    pub(super) fn go_on(&mut self, host: u32) {
        let timer_first = self.prng.percent(50);
        let Some(of) = self.hosts.get_mut(&host) else { return };
        let held = std::mem::take(&mut of.held);
        if timer_first {
            // Its threads go on in any order.
            self.host_event(host, Event::Tick);
        }
        for event in held {
            self.host_event(host, event);
        }
        self.host_event(host, Event::Tick);
    }

    fn schedule_tick(&mut self, host: u32) {
        let now = self.queue.now();
        let Some(of) = self.hosts.get_mut(&host) else { return };
        if let Some(at) = of.client.next_tick()
            && of.tick.is_none_or(|before| at < before || before <= now)
        {
            of.tick = Some(at);
            self.queue.at(at, Happening::Host(host, of.mount, Box::new(Event::Tick)));
        }
    }

    fn run_host(&mut self, host: u32, out: Vec<Command>) {
        let mount = self.hosts[&host].mount;
        for command in out {
            match command {
                Command::Answer(id, reply) => self.replied(host, id, reply),
                Command::Send(stream, message) => self.send_to_server(host, stream.0, message),
                Command::Reconnect => {
                    self.coverage.count(Kind::Situation, "a stream is given up");
                    if let Some(of) = self.hosts.get_mut(&host) {
                        of.connected = None;
                    }
                    self.dial(host);
                }
                Command::ReadBlocks(io, blocks) => {
                    let (at, delay) = self.way(blocks.iter().copied());
                    self.queue.at(at, Happening::HostRead(host, mount, io, blocks, delay));
                }
                Command::WriteBlocks(io, blocks) => {
                    let blocks: Blocks = blocks.iter().flat_map(each_block).collect();
                    let (at, delay) = self.way(blocks.iter().map(|block| block.0));
                    let session = self.hosts[&host].client.session();
                    let who = Writer::Session(session.unwrap_or_default());
                    let happening = Happening::HostWrite(host, mount, who, io, blocks, delay);
                    self.queue.at(at, happening);
                }
                Command::Invalidate(number, what) => self.invalidate(host, number, what),
                Command::Ended(reason) => {
                    self.coverage.count(Kind::Situation, "a mount learns that it is over");
                    let now = self.queue.now();
                    self.trace.line(now, format_args!("mount {mount} is over: {reason:?}"));
                    let after = self.prng.millis(10, 300);
                    self.queue.after(after, Happening::Remount(host, mount));
                }
                Command::Unmounted => {}
            }
        }
    }

    fn invalidate(
        &mut self,
        host: u32,
        number: InvalidationNumber,
        what: mooring_sharedfs_client::Invalidation,
    ) {
        self.coverage.count(Kind::Situation, "the kernel's caches are taken back");
        let Some(of) = self.hosts.get_mut(&host) else { return };
        if what.names {
            of.kernel.raise_epoch();
        }
        of.kernel.stale_attributes(what.ino);
        if what.pages {
            of.kernel.drop_pages(what.ino);
            if of.kernel.is_busy(what.ino) {
                of.kernel.waiting.push((number, what.ino));
                self.coverage.count(Kind::Situation, "an invalidation waits for a page");
                if of.kernel.is_dirty(what.ino) {
                    self.coverage.count(Kind::Situation, "an invalidation writes dirty pages");
                    self.write_back(host, what.ino);
                }
                return;
            }
        }
        let mount = of.mount;
        let delay = self.prng.micros(2, 200);
        let event = Box::new(Event::Invalidated(number));
        self.queue.after(delay, Happening::Host(host, mount, event));
    }

    /// Invalidations whose pages are read, or written, by now.
    pub(super) fn end_invalidations(&mut self, host: u32) {
        let Some(of) = self.hosts.get_mut(&host) else { return };
        let mount = of.mount;
        for (number, ino) in of.kernel.ready() {
            of.kernel.drop_pages(ino);
            let event = Box::new(Event::Invalidated(number));
            self.queue.after(Duration::from_micros(5), Happening::Host(host, mount, event));
        }
    }

    fn send_to_server(&mut self, host: u32, stream: u64, message: ToCoordinator) {
        let now = self.queue.now();
        let delay = self.prng.micros(20, 400);
        let Some(of) = self.hosts.get_mut(&host) else { return };
        let Some((_, life)) = of.connected.filter(|(open, _)| *open == stream) else { return };
        if let ToCoordinator::Request(request) = &message
            && let Operation::Batch { .. } = request.operation
        {
            self.coverage.count(Kind::Situation, "a batch of what was done by a host alone");
        }
        let late = if now < of.late_until { Duration::from_millis(400) } else { Duration::ZERO };
        let at = (now.max(of.cut_until) + delay + late).max(of.last[0]);
        of.last[0] = at;
        self.queue.at(at, Happening::ToServer(host, stream, life, Box::new(message)));
    }

    pub(super) fn send_to_host(&mut self, host: u32, stream: u64, message: ToClient) {
        let now = self.queue.now();
        let delay = self.prng.micros(20, 400);
        let Some(of) = self.hosts.get_mut(&host) else { return };
        let late = if now < of.late_until { Duration::from_millis(600) } else { Duration::ZERO };
        let at = (now.max(of.cut_until) + delay + late).max(of.last[1]);
        of.last[1] = at;
        let mount = of.mount;
        self.queue.at(at, Happening::ToHost(host, mount, stream, Box::new(message)));
    }

    pub(super) fn arrive_at_host(&mut self, host: u32, stream: u64, message: ToClient) {
        let open = self.hosts.get(&host).and_then(|of| of.connected).map(|(open, _)| open);
        if open == Some(stream) {
            if let ToClient::Answer(_, Answer { reply: Reply::Batch { done, refused }, .. }) =
                &message
                && let Some(refused) = refused
            {
                let text = format!("the step behind {done} of a batch was refused: {refused:?}");
                return self.fail("what was answered is done", text);
            }
            self.host_event(host, Event::Message(StreamNumber(stream), message));
        }
    }

    pub(super) fn host_read(
        &mut self,
        host: u32,
        io: IoNumber,
        blocks: &[BlockAddress],
        delay: Duration,
    ) {
        let Some(of) = self.hosts.get(&host) else { return };
        let mount = of.mount;
        let who = Writer::Session(of.client.session().unwrap_or_default());
        let read = self.volume.read(who, blocks).ok_or(FsError::Unavailable);
        let read = read.map(|blocks| blocks.into_iter().map(Into::into).collect());
        let event = Box::new(Event::BlocksRead(io, read));
        self.queue.after(delay, Happening::Host(host, mount, event));
    }

    pub(super) fn host_write(
        &mut self,
        (host, mount): (u32, u64),
        who: Writer,
        io: IoNumber,
        blocks: &[(BlockAddress, Vec<u8>)],
        delay: Duration,
    ) {
        let written = self.volume.write(who, blocks);
        if written.is_none() {
            self.coverage.count(Kind::Situation, "a fenced write is refused");
        }
        let event = Box::new(Event::BlocksWritten(io, written.ok_or(FsError::Unavailable)));
        self.queue.after(delay, Happening::Host(host, mount, event));
    }

    /// The kernel asks something of its own accord.
    fn ask_aside(&mut self, host: u32, operation: KernelOperation) {
        let Some(of) = self.hosts.get_mut(&host) else { return };
        of.requests += 1;
        let request = KernelRequest { id: KernelId(of.requests), caller: Caller::ROOT, operation };
        let event = Box::new(Event::Kernel(request));
        let mount = of.mount;
        let delay = self.prng.micros(5, 100);
        self.queue.after(delay, Happening::Host(host, mount, event));
    }

    pub(super) fn forget(&mut self, host: u32, ino: Ino) {
        // Names of the shared directory; the files stay open.
        if ino.0 > super::FILES as u64 + 2 {
            self.ask_aside(host, KernelOperation::Forget { ino, count: 1 });
        }
    }

    pub(super) fn release(&mut self, host: u32, handle: HandleId) {
        self.ask_aside(host, KernelOperation::Release { handle, flock: None });
    }
}

/// Each of the blocks that lie behind each other from an address on.
fn each_block((first, bytes): &(BlockAddress, Bytes)) -> Vec<(BlockAddress, Vec<u8>)> {
    let blocks = bytes.chunks(4096).enumerate();
    blocks.map(|(i, block)| (first.plus(i as u64), block.to_vec())).collect()
}
