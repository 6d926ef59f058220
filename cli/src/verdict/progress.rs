//! How far an experiment is: how many users there are, since when the plan is fulfilled, and whether
//! newcomers were dealt out by the same slots all the time.

use std::collections::BTreeMap;

use super::experiment::{Experiment, Time};
use super::sample_ratio::{self, SampleRatio};

/// A split of users that is less likely than this, did not come by chance. The customary level
/// (Fabijan et al. 2019).
pub(super) const MISMATCH: f64 = 0.001;

/// A series of Prometheus: values by time, in seconds since 1970.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its label `version`.
    pub version: String,
    /// Times, ascending, and values.
    pub points: Vec<(u64, f64)>,
}

/// A counter of Prometheus, by step.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    /// Its label `version`.
    pub version: String,
    /// Times, ascending, in seconds since 1970, and the least and the last value scraped in the step
    /// that ended then.
    pub points: Vec<(u64, [f64; 2])>,
}

/// What the filters counted, from the start on.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// New users: counters as they are, one for each Envoy and version.
    pub assignments: Vec<Counter>,
    /// The slots by which newcomers get a version, one series for each Envoy and version.
    pub slots: Vec<Series>,
}

/// How far an experiment is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The moment that is judged: when the plan was fulfilled, or the split had become too uneven, or
    /// else the last that is known.
    pub at: Time,
    /// New users of control and treatment until then.
    pub users: [f64; 2],
    /// Whether they are as many as planned.
    pub fulfilled: bool,
    /// By which slots they were dealt out.
    pub slots: Slots,
    /// When new users and slots were known for the last time until then.
    pub known: Option<Time>,
}

/// The slots of control and treatment from the start until the moment that is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slots {
    /// The same all the time.
    Steady([f64; 2]),
    /// Others than before, or not the same in all Envoys, the last time then.
    Moved(Time),
    /// Not known at the start, only since then.
    Late(Time),
    /// Not known.
    Unknown,
}

impl Progress {
    /// How far the experiment is, as far as is known at `until`.
    ///
    /// Neither the moment at which the plan is fulfilled nor that of a mismatch before depends on
    /// `until`: who asks later gets the same answer.
    pub fn new(experiment: &Experiment, counts: &Counts, until: Time) -> Self {
        let dealt = dealt(experiment, &counts.slots);
        let at_start = dealt
            .first()
            .filter(|(time, _)| *time <= experiment.start.0)
            .and_then(|(_, slots)| *slots);
        let moved = dealt.iter().find(|(_, slots)| *slots != at_start);
        let planned = experiment.planned() as f64;
        let mut progress = Self {
            at: until,
            users: [0.0; 2],
            fulfilled: false,
            slots: Slots::Unknown,
            known: None,
        };
        let mut counted = None;
        for (time, [control, treatment]) in newcomers(experiment, &counts.assignments) {
            if time > until.0 {
                break;
            }
            counted = Some(time);
            progress.users[0] += control;
            progress.users[1] += treatment;
            progress.fulfilled = progress.users.iter().sum::<f64>() >= planned;
            let steady = at_start.filter(|_| moved.is_none_or(|(moved, _)| time < *moved));
            let split = steady.and_then(|slots| progress.sample_ratio(slots));
            if progress.fulfilled || split.is_some_and(|split| split.p < MISMATCH) {
                progress.at = Time(time);
                break;
            }
        }
        progress.slots = slots(experiment, &dealt, progress.at);
        let by_then = dealt.iter().rev().find(|(time, _)| *time <= progress.at.0);
        let both = by_then.zip(counted);
        progress.known = both.map(|((dealt, _), counted)| Time(counted.min(*dealt)));
        progress
    }

    /// How likely the split of the users is by chance: at the moment of the verdict, or at any time
    /// before.
    pub(super) fn sample_ratio(&self, slots: [f64; 2]) -> Option<SampleRatio> {
        match self.fulfilled {
            true => sample_ratio::once(self.users, slots),
            false => sample_ratio::always(self.users, slots),
        }
    }

    /// How many users the plan still waits for.
    pub fn missing(&self, experiment: &Experiment) -> u64 {
        let counted = self.users.iter().sum::<f64>() as u64;
        experiment.planned().saturating_sub(counted)
    }
}

/// By how much the counters of both versions grew up to each point in time since the one before.
fn newcomers(experiment: &Experiment, assignments: &[Counter]) -> BTreeMap<u64, [f64; 2]> {
    let mut grown: BTreeMap<u64, [f64; 2]> = BTreeMap::new();
    for (version, name) in experiment.versions().into_iter().enumerate() {
        for counter in assignments.iter().filter(|counter| counter.version == name) {
            let mut before = None;
            for &(time, [least, last]) in &counter.points {
                let more = match before {
                    // Who was counted before the experiment began is none of its users.
                    None if time <= experiment.start.0 => 0.0,
                    // It may be new, or an old one that was not scraped, or had another name: only what
                    // it was seen to count is new for certain.
                    None => last - least,
                    // An Envoy that began anew counts from zero.
                    Some(before) if least < before => last,
                    Some(before) => last - before,
                };
                grown.entry(time).or_default()[version] += more;
                before = Some(last);
            }
        }
    }
    grown
}

/// The slots of both versions at each point in time at which both are known; `None` where Envoys differ.
fn dealt(experiment: &Experiment, slots: &[Series]) -> Vec<(u64, Option<[f64; 2]>)> {
    let mut known: BTreeMap<u64, [Vec<f64>; 2]> = BTreeMap::new();
    for (version, name) in experiment.versions().into_iter().enumerate() {
        for series in slots.iter().filter(|series| series.version == name) {
            for &(time, value) in &series.points {
                known.entry(time).or_default()[version].push(value);
            }
        }
    }
    let both = known.into_iter().filter_map(|(time, values)| {
        let first = [*values[0].first()?, *values[1].first()?];
        let mut same = values.iter().zip(first);
        let same = same.all(|(values, first)| values.iter().all(|value| *value == first));
        Some((time, same.then_some(first)))
    });
    both.collect()
}

fn slots(experiment: &Experiment, dealt: &[(u64, Option<[f64; 2]>)], at: Time) -> Slots {
    let mut dealt = dealt
        .iter()
        .take_while(|(time, _)| *time <= at.0)
        .peekable();
    let Some(&&(first, at_start)) = dealt.peek() else {
        return Slots::Unknown;
    };
    if first > experiment.start.0 {
        return Slots::Late(Time(first));
    }
    let (mut before, mut moved) = (at_start, None);
    for &(time, now) in dealt {
        if now.is_none() || now != before {
            moved = Some(Time(time));
        }
        before = now;
    }
    match (at_start, moved) {
        (Some(slots), None) => Slots::Steady(slots),
        (_, moved) => Slots::Moved(moved.unwrap_or(Time(first))),
    }
}
