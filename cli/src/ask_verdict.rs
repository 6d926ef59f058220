//! `lanekeeper verdict`

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use lanekeeper_cli::verdict::{
    self, Address, Experiment, Judgement, Progress, Prometheus, Time, Verdict, judge,
};

use crate::Failure;

/// Judge an experiment by what Prometheus counted: accept the treatment, or roll it back.
///
/// The experiment is declared in a file before it starts: `lanekeeper schema experiment` tells its
/// fields, `lanekeeper sample-size` how many users to plan. Until so many came, the verdict is `not
/// enough data, N more users`, unless latency certainly rises too much: then it is to roll back, which
/// is to be acted on when it is given, as later the answer may be another. Once they came, the verdict
/// is of that moment, whenever one asks, and however often one asked before. Experiments whose users
/// were not dealt out as the slots say are invalid.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Exit codes: 0 accept; 1 the file cannot be read or is faulty, or Prometheus does not answer as it
should; 2 wrong usage; 3 roll back; 4 not enough data; 5 invalid.

Examples:
  lanekeeper verdict --experiment experiment.yaml --prometheus http://localhost:9090
  lanekeeper verdict --prometheus http://ops:secret@prometheus.example/mesh --output json
  lanekeeper verdict --prometheus http://localhost:9090 --at 2026-11-09T08:00:00Z"
)]
pub(crate) struct AskVerdict {
    /// The experiment; `-` is the standard input
    #[arg(long, value_name = "FILE", default_value = "experiment.yaml")]
    experiment: PathBuf,

    /// Where Prometheus is, http://[USER:PASSWORD@]HOST[:PORT][/PATH]
    #[arg(
        long,
        value_name = "URL",
        env = "PROMETHEUS_URL",
        hide_env_values = true
    )]
    prometheus: Address,

    /// How to answer
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Answer as at this time, such as 2026-11-09T08:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<Time>,

    /// How long Prometheus may take for an answer; there are eight, or more after a month
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = crate::above_zero)]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs: rates and rises as fractions, latency in seconds
    Json,
}

impl AskVerdict {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let clock = clock();
        if let Some(at) = self.at.filter(|at| at.0 > clock.0) {
            let message = format!("--at {at}: allowed is a time up to now, {clock}");
            return Err(Failure::Usage(message));
        }
        let experiment = Experiment::load(&self.experiment)?;
        let prometheus = Prometheus::new(self.prometheus, self.timeout);
        let prometheus = prometheus.map_err(|error| Failure::Input(error.to_string()))?;
        let now = match self.at {
            Some(at) => at,
            None => prometheus.now().map_err(Failure::Input)?,
        };
        if now.0 < experiment.start.0 {
            let start = experiment.start;
            return Err(Failure::Input(format!(
                "{}: start: \"{start}\": a time before now, {now}: the experiment has not begun",
                lanekeeper_cli::file_name(&self.experiment),
            )));
        }
        let (progress, judgement) = ask(&prometheus, &experiment, now).map_err(Failure::Input)?;
        let said = match self.output {
            Output::Text => verdict::text(out, &experiment, &progress, &judgement),
            Output::Json => {
                let json = verdict::json(&experiment, &progress, &judgement);
                writeln!(out, "{json:#}")
            }
        };
        match said {
            // Whoever reads no more has the exit code still: it must not be that of accept.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(ExitCode::from(match judgement.verdict {
                Verdict::Accept => 0,
                Verdict::RollBack => 3,
                Verdict::NotEnoughData => 4,
                Verdict::Invalid => 5,
            })),
        }
    }
}

fn ask(
    prometheus: &Prometheus,
    experiment: &Experiment,
    now: Time,
) -> Result<(Progress, Judgement), String> {
    let (counts, until) = verdict::counts(prometheus, experiment, now)?;
    let progress = Progress::new(experiment, &counts, until);
    let outcome = verdict::outcome(prometheus, experiment, progress.at)?;
    let judgement = judge(experiment, &progress, &outcome);
    Ok((progress, judgement))
}

fn clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Time(since.map_or(0, |since| since.as_secs()))
}
