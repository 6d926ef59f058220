//! The cluster: one that is made and removed, or one that is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use harness::build;
use harness::process;
use serde_json::Value;

use super::machine::{CLUSTER, Machine};
use crate::e2e::run::{System, words};
use crate::e2e::steps::Steps;

/// The NodePort of `e2e/kind/values/gateway.yaml`.
const GATEWAY_PORT: u16 = 30080;

/// What the suite makes in a cluster, and removes from one that was there.
const NAMESPACES: [&str; 6] = [
    "sms-checker",
    "sentiment",
    "translation",
    "monitoring",
    "lanekeeper-e2e",
    "istio-system",
];

/// The types of Prometheus' operator, and those of Istio: the suite installs both.
const TYPES: [&str; 2] = [".monitoring.coreos.com", ".istio.io"];

/// A cluster that is there already.
#[derive(Debug, clap::Args)]
pub(super) struct Given {
    /// A cluster that is there, in place of one that is made. It must have neither Istio nor the
    /// operator of Prometheus, nor the namespaces of this repository: all are made, and removed in the end
    #[arg(long, env, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Where such a cluster finds the images <PREFIX>/app-service:<TAG>, model-service and echo, pushed
    /// beforehand. Not needed where kind has made it [default: images are built and loaded]
    #[arg(
        long,
        env = "E2E_IMAGES",
        value_name = "PREFIX:TAG",
        requires = "kubeconfig"
    )]
    images: Option<String>,

    /// Where its ingress gateway is reached [default: port 30080 of its first node]
    #[arg(
        long,
        env = "E2E_GATEWAY",
        value_name = "HOST:PORT",
        requires = "kubeconfig"
    )]
    gateway: Option<String>,
}

impl Given {
    pub(super) fn is_given(&self) -> bool {
        self.kubeconfig.is_some()
    }

    pub(super) fn images(&self) -> Option<&str> {
        self.images.as_deref()
    }
}

/// The cluster, whether it runs or not.
#[derive(Debug)]
pub(super) struct Cluster<'a> {
    machine: &'a Machine,
    steps: &'a Steps,
    given: &'a Given,
    kubeconfig: PathBuf,
}

impl<'a> Cluster<'a> {
    pub(super) fn new(
        machine: &'a Machine,
        steps: &'a Steps,
        given: &'a Given,
        kubeconfig: PathBuf,
    ) -> Self {
        Self {
            machine,
            steps,
            given,
            kubeconfig: given.kubeconfig.clone().unwrap_or(kubeconfig),
        }
    }

    pub(super) fn machine(&self) -> &Machine {
        self.machine
    }

    pub(super) fn steps(&self) -> &Steps {
        self.steps
    }

    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `kubectl` or `helm` for this cluster.
    pub(super) fn program(&self, name: &str) -> Command {
        let mut command = self.machine.command(name);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut kubectl = self.program("kubectl");
        kubectl.args(arguments);
        kubectl
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let what = format!("kubectl {}", arguments.join(" "));
        process::run(&mut self.kubectl(arguments), &what)
    }

    /// Makes the cluster, or sees that nothing is in the way in the one that is there.
    pub(super) fn create(&self, single_node: bool) -> Result<()> {
        if self.given.is_given() {
            return self.ensure_that_it_is_empty();
        }
        self.machine.up(self.steps)?;
        let config = self.kubeconfig.with_file_name("cluster.yaml");
        fs::write(&config, configuration(single_node)?.to_string())?;
        let mut create = self.machine.command("kind");
        create
            .args(["create", "cluster", "--name", CLUSTER, "--retain"])
            .arg("--config")
            .arg(&config)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig);
        if let Some(image) = self.machine.node_image() {
            create.args(["--image", image]);
        }
        self.steps.run("Creating the cluster", &mut create)?;
        self.machine.connect(self.steps)?;
        let ready = ["wait", "--for=condition=Ready", "--timeout=300s"];
        let mut nodes = self.kubectl(&[&ready[..], &["nodes", "--all"]].concat());
        self.steps.run("Waiting for the nodes", &mut nodes)?;
        let dns = ["-n", "kube-system", "deployment/coredns"];
        let ready = ["rollout", "status", "--timeout=300s"];
        let mut dns = self.kubectl(&[&ready[..], &dns].concat());
        self.steps.run("Waiting for DNS", &mut dns)
    }

    /// The names of the resource types that the suite installs, if they are there.
    fn types(&self) -> Result<Vec<String>> {
        let names = self.ask(&["get", "crds", "-o", "name"])?;
        let names = names.lines().filter_map(|name| name.split_once('/'));
        let names = names.map(|(_, name)| name.to_owned());
        Ok(names
            .filter(|name| TYPES.iter().any(|ours| name.ends_with(ours)))
            .collect())
    }

    /// What the suite removes in the end must not be somebody's.
    fn ensure_that_it_is_empty(&self) -> Result<()> {
        let there = self.ask(&["get", "namespaces", "-o", "name"])?;
        let there = there.lines().filter_map(|name| name.split_once('/'));
        let in_the_way: Vec<_> = there
            .map(|(_, name)| name)
            .filter(|name| NAMESPACES.contains(name))
            .collect();
        ensure!(
            in_the_way.is_empty(),
            "KUBECONFIG: {}: has {} already; the suite installs and removes its own Istio: take a cluster \
             without, or unset KUBECONFIG for one that is made",
            self.kubeconfig.display(),
            in_the_way.join(", ")
        );
        let types = self.types()?;
        ensure!(
            types.is_empty(),
            "KUBECONFIG: {}: has {} already; the suite installs and removes Istio and the operator of \
             Prometheus: take a cluster without, or unset KUBECONFIG for one that is made",
            self.kubeconfig.display(),
            types.join(", ")
        );
        // From here on they are ours.
        for namespace in NAMESPACES {
            self.ask(&["create", "namespace", namespace])?;
            let ours = format!("{OURS}=");
            self.ask(&["label", "namespace", namespace, &ours])?;
        }
        Ok(())
    }

    /// Brings the images of an archive onto the nodes.
    pub(super) fn load(&self, archive: &Path) -> Result<()> {
        let context = self.ask(&["config", "current-context"])?;
        let Some(name) = context.trim().strip_prefix("kind-") else {
            bail!(
                "the context {} is not of a cluster that kind has made: push the images of {} to a \
                 registry that it can pull from, and name it with --images",
                context.trim(),
                archive.parent().unwrap_or(archive).display()
            );
        };
        let mut load = self.machine.command("kind");
        load.args(["load", "image-archive", "--name", name])
            .arg(archive);
        let name = archive.file_name().unwrap_or_default().display();
        self.steps.run(&format!("Loading {name}"), &mut load)
    }

    /// Starts a registry for the filter.
    pub(super) fn start_registry(&self, image: &str) -> Result<()> {
        let manifest = fs::read_to_string(build::workspace().join("e2e/kind/registry.yaml"))?;
        let place = "image: registry\n";
        ensure!(manifest.contains(place), "registry.yaml has no {place:?}");
        let manifest = manifest.replace(place, &format!("image: {image}\n"));
        let file = self.steps.logs().join("registry.yaml");
        fs::write(&file, manifest)?;
        let file = file.display().to_string();
        let registry = ["lanekeeper-e2e", "deployment/registry"];
        self.apply_and_wait("the registry", &["-f", &file], registry)
    }

    /// Applies manifests, and waits until a workload of theirs, with its namespace, runs.
    pub(super) fn apply_and_wait(
        &self,
        what: &str,
        manifests: &[&str],
        [namespace, workload]: [&str; 2],
    ) -> Result<()> {
        let mut apply = self.kubectl(&[&["apply"], manifests].concat());
        self.steps.run(&format!("Applying {what}"), &mut apply)?;
        let ready = ["rollout", "status", "--timeout=300s"];
        let mut ready = self.kubectl(&[&ready[..], &["-n", namespace, workload]].concat());
        self.steps.run(&format!("Waiting for {what}"), &mut ready)
    }

    /// Where users reach the ingress gateway.
    pub(super) fn gateway(&self) -> Result<String> {
        if let Some(gateway) = &self.given.gateway {
            return Ok(gateway.clone());
        }
        if self.given.is_given() {
            let address =
                "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}";
            let address = self.ask(&["get", "nodes", "-o", address])?;
            return Ok(format!("{address}:{GATEWAY_PORT}"));
        }
        let mut port = self.machine.containers();
        port.args([
            "port",
            &format!("{CLUSTER}-control-plane"),
            &format!("{GATEWAY_PORT}/tcp"),
        ]);
        let port = process::run(&mut port, "The port of the gateway")?;
        let first = port.lines().next().context("the node has no such port")?;
        Ok(first.trim().to_owned())
    }
}

impl System for Cluster<'_> {
    fn save_logs(&self) {
        println!("Collecting the logs ...");
        let pods = self.ask(&["get", "pods", "--all-namespaces", "-o", "json"]);
        let pods: Value = pods
            .ok()
            .and_then(|pods| serde_json::from_str(&pods).ok())
            .unwrap_or_default();
        let save = |name: &str, arguments: &[&str]| {
            // What cannot be had is not there.
            let _ = self.steps.save(name, &mut self.kubectl(arguments));
        };
        save("pods", &["get", "pods", "--all-namespaces", "-o", "wide"]);
        save("nodes", &["describe", "nodes"]);
        save(
            "events",
            &[
                "get",
                "events",
                "--all-namespaces",
                "--sort-by=.lastTimestamp",
            ],
        );
        for pod in pods["items"].as_array().into_iter().flatten() {
            let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
            let (Some(namespace), Some(name)) =
                (text("/metadata/namespace"), text("/metadata/name"))
            else {
                continue;
            };
            if !NAMESPACES.contains(&namespace) {
                continue;
            }
            let place = ["-n", namespace, name];
            save(
                name,
                &[&["logs", "--all-containers", "--prefix"], &place[..]].concat(),
            );
            save(
                &format!("{name}-description"),
                &[&["describe", "pod"], &place[..]].concat(),
            );
            if pod.to_string().contains("\"istio-proxy\"") {
                let dump = [
                    "-c",
                    "istio-proxy",
                    "--",
                    "pilot-agent",
                    "request",
                    "GET",
                    "config_dump",
                ];
                save(
                    &format!("{name}-config-dump"),
                    &[&["exec"], &place[..], &dump].concat(),
                );
            }
        }
    }

    fn remove(&self) -> Result<()> {
        if !self.given.is_given() {
            self.machine.down(self.steps)?;
            let _ = fs::remove_file(&self.kubeconfig);
            return Ok(());
        }
        let ours = self.ask(&["get", "namespaces", "-l", OURS, "-o", "name"])?;
        if ours.is_empty() {
            return Ok(());
        }
        for release in ["istio-ingressgateway", "istiod", "istio-base"] {
            let mut helm = self.program("helm");
            helm.args([
                "uninstall",
                release,
                "-n",
                "istio-system",
                "--ignore-not-found",
            ]);
            self.steps
                .finish(&format!("Removing {release}"), helm.arg("--wait"))?;
        }
        let operator = [
            "-n",
            "default",
            "-l",
            "app.kubernetes.io/name=prometheus-operator",
        ];
        let kinds = "deployment,service,serviceaccount,clusterrole,clusterrolebinding";
        let mut operator = self.kubectl(&[&["delete", kinds], &operator[..]].concat());
        self.steps
            .finish("Removing the operator of Prometheus", &mut operator)?;
        let types = self.types()?;
        if !types.is_empty() {
            let mut types = types.iter().map(String::as_str).collect::<Vec<_>>();
            types.splice(..0, ["delete", "crds"]);
            self.steps
                .finish("Removing the resource types", &mut self.kubectl(&types))?;
        }
        // Last: by these a later run knows that the rest is ours.
        let mut namespaces = self.kubectl(&["delete", "namespaces", "-l", OURS]);
        self.steps.finish("Removing namespaces", &mut namespaces)
    }

    fn say_how_to_go_on(&self) {
        let gateway = self.gateway().unwrap_or_default();
        let mut curl = self.machine.command("curl");
        curl.args(["-i", "--resolve"]);
        let (host, port) = gateway.rsplit_once(':').unwrap_or_default();
        curl.arg(format!("sms-checker.local:{port}:{host}"));
        curl.arg(format!("http://sms-checker.local:{port}/version"));
        println!(
            "\nAll runs on:\n    {}\n    {}\nTo remove it:\n    cargo xtask e2e kind --remove",
            words(&self.kubectl(&["get", "pods", "-A"])).join(" "),
            words(&curl).join(" "),
        );
    }
}

/// Marks the namespaces that the suite has made.
const OURS: &str = "lanekeeper-e2e";

/// `e2e/kind/cluster.yaml`, perhaps with its first node alone.
fn configuration(single_node: bool) -> Result<Value> {
    let file = build::workspace().join("e2e/kind/cluster.yaml");
    let mut config = lanekeeper_cli::read_document(&file)?;
    let Some(nodes) = config["nodes"].as_array_mut() else {
        bail!("{}: nodes: a list is needed", file.display());
    };
    if single_node {
        nodes.truncate(1);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_node_is_the_control_plane() {
        let nodes = |single| configuration(single).unwrap()["nodes"].clone();
        assert_eq!(nodes(false).as_array().unwrap().len(), 3);
        let single = nodes(true);
        assert_eq!(single.as_array().unwrap().len(), 1);
        assert_eq!(single[0]["role"], "control-plane");
        assert_eq!(
            single[0]["extraPortMappings"][0]["containerPort"],
            GATEWAY_PORT
        );
    }

    #[test]
    fn the_gateway_has_the_port_of_the_cluster() {
        let values = build::workspace().join("e2e/kind/values/gateway.yaml");
        let values = lanekeeper_cli::read_document(&values).unwrap();
        let ports = values["service"]["ports"].as_array().unwrap();
        assert!(ports.iter().any(|port| port["nodePort"] == GATEWAY_PORT));
    }
}
