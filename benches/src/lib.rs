//! What benchmarks share. The benchmarks themselves come next: `make bench` says so until then.
