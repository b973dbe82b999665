//! What is wrong with a volume.

use std::cmp::Reverse;

use mooring_api::{ByteSize, Health, Reason};
use mooring_config::{Member, SliceConfig, Volume};
use mooring_terms::{BLOCK_SIZE, SliceId};

use super::{list, reason};
use crate::api::reading::Reading;
use crate::api::views::slice_report;

/// How a volume is, and why: worst first.
#[must_use]
pub fn volume(reading: &Reading, row: &Volume) -> (Health, Vec<Reason>) {
    let mut reasons: Vec<Reason> = Vec::new();
    for (slice, config) in row.slices() {
        let found = match waits(reading, row, slice, config) {
            None => lacks(reading, row, slice, config),
            down => down,
        };
        // Slices have the same things wrong with them, mostly.
        reasons.extend(found.filter(|found| !reasons.contains(found)));
    }
    reasons.sort_by_key(|reason| Reverse(reason.health));
    let worst = reasons.first().map_or(Health::Ok, |reason| reason.health);
    (worst, reasons)
}

/// Why I/O on a slice waits, if it does.
fn waits(reading: &Reading, row: &Volume, slice: SliceId, config: &SliceConfig) -> Option<Reason> {
    let primary = slice_report(reading, config.primary, slice);
    if primary.is_some_and(|report| report.serves && !report.too_few) {
        return None;
    }
    let name = &row.name;
    let down = |what: String, remedy: String| Some(reason(Health::Down, what, remedy));
    let too_few = primary.is_some_and(|report| report.too_few);
    let (answering, silent) = split(reading, &config.in_sync);
    let (older, away) = split(reading, &config.joining);
    if too_few || config.in_sync.len() < config.min_in_sync as usize {
        let there = if too_few { answering.len() } else { config.in_sync.len() };
        let missing: Vec<String> = silent.iter().chain(&away).cloned().collect();
        return down(
            format!(
                "volume {name}: {there} of its replicas can be counted on, and it demands {}: I/O waits",
                config.min_in_sync
            ),
            match missing.is_empty() {
                true => format!(
                    "wait for the resync: mountctl volume inspect {name} --follow shows how far it is"
                ),
                false => format!(
                    "bring back {}; or, with less safety: mountctl volume set {name} min_in_sync={}",
                    list(&missing),
                    there.max(1)
                ),
            },
        );
    }
    if reading.answers(config.primary) {
        let on = reading.state.node_name(config.primary);
        return down(
            format!("volume {name}: its primary on {on} does not serve yet"),
            "wait some seconds: it is bringing the replicas to the same position".to_owned(),
        );
    }
    if !answering.is_empty() {
        return down(
            format!(
                "volume {name}: its primary's node {} does not answer",
                reading.state.node_name(config.primary)
            ),
            format!(
                "wait some seconds: {} takes over, if a majority of the voters answers",
                answering[0]
            ),
        );
    }
    match older.first() {
        Some(from) => down(
            format!(
                "volume {name}: the replicas that have every write are on nodes that don't answer ({}); {} has an older one",
                list(&silent),
                list(&older)
            ),
            format!(
                "bring one of {} back; only if they are lost for good: mountctl volume accept-loss {name} --from {from}",
                list(&silent)
            ),
        ),
        None => down(
            format!("volume {name}: no node with a replica of it answers ({})", list(&silent)),
            "bring one of them back".to_owned(),
        ),
    }
}

/// What a slice that serves lacks.
fn lacks(reading: &Reading, row: &Volume, slice: SliceId, config: &SliceConfig) -> Option<Reason> {
    let wanted = row.spec.replicas as usize;
    if config.in_sync.len() >= wanted {
        return None;
    }
    let name = &row.name;
    let (_, away) = split(reading, &config.joining);
    let each = config.joining.iter().map(|member| standing(reading, config, slice, member));
    let mut each: Vec<String> = each.collect();
    let homeless = wanted.saturating_sub(config.in_sync.len() + config.joining.len());
    if homeless > 0 {
        each.push(match homeless {
            1 => "one has no place".to_owned(),
            more => format!("{more} have no place"),
        });
    }
    let what = format!(
        "volume {name} has {} of {wanted} replicas in sync: {}",
        config.in_sync.len(),
        list(&each)
    );
    let wait = mooring_api::Span::from_ms(row.spec.replace_after_ms);
    let remedy = if homeless > 0 {
        format!(
            "add a pool on a node that has no replica of it (mountctl pool add), or be content with less: mountctl volume set {name} replicas={}",
            config.in_sync.len() + config.joining.len()
        )
    } else if !away.is_empty() {
        format!(
            "bring {} back; after {wait} away the replica is placed elsewhere by itself, if another node has room",
            list(&away)
        )
    } else {
        format!("wait: mountctl volume inspect {name} --follow shows how far it is")
    };
    Some(reason(Health::Degraded, what, remedy))
}

/// What a joining replica is at.
fn standing(reading: &Reading, config: &SliceConfig, slice: SliceId, member: &Member) -> String {
    let node = reading.state.node_name(member.node);
    if !reading.answers(member.node) {
        return format!("{node} is away");
    }
    let primary = slice_report(reading, config.primary, slice);
    let other = primary.and_then(|p| p.others.iter().find(|other| other.node == member.node));
    match other.and_then(|other| other.join) {
        None => format!("{node} waits for its turn to be brought level"),
        Some(join) => match join.at {
            Some(at) => format!(
                "{node} is being brought level, {} copied, at {} of the volume",
                ByteSize(join.copied_bytes),
                ByteSize(at.0 * BLOCK_SIZE as u64)
            ),
            None => {
                format!("{node} is nearly level, {} copied", ByteSize(join.copied_bytes))
            }
        },
    }
}

/// The names of the nodes that answer, and of those that don't.
fn split(reading: &Reading, members: &[Member]) -> (Vec<String>, Vec<String>) {
    let (there, away): (Vec<&Member>, Vec<&Member>) =
        members.iter().partition(|member| reading.answers(member.node));
    let names = |all: Vec<&Member>| all.iter().map(|m| reading.state.node_name(m.node)).collect();
    (names(there), names(away))
}
