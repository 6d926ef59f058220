//! Weights found by minimising a loss: logistic regression and a linear support vector machine.
//!
//! argmin minimises; the losses are ours, over sparse rows. A message has some 250 of the features,
//! and linfa-logistic wants all of them, zeros included: half a minute instead of a second. linfa-svm
//! and smartcore's SVC keep support vectors, not weights, and want dense rows as well.

use anyhow::{Context, ensure};
use argmin::core::{CostFunction, Executor, Gradient, State, TerminationReason, TerminationStatus};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use text::{Class, Features};

use crate::Weights;
use crate::data::{Example, folds};

/// Far below the second decimal of a weight, so that the last bit of a processor's `exp` or `ln` does
/// not show in the artefact.
const GRADIENT_TOLERANCE: f64 = 1e-7;

const MAX_ITERATIONS: u64 = 2000;

/// What a text costs that has a margin: how far it is on the right side.
#[derive(Clone, Copy)]
enum Loss {
    /// The negative log-likelihood.
    Logistic,
    /// The square of what is missing to a margin of 1.
    SquaredHinge,
}

impl Loss {
    fn of(self, margin: f64) -> f64 {
        match self {
            // ln(1 + exp(-margin)) without overflow.
            Self::Logistic => (-margin).max(0.0) + (-margin.abs()).exp().ln_1p(),
            Self::SquaredHinge => (1.0 - margin).max(0.0).powi(2),
        }
    }

    fn slope(self, margin: f64) -> f64 {
        match self {
            Self::Logistic => -1.0 / (1.0 + margin.exp()),
            Self::SquaredHinge => -2.0 * (1.0 - margin).max(0.0),
        }
    }
}

/// Logistic regression. `penalty` is how strongly weights are drawn to zero.
pub(crate) fn logistic(
    examples: &[Example],
    features: Features,
    dimensions: u16,
    penalty: f64,
) -> anyhow::Result<Weights> {
    let rows = rows(examples, features, dimensions);
    minimise(Loss::Logistic, rows, dimensions.into(), penalty)
}

/// A linear support vector machine. Its scores are no log odds by themselves: Platt's scaling makes
/// them so, fitted on scores of texts that the scoring machine had not seen.
pub(crate) fn svm(
    examples: &[Example],
    features: Features,
    dimensions: u16,
    penalty: f64,
) -> anyhow::Result<Weights> {
    const SCALING_FOLDS: usize = 3;
    let train = |examples: &[Example]| {
        let rows = rows(examples, features, dimensions);
        minimise(Loss::SquaredHinge, rows, dimensions.into(), penalty)
    };
    let mut scores = Vec::new();
    for fold in folds(examples, SCALING_FOLDS) {
        let machine = train(&fold.train)?;
        for row in rows(&fold.test, features, dimensions) {
            let score = row.score(machine.bias, &machine.weights);
            let features = vec![(0, score)];
            scores.push(Row { features, ..row });
        }
    }
    let unpenalised = 0.0;
    let scale = minimise(Loss::Logistic, scores, 1, unpenalised)?;
    let machine = train(examples)?;
    Ok(Weights {
        bias: scale.bias + scale.weights[0] * machine.bias,
        weights: machine
            .weights
            .iter()
            .map(|weight| weight * scale.weights[0])
            .collect(),
    })
}

/// Logistic regression on features that are weighed by how much more often they occur in one class, as
/// naive Bayes weighs them: rare features that tell much count, frequent ones that tell nothing do not.
pub(crate) fn weighed_logistic(
    examples: &[Example],
    features: Features,
    dimensions: u16,
    penalty: f64,
) -> anyhow::Result<Weights> {
    let mut rows = rows(examples, features, dimensions);
    // Laplace's rule: every feature was seen once more than it was.
    let [mut negative, mut positive] = [(); 2].map(|()| vec![1.0; dimensions.into()]);
    for row in &rows {
        let seen = match row.sign > 0.0 {
            true => &mut positive,
            false => &mut negative,
        };
        for (i, _) in &row.features {
            seen[*i] += 1.0;
        }
    }
    let [negatives, positives] = [&negative, &positive].map(|seen| seen.iter().sum::<f64>());
    let ratios = positive.iter().zip(&negative);
    let ratios: Vec<_> = ratios
        .map(|(p, n)| (p / positives / (n / negatives)).ln())
        .collect();
    for (i, value) in rows.iter_mut().flat_map(|row| &mut row.features) {
        *value *= ratios[*i];
    }
    let Weights { bias, weights } = minimise(Loss::Logistic, rows, dimensions.into(), penalty)?;
    let weights = weights.iter().zip(&ratios).map(|(w, r)| w * r).collect();
    Ok(Weights { bias, weights })
}

fn rows(examples: &[Example], features: Features, dimensions: u16) -> Vec<Row> {
    examples
        .iter()
        .map(|example| Row {
            features: features.extract(&example.text, dimensions.into()),
            sign: match example.class {
                Class::Positive => 1.0,
                Class::Negative => -1.0,
            },
        })
        .collect()
}

fn minimise(
    loss: Loss,
    rows: Vec<Row>,
    dimensions: usize,
    penalty: f64,
) -> anyhow::Result<Weights> {
    let problem = Problem {
        loss,
        rows,
        penalty,
    };
    let start = vec![0.0; dimensions + 1];
    let solver =
        LBFGS::new(MoreThuenteLineSearch::new(), 10).with_tolerance_grad(GRADIENT_TOLERANCE)?;
    let result = Executor::new(problem, solver)
        .configure(|state| state.param(start).max_iters(MAX_ITERATIONS))
        .run()?;
    let state = result.state();
    ensure!(
        *state.get_termination_status()
            == TerminationStatus::Terminated(TerminationReason::SolverConverged),
        "linear model: {} after {} iterations",
        state.get_termination_status(),
        state.get_iter()
    );
    let (bias, weights) = (state.get_best_param())
        .and_then(|parameters| parameters.split_last())
        .context("linear model: no result")?;
    Ok(Weights {
        bias: *bias,
        weights: weights.to_vec(),
    })
}

/// The sum of losses with an L2 penalty. The last parameter is the bias, which is free.
struct Problem {
    loss: Loss,
    rows: Vec<Row>,
    penalty: f64,
}

struct Row {
    features: Vec<(usize, f64)>,
    sign: f64,
}

impl Row {
    fn score(&self, bias: f64, weights: &[f64]) -> f64 {
        let score: f64 = self
            .features
            .iter()
            .map(|(i, value)| weights[*i] * value)
            .sum();
        bias + score
    }

    fn margin(&self, bias: f64, weights: &[f64]) -> f64 {
        self.sign * self.score(bias, weights)
    }
}

impl CostFunction for Problem {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, parameters: &Vec<f64>) -> Result<f64, argmin::core::Error> {
        let (bias, weights) = parameters.split_last().context("no parameters")?;
        let penalty = self.penalty / 2.0 * weights.iter().map(|w| w * w).sum::<f64>();
        let losses = self
            .rows
            .iter()
            .map(|row| self.loss.of(row.margin(*bias, weights)));
        Ok(penalty + losses.sum::<f64>())
    }
}

impl Gradient for Problem {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, parameters: &Vec<f64>) -> Result<Vec<f64>, argmin::core::Error> {
        let (bias, weights) = parameters.split_last().context("no parameters")?;
        let mut gradient: Vec<_> = weights.iter().map(|w| self.penalty * w).collect();
        let mut of_bias = 0.0;
        for row in &self.rows {
            let slope = row.sign * self.loss.slope(row.margin(*bias, weights));
            of_bias += slope;
            for (i, value) in &row.features {
                gradient[*i] += slope * value;
            }
        }
        gradient.push(of_bias);
        Ok(gradient)
    }
}
