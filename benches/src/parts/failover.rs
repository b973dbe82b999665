//! How long an application waits when something dies: any of {daemon, node, cable, disk} under any of
//! {secondary, primary, leader of the configuration}.
//!
//! ```text
//!   host1..3   pools on disks that can fail; voters
//!   host4      no pool: both volumes are mounted here, and an application writes to each every 5 ms
//! ```
//! Several sets of hosts work at once: a failover is mostly waiting.

use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use mooring_tests::hosts::{
    Cluster, Failure, Hosts, LoopDisk, Result, StallMeter, Volume, milliseconds, seconds,
    wait_until,
};

use super::Plan;
use crate::figure::{Figure, Goal, median};
use crate::report::Report;

/// Sets of hosts at work at once.
const SETS: usize = 2;

/// Promised for the middle of the runs and for the longest, in seconds.
const PROMISED: (f64, f64) = (3.0, 5.0);

/// Where all volumes are mounted.
const USER: usize = 4;

/// Size of the disk of each pool: twice the smallest that a pool can have.
const DISK_BYTES: u64 = 2 << 30;

/// Longer than this nothing may stall: beyond it the run is given up.
const GIVE_UP: Duration = seconds(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Daemon,
    Node,
    Cable,
    Disk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Secondary,
    Primary,
    Leader,
}

const KINDS: [(Kind, &str); 4] =
    [(Kind::Daemon, "daemon"), (Kind::Node, "node"), (Kind::Cable, "cable"), (Kind::Disk, "disk")];

const ROLES: [(Role, &str); 3] =
    [(Role::Secondary, "secondary"), (Role::Primary, "primary"), (Role::Leader, "Raft leader")];

/// What one fault cost.
struct Measured {
    kind: Kind,
    role: Role,
    stall: Duration,
}

/// Runs every fault so often, and gives the middle and the longest stall of each.
///
/// # Errors
/// A set of hosts can't be made or mended, or an application sees an error.
pub fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let wanted = |kind: Kind| plan.row.is_empty() || name_of(kind).contains(&plan.row);
    let (told, measured) = channel();
    let mut stalls: BTreeMap<(Role, Kind), Vec<f64>> = BTreeMap::new();
    let outcome = thread::scope(|scope| {
        let sets: Vec<_> = (0..SETS.min(plan.runs))
            .map(|set| {
                let told = told.clone();
                let rounds = (0..plan.runs).filter(|round| round % SETS == set).count();
                scope.spawn(move || one_set(rounds, &wanted, &told))
            })
            .collect();
        drop(told);
        for Measured { kind, role, stall } in measured {
            let numbers = stalls.entry((role, kind)).or_default();
            numbers.push(stall.as_secs_f64());
            let (role, done) = (title_of(role), numbers.len());
            let (kind, stall) = (name_of(kind), stall.as_secs_f64());
            report.progress(&format!(
                "failover: {kind} of {role}, {done} of {}: {stall:.2} s",
                plan.runs
            ));
        }
        let joined = sets.into_iter().map(|set| set.join());
        joined.collect::<Vec<_>>().into_iter().try_for_each(|set| {
            set.unwrap_or_else(|_| Err(Failure::Wrong("a set of hosts panicked".into())))
        })
    });
    for (&(role, kind), numbers) in &stalls {
        tell(report, role, kind, numbers);
    }
    let all: Vec<f64> = stalls.into_values().flatten().collect();
    if !all.is_empty() {
        let most = all.iter().copied().fold(0.0, f64::max);
        report.add(figure(
            "stall, any fault",
            format!("p50 of {}", all.len()),
            median(&all),
            PROMISED.0,
        ));
        report.add(figure("stall, any fault", format!("max of {}", all.len()), most, PROMISED.1));
    }
    outcome
}

fn tell(report: &mut Report, role: Role, kind: Kind, numbers: &[f64]) {
    let name = format!("stall, {} of {}", name_of(kind), title_of(role));
    let most = numbers.iter().copied().fold(0.0, f64::max);
    report.add(figure(&name, format!("p50 of {}", numbers.len()), median(numbers), PROMISED.0));
    report.add(figure(&name, format!("max of {}", numbers.len()), most, PROMISED.1));
}

fn figure(name: &str, target: String, value: f64, most: f64) -> Figure {
    Figure {
        part: "failover",
        name: name.into(),
        target,
        value,
        unit: "s",
        floor: None,
        goal: Some(Goal::AtMost(most)),
        processor_us: None,
        command: None,
    }
}

fn name_of(kind: Kind) -> &'static str {
    KINDS.iter().find(|(known, _)| *known == kind).map_or("", |(_, name)| name)
}

fn title_of(role: Role) -> &'static str {
    ROLES.iter().find(|(known, _)| *known == role).map_or("", |(_, title)| title)
}

// -- one set of hosts ------------------------------------------------------------------------------

/// A cluster with two volumes in use.
struct Set<'a> {
    cluster: &'a Cluster<'a>,
    disks: &'a [LoopDisk],
    volumes: [Volume<'a>; 2],
}

fn one_set(rounds: usize, wanted: &dyn Fn(Kind) -> bool, told: &Sender<Measured>) -> Result<()> {
    let hosts = Hosts::up(USER)?;
    let disks = (1..USER)
        .map(|host| hosts[host].disk_device("pool", DISK_BYTES))
        .collect::<Result<Vec<_>>>()?;
    let cluster = Cluster::start(&hosts, |host| arguments(&disks, host.number()))?;
    let volumes = [mounted(&cluster, "a")?, mounted(&cluster, "b")?];
    let set = Set { cluster: &cluster, disks: &disks, volumes };
    for _ in 0..rounds {
        for (kind, _) in KINDS.into_iter().filter(|(kind, _)| wanted(*kind)) {
            for (role, _) in ROLES {
                let stall = set.fault(kind, role)?;
                let _ = told.send(Measured { kind, role, stall });
            }
        }
    }
    set.volumes.iter().try_for_each(|volume| volume.unmount(USER))
}

fn arguments(disks: &[LoopDisk], host: usize) -> Vec<String> {
    match disks.get(host - 1) {
        Some(disk) => {
            vec!["--pool".into(), format!("{},class=high", disk.device().display())]
        }
        None => vec![],
    }
}

fn mounted<'a>(cluster: &'a Cluster<'a>, name: &str) -> Result<Volume<'a>> {
    let volume = cluster.create(&format!("{name} --size 256M --replicas 3"))?;
    volume.mount(USER)?;
    volume.wait_in_sync(3, USER)?;
    Ok(volume)
}

impl Set<'_> {
    /// Lets one thing fail under two applications, mends it, and tells what the application waited
    /// whose volume was hit; the longer wait of both if it was the leader.
    fn fault(&self, kind: Kind, role: Role) -> Result<Duration> {
        let (victim, hit) = self.choose(role)?;
        let meters = self
            .volumes
            .iter()
            .map(|volume| {
                StallMeter::start(&self.cluster[USER], volume.file("stall"), milliseconds(5))
            })
            .collect::<Result<Vec<_>>>()?;
        // Once round their files, so that from now on a write is its block and nothing else.
        let writes = |count: u64| {
            let so_far: Vec<u64> = meters.iter().map(|meter| meter.so_far().writes).collect();
            wait_until(GIVE_UP, "the applications write on", || {
                let now = meters.iter().zip(&so_far);
                Ok(now.into_iter().all(|(meter, before)| meter.so_far().writes >= before + count))
            })
        };
        writes(80)?;
        self.break_it(kind, victim)?;
        for volume in &self.volumes {
            wait_until(GIVE_UP, "the others go on without it", || {
                Ok(!volume.in_sync(USER)?.contains(&victim))
            })?;
        }
        writes(40)?;
        let mut stalls = Vec::new();
        for meter in meters {
            let seen = meter.stop(GIVE_UP)?;
            if seen.errors != 0 {
                return Err(Failure::Wrong(format!("{kind:?} of {role:?}: {seen:?}")));
            }
            stalls.push(seen.longest);
        }
        self.mend(kind, victim)?;
        Ok(hit.into_iter().map(|volume| stalls[volume]).max().unwrap_or_default())
    }

    /// The host for a role, and the volumes for which it has it. Leader and the rest are kept apart
    /// where they can be.
    fn choose(&self, role: Role) -> Result<(usize, Vec<usize>)> {
        let leader = self.cluster.leader(USER)?;
        let primaries = [self.volumes[0].primary(USER)?, self.volumes[1].primary(USER)?];
        let having = |host: usize, primary: bool| -> Vec<usize> {
            (0..2).filter(|&volume| (primaries[volume] == host) == primary).collect()
        };
        let others: Vec<usize> = (1..USER).filter(|&host| host != leader).collect();
        let found = match role {
            Role::Leader => return Ok((leader, vec![0, 1])),
            Role::Primary => others.iter().chain([&leader]).find(|&&h| primaries.contains(&h)),
            Role::Secondary => others.iter().find(|&&h| !having(h, false).is_empty()),
        };
        let victim = *found.ok_or_else(|| Failure::Wrong(format!("nobody is {role:?}")))?;
        Ok((victim, having(victim, role == Role::Primary)))
    }

    fn break_it(&self, kind: Kind, victim: usize) -> Result<()> {
        match kind {
            Kind::Daemon => self.cluster[victim].kill_mountd(),
            Kind::Node => self.cluster[victim].power_cut(),
            Kind::Cable => self.cluster[victim].cut_cable(),
            Kind::Disk => self.disks[victim - 1].fail(),
        }
    }

    fn mend(&self, kind: Kind, victim: usize) -> Result<()> {
        let (cluster, host) = (self.cluster, &self.cluster[victim]);
        match kind {
            Kind::Daemon => host.restart_mountd()?,
            Kind::Node => {
                host.boot()?;
                let told = arguments(self.disks, victim);
                host.mountd(&told.iter().map(String::as_str).collect::<Vec<_>>())?;
            }
            Kind::Cable => host.plug_cable()?,
            Kind::Disk => {
                let disk = &self.disks[victim - 1];
                let device = disk.device().display();
                cluster.ctl(victim, &format!("pool rm --force {device}"))?;
                disk.replace()?;
                cluster.ctl(victim, &format!("pool add {device} --class high --force"))?;
            }
        }
        for volume in &self.volumes {
            volume.wait_in_sync(3, USER)?;
        }
        wait_until(GIVE_UP, "there is a leader", || cluster.leader(USER).map(|_| true))
    }
}
