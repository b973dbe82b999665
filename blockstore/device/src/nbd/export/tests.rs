use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use super::*;
use crate::io::{Done, ReadDone, StatusDone};

/// A volume in memory of whole blocks only. Answers wait until they are asked for, and come in any
/// order.
struct Slow {
    bytes: Mutex<Vec<u8>>,
    waiting: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    flushes: AtomicU64,
}

impl Slow {
    fn new(blocks: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: Mutex::new(vec![0; blocks * BLOCK as usize]),
            waiting: Mutex::default(),
            flushes: AtomicU64::new(0),
        })
    }

    fn later(&self, what: impl FnOnce() + Send + 'static) {
        self.waiting.lock().push(Box::new(what));
    }

    /// Has one of those that wait answered; `false` if there is none.
    fn answer(&self, which: usize) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() {
            return false;
        }
        let at = which % waiting.len();
        let what = waiting.swap_remove(at);
        drop(waiting);
        what();
        true
    }
}

impl BlockIo for Slow {
    fn size_bytes(&self) -> u64 {
        self.bytes.lock().len() as u64
    }

    fn read(&self, offset: u64, length: u32, done: ReadDone) {
        assert!(length <= PIECE as u32);
        let found = self.bytes.lock()[self.range_of(offset, length.into())].to_vec();
        let pieces = found.chunks(4096).map(Bytes::copy_from_slice).collect();
        self.later(move || done(Ok(pieces)));
    }

    fn write(&self, offset: u64, data: Bytes, _fua: bool, done: Done) {
        assert!(data.len() <= PIECE);
        let range = self.range_of(offset, data.len() as u64);
        self.bytes.lock()[range].copy_from_slice(&data);
        self.later(move || done(Ok(())));
    }

    fn flush(&self, done: Done) {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.later(move || done(Ok(())));
    }

    fn discard(&self, offset: u64, length: u64, done: Done) {
        self.write_zeroes(offset, length, done);
    }

    fn write_zeroes(&self, offset: u64, length: u64, done: Done) {
        let range = self.range_of(offset, length);
        self.bytes.lock()[range].fill(0);
        self.later(move || done(Ok(())));
    }

    fn status(&self, offset: u64, length: u64, done: StatusDone) {
        let bytes = self.bytes.lock()[self.range_of(offset, length)].to_vec();
        let blocks = bytes.chunks(4096);
        let extents = blocks
            .map(|block| Extent { length: BLOCK, hole: block.iter().all(|byte| *byte == 0) })
            .collect();
        self.later(move || done(Ok(extents)));
    }
}

impl Slow {
    /// The range, checked before the bytes are locked.
    fn range_of(&self, offset: u64, length: u64) -> Range<usize> {
        assert!(offset.is_multiple_of(BLOCK) && length.is_multiple_of(BLOCK) && length > 0);
        offset as usize..(offset + length) as usize
    }
}

type Answers = Arc<Mutex<Vec<Result<Outcome, IoError>>>>;

fn ask(export: &Arc<Export>, work: Work) -> Answers {
    let answers = Answers::default();
    let told = Arc::clone(&answers);
    export.perform(work, Box::new(move |result| told.lock().push(result)));
    answers
}

fn data(answers: &Answers) -> Vec<u8> {
    match answers.lock().pop() {
        Some(Ok(Outcome::Data(pieces))) => pieces.concat(),
        other => panic!("{other:?}"),
    }
}

fn write(offset: u64, length: usize, byte: u8) -> Work {
    Work::Write { offset, data: Bytes::from(vec![byte; length]), fua: false }
}

#[test]
fn two_writes_into_one_block_both_take_effect() {
    let io = Slow::new(4);
    let export = Export::new("db", io.clone(), false);
    let first = ask(&export, write(0, 512, 1));
    let second = ask(&export, write(512, 512, 2));
    // A whole block over both, sent while they are under way, comes after them.
    let third = ask(&export, write(0, 4096, 3));
    let fourth = ask(&export, write(4000, 200, 4));
    while io.answer(7) {}
    for answers in [first, second, third, fourth] {
        assert!(matches!(answers.lock()[..], [Ok(Outcome::Done)]));
    }
    let bytes = io.bytes.lock();
    assert!(bytes[..4000].iter().all(|byte| *byte == 3));
    assert!(bytes[4000..4200].iter().all(|byte| *byte == 4));
    assert!(bytes[4200..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_failed_export_begins_nothing_that_waited() {
    let io = Slow::new(1);
    let export = Export::new("db", io.clone(), false);
    let first = ask(&export, write(0, 10, 1));
    let second = ask(&export, write(0, 4096, 2));
    export.fail();
    while io.answer(0) {}
    assert!(matches!(first.lock()[..], [Ok(Outcome::Done)]), "it had begun");
    assert!(matches!(second.lock()[..], [Err(IoError::Fenced)]));
    assert!(matches!(ask(&export, Work::Flush).lock()[..], [Err(IoError::Fenced)]));
    assert_eq!(io.bytes.lock()[100], 0);
}

#[test]
fn fua_of_what_has_none_flushes_afterwards() {
    let io = Slow::new(4);
    let export = Export::new("db", io.clone(), false);
    for work in [
        Work::Trim { offset: 0, length: 4096, fua: true },
        Work::WriteZeroes { offset: 0, length: 4096, fua: true },
    ] {
        let answers = ask(&export, work);
        assert_eq!(io.flushes.load(Ordering::SeqCst), 0);
        assert!(io.answer(0));
        assert_eq!(io.flushes.swap(0, Ordering::SeqCst), 1);
        assert!(answers.lock().is_empty());
        assert!(io.answer(0));
        assert!(matches!(answers.lock()[..], [Ok(Outcome::Done)]));
    }
}

#[test]
fn holes_are_told_in_bytes_of_the_request() {
    let io = Slow::new(8);
    let export = Export::new("db", io.clone(), false);
    io.bytes.lock()[2 * 4096] = 1;
    let asked = |offset, length, one| {
        let answers = ask(&export, Work::BlockStatus { offset, length, one });
        while io.answer(0) {}
        match answers.lock().pop() {
            Some(Ok(Outcome::Status(extents))) => {
                extents.iter().map(|e| (e.length, e.hole)).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(asked(0, 8 * 4096, false), [(8192, true), (4096, false), (5 * 4096, true)]);
    assert_eq!(asked(100, 8192, false), [(8092, true), (100, false)]);
    assert_eq!(asked(100, 8192, true), [(8092, true)]);
    assert_eq!(asked(8192 + 5, 1, false), [(1, false)]);
}

#[test]
fn thousands_of_changes_of_one_block_need_no_deeper_stack() {
    let io = Slow::new(1);
    let export = Export::new("db", io.clone(), false);
    let answers: Vec<Answers> = (0..5_000).map(|i| ask(&export, write(i % 4000, 1, 9))).collect();
    while io.answer(0) {}
    assert!(answers.iter().all(|answers| answers.lock().len() == 1));
}

fn work() -> impl Strategy<Value = Work> {
    const SIZE: u64 = 6 * BLOCK;
    let range = (0..SIZE, 1..=3 * BLOCK, any::<bool>()).prop_map(|(offset, length, whole)| {
        let (offset, length) = if whole {
            (offset / BLOCK * BLOCK, length.next_multiple_of(BLOCK))
        } else {
            (offset, length)
        };
        (offset, length.min(SIZE - offset) as u32)
    });
    prop_oneof![
        (range.clone(), 1..=255_u8).prop_map(|((offset, length), byte)| write(
            offset,
            length as usize,
            byte
        )),
        (range.clone(), any::<bool>()).prop_map(|((offset, length), fua)| Work::WriteZeroes {
            offset,
            length,
            fua
        }),
        range.prop_map(|(offset, length)| Work::Read { offset, length }),
        Just(Work::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Changes of any bytes, many in flight, answered in any order: what they leave is what they would
    /// have left one after the other, in the order in which they were sent.
    #[test]
    fn changes_of_any_bytes_are_as_if_one_after_the_other(
        works in vec(work(), 1..40),
        order in vec(any::<usize>(), 1..50),
    ) {
        let io = Slow::new(6);
        let export = Export::new("db", io.clone(), false);
        let mut model = vec![0_u8; 6 * BLOCK as usize];
        let mut order = order.iter().cycle();
        let mut answers = Vec::new();
        for work in works {
            match &work {
                Work::Write { offset, data, .. } => {
                    model[*offset as usize..][..data.len()].copy_from_slice(data);
                }
                Work::WriteZeroes { offset, length, .. } => {
                    model[*offset as usize..][..*length as usize].fill(0);
                }
                _ => {}
            }
            answers.push(ask(&export, work));
            let which = *order.next().unwrap();
            if which % 2 == 0 {
                io.answer(which / 2);
            }
        }
        while io.answer(*order.next().unwrap()) {}
        for answers in &answers {
            assert_eq!(answers.lock().len(), 1);
        }
        assert!(*io.bytes.lock() == model);
        let read = ask(&export, Work::Read { offset: 1, length: 9999 });
        while io.answer(0) {}
        assert!(data(&read) == model[1..10_000]);
    }
}
