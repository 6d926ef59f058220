//! The operator of Prometheus, as its release installs it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::cluster::Cluster;
use super::machine::Machine;

/// Of the version that e2e/kind/from-source/operator/go.mod has, too.
const BUNDLE: &str = "https://github.com/prometheus-operator/prometheus-operator/releases/download/v0.85.0/bundle.yaml";

/// Where the operator comes from.
#[derive(Debug, clap::Args)]
pub(super) struct Release {
    /// The manifests of Prometheus' operator, a file or a URL [default: those of its release]
    #[arg(long, env = "OPERATOR_BUNDLE", value_name = "FILE|URL")]
    operator_bundle: Option<String>,
}

/// What is installed.
#[derive(Debug)]
pub(super) struct Operator {
    bundle: String,
    archive: Option<PathBuf>,
}

impl Operator {
    /// What the setting says, else the machine, else the release.
    pub(super) fn new(release: &Release, machine: &Machine) -> Self {
        let given = release.operator_bundle.as_deref();
        let bundle = given.or_else(|| machine.setting("OPERATOR_BUNDLE"));
        Self {
            bundle: bundle.unwrap_or(BUNDLE).to_owned(),
            archive: machine.setting("OPERATOR_ARCHIVE").map(PathBuf::from),
        }
    }

    /// Images for the nodes.
    pub(super) fn archive(&self) -> Option<&Path> {
        self.archive.as_deref()
    }

    /// Installs the operator and its resource types.
    pub(super) fn install(&self, cluster: &Cluster) -> Result<()> {
        // Its types are longer than the annotation may be that kubectl would write.
        cluster.apply_and_wait(
            "the operator of Prometheus",
            &["--server-side", "-f", &self.bundle],
            ["default", "deployment/prometheus-operator"],
        )
    }
}

#[cfg(test)]
mod tests {
    use harness::build;

    #[test]
    fn the_release_is_of_the_version_that_is_built_from_source() {
        let file = build::workspace().join("e2e/kind/from-source/operator/go.mod");
        let module = std::fs::read_to_string(file).unwrap();
        let name = "github.com/prometheus-operator/prometheus-operator v";
        let (_, rest) = module.split_once(name).unwrap();
        let version = rest.split_whitespace().next().unwrap();
        assert!(
            super::BUNDLE.contains(&format!("/v{version}/")),
            "{version}"
        );
    }
}
