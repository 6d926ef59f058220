//! `lanekeeper sample-size`

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use lanekeeper_cli::verdict::Expected;
use serde_json::json;

use crate::Failure;

/// Say how many users to plan for an experiment, so that it finds what is there.
///
/// The answer is the `users` of an experiment: with so many, a treatment that is as good as expected is
/// accepted with the power asked for, at least. As the correction rate must rise by --minimal-rise to
/// be accepted, expect a larger rise: one that is as small is accepted half the time at best, however
/// many users there are.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  lanekeeper sample-size --rate 20% --rise 20% --reviews 3
  lanekeeper sample-size --rate 8% --rise 25% --reviews 1.5 --share 50% --power 90%"
)]
pub(crate) struct SampleSize {
    /// The correction rate of the control
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    rate: f64,

    /// By how much the treatment's correction rate is expected to be larger, in percent of the control's
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    rise: f64,

    /// How many predictions a new user gets until the verdict, on average; 1 or more
    #[arg(long, value_name = "NUMBER", value_parser = reviews)]
    reviews: f64,

    /// The treatment's share of the new users
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "10%")]
    share: f64,

    /// How likely such a treatment shall be accepted
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "80%")]
    power: f64,

    /// By how much the treatment's latency is expected to be larger
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "0%")]
    latency_rise: f64,

    /// The standard deviation of latency, in percent of its mean
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "50%")]
    latency_variation: f64,

    /// How alike the predictions of one user are, in corrections and latency: 0 % as those of several
    /// users, 100 % all the same (the intraclass correlation)
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "10%")]
    correlation: f64,

    /// The experiment's `minimalRise`
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "10%")]
    minimal_rise: f64,

    /// The experiment's `maximalLatencyRise`
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "5%")]
    maximal_latency_rise: f64,

    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

impl SampleSize {
    pub(crate) fn run(&self, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let expected = self.expected()?;
        let Some(users) = expected.users(self.power) else {
            let message = "not even a billion users suffice: expect a larger rise, ask for less power, \
                           or for a larger share";
            return Err(Failure::Usage(message.to_owned()));
        };
        let misses = expected.misses(users);
        if self.json {
            let json = json!({
                "users": users,
                "power": misses.power(),
                "misses": {
                    "correction_rate": misses.corrections,
                    "mean_latency": misses.mean,
                    "p95_latency": misses.p95,
                },
            });
            writeln!(out, "{json:#}")?;
            return Ok(ExitCode::SUCCESS);
        }
        let treatment = (users as f64 * self.share).round() as u64;
        let rest = users - treatment;
        writeln!(
            out,
            "users       {users}: {rest} in the control, {treatment} in the treatment"
        )?;
        writeln!(out, "power       {:.1} % at least", 100.0 * misses.power())?;
        for (name, miss) in [
            ("correction rate", misses.corrections),
            ("mean latency", misses.mean),
            ("p95 latency", misses.p95),
        ] {
            writeln!(out, "            {name} misses in {:.1} %", 100.0 * miss)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What is expected, if it can be.
    fn expected(&self) -> Result<Expected, Failure> {
        let inner = |share: f64| share > 0.0 && share < 1.0;
        let faults = [
            (
                inner(self.rate),
                "--rate: more than 0 % and less than 100 %",
            ),
            (
                self.rate * (1.0 + self.rise) < 1.0,
                "--rise: at most up to a rate of 100 %",
            ),
            (
                self.rise > self.minimal_rise,
                "--rise: more than --minimal-rise",
            ),
            (
                inner(self.share),
                "--share: more than 0 % and less than 100 %",
            ),
            (
                inner(self.power),
                "--power: more than 0 % and less than 100 %",
            ),
            (
                self.latency_rise < self.maximal_latency_rise,
                "--latency-rise: less than --maximal-latency-rise",
            ),
            (
                self.latency_variation > 0.0,
                "--latency-variation: more than 0 %",
            ),
            (self.correlation <= 1.0, "--correlation: at most 100 %"),
        ];
        let faults = faults.iter().filter(|(fine, _)| !fine);
        let faults: Vec<&str> = faults.map(|(_, allowed)| *allowed).collect();
        if !faults.is_empty() {
            return Err(Failure::Usage(format!("allowed is\n{}", faults.join("\n"))));
        }
        Ok(Expected {
            rate: self.rate,
            rise: self.rise,
            latency_rise: self.latency_rise,
            minimal_rise: self.minimal_rise,
            maximal_latency_rise: self.maximal_latency_rise,
            reviews: self.reviews,
            share: self.share,
            latency_variation: self.latency_variation,
            correlation: self.correlation,
        })
    }
}

/// A fraction, of a percentage. With the sign, lest somebody mean a fraction by 0.2.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').map(str::trim_end);
    match number.and_then(|number| number.parse::<f64>().ok()) {
        Some(number) if (0.0..=1000.0).contains(&number) => Ok(number / 100.0),
        _ => Err("allowed is a percentage from 0% to 1000%, such as 20%".to_owned()),
    }
}

fn reviews(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (1.0..=10_000.0).contains(&number) => Ok(number),
        _ => Err("allowed is a number from 1 to 10000".to_owned()),
    }
}
