//! `cargo xtask cutover`: from blue to green under full load, in both ways.

mod client;
mod figures;
mod policy;
mod service;

use std::time::Duration;

use anyhow::{Result, bail};

use client::Client;
use figures::{Figures, TO_BEAT, table};

/// The host of `istio/blue-green` and of the policy.
const HOST: &str = "translation.local";

/// Switches the translation API from blue to green while `lanekeeper traffic` sends all it can.
///
/// By policy: all weight to green, in an Envoy on this machine with the real filter. And by
/// Service: the files of istio/blue-green, applied one after another in a mesh of Istio's own control
/// plane and real Envoys, with two pods of each colour; blue's pods are gone before the end. Without Go,
/// which that control plane is built with, the second is left out.
///
/// It fails if a request failed, or if not everybody went from blue to green. Rate and flicker depend on
/// the machine and on what else it does: of several runs, all are shown, and whether they beat a plain
/// Service switched in a small cluster; a slow run is no failure. Median and worst are of each figure by
/// itself; of two in the middle, the median is the worse one. The flicker is the time between the first
/// answer of green and the last of blue, as the client sees them; 0 if they do not overlap.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// How often each of the two is done
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: u16,

    /// How long each run has traffic
    #[arg(long = "for", value_name = "TIME", default_value = "12s", value_parser = time)]
    time: Duration,

    /// Requests under way at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,

    /// Show nothing of what the client says while it runs
    #[arg(long)]
    quiet: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time >= Duration::from_secs(3) => Ok(time),
        _ => Err("allowed are times from 3s".to_owned()),
    }
}

/// What came of one cutover.
enum Outcome {
    Done(Figures),
    Skipped(String),
}

/// Runs both cutovers. `false` if a request failed or not everybody was moved.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let client = Client::new(args)?;
    let mut lines = Vec::new();
    let mut notes = Vec::new();
    let mut good = true;
    for (name, cutover) in [
        (
            "by policy",
            policy::cutover as fn(&Client) -> Result<Outcome>,
        ),
        ("by Service", service::cutover),
    ] {
        let mut runs = Vec::new();
        for run in 1..=args.runs {
            println!("=== {name}, run {run} of {}", args.runs);
            let figures = match cutover(&client)? {
                Outcome::Done(figures) => figures,
                Outcome::Skipped(reason) => {
                    notes.push(format!("{name} was left out: {reason}"));
                    break;
                }
            };
            if let Some(fault) = figures.fault() {
                good = false;
                notes.push(format!("FAILED: {name}, run {run}: {fault}"));
            }
            runs.push(figures);
        }
        lines.extend(table(name, &runs));
    }
    println!(
        "\n{:20}{:>10}{:>10}{:>8}{:>12}  beaten",
        "", "requests", "a second", "failed", "flicker"
    );
    for line in lines {
        println!("{line}");
    }
    println!("{:20}{:>10}{TO_BEAT}", "to beat", "");
    for note in notes {
        println!("\n{note}");
    }
    Ok(good)
}

/// Waits for a step of something that runs beside the traffic.
fn after<T>(time: Duration, step: impl FnOnce() -> Result<T>) -> Result<T> {
    std::thread::sleep(time);
    step()
}

/// An error unless the text of a line begins with this; the rest of it.
fn expect<'l>(line: &'l str, begin: &str) -> Result<&'l str> {
    match line.strip_prefix(begin) {
        Some(rest) => Ok(rest.trim()),
        None => bail!("{line:?} instead of {begin:?}"),
    }
}
