//! `cargo xtask rules`: the rules of `monitoring/` as a manifest for a cluster.

use std::fs;

use anyhow::{Context, Result};
use harness::monitoring;

/// Makes monitoring/cluster/rules.yaml from monitoring/rules.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<bool> {
    let file = monitoring::file("cluster/rules.yaml");
    let manifest = monitoring::prometheus_rule()?;
    fs::write(&file, manifest).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{}", file.display());
    Ok(true)
}
