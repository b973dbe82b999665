//! Placeholder.
pub mod hosts;
