//! `cargo xtask e2e`: the promises in whole systems.

mod compose;
mod kind;
mod run;
mod steps;

use anyhow::Result;
use clap::Subcommand;

/// Tests the promises in a whole system, which it starts and takes down again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    system: System,
}

#[derive(Debug, Subcommand)]
enum System {
    Compose(compose::Args),
    Kind(Box<kind::Args>),
}

/// Runs a suite. `false` where a promise is broken.
pub(crate) fn run(args: &Args) -> Result<bool> {
    match &args.system {
        System::Compose(args) => compose::run(args),
        System::Kind(args) => kind::run(args),
    }
}
