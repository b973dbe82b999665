//! A device on a host of its own: a volume's client, and the streams that it has.

use std::collections::{BTreeMap, BTreeSet};

use mooring_replication::{
    ClientCommand, ClientEvent, ClientId, ClientOptions, ClientRole, Event, Io, IoError, IoId,
    IoPart, RequestMessage, StreamId, VolumeBlock, VolumeClient, VolumeRange,
};
use mooring_terms::{AttachmentEpoch, NodeId, SessionId};

use crate::cluster::{Cluster, MESSAGE_US, RAFT_US, SLICE, What};
use crate::store::{data_of, value_of};

/// A volume's client and what became of its I/O.
pub struct Device {
    pub client: VolumeClient,
    pub streams: BTreeMap<u64, StreamId>,
    last_stream: u64,
    /// Nodes that it can't reach.
    pub cut: BTreeSet<u64>,
    pub done: BTreeMap<IoId, Result<Vec<IoPart>, IoError>>,
    pub sealed: bool,
    pub fenced: bool,
    pub tail_lost: bool,
    /// Whose fences are done.
    pub sessions_fenced: BTreeSet<u64>,
    /// Requests sent.
    pub requests: u64,
    next_io: u64,
}

impl Cluster {
    /// Attaches the volume there; the device appears when all is sealed.
    pub fn attach(&mut self, attachment: u64, change: impl FnOnce(&mut ClientOptions)) {
        self.begin_attach(attachment, change);
        self.run_until("sealed", |c| c.device().sealed);
    }

    pub fn begin_attach(&mut self, attachment: u64, change: impl FnOnce(&mut ClientOptions)) {
        self.counter += 1;
        let mut options = ClientOptions::new(
            ClientId(self.counter + 1000),
            SLICE.volume,
            AttachmentEpoch(attachment),
            1 << 20,
            1 << 20,
        );
        change(&mut options);
        self.attachment = AttachmentEpoch(attachment);
        self.add_client(0, options);
    }

    /// A session of the volume whose coordinator is client 0.
    pub fn add_session(&mut self, session: u64) {
        self.counter += 1;
        let client = ClientId(self.counter + 1000);
        let mut options =
            ClientOptions::new(client, SLICE.volume, self.attachment, 1 << 20, 1 << 20);
        options.role = ClientRole::Session(SessionId(session));
        self.client_event(
            0,
            ClientEvent::Register { session: SessionId(session), node: NodeId(session) },
        );
        self.add_client(session, options);
    }

    fn add_client(&mut self, key: u64, options: ClientOptions) {
        let device = Device {
            client: VolumeClient::new(options),
            streams: BTreeMap::new(),
            last_stream: 0,
            cut: BTreeSet::new(),
            done: BTreeMap::new(),
            sealed: false,
            fenced: false,
            tail_lost: false,
            sessions_fenced: BTreeSet::new(),
            requests: 0,
            next_io: 0,
        };
        self.devices.insert(key, device);
        let (slice, config) = (SLICE.index, self.raft.config.clone());
        self.client_event(key, ClientEvent::Config { slice, config });
    }

    pub fn device(&self) -> &Device {
        &self.devices[&0]
    }

    pub fn device_mut(&mut self) -> &mut Device {
        self.devices.get_mut(&0).expect("it is attached")
    }

    pub fn device_event(&mut self, event: ClientEvent) {
        self.client_event(0, event);
    }

    pub fn has_stream(&self, device: u64, node: u64, stream: StreamId) -> bool {
        self.devices.get(&device).is_some_and(|d| d.streams.get(&node) == Some(&stream))
    }

    /// The coordinator may name sessions for as long as the primary says.
    pub fn lease(&mut self) {
        let Some(node) = self.primary() else { return };
        let (now, attachment) = (self.time(), self.attachment);
        let process = self.nodes[&node].process.as_ref().expect("it is up");
        if let Some(until) = process.replica.leased_until(now, &process.beacons, attachment) {
            self.client_event(0, ClientEvent::Leased { until });
        }
    }

    pub fn client_event(&mut self, key: u64, event: ClientEvent) {
        let now = self.time();
        let Some(device) = self.devices.get_mut(&key) else { return };
        let mut out = Vec::new();
        device.client.handle(now, event, &mut out);
        device.client.check_invariants();
        for command in out {
            let Some(device) = self.devices.get_mut(&key) else { return };
            match command {
                ClientCommand::Connect { node } => {
                    self.at(1_000, What::Dial { device: key, node: node.0 });
                }
                ClientCommand::Knock { slice } => {
                    let event = ClientEvent::Admit { slice, session: SessionId(key) };
                    self.at(MESSAGE_US, What::Device(0, event));
                }
                ClientCommand::Admitted { slice, session } => {
                    self.at(MESSAGE_US, What::Device(session.0, ClientEvent::Admitted { slice }));
                }
                ClientCommand::SessionFenced { session } => {
                    assert!(device.sessions_fenced.insert(session.0), "{session:?} twice");
                }
                ClientCommand::Send { node, message } => {
                    device.requests += 1;
                    if let Some(&stream) = device.streams.get(&node.0) {
                        let (header, frames) = message.encode();
                        let message =
                            RequestMessage::decode(&header, frames).expect("its own encoding");
                        let node = node.0;
                        let device = key;
                        self.at(MESSAGE_US, What::DeviceRequest { device, node, stream, message });
                    }
                }
                ClientCommand::QueryConfig { slice } => {
                    if self.raft.up {
                        let config = self.raft.config.clone();
                        let event = ClientEvent::Config { slice, config };
                        self.at(RAFT_US, What::Device(key, event));
                    }
                }
                ClientCommand::Done { id, result } => {
                    let twice = device.done.insert(id, result);
                    assert!(twice.is_none(), "{id:?} is done twice");
                }
                ClientCommand::Sealed => device.sealed = true,
                ClientCommand::Fenced { .. } => device.fenced = true,
                ClientCommand::TailLost => device.tail_lost = true,
            }
        }
    }

    pub fn dial(&mut self, key: u64, node: u64) {
        let up = self.is_up(node);
        let Some(device) = self.devices.get_mut(&key) else { return };
        if !up || device.cut.contains(&node) {
            return self.client_event(key, ClientEvent::Disconnected { node: NodeId(node) });
        }
        device.last_stream += 1;
        let stream = StreamId(device.last_stream);
        device.streams.insert(node, stream);
        let client = device.client.id();
        self.event(node, Event::ClientStream { client, stream });
        self.client_event(key, ClientEvent::Connected { node: NodeId(node), stream });
    }

    /// The clients' streams to a node break.
    pub fn hang_up(&mut self, node: u64) {
        for key in self.devices.keys().copied().collect::<Vec<_>>() {
            let stream = self.devices.get_mut(&key).and_then(|one| one.streams.remove(&node));
            if stream.is_some() {
                self.client_event(key, ClientEvent::Disconnected { node: NodeId(node) });
            }
        }
    }

    pub fn submit(&mut self, io: Io) -> IoId {
        self.submit_at(0, io)
    }

    pub fn submit_at(&mut self, key: u64, io: Io) -> IoId {
        let device = self.devices.get_mut(&key).expect("it is attached");
        device.next_io += 1;
        let id = IoId(device.next_io);
        self.client_event(key, ClientEvent::Submit { id, io });
        id
    }

    /// Submits there and waits.
    pub fn io_at(&mut self, key: u64, io: Io) -> Result<Vec<IoPart>, IoError> {
        let id = self.submit_at(key, io);
        self.run_until("done", |c| c.devices[&key].done.contains_key(&id));
        self.devices[&key].done[&id].clone()
    }

    pub fn submit_write(&mut self, block: u64, value: u64) -> IoId {
        let data = data_of(value, 1);
        self.submit(Io::Write { first: VolumeBlock(block), data, fua: false })
    }

    /// Submits and waits.
    pub fn io(&mut self, io: Io) -> Result<Vec<IoPart>, IoError> {
        let id = self.submit(io);
        self.run_until("done", |c| c.device().done.contains_key(&id));
        self.device().done[&id].clone()
    }

    pub fn device_write(&mut self, block: u64, value: u64) {
        let id = self.submit_write(block, value);
        self.run_until("written", |c| c.device().done.contains_key(&id));
        assert_eq!(self.device().done[&id], Ok(Vec::new()));
    }

    pub fn device_read(&mut self, block: u64) -> u64 {
        let range = VolumeRange { first: VolumeBlock(block), count: 1 };
        match self.io(Io::Read(range)).expect("it reads").as_slice() {
            [IoPart::Zeros(1)] => 0,
            [IoPart::Data(data)] => value_of(data.bytes()),
            other => panic!("{other:?} is not one block"),
        }
    }

    pub fn device_flush(&mut self) {
        assert_eq!(self.io(Io::Flush), Ok(Vec::new()));
    }
}
