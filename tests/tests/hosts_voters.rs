//! Who votes on the configuration: three or one, by command and when a node is removed; and what is
//! said where that can't be.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use mooring_tests::hosts::{Cluster, Failure, Result, on_cluster, seconds, wait_until};

/// The names of those that vote.
fn voters(cluster: &Cluster, seen_from: usize) -> Result<Vec<String>> {
    let status = cluster.json(seen_from, "status")?;
    let voters = status["cluster"]["voters"].as_array().cloned().unwrap_or_default();
    Ok(voters.iter().filter_map(|voter| Some(voter["node"].as_str()?.to_owned())).collect())
}

#[test]
fn voters_change_by_command_and_when_one_is_removed() {
    on_cluster(4, |cluster| {
        assert_eq!(voters(cluster, 4)?.len(), 3);
        let said = cluster.ctl(4, "cluster voters 1")?.stdout;
        assert!(said.contains("alone votes"), "{said}");
        assert_eq!(voters(cluster, 4)?.len(), 1);
        let status = cluster.json(2, "status")?.to_string();
        assert!(status.contains("mountctl cluster voters 3"), "{status}");
        let said = cluster.ctl(4, "cluster voters 3")?.stdout;
        assert!(said.contains("3 nodes vote"), "{said}");
        // A voter is removed: another one votes in its place.
        let gone = voters(cluster, 4)?.into_iter().find(|name| name != "host4").unwrap();
        let gone: usize = gone.trim_start_matches("host").parse().unwrap();
        let asked = cluster.other_than(&[gone]);
        cluster.ctl(asked, &format!("node drain host{gone}"))?;
        cluster.ctl(asked, &format!("node rm host{gone}"))?;
        wait_until(seconds(20), "three others vote", || {
            let now = voters(cluster, asked)?;
            match now.len() == 3 && !now.contains(&format!("host{gone}")) {
                true => Ok(true),
                false => Err(Failure::Wrong(format!("{now:?}"))),
            }
        })?;
        cluster.ctl(asked, "volume create db --size 1G").map(drop)
    });
}

#[test]
fn what_two_nodes_and_a_lost_quorum_cannot_do_is_said() {
    on_cluster(2, |cluster| {
        let refused = cluster[2].attempt("mountctl cluster voters 3")?;
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains("three nodes, and there are 2"), "{refused:?}");
        let status = cluster.ctl(2, "status")?.stdout;
        assert!(status.contains("with two nodes host1 alone votes"), "{status}");
        cluster[1].kill_mountd()?;
        wait_until(seconds(10), "it is noticed", || {
            Ok(cluster[2].attempt("mountctl status")?.stdout.contains("1 of 1 voters don't answer"))
        })?;
        let status = cluster[2].attempt("mountctl status")?;
        assert_eq!(status.code, 5, "{status:?}");
        assert!(status.stdout.contains("I/O goes on"), "{status:?}");
        let refused = cluster[2].attempt("mountctl cluster voters 1")?;
        assert_eq!(refused.code, 5, "{refused:?}");
        assert!(refused.stderr.contains("1 of 1 voters don't answer: host1"), "{refused:?}");
        Ok(())
    });
}
