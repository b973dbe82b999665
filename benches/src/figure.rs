//! One measured number, the floor that it is held against, and what was hoped for.

use serde::Serialize;

/// A line of the table, and of the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// The part of the benchmark.
    pub part: &'static str,
    /// What was measured.
    pub name: String,
    /// On what: `ext4 x3`, `device x1`; empty where there is only one thing.
    pub target: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it is held against, measured in the same run; `None` if it stands for itself.
    pub floor: Option<Floor>,
    /// What was hoped for; `None` if it is for information.
    pub goal: Option<Goal>,
    /// What all daemons together spent on each operation or MiB, in microseconds of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor_us: Option<f64>,
    /// The command that measured it, where it is another program's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// The floor of a figure.
#[derive(Clone, Debug, Serialize)]
pub struct Floor {
    /// Its name.
    pub name: &'static str,
    /// Its number, in the figure's unit.
    pub value: f64,
    /// Figure by floor: the median over the rounds, each taken side by side.
    pub ratio: f64,
}

/// What was hoped for.
#[derive(Clone, Copy, Debug, Serialize)]
pub enum Goal {
    /// At least this ratio to the floor.
    RatioAtLeast(f64),
    /// At most this number.
    AtMost(f64),
    /// At least this number.
    AtLeast(f64),
}

impl Figure {
    /// Whether the goal is reached; `None` without one.
    pub fn reached(&self) -> Option<bool> {
        let ratio = self.floor.as_ref().map_or(0.0, |floor| floor.ratio);
        self.goal.map(|goal| match goal {
            Goal::RatioAtLeast(least) => ratio >= least,
            Goal::AtMost(most) => self.value <= most,
            Goal::AtLeast(least) => self.value >= least,
        })
    }
}

/// The middle of some numbers; 0 of none.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_does_not_depend_on_the_order() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_goal_is_reached_on_its_own_side() {
        let floor = Floor { name: "three", value: 100.0, ratio: 0.5 };
        let mut figure = Figure {
            part: "fio",
            name: "x".into(),
            target: String::new(),
            value: 50.0,
            unit: "IOPS",
            floor: Some(floor),
            goal: Some(Goal::RatioAtLeast(0.5)),
            processor_us: None,
            command: None,
        };
        assert_eq!(figure.reached(), Some(true));
        figure.goal = Some(Goal::RatioAtLeast(0.51));
        assert_eq!(figure.reached(), Some(false));
        figure.goal = Some(Goal::AtMost(49.0));
        assert_eq!(figure.reached(), Some(false));
        figure.goal = Some(Goal::AtLeast(49.0));
        assert_eq!(figure.reached(), Some(true));
        figure.goal = None;
        assert_eq!(figure.reached(), None);
    }
}
