//! A device on a host of its own: a volume's client, and the streams that it has.

use std::collections::{BTreeMap, BTreeSet};

use mooring_replication::{
    ClientCommand, ClientEvent, ClientId, ClientOptions, Event, Io, IoError, IoId, ReadPart,
    RequestMessage, StreamId, VolumeBlock, VolumeClient, VolumeRange,
};
use mooring_terms::{AttachmentEpoch, NodeId};

use crate::cluster::{Cluster, MESSAGE_US, RAFT_US, SLICE, What};
use crate::store::{data_of, value_of};

/// A volume's client and what became of its I/O.
pub struct Device {
    pub client: VolumeClient,
    pub streams: BTreeMap<u64, StreamId>,
    last_stream: u64,
    /// Nodes that it can't reach.
    pub cut: BTreeSet<u64>,
    pub done: BTreeMap<IoId, Result<Vec<ReadPart>, IoError>>,
    pub sealed: bool,
    pub fenced: bool,
    pub tail_lost: bool,
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
        self.device = Some(Device {
            client: VolumeClient::new(options),
            streams: BTreeMap::new(),
            last_stream: 0,
            cut: BTreeSet::new(),
            done: BTreeMap::new(),
            sealed: false,
            fenced: false,
            tail_lost: false,
            next_io: 0,
        });
        let (slice, config) = (SLICE.index, self.raft.config.clone());
        self.device_event(ClientEvent::Config { slice, config });
    }

    pub fn device(&self) -> &Device {
        self.device.as_ref().expect("it is attached")
    }

    pub fn device_event(&mut self, event: ClientEvent) {
        let now = self.time();
        let Some(device) = &mut self.device else { return };
        let mut out = Vec::new();
        device.client.handle(now, event, &mut out);
        device.client.check_invariants();
        for command in out {
            let Some(device) = &mut self.device else { return };
            match command {
                ClientCommand::Connect { node } => self.at(1_000, What::Dial { node: node.0 }),
                ClientCommand::Send { node, message } => {
                    if let Some(&stream) = device.streams.get(&node.0) {
                        let (header, frames) = message.encode();
                        let message =
                            RequestMessage::decode(&header, frames).expect("its own encoding");
                        let node = node.0;
                        self.at(MESSAGE_US, What::DeviceRequest { node, stream, message });
                    }
                }
                ClientCommand::QueryConfig { slice } => {
                    if self.raft.up {
                        let config = self.raft.config.clone();
                        let event = ClientEvent::Config { slice, config };
                        self.at(RAFT_US, What::Device(event));
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

    pub fn dial(&mut self, node: u64) {
        let up = self.is_up(node);
        let Some(device) = &mut self.device else { return };
        if !up || device.cut.contains(&node) {
            return self.device_event(ClientEvent::Disconnected { node: NodeId(node) });
        }
        device.last_stream += 1;
        let stream = StreamId(device.last_stream);
        device.streams.insert(node, stream);
        let client = device.client.id();
        self.event(node, Event::ClientStream { client, stream });
        self.device_event(ClientEvent::Connected { node: NodeId(node), stream });
    }

    /// The device's stream to a node breaks.
    pub fn hang_up(&mut self, node: u64) {
        let stream = self.device.as_mut().and_then(|device| device.streams.remove(&node));
        if stream.is_some() {
            self.device_event(ClientEvent::Disconnected { node: NodeId(node) });
        }
    }

    pub fn submit(&mut self, io: Io) -> IoId {
        let device = self.device.as_mut().expect("it is attached");
        device.next_io += 1;
        let id = IoId(device.next_io);
        self.device_event(ClientEvent::Submit { id, io });
        id
    }

    pub fn submit_write(&mut self, block: u64, value: u64) -> IoId {
        let data = data_of(value, 1);
        self.submit(Io::Write { first: VolumeBlock(block), data, fua: false })
    }

    /// Submits and waits.
    pub fn io(&mut self, io: Io) -> Result<Vec<ReadPart>, IoError> {
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
            [ReadPart::Zeros(1)] => 0,
            [ReadPart::Data(data)] => value_of(data.bytes()),
            other => panic!("{other:?} is not one block"),
        }
    }

    pub fn device_flush(&mut self) {
        assert_eq!(self.io(Io::Flush), Ok(Vec::new()));
    }
}
