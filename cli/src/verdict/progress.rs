//! How far an experiment is: how many users there are, since when the plan is fulfilled, and whether
//! newcomers were dealt out by the same slots all the time.

use std::collections::BTreeMap;

use super::experiment::{Experiment, Time};

/// How much later than the start the slots may be known for the first time, in seconds.
const LATE: u64 = 3600;

/// A series of Prometheus: values by time, in seconds since 1970.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its label `version`.
    pub version: String,
    /// Times, ascending, and values.
    pub points: Vec<(u64, f64)>,
}

/// What the filters counted, from the start on.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// New users: counters as they are, one for each Envoy and version.
    pub assignments: Vec<Series>,
    /// The slots by which newcomers get a version, one series for each version.
    pub slots: Vec<Series>,
}

/// How far an experiment is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The moment that is judged: when the plan was fulfilled, or else the last that is known.
    pub at: Time,
    /// New users of control and treatment until then.
    pub users: [f64; 2],
    /// Whether they are as many as planned.
    pub fulfilled: bool,
    /// By which slots they were dealt out.
    pub slots: Slots,
}

/// The slots of control and treatment from the start until the moment that is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slots {
    /// The same all the time.
    Steady([f64; 2]),
    /// Others than before, the last time then.
    Moved(Time),
    /// Known only since then.
    Late(Time),
    /// Not known.
    Unknown,
}

impl Progress {
    /// How far the experiment is, as far as is known at `until`.
    ///
    /// The moment at which the plan is fulfilled does not depend on `until`: who asks later gets the
    /// same answer.
    pub fn new(experiment: &Experiment, counts: &Counts, until: Time) -> Self {
        let planned = experiment.planned() as f64;
        let mut progress = Self {
            at: until,
            users: [0.0; 2],
            fulfilled: false,
            slots: Slots::Unknown,
        };
        for (time, [control, treatment]) in newcomers(experiment, &counts.assignments) {
            if time > until.0 {
                break;
            }
            progress.users[0] += control;
            progress.users[1] += treatment;
            if progress.users.iter().sum::<f64>() >= planned {
                progress.fulfilled = true;
                progress.at = Time(time);
                break;
            }
        }
        progress.slots = slots(experiment, &counts.slots, progress.at);
        progress
    }

    /// How many users the plan still waits for.
    pub fn missing(&self, experiment: &Experiment) -> u64 {
        let counted = self.users.iter().sum::<f64>() as u64;
        experiment.planned().saturating_sub(counted)
    }
}

/// By how much the counters of both versions grew up to each point in time since the one before.
fn newcomers(experiment: &Experiment, assignments: &[Series]) -> BTreeMap<u64, [f64; 2]> {
    let mut grown: BTreeMap<u64, [f64; 2]> = BTreeMap::new();
    for (version, name) in experiment.versions().into_iter().enumerate() {
        for series in assignments.iter().filter(|series| series.version == name) {
            let mut before = None;
            for &(time, value) in &series.points {
                let more = match before {
                    // Who was counted before the experiment began is none of its users.
                    None if time <= experiment.start.0 => 0.0,
                    // An Envoy that came later, or began anew, counts from zero.
                    None => value,
                    Some(before) if value < before => value,
                    Some(before) => value - before,
                };
                grown.entry(time).or_default()[version] += more;
                before = Some(value);
            }
        }
    }
    grown
}

fn slots(experiment: &Experiment, slots: &[Series], at: Time) -> Slots {
    let mut known: BTreeMap<u64, [Option<f64>; 2]> = BTreeMap::new();
    for (version, name) in experiment.versions().into_iter().enumerate() {
        for series in slots.iter().filter(|series| series.version == name) {
            for &(time, value) in series.points.iter().filter(|(time, _)| *time <= at.0) {
                known.entry(time).or_default()[version] = Some(value);
            }
        }
    }
    let mut both = known
        .into_iter()
        .filter_map(|(time, [control, treatment])| Some((time, [control?, treatment?])));
    let Some((first, mut slots)) = both.next() else {
        return Slots::Unknown;
    };
    if first > experiment.start.0 + LATE {
        return Slots::Late(Time(first));
    }
    let mut moved = None;
    for (time, now) in both {
        if now != slots {
            slots = now;
            moved = Some(Time(time));
        }
    }
    moved.map_or(Slots::Steady(slots), Slots::Moved)
}
