//! `mountctl decode`: a pool's files, read without a daemon.

use std::io;
use std::path::Path;

use crate::failure::Failure;
use crate::output::Output;

/// Says what stands in `file`, a line an item; with JSON a list of these lines.
///
/// # Errors
/// If it can't be read, or isn't a plain file: a whole device would not fit into memory.
pub fn run(output: &Output, file: &Path) -> Result<(), Failure> {
    let failed = |source| Failure::PoolFile { path: file.to_owned(), source };
    if !std::fs::metadata(file).map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file")));
    }
    let text = mooring_engine::decode::file(file).map_err(failed)?;
    let lines: Vec<&str> = text.lines().collect();
    output.answer(&lines, |lines, _| lines.join("\n"))
}
