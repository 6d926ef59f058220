//! The project's tasks: `cargo xtask`.

mod bench;
mod cutover;
mod demo;
mod dist;
mod e2e;
mod machine;
mod rules;
mod test;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's tasks.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Bench(bench::Args),
    Cutover(cutover::Args),
    Demo(demo::Args),
    Dist(dist::Args),
    E2e(e2e::Args),
    Rules(rules::Args),
    Test(test::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Bench(args) => bench::run(&args),
        Task::Cutover(args) => cutover::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Dist(args) => dist::run(&args),
        Task::E2e(args) => e2e::run(&args),
        Task::Rules(args) => rules::run(&args),
        Task::Test(args) => test::run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        // What is wrong has been said.
        Ok(false) => ExitCode::FAILURE,
        // Whoever read what we say, such as `head`, has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    /// Only the tasks that somebody runs are put together otherwise.
    #[test]
    fn the_options_of_all_tasks_go_together() {
        super::Args::command().debug_assert();
    }
}
