//! The configuration: read, checked and compiled once, when it is pushed.

pub(crate) mod compile;
pub(crate) mod document;
pub(crate) mod fault;
mod quotas;
pub(crate) mod read;
mod shares;
