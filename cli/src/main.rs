//! `lanekeeper`: checks policies, says what they decide, with the core that the filter runs, and sends
//! traffic to see what users get.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use lanekeeper_policy::Policy;

mod assign;
#[cfg(unix)]
mod envoy;
mod lint;
mod plugin;
mod ready;
#[cfg(unix)]
mod traffic;

/// Checks Lanekeeper policies and says what they decide, with the same core as the filter; and sends
/// traffic, to see what users get.
#[derive(Debug, Parser)]
#[command(name = "lanekeeper", version, arg_required_else_help = true)]
#[command(after_help = "\
Exit codes: 0 done; 1 a file cannot be read or holds a faulty policy, or requests failed; 2 wrong usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Lint(lint::Lint),
    /// Print the JSON Schema of a policy, for editors.
    #[command(after_help = "\
Example:
  lanekeeper schema > policy.schema.json
and as the first line of a policy, for the YAML language server:
  # yaml-language-server: $schema=policy.schema.json")]
    Schema,
    Assign(assign::Assign),
    Plugin(plugin::Plugin),
    #[cfg(unix)]
    Envoy(envoy::Envoy),
    Ready(ready::Ready),
    #[cfg(unix)]
    Traffic(traffic::Traffic),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::stdout().lock();
    let (name, done) = match cli.command {
        Command::Lint(lint) => ("lint", lint.run(&mut out)),
        Command::Schema => ("schema", schema(&mut out)),
        Command::Assign(assign) => ("assign", assign.run(&mut out)),
        Command::Plugin(plugin) => ("plugin", plugin.run(&mut out)),
        #[cfg(unix)]
        Command::Envoy(envoy) => ("envoy", envoy.run()),
        Command::Ready(ready) => ("ready", ready.run()),
        #[cfg(unix)]
        Command::Traffic(traffic) => ("traffic", traffic.run(&mut out)),
    };
    match done.and_then(|code| out.flush().map(|()| code).map_err(Failure::from)) {
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

fn schema(out: &mut dyn Write) -> Result<ExitCode, Failure> {
    writeln!(out, "{:#}", Policy::schema())?;
    Ok(ExitCode::SUCCESS)
}
