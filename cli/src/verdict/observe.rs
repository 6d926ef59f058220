//! What Prometheus knows of an experiment.

use std::collections::{BTreeMap, BTreeSet};

use super::experiment::{Experiment, Time};
use super::progress::{Counter, Counts, Series};
use super::prometheus::{Prometheus, Row};
use super::sums::{BUCKETS, Outcome, Sums};

/// How often users are counted, in seconds, from the start of the experiment on. Never another: the
/// moment at which the plan is fulfilled must be the same whoever asks, and whenever.
pub const RESOLUTION: u64 = 300;
/// What is scraped needs a moment until it can be asked for, in seconds.
const SETTLED: u64 = 60;
/// Prometheus answers with at most 11,000 points of a series.
const POINTS: u64 = 10_000;

/// What the filters counted from the start until `now`, and the last moment of which that is known.
///
/// # Errors
/// Prometheus does not answer, or not as it should.
pub fn counts(
    prometheus: &Prometheus,
    experiment: &Experiment,
    now: Time,
) -> Result<(Counts, Time), String> {
    let start = experiment.start.0;
    let steps = now.0.saturating_sub(start + SETTLED) / RESOLUTION;
    let until = Time(start + steps * RESOLUTION);
    let metrics = &experiment.metrics;
    // What was scraped in a step stands for its end: a scrape that is missed does not matter.
    let [assignments, slots] = [&metrics.assignments.0, &metrics.slots.0]
        .map(|metric| format!("{}[{RESOLUTION}s]", of_filter(experiment, metric)));
    let last = format!("last_over_time({assignments})");
    let least = format!("min_over_time({assignments})");
    let slots = format!("last_over_time({slots})");
    let mut counts = Counts::default();
    // Filters that come and go in the meantime stay the same series: they are told apart by labels.
    let mut known: BTreeMap<BTreeMap<String, String>, BTreeMap<u64, [f64; 2]>> = BTreeMap::new();
    let mut first = 0;
    while first <= steps {
        let end = steps.min(first + POINTS - 1);
        let range = [first, end].map(|step| Time(start + step * RESOLUTION));
        for (index, query) in [&least, &last].into_iter().enumerate() {
            for mut row in prometheus.query_range("new users", query, range, RESOLUTION)? {
                // Not every function keeps the name.
                row.labels.remove("__name__");
                let points = known.entry(row.labels).or_default();
                for (time, value) in row.points {
                    points.entry(time).or_insert([value; 2])[index] = value;
                }
            }
        }
        for mut row in prometheus.query_range("slots", &slots, range, RESOLUTION)? {
            counts.slots.push(Series {
                version: row.labels.remove("version").unwrap_or_default(),
                points: row.points,
            });
        }
        first = end + 1;
    }
    let counters = known.into_iter().map(|(mut labels, points)| Counter {
        version: labels.remove("version").unwrap_or_default(),
        points: points.into_iter().collect(),
    });
    counts.assignments = counters.collect();
    Ok((counts, until))
}

/// What users did from the start until `at`.
///
/// # Errors
/// Prometheus does not answer, or not as it should, or the histogram has different borders.
pub fn outcome(
    prometheus: &Prometheus,
    experiment: &Experiment,
    at: Time,
) -> Result<Outcome, String> {
    let window = at.0.saturating_sub(experiment.start.0);
    if window == 0 {
        return Ok(Outcome::default());
    }
    let metrics = &experiment.metrics;
    let [seconds, histogram] =
        ["sum", "bucket"].map(|part| format!("{}_{part}", metrics.latency.0));
    let ask = |what: &str, metric: &str, by: &str| {
        let selector = of_service(experiment, metric);
        let query = format!("sum by (version, bucket{by}) (increase({selector}[{window}s]))");
        prometheus.query(what, &query, at)
    };
    let mut cells = Cells::new(experiment);
    for (what, metric, field) in [
        (
            "predictions",
            &metrics.predictions.0,
            (|sums| &mut sums.predictions) as Field,
        ),
        ("corrections", &metrics.corrections.0, |sums| {
            &mut sums.corrections
        }),
        ("seconds to an answer", &seconds, |sums| &mut sums.seconds),
    ] {
        let rows = ask(what, metric, "")?;
        let added = rows.iter().try_for_each(|row| cells.add(row, field));
        added.map_err(|reason| prometheus.fault(what, &reason))?;
    }
    let what = "the latency histogram";
    let rows = ask(what, &histogram, ", le")?;
    let outcome = cells.histogram(&rows);
    outcome.map_err(|reason| prometheus.fault(what, &reason))
}

fn of_filter(experiment: &Experiment, metric: &str) -> String {
    let rollout = format!("rollout=\"{}\"", experiment.rollout.as_str());
    selector(experiment, metric, &rollout, &experiment.matchers.filter.0)
}

/// Without requests that belong to no user, or to a tester who chose the version: their bucket is
/// `none`.
fn of_service(experiment: &Experiment, metric: &str) -> String {
    let matcher = &experiment.matchers.service.0;
    selector(experiment, metric, "bucket=~\"[0-9]+\"", matcher)
}

fn selector(experiment: &Experiment, metric: &str, own: &str, more: &str) -> String {
    let versions = experiment.versions().join("|");
    let more = match more.trim() {
        "" => String::new(),
        more => format!(",{more}"),
    };
    format!("{metric}{{version=~\"{versions}\",{own}{more}}}")
}

/// Which of the sums.
type Field = fn(&mut Sums) -> &mut f64;

/// The sums while they are put together.
struct Cells<'a> {
    experiment: &'a Experiment,
    buckets: BTreeMap<u8, [Sums; 2]>,
}

impl<'a> Cells<'a> {
    fn new(experiment: &'a Experiment) -> Self {
        Self {
            experiment,
            buckets: BTreeMap::new(),
        }
    }

    fn add(&mut self, row: &Row, field: Field) -> Result<(), String> {
        let value = value(row);
        *field(self.cell(row)?) += value;
        Ok(())
    }

    fn cell(&mut self, row: &Row) -> Result<&mut Sums, String> {
        let (bucket, version) = place(self.experiment, row)?;
        Ok(&mut self.buckets.entry(bucket).or_default()[version])
    }

    fn histogram(mut self, rows: &[Row]) -> Result<Outcome, String> {
        let mut borders: BTreeSet<Border> = BTreeSet::new();
        let mut counts: BTreeMap<(u8, usize), BTreeMap<Border, f64>> = BTreeMap::new();
        for row in rows {
            let border = row.labels.get("le").and_then(|text| text.parse().ok());
            let border = Border(border.ok_or("a series without a border (label le)")?);
            borders.insert(border);
            let place = place(self.experiment, row)?;
            *counts.entry(place).or_default().entry(border).or_default() += value(row);
        }
        if borders
            .last()
            .is_some_and(|border| border.0 != f64::INFINITY)
        {
            return Err("it has no border +Inf: it is not a classic histogram".to_owned());
        }
        for ((bucket, version), counts) in counts {
            if counts.len() != borders.len() {
                return Err(
                    "its borders are not the same everywhere: let all pods of both versions \
                            have one build's, and declare the experiment anew"
                        .to_owned(),
                );
            }
            let sums = &mut self.buckets.entry(bucket).or_default()[version];
            sums.answers = counts.into_values().collect();
        }
        Ok(Outcome {
            borders: borders.into_iter().map(|border| border.0).collect(),
            buckets: self.buckets.into_values().collect(),
        })
    }
}

/// The bucket of a series, and which of the versions it is of.
fn place(experiment: &Experiment, row: &Row) -> Result<(u8, usize), String> {
    let label = |name: &str| row.labels.get(name).map_or("", String::as_str);
    let version = experiment
        .versions()
        .iter()
        .position(|name| *name == label("version"));
    let bucket = label("bucket")
        .parse()
        .ok()
        .filter(|bucket| *bucket < BUCKETS);
    match (bucket, version) {
        (Some(bucket), Some(version)) => Ok((bucket, version)),
        _ => Err(format!(
            "a series with bucket {:?} and version {:?}: allowed are bucket 0 to {}, and version {}",
            label("bucket"),
            label("version"),
            BUCKETS - 1,
            experiment.versions().join(" or "),
        )),
    }
}

fn value(row: &Row) -> f64 {
    row.points.first().map_or(0.0, |(_, value)| *value)
}

/// A border of a histogram, in its order.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Border(f64);

impl Eq for Border {}

impl PartialOrd for Border {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Border {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
