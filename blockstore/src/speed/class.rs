//! Which class figures belong to. Pure.
//!
//! | class | durable random writes | random reads | sequential reads | what is meant |
//! |---|---|---|---|---|
//! | high | >= 2,000 per s | >= 5,000 per s | >= 600 MiB/s | NVMe and the like |
//! | medium | >= 200 per s | >= 500 per s | | SATA flash, network disks |
//! | low | less | or less | | spinning disks |
//!
//! A spinning disk does 50 to 150 writes and 80 to 200 reads per second at queue depth 1; a write cache
//! before it hides the first and not the second. SATA ends at 530 MiB/s. Between, flash differs most in
//! what an fdatasync costs: 0.05 ms with a protected cache, 0.5 to 3 ms without.

use mooring_config::Class;

use super::Speed;

const HIGH: Speed =
    Speed { random_writes: 2_000, random_reads: 5_000, write_bytes: 0, read_bytes: 600 << 20 };
const MEDIUM: Speed =
    Speed { random_writes: 200, random_reads: 500, write_bytes: 0, read_bytes: 0 };

/// The class of storage that gave these figures.
#[must_use]
pub fn class_of(speed: &Speed) -> Class {
    if reaches(speed, &HIGH) {
        Class::High
    } else if reaches(speed, &MEDIUM) {
        Class::Medium
    } else {
        Class::Low
    }
}

fn reaches(speed: &Speed, least: &Speed) -> bool {
    speed.random_writes >= least.random_writes
        && speed.random_reads >= least.random_reads
        && speed.write_bytes >= least.write_bytes
        && speed.read_bytes >= least.read_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(random_writes: u64, random_reads: u64, read_mib: u64) -> Class {
        let read_bytes = read_mib << 20;
        class_of(&Speed { random_writes, random_reads, write_bytes: 100 << 20, read_bytes })
    }

    #[test]
    fn the_weakest_figure_decides() {
        assert_eq!(class(9_997, 17_668, 1_094), Class::High);
        assert_eq!(class(2_000, 5_000, 600), Class::High);
        assert_eq!(class(1_999, 5_000, 600), Class::Medium);
        assert_eq!(class(2_000, 4_999, 600), Class::Medium);
        assert_eq!(class(2_000, 5_000, 599), Class::Medium);
        assert_eq!(class(200, 500, 0), Class::Medium);
        assert_eq!(class(199, 500, 0), Class::Low);
        assert_eq!(class(20_000, 150, 180), Class::Low, "a cache before a spinning disk");
        assert_eq!(class(0, 0, 0), Class::Low);
    }
}
