//! What the tests of the whole stand on: simulated hosts with real processes, and the simulator.

pub mod hosts;
pub mod sim;
