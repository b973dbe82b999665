//! Placement as a whole: spread, balance, repair.
