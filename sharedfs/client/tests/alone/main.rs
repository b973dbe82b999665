//! What a client does by itself in directories that are its own, held against the coordinator: it answers
//! what the coordinator would, and the coordinator does what was answered.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod rig;

use std::time::Duration;

use mooring_sharedfs_client::{HandleId, KernelOperation as K, KernelReply};
use mooring_sharedfs_core::coordinator::Operation;
use mooring_sharedfs_core::ops::{Make, New, RenameMode, SetAttributes, SetTime};
use mooring_sharedfs_core::{
    Access, Attributes, Caller, Cookie, FileType, FsError, Ino, Mode, Name, Timestamp,
};
use rig::Rig;

const ROOT: Caller = Caller::ROOT;

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn make(new: New) -> Make {
    Make { new, mode: Mode::new(0o755), umask: Mode::new(0o022) }
}

fn mkdir(rig: &mut Rig, dir: Ino, text: &str) -> Ino {
    let operation = K::Make { dir, name: name(text), make: make(New::Directory) };
    match rig.ask(0, &ROOT, operation) {
        KernelReply::Entry(entry) => entry.attributes.ino,
        other => panic!("{other:?}"),
    }
}

fn creates(dir: Ino, text: &str) -> K {
    let modes = (Mode::new(0o644), Mode::new(0o022));
    let access = Access::READ.and(Access::WRITE);
    K::Create { dir, name: name(text), modes, exclusive: false, access }
}

fn create(rig: &mut Rig, dir: Ino, text: &str) -> (Ino, HandleId) {
    match rig.ask(0, &ROOT, creates(dir, text)) {
        KernelReply::Created(entry, handle, _) => (entry.attributes.ino, handle),
        other => panic!("{other:?}"),
    }
}

fn writes(handle: HandleId, count: usize) -> K {
    K::Write {
        handle,
        offset: 0,
        bytes: vec![7; count].into(),
        append: false,
        cached: false,
        kill_privileges: true,
        sync: false,
    }
}

/// Has the client ask for what it uses much of: numbers of inodes, and blocks.
fn reserve(rig: &mut Rig, dir: Ino) {
    let (_, handle) = create(rig, dir, "first");
    rig.ask(0, &ROOT, writes(handle, 100));
    rig.ask(0, &ROOT, K::Flush { handle, owner: 1 });
    rig.ask(0, &ROOT, K::Release { handle, flock: None });
    rig.pass(Duration::from_millis(100));
}

fn lookup(rig: &mut Rig, client: usize, dir: Ino, text: &str) -> Option<Attributes> {
    match rig.ask(client, &ROOT, K::Lookup { dir, name: name(text) }) {
        KernelReply::Entry(entry) => Some(entry.attributes),
        KernelReply::NoEntry(_) => None,
        other => panic!("{other:?}"),
    }
}

/// A directory with what is in it, by name and place.
fn list(rig: &mut Rig, client: usize, dir: Ino) -> Vec<(Cookie, Name, Ino)> {
    let KernelReply::OpenedDirectory(handle, _) = rig.ask(client, &ROOT, K::Opendir { dir }) else {
        panic!("not opened")
    };
    let mut all = Vec::new();
    let mut after = Cookie::DOT_DOT;
    loop {
        let page = K::Readdir { handle, after, limit: 3, plus: all.len() % 2 == 0 };
        match rig.ask(client, &ROOT, page) {
            KernelReply::Directory(items) if items.is_empty() => break,
            KernelReply::Directory(items) => {
                after = items.last().unwrap().cookie;
                all.extend(items.into_iter().map(|item| (item.cookie, item.name, item.ino)));
            }
            other => panic!("{other:?}"),
        }
    }
    rig.ask(client, &ROOT, K::Release { handle, flock: None });
    all
}

#[test]
fn a_thousand_files_are_made_and_removed_in_batches() {
    let mut rig = Rig::new(1, true);
    let dir = mkdir(&mut rig, Ino::ROOT, "d");
    rig.requests.clear();
    for file in 0..1000 {
        let (_, handle) = create(&mut rig, dir, &format!("f{file}"));
        rig.ask(0, &ROOT, writes(handle, 100));
        assert_eq!(rig.ask(0, &ROOT, K::Flush { handle, owner: 1 }), KernelReply::Done);
        rig.ask(0, &ROOT, K::Release { handle, flock: None });
    }
    assert_eq!(list(&mut rig, 0, dir).len(), 1000);
    for file in 0..1000 {
        let unlink = K::Unlink { dir, name: name(&format!("f{file}")) };
        assert_eq!(rig.ask(0, &ROOT, unlink), KernelReply::Done);
    }
    let rmdir = K::Rmdir { dir: Ino::ROOT, name: name("d") };
    assert_eq!(rig.ask(0, &ROOT, rmdir), KernelReply::Done);
    rig.pass(Duration::from_millis(100));
    assert!(rig.requests.len() < 20, "{:?}", rig.requests);
    assert!(rig.steps >= 3000, "{}", rig.steps);
    assert_eq!((rig.refused, rig.stored(dir)), (0, None));
    rig.check();
}

#[test]
fn an_fsync_waits_for_what_was_done_before() {
    let mut rig = Rig::new(1, true);
    let dir = mkdir(&mut rig, Ino::ROOT, "d");
    reserve(&mut rig, dir);
    rig.held = true;
    let (ino, handle) = create(&mut rig, dir, "f");
    rig.ask(0, &ROOT, writes(handle, 100));
    let id = rig.begin(0, &ROOT, K::Fsync { handle });
    assert_eq!((rig.reply(0, id), rig.stored(ino)), (None, None));
    rig.let_go();
    assert_eq!(rig.reply(0, id), Some(KernelReply::Done));
    assert_eq!(rig.stored(ino).unwrap().size, 100);
}

#[test]
fn the_first_touch_of_another_client_sees_all_that_was_done() {
    let mut rig = Rig::new(2, true);
    let dir = mkdir(&mut rig, Ino::ROOT, "d");
    reserve(&mut rig, dir);
    let below = mkdir(&mut rig, dir, "below");
    rig.held = true;
    let (ino, handle) = create(&mut rig, below, "f");
    rig.ask(0, &ROOT, writes(handle, 10_000));
    let set = SetAttributes { mode: Some(Mode::new(0o600)), ..SetAttributes::default() };
    rig.ask(0, &ROOT, K::Setattr { ino, set });
    assert_eq!(rig.stored(below), None, "nothing has arrived");
    rig.held = false;
    let told = lookup(&mut rig, 1, dir, "below").unwrap();
    assert_eq!((told.ino, told.links), (below, 2));
    // By its number alone, as whoever has it open does.
    let KernelReply::Attributes(told, _) = rig.ask(1, &ROOT, K::Getattr { ino: below }) else {
        panic!("not told")
    };
    assert_eq!(told.ino, below);
    let seen = lookup(&mut rig, 1, below, "f").unwrap();
    assert_eq!((seen.ino, seen.size, seen.mode), (ino, 10_000, Mode::new(0o600)));
    let unlink = K::Unlink { dir: below, name: name("f") };
    assert_eq!(rig.ask(1, &ROOT, unlink), KernelReply::Done);
    assert_eq!(lookup(&mut rig, 0, below, "f"), None);
    assert_eq!(rig.refused, 0);
    rig.check();
}

#[test]
fn a_directory_that_was_there_is_taken_with_all_that_is_in_it() {
    let mut rig = Rig::new(2, true);
    let dir = mkdir(&mut rig, Ino::ROOT, "d");
    for file in 0..20 {
        let (_, handle) = create(&mut rig, dir, &format!("f{file}"));
        rig.ask(0, &ROOT, K::Release { handle, flock: None });
    }
    assert_eq!(list(&mut rig, 1, dir).len(), 20);
    rig.pass(Duration::from_secs(3));
    // The other one works there now.
    for file in 0..20 {
        lookup(&mut rig, 1, dir, &format!("f{file}"));
        let unlink = K::Unlink { dir, name: name(&format!("f{file}")) };
        assert_eq!(rig.ask(1, &ROOT, unlink), KernelReply::Done);
    }
    assert_eq!(list(&mut rig, 0, dir), vec![]);
    assert_eq!(rig.refused, 0);
    rig.check();
}

/// What can be said of an answer without numbers of inodes.
fn shown(reply: &KernelReply) -> String {
    let of = |a: &Attributes| {
        let what = (a.file_type, a.mode, a.uid, a.gid, a.links, a.size, a.blocks);
        format!("{what:?} {:?}", (a.atime, a.mtime, a.btime))
    };
    match reply {
        KernelReply::Entry(entry) | KernelReply::Created(entry, ..) => of(&entry.attributes),
        KernelReply::Attributes(attributes, _) => of(attributes),
        KernelReply::Opened(..) => "opened".to_owned(),
        KernelReply::NoEntry(_) => format!("{:?}", FsError::NotFound),
        other => format!("{other:?}"),
    }
}

/// Two volumes on which the same is done: on one alone, on the other through the coordinator.
struct Twins {
    rigs: [Rig; 2],
    seed: u64,
}

impl Twins {
    fn roll(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) % below
    }

    /// A directory below the root, on both, if it is there on both.
    fn dir(&mut self) -> Option<[Ino; 2]> {
        let text = format!("d{}", self.roll(3));
        let [a, b] = &mut self.rigs;
        let found = [lookup(a, 0, Ino::ROOT, &text), lookup(b, 0, Ino::ROOT, &text)];
        assert_eq!(found[0].is_some(), found[1].is_some(), "{text}");
        Some([found[0]?.ino, found[1]?.ino])
    }

    fn name(&mut self) -> Name {
        name(&format!("n{}", self.roll(5)))
    }

    fn caller(&mut self) -> Caller {
        if self.roll(4) == 0 { Caller::user(1000, 1000) } else { Caller::ROOT }
    }

    fn both(&mut self, caller: &Caller, operations: [K; 2]) -> Option<[KernelReply; 2]> {
        let [first, second] = operations;
        let story = format!("{first:?}");
        let a = self.rigs[0].ask(0, caller, first);
        let b = self.rigs[1].ask(0, caller, second);
        assert_eq!(shown(&a), shown(&b), "{story}");
        (!matches!(a, KernelReply::Error(_) | KernelReply::NoEntry(_))).then_some([a, b])
    }

    fn found(&mut self, dirs: [Ino; 2], name: &Name) -> Option<[Ino; 2]> {
        let lookups = dirs.map(|dir| K::Lookup { dir, name: name.clone() });
        let found = self.both(&ROOT, lookups)?;
        let ino = |reply: &KernelReply| match reply {
            KernelReply::Entry(entry) => entry.attributes.ino,
            other => panic!("{other:?}"),
        };
        Some([ino(&found[0]), ino(&found[1])])
    }

    fn step(&mut self) {
        let Some(dirs) = self.dir() else {
            let name = name(&format!("d{}", self.roll(3)));
            let make = Make { mode: Mode::new(0o777), umask: Mode::new(0), ..make(New::Directory) };
            let one = |dir| K::Make { dir, name: name.clone(), make: make.clone() };
            self.both(&ROOT, [one(Ino::ROOT), one(Ino::ROOT)]);
            return;
        };
        let (first, caller) = (self.name(), self.caller());
        match self.roll(16) {
            0..4 => self.create_and_write(dirs, &first, &caller),
            4 | 5 => {
                let new = match self.roll(3) {
                    0 => New::Directory,
                    1 => New::Symlink(b"target".to_vec()),
                    _ => New::Fifo,
                };
                let make = make(new);
                let one = |dir| K::Make { dir, name: first.clone(), make: make.clone() };
                self.both(&caller, dirs.map(one));
            }
            6 | 7 => {
                self.both(&caller, dirs.map(|dir| K::Unlink { dir, name: first.clone() }));
            }
            8 => {
                self.both(&caller, dirs.map(|dir| K::Rmdir { dir, name: first.clone() }));
            }
            9 | 10 => {
                let Some(to) = self.dir() else { return };
                let second = self.name();
                let mode = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange]
                    [self.roll(3) as usize];
                let one = |i: usize| {
                    let (from, to) = ((dirs[i], first.clone()), (to[i], second.clone()));
                    K::Rename { from, to, mode }
                };
                self.both(&caller, [one(0), one(1)]);
            }
            11 => {
                let Some(inos) = self.found(dirs, &first) else { return };
                let second = self.name();
                let one = |i: usize| K::Link { ino: inos[i], dir: dirs[i], name: second.clone() };
                self.both(&caller, [one(0), one(1)]);
            }
            12 | 13 => self.set(dirs, &first, &caller),
            _ => {
                if let Some(inos) = self.found(dirs, &first) {
                    self.both(&ROOT, inos.map(|ino| K::Getattr { ino }));
                }
            }
        }
    }

    fn create_and_write(&mut self, dirs: [Ino; 2], name: &Name, caller: &Caller) {
        let text = String::from_utf8(name.as_bytes().to_vec()).unwrap();
        let Some(opened) = self.both(caller, dirs.map(|dir| creates(dir, &text))) else { return };
        // A kernel writes nothing into what it has found to be something else.
        let file = matches!(&opened[0], KernelReply::Created(entry, ..)
            if entry.attributes.file_type == FileType::Regular);
        let handles = opened.map(|opened| match opened {
            KernelReply::Created(_, handle, _) => handle,
            other => panic!("{other:?}"),
        });
        if file && self.roll(3) > 0 {
            let count = [10, 4096, 4097, 20_000][self.roll(4) as usize];
            self.both(caller, handles.map(|handle| writes(handle, count)));
        }
        if self.roll(3) == 0 {
            self.set(dirs, name, caller);
        }
        if self.roll(4) == 0 {
            self.both(caller, dirs.map(|dir| K::Unlink { dir, name: name.clone() }));
        }
        self.both(caller, handles.map(|handle| K::Flush { handle, owner: 1 }));
        self.both(caller, handles.map(|handle| K::Release { handle, flock: None }));
    }

    fn set(&mut self, dirs: [Ino; 2], name: &Name, caller: &Caller) {
        let Some(inos) = self.found(dirs, name) else { return };
        let mut set = SetAttributes::default();
        match self.roll(5) {
            0 => set.mode = Some(Mode::new([0o600, 0o4755, 0o2755][self.roll(3) as usize])),
            1 => (set.uid, set.gid) = (Some(1000), Some(1000)),
            2 => set.mtime = SetTime::At(Timestamp { seconds: 12, nanoseconds: 5 }),
            3 => (set.atime, set.mtime) = (SetTime::Now, SetTime::Now),
            _ => set.size = Some(self.roll(6000)),
        }
        self.both(caller, inos.map(|ino| K::Setattr { ino, set }));
    }

    /// Whatever the first client says of the first volume, a second one sees.
    fn compare(&mut self) {
        // What is written is committed by then.
        self.rigs.iter_mut().for_each(|rig| rig.pass(Duration::from_millis(600)));
        let rig = &mut self.rigs[0];
        for dir in 0..3 {
            let Some(of) = lookup(rig, 0, Ino::ROOT, &format!("d{dir}")) else { continue };
            let here = list(rig, 0, of.ino);
            let mut told = Vec::new();
            for (_, _, ino) in here.iter().chain([&(Cookie(0), name("itself"), of.ino)]) {
                let KernelReply::Attributes(at, _) = rig.ask(0, &ROOT, K::Getattr { ino: *ino })
                else {
                    panic!("not told")
                };
                told.push(at);
            }
            assert_eq!(list(rig, 1, of.ino), here);
            for told in told {
                let KernelReply::Attributes(seen, _) =
                    rig.ask(1, &ROOT, K::Getattr { ino: told.ino })
                else {
                    panic!("not told")
                };
                assert_eq!(seen, told);
            }
        }
        let now = self.rigs[0].now.max(self.rigs[1].now);
        self.rigs.iter_mut().for_each(|rig| rig.now = now);
    }
}

#[test]
fn what_is_done_alone_is_what_the_coordinator_would_do() {
    let mut steps = 0;
    for seed in 1..40_u64 {
        let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut twins = Twins { rigs: [Rig::new(2, true), Rig::new(2, false)], seed };
        for round in 0..150 {
            twins.step();
            if twins.roll(40) == 0 {
                twins.compare();
            }
            if round % 20 == 19 {
                // Whoever was refused may ask again.
                twins.rigs.iter_mut().for_each(|rig| rig.pass(Duration::from_secs(2)));
            }
        }
        twins.compare();
        for rig in &mut twins.rigs {
            rig.pass(Duration::from_secs(3));
            rig.check();
            assert_eq!(rig.refused, 0);
        }
        assert_eq!(twins.rigs[1].steps, 0);
        steps += twins.rigs[0].steps;
    }
    println!("{steps} steps were done alone");
    assert!(steps > 2000, "{steps} steps are too few to say anything");
}

#[test]
fn what_another_makes_there_first_is_not_made_again() {
    let mut rig = Rig::new(2, true);
    let dir = mkdir(&mut rig, Ino::ROOT, "d");
    let made = K::Make { dir, name: name("x"), make: make(New::Fifo) };
    assert!(matches!(rig.ask(1, &ROOT, made.clone()), KernelReply::Entry(_)));
    assert_eq!(rig.ask(0, &ROOT, made), KernelReply::Error(FsError::Exists));
    let removed = rig.requests.iter().filter(|o| matches!(o, Operation::Make { .. })).count();
    assert!(removed >= 2);
}
