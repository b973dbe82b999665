//! POSIX access control lists (the withdrawn POSIX.1e draft 17, as Linux has them).
//!
//! Programs see them as the extended attributes `system.posix_acl_access` and
//! `system.posix_acl_default`, in this form, which is also how they stand in the tree:
//!
//! ```text
//!   0  version u32, 2
//!   then entries of 8 bytes, in the order of their tags: tag u16, permissions u16, id u32
//!   tags: 1 owner   2 user ID   4 owning group   8 group ID   16 mask   32 others
//! ```
//! A list has one each of owner, owning group and others; with any user or group it has a mask. It
//! is *minimal* without: then it says no more than nine mode bits do, and isn't kept.
//!
//! The mode's group bits are those of the mask where there is one, else those of the owning group.

use crate::{Access, Attributes, Caller, Mode};

const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;
/// As many entries as a value of 64 KiB can hold.
const MAX_ENTRIES: usize = (65_536 - 4) / ENTRY_BYTES;
/// What Linux writes into the id of entries that have none.
const NO_ID: u32 = u32::MAX;

/// Whom an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclTag {
    /// The file's owner.
    Owner,
    /// A user.
    User(u32),
    /// The file's group.
    OwningGroup,
    /// A group.
    Group(u32),
    /// The most that users and groups (the owning one included) can have.
    Mask,
    /// Everybody else.
    Others,
}

/// One line of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// Whom it is about.
    pub tag: AclTag,
    /// What is allowed: read 4, write 2, execute 1.
    pub permissions: u8,
}

/// A valid list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    entries: Vec<AclEntry>,
}

/// Why bytes are no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclError {
    /// Another version than 2.
    Version,
    /// Wrong length, unknown tag, unknown permission, wrong order, something missing or too much.
    Invalid,
}

impl AclTag {
    fn code(self) -> u16 {
        match self {
            Self::Owner => 1,
            Self::User(_) => 2,
            Self::OwningGroup => 4,
            Self::Group(_) => 8,
            Self::Mask => 16,
            Self::Others => 32,
        }
    }

    fn id(self) -> u32 {
        match self {
            Self::User(id) | Self::Group(id) => id,
            _ => NO_ID,
        }
    }
}

impl Acl {
    /// Takes entries as a list.
    ///
    /// # Errors
    /// [`AclError::Invalid`] if they are not in order, or something is missing or twice.
    pub fn new(entries: Vec<AclEntry>) -> Result<Self, AclError> {
        let count = |code| entries.iter().filter(|e| e.tag.code() == code).count();
        let ordered = entries.windows(2).all(|pair| pair[0].tag.code() <= pair[1].tag.code());
        let named = count(2) + count(8) > 0;
        let one_each = [1, 4, 32].into_iter().all(|code| count(code) == 1);
        let masked = count(16) == 1 || (count(16) == 0 && !named);
        let permissions = entries.iter().all(|e| e.permissions <= 7);
        let small = entries.len() <= MAX_ENTRIES;
        if ordered && one_each && masked && permissions && small {
            Ok(Self { entries })
        } else {
            Err(AclError::Invalid)
        }
    }

    /// Reads the form that programs and the tree have it in.
    ///
    /// # Errors
    /// [`AclError`] if it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, AclError> {
        let (version, rest) = bytes.split_first_chunk::<4>().ok_or(AclError::Invalid)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(AclError::Version);
        }
        if !rest.len().is_multiple_of(ENTRY_BYTES) || rest.len() / ENTRY_BYTES > MAX_ENTRIES {
            return Err(AclError::Invalid);
        }
        let entries = rest.chunks_exact(ENTRY_BYTES).map(decode_entry).collect::<Result<_, _>>()?;
        Self::new(entries)
    }

    /// The form that programs and the tree have it in.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.tag.code().to_le_bytes());
            bytes.extend_from_slice(&u16::from(entry.permissions).to_le_bytes());
            bytes.extend_from_slice(&entry.tag.id().to_le_bytes());
        }
        bytes
    }

    /// The entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[AclEntry] {
        &self.entries
    }

    /// Whether it says no more than mode bits do.
    #[must_use]
    pub fn is_minimal(&self) -> bool {
        self.entries.len() == 3
    }

    /// `mode` with the nine bits that this list amounts to.
    #[must_use]
    pub fn mode(&self, mode: Mode) -> Mode {
        let mut bits = 0;
        for entry in &self.entries {
            let permissions = u16::from(entry.permissions);
            match entry.tag {
                AclTag::Owner => bits |= permissions << 6,
                AclTag::OwningGroup => bits |= permissions << 3,
                AclTag::Mask => bits = (bits & !Mode::GROUP) | permissions << 3,
                AclTag::Others => bits |= permissions,
                AclTag::User(_) | AclTag::Group(_) => {}
            }
        }
        mode.without(0o777).with(bits)
    }

    /// Takes over the nine bits of `mode`, as `chmod` does.
    pub fn change_mode(&mut self, mode: Mode) {
        let masked = self.has_mask();
        for entry in &mut self.entries {
            let shift = match entry.tag {
                AclTag::Owner => 6,
                AclTag::OwningGroup if !masked => 3,
                AclTag::Mask => 3,
                AclTag::Others => 0,
                _ => continue,
            };
            entry.permissions = (mode.bits() >> shift) as u8 & 7;
        }
    }

    /// From a directory's default list: the list of something made in it with `mode`, and the mode
    /// that it gets. The umask has no say where there is a default list.
    #[must_use]
    pub fn inherited(&self, mode: Mode) -> (Self, Mode) {
        let mut acl = self.clone();
        let masked = acl.has_mask();
        for entry in &mut acl.entries {
            let shift = match entry.tag {
                AclTag::Owner => 6,
                AclTag::OwningGroup if !masked => 3,
                AclTag::Mask => 3,
                AclTag::Others => 0,
                _ => continue,
            };
            entry.permissions &= (mode.bits() >> shift) as u8;
        }
        let mode = acl.mode(mode);
        (acl, mode)
    }

    /// Whether the list allows `caller` all of `access`. Privileges are not considered here.
    #[must_use]
    pub fn permits(&self, caller: &Caller, attributes: &Attributes, access: Access) -> bool {
        let wanted = access.bits();
        let grants = |permissions: u8| wanted & !permissions == 0;
        let mask = self.entries.iter().find(|e| e.tag == AclTag::Mask).map_or(7, |e| e.permissions);
        let mut in_a_group = false;
        for entry in &self.entries {
            match entry.tag {
                AclTag::Owner if caller.uid == attributes.uid => return grants(entry.permissions),
                AclTag::User(uid) if caller.uid == uid => return grants(entry.permissions & mask),
                AclTag::OwningGroup if caller.in_group(attributes.gid) => {
                    in_a_group = true;
                    if grants(entry.permissions) {
                        return grants(mask);
                    }
                }
                AclTag::Group(gid) if caller.in_group(gid) => {
                    in_a_group = true;
                    if grants(entry.permissions) {
                        return grants(mask);
                    }
                }
                AclTag::Others => return !in_a_group && grants(entry.permissions),
                _ => {}
            }
        }
        false
    }

    fn has_mask(&self) -> bool {
        self.entries.iter().any(|e| e.tag == AclTag::Mask)
    }
}

fn decode_entry(bytes: &[u8]) -> Result<AclEntry, AclError> {
    let code = u16::from_le_bytes([bytes[0], bytes[1]]);
    let permissions = u16::from_le_bytes([bytes[2], bytes[3]]);
    let id = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let tag = match code {
        1 => AclTag::Owner,
        2 => AclTag::User(id),
        4 => AclTag::OwningGroup,
        8 => AclTag::Group(id),
        16 => AclTag::Mask,
        32 => AclTag::Others,
        _ => return Err(AclError::Invalid),
    };
    let nobody = matches!(tag, AclTag::User(NO_ID) | AclTag::Group(NO_ID));
    if nobody || permissions > 7 {
        return Err(AclError::Invalid);
    }
    Ok(AclEntry { tag, permissions: permissions as u8 })
}

#[cfg(test)]
mod tests;
