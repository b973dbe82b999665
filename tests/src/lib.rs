//! What the tests of the whole stand on: simulated hosts with real processes, and the simulator.

pub mod fs_sim;
pub mod hosts;
pub mod sim;
