//! The verdict: what the figures mean by the rules of the experiment.

use super::always_valid;
use super::experiment::{Experiment, Percent};
use super::jackknife::LogRatio;
use super::progress::{MISMATCH, Progress, Slots};
use super::sample_ratio::SampleRatio;
use super::sums::{BUCKETS, Outcome, Sums};

/// How likely a treatment without any rise of the correction rate may be accepted at most.
pub(super) const SIGNIFICANCE: f64 = 0.05;
/// The confidence of intervals: of those whose lower end is above zero, the rise is significant.
pub(super) const CONFIDENCE: f64 = 0.9;
/// How likely a latency that rises no more than allowed is taken for one that does, at any time; for
/// mean and p95 together.
pub(super) const FALSE_ALARM: f64 = 0.05;
/// With data of fewer buckets nothing is said about certainty.
pub(super) const FEWEST_BUCKETS: usize = 8;
/// With fewer answers in a version no guardrail is asked: a p95 needs some answers above it.
pub(super) const FEWEST_ANSWERS: f64 = 400.0;

/// The share of the answers that come within the p95.
const P95: f64 = 0.95;
/// A border over the one below it that is larger than this, leaves open where between them the p95 is. A
/// little more than 25 %: borders are rounded.
const WIDEST: f64 = 1.250_001;
/// Where there are more predictions than answers, or fewer, by this factor, they are not of the same
/// questions,
const FAR_APART: f64 = 2.0;
/// unless there are fewer than this of both.
const MANY: f64 = 100.0;
/// What differs by less, is the same to all readers.
const MOST_DECIMALS: usize = 12;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The treatment is as good as it had to be.
    Accept,
    /// It is not, or a guardrail is breached.
    RollBack,
    /// Users are missing.
    NotEnoughData,
    /// The experiment cannot be judged, neither now nor later.
    Invalid,
}

/// A verdict and what it rests on.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// What is to be done.
    pub verdict: Verdict,
    /// Why it is not accepted; empty while users are missing.
    pub reasons: Vec<String>,
    /// What looks wrong with the data, though the verdict does not depend on it.
    pub notes: Vec<String>,
    /// How many users the plan still waits for.
    pub missing: u64,
    /// How likely the split of the users is by chance; while users are missing, at any time.
    pub sample_ratio: Option<SampleRatio>,
    /// How many buckets have data of both versions.
    pub buckets: usize,
    /// What was counted in control and treatment.
    pub total: [Sums; 2],
    /// The figures that count at this moment: while users are missing, the guardrails alone.
    pub figures: Vec<Figure>,
}

/// A figure of both versions.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Which one.
    pub of: Of,
    /// In control and treatment; not every figure is always known.
    pub values: [Option<f64>; 2],
    /// By which fraction of the control's the treatment's is larger.
    pub rise: Option<f64>,
    /// The lower bound of the rise: of the interval, or while users are missing the one that holds at
    /// any time.
    pub low: Option<f64>,
    /// The upper bound of the interval; `None` while users are missing.
    pub high: Option<f64>,
    /// How likely such a rise is by chance.
    pub p: Option<f64>,
    /// How sure the logarithm of treatment over control is.
    pub ratio: Option<LogRatio>,
    /// Why it speaks against the treatment; empty if it does not.
    pub against: Vec<String>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Corrections for each prediction.
    CorrectionRate,
    /// Mean latency, in seconds.
    MeanLatency,
    /// The 95th percentile of latency, in seconds.
    P95Latency,
}

/// Judges an experiment by what was counted until the moment of `progress`.
pub fn judge(experiment: &Experiment, progress: &Progress, outcome: &Outcome) -> Judgement {
    let buckets = outcome.complete();
    let mut judgement = Judgement {
        verdict: Verdict::Invalid,
        reasons: Vec::new(),
        notes: notes(experiment, progress, outcome),
        missing: progress.missing(experiment),
        sample_ratio: None,
        buckets,
        total: outcome.total(),
        figures: Vec::new(),
    };
    match fair(experiment, progress) {
        Ok(split) => judgement.sample_ratio = split,
        Err((split, reason)) => {
            judgement.sample_ratio = split;
            judgement.reasons = vec![reason];
            return judgement;
        }
    }
    if progress.fulfilled && buckets < FEWEST_BUCKETS {
        judgement.reasons = vec![few(buckets)];
        return judgement;
    }
    let mut figures = Vec::new();
    if progress.fulfilled {
        figures.push(corrections(experiment, outcome));
    }
    let latencies = [Of::MeanLatency, Of::P95Latency];
    figures.extend(latencies.map(|of| match progress.fulfilled {
        true => latency(experiment, outcome, of),
        false => guardrail(experiment, outcome, of),
    }));
    let against = figures.iter().flat_map(|figure| figure.against.clone());
    judgement.reasons = against.collect();
    judgement.figures = figures;
    judgement.verdict = match (judgement.reasons.is_empty(), progress.fulfilled) {
        (false, _) => Verdict::RollBack,
        (true, true) => Verdict::Accept,
        (true, false) => Verdict::NotEnoughData,
    };
    judgement
}

/// What looks wrong with the data.
fn notes(experiment: &Experiment, progress: &Progress, outcome: &Outcome) -> Vec<String> {
    let mut notes = Vec::new();
    let buckets = outcome.complete();
    let many = progress
        .users
        .iter()
        .all(|users| *users >= f64::from(BUCKETS));
    if !progress.fulfilled && buckets < FEWEST_BUCKETS && many {
        notes.push(few(buckets));
    }
    let metrics = &experiment.metrics;
    let [assignments, slots] = [&metrics.assignments.0, &metrics.slots.0];
    match progress.known {
        Some(known) if known == progress.at => {}
        Some(known) => notes.push(format!(
            "{assignments} or {slots} is not known since {known}: was a gateway scraped since? Who came \
             later is not counted yet"
        )),
        None if progress.slots == Slots::Unknown => {}
        None => notes.push(format!(
            "{assignments} is not known of rollout {}: are names and matchers of the filter's metrics \
             right?",
            experiment.rollout.as_str(),
        )),
    }
    let latency = &metrics.latency.0;
    for (version, sums) in experiment.versions().into_iter().zip(outcome.total()) {
        let [fewer, more] = match [sums.predictions, sums.answered()] {
            [predictions, answers] if predictions < answers => [predictions, answers],
            [predictions, answers] => [answers, predictions],
        };
        if more >= MANY && more > FAR_APART * fewer {
            notes.push(format!(
                "{version} has {:.0} predictions and {:.0} answers: does another service count {latency}, \
                 are names and matchers of the service's metrics right?",
                sums.predictions,
                sums.answered(),
            ));
        }
        if let Some([(below, _), (above, _)]) = sums.bin(P95, &outcome.borders)
            && above > WIDEST * below
        {
            notes.push(format!(
                "p95 latency: that of {version} is between {below} s and {above} s, borders of the histogram \
                 that are more than 25 % apart: its rise is inexact"
            ));
        }
    }
    notes
}

/// That too few buckets have data.
fn few(buckets: usize) -> String {
    format!(
        "only {buckets} of {BUCKETS} buckets have predictions and answers of both versions, \
         {FEWEST_BUCKETS} are needed: is the service scraped, does it get x-rollout-bucket, are names and \
         matchers of its metrics right?"
    )
}

/// Whether users were dealt out as the slots say, all the time: how likely their split is by
/// chance, or why the experiment is invalid.
fn fair(
    experiment: &Experiment,
    progress: &Progress,
) -> Result<Option<SampleRatio>, (Option<SampleRatio>, String)> {
    let slots_metric = &experiment.metrics.slots.0;
    let rollout = experiment.rollout.as_str();
    let slots = match progress.slots {
        Slots::Steady(slots) => slots,
        Slots::Moved(time) => {
            let reason = format!(
                "the weights moved, or were not the same in all gateways, for the last time by {time}: \
                 users are not dealt out alike. Declare the experiment anew, with a start at {time} or \
                 later, once they are"
            );
            return Err((None, reason));
        }
        Slots::Late(time) => {
            let reason = format!(
                "Prometheus does not know {slots_metric} of rollout {rollout} at the start, only since \
                 {time}: it did not scrape the filter then, or does not keep data for so long. Who came \
                 before is not counted: declare the experiment anew, with a start at {time} or later"
            );
            return Err((None, reason));
        }
        Slots::Unknown => {
            let [control, treatment] = experiment.versions();
            let reason = format!(
                "Prometheus has no {slots_metric} of rollout {rollout} for both {control} and \
                 {treatment}: is the gateway scraped, are these the names of the policy, are names and \
                 matchers of its metrics right?"
            );
            return Err((None, reason));
        }
    };
    for (slots, version) in slots.iter().zip(experiment.versions()) {
        if *slots <= 0.0 {
            let reason = format!("{version} gets no newcomers: it has no slots");
            return Err((None, reason));
        }
    }
    match progress.sample_ratio(slots) {
        Some(split) if split.p < MISMATCH => {
            let all: f64 = progress.users.iter().sum();
            let expected = slots[1] / slots.iter().sum::<f64>();
            let [share, expected] =
                beside(progress.users[1] / all, expected, 2, |share, decimals| {
                    format!("{:.decimals$} %", 100.0 * share)
                });
            let [p, _] = beside(split.p, MISMATCH, 1, |p, decimals| {
                format!("{p:.decimals$e}")
            });
            let reason = format!(
                "sample-ratio mismatch: {share} of the new users got {}, {expected} should have (p \
                 {p}, below {MISMATCH}). Who is missing would bias every figure: find out why before \
                 the experiment is declared anew",
                experiment.treatment.as_str(),
            );
            Err((Some(split), reason))
        }
        split => Ok(split),
    }
}

fn corrections(experiment: &Experiment, outcome: &Outcome) -> Figure {
    let mut figure = Figure::new(experiment, outcome, Of::CorrectionRate);
    figure.p = figure.ratio.map(|ratio| ratio.p_value());
    let least = experiment.minimal_rise;
    let name = figure.of.name();
    if let Some(rise) = figure.rise {
        if rise < least.fraction() {
            let [rise, least] = rise_beside(rise, least);
            let against = format!("{name}: {rise}, {least} or more is asked for");
            figure.against.push(against);
        }
        match figure.p {
            Some(p) if p < SIGNIFICANCE => {}
            Some(p) => figure.against.push(format!(
                "{name}: its rise may be chance ({}, below {SIGNIFICANCE} is asked for)",
                chance(p)
            )),
            None => figure.against.push(format!(
                "{name}: its rise may be chance: in one of the versions all corrections, if any, \
                 come from one bucket"
            )),
        }
    }
    figure.add_interval();
    figure
}

fn latency(experiment: &Experiment, outcome: &Outcome, of: Of) -> Figure {
    let mut figure = Figure::new(experiment, outcome, of);
    let most = experiment.maximal_latency_rise;
    if let Some(rise) = figure.rise.filter(|rise| *rise >= most.fraction()) {
        let [rise, most] = rise_beside(rise, most);
        let against = format!("{}: {rise}, less than {most} is asked for", of.name());
        figure.against.push(against);
    }
    figure.add_interval();
    figure
}

/// While users are missing: only what is certain, however often one looks, counts against the
/// treatment.
fn guardrail(experiment: &Experiment, outcome: &Outcome, of: Of) -> Figure {
    let mut figure = Figure::new(experiment, outcome, of);
    // Whatever is not known yet may be known later.
    figure.against.clear();
    let answers = outcome.total().map(|sums| sums.answered());
    let enough = outcome.complete() >= FEWEST_BUCKETS
        && answers.iter().all(|answers| *answers >= FEWEST_ANSWERS);
    let low = figure.ratio.filter(|_| enough).map(|ratio| {
        let bound = always_valid::lower_bound(&ratio, FALSE_ALARM / 2.0);
        bound.exp_m1()
    });
    figure.low = low;
    let most = experiment.maximal_latency_rise;
    if let Some(low) = low.filter(|low| *low > most.fraction()) {
        let [low, most] = rise_beside(low, most);
        let against = format!(
            "{}: {low} at least, less than {most} is asked for: certain enough not to wait for more users",
            of.name()
        );
        figure.against.push(against);
    }
    figure
}

impl Of {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CorrectionRate => "correction rate",
            Self::MeanLatency => "mean latency",
            Self::P95Latency => "p95 latency",
        }
    }

    fn figure(self, sums: &Sums, borders: &[f64]) -> Option<f64> {
        match self {
            Self::CorrectionRate => sums.correction_rate(),
            Self::MeanLatency => sums.mean(),
            Self::P95Latency => sums.quantile(P95, borders),
        }
    }
}

impl Figure {
    /// The figure in both versions, with what speaks against the treatment if it is not known.
    fn new(experiment: &Experiment, outcome: &Outcome, of: Of) -> Self {
        let figure = |sums: &Sums| of.figure(sums, &outcome.borders);
        let values = outcome.total().each_ref().map(&figure);
        let mut against = Vec::new();
        let rise = match values {
            [Some(control), Some(treatment)] if control > 0.0 => Some(rise(control, treatment)),
            _ => {
                against.push(unknown(experiment, outcome, of, values));
                None
            }
        };
        Self {
            of,
            values,
            rise,
            low: None,
            high: None,
            p: None,
            ratio: LogRatio::of(outcome, figure),
            against,
        }
    }

    fn add_interval(&mut self) {
        if let Some(ratio) = self.ratio {
            let [low, high] = ratio.interval(CONFIDENCE).map(f64::exp_m1);
            (self.low, self.high) = (Some(low), Some(high));
        }
    }
}

/// Why a rise is not known.
fn unknown(experiment: &Experiment, outcome: &Outcome, of: Of, values: [Option<f64>; 2]) -> String {
    let mut versions = experiment.versions().into_iter().zip(values);
    let name = of.name();
    let last_border = outcome
        .borders
        .iter()
        .rev()
        .find(|border| border.is_finite());
    match (versions.find(|(_, value)| value.is_none()), last_border) {
        (Some((version, _)), Some(border)) if of == Of::P95Latency => format!(
            "{name}: not known of {version}: it is above the last border of the histogram, {border} s"
        ),
        (Some((version, _)), _) => format!("{name}: not known of {version}"),
        (None, _) => format!(
            "{name}: zero in {}: no rise can be told",
            experiment.control.as_str()
        ),
    }
}

/// By which fraction the treatment is larger, without what division loses: 0.22 is 10 % more than 0.2.
fn rise(control: f64, treatment: f64) -> f64 {
    ((treatment / control - 1.0) * 1e9).round() / 1e9
}

/// `+12.3 %`
pub(super) fn percent(fraction: f64) -> String {
    format!("{:+.1} %", 100.0 * fraction)
}

/// `p 0.012`
pub(super) fn chance(p: f64) -> String {
    match p < 0.001 {
        true => "p < 0.001".to_owned(),
        false => {
            let [p, _] = beside(p, SIGNIFICANCE, 3, |p, decimals| format!("{p:.decimals$}"));
            format!("p {p}")
        }
    }
}

/// A rise and the one that decides.
fn rise_beside(rise: f64, limit: Percent) -> [String; 2] {
    let decimals = if limit.0.is_multiple_of(10) { 1 } else { 2 };
    beside(rise, limit.fraction(), decimals, |rise, decimals| {
        format!("{:+.decimals$} %", 100.0 * rise)
    })
}

/// A number and the one that decides about it, with as many decimals as it takes to tell them apart, if
/// they are not the same.
fn beside(
    number: f64,
    limit: f64,
    decimals: usize,
    show: impl Fn(f64, usize) -> String,
) -> [String; 2] {
    let shown = |decimals| [number, limit].map(|number| show(number, decimals));
    let differs = |[number, limit]: &[String; 2]| number != limit;
    let mut more = (decimals..=MOST_DECIMALS).map(shown);
    more.find(differs).unwrap_or_else(|| shown(decimals))
}
