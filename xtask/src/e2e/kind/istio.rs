//! Istio, as its Helm charts install it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use harness::build;

use super::cluster::Cluster;
use super::machine::Machine;

/// The one that stock clusters get.
const VERSION: &str = "1.30.4";
const CHARTS: &str = "https://istio-release.storage.googleapis.com/charts";
const REGISTRY: &str = "docker.io/library/registry:3";

/// Where Istio and the image of a registry come from.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// The version of Istio [default: 1.30.4]
    #[arg(long, env = "ISTIO_VERSION", value_name = "VERSION")]
    istio_version: Option<String>,

    /// Its charts: the URL of a Helm repository, or a folder with base-VERSION.tgz and so on
    /// [default: Istio's repository]
    #[arg(long, env = "ISTIO_CHARTS", value_name = "URL|DIRECTORY")]
    istio_charts: Option<String>,

    /// More values for the chart istiod
    #[arg(long, env = "ISTIO_VALUES", value_name = "FILE")]
    istio_values: Option<PathBuf>,

    /// Archives of images that are loaded into the nodes first, with colons between them
    #[arg(long, env = "ISTIO_IMAGES", value_name = "FILES")]
    istio_images: Option<String>,

    /// The image of a registry: Istio fetches the filter from it, in the cluster
    /// [default: docker.io/library/registry:3]
    #[arg(long, env = "REGISTRY_IMAGE", value_name = "IMAGE")]
    registry_image: Option<String>,
}

/// What is installed.
#[derive(Debug)]
pub(super) struct Istio {
    version: String,
    charts: String,
    values: Option<PathBuf>,
    archives: Vec<PathBuf>,
    registry: String,
}

impl Istio {
    /// What the settings say, else the machine, else stock Istio.
    pub(super) fn new(source: &Source, machine: &Machine) -> Self {
        let or = |given: &Option<String>, name: &str, default: &str| {
            let machines = || machine.setting(name).map(str::to_owned);
            let given = given.clone().or_else(machines);
            given.unwrap_or_else(|| default.to_owned())
        };
        let values = machine.setting("ISTIO_VALUES").map(PathBuf::from);
        let archives = or(&source.istio_images, "ISTIO_IMAGES", "");
        let registry = machine.setting("REGISTRY_ARCHIVE").unwrap_or_default();
        let archives = archives.split(':').chain([registry]);
        let archives = archives.filter(|archive| !archive.is_empty());
        Self {
            version: or(&source.istio_version, "ISTIO_VERSION", VERSION),
            charts: or(&source.istio_charts, "ISTIO_CHARTS", CHARTS),
            values: source.istio_values.clone().or(values),
            archives: archives.map(PathBuf::from).collect(),
            registry: or(&source.registry_image, "REGISTRY_IMAGE", REGISTRY),
        }
    }

    /// Images for the nodes.
    pub(super) fn archives(&self) -> impl Iterator<Item = &Path> {
        self.archives.iter().map(PathBuf::as_path)
    }

    pub(super) fn registry(&self) -> &str {
        &self.registry
    }

    /// Installs the control plane and the ingress gateway, with what `istio/mesh.yaml` wants.
    pub(super) fn install(&self, cluster: &Cluster) -> Result<()> {
        let operator = build::workspace().join("istio/mesh.yaml");
        let operator = lanekeeper_cli::read_document(&operator)?;
        let mesh = operator.pointer("/spec/meshConfig");
        let mesh = mesh.context("istio/mesh.yaml has no spec.meshConfig")?;
        let mesh = ["--set-json".to_owned(), format!("meshConfig={mesh}")];
        let own = |name: &str| build::workspace().join("e2e/kind/values").join(name);

        self.chart(cluster, "istio-base", "base", &[], &[])?;
        let mut values = vec![own("istiod.yaml")];
        values.extend(self.values.clone());
        self.chart(cluster, "istiod", "istiod", &values, &mesh)?;
        let values = [own("gateway.yaml")];
        self.chart(cluster, "istio-ingressgateway", "gateway", &values, &[])
    }

    fn chart(
        &self,
        cluster: &Cluster,
        release: &str,
        chart: &str,
        values: &[PathBuf],
        more: &[String],
    ) -> Result<()> {
        let mut helm = cluster.program("helm");
        helm.args(["upgrade", "--install", release]);
        if self.charts.contains("://") {
            helm.args([chart, "--repo", &self.charts, "--version", &self.version]);
        } else {
            let archive = format!("{chart}-{}.tgz", self.version);
            helm.arg(Path::new(&self.charts).join(archive));
        }
        helm.args(["--namespace", "istio-system", "--create-namespace"]);
        helm.args(["--wait", "--timeout", "5m"]).args(more);
        for file in values {
            helm.arg("--values").arg(file);
        }
        let what = format!("Installing {release} {}", self.version);
        cluster.steps().run(&what, &mut helm)
    }
}
