//! The promises, kept in a whole system: `cargo run -p e2e -- mesh`, or `kind`, for which `cargo xtask
//! e2e kind` makes a cluster. Each is tested in the same
//! running system, one after another; the README of `e2e` says what each of them shows.

mod apply;
mod cluster;
mod kind;
mod mesh;
mod promises;
mod traffic;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use cluster::Changes;
use kind::Kind;
use mesh::{Mesh, Program};
use promises::{PROMISES, Promise, Running};

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
    /// A cluster with Istio in it. `cargo xtask e2e kind` makes one and calls this
    Kind {
        #[command(flatten)]
        setup: kind::Setup,
        #[command(flatten)]
        selection: Selection,
    },
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
        System::Mesh(Selection { list: true, .. })
        | System::Kind {
            selection: Selection { list: true, .. },
            ..
        } => {
            for promise in &PROMISES {
                println!("{:10} {}", promise.name, promise.about);
            }
            Ok(ExitCode::SUCCESS)
        }
        System::Mesh(selection) => with_program(|program| in_the_mesh(program, &selection)),
        System::Kind { setup, selection } => in_a_cluster(&setup, &selection),
        System::Build => with_program(|program| {
            println!("{}", program.display());
            Ok(ExitCode::SUCCESS)
        }),
        System::Apply => with_program(|program| {
            let mut mesh = Mesh::start(program, &Changes::to_nothing())?;
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
    let mut system = Running::Mesh(Mesh::start(program, &Changes::default())?);
    let good = test(&mut system, start, &selection.only)?;
    if let (Running::Mesh(mesh), false) = (&mut system, good) {
        mesh.keep_logs();
    }
    Ok(exit_code(good))
}

fn in_a_cluster(setup: &kind::Setup, selection: &Selection) -> Result<ExitCode> {
    let start = Instant::now();
    let mut kind = Kind::start(setup)?;
    traffic::wait_until_restored(&mut kind)?;
    let good = test(&mut Running::Kind(kind), start, &selection.only)?;
    Ok(exit_code(good))
}

fn exit_code(good: bool) -> ExitCode {
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Tests the promises. Whatever one of them changed is changed back before the next.
fn test(system: &mut Running, start: Instant, only: &[String]) -> Result<bool> {
    println!(
        "{} pods run after {:.1} s",
        system.cluster().pods().len(),
        start.elapsed().as_secs_f64()
    );
    let mut good = true;
    let mut changed = false;
    for Promise { name, about, keep } in &PROMISES {
        let wanted = only.iter().any(|wanted| wanted == name);
        if !keep.is_for(system) {
            ensure!(!wanted, "{name}: not a promise of this system");
            continue;
        }
        if !only.is_empty() && !wanted {
            continue;
        }
        println!("\n{name}: {about}");
        let start = Instant::now();
        let restored = match changed {
            true => traffic::restore(system.cluster()),
            false => Ok(()),
        };
        changed = true;
        let kept = restored.and_then(|()| keep.keep(system));
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
    Ok(good)
}
