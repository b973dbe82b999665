//! The switch: a bridge in a network namespace of its own, out of reach of the machine's own network
//! and packet filter, with a port for each host.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::failure::{Failure, Result};
use super::keeper::Keeper;

const SWITCH: &str = "set -eu
read -r pid _ </proc/self/stat
ip link add br0 type bridge
ip link set br0 up
echo \"ready $pid\"
read -r _ || true";

/// The network of one set of hosts.
#[derive(Debug)]
pub(super) struct Network {
    switch: Keeper,
    state: Mutex<State>,
}

/// What outlives a power cut.
#[derive(Debug, Default)]
struct State {
    pulled: BTreeSet<usize>,
    /// Pairs that can't reach each other, the lower number first.
    parted: BTreeSet<(usize, usize)>,
}

/// The address of a host.
pub(super) fn address(host: usize) -> String {
    format!("10.77.0.{host}")
}

fn hardware_address(host: usize) -> String {
    format!("02:00:0a:4d:00:{host:02x}")
}

impl Network {
    pub(super) fn start(directory: &Path) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "bash", "-c", SWITCH]);
        let switch = Keeper::start(command, "switch", &directory.join("switch.log"))?;
        Ok(Self { switch, state: Mutex::default() })
    }

    /// Plugs a host that has just started into its port, as it was before.
    pub(super) fn connect(&self, host: usize, init: i32) -> Result<()> {
        let state = self.state();
        let port = if state.pulled.contains(&host) { "down" } else { "up" };
        self.at_switch(&format!(
            "link add p{host} type veth peer name eth0 netns {init}
             link set p{host} master br0 {port}"
        ))?;
        let (address, hardware) = (address(host), hardware_address(host));
        let mut lines = format!(
            "link set lo up
             link set eth0 address {hardware} up
             address add {address}/24 dev eth0
             route add default dev eth0\n"
        );
        for &(low, high) in &state.parted {
            if low == host || high == host {
                lines += &astray(if low == host { high } else { low });
            }
        }
        ip(init, &lines)
    }

    /// Takes a host's port away, before its power is cut: nothing more is heard of it.
    pub(super) fn disconnect(&self, host: usize) -> Result<()> {
        self.at_switch(&format!("link del p{host}"))
    }

    pub(super) fn pull(&self, host: usize) -> Result<()> {
        self.state().pulled.insert(host);
        self.at_switch(&format!("link set p{host} down"))
    }

    pub(super) fn plug(&self, host: usize) -> Result<()> {
        self.state().pulled.remove(&host);
        self.at_switch(&format!("link set p{host} up"))
    }

    /// Parts two hosts; `inits` are the first processes of those of them that are on.
    pub(super) fn part(&self, pair: (usize, usize), inits: &[(usize, i32)]) -> Result<()> {
        self.state().parted.insert(pair);
        for &(host, init) in inits {
            ip(init, &astray(if host == pair.0 { pair.1 } else { pair.0 }))?;
        }
        Ok(())
    }

    pub(super) fn heal(&self, pair: (usize, usize), inits: &[(usize, i32)]) -> Result<()> {
        if !self.state().parted.remove(&pair) {
            return Ok(());
        }
        for &(host, init) in inits {
            let other = address(if host == pair.0 { pair.1 } else { pair.0 });
            ip(init, &format!("neighbour del {other} dev eth0"))?;
        }
        Ok(())
    }

    /// Limits what reaches a host, in tc's words (`100mbit`); `None` lifts the limit.
    pub(super) fn limit(&self, host: usize, rate: Option<&str>) -> Result<()> {
        let device = format!("p{host}");
        let mut arguments = vec!["qdisc", "replace", "dev", &device, "root"];
        match rate {
            Some(rate) => {
                arguments.extend(["tbf", "rate", rate, "burst", "256kbit", "latency", "200ms"]);
            }
            None => arguments.push("pfifo_fast"),
        }
        let mut command = in_namespace(self.switch.pid(), "tc");
        let output = command.args(arguments).output().map_err(Failure::io("starting tc"))?;
        succeeded("tc qdisc replace", &output)
    }

    fn at_switch(&self, lines: &str) -> Result<()> {
        ip(self.switch.pid(), lines)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends what is meant for `host` to a hardware address that nobody has: it is lost on the way
/// without a word, as in a network that is parted. The kernel answers nothing, and no packet filter
/// is needed.
fn astray(host: usize) -> String {
    let nobody = hardware_address(host).replacen("02:", "06:", 1);
    format!("neighbour replace {} lladdr {nobody} dev eth0 nud permanent\n", address(host))
}

fn in_namespace(pid: i32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--net", "--target", &pid.to_string(), "--", program]);
    command.env("PATH", super::machine::search_path());
    command
}

/// Runs lines of `ip` in the network namespace of a process.
fn ip(pid: i32, lines: &str) -> Result<()> {
    let mut command = in_namespace(pid, "ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Failure::io("starting ip"))?;
    if let Some(mut stdin) = child.stdin.take() {
        let lines: String = lines.lines().map(|line| format!("{}\n", line.trim())).collect();
        stdin.write_all(lines.as_bytes()).map_err(Failure::io("ip -batch"))?;
    }
    let output = child.wait_with_output().map_err(Failure::io("ip -batch"))?;
    succeeded(lines, &output)
}

fn succeeded(command: &str, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::Command {
        place: "machine".into(),
        command: command.trim().into(),
        code: output.status.code().unwrap_or(-1),
        printed: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
