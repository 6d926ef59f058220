//! `cargo xtask e2e kind`: a cluster with Istio, and the promises in it.

mod cluster;
mod images;
mod istio;
mod machine;
mod operator;

use std::path::{Path, PathBuf};

use anyhow::Result;
use harness::build;

use super::run::{self, Folder, System};
use super::steps::Steps;
use cluster::Cluster;
use images::Images;
use istio::Istio;
use machine::Machine;
use operator::Operator;

/// Makes a kind cluster, installs Istio, and tests the promises in it.
///
/// With Docker, or with a podman that KIND_EXPERIMENTAL_PROVIDER names, the programs kind, kubectl and
/// helm are needed, and images of Kubernetes, Istio, Prometheus and a registry come from their
/// registries. Where no Docker engine runs, everything is built from Debian packages, Go modules and
/// PyPI (e2e/kind/from-source), as root. In the end, and with Ctrl-C, all that was made is removed.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// Test this promise only; may be given several times. `cargo run -p e2e -- mesh --list` lists them
    #[arg(long, value_name = "PROMISE")]
    only: Vec<String>,

    /// One node in place of three: nothing is drained then
    #[arg(long)]
    single_node: bool,

    /// Leave the cluster, and say how to look at it and how to remove it
    #[arg(long)]
    keep: bool,

    /// Remove what an earlier run has left, and do nothing else
    #[arg(long, conflicts_with_all = ["keep", "only", "single_node"])]
    remove: bool,

    #[command(flatten)]
    given: cluster::Given,

    #[command(flatten)]
    nodes: machine::Nodes,

    #[command(flatten)]
    istio: istio::Source,

    #[command(flatten)]
    operator: operator::Release,
}

/// Runs the suite. `false` where a promise is broken.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let folder = Folder::of("kind")?;
    let dir = folder.path();
    let steps = Steps::new(dir.join("logs"))?;
    let machine = Machine::find(&args.nodes, args.given.is_given(), &steps)?;
    let cluster = Cluster::new(&machine, &steps, &args.given, dir.join("kubeconfig"));
    if args.remove {
        cluster.remove()?;
        return Ok(true);
    }
    let images = Images::prepare(dir, args.given.images())?;
    let istio = Istio::new(&args.istio, &machine);
    let operator = Operator::new(&args.operator, &machine);
    let suite = build_suite(&steps)?;
    run::run(&cluster, &steps, args.keep, || {
        prepare(&cluster, &images, &istio, &operator, args)?;
        test(&cluster, &images, &suite, &args.only)
    })
}

/// A cluster with Istio, Prometheus' operator and everything that the suite wants of it.
fn prepare(
    cluster: &Cluster,
    images: &Images,
    istio: &Istio,
    operator: &Operator,
    args: &Args,
) -> Result<()> {
    cluster.create(args.single_node)?;
    let archives = istio.archives().chain(operator.archive());
    for archive in archives.chain(images.archives()) {
        cluster.load(archive)?;
    }
    istio.install(cluster)?;
    operator.install(cluster)?;
    cluster.start_registry(istio.registry())
}

/// The suite, built here: within the cluster's network there is no way to a registry.
fn build_suite(steps: &Steps) -> Result<PathBuf> {
    steps.run("Building the suite", &mut build::suite_command())?;
    Ok(build::suite())
}

/// Runs the suite. `false` where a promise is broken.
fn test(cluster: &Cluster, images: &Images, suite: &Path, only: &[String]) -> Result<bool> {
    let mut command = cluster.machine().command(suite);
    command
        .arg("kind")
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .args(["--gateway", &cluster.gateway()?])
        .args(["--images", images.prefix(), "--tag", images.tag()])
        .arg("--plugin")
        .arg(images.plugin());
    for promise in only {
        command.args(["--only", promise]);
    }
    cluster.steps().show("Testing the promises", &mut command)
}
