//! Placeholder.
pub mod hosts;
pub mod sim;
