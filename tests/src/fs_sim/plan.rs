//! What a seed stands for: how many hosts, how large a volume, which faults and when.

use std::time::Duration;

use mooring_terms::Time;

use crate::sim::prng::Prng;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A mount's process is killed, and mounts again.
    CrashHost,
    /// A host is cut off from the coordinator; its way to the slices stays.
    CutHost,
    /// A host's streams break, and are opened again.
    BreakStream,
    /// A mount's process is stopped and goes on.
    StopHost,
    /// The coordinator's node is lost; another takes over.
    FailOver,
    /// A slice gets a new primary, which knows no sessions.
    MoveSlice,
    /// A slice answers late.
    SlowSlice,
    /// Recalls and all else on the way to a host come late.
    LateMessages,
    /// The power of everything goes.
    PowerCut,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::CrashHost,
        Self::CutHost,
        Self::BreakStream,
        Self::StopHost,
        Self::FailOver,
        Self::MoveSlice,
        Self::SlowSlice,
        Self::LateMessages,
        Self::PowerCut,
    ];

    /// As the table of what was reached has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CrashHost => "crash host",
            Self::CutHost => "cut host off",
            Self::BreakStream => "break stream",
            Self::StopHost => "stop host",
            Self::FailOver => "fail over",
            Self::MoveSlice => "move slice",
            Self::SlowSlice => "slow slice",
            Self::LateMessages => "late messages",
            Self::PowerCut => "power cut",
        }
    }
}

/// A deliberate bug.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bugs {
    /// Of the coordinator.
    #[cfg(feature = "mutations")]
    pub coordinator: Option<mooring_sharedfs_core::Mutation>,
    /// Of the clients.
    #[cfg(feature = "mutations")]
    pub client: Option<mooring_sharedfs_client::Mutation>,
    /// Slices with a new primary serve sessions that nobody has registered there.
    pub fences_forgotten: bool,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it came from.
    pub seed: u64,
    /// How many hosts mount.
    pub hosts: u32,
    /// How many programs each runs.
    pub programs: usize,
    /// Blocks for data.
    pub capacity: u64,
    /// Whether hosts that are alone in a directory do its operations themselves.
    pub alone: bool,
    /// Whether the kernel can take all names back at once.
    pub epoch: bool,
    /// What goes wrong, and when.
    pub faults: Vec<(Time, FaultKind)>,
    /// When all is well again.
    pub healed: Time,
    /// Deliberate bugs.
    pub bugs: Bugs,
}

impl Plan {
    /// The plan of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed ^ 0x5f5f_0001);
        let hosts = prng.within(2..5) as u32;
        let length = prng.within(3_000..9_000);
        let mut faults = Vec::new();
        for _ in 0..prng.within(1..7) {
            let at = Time(Duration::from_millis(prng.within(300..length)));
            let kind = FaultKind::ALL[prng.within(0..8) as usize];
            faults.push((at, kind));
        }
        if prng.percent(40) {
            let at = Time(Duration::from_millis(prng.within(length / 2..length)));
            faults.push((at, FaultKind::PowerCut));
        }
        faults.sort();
        Self {
            seed,
            hosts,
            programs: prng.within(1..4) as usize,
            capacity: if prng.percent(25) { prng.within(6..30) } else { 600 },
            epoch: prng.percent(70),
            alone: false,
            faults,
            healed: Time(Duration::from_millis(length + 500)),
            bugs: Bugs::default(),
        }
    }
}
