//! `lanekeeper`: checks policies, says what they decide, with the core that the filter runs, sends
//! traffic to see what users get, and judges experiments.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use lanekeeper_cli::verdict::Experiment;
use lanekeeper_policy::Policy;

mod ask_verdict;
mod assign;
#[cfg(unix)]
mod envoy;
mod lint;
mod plugin;
mod ready;
mod sample_size;
#[cfg(unix)]
mod traffic;

/// Checks Lanekeeper policies and says what they decide, with the same core as the filter; sends
/// traffic, to see what users get; and judges experiments by what Prometheus counted.
#[derive(Debug, Parser)]
#[command(name = "lanekeeper", version, arg_required_else_help = true)]
#[command(after_help = "\
Exit codes: 0 done; 1 a file cannot be read or holds a faulty policy, or requests failed; 2 wrong usage.
verdict has more of them.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Lint(lint::Lint),
    /// Print the JSON Schema of a policy, or of an experiment, for editors.
    #[command(after_help = "\
Example:
  lanekeeper schema > policy.schema.json
and as the first line of a policy, for the YAML language server:
  # yaml-language-server: $schema=policy.schema.json")]
    Schema {
        /// Of what
        #[arg(value_enum, value_name = "DOCUMENT", default_value_t = Document::Policy)]
        of: Document,
    },
    Assign(assign::Assign),
    Plugin(plugin::Plugin),
    #[cfg(unix)]
    Envoy(envoy::Envoy),
    Ready(ready::Ready),
    #[cfg(unix)]
    Traffic(traffic::Traffic),
    #[command(name = "verdict")]
    AskVerdict(ask_verdict::AskVerdict),
    SampleSize(sample_size::SampleSize),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Document {
    /// What the filter does
    Policy,
    /// What `lanekeeper verdict` judges
    Experiment,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::stdout().lock();
    let (name, done) = match cli.command {
        Command::Lint(lint) => ("lint", lint.run(&mut out)),
        Command::Schema { of } => ("schema", schema(of, &mut out)),
        Command::Assign(assign) => ("assign", assign.run(&mut out)),
        Command::Plugin(plugin) => ("plugin", plugin.run(&mut out)),
        #[cfg(unix)]
        Command::Envoy(envoy) => ("envoy", envoy.run()),
        Command::Ready(ready) => ("ready", ready.run()),
        #[cfg(unix)]
        Command::Traffic(traffic) => ("traffic", traffic.run(&mut out)),
        Command::AskVerdict(ask) => ("verdict", ask.run(&mut out)),
        Command::SampleSize(sample_size) => ("sample-size", sample_size.run(&mut out)),
    };
    let done = done.and_then(|code| match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(code),
    });
    match done {
        Ok(code) => code,
        // The reader has seen enough, as `head` does.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(Failure::Output(error)) => {
            eprintln!("cannot write the output: {error}");
            ExitCode::FAILURE
        }
        Err(Failure::Input(message)) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
        Err(Failure::Usage(message)) => Cli::usage(name, message),
    }
}

impl Cli {
    /// Ends as clap does with an argument of a command that it can tell is wrong by itself.
    fn usage(command: &str, message: String) -> ExitCode {
        let mut cli = Self::command();
        cli.build();
        let command = cli.find_subcommand_mut(command);
        let error = command.map(|command| command.error(ErrorKind::ValueValidation, message));
        // Where even this cannot be printed, the exit code has to do.
        let _ = error.map(|error| error.print());
        ExitCode::from(2)
    }
}

/// Why a command ends early.
#[derive(Debug)]
enum Failure {
    /// A file cannot be read, or holds something else than it should.
    Input(String),
    /// The arguments do not fit each other or the policy.
    Usage(String),
    /// The output cannot be written.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<lanekeeper_cli::LoadError> for Failure {
    fn from(error: lanekeeper_cli::LoadError) -> Self {
        Self::Input(error.to_string())
    }
}

fn schema(of: Document, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let schema = match of {
        Document::Policy => Policy::schema(),
        Document::Experiment => Experiment::schema(),
    };
    writeln!(out, "{schema:#}")?;
    Ok(ExitCode::SUCCESS)
}

fn above_zero(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("allowed is a time above zero, such as 500ms or 30s".to_owned()),
    }
}
