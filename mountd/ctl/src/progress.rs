//! How far work has come: a bar where a person watches, now and then a line elsewhere.

// A shell: it asks in real time.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use mooring_api::{
    ByteSize, Client, ClientError, ErrorKind, NodeName, Resync, Task, TaskKind, TaskState,
    VolumeName,
};
use tokio::time::MissedTickBehavior;

use crate::failure::Failure;
use crate::output::Output;
use crate::render;

/// How often mountd is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How long a daemon that stops answering is waited for: long enough to be restarted.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
/// Over which time a rate is taken.
const PACE_OVER: Duration = Duration::from_secs(2);
/// A bar is this many steps long, whatever it counts.
const STEPS: u64 = 1_000;
/// Without a terminal, a line a tenth is enough.
const LINE_EVERY: u64 = STEPS / 10;

/// Waits until `task` has ended, showing how far it is.
///
/// # Errors
/// If it fails or is called off, or mountd can't be asked for [`SILENCE_LIMIT`].
pub async fn follow(client: &Client, output: &Output, task: Task) -> Result<Task, Failure> {
    let bars = MultiProgress::new();
    let mut meter = Meter::new(output, &bars, render::title(&task));
    let mut patience = Patience::new();
    let mut ticks = ticks();
    let mut task = task;
    loop {
        let step = task.total.map(|total| step(task.done, total));
        let remark = match task.message.as_str() {
            "" => render::amounts(&task),
            message => format!("{}, {message}", render::amounts(&task)),
        };
        meter.show(step, &remark);
        match task.state {
            TaskState::Running => {}
            TaskState::Done => return Ok(task),
            TaskState::Cancelled => return Err(Failure::Cancelled { task: task.id }),
            TaskState::Failed => {
                let unsaid = || mooring_api::ApiError::new(ErrorKind::Fatal, task.message.clone());
                let error = task.error.clone().unwrap_or_else(unsaid);
                return Err(Failure::Task { task: task.id, error });
            }
        }
        ticks.tick().await;
        match client.task(task.id).await {
            Ok(now) => {
                patience.answered();
                task = now;
            }
            Err(error) => patience.bear(error)?,
        }
    }
}

/// Shows how far the running task of a kind on a subject is, once there is one, until it is dropped.
/// What can't be asked is not shown: whoever waits for the work hears of its failure.
pub async fn watch(client: &Client, output: &Output, kind: TaskKind, subject: &str) {
    let bars = MultiProgress::new();
    let mut meter = None;
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let Ok(tasks) = client.tasks().await else { continue };
        let running = |task: &&Task| {
            task.kind == kind && task.subject == subject && task.state == TaskState::Running
        };
        let Some(task) = tasks.iter().find(running) else { continue };
        let meter = meter.get_or_insert_with(|| Meter::new(output, &bars, render::title(task)));
        let step = task.total.map(|total| step(task.done, total));
        meter.show(step, &render::amounts(task));
    }
}

/// Waits until every replica of `volume` is in sync, showing how far its joins are.
///
/// # Errors
/// If there is no such volume, or mountd can't be asked for [`SILENCE_LIMIT`].
pub async fn follow_resync(
    client: &Client,
    output: &Output,
    volume: &VolumeName,
) -> Result<(), Failure> {
    let bars = MultiProgress::new();
    let mut meters: BTreeMap<(u32, NodeName), (Meter<'_>, Pace)> = BTreeMap::new();
    let mut patience = Patience::new();
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let answers = async {
            let joins = client.resync(volume).await?;
            Ok((joins, client.volume(volume).await?.volume))
        };
        let (joins, now) = match answers.await {
            Ok(answers) => answers,
            Err(error) => {
                patience.bear(error)?;
                continue;
            }
        };
        patience.answered();
        let running = |key: &(u32, NodeName)| {
            joins.iter().any(|join| join.slice == key.0 && join.node == key.1)
        };
        meters.retain(|key, _| running(key));
        for join in &joins {
            let key = (join.slice, join.node.clone());
            let title = || format!("{volume} slice {} on {}", join.slice, join.node);
            let (meter, pace) = meters
                .entry(key)
                .or_insert_with(|| (Meter::new(output, &bars, title()), Pace::new(join.copied.0)));
            let rate = pace.rate(join.copied.0, Instant::now());
            meter.show(Some(step(join.seen.0, join.of.0)), &remark(join, rate));
        }
        if joins.is_empty() && now.in_sync >= now.policy.replicas {
            return Ok(());
        }
    }
}

fn remark(join: &Resync, rate: Option<u64>) -> String {
    let rate = rate.map_or_else(String::new, |rate| format!(", {}/s", ByteSize(rate)));
    format!("{}, {} copied{rate}", render::word(&join.phase), join.copied)
}

/// How fast something grows, over the last seconds.
struct Pace {
    since: Instant,
    from: u64,
    shown: Option<u64>,
}

impl Pace {
    fn new(from: u64) -> Self {
        Self { since: Instant::now(), from, shown: None }
    }

    /// Bytes per second; none before there is anything to go by.
    fn rate(&mut self, at: u64, now: Instant) -> Option<u64> {
        let passed = now.duration_since(self.since);
        if passed >= PACE_OVER {
            let rate = at.saturating_sub(self.from) as f64 / passed.as_secs_f64();
            (self.shown, self.since, self.from) = (Some(rate as u64), now, at);
        }
        self.shown
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// `done` of `total` in [`STEPS`].
fn step(done: u64, total: u64) -> u64 {
    let done = u128::from(done.min(total));
    let step = (done * u128::from(STEPS)).checked_div(u128::from(total));
    step.map_or(STEPS, |step| u64::try_from(step).expect("no more than STEPS"))
}

/// Bears with a daemon that is being restarted, for a while.
struct Patience {
    last_answer: Instant,
}

impl Patience {
    fn new() -> Self {
        Self { last_answer: Instant::now() }
    }

    fn answered(&mut self) {
        self.last_answer = Instant::now();
    }

    fn bear(&self, error: ClientError) -> Result<(), Failure> {
        let passing = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Retry);
        if passing && self.last_answer.elapsed() < SILENCE_LIMIT {
            return Ok(());
        }
        Err(error.into())
    }
}

/// One thing's progress.
struct Meter<'a> {
    output: &'a Output,
    title: String,
    bar: Option<ProgressBar>,
    /// The step that was last printed as a line.
    printed: Option<u64>,
}

impl<'a> Meter<'a> {
    fn new(output: &'a Output, bars: &MultiProgress, title: String) -> Self {
        let watched = output.watched() && !output.json();
        let bar = watched.then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3}% {msg}");
            let bar = bars.add(ProgressBar::new(STEPS));
            bar.set_style(style.expect("the template is well-formed").progress_chars("=> "));
            bar.set_prefix(title.clone());
            bar
        });
        Self { output, title, bar, printed: None }
    }

    /// Shows that `step` of [`STEPS`] are done; none if it isn't known how much there is.
    fn show(&mut self, step: Option<u64>, remark: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(step.unwrap_or(0));
            bar.set_message(remark.to_owned());
            return;
        }
        if is_worth_a_line(self.printed, step.unwrap_or(0)) {
            self.printed = step.or(Some(0));
            let percent =
                step.map_or_else(String::new, |step| format!("{}%, ", step * 100 / STEPS));
            self.output.note(&format!("{}: {percent}{remark}", self.title));
        }
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Whether `step` is a tenth further than what was printed, or the end.
fn is_worth_a_line(printed: Option<u64>, step: u64) -> bool {
    match printed {
        None => true,
        Some(printed) => {
            step / LINE_EVERY > printed / LINE_EVERY || (step == STEPS && printed < STEPS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_parts_of_the_total() {
        assert_eq!(step(0, 10), 0);
        assert_eq!(step(5, 10), STEPS / 2);
        assert_eq!(step(20, 10), STEPS);
        assert_eq!(step(0, 0), STEPS);
        assert_eq!(step(u64::MAX, u64::MAX), STEPS);
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let mut pace = Pace::new(1_000);
        let begin = pace.since;
        assert_eq!(pace.rate(9_000, begin + Duration::from_secs(1)), None);
        assert_eq!(pace.rate(9_000, begin + Duration::from_secs(2)), Some(4_000));
        assert_eq!(pace.rate(9_500, begin + Duration::from_secs(3)), Some(4_000));
        assert_eq!(pace.rate(9_000, begin + Duration::from_secs(6)), Some(0));
    }

    #[test]
    fn a_line_comes_at_the_beginning_and_each_tenth() {
        let mut printed = None;
        let mut lines = Vec::new();
        for step in 0..=STEPS {
            if is_worth_a_line(printed, step) {
                printed = Some(step);
                lines.push(step);
            }
        }
        assert_eq!(lines, (0..=10).map(|tenth| tenth * LINE_EVERY).collect::<Vec<_>>());
    }
}
