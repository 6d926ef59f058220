//! `cargo xtask cutover`: from blue to green under full load, in both ways.

mod client;
mod policy;
mod service;

use std::time::Duration;

use anyhow::{Result, bail};

use client::{Client, Figures};

/// The host of `istio/blue-green` and of the policy.
const HOST: &str = "translation.local";

/// Switches the translation API from blue to green while `lanekeeper traffic` sends all it can.
///
/// Once by policy: all weight to green, in an Envoy on this machine with the real filter. And once by
/// Service: the files of istio/blue-green, applied one after another in a mesh of Istio's own control
/// plane and real Envoys, with two pods of each colour; blue's pods are gone before the end. Without Go,
/// which that control plane is built with, the second is left out.
///
/// It fails if a request failed, or if not everybody went from blue to green. Rate and flicker depend on
/// the machine: they are shown, beside the figures to beat, and not judged. The flicker is the time
/// between the first answer of green and the last of blue, as the client sees them; 0 if they do not
/// overlap.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// How long each of the two has traffic
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
    let mut outcomes = Vec::new();
    for (name, cutover) in [
        (
            "by policy",
            policy::cutover as fn(&Client) -> Result<Outcome>,
        ),
        ("by Service", service::cutover),
    ] {
        println!("=== {name}");
        outcomes.push((name, cutover(&client)?));
    }
    println!(
        "\n{:12}{:>10}{:>10}{:>8}{:>12}",
        "", "requests", "a second", "failed", "flicker"
    );
    let mut good = true;
    let mut notes = Vec::new();
    for (name, outcome) in &outcomes {
        match outcome {
            Outcome::Done(figures) => {
                println!("{name:12}{figures}");
                if let Some(fault) = figures.fault() {
                    good = false;
                    notes.push(format!("FAILED: {name}: {fault}"));
                }
            }
            Outcome::Skipped(reason) => notes.push(format!("{name} was left out: {reason}")),
        }
    }
    println!(
        "{:12}{:>10}{:>10}{:>8}{:>12}",
        "to beat", "", "350", "0", "10 ms"
    );
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
