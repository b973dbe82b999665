//! A daemon that isn't one: listens on a unix socket, records what it is asked, and answers what
//! the test says, well-formed or not. Threads and the standard library only, so that it shares
//! nothing with what it tests.

// Part of tests, where a panic is the report; not every test needs all of it.
#![allow(clippy::unwrap_used, dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub body: String,
}

/// What comes back.
pub enum Reply {
    /// A status and a JSON body; none for an empty one.
    Json(u16, String),
    /// These bytes, whatever they are.
    Bytes(Vec<u8>),
    /// Nothing, while the client waits.
    Hang,
}

impl Reply {
    /// Status 200.
    pub fn ok(json: impl ToString) -> Self {
        Self::Json(200, json.to_string())
    }
}

/// The daemon; its thread ends with the test's process.
pub struct Fake {
    pub socket: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
    _dir: tempfile::TempDir,
}

impl Fake {
    /// Answers each request with what `answer` makes of it.
    pub fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let fake = Self::absent();
        fake.listen(answer);
        fake
    }

    /// A place for a socket, and nobody there yet.
    pub fn absent() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("mountd.sock");
        Self { socket, asked: Arc::default(), _dir: dir }
    }

    /// Makes the socket, and answers from now on.
    pub fn listen(&self, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        let (asked, answer) = (Arc::clone(&self.asked), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
                thread::spawn(move || serve(stream.unwrap(), &asked, &*answer));
            }
        });
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Everything asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut stream: UnixStream, asked: &Mutex<Vec<Asked>>, answer: &dyn Fn(&Asked) -> Reply) {
    let Some(request) = read_request(&stream) else { return };
    asked.lock().unwrap().push(request.clone());
    match answer(&request) {
        Reply::Json(status, body) => {
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n");
            // The client may be gone.
            let _ = stream.write_all((head + &body).as_bytes());
        }
        Reply::Bytes(bytes) => {
            let _ = stream.write_all(&bytes);
        }
        // Ends when the client gives up and closes.
        Reply::Hang => {
            let _ = stream.read(&mut [0]);
        }
    }
}

fn read_request(stream: &UnixStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, target, body: String::from_utf8(body).unwrap() })
}
