//! Bytes from the kernel into requests: a pure function.
//!
//! ```text
//!   bytes ── InHeader (40) ── struct of the opcode ── name or data ── [extensions]
//! ```
//! Every length is checked against the bytes that are there; whatever comes, the result is a request
//! or a [`Malformed`], never a panic. Numbers inside (offsets, sizes) are not judged here.

use super::abi::{
    BatchForgetIn, FallocateIn, ForgetOne, InHeader, InitIn, InitInTail, InterruptIn, ReadIn,
    SetattrIn, WriteIn, opcode,
};

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Number, node, caller.
    pub header: InHeader,
    /// What is asked for.
    pub operation: Operation<'a>,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// The handshake; `flags` are all 64 [`super::abi::init`] bits.
    Init {
        /// Major version of the kernel.
        major: u32,
        /// Minor version of the kernel.
        minor: u32,
        /// Largest read-ahead in bytes.
        max_readahead: u32,
        /// What the kernel offers.
        flags: u64,
    },
    /// Look a name up in the header's node.
    Lookup {
        /// The name, without its NUL.
        name: &'a [u8],
    },
    /// Attributes of the header's node.
    Getattr,
    /// Change attributes.
    Setattr {
        /// [`super::abi::setattr`] bits.
        valid: u32,
    },
    /// Open the header's node.
    Open,
    /// Open the header's node as a directory.
    Opendir,
    /// Read the file.
    Read {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        size: u32,
    },
    /// Write the file.
    Write {
        /// Offset in bytes.
        offset: u64,
        /// The bytes.
        data: &'a [u8],
    },
    /// List the directory.
    Readdir {
        /// Where to go on.
        offset: u64,
        /// How many bytes the answer may have.
        size: u32,
    },
    /// Make durable what was written.
    Fsync,
    /// A descriptor was closed.
    Flush,
    /// The last descriptor was closed.
    Release,
    /// The directory's last descriptor was closed.
    Releasedir,
    /// Allocate, free or zero a range.
    Fallocate {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// `FALLOC_FL_*` bits.
        mode: u32,
    },
    /// Sizes of the file system.
    Statfs,
    /// FORGET or BATCH_FORGET; has no answer.
    Forget,
    /// The caller of another request has a signal pending; has no answer if all goes well.
    Interrupt {
        /// The other request.
        unique: u64,
    },
    /// The file system was unmounted.
    Destroy,
    /// Something that isn't known here; its opcode is in the header.
    Unknown,
}

/// Bytes that are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not even a header: nothing can be answered.
    #[error("{bytes} bytes are no request header")]
    Header {
        /// How many bytes came.
        bytes: usize,
    },
    /// The header's length is not that of what came.
    #[error("a request says {stated} bytes and has {bytes}")]
    Length {
        /// The request's number, for the answer.
        unique: u64,
        /// The length in the header.
        stated: u32,
        /// How many bytes came.
        bytes: usize,
    },
    /// What follows the header is too short, or contradicts itself.
    #[error("the body of a request with opcode {opcode} is malformed")]
    Body {
        /// The request's number, for the answer.
        unique: u64,
        /// Its opcode.
        opcode: u32,
    },
}

impl Malformed {
    /// The request to answer with an error, if one can be told.
    #[must_use]
    pub fn unique(&self) -> Option<u64> {
        match self {
            Self::Header { .. } => None,
            Self::Length { unique, .. } | Self::Body { unique, .. } => Some(*unique),
        }
    }
}

impl<'a> Request<'a> {
    /// Decodes exactly one request.
    ///
    /// # Errors
    /// [`Malformed`] where the bytes are too few, too many, or contradict themselves.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, body) =
            InHeader::decode(bytes).ok_or(Malformed::Header { bytes: bytes.len() })?;
        if header.len as usize != bytes.len() {
            return Err(Malformed::Length {
                unique: header.unique,
                stated: header.len,
                bytes: bytes.len(),
            });
        }
        let malformed = Malformed::Body { unique: header.unique, opcode: header.opcode };
        let extensions = usize::from(header.extension_len) * 8;
        let body = body.get(..body.len().wrapping_sub(extensions)).ok_or(malformed)?;
        let operation = Operation::decode(header.opcode, body).ok_or(malformed)?;
        Ok(Self { header, operation })
    }
}

impl<'a> Operation<'a> {
    fn decode(code: u32, body: &'a [u8]) -> Option<Self> {
        Some(match code {
            opcode::INIT => init(body)?,
            opcode::LOOKUP => {
                let (end, name) = body.split_last()?;
                if *end != 0 || name.contains(&0) {
                    return None;
                }
                Self::Lookup { name }
            }
            opcode::GETATTR => Self::Getattr,
            opcode::SETATTR => Self::Setattr { valid: SetattrIn::decode(body)?.0.valid },
            opcode::OPEN => Self::Open,
            opcode::OPENDIR => Self::Opendir,
            opcode::READ => {
                let (read, _) = ReadIn::decode(body)?;
                Self::Read { offset: read.offset, size: read.size }
            }
            opcode::READDIR => {
                let (read, _) = ReadIn::decode(body)?;
                Self::Readdir { offset: read.offset, size: read.size }
            }
            opcode::WRITE => {
                let (write, data) = WriteIn::decode(body)?;
                if data.len() != write.size as usize {
                    return None;
                }
                Self::Write { offset: write.offset, data }
            }
            opcode::FSYNC => Self::Fsync,
            opcode::FLUSH => Self::Flush,
            opcode::RELEASE => Self::Release,
            opcode::RELEASEDIR => Self::Releasedir,
            opcode::FALLOCATE => {
                let (range, _) = FallocateIn::decode(body)?;
                Self::Fallocate { offset: range.offset, length: range.length, mode: range.mode }
            }
            opcode::STATFS => Self::Statfs,
            opcode::FORGET => Self::Forget,
            opcode::BATCH_FORGET => {
                let (batch, nodes) = BatchForgetIn::decode(body)?;
                if nodes.len() != (batch.count as usize).checked_mul(ForgetOne::SIZE)? {
                    return None;
                }
                Self::Forget
            }
            opcode::INTERRUPT => Self::Interrupt { unique: InterruptIn::decode(body)?.0.unique },
            opcode::DESTROY => Self::Destroy,
            _ => Self::Unknown,
        })
    }
}

fn init(body: &[u8]) -> Option<Operation<'_>> {
    let (head, tail) = InitIn::decode(body)?;
    let mut flags = u64::from(head.flags);
    if flags & super::abi::init::EXT != 0 {
        let (tail, _) = InitInTail::decode(tail)?;
        flags |= u64::from(tail.flags2) << 32;
    }
    Some(Operation::Init {
        major: head.major,
        minor: head.minor,
        max_readahead: head.max_readahead,
        flags,
    })
}

/// Whether a request of this opcode is never answered, so that nobody waits for it.
#[must_use]
pub fn is_unanswered(code: u32) -> bool {
    matches!(code, opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT)
}
