//! How good models are, as numbers and as tables.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use text::{Class, Features, Model, Task};

use crate::candidates::{Candidate, VERSIONS};
use crate::data::{Counts, Example, folds};
use crate::relations::Held;

/// How many parts cross-validation makes.
pub const FOLDS: usize = 5;

/// How much worse than the best before a model may be, in F1 on the texts that training has not seen.
pub const TOLERANCE: f64 = 0.02;

/// The contents of `<task>-metrics.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// What the models were trained for.
    pub task: Task,
    /// The SHA-256 of each file of the data set.
    pub files: BTreeMap<String, String>,
    /// What became of its lines.
    pub data: Counts,
    /// All candidates, cross-validated on the training part.
    pub candidates: Vec<CrossValidated>,
    /// The models that are shipped, measured on the part that they have not seen.
    pub models: Vec<Figures>,
    /// The best F1 that each version has had there since these figures are kept.
    pub best_f1: BTreeMap<String, f64>,
    /// What their answers keep to when texts are changed.
    pub relations: Vec<Held>,
}

/// How one candidate did on average.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossValidated {
    /// The kind of model.
    pub model: String,
    /// What it looks at.
    pub features: Features,
    /// In how many buckets.
    pub dimensions: u16,
    /// The version of the service that carries it, if any does.
    pub version: Option<String>,
    /// The share of right answers.
    pub accuracy: Spread,
    /// The share of positives among what was called positive.
    pub precision: Spread,
    /// The share of positives that was found.
    pub recall: Spread,
    /// The harmonic mean of precision and recall.
    pub f1: Spread,
}

/// A figure over all folds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of the sample.
    pub deviation: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares = values.iter().map(|value| (value - mean).powi(2));
        let variance = squares.sum::<f64>() / (count - 1.0);
        Self {
            mean: rounded(mean),
            deviation: rounded(variance.sqrt()),
        }
    }
}

/// How one model did.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// The version of the service that carries it.
    pub version: String,
    /// The kind of model.
    pub model: String,
    /// Positives called positive.
    pub true_positives: u32,
    /// Positives called negative.
    pub false_negatives: u32,
    /// Negatives called positive.
    pub false_positives: u32,
    /// Negatives called negative.
    pub true_negatives: u32,
    /// The share of right answers.
    pub accuracy: f64,
    /// The share of positives among what was called positive.
    pub precision: f64,
    /// The share of positives that was found.
    pub recall: f64,
    /// The harmonic mean of precision and recall.
    pub f1: f64,
}

impl Figures {
    /// Asks `model` about every example.
    pub fn measure(version: &str, model: &Model, examples: &[Example]) -> Self {
        let classify = |text: &str| model.predict(text).class;
        Self::of_answers(version, model.name(), examples, classify)
    }

    /// Asks whoever answers for a model of this name.
    pub fn of_answers(
        version: &str,
        model: &str,
        examples: &[Example],
        mut classify: impl FnMut(&str) -> Class,
    ) -> Self {
        let [mut tp, mut fn_, mut fp, mut tn] = [0; 4];
        for example in examples {
            *match (example.class, classify(&example.text)) {
                (Class::Positive, Class::Positive) => &mut tp,
                (Class::Positive, Class::Negative) => &mut fn_,
                (Class::Negative, Class::Positive) => &mut fp,
                (Class::Negative, Class::Negative) => &mut tn,
            } += 1;
        }
        let (right, wrong) = (tp + tn, fn_ + fp);
        Self {
            version: version.to_owned(),
            model: model.to_owned(),
            true_positives: tp,
            false_negatives: fn_,
            false_positives: fp,
            true_negatives: tn,
            accuracy: share(right, right + wrong),
            precision: share(tp, tp + fp),
            recall: share(tp, tp + fn_),
            f1: share(2 * tp, 2 * tp + wrong),
        }
    }
}

/// To four decimals, as it is printed.
fn share(part: u32, whole: u32) -> f64 {
    match whole {
        0 => 0.0,
        _ => rounded(f64::from(part) / f64::from(whole)),
    }
}

/// To four decimals.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Trains every candidate once for each fold and measures it there, on all processors. `progress` is
/// told how many of how many are done.
pub fn cross_validate(
    task: Task,
    candidates: &[Candidate],
    examples: &[Example],
    progress: impl Fn(usize, usize) + Sync,
) -> anyhow::Result<Vec<CrossValidated>> {
    let folds = folds(examples, FOLDS);
    let work: Vec<_> = candidates
        .iter()
        .flat_map(|candidate| folds.iter().map(move |fold| (candidate, fold)))
        .collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let worker = || -> anyhow::Result<()> {
        while let Some((index, (candidate, fold))) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            work.get(index).map(|one| (index, *one))
        } {
            let model = candidate.train(task, &fold.train)?;
            let figures = Figures::measure("", &model, &fold.test);
            let mut done = done.lock().map_err(|_| anyhow::anyhow!("a worker died"))?;
            done.insert(index, figures);
            progress(done.len(), work.len());
        }
        Ok(())
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| {
            let result = worker.join();
            result.map_err(|_| anyhow::anyhow!("a worker died"))?
        })
    })?;
    // In the order of the work, whoever was first.
    let figures: Vec<_> = done.into_inner()?.into_values().collect();
    let summary = |(candidate, figures): (&Candidate, &[Figures])| {
        let spread =
            |of: fn(&Figures) -> f64| Spread::of(&figures.iter().map(of).collect::<Vec<_>>());
        CrossValidated {
            model: candidate.recipe.name().to_owned(),
            features: candidate.features,
            dimensions: candidate.dimensions,
            version: candidate.version.map(str::to_owned),
            accuracy: spread(|f| f.accuracy),
            precision: spread(|f| f.precision),
            recall: spread(|f| f.recall),
            f1: spread(|f| f.f1),
        }
    };
    Ok(candidates
        .iter()
        .zip(figures.chunks(FOLDS))
        .map(summary)
        .collect())
}

impl Metrics {
    /// All of it, as the model card has it.
    pub fn report(&self) -> String {
        let Self { task, .. } = self;
        let (summary, compared) = (self.summary(), self.comparison_table());
        let (measured, relations) = (self.table(), self.relations_table());
        format!(
            "{task}: {summary}\n\n\
             Cross-validated on the part to train on, {FOLDS} folds, mean ± standard deviation:\n\n{compared}\n\
             Measured on the part that training has not seen:\n\n{measured}\n\
             Changed texts of that part, and the share of them that keeps to what is wanted:\n\n{relations}"
        )
    }

    /// What became of the data, in a sentence.
    fn summary(&self) -> String {
        let Counts {
            lines,
            duplicates,
            train,
            train_positive,
            test,
            test_positive,
            near_copies,
        } = self.data;
        let label = self.task.label(Class::Positive);
        format!(
            "{lines} lines, {duplicates} duplicates dropped; {train} texts to train on \
             ({train_positive} {label}), {test} to measure on ({test_positive} {label}), \
             {near_copies} of them nearly the same as one to train on"
        )
    }

    /// All candidates, cross-validated.
    fn comparison_table(&self) -> String {
        let mut table = String::from(
            "| model | features | version | accuracy | precision | recall | F1 |\n\
             | --- | --- | --- | ---: | ---: | ---: | ---: |\n",
        );
        let spread = |s: Spread| format!("{:.4} ± {:.4}", s.mean, s.deviation);
        for c in &self.candidates {
            let features = match (c.model.as_str(), c.features) {
                ("majority", _) => "none".to_owned(),
                (_, Features::WordCounts) => format!("words, {} buckets", c.dimensions),
                (_, Features::WordsAndGrams) => {
                    format!("words, pairs, character runs, {} buckets", c.dimensions)
                }
            };
            // Writing to a String cannot fail.
            let _ = writeln!(
                table,
                "| {} | {features} | {} | {} | {} | {} | {} |",
                c.model,
                c.version.as_deref().unwrap_or_default(),
                spread(c.accuracy),
                spread(c.precision),
                spread(c.recall),
                spread(c.f1),
            );
        }
        table
    }

    /// The models that are shipped, measured on what they have not seen.
    fn table(&self) -> String {
        let [no, yes] = Class::BOTH.map(|class| self.task.label(class));
        let mut table = format!(
            "| version | model | accuracy | precision | recall | F1 | {yes} found | {yes} called {no} | {no} called {yes} | {no} found |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for f in &self.models {
            let _ = writeln!(
                table,
                "| {} | {} | {:.4} | {:.4} | {:.4} | {:.4} | {} | {} | {} | {} |",
                f.version,
                f.model,
                f.accuracy,
                f.precision,
                f.recall,
                f.f1,
                f.true_positives,
                f.false_negatives,
                f.false_positives,
                f.true_negatives
            );
        }
        table
    }

    /// In how many of the changed texts the answers keep to what is wanted.
    fn relations_table(&self) -> String {
        let mut table = format!(
            "| change | wanted | texts | {} |\n\
             | --- | --- | ---: | ---: | ---: | ---: |\n",
            VERSIONS.join(" | ")
        );
        for held in &self.relations {
            let share = |version: &str| {
                let share = held.shares.get(version).copied().unwrap_or_default();
                format!("{:.1} %", share * 100.0)
            };
            let shares = VERSIONS.map(share).join(" | ");
            let _ = writeln!(
                table,
                "| {} | {} | {} | {shares} |",
                held.change, held.wanted, held.texts
            );
        }
        table
    }

    /// No model is worse than the best of its version was by more than [`TOLERANCE`]; the best is kept,
    /// for else every training might lose as much once more.
    pub fn follow(&mut self, before: &Self) -> anyhow::Result<()> {
        let mut worse = Vec::new();
        for (version, best) in &before.best_f1 {
            let f1 = self.of(version).map_or(0.0, |figures| figures.f1);
            let allowed = best - TOLERANCE;
            if f1 < allowed {
                worse.push(format!(
                    "{version}: F1 {f1:.4}; allowed is {allowed:.4} or more, {TOLERANCE} less than the best so far, {best:.4}"
                ));
            }
            let kept = self.best_f1.entry(version.clone()).or_default();
            *kept = kept.max(*best);
        }
        ensure!(worse.is_empty(), "{}", worse.join("\n"));
        Ok(())
    }

    /// The figures of `version`.
    pub fn of(&self, version: &str) -> anyhow::Result<&Figures> {
        let mut models = self.models.iter();
        let model = models.find(|model| model.version == version);
        model.with_context(|| format!("no figures of {version}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls everything positive or negative.
    fn constant(bias: f64) -> Model {
        Model::new(
            Task::SmsSpam,
            "constant",
            Features::WordCounts,
            bias,
            &[0.0],
        )
    }

    fn examples() -> Vec<Example> {
        [
            Class::Positive,
            Class::Negative,
            Class::Negative,
            Class::Negative,
        ]
        .map(|class| Example {
            class,
            text: "text".to_owned(),
        })
        .to_vec()
    }

    #[test]
    fn figures_follow_from_the_confusion_matrix() {
        let f = Figures::measure("stable", &constant(1.0), &examples());
        assert_eq!(
            (
                f.true_positives,
                f.false_negatives,
                f.false_positives,
                f.true_negatives
            ),
            (1, 0, 3, 0)
        );
        assert_eq!(
            (f.accuracy, f.precision, f.recall, f.f1),
            (0.25, 0.25, 1.0, 0.4)
        );
    }

    #[test]
    fn a_model_that_finds_nothing_has_zeros_and_no_nan() {
        let f = Figures::measure("stable", &constant(-1.0), &examples());
        assert_eq!(
            (f.accuracy, f.precision, f.recall, f.f1),
            (0.75, 0.0, 0.0, 0.0)
        );
    }

    #[test]
    fn a_spread_is_mean_and_deviation_of_the_sample() {
        let spread = Spread::of(&[0.2, 0.4, 0.4, 0.4, 0.6]);
        assert_eq!((spread.mean, spread.deviation), (0.4, 0.1414));
    }

    /// Those of a canary alone.
    fn metrics(f1: f64) -> Metrics {
        let mut figures = Figures::measure("canary", &constant(1.0), &examples());
        figures.f1 = f1;
        Metrics {
            task: Task::SmsSpam,
            files: BTreeMap::new(),
            data: Counts::default(),
            candidates: Vec::new(),
            models: vec![figures],
            best_f1: BTreeMap::from([("canary".to_owned(), f1)]),
            relations: Vec::new(),
        }
    }

    #[test]
    fn a_model_may_be_a_little_worse_than_before_and_not_more() {
        let before = metrics(0.95);
        assert!(metrics(0.9301).follow(&before).is_ok());
        assert!(metrics(0.99).follow(&before).is_ok());
        let error = metrics(0.9299).follow(&before).expect_err("worse");
        assert_eq!(
            error.to_string(),
            "canary: F1 0.9299; allowed is 0.9300 or more, 0.02 less than the best so far, 0.9500"
        );
        let mut gone = metrics(0.95);
        gone.models.clear();
        assert!(gone.follow(&before).is_err(), "a version that is gone");
    }

    #[test]
    fn small_losses_do_not_add_up() {
        let first = metrics(0.95);
        let mut second = metrics(0.94);
        second.follow(&first).expect("a little worse");
        assert_eq!(second.best_f1["canary"], 0.95);
        let mut third = metrics(0.925);
        assert!(third.follow(&second).is_err(), "0.025 in two steps");
        let mut better = metrics(0.96);
        better.follow(&second).expect("better");
        assert_eq!(better.best_f1["canary"], 0.96);
    }
}
