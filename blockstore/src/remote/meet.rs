//! The first question to the own daemon, over its door.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use mooring_terms::{NodeId, VolumeId};
use mooring_transport::{Link, LinkHandler, Message};

use super::RemoteError;
use super::door::LINK_WINDOW;
use super::letters::post;
use super::proto::{Ask, LinkMessage, Told};
use crate::wire::Envelope;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends a question as soon as it can, and passes the first answer on.
struct Question {
    ask: LinkMessage,
    answer: SyncSender<Told>,
}

impl LinkHandler for Question {
    fn opened(&self, link: &Arc<Link>) {
        post(link, self.ask.clone());
    }

    fn messages(&self, link: &Arc<Link>, messages: Vec<Message>) {
        for message in messages {
            if let Ok(Envelope::Link(LinkMessage::Told(told), _)) = Envelope::decode(message) {
                // Whoever asked has gone, or has an answer.
                let _ = self.answer.try_send(*told);
                link.cut();
            }
        }
    }

    fn closed(&self, _link: &Arc<Link>) {}
}

/// Asks the daemon at `door` for all that a client needs to begin.
pub fn meet(door: &Path, volume: VolumeId) -> Result<Told, RemoteError> {
    let no_daemon = |source| RemoteError::NoDaemon { door: door.to_owned(), source };
    let socket = UnixStream::connect(door).map_err(no_daemon)?;
    // Who it is, it says.
    let link = Link::over_unix(socket, NodeId(0), LINK_WINDOW).map_err(no_daemon)?;
    let (answer, told) = mpsc::sync_channel(1);
    let ask = LinkMessage::Ask(Ask { volume, slices: Vec::new(), identity: true });
    let running = Arc::clone(&link);
    thread::Builder::new()
        .name("link-meeting".to_owned())
        .spawn(move || running.run(&Question { ask, answer }))
        .map_err(RemoteError::Resource)?;
    let told = told.recv_timeout(PATIENCE);
    link.cut();
    told.map_err(|_| RemoteError::Silent { door: door.to_owned() })
}
