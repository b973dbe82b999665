//! How the reference walks a path: symbolic links are followed as Linux does.

use crate::reference::{Kind, NodeId, Outcome, ROOT, Reference};

/// The longest name.
pub const NAME_MAX: usize = 255;
/// So many symbolic links are followed.
const LINKS_MAX: u32 = 40;

/// Where a path leads.
pub struct Place {
    /// The directory with its last name,
    pub dir: NodeId,
    pub name: String,
    /// and what that is there.
    pub node: Option<NodeId>,
}

impl Reference {
    /// Where a path leads; `follow` a symbolic link at its end, too.
    pub fn walk(&self, path: &str, follow: bool) -> Outcome<Place> {
        let mut links = 0;
        self.walk_from(ROOT, path, follow, &mut links)
    }

    /// The same, for what must be there.
    pub fn find(&self, path: &str, follow: bool) -> Outcome<NodeId> {
        self.walk(path, follow)?.node.ok_or(libc::ENOENT)
    }

    fn walk_from(&self, from: NodeId, path: &str, follow: bool, links: &mut u32) -> Outcome<Place> {
        let mut dir = from;
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            let last = names.peek().is_none();
            if self.nodes[&dir].kind != Kind::Directory {
                return Err(libc::ENOTDIR);
            }
            if name.len() > NAME_MAX {
                return Err(libc::ENAMETOOLONG);
            }
            let node = match name {
                "." => Some(dir),
                _ => self.nodes[&dir].entries.get(name).copied(),
            };
            let link = node.filter(|node| self.nodes[node].kind == Kind::Symlink);
            if let Some(link) = link.filter(|_| !last || follow) {
                *links += 1;
                if *links > LINKS_MAX {
                    return Err(libc::ELOOP);
                }
                let place = self.walk_from(dir, &self.nodes[&link].target, true, links)?;
                if last {
                    return Ok(place);
                }
                dir = place.node.ok_or(libc::ENOENT)?;
                continue;
            }
            if last {
                return Ok(Place { dir, name: name.to_owned(), node });
            }
            dir = node.ok_or(libc::ENOENT)?;
        }
        Err(libc::ENOENT)
    }
}
