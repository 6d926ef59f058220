//! What the suite needs of a system, whichever it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use harness::http::{Request, Response};
use serde_json::{Value, json};

/// A running pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) deployment: String,
    /// The label `app`.
    pub(crate) app: String,
    /// The label `version`.
    pub(crate) version: String,
    pub(crate) has_proxy: bool,
}

impl Pod {
    /// Whether this is of the same Deployment.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        self.namespace == other.namespace && self.deployment == other.deployment
    }

    /// Where its service listens.
    pub(crate) fn port(&self) -> u16 {
        match self.app.as_str() {
            "model-service" | "model-shadow" => 8081,
            _ => 8080,
        }
    }
}

/// A system that runs the manifests of this repository.
pub(crate) trait Cluster {
    /// `host:port` where users reach the ingress gateway.
    fn gateway(&self) -> Result<String>;

    /// Applies the manifests with these changes, and none of earlier ones; waits until the pods are
    /// there, not until routes and policies are in force. Returns when the system had them; an error if
    /// any object is refused.
    fn apply(&mut self, changes: &Changes) -> Result<Instant>;

    /// The pods that run.
    fn pods(&self) -> Vec<Pod>;

    /// Asks the admin API of a pod's Envoy.
    fn admin(&self, pod: &Pod, path: &str) -> Result<String>;

    /// Sends a request from within a pod to a host of the system, as its application would.
    fn call_from(&self, pod: &Pod, host: &str, request: &Request) -> Result<Response>;

    /// Sends a request to a pod, past all routes but through its sidecar.
    fn call_to(&self, pod: &Pod, request: &Request) -> Result<Response>;

    /// The metrics of a pod's application.
    fn metrics(&self, pod: &Pod) -> Result<String>;

    /// Starts a server that answers with what it receives, where the gateway reaches it without a
    /// sidecar; its address and port.
    fn echo(&mut self) -> Result<(String, u16)>;

    /// Takes the registry of the filter's image away, or brings it back.
    fn registry(&mut self, is_there: bool) -> Result<()>;

    /// Ends a pod and the others of its Deployment at once, as the end of their node would.
    /// [`Cluster::apply`] starts new ones.
    fn kill(&mut self, pod: &Pod) -> Result<()>;
}

/// What is to be different from the manifests, in the words of kustomize.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    bare: bool,
    overlay: Option<&'static str>,
    patches: Vec<Value>,
    replicas: Vec<Value>,
    resources: Vec<String>,
}

impl Changes {
    /// Takes an overlay of `istio` in its place, such as `istio/overlays/strict`.
    pub(crate) fn overlay(mut self, overlay: &'static str) -> Self {
        self.overlay = Some(overlay);
        self
    }

    /// Has none of the manifests of this repository but what is added.
    pub(crate) fn to_nothing() -> Self {
        Self {
            bare: true,
            ..Self::default()
        }
    }

    /// The folders of the manifests.
    fn bases(&self) -> Vec<&'static str> {
        match self.bare {
            true => vec![],
            false => vec![self.overlay.unwrap_or("istio"), "wasm-plugins"],
        }
    }

    /// Replaces what is at a path (a JSON pointer) of an object; the name is a regular expression.
    pub(crate) fn replace(self, kind: &str, name: &str, path: &str, value: Value) -> Self {
        self.patch("replace", kind, name, path, value)
    }

    /// Adds a field, or an element of a list before the one that the path names.
    pub(crate) fn insert(self, kind: &str, name: &str, path: &str, value: Value) -> Self {
        self.patch("add", kind, name, path, value)
    }

    fn patch(mut self, op: &str, kind: &str, name: &str, path: &str, value: Value) -> Self {
        let patch = json!([{ "op": op, "path": path, "value": value }]);
        let mut target = json!({ "kind": kind, "name": name });
        // Each application has these under the same names. The traffic is for this one.
        if ["DestinationRule", "VirtualService"].contains(&kind) {
            target["namespace"] = "sms-checker".into();
        }
        self.patches.push(json!({
            "target": target,
            "patch": patch.to_string(),
        }));
        self
    }

    /// These changes, and then others.
    pub(crate) fn then(mut self, others: &Self) -> Self {
        self.bare |= others.bare;
        self.overlay = others.overlay.or(self.overlay);
        self.patches.extend_from_slice(&others.patches);
        self.replicas.extend_from_slice(&others.replicas);
        self.resources.extend_from_slice(&others.resources);
        self
    }

    /// Sets the replicas of a Deployment.
    pub(crate) fn scale(mut self, deployment: &str, count: u32) -> Self {
        self.replicas
            .push(json!({ "name": deployment, "count": count }));
        self
    }

    /// Adds an object.
    pub(crate) fn add(mut self, manifest: &str) -> Self {
        self.resources.push(manifest.to_owned());
        self
    }

    /// A kustomization for `dir`, with the objects to add beside it: folders of the repository, the
    /// manifests among them, the filter's image from where it is, and these changes.
    pub(crate) fn kustomization(
        &self,
        dir: &Path,
        before: &[&str],
        plugin: Option<&str>,
    ) -> Result<Value> {
        let mut resources = Vec::new();
        for base in before.iter().copied().chain(self.bases()) {
            resources.push(relative(dir, &harness::build::workspace().join(base))?);
        }
        for (number, manifest) in self.resources.iter().enumerate() {
            let file = format!("added-{number}.yaml");
            fs::write(dir.join(&file), manifest)?;
            resources.push(file);
        }
        let place =
            |url: &str| Self::default().replace("WasmPlugin", ".*", "/spec/url", url.into());
        let changes = plugin.map_or_else(Self::default, place).then(self);
        Ok(json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": resources,
            "patches": changes.patches,
            "replicas": changes.replicas,
        }))
    }
}

/// The path of a directory as seen from another one: kustomize takes no absolute ones.
fn relative(from: &Path, to: &Path) -> Result<String> {
    let (from, to) = (from.canonicalize()?, to.canonicalize()?);
    let common = from.ancestors().find(|dir| to.starts_with(dir));
    let common = common.context("no common directory")?;
    let up = from.strip_prefix(common)?.components().map(|_| "..");
    let path: PathBuf = up.collect();
    let path = path.join(to.strip_prefix(common)?);
    Ok(path.display().to_string())
}
