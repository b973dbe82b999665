//! A cluster whose data goes over ZeroMQ, and a pool whose class nobody gave.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use std::fs;

use mooring_tests::hosts::{Cluster, FAILOVER, POOL, on_hosts, seconds, wait_until};

const UNCLASSED: &str = "/var/lib/mooring/pool,size=3G";

#[test]
fn data_goes_over_zeromq_and_a_killed_secondary_is_resynced() {
    on_hosts(3, |hosts| {
        for host in hosts.iter() {
            host.run(
                "printf '[transport]\nkind = \"zeromq\"\nunprotected = true\n' >/run/zeromq.toml",
            )?;
        }
        let cluster = Cluster::start(hosts, |host| {
            let pool = if host.number() == 3 { UNCLASSED } else { POOL };
            ["--config", "/run/zeromq.toml", "--pool", pool].map(String::from).to_vec()
        })?;
        for host in 1..=3 {
            let status = cluster.json(host, "status")?;
            assert_eq!(status["transport"]["kind"], "zeromq");
            assert_eq!(status["transport"]["protected"], false);
            assert!(cluster.ctl(host, "status")?.stdout.contains("UNPROTECTED"));
        }
        let attaching = cluster.leader(1)?;
        let secondary = cluster.other_than(&[attaching]);
        let volume = cluster.create("db --size 1G --replicas 3")?;
        volume.mount(attaching)?;
        volume.wait_for_primary(attaching, attaching)?;
        volume.wait_in_sync(3, attaching)?;
        let load = volume.load(attaching, 9)?;
        cluster[secondary].kill_mountd()?;
        load.wait_for_writes(50)?;
        cluster[secondary].restart_mountd()?;
        volume.wait_in_sync(3, attaching)?;
        let endured = load.finish()?;
        endured.stalled_at_most(FAILOVER, "stall by a killed secondary over ZeroMQ")?;
        volume.unmount(attaching)?;
        volume.is_whole_everywhere(&endured.job, attaching)?;
        for host in hosts.iter() {
            let log = fs::read_to_string(host.mountd_log()).unwrap();
            assert!(
                log.contains("unprotected data stream"),
                "{}: data went elsewhere",
                host.name()
            );
            assert!(!log.contains("unprotected control stream"), "{}", host.name());
        }
        Ok(())
    });
}

#[test]
fn a_pool_without_a_class_is_measured_once() {
    on_hosts(1, |hosts| {
        let cluster = Cluster::start(hosts, |_| vec!["--pool".into(), UNCLASSED.into()])?;
        let pools =
            || Ok::<_, mooring_tests::hosts::Failure>(cluster.json(1, "pool ls")?[0].clone());
        let first = pools()?;
        assert_eq!(first["class_set"], false, "{first}");
        assert!(first["speed"]["random_write_iops"].as_u64().unwrap() > 0, "{first}");
        let shown = cluster.ctl(1, "pool inspect 1")?.stdout;
        assert!(shown.contains("random 4 KiB/s"), "{shown}");
        hosts[1].kill_mountd()?;
        hosts[1].restart_mountd()?;
        wait_until(seconds(20), "the pool is there again", || {
            Ok(pools().is_ok_and(|pool| pool["state"] == "ok"))
        })?;
        assert_eq!(pools()?["speed"], first["speed"], "it was measured again");
        // By hand, and with the bar's lines: nobody watches a terminal here.
        let added = cluster.ctl(1, "pool add /var/lib/mooring/second --size 1G")?;
        assert!(added.stdout.contains("(measured)"), "{}", added.stdout);
        assert!(added.stdout.contains("durable 4 KiB writes/s"), "{}", added.stdout);
        let told = cluster.ctl(1, "pool add /var/lib/mooring/third --size 1G --class low")?;
        assert!(told.stdout.contains("class low") && !told.stdout.contains("durable"));
        Ok(())
    });
}
