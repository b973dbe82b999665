//! Carries bytes between the network and a socket of the crate `zeromq`, with the guard between.
//!
//! The crate connects to a doorway: a listener in this process with a random name that the kernel
//! keeps to the network namespace. Whoever else should find it is turned away, since its process is
//! not ours. All of this runs on the stream's own runtime, so that no byte changes its thread.

use std::io;
use std::net::TcpStream as BlockingTcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as BlockingUnixListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::zeromq::guard::{Allowance, Guard};

/// What is read and passed on at a time: half of what the kernel queues in the doorway.
const CHUNK: usize = 96 << 10;

/// The runtime of one stream: it runs while the stream's thread waits in it.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().build()
}

/// Where one socket of the crate is waited for.
pub(crate) struct Doorway {
    listener: UnixListener,
    endpoint: String,
}

impl Doorway {
    /// Must be called in a runtime.
    pub(crate) fn open() -> io::Result<Self> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(io::Error::other)?;
        let name = format!("mooring-{}", hex::encode(random));
        let listener =
            BlockingUnixListener::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes())?)?;
        listener.set_nonblocking(true)?;
        // A path that begins with zero is a name without a file.
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            endpoint: format!("ipc://\0{name}"),
        })
    }

    /// What the crate is to connect to.
    pub(crate) fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    async fn accept(self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            if stream.peer_cred()?.pid() == i32::try_from(std::process::id()).ok() {
                return Ok(stream);
            }
        }
    }
}

/// Carries between `network` and whoever comes through `doorway`, until either side ends or the peer
/// sends what the guard refuses; gives the reason. `believed` says that the peer may send messages;
/// until then, and always if it never becomes true, it may send what is small.
pub(crate) fn carry(
    network: &BlockingTcpStream,
    doorway: Doorway,
    believed: Arc<AtomicBool>,
) -> io::Result<JoinHandle<io::Error>> {
    network.set_nonblocking(true)?;
    let network = TcpStream::from_std(network.try_clone()?)?;
    Ok(tokio::spawn(async move {
        match both_ways(network, doorway, &believed).await {
            Ok(()) => io::ErrorKind::UnexpectedEof.into(),
            Err(error) => error,
        }
    }))
}

async fn both_ways(network: TcpStream, doorway: Doorway, believed: &AtomicBool) -> io::Result<()> {
    let mut local = doorway.accept().await?;
    let mut network = network;
    let (mut network_in, mut network_out) = network.split();
    let (mut local_in, mut local_out) = local.split();
    let inward = async {
        let mut guard = Guard::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = network_in.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            let allowed = match believed.load(Ordering::Acquire) {
                true => Allowance::MESSAGE,
                false => Allowance::SMALL,
            };
            guard.inspect(&buffer[..count], allowed).map_err(io::Error::other)?;
            local_out.write_all(&buffer[..count]).await?;
        }
    };
    let outward = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = local_in.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            network_out.write_all(&buffer[..count]).await?;
        }
    };
    tokio::select! {
        end = inward => end,
        end = outward => end,
    }
}
