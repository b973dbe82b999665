//! The client side of one attachment: from the device's I/O on a volume to requests on its slices.
//!
//! `VolumeClient::new(ClientOptions)`, `handle(now, ClientEvent, &mut Vec<ClientCommand>)`,
//! `deadline()`: as with [`crate::Replica`].

mod command;
mod event;
mod options;

pub use command::{ClientCommand, IoError, ReadPart};
pub use event::{ClientEvent, Io, IoId, VolumeBlock, VolumeRange};
pub use options::ClientOptions;
