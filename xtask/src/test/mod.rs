//! `cargo xtask test`: everything that is checked, with its own set-up.

mod steps;

use std::time::{Duration, Instant};

use anyhow::Result;

use steps::{MATRIX, STEPS};

/// Runs all checks and tests, with their own set-up.
///
/// After a first run it needs no network. With CI=true in the environment a step that is skipped
/// counts as failed, unless a registry no longer has what it needs.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// Also test the promises on every supported Envoy (with CI=true by itself)
    #[arg(long)]
    envoy_matrix: bool,

    /// Run this step only; may be given several times
    #[arg(long, value_name = "STEP", value_parser = clap::builder::PossibleValuesParser::new(STEPS.map(|step| step.name)))]
    only: Vec<String>,

    /// List the steps
    #[arg(long)]
    list: bool,
}

struct Step {
    name: &'static str,
    about: &'static str,
    run: fn() -> Result<Outcome>,
}

/// What became of a step that did not fail.
enum Outcome {
    Passed,
    Skipped {
        reason: String,
        /// Whether that is nobody's fault: a registry no longer has what is needed.
        excused: bool,
    },
}

/// Runs the suite. `false` where a step failed.
pub(crate) fn run(args: &Args) -> Result<bool> {
    if args.list {
        for step in &STEPS {
            println!("{:8} {}", step.name, step.about);
        }
        return Ok(true);
    }
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let mut good = true;
    let mut summary = Vec::new();
    for step in &STEPS {
        let wanted = match step.name {
            MATRIX if args.envoy_matrix => true,
            MATRIX if args.only.is_empty() => ci,
            name => args.only.is_empty() || args.only.iter().any(|only| only == name),
        };
        if !wanted {
            summary.push((step.name, Duration::ZERO, "not asked for".to_owned()));
            continue;
        }
        println!("\n=== {}: {}", step.name, step.about);
        let start = Instant::now();
        let outcome = (step.run)();
        let time = start.elapsed();
        let (passed, result) = judge(outcome, ci);
        good &= passed;
        println!("=== {}: {result} ({})", step.name, seconds(time));
        summary.push((step.name, time, result));
    }
    println!();
    for (name, time, result) in summary {
        println!("{name:8} {:>8}  {result}", seconds(time));
    }
    println!("{}", if good { "\nAll is well." } else { "\nFAILED" });
    Ok(good)
}

fn judge(outcome: Result<Outcome>, ci: bool) -> (bool, String) {
    match outcome {
        Ok(Outcome::Passed) => (true, "passed".to_owned()),
        Ok(Outcome::Skipped { reason, excused }) if excused || !ci => {
            (true, format!("SKIPPED: {reason}"))
        }
        Ok(Outcome::Skipped { reason, .. }) => {
            (false, format!("FAILED: skipped, and CI=true: {reason}"))
        }
        Err(error) => (false, format!("FAILED: {error:#}")),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_fails_in_ci_unless_excused() {
        let skipped = |excused| {
            Ok(Outcome::Skipped {
                reason: "why".to_owned(),
                excused,
            })
        };
        assert!(judge(skipped(false), false).0);
        assert!(!judge(skipped(false), true).0);
        assert!(judge(skipped(true), true).0);
        assert!(judge(Ok(Outcome::Passed), true).0);
    }
}
