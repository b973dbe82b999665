//! What /sys says of the kernel's NBD devices. Nothing here asks a device itself: its server may be us.

use std::fs;
use std::io;
use std::path::PathBuf;

/// How often the kernel looks for requests whose connection was replaced, in milliseconds.
const LOOK_EVERY: &str = "1000";

/// What it looks after at most while a device is in use.
fn directory(index: u32) -> PathBuf {
    PathBuf::from(format!("/sys/block/nbd{index}"))
}

/// The node of device `index`.
pub(super) fn node(index: u32) -> PathBuf {
    PathBuf::from(format!("/dev/nbd{index}"))
}

/// Who made it: what was given as its identifier; `None` if it is not in use, or was made without one.
pub(super) fn identifier(index: u32) -> Option<String> {
    let told = fs::read_to_string(directory(index).join("backend")).ok()?;
    Some(told.trim_end_matches('\n').to_owned()).filter(|told| !told.is_empty())
}

/// Every device that is in use, with its identifier.
///
/// # Errors
/// What reading /sys/block says.
pub(super) fn all() -> io::Result<Vec<(u32, String)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix("nbd"));
        let Some(index) = digits.and_then(|digits| digits.parse().ok()) else { continue };
        all.extend(identifier(index).map(|identifier| (index, identifier)));
    }
    Ok(all)
}

/// Major and minor number.
///
/// # Errors
/// What reading says; `InvalidData` for what isn't two numbers.
pub(super) fn numbers(index: u32) -> io::Result<(u32, u32)> {
    let told = fs::read_to_string(directory(index).join("dev"))?;
    let numbers = told.trim().split_once(':');
    let numbers =
        numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The size that users see, in bytes; 0 if there is no device.
pub(super) fn size_bytes(index: u32) -> u64 {
    let told = fs::read_to_string(directory(index).join("size")).unwrap_or_default();
    // Always counted in 512 bytes.
    told.trim().parse::<u64>().unwrap_or(0) * 512
}

/// Has the kernel send requests of a replaced connection again soon.
///
/// # Errors
/// What writing says.
pub(super) fn look_often(index: u32) -> io::Result<()> {
    fs::write(directory(index).join("queue/io_timeout"), LOOK_EVERY)
}
