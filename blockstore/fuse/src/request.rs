//! Bytes from the kernel into requests: a pure function.
//!
//! ```text
//!   bytes ── InHeader (40) ── struct of the opcode ── names or data ── [extensions]
//! ```
//! Every length is checked against the bytes that are there; whatever comes, the result is a request
//! or a [`Malformed`], never a panic. Numbers inside (offsets, sizes) are not judged here.

use crate::abi::{
    AccessIn, BatchForgetIn, CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, ForgetIn, ForgetOne,
    FsyncIn, GetattrIn, GetxattrIn, InHeader, InitIn, InitInTail, InterruptIn, LinkIn, LockIn,
    LseekIn, MkdirIn, MknodIn, OpenIn, ReadIn, ReleaseIn, Rename2In, RenameIn, SetattrIn,
    SetxattrIn, StatxIn, WriteIn, opcode,
};

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Number, node, caller.
    pub header: InHeader,
    /// What is asked for.
    pub operation: Operation<'a>,
}

/// What a request asks for, of the header's node where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is one of the kernel's, described in `abi`")]
pub enum Operation<'a> {
    /// The handshake; `flags` are all 64 [`crate::abi::init`] bits.
    Init { major: u32, minor: u32, max_readahead: u32, flags: u64 },
    /// Look a name up.
    Lookup { name: &'a [u8] },
    /// Attributes.
    Getattr { fh: Option<u64> },
    /// Attributes, and when it was made.
    Statx { fh: Option<u64> },
    /// Change attributes.
    Setattr { set: SetattrIn },
    /// A symbolic link's target.
    Readlink,
    /// Make a symbolic link.
    Symlink { name: &'a [u8], target: &'a [u8] },
    /// Make a file, pipe, socket or device.
    Mknod { name: &'a [u8], mode: u32, rdev: u32, umask: u32 },
    /// Make a directory.
    Mkdir { name: &'a [u8], mode: u32, umask: u32 },
    /// Remove a name of something that is no directory.
    Unlink { name: &'a [u8] },
    /// Remove a directory.
    Rmdir { name: &'a [u8] },
    /// Move a name; `flags` are `RENAME_*`.
    Rename { name: &'a [u8], to: u64, to_name: &'a [u8], flags: u32 },
    /// Give `node` another name.
    Link { node: u64, name: &'a [u8] },
    /// Open.
    Open { flags: u32, kill_suidgid: bool },
    /// Make a file and open it, or open the one that is there.
    Create { name: &'a [u8], flags: u32, mode: u32, umask: u32 },
    /// Make a file without a name, and open it.
    Tmpfile { flags: u32, mode: u32, umask: u32 },
    /// Open as a directory.
    Opendir { flags: u32 },
    /// Read the file; `read_flags` are [`super::abi::read`] bits.
    Read { fh: u64, offset: u64, size: u32, read_flags: u32, flags: u32 },
    /// Write the file.
    Write { fh: u64, offset: u64, data: &'a [u8], write_flags: u32, flags: u32 },
    /// List the directory, with attributes where `plus`.
    Readdir { fh: u64, offset: u64, size: u32, plus: bool },
    /// Make durable what was written.
    Fsync { fh: u64, data_only: bool },
    /// Make durable what was done in the directory.
    Fsyncdir { fh: u64, data_only: bool },
    /// A descriptor was closed.
    Flush { fh: u64, owner: u64 },
    /// The last descriptor was closed.
    Release { fh: u64, owner: u64, release_flags: u32 },
    /// The directory's last descriptor was closed.
    Releasedir { fh: u64 },
    /// Which lock stands in the way of this one.
    Getlk { lock: LockIn },
    /// Take or give back a lock; wait for it where `wait`.
    Setlk { lock: LockIn, wait: bool },
    /// Allocate, free or zero a range; `mode` are `FALLOC_FL_*`.
    Fallocate { fh: u64, offset: u64, length: u64, mode: u32 },
    /// Where data or a hole begins.
    Lseek { fh: u64, offset: u64, whence: u32 },
    /// Copy within the file system.
    CopyFileRange { copy: CopyFileRangeIn },
    /// Set an extended attribute; `flags` are `XATTR_*`.
    Setxattr { name: &'a [u8], value: &'a [u8], flags: u32 },
    /// Read one.
    Getxattr { name: &'a [u8], size: u32 },
    /// List their names.
    Listxattr { size: u32 },
    /// Remove one.
    Removexattr { name: &'a [u8] },
    /// May the caller do this?
    Access { mask: u32 },
    /// Sizes of the file system.
    Statfs,
    /// The kernel forgets a node; has no answer.
    Forget { lookups: u64 },
    /// The kernel forgets many; has no answer.
    BatchForget { nodes: ForgetList<'a> },
    /// The caller of another request has a signal pending; has no answer if all goes well.
    Interrupt { unique: u64 },
    /// The file system was unmounted.
    Destroy,
    /// Something that isn't known here; its opcode is in the header.
    Unknown,
}

/// The nodes of a BATCH_FORGET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForgetList<'a>(&'a [u8]);

impl<'a> ForgetList<'a> {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = ForgetOne> + 'a {
        self.0.chunks_exact(ForgetOne::SIZE).filter_map(|one| Some(ForgetOne::decode(one)?.0))
    }
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
            opcode::DESTROY => Self::Destroy,
            opcode::STATFS => Self::Statfs,
            opcode::INTERRUPT => Self::Interrupt { unique: InterruptIn::decode(body)?.0.unique },
            opcode::FORGET => Self::Forget { lookups: ForgetIn::decode(body)?.0.lookups },
            opcode::BATCH_FORGET => {
                let (batch, nodes) = BatchForgetIn::decode(body)?;
                if nodes.len() != (batch.count as usize).checked_mul(ForgetOne::SIZE)? {
                    return None;
                }
                Self::BatchForget { nodes: ForgetList(nodes) }
            }

            // Names: made, moved and found.
            opcode::LOOKUP => Self::Lookup { name: last_name(body)? },
            opcode::UNLINK => Self::Unlink { name: last_name(body)? },
            opcode::RMDIR => Self::Rmdir { name: last_name(body)? },
            opcode::READLINK => Self::Readlink,
            opcode::SYMLINK => {
                let (name, rest) = name(body)?;
                Self::Symlink { name, target: last_name(rest)? }
            }
            opcode::MKNOD => {
                let (MknodIn { mode, rdev, umask, .. }, rest) = MknodIn::decode(body)?;
                Self::Mknod { name: last_name(rest)?, mode, rdev, umask }
            }
            opcode::MKDIR => {
                let (MkdirIn { mode, umask }, rest) = MkdirIn::decode(body)?;
                Self::Mkdir { name: last_name(rest)?, mode, umask }
            }
            opcode::RENAME => {
                let (RenameIn { directory }, rest) = RenameIn::decode(body)?;
                let (name, rest) = name(rest)?;
                Self::Rename { name, to: directory, to_name: last_name(rest)?, flags: 0 }
            }
            opcode::RENAME2 => {
                let (Rename2In { directory, flags, .. }, rest) = Rename2In::decode(body)?;
                let (name, rest) = name(rest)?;
                Self::Rename { name, to: directory, to_name: last_name(rest)?, flags }
            }
            opcode::LINK => {
                let (LinkIn { node }, rest) = LinkIn::decode(body)?;
                Self::Link { node, name: last_name(rest)? }
            }
            opcode::CREATE => {
                let (CreateIn { flags, mode, umask, .. }, rest) = CreateIn::decode(body)?;
                Self::Create { name: last_name(rest)?, flags, mode, umask }
            }
            opcode::TMPFILE => {
                let (CreateIn { flags, mode, umask, .. }, _) = CreateIn::decode(body)?;
                Self::Tmpfile { flags, mode, umask }
            }
            opcode::OPENDIR => Self::Opendir { flags: OpenIn::decode(body)?.0.flags },
            opcode::READDIR | opcode::READDIRPLUS => {
                let (ReadIn { fh, offset, size, .. }, _) = ReadIn::decode(body)?;
                Self::Readdir { fh, offset, size, plus: code == opcode::READDIRPLUS }
            }
            opcode::FSYNCDIR => {
                let (FsyncIn { fh, flags, .. }, _) = FsyncIn::decode(body)?;
                Self::Fsyncdir { fh, data_only: flags & 1 != 0 }
            }
            opcode::RELEASEDIR => Self::Releasedir { fh: ReleaseIn::decode(body)?.0.fh },

            // Attributes: read and changed.
            opcode::GETATTR => {
                let (GetattrIn { flags, fh, .. }, _) = GetattrIn::decode(body)?;
                Self::Getattr { fh: (flags & 1 != 0).then_some(fh) }
            }
            opcode::STATX => {
                let (StatxIn { getattr_flags, fh, .. }, _) = StatxIn::decode(body)?;
                Self::Statx { fh: (getattr_flags & 1 != 0).then_some(fh) }
            }
            opcode::SETATTR => Self::Setattr { set: SetattrIn::decode(body)?.0 },
            opcode::ACCESS => Self::Access { mask: AccessIn::decode(body)?.0.mask },
            opcode::SETXATTR => {
                let (SetxattrIn { size, flags }, rest) = SetxattrIn::decode(body)?;
                let (name, value) = name(rest)?;
                if value.len() != size as usize {
                    return None;
                }
                Self::Setxattr { name, value, flags }
            }
            opcode::GETXATTR => {
                let (GetxattrIn { size, .. }, rest) = GetxattrIn::decode(body)?;
                Self::Getxattr { name: last_name(rest)?, size }
            }
            opcode::LISTXATTR => Self::Listxattr { size: GetxattrIn::decode(body)?.0.size },
            opcode::REMOVEXATTR => Self::Removexattr { name: last_name(body)? },

            // What is done with open files.
            opcode::OPEN => {
                let (OpenIn { flags, open_flags }, _) = OpenIn::decode(body)?;
                Self::Open { flags, kill_suidgid: open_flags & 1 != 0 }
            }
            opcode::READ => {
                let (ReadIn { fh, offset, size, read_flags, flags, .. }, _) = ReadIn::decode(body)?;
                Self::Read { fh, offset, size, read_flags, flags }
            }
            opcode::WRITE => {
                let (WriteIn { fh, offset, size, write_flags, flags, .. }, data) =
                    WriteIn::decode(body)?;
                if data.len() != size as usize {
                    return None;
                }
                Self::Write { fh, offset, data, write_flags, flags }
            }
            opcode::FSYNC => {
                let (FsyncIn { fh, flags, .. }, _) = FsyncIn::decode(body)?;
                Self::Fsync { fh, data_only: flags & 1 != 0 }
            }
            opcode::FLUSH => {
                let (FlushIn { fh, lock_owner, .. }, _) = FlushIn::decode(body)?;
                Self::Flush { fh, owner: lock_owner }
            }
            opcode::RELEASE => {
                let (ReleaseIn { fh, lock_owner, release_flags, .. }, _) = ReleaseIn::decode(body)?;
                Self::Release { fh, owner: lock_owner, release_flags }
            }
            opcode::GETLK => Self::Getlk { lock: LockIn::decode(body)?.0 },
            opcode::SETLK | opcode::SETLKW => {
                Self::Setlk { lock: LockIn::decode(body)?.0, wait: code == opcode::SETLKW }
            }
            opcode::FALLOCATE => {
                let (FallocateIn { fh, offset, length, mode, .. }, _) = FallocateIn::decode(body)?;
                Self::Fallocate { fh, offset, length, mode }
            }
            opcode::LSEEK => {
                let (LseekIn { fh, offset, whence, .. }, _) = LseekIn::decode(body)?;
                Self::Lseek { fh, offset, whence }
            }
            opcode::COPY_FILE_RANGE => {
                Self::CopyFileRange { copy: CopyFileRangeIn::decode(body)?.0 }
            }
            _ => Self::Unknown,
        })
    }
}

/// A name that ends with NUL, and what follows.
fn name(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// A name that ends with the only NUL, at the end.
fn last_name(bytes: &[u8]) -> Option<&[u8]> {
    let (name, rest) = name(bytes)?;
    rest.is_empty().then_some(name)
}

fn init(body: &[u8]) -> Option<Operation<'_>> {
    let (head, tail) = InitIn::decode(body)?;
    let mut flags = u64::from(head.flags);
    if flags & crate::abi::init::EXT != 0 {
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
