//! The hosts harness itself: what the tests on hosts stand on.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use std::fs;
use std::io::BufRead;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use mooring_tests::hosts::{
    Failure, FileSystem, Fio, Host, Hosts, LoopDevice, Result, StallMeter, corrupt, loop_devices,
    milliseconds, on_hosts, seconds, sweep, wait_until,
};

/// Whether a ping from one host to another is answered within a second.
fn reaches(hosts: &Hosts, from: usize, to: usize) -> Result<bool> {
    Ok(hosts[from].attempt(format!("ping -c 1 -W 1 host{to}"))?.succeeded())
}

fn must_reach(hosts: &Hosts, from: usize, to: usize) -> Result<()> {
    wait_until(seconds(10), &format!("host{from} reaches host{to}"), || reaches(hosts, from, to))
}

fn must_not_reach(hosts: &Hosts, from: usize, to: usize) {
    assert!(!reaches(hosts, from, to).unwrap(), "host{from} still reaches host{to}");
}

#[test]
fn hosts_reach_each_other_by_name() {
    on_hosts(3, |hosts| {
        for from in 1..=3 {
            for to in 1..=3 {
                must_reach(hosts, from, to)?;
            }
            assert_eq!(hosts[from].run("hostname")?.stdout.trim(), format!("host{from}"));
        }
        Ok(())
    });
}

#[test]
fn host_sees_only_its_own_processes_and_files() {
    on_hosts(2, |hosts| {
        hosts[1].run("echo mine >/var/lib/mooring/note; touch /run/note /mnt/note")?;
        let seen = hosts[2].run("ls /var/lib/mooring /run/note /mnt 2>/dev/null || true")?;
        assert!(!seen.stdout.contains("note"), "{}", seen.stdout);
        assert!(!Path::new("/run/note").exists() && !Path::new("/mnt/note").exists());
        let note = fs::read_to_string(hosts[1].disk().join("note")).unwrap();
        assert_eq!(note, "mine\n");

        let _sleeper = hosts[1].spawn("exec -a sleeps-on-host1 sleep 1000")?;
        let listed = "cat /proc/[0-9]*/cmdline";
        wait_until(seconds(10), "host1 sees its own process", || {
            Ok(hosts[1].run(listed)?.stdout.contains("sleeps-on-host1"))
        })?;
        assert!(!hosts[2].run(listed)?.stdout.contains("sleeps-on-host1"));
        Ok(())
    });
}

#[test]
fn pulled_cable_cuts_a_host_off_until_it_is_plugged() {
    on_hosts(3, |hosts| {
        must_reach(hosts, 1, 2)?;
        hosts[2].cut_cable()?;
        must_not_reach(hosts, 1, 2);
        must_not_reach(hosts, 2, 3);
        must_reach(hosts, 1, 3)?;
        hosts[2].plug_cable()?;
        must_reach(hosts, 1, 2)?;
        must_reach(hosts, 2, 3)
    });
}

#[test]
fn partition_of_a_pair_leaves_the_third_host_to_both() {
    on_hosts(3, |hosts| {
        must_reach(hosts, 1, 2)?;
        hosts.partition(1, 2)?;
        must_not_reach(hosts, 1, 2);
        must_not_reach(hosts, 2, 1);
        must_reach(hosts, 1, 3)?;
        must_reach(hosts, 2, 3)?;
        hosts.heal(2, 1)?;
        must_reach(hosts, 1, 2)?;
        must_reach(hosts, 2, 1)
    });
}

#[test]
fn established_connection_is_silent_across_a_partition() {
    on_hosts(2, |hosts| {
        let listener = "exec python3 -u -c \"
import socket
s = socket.create_server(('0.0.0.0', 7000)); c, _ = s.accept()
while b := c.recv(100): print(b.decode(), end='', flush=True)\"";
        let listener = hosts[2].spawn(listener)?;
        wait_until(seconds(10), "host2 listens", || {
            Ok(hosts[2].attempt("exec 3<>/dev/tcp/127.0.0.1/7001")?.code != 0
                && fs::read_to_string(hosts[2].path("/proc/1/net/tcp")?).is_ok()
                && hosts[2].attempt("grep -q ':1B58 .* 0A ' /proc/net/tcp")?.succeeded())
        })?;
        let talk = "exec 3<>/dev/tcp/host2/7000; while :; do echo word >&3; sleep 0.02; done";
        let talker = hosts[1].spawn(talk)?;
        wait_until(seconds(10), "words arrive", || Ok(listener.printed().contains("word")))?;

        hosts.partition(1, 2)?;
        std::thread::sleep(milliseconds(200));
        let before = listener.printed().len();
        std::thread::sleep(milliseconds(500));
        assert_eq!(listener.printed().len(), before, "words arrive across a partition");

        hosts.heal(1, 2)?;
        wait_until(seconds(10), "words arrive again", || Ok(listener.printed().len() > before))?;
        drop(talker);
        Ok(())
    });
}

#[test]
fn power_cut_ends_everything_and_keeps_the_disk() {
    on_hosts(2, |hosts| {
        hosts[1].run("echo kept >/var/lib/mooring/note; echo lost >/run/note")?;
        hosts[1].run("setsid bash -c 'sleep 1000 & disown; sleep 1000' >/dev/null 2>&1 &")?;
        let sleeper = hosts[1].spawn("sleep 1000")?;
        let pid = sleeper.pid();
        hosts[1].power_cut()?;
        assert!(!hosts[1].is_on());
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the process outlived the power cut");
        assert!(matches!(hosts[1].run("true"), Err(Failure::Off { host: 1 })));
        must_not_reach(hosts, 2, 1);

        hosts[1].boot()?;
        must_reach(hosts, 2, 1)?;
        assert_eq!(hosts[1].run("cat /var/lib/mooring/note")?.stdout, "kept\n");
        assert!(!hosts[1].attempt("cat /run/note")?.succeeded(), "/run outlived the power cut");
        assert_eq!(hosts[1].run("ls /proc | grep -c '^[0-9]*$' || true")?.stderr, "");
        assert!(!hosts[1].run("cat /proc/[0-9]*/cmdline")?.stdout.contains("1000"));
        Ok(())
    });
}

#[test]
fn partition_and_pulled_cable_outlive_a_power_cut() {
    on_hosts(3, |hosts| {
        hosts.partition(1, 2)?;
        hosts[3].cut_cable()?;
        hosts[1].power_cut()?;
        hosts[3].power_cut()?;
        hosts[1].boot()?;
        hosts[3].boot()?;
        must_not_reach(hosts, 1, 2);
        must_not_reach(hosts, 2, 3);
        hosts[3].plug_cable()?;
        must_reach(hosts, 2, 3)?;
        hosts.heal(1, 2)?;
        must_reach(hosts, 1, 2)
    });
}

#[test]
fn stopped_processes_do_nothing_until_resumed() {
    on_hosts(1, |hosts| {
        let ticks = hosts[1].spawn("while :; do echo tick; sleep 0.02; done")?;
        wait_until(seconds(10), "the first tick", || Ok(ticks.printed().contains("tick")))?;
        hosts[1].stop_processes()?;
        let before = ticks.printed().len();
        std::thread::sleep(milliseconds(300));
        assert_eq!(ticks.printed().len(), before);
        hosts[1].resume_processes()?;
        wait_until(seconds(10), "another tick", || Ok(ticks.printed().len() > before))
    });
}

#[test]
fn network_limit_holds_until_it_is_lifted() {
    on_hosts(2, |hosts| {
        must_reach(hosts, 1, 2)?;
        let transfer = || -> Result<f64> {
            let began = Instant::now();
            let receiver = "exec python3 -c \"
import socket
s = socket.create_server(('0.0.0.0', 7000)); c, _ = s.accept()
while c.recv(1 << 20): pass\"";
            let receiver = hosts[2].spawn(receiver)?;
            let send = "until exec 3>/dev/tcp/host2/7000; do sleep 0.02; done 2>/dev/null; head -c 4M /dev/zero >&3";
            hosts[1].run(send)?;
            receiver.succeed(seconds(30))?;
            Ok(began.elapsed().as_secs_f64())
        };
        hosts[2].limit_network("16mbit")?;
        let slow = transfer()?;
        assert!(slow > 1.5, "4 MiB at 16 Mbit/s took {slow:.2} s");
        hosts[2].unlimit_network()?;
        let fast = transfer()?;
        assert!(fast < slow, "{fast:.2} s without a limit, {slow:.2} s with one");
        Ok(())
    });
}

#[test]
fn failed_command_tells_where_what_and_why() {
    on_hosts(1, |hosts| {
        let failure = hosts[1].run("echo on the way; echo no luck >&2; exit 7").unwrap_err();
        let Failure::Command { place, code, printed, .. } = failure else {
            panic!("{failure}");
        };
        assert_eq!((place.as_str(), code), ("host1", 7));
        assert!(printed.contains("on the way") && printed.contains("no luck"));
        let failure = hosts[1].run_for(milliseconds(200), "echo begun; sleep 1000").unwrap_err();
        assert!(failure.to_string().contains("begun"), "{failure}");
        wait_until(seconds(5), "the overdue command is gone", || {
            Ok(!hosts[1].run("cat /proc/[0-9]*/cmdline")?.stdout.contains("sleep\u{0}1000"))
        })
    });
}

#[test]
fn file_system_on_a_disk_device_works_and_its_fio_run_verifies() {
    on_hosts(2, |hosts| {
        let disk = hosts[1].disk_device("data", 256 << 20)?;
        let device = disk.device().display().to_string();
        hosts[1].run(format!("mkfs.ext4 -q {device} && mkdir /mnt/v && mount {device} /mnt/v"))?;
        let meter = StallMeter::start(&hosts[1], "/mnt/v/stall", milliseconds(5))?;
        let job = Fio::verify("/mnt/v/blocks").rate(2_000).seconds(2).sync_every(100);
        let report = hosts[1].fio(&job)?;
        assert_eq!((report.error, report.written, report.verified), (0, 4_000, 4_000));
        assert!(report.longest_write > milliseconds(0) && report.longest_write < seconds(60));
        let stall = meter.stop(seconds(30))?;
        assert!(stall.writes > 10 && stall.errors == 0, "{stall:?}");
        assert!(stall.longest < seconds(30), "{stall:?}");

        let again = hosts[1].verify_again(&job)?;
        assert_eq!((again.error, again.written, again.verified), (0, 0, 4_000));
        hosts[1].run("umount /mnt/v")?;
        hosts[1].check_file_system(FileSystem::Ext4, &device)?;

        // A byte that rots in every block of the file's is found by whoever reads it.
        hosts[1].run(format!("mount {device} /mnt/v"))?;
        for block in 0..4_000 {
            corrupt(&hosts[1].path("/mnt/v/blocks")?, block * 4096 + 2_000, 1)?;
        }
        let report = hosts[1].verify_again(&job)?;
        assert_ne!(report.error, 0, "{report:?}");
        hosts[1].run("umount /mnt/v")?;
        Ok(())
    });
}

#[test]
fn checker_finds_a_broken_file_system() {
    on_hosts(1, |hosts| {
        for (kind, make) in [(FileSystem::Ext4, "mkfs.ext4 -q"), (FileSystem::Xfs, "mkfs.xfs -q")] {
            let disk = hosts[1].disk_device(&format!("{kind:?}"), 512 << 20)?;
            let device = disk.device().display().to_string();
            hosts[1].run(format!("{make} {device}"))?;
            hosts[1].check_file_system(kind, &device)?;
            hosts[1]
                .run(format!("dd if=/dev/urandom of={device} bs=4k seek=1 count=64 conv=fsync"))?;
            hosts[1].check_file_system(kind, &device).expect_err("64 blocks of noise");
        }
        Ok(())
    });
}

#[test]
fn failed_disk_gives_errors_until_it_is_replaced() {
    on_hosts(1, |hosts| {
        let disk = hosts[1].disk_device("pool", 64 << 20)?;
        let device = disk.device().display();
        let write = format!("dd if=/dev/zero of={device} bs=4k seek=5 count=1 oflag=direct");
        let read = format!("dd if={device} of=/dev/null bs=4k skip=5 count=1 iflag=direct");
        // Held open, as a pool is: the error must reach who had the disk before it failed.
        let holder = hosts[1].spawn(format!(
            "exec 3<>{device}; read -r _ </dev/tcp/127.0.0.1/9 2>/dev/null; while [ ! -e /run/go ]; do sleep 0.02; done
             dd of=/dev/fd/3 if=/dev/zero bs=4k seek=9 count=1 conv=notrunc,fsync"
        ))?;
        hosts[1].run(&write)?;
        hosts[1].run(&read)?;
        disk.fail()?;
        hosts[1].run(&write).expect_err("a write to a failed disk");
        hosts[1].run(&read).expect_err("a read from a failed disk");
        hosts[1].run("touch /run/go")?;
        holder.succeed(seconds(10)).expect_err("a write through a descriptor from before");
        disk.replace()?;
        hosts[1].run(&write)?;
        hosts[1].run(&read)?;
        Ok(())
    });
}

#[test]
fn stall_meter_sees_the_stall_and_the_error() {
    on_hosts(1, |hosts| {
        let disk = hosts[1].disk_device("data", 64 << 20)?;
        let device = disk.device().display().to_string();
        hosts[1].run(format!("mkfs.ext4 -q {device} && mkdir /mnt/v && mount {device} /mnt/v"))?;
        let meter = StallMeter::start(&hosts[1], "/mnt/v/stall", milliseconds(5))?;
        wait_until(seconds(10), "some writes", || Ok(meter.so_far().writes > 20))?;
        hosts[1].run("fsfreeze --freeze /mnt/v && sleep 0.7 && fsfreeze --unfreeze /mnt/v")?;
        let writes = meter.so_far().writes;
        wait_until(seconds(10), "more writes", || Ok(meter.so_far().writes > writes + 5))?;
        assert!(meter.so_far().longest >= milliseconds(500), "{:?}", meter.so_far());
        assert_eq!(meter.so_far().errors, 0);
        disk.fail()?;
        wait_until(seconds(10), "an error", || Ok(meter.so_far().errors > 0))?;
        let report = meter.stop(seconds(10))?;
        assert!(report.first_error.is_some());
        Ok(())
    });
}

/// A daemon for tests of how daemons are run: it says what it was told, answers on the socket, and
/// starts a holder that is to outlive it.
const STAND_IN: &str = r#"#!/usr/bin/env python3
import os, socket, subprocess, sys
print("told:", *sys.argv[1:], flush=True)
if "--die" in sys.argv:
    sys.exit("no quorum, no disk, no luck")
path = "/run/mooring/mountd.sock"
os.makedirs("/run/mooring", exist_ok=True)
if not os.path.exists("/run/holder.pid"):
    holder = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    open("/run/holder.pid", "w").write(str(holder.pid))
if os.path.exists(path):
    os.unlink(path)
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
while True:
    server.accept()
"#;

#[test]
fn daemon_is_killed_restarted_and_stopped_and_its_holder_lives_on() {
    let scratch = Scratch::new();
    let program = scratch.0.path().join("mountd");
    fs::write(&program, STAND_IN).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // SAFETY: under nextest, the only runner of these tests, a test is alone in its process.
    unsafe { std::env::set_var("MOORING_BIN", scratch.0.path()) };
    on_hosts(2, |hosts| {
        let holder = "kill -0 $(cat /run/holder.pid)";
        hosts[2].mountd(&["--pool", "/var/lib/mooring/it's a pool", "--create"])?;
        let told = "told: run --data /var/lib/mooring --listen 10.77.0.2:7700 \
                    --pool /var/lib/mooring/it's a pool --create";
        assert_eq!(fs::read_to_string(hosts[2].mountd_log()).unwrap().trim(), told);
        hosts[2].mountd(&[]).expect_err("a second daemon");

        let pid = hosts[2].mountd_pid()?;
        hosts[2].kill_mountd()?;
        assert!(!hosts[2].mountd_is_running() && !Path::new(&format!("/proc/{pid}")).exists());
        hosts[2].run(holder)?;
        hosts[2].restart_mountd()?;
        assert_eq!(hosts[2].last_lines(60), format!("{told}\n{told}"));
        hosts[2].stop_mountd()?;
        hosts[2].run(holder)?;

        let failure = hosts[1].mountd(&["--die"]).unwrap_err().to_string();
        assert!(failure.contains("no luck"), "{failure}");

        hosts[2].restart_mountd()?;
        hosts[2].power_cut()?;
        assert!(!hosts[2].mountd_is_running());
        hosts[2].boot()?;
        assert!(!hosts[2].attempt(holder)?.succeeded(), "the holder outlived the power cut");
        hosts[2].mountd(&[])
    });
}

// -- nothing is left behind ------------------------------------------------------------------------

/// A directory that all hosts of a test are made in, and what can be found on the machine of them.
struct Scratch(tempfile::TempDir);

/// What is left of hosts: none of it, once they are gone.
#[derive(Debug, Default, PartialEq, Eq)]
struct Leftovers {
    mounts: Vec<String>,
    loops: Vec<LoopDevice>,
    processes: Vec<String>,
    files: Vec<PathBuf>,
}

impl Scratch {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        // SAFETY: under nextest, the only runner of these tests, a test is alone in its process.
        unsafe { std::env::set_var("TMPDIR", scratch.path()) };
        Self(scratch)
    }

    fn has(&self, mess: &[PathBuf]) -> Leftovers {
        let path = self.0.path().display().to_string();
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let lines = mountinfo.lines().filter(|line| line.contains(&path)).map(str::to_owned);
        let mut loops = loop_devices().unwrap();
        // A device's number may go to somebody else's file once it is free.
        let messy = |one: &LoopDevice| one.backing_file.ends_with("/image");
        loops.retain(|one| {
            one.backing_file.contains(&path) || mess.contains(&one.device) && messy(one)
        });
        let entries = fs::read_dir(self.0.path()).unwrap().flatten();
        Leftovers {
            mounts: lines.collect(),
            loops,
            processes: self.processes(),
            files: entries.map(|entry| entry.path()).collect(),
        }
    }

    /// Processes that were started in hosts made here, and those that keep network namespaces.
    fn processes(&self) -> Vec<String> {
        let mark = format!("MOORING_HOST={}", self.0.path().display());
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let marked = |path: &PathBuf| {
            let environment = fs::read(path.join("environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|one| one.starts_with(mark.as_bytes()))
        };
        let paths = entries.map(|entry| entry.path()).filter(marked);
        paths.map(|path| fs::read_to_string(path.join("comm")).unwrap_or_default()).collect()
    }

    fn is_clean_soon(&self, mess: &[PathBuf]) {
        wait_until(seconds(10), "nothing is left", || match self.has(mess) {
            none if none == Leftovers::default() => Ok(true),
            some => Err(Failure::Wrong(format!("{some:#?}"))),
        })
        .unwrap();
    }
}

/// What every kind of leftover could come from: processes, mounts, a loop device on the host's disk,
/// and one on a file system that nobody but the host can see. Returns the two devices.
fn make_a_mess(host: &Host) -> Result<Vec<PathBuf>> {
    let devices = host.run(
        "setsid sleep 1000 >/dev/null 2>&1 &
         one=/var/lib/mooring/image two=/run/own/image
         mkdir /mnt/v /mnt/w /run/own && mount -t tmpfs own /run/own && truncate -s 64M $one $two
         one=$(losetup -f --show $one) && mkfs.ext4 -q $one && mount $one /mnt/v && echo $one
         two=$(losetup -f --show $two) && mkfs.ext4 -q $two && mount $two /mnt/w && echo $two",
    )?;
    let devices: Vec<PathBuf> = devices.stdout.lines().map(PathBuf::from).collect();
    assert_eq!(devices.len(), 2, "{devices:?}");
    Ok(devices)
}

#[test]
fn nothing_is_left_after_drop() {
    let scratch = Scratch::new();
    let hosts = Hosts::up(2).unwrap();
    let mess = make_a_mess(&hosts[1]).unwrap();
    let there = scratch.has(&mess);
    assert_eq!((there.loops.len(), there.files.len()), (2, 1), "{there:#?}");
    assert!(there.processes.len() > 3, "{there:#?}");
    drop(hosts);
    scratch.is_clean_soon(&mess);
}

#[test]
fn nothing_is_left_after_a_panic() {
    let scratch = Scratch::new();
    let mut mess = Vec::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        on_hosts(2, |hosts| {
            mess = make_a_mess(&hosts[2])?;
            hosts[1].run("exit 3").map(|_| ())
        });
    }));
    let message = panicked.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("host1") && message.contains("ended with 3"), "{message}");
    scratch.is_clean_soon(&mess);
}

#[test]
fn sweep_removes_what_a_killed_test_left() {
    const CHILD: &str = "MOORING_HARNESS_CHILD";
    if std::env::var_os(CHILD).is_some() {
        // The test that is killed: it runs this same function in a process of its own.
        let hosts = Hosts::up(2).unwrap();
        let mess = make_a_mess(&hosts[1]).unwrap();
        println!("\nmess {} {}", mess[0].display(), mess[1].display());
        std::thread::sleep(seconds(1000));
    }
    let scratch = Scratch::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sweep_removes_what_a_killed_test_left", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mess = lines.map_while(std::result::Result::ok).find(|line| line.starts_with("mess "));
    let mess: Vec<PathBuf> =
        mess.expect("the child makes a mess").split(' ').skip(1).map(PathBuf::from).collect();

    sweep().unwrap();
    let there = scratch.has(&mess);
    assert_eq!((there.loops.len(), there.files.len()), (2, 1), "a living test was swept");
    child.kill().unwrap();
    child.wait().unwrap();
    // The hosts end by themselves; files and loop devices are the sweep's.
    wait_until(seconds(10), "the hosts end", || Ok(scratch.processes().is_empty())).unwrap();
    let swept = sweep().unwrap();
    assert!(swept.left.is_empty(), "{swept:?}");
    scratch.is_clean_soon(&mess);
}

#[test]
fn two_sets_of_hosts_run_at_once_and_never_meet() {
    on_hosts(2, |these| {
        on_hosts(2, |those| {
            must_reach(these, 1, 2)?;
            must_reach(those, 1, 2)?;
            those[2].power_cut()?;
            must_not_reach(those, 1, 2);
            must_reach(these, 1, 2)
        });
        must_reach(these, 2, 1)
    });
}
