//! What is done next: by chance, but mostly what makes sense, and where something was just changed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::action::{Action, Call, How, Moves, Space};
use crate::reference::{Kind, MAPPED, NodeId, OpenFile, ROOT, Reference};

/// Files open on one host.
const OPEN_MAX: usize = 5;
/// More nodes than these, and more is removed than made.
const NODES_MAX: usize = 50;
/// Files grow to about this size.
const SIZE_MAX: u64 = 200_000;

/// Chooses calls out of one seed.
pub struct Chooser {
    rng: StdRng,
    hosts: usize,
    host: usize,
    /// Of a hundred calls, after so many another host goes on.
    turns: u64,
    last_file: u32,
    /// What was changed last, by name or as a node.
    changed: Option<(Option<String>, Option<NodeId>)>,
    /// Whether programs write through mappings.
    mappings: bool,
}

impl Chooser {
    pub fn new(seed: u64, hosts: usize, mappings: bool) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { rng, hosts, host: 0, turns: 10, last_file: 0, changed: None, mappings }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.rng.random_range(0..end)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() { None } else { Some(of[self.below(of.len() as u64) as usize]) }
    }

    /// The next call.
    pub fn next(&mut self, reference: &Reference) -> Action {
        // Where one host is left alone for a while, it caches; where all take turns, none does.
        if self.percent(1) {
            self.turns = [2, 10, 50][self.below(3) as usize];
        }
        if self.percent(self.turns) {
            self.host = self.below(self.hosts as u64) as usize;
        }
        if let Some(changed) = self.changed.take()
            && self.percent(55)
            && let Some(action) = self.look_at(reference, &changed)
        {
            if self.percent(40) {
                self.changed = Some(changed);
            }
            return action;
        }
        if self.percent(1) && self.percent(40) {
            let milliseconds = [50, 300, 1200][self.below(3) as usize];
            return Action { host: self.host, call: Call::Pause { milliseconds } };
        }
        let mut action = match self.below(100) {
            0..45 => self.on_file(reference),
            45..85 => self.on_names(reference),
            _ => self.anywhere(reference),
        };
        if let Some(OpenFile { host, .. }) =
            file_of(&action.call).and_then(|f| reference.files.get(&f))
        {
            action.host = *host;
        }
        self.changed = Some(subject(&action.call, reference));
        action
    }

    fn here(&self, call: Call) -> Action {
        Action { host: self.host, call }
    }

    // -- names -----------------------------------------------------------------------------------

    fn directory(&mut self, reference: &Reference) -> (String, NodeId) {
        let (mut path, mut dir) = (String::new(), ROOT);
        for _ in 0..3 {
            let below: Vec<(&String, NodeId)> = reference.nodes[&dir]
                .entries
                .iter()
                .filter(|(_, node)| reference.nodes[node].kind == Kind::Directory)
                .map(|(name, node)| (name, *node))
                .collect();
            if !self.percent(45) {
                break;
            }
            let Some((name, node)) = self.pick(&below) else { break };
            path += name;
            path.push('/');
            dir = node;
        }
        (path, dir)
    }

    fn new_name(&mut self) -> String {
        match self.below(60) {
            0 => "n".repeat(254 + self.below(3) as usize),
            1 => "a/b/c".to_owned(),
            _ => char::from(b'a' + self.below(9) as u8).to_string(),
        }
    }

    /// A path that is there, mostly, and mostly of one of these kinds.
    fn old_path(&mut self, reference: &Reference, kinds: &[Kind]) -> String {
        let (path, dir) = self.directory(reference);
        let entries = &reference.nodes[&dir].entries;
        let fitting =
            entries.iter().filter(|(_, node)| kinds.contains(&reference.nodes[node].kind));
        let fitting: Vec<&String> = fitting.map(|(name, _)| name).collect();
        match self.pick(&fitting) {
            Some(name) if self.percent(95) => path + name,
            _ => path + &self.new_name(),
        }
    }

    fn any_path(&mut self, reference: &Reference) -> String {
        self.old_path(reference, &[Kind::Regular, Kind::Directory, Kind::Symlink, Kind::Fifo])
    }

    fn new_path(&mut self, reference: &Reference) -> String {
        let (path, _) = self.directory(reference);
        path + &self.new_name()
    }

    fn on_names(&mut self, reference: &Reference) -> Action {
        let crowded = reference.nodes.len() > NODES_MAX;
        let mode = [0o644, 0o600, 0o755, 0o555, 0o700][self.below(5) as usize];
        let call = match self.below(if crowded { 160 } else { 100 }) {
            0..15 => return self.open(reference),
            15..27 => Call::Mkdir { path: self.new_path(reference), mode },
            27..29 => Call::Mkfifo { path: self.new_path(reference), mode },
            29..35 => {
                let target = self.new_name();
                let below = ["", "./", "a/", "b/"][self.below(4) as usize];
                Call::Symlink { target: format!("{below}{target}"), path: self.new_path(reference) }
            }
            35..44 => {
                let from = self.old_path(reference, &[Kind::Regular, Kind::Symlink]);
                Call::Link { from, to: self.new_path(reference) }
            }
            44..64 => {
                let moves = match self.below(8) {
                    0 => Moves::NoReplace,
                    1 | 2 => Moves::Exchange,
                    _ => Moves::Replace,
                };
                let from = self.any_path(reference);
                let to = match self.percent(50) {
                    true => self.any_path(reference),
                    false => self.new_path(reference),
                };
                Call::Rename { from, to, moves }
            }
            64..70 => Call::Chmod { path: self.any_path(reference), mode },
            70..75 => {
                let (uid, gid) = (self.below(3) as u32 * 1000, self.below(3) as u32 * 100);
                Call::Chown { path: self.any_path(reference), uid, gid }
            }
            75..80 => {
                let path = self.any_path(reference);
                let mut time = || match self.percent(60) {
                    true => Some(self.below(2_000_000_000_000_000_000) as i64 - 500_000_000),
                    false => None,
                };
                Call::Times { path, atime: time(), mtime: time() }
            }
            80..84 => Call::Truncate {
                path: self.old_path(reference, &[Kind::Regular]),
                size: self.offset(),
            },
            84..92 => Call::Unlink {
                path: self.old_path(reference, &[Kind::Regular, Kind::Symlink, Kind::Fifo]),
            },
            92..98 => Call::Rmdir { path: self.old_path(reference, &[Kind::Directory]) },
            98..150 => Call::Unlink { path: self.any_path(reference) },
            _ => Call::Rmdir { path: self.any_path(reference) },
        };
        self.here(call)
    }

    fn anywhere(&mut self, reference: &Reference) -> Action {
        let name = format!("user.{}", ["a", "b", "c"][self.below(3) as usize]);
        let path = self.any_path(reference);
        let call = match self.below(10) {
            0..3 => {
                let length = self.below(300);
                Call::SetXattr { path, name, value: crate::action::bytes(length, length) }
            }
            3 => Call::RemoveXattr { path, name },
            _ => self.look_at_path(path),
        };
        self.here(call)
    }

    // -- open files ------------------------------------------------------------------------------

    fn open(&mut self, reference: &Reference) -> Action {
        let create = self.percent(60);
        let path = match create && self.percent(60) {
            true => self.new_path(reference),
            false => self.old_path(reference, &[Kind::Regular, Kind::Symlink]),
        };
        let write = create || self.percent(50);
        let how = How {
            read: !write || self.percent(80),
            write,
            append: write && self.percent(20),
            create,
            exclusive: create && self.percent(25),
            truncate: write && self.percent(20),
            sync: write && self.percent(5),
        };
        self.last_file += 1;
        self.here(Call::Open { file: self.last_file, path, how })
    }

    fn offset(&mut self) -> u64 {
        match self.below(10) {
            0..4 => self.below(300),
            4..7 => self.below(9_000),
            7 => self.below(SIZE_MAX),
            _ => self.below(16) * 4096,
        }
    }

    fn length(&mut self) -> u64 {
        1 + match self.below(20) {
            0..9 => self.below(200),
            9..15 => self.below(6_000),
            15..17 => 4095,
            17..19 => self.below(40_000),
            _ => self.below(SIZE_MAX),
        }
    }

    fn on_file(&mut self, reference: &Reference) -> Action {
        let here = reference.files.iter().filter(|(_, of)| of.host == self.host);
        let here: Vec<(u32, OpenFile)> = here.map(|(file, of)| (*file, *of)).collect();
        if here.len() < OPEN_MAX && self.percent(if here.len() < 2 { 60 } else { 12 }) {
            return self.open(reference);
        }
        let Some((file, of)) = self.pick(&here) else { return self.open(reference) };
        let size = reference.nodes[&of.node].contents.len() as u64;
        if size > SIZE_MAX {
            let size = self.offset();
            return self.here(Call::Ftruncate { file, size });
        }
        let (offset, length) = (self.offset(), self.length());
        let fill = self.below(255);
        let call = match self.below(100) {
            0..30 if of.how.append => Call::Append { file, length, fill },
            0..30 if of.how.write => Call::Write { file, offset, length, fill },
            0..45 => Call::Read { file, offset, length },
            45..53 => Call::Ftruncate { file, size: self.offset() },
            53..60 => {
                let space = [Space::Allocate, Space::AllocateKeep, Space::Punch, Space::Zero];
                let space = space[self.below(4) as usize];
                Call::Fallocate { file, space, offset, length }
            }
            60..66 => Call::Fsync { file, data: self.percent(50) },
            66..72 => self.map_read(file, size),
            72..78 if self.mappings => self.map_write(file, size),
            78..83 => Call::Seek { file, offset: self.below(size + 1), hole: self.percent(50) },
            83..86 => {
                let to = self.pick(&here).map_or(file, |(to, _)| to);
                Call::CopyRange { from: file, at: self.offset(), to, offset, length }
            }
            86..89 if reference.holds_flock(file) => Call::FlockFree { file },
            86..89 => Call::Flock { file, exclusive: self.percent(50) },
            89..93 => {
                let exclusive = [None, Some(true), Some(false)][self.below(3) as usize];
                let (first, length) = (self.below(16), 1 + self.below(16));
                Call::RangeLock { file, first, length, exclusive }
            }
            _ if reference.holds_flock(file) => Call::FlockFree { file },
            _ if reference.holds_ranges(file) => {
                Call::RangeLock { file, first: 0, length: 32, exclusive: None }
            }
            93..100 => Call::Close { file },
            _ => Call::Fstat { file },
        };
        self.here(call)
    }

    fn mapped_part(&mut self, size: u64) -> (u64, u64) {
        let size = size.min(MAPPED);
        let offset = self.offset() % size.max(1);
        (offset, self.length().min(5_000).min(size - offset.min(size)))
    }

    fn map_read(&mut self, file: u32, size: u64) -> Call {
        let (offset, length) = self.mapped_part(size);
        Call::MapRead { file, offset, length }
    }

    fn map_write(&mut self, file: u32, size: u64) -> Call {
        let (offset, length) = self.mapped_part(size);
        Call::MapWrite { file, offset, length, fill: self.below(255) }
    }

    // -- looking ---------------------------------------------------------------------------------

    fn look_at_path(&mut self, path: String) -> Call {
        match self.below(10) {
            0..3 => Call::Stat { path, follow: true },
            3..5 => Call::Stat { path, follow: false },
            5..8 => Call::ReadFile { path },
            8 => Call::Readlink { path },
            _ => match self.below(3) {
                0 => Call::ListXattr { path },
                1 => Call::GetXattr { path, name: "user.a".to_owned() },
                _ => Call::List { path },
            },
        }
    }

    /// Looks at what was just changed: from any host, by its name, its directory, or a file that is open.
    fn look_at(
        &mut self,
        reference: &Reference,
        (path, node): &(Option<String>, Option<NodeId>),
    ) -> Option<Action> {
        let open = reference.files.iter().filter(|(_, of)| Some(of.node) == *node);
        let open: Vec<(u32, OpenFile)> = open.map(|(file, of)| (*file, *of)).collect();
        if let Some((file, of)) = self.pick(&open)
            && self.percent(if path.is_some() { 40 } else { 75 })
        {
            let size = reference.nodes[&of.node].contents.len() as u64;
            let call = match self.below(10) {
                0..3 => Call::Fstat { file },
                3..5 => self.map_read(file, size),
                5 => Call::Read { file, offset: self.offset(), length: self.length() },
                _ => Call::Read { file, offset: 0, length: SIZE_MAX * 2 },
            };
            return Some(Action { host: of.host, call });
        }
        let host = self.below(self.hosts as u64) as usize;
        let path = match (path, node) {
            (Some(path), _) => path.clone(),
            (None, Some(node)) => path_of(reference, *node)?,
            (None, None) => return None,
        };
        let call = match self.below(8) {
            0 => {
                let above = path.rsplit_once('/').map_or(".", |(above, _)| above);
                match self.percent(50) {
                    true => Call::List { path: above.to_owned() },
                    false => Call::Stat { path: above.to_owned(), follow: true },
                }
            }
            _ => self.look_at_path(path),
        };
        Some(Action { host, call })
    }
}

/// One of a node's names.
fn path_of(reference: &Reference, node: NodeId) -> Option<String> {
    let mut all = Vec::new();
    all_paths(reference, ROOT, "", &mut all);
    all.into_iter().find(|(_, id)| *id == node).map(|(path, _)| path)
}

/// All names below a directory.
pub fn all_paths(reference: &Reference, dir: NodeId, above: &str, out: &mut Vec<(String, NodeId)>) {
    for (name, node) in &reference.nodes[&dir].entries {
        let path = format!("{above}{name}");
        out.push((path.clone(), *node));
        if reference.nodes[node].kind == Kind::Directory {
            all_paths(reference, *node, &format!("{path}/"), out);
        }
    }
}

/// The open file that a call is made on.
fn file_of(call: &Call) -> Option<u32> {
    match call {
        Call::Close { file }
        | Call::Read { file, .. }
        | Call::Write { file, .. }
        | Call::Append { file, .. }
        | Call::Ftruncate { file, .. }
        | Call::Fallocate { file, .. }
        | Call::Fsync { file, .. }
        | Call::Fstat { file }
        | Call::MapRead { file, .. }
        | Call::MapWrite { file, .. }
        | Call::Seek { file, .. }
        | Call::Flock { file, .. }
        | Call::FlockFree { file }
        | Call::RangeLock { file, .. }
        | Call::CopyRange { to: file, .. } => Some(*file),
        _ => None,
    }
}

/// What a call is about.
fn subject(call: &Call, reference: &Reference) -> (Option<String>, Option<NodeId>) {
    if let Some(file) = file_of(call) {
        return (None, reference.files.get(&file).map(|of| of.node));
    }
    let path = match call {
        Call::Open { path, .. }
        | Call::Truncate { path, .. }
        | Call::Mkdir { path, .. }
        | Call::Mkfifo { path, .. }
        | Call::Symlink { path, .. }
        | Call::Unlink { path }
        | Call::Rmdir { path }
        | Call::Chmod { path, .. }
        | Call::Chown { path, .. }
        | Call::Times { path, .. }
        | Call::SetXattr { path, .. }
        | Call::RemoveXattr { path, .. }
        | Call::Link { to: path, .. }
        | Call::Rename { to: path, .. } => path,
        _ => return (None, None),
    };
    (Some(path.clone()), reference.find(path, true).ok())
}
