//! From a labelled data set to model artefacts and the figures that describe them.
//!
//! Everything is a function of the data's bytes: no clock, no random numbers, no threads, no
//! iteration over hash maps. Training twice gives the same files.

pub mod data;
pub mod logistic;
pub mod metrics;
pub mod naive_bayes;
