//! What runs the nodes: the kind that is installed here, or the one that is built from source.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use harness::build;

use crate::e2e::steps::Steps;
use crate::machine::works;

/// Of the cluster that is made.
pub(super) const CLUSTER: &str = "lanekeeper-e2e";

/// How kind is to make nodes. kind itself reads the first of these.
#[derive(Debug, clap::Args)]
pub(super) struct Nodes {
    /// What runs the nodes: docker, podman or nerdctl
    #[arg(long, env = "KIND_EXPERIMENTAL_PROVIDER", value_name = "PROVIDER")]
    provider: Option<String>,

    /// The image of the nodes [default: the one of this kind]
    #[arg(long, env = "KIND_NODE_IMAGE", value_name = "IMAGE")]
    node_image: Option<String>,
}

/// Where programs of the suite run.
#[derive(Debug)]
pub(super) enum Machine {
    /// kind, kubectl and helm of this machine.
    Stock {
        provider: String,
        node_image: Option<String>,
    },
    /// Built by `e2e/kind/from-source/lab`, with the settings that it prints.
    FromSource { settings: BTreeMap<String, String> },
}

impl Machine {
    /// Stock kind where something runs its nodes, or where the cluster is there already.
    pub(super) fn find(nodes: &Nodes, given: bool, steps: &Steps) -> Result<Self> {
        let docker = || works("docker", &["info"]);
        if given || nodes.provider.is_some() || docker() {
            let provider = nodes.provider.clone();
            let machine = Self::Stock {
                provider: provider.unwrap_or_else(|| "docker".to_owned()),
                node_image: nodes.node_image.clone(),
            };
            machine.name_what_is_missing(given)?;
            return Ok(machine);
        }
        println!("No Docker engine runs: the cluster is built from source.");
        for (step, what) in [
            ("tools", "Installing packages"),
            ("binaries", "Building Kubernetes, kind and Istio"),
            ("images", "Making the images"),
        ] {
            steps.run(what, lab().arg(step))?;
        }
        let printed = harness::process::run(lab().arg("environment"), "lab environment")?;
        let settings = printed
            .lines()
            .map(|line| line.split_once('=').context(line.to_owned()))
            .map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())))
            .collect::<Result<_>>()?;
        Ok(Self::FromSource { settings })
    }

    fn name_what_is_missing(&self, given: bool) -> Result<()> {
        let needed = [
            ("kubectl", "https://kubernetes.io/docs/tasks/tools/"),
            ("helm", "https://helm.sh/docs/intro/install/"),
            (
                "kind",
                "https://kind.sigs.k8s.io/docs/user/quick-start/#installation",
            ),
        ];
        let missing: Vec<_> = needed
            .into_iter()
            .filter(|(program, _)| !(given && *program == "kind"))
            .filter(|(program, _)| !works(program, &["--help"]))
            .map(|(program, place)| format!("{program} ({place})"))
            .collect();
        match missing.is_empty() {
            true => Ok(()),
            false => bail!("these programs are missing: {}", missing.join(", ")),
        }
    }

    /// A program where the cluster can be reached.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Stock { provider, .. } => {
                let mut command = Command::new(program);
                command.env("KIND_EXPERIMENTAL_PROVIDER", provider);
                command
            }
            Self::FromSource { .. } => {
                let mut command = lab();
                command.arg("in").arg(program);
                command
            }
        }
    }

    /// What `lab environment` says, where it is asked.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        match self {
            Self::Stock { .. } => None,
            Self::FromSource { settings } => settings.get(name).map(String::as_str),
        }
    }

    pub(super) fn node_image(&self) -> Option<&str> {
        match self {
            Self::Stock { node_image, .. } => node_image.as_deref(),
            Self::FromSource { .. } => self.setting("KIND_NODE_IMAGE"),
        }
    }

    /// The program whose containers the nodes are.
    pub(super) fn containers(&self) -> Command {
        match self {
            Self::Stock { provider, .. } => self.command(provider),
            Self::FromSource { .. } => self.command("podman"),
        }
    }

    /// Makes ready what a cluster needs.
    pub(super) fn up(&self, steps: &Steps) -> Result<()> {
        match self {
            Self::Stock { .. } => Ok(()),
            Self::FromSource { .. } => steps.run("Making a network", lab().arg("up")),
        }
    }

    /// Connects the pods of the nodes, where the nodes do not do so themselves.
    pub(super) fn connect(&self, steps: &Steps) -> Result<()> {
        match self {
            Self::Stock { .. } => Ok(()),
            Self::FromSource { .. } => steps.run("Connecting the pods", lab().arg("network")),
        }
    }

    /// Removes the cluster and what [`Machine::up`] has made.
    pub(super) fn down(&self, steps: &Steps) -> Result<()> {
        let mut command = match self {
            Self::Stock { .. } => {
                let mut kind = self.command("kind");
                kind.args(["delete", "cluster", "--name", CLUSTER]);
                kind
            }
            Self::FromSource { .. } => {
                let mut lab = lab();
                lab.arg("down");
                lab
            }
        };
        steps.finish("Removing the cluster", &mut command)
    }
}

fn lab() -> Command {
    let mut lab = Command::new(build::workspace().join("e2e/kind/from-source/lab"));
    let state: PathBuf = build::target_dir().join("kind");
    lab.env("LAB", state).env("CLUSTER", CLUSTER);
    lab
}
