//! The handshake: bytes of a client in, bytes of the server out. Pure.
//!
//! ```text
//!   greeting ─> client's flags ─> options ... ─┬─ GO, EXPORT_NAME ─> transmission
//!                                  ^   │       ├─ ABORT, nonsense ─> end
//!                                  └───┘       └─ STARTTLS ─> TLS, then options from the start
//! ```
//! It holds nothing of a client's but what the last options agreed on: an option is at most 64 KiB,
//! longer ones are skipped as they come. One call takes one option, so that whoever asks a thousand
//! times without reading waits for its own answers.

use bytes::{Buf, BufMut, BytesMut};

use super::option::{Malformed, MetaQuery, Wish};
use super::proto::{
    ALLOCATION, ALLOCATION_ID, EXPORT_NAME_ZEROES, GREETING, OPTION_MAGIC, OPTION_MAX,
    OPTION_REPLY_MAGIC, REQUEST_MAX, export, greeting, info, option as kind, reply,
};

/// The smallest request in bytes: any, since parts of blocks are read, changed and written.
const BLOCK_MIN: u32 = 1;

/// What is best: the block of the volume.
const BLOCK_PREFERRED: u32 = 4096;

/// What a client is told about an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// The exports that a client may choose from.
pub trait Exports {
    /// All names.
    fn names(&self) -> Vec<String>;
    /// The export of a name; the empty one stands for the default.
    fn find(&self, name: &str) -> Option<ExportInfo>;
}

/// What encryption a listener asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// None: a unix socket, or a network that the configuration trusts.
    Plain,
    /// Nothing but STARTTLS and ABORT is answered before TLS.
    TlsRequired,
    /// TLS is up.
    Tls,
}

/// What client and server have agreed on for the transmission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The export, as [`ExportInfo::name`] has it.
    pub export: String,
    /// Whether replies are structured.
    pub structured: bool,
    /// Whether `base:allocation` can be asked for.
    pub allocation: bool,
}

/// Where the handshake is after some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed.
    Wait,
    /// There may be more to do with the bytes at hand, once the answers are on their way.
    Again,
    /// Once the answer is sent, TLS begins; then [`Handshake::secured`].
    StartTls,
    /// Over: requests follow.
    Transmit(Agreed),
    /// Over: the connection is to be closed once the answers are sent.
    End(Farewell),
}

/// Why a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Farewell {
    /// The client said so.
    #[error("the client ended it")]
    Aborted,
    /// Not the NBD protocol, or a part of it that nobody was told we speak.
    #[error("what came is no NBD handshake")]
    Nonsense,
    /// EXPORT_NAME has no way to refuse.
    #[error("there is no such export, and the client can't be told otherwise")]
    NoExport,
    /// EXPORT_NAME before TLS.
    #[error("TLS is required, and the client can't be told otherwise")]
    NoTls,
}

/// One handshake.
#[derive(Debug)]
pub struct Handshake {
    state: State,
    security: Security,
    zeroes: bool,
    structured: bool,
    /// The export for which `base:allocation` was chosen.
    allocation_for: Option<String>,
}

#[derive(Debug)]
enum State {
    Greeting,
    Options,
    /// Bytes of a refused option that are still to come.
    Skipping(u32),
}

impl Handshake {
    /// A handshake on a new connection; its greeting goes to `out`.
    pub fn begin(security: Security, out: &mut Vec<u8>) -> Self {
        out.put_u64(GREETING);
        out.put_u64(OPTION_MAGIC);
        out.put_u16(greeting::FIXED_NEWSTYLE | greeting::NO_ZEROES);
        Self {
            state: State::Greeting,
            security,
            zeroes: true,
            structured: false,
            allocation_for: None,
        }
    }

    /// TLS is up: what was agreed on before is void, since anybody could have said it.
    pub fn secured(&mut self) {
        self.security = Security::Tls;
        self.structured = false;
        self.allocation_for = None;
    }

    /// Takes what it can use off `input`, and appends what is to be sent to `out`.
    pub fn advance(
        &mut self,
        input: &mut BytesMut,
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Step {
        match self.state {
            State::Greeting => self.flags(input),
            State::Options => self.option(input, exports, out),
            State::Skipping(left) => {
                let skipped = input.len().min(left as usize);
                input.advance(skipped);
                let left = left - skipped as u32;
                if left > 0 {
                    self.state = State::Skipping(left);
                    return Step::Wait;
                }
                self.state = State::Options;
                Step::Again
            }
        }
    }

    fn flags(&mut self, input: &mut BytesMut) -> Step {
        if input.len() < 4 {
            return Step::Wait;
        }
        let flags = input.get_u32();
        let known = u32::from(greeting::FIXED_NEWSTYLE | greeting::NO_ZEROES);
        if flags & !known != 0 {
            return Step::End(Farewell::Nonsense);
        }
        self.zeroes = flags & u32::from(greeting::NO_ZEROES) == 0;
        self.state = State::Options;
        Step::Again
    }

    fn option(&mut self, input: &mut BytesMut, exports: &dyn Exports, out: &mut Vec<u8>) -> Step {
        const HEADER: usize = 16;
        let mut header: &[u8] = input;
        if header.len() < HEADER {
            return Step::Wait;
        }
        if header.get_u64() != OPTION_MAGIC {
            return Step::End(Farewell::Nonsense);
        }
        let (option, length) = (header.get_u32(), header.get_u32());
        if length > OPTION_MAX {
            if option == kind::EXPORT_NAME {
                return Step::End(Farewell::NoExport);
            }
            input.advance(HEADER);
            refuse(out, option, reply::ERR_TOO_BIG, "the option is longer than 64 KiB");
            self.state = State::Skipping(length);
            return Step::Again;
        }
        if header.len() < length as usize {
            return Step::Wait;
        }
        input.advance(HEADER);
        let data = input.split_to(length as usize);
        self.answer(option, &data, exports, out)
    }

    fn answer(
        &mut self,
        option: u32,
        data: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Step {
        if self.security == Security::TlsRequired && !matches!(option, kind::STARTTLS | kind::ABORT)
        {
            if option == kind::EXPORT_NAME {
                return Step::End(Farewell::NoTls);
            }
            refuse(out, option, reply::ERR_TLS_REQD, "TLS is required here: send STARTTLS");
            return Step::Again;
        }
        match option {
            kind::EXPORT_NAME => self.export_name(data, exports, out),
            kind::ABORT => {
                answer(out, option, reply::ACK, &[]);
                Step::End(Farewell::Aborted)
            }
            kind::LIST => list(data, exports, out),
            kind::STARTTLS => self.start_tls(data, out),
            kind::INFO | kind::GO => self.go(option, data, exports, out),
            kind::STRUCTURED_REPLY => {
                if data.is_empty() {
                    self.structured = true;
                    answer(out, option, reply::ACK, &[]);
                } else {
                    refuse(out, option, reply::ERR_INVALID, "the option has no data");
                }
                Step::Again
            }
            kind::LIST_META_CONTEXT | kind::SET_META_CONTEXT => {
                self.meta_context(option, data, exports, out)
            }
            _ => {
                refuse(out, option, reply::ERR_UNSUP, "the option is not known here");
                Step::Again
            }
        }
    }

    fn export_name(&self, data: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Step {
        let found = std::str::from_utf8(data).ok().and_then(|name| exports.find(name));
        let Some(found) = found else { return Step::End(Farewell::NoExport) };
        out.put_u64(found.size);
        out.put_u16(self.export_flags(&found));
        if self.zeroes {
            out.put_bytes(0, EXPORT_NAME_ZEROES);
        }
        Step::Transmit(self.agreed(found))
    }

    fn start_tls(&mut self, data: &[u8], out: &mut Vec<u8>) -> Step {
        let option = kind::STARTTLS;
        let refusal = match self.security {
            Security::Plain => (reply::ERR_POLICY, "there is no TLS on this socket"),
            Security::Tls => (reply::ERR_INVALID, "TLS is up already"),
            Security::TlsRequired if !data.is_empty() => {
                (reply::ERR_INVALID, "the option has no data")
            }
            Security::TlsRequired => {
                answer(out, option, reply::ACK, &[]);
                return Step::StartTls;
            }
        };
        refuse(out, option, refusal.0, refusal.1);
        Step::Again
    }

    fn go(&self, option: u32, data: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Step {
        let wish = match Wish::decode(data) {
            Ok(wish) => wish,
            Err(malformed) => return malformed.refuse(option, out),
        };
        let Some(found) = exports.find(wish.name) else {
            refuse(out, option, reply::ERR_UNKNOWN, "there is no such export here");
            return Step::Again;
        };
        let mut tell = |what: u16, fill: &dyn Fn(&mut Vec<u8>)| {
            let mut data = what.to_be_bytes().to_vec();
            fill(&mut data);
            answer(out, option, reply::INFO, &data);
        };
        tell(info::EXPORT, &|data| {
            data.put_u64(found.size);
            data.put_u16(self.export_flags(&found));
        });
        tell(info::BLOCK_SIZE, &|data| {
            data.put_u32(BLOCK_MIN);
            data.put_u32(BLOCK_PREFERRED);
            data.put_u32(REQUEST_MAX);
        });
        if wish.wants(info::NAME) {
            tell(info::NAME, &|data| data.put_slice(found.name.as_bytes()));
        }
        if wish.wants(info::DESCRIPTION) {
            let text = format!("mooring volume {}", found.name);
            tell(info::DESCRIPTION, &|data| data.put_slice(text.as_bytes()));
        }
        answer(out, option, reply::ACK, &[]);
        if option == kind::INFO { Step::Again } else { Step::Transmit(self.agreed(found)) }
    }

    fn meta_context(
        &mut self,
        option: u32,
        data: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Step {
        let setting = option == kind::SET_META_CONTEXT;
        if setting {
            // Whatever becomes of it, it replaces the choice made before.
            self.allocation_for = None;
        }
        if !self.structured {
            refuse(out, option, reply::ERR_INVALID, "structured replies come first");
            return Step::Again;
        }
        let query = match MetaQuery::decode(data) {
            Ok(query) => query,
            Err(malformed) => return malformed.refuse(option, out),
        };
        let Some(found) = exports.find(query.name) else {
            refuse(out, option, reply::ERR_UNKNOWN, "there is no such export here");
            return Step::Again;
        };
        let listed = !setting && (query.asks_nothing() || query.asks_for("base:"));
        if listed || query.asks_for(ALLOCATION) {
            let mut data = Vec::new();
            data.put_u32(if setting { ALLOCATION_ID } else { 0 });
            data.put_slice(ALLOCATION.as_bytes());
            answer(out, option, reply::META_CONTEXT, &data);
            if setting {
                self.allocation_for = Some(found.name);
            }
        }
        answer(out, option, reply::ACK, &[]);
        Step::Again
    }

    fn agreed(&self, found: ExportInfo) -> Agreed {
        let allocation = self.allocation_for.as_ref() == Some(&found.name);
        Agreed { export: found.name, structured: self.structured, allocation }
    }

    fn export_flags(&self, found: &ExportInfo) -> u16 {
        let flags = export::flags(found.read_only);
        if self.structured { flags | export::SEND_DF } else { flags }
    }
}

fn list(data: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Step {
    if !data.is_empty() {
        refuse(out, kind::LIST, reply::ERR_INVALID, "the option has no data");
        return Step::Again;
    }
    for name in exports.names() {
        let mut data = Vec::with_capacity(4 + name.len());
        data.put_u32(name.len() as u32);
        data.put_slice(name.as_bytes());
        answer(out, kind::LIST, reply::SERVER, &data);
    }
    answer(out, kind::LIST, reply::ACK, &[]);
    Step::Again
}

impl Malformed {
    fn refuse(self, option: u32, out: &mut Vec<u8>) -> Step {
        let kind = match self {
            Self::TooLong => reply::ERR_TOO_BIG,
            Self::Lengths | Self::Text => reply::ERR_INVALID,
        };
        refuse(out, option, kind, &self.to_string());
        Step::Again
    }
}

fn answer(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    out.put_u64(OPTION_REPLY_MAGIC);
    out.put_u32(option);
    out.put_u32(kind);
    out.put_u32(data.len() as u32);
    out.put_slice(data);
}

fn refuse(out: &mut Vec<u8>, option: u32, kind: u32, why: &str) {
    answer(out, option, kind, why.as_bytes());
}

#[cfg(test)]
mod tests;
