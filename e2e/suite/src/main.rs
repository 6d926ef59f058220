//! The promises, kept in a whole system: `cargo run -p e2e -- mesh`. Each is tested in the same
//! running system, one after another; the README of `e2e` says what each of them shows.

mod apply;
mod cluster;
mod mesh;
mod promises;
mod traffic;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, Subcommand};

use cluster::{Changes, Cluster};
use mesh::{Mesh, Program};
use promises::{PROMISES, Promise};

/// The exit code where something is missing here. `cargo xtask test` knows it, and the next one.
const UNAVAILABLE: u8 = 3;
/// The exit code where a registry no longer has what is needed, for which nobody here can do anything.
const EXCUSED: u8 = 4;

/// Tests the promises in a whole system.
#[derive(Parser)]
#[command(arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    system: System,
}

#[derive(Subcommand)]
enum System {
    /// Istio's own control plane, without a cluster
    Mesh(Selection),
    /// Builds the control plane of `mesh`, which takes minutes the first time. If that cannot be done
    /// here, stdout says why, and the exit code is 3, or 4 if Istio's module is no longer to be had
    Build,
    /// Istio's own control plane, and what it is given: reads names of manifests from stdin, one a line,
    /// and applies each as `kubectl apply -f` would. It says `gateway HOST:PORT` when the first is there,
    /// `applied FILE` after each, and ends with its input. Exit codes as of `build`
    Apply,
}

#[derive(clap::Args)]
struct Selection {
    /// Test this promise only; may be given several times
    #[arg(long, value_name = "PROMISE", value_parser = clap::builder::PossibleValuesParser::new(PROMISES.map(|promise| promise.name)))]
    only: Vec<String>,

    /// List the promises
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let done = match Args::parse().system {
        System::Mesh(selection) if selection.list => {
            for promise in &PROMISES {
                println!("{:10} {}", promise.name, promise.about);
            }
            Ok(ExitCode::SUCCESS)
        }
        System::Mesh(selection) => with_program(|program| in_the_mesh(program, &selection)),
        System::Build => with_program(|program| {
            println!("{}", program.display());
            Ok(ExitCode::SUCCESS)
        }),
        System::Apply => with_program(|program| {
            let mut mesh = Mesh::start(program, &[mesh::INSTALLATION])?;
            apply::follow(&mut mesh, io::stdin().lock(), io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Does something with the control plane's program, if it can be had here.
fn with_program(run: impl FnOnce(&Path) -> Result<ExitCode>) -> Result<ExitCode> {
    match mesh::build()? {
        Program::Built(program) => run(&program),
        Program::Unavailable { reason, excused } => {
            println!("{reason}");
            let code = if excused { EXCUSED } else { UNAVAILABLE };
            Ok(ExitCode::from(code))
        }
    }
}

fn in_the_mesh(program: &Path, selection: &Selection) -> Result<ExitCode> {
    let start = Instant::now();
    let mut mesh = Mesh::start(program, &mesh::MANIFESTS)?;
    println!(
        "{} pods run after {:.1} s",
        mesh.pods().len(),
        start.elapsed().as_secs_f64()
    );
    let good = test(&mut mesh, &selection.only);
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        mesh.keep_logs();
        ExitCode::FAILURE
    })
}

/// Tests the promises. Whatever one of them changed is changed back before the next.
fn test(cluster: &mut dyn Cluster, only: &[String]) -> bool {
    let mut good = true;
    let mut changed = false;
    for Promise { name, about, keep } in &PROMISES {
        if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        println!("\n{name}: {about}");
        let start = Instant::now();
        let restored = match changed {
            true => cluster
                .apply(&Changes::default())
                .and_then(|()| traffic::wait_until_restored(cluster)),
            false => Ok(()),
        };
        changed = true;
        let kept = restored.and_then(|()| keep(cluster));
        let time = start.elapsed().as_secs_f64();
        match kept {
            Ok(facts) => {
                for fact in facts {
                    println!("  {fact}");
                }
                println!("  kept ({time:.1} s)");
            }
            Err(error) => {
                good = false;
                println!("  BROKEN ({time:.1} s): {error:#}");
            }
        }
    }
    good
}
