//! What people read while it runs and afterwards, and what programs read: `target/bench/*.json`.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::figure::{Figure, Goal};

/// All figures of one run.
#[derive(Debug)]
pub struct Report {
    began: Instant,
    document: Document,
}

/// The JSON.
#[derive(Debug, Serialize)]
struct Document {
    machine: Machine,
    unix_time_s: u64,
    duration_s: f64,
    figures: Vec<Judged>,
    failures: Vec<String>,
}

/// A figure with its verdict.
#[derive(Debug, Serialize)]
struct Judged {
    #[serde(flatten)]
    figure: Figure,
    reached: Option<bool>,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
struct Machine {
    processor: String,
    processors: usize,
    memory_mib: u64,
    kernel: String,
    load_before: String,
}

impl Report {
    /// An empty report; the clock starts.
    pub fn begin() -> Self {
        let unix_time_s =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let document = Document {
            machine: Machine::look(),
            unix_time_s,
            duration_s: 0.0,
            figures: Vec::new(),
            failures: Vec::new(),
        };
        Self { began: Instant::now(), document }
    }

    /// Tells people what is being done.
    pub fn progress(&self, what: &str) {
        eprintln!("[{}] {what}", clock(self.began.elapsed()));
    }

    /// Takes a figure in, and shows it.
    pub fn add(&mut self, figure: Figure) {
        self.progress(&line(&figure));
        let reached = figure.reached();
        self.document.figures.push(Judged { figure, reached });
    }

    /// A part that could not be measured.
    pub fn failed(&mut self, what: String) {
        self.progress(&format!("FAILED {what}"));
        self.document.failures.push(what);
    }

    /// Whether every part could be measured.
    pub fn is_whole(&self) -> bool {
        self.document.failures.is_empty()
    }

    /// Writes the JSON.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&mut self, file: &Path) -> io::Result<()> {
        self.document.duration_s = self.began.elapsed().as_secs_f64();
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut text = serde_json::to_string_pretty(&self.document)?;
        text.push('\n');
        fs::write(file, text)?;
        fs::write(file.with_extension("md"), self.markdown())
    }

    /// The figures as a table for a page.
    fn markdown(&self) -> String {
        let mut text =
            String::from("| | on | value | floor | ratio | goal |\n|---|---|---|---|---|---|\n");
        for Judged { figure, reached } in &self.document.figures {
            let cells = Cells::of(figure);
            let goal = match reached {
                Some(true) => cells.goal,
                Some(false) => format!("**{}**", cells.goal),
                None => String::new(),
            };
            let Figure { name, target, .. } = figure;
            let Cells { value, floor, ratio, .. } = cells;
            text += &format!("| {name} | {target} | {value} | {floor} | {ratio} | {goal} |\n");
        }
        text
    }

    /// Prints all figures, part by part.
    pub fn print(&self) {
        let Machine { processor, processors, memory_mib, kernel, load_before } =
            &self.document.machine;
        println!("\n{processors} x {processor}, {} GiB, Linux {kernel}", memory_mib >> 10);
        println!("load before: {load_before}; took {}", clock(self.began.elapsed()));
        let mut part = "";
        for Judged { figure, .. } in &self.document.figures {
            if figure.part != part {
                part = figure.part;
                println!("\n{part}");
                println!("{}", header());
            }
            println!("{}", line(figure));
        }
        let judged = self.document.figures.iter().filter_map(|judged| judged.reached);
        let (all, good) = judged.fold((0, 0), |(all, good), yes| (all + 1, good + u32::from(yes)));
        println!("\n{good} of {all} goals reached");
        for failure in &self.document.failures {
            println!("\n!!!! NOT MEASURED {failure}");
        }
    }
}

impl Machine {
    fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        Self {
            processor: value(&read("/proc/cpuinfo"), "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib >> 10,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg").trim().to_owned(),
        }
    }
}

fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

fn header() -> String {
    let (figure, floor) = ("figure", "floor");
    let (on, value, cost, ratio) = ("on", "value", "daemons", "ratio");
    format!("  {figure:<34} {on:<13} {value:>12}  {cost:>8}  {floor:<18} {ratio:>5}  goal")
}

/// A figure's numbers as text.
struct Cells {
    value: String,
    floor: String,
    ratio: String,
    goal: String,
}

impl Cells {
    fn of(figure: &Figure) -> Self {
        let value = format!("{} {}", rounded(figure.value), figure.unit);
        let (floor, ratio) = match &figure.floor {
            Some(floor) => {
                (format!("{} {}", floor.name, rounded(floor.value)), format!("{:.2}", floor.ratio))
            }
            None => (String::new(), String::new()),
        };
        let goal = match figure.goal {
            Some(Goal::RatioAtLeast(least)) => format!(">= {least:.2}"),
            Some(Goal::AtMost(most)) => format!("<= {}", rounded(most)),
            Some(Goal::AtLeast(least)) => format!(">= {}", rounded(least)),
            None => String::new(),
        };
        Self { value: value.trim_end().to_owned(), floor, ratio, goal }
    }
}

fn line(figure: &Figure) -> String {
    let Cells { value, floor, ratio, goal } = Cells::of(figure);
    let verdict = match figure.reached() {
        Some(true) => "  reached",
        Some(false) => "  NOT REACHED",
        None => "",
    };
    let (name, target) = (&figure.name, &figure.target);
    let cost = figure.processor_us.map(|us| format!("{us:.0} us")).unwrap_or_default();
    format!(
        "  {name:<34} {target:<13} {value:>12}  {cost:>8}  {floor:<18} {ratio:>5}  {goal}{verdict}"
    )
    .trim_end()
    .to_owned()
}

/// Three digits that matter, or all before the point.
fn rounded(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        0.0 => "0".into(),
        _ => format!("{number:.2}"),
    }
}
