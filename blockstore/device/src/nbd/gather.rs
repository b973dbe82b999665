//! One answer out of the answers to several parts.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::io::IoError;

type Finish<T> = Box<dyn FnOnce(Result<Vec<T>, IoError>) + Send>;

/// The duty to answer one part. Dropped without an answer, it leaves the whole unanswered, as the
/// contract of `BlockIo` has it.
pub(super) struct Part<T> {
    index: usize,
    whole: Arc<Mutex<Whole<T>>>,
}

struct Whole<T> {
    parts: Vec<Option<T>>,
    missing: usize,
    error: Option<IoError>,
    finish: Option<Finish<T>>,
}

/// `count` parts, at least one; when all are answered, `finish` gets what they gave, in order, or one
/// of their errors.
pub(super) fn gather<T: Send + 'static>(
    count: usize,
    finish: impl FnOnce(Result<Vec<T>, IoError>) + Send + 'static,
) -> impl Iterator<Item = Part<T>> {
    let whole = Arc::new(Mutex::new(Whole {
        parts: (0..count).map(|_| None).collect(),
        missing: count,
        error: None,
        finish: Some(Box::new(finish)),
    }));
    (0..count).map(move |index| Part { index, whole: Arc::clone(&whole) })
}

impl<T> Part<T> {
    /// Answers this part, and the whole if it was the last.
    pub(super) fn answer(self, result: Result<T, IoError>) {
        let mut whole = self.whole.lock();
        whole.missing -= 1;
        match result {
            Ok(value) => whole.parts[self.index] = Some(value),
            Err(error) => whole.error = Some(error),
        }
        if whole.missing > 0 {
            return;
        }
        let parts: Vec<T> = std::mem::take(&mut whole.parts).into_iter().flatten().collect();
        let result = whole.error.map_or(Ok(parts), Err);
        let finish = whole.finish.take();
        drop(whole);
        if let Some(finish) = finish {
            finish(result);
        }
    }
}
