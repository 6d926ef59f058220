//! From a labelled data set to model artefacts and the figures that describe them.
//!
//! Everything is a function of the data's bytes: no clock, no random numbers, no iteration over hash
//! maps. Training twice gives the same files.

pub mod candidates;
pub mod checks;
pub mod data;
mod linear;
pub mod metrics;
mod naive_bayes;
pub mod relations;

/// A linear model before it is rounded.
struct Weights {
    bias: f64,
    /// One for each bucket.
    weights: Vec<f64>,
}
