//! The daemon of a Mooring node.

mod config;
mod filesystem;
mod mount_table;

fn main() {}
