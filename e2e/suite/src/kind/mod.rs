//! A real cluster, with Istio, this repository's images and a registry in it, as `cargo xtask e2e
//! kind` makes it.

mod forward;
mod kubectl;
mod registry;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::http::{Request, Response};
use harness::process::Process;
use serde_json::{Value, json};

pub(crate) use forward::Forward;
pub(crate) use kubectl::Kubectl;

use crate::cluster::{Changes, Cluster, Pod};
use crate::traffic::wait_for;

/// Of the applications.
pub(crate) const APPLICATIONS: [&str; 2] = ["sms-checker", "sentiment"];
/// Of Istio, its ingress gateway included.
pub(crate) const SYSTEM: &str = "istio-system";
pub(crate) const GATEWAY: &str = "istio-ingressgateway";

/// The images of the services that the manifests name, and how they are called where `Setup::images`
/// says.
const IMAGES: [&str; 4] = [
    "app-frontend",
    "app-service",
    "model-service",
    "translation-api",
];

/// Pods have to be scheduled, images unpacked and probes passed, on machines of two cores too.
const START_TIMEOUT: Duration = Duration::from_secs(240);

/// The container that is added to a pod to call from.
const CALLER: &str = "caller";

/// Where everything is.
#[derive(clap::Args, Debug)]
pub(crate) struct Setup {
    /// Names the cluster
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,

    /// Where users reach the ingress gateway
    #[arg(long, value_name = "HOST:PORT")]
    gateway: String,

    /// The images of the services are here: <PREFIX>/app-service:<TAG> and so on
    #[arg(long, value_name = "PREFIX")]
    images: String,

    /// Their tag
    #[arg(long)]
    tag: String,

    /// The OCI image layout of the filter
    #[arg(long, value_name = "DIRECTORY")]
    plugin: PathBuf,
}

/// The cluster.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) kubectl: Kubectl,
    gateway: String,
    images: String,
    tag: String,
    /// The filter's image, as an OCI layout.
    layout: PathBuf,
    /// Where the cluster finds the filter's image.
    plugin: String,
    /// For the overlay.
    dir: PathBuf,
    /// What was applied last.
    objects: BTreeSet<Object>,
    /// Replicas of Deployments that the manifests do not have, as they were before they were changed.
    replicas: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Object {
    kind: String,
    namespace: String,
    name: String,
}

impl Kind {
    /// Brings the manifests into the cluster and waits until all pods are ready.
    pub(crate) fn start(setup: &Setup) -> Result<Self> {
        let kubectl = Kubectl::new(&setup.kubeconfig);
        let mut kind = Self {
            plugin: registry::push(&kubectl, &setup.plugin).context("Pushing the filter")?,
            kubectl,
            gateway: setup.gateway.clone(),
            images: setup.images.clone(),
            tag: setup.tag.clone(),
            layout: setup.plugin.clone(),
            dir: Process::scratch_dir("kind")?,
            objects: BTreeSet::new(),
            replicas: BTreeMap::new(),
        };
        kind.apply(&Changes::default())?;
        Ok(kind)
    }

    /// Sets the replicas of the ingress gateway, until the next [`Cluster::apply`].
    pub(crate) fn scale_gateway(&mut self, replicas: usize) -> Result<()> {
        self.scale(SYSTEM, GATEWAY, replicas)?;
        self.wait_for_rollouts()
    }

    fn scale(&mut self, namespace: &str, deployment: &str, replicas: usize) -> Result<()> {
        let place = ["deployment", deployment, "-n", namespace];
        if namespace == SYSTEM && !self.replicas.contains_key(deployment) {
            let spec = ["-o", "jsonpath={.spec.replicas}"];
            let before = self.kubectl.run(&[&["get"], &place[..], &spec].concat())?;
            self.replicas.insert(deployment.to_owned(), before);
        }
        self.set_replicas(namespace, deployment, &replicas.to_string())
    }

    fn set_replicas(&self, namespace: &str, deployment: &str, replicas: &str) -> Result<()> {
        let replicas = format!("--replicas={replicas}");
        let scale = [
            "scale",
            "deployment",
            deployment,
            "-n",
            namespace,
            &replicas,
        ];
        self.kubectl.run(&scale).map(drop)
    }

    /// Waits until every Deployment has the pods that it should have, of its newest revision, and all
    /// are ready.
    pub(crate) fn wait_for_rollouts(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let unfinished = self.unfinished()?;
            if unfinished.is_empty() {
                return Ok(());
            }
            ensure!(
                start.elapsed() < START_TIMEOUT,
                "not ready after {START_TIMEOUT:?}: {}",
                unfinished.join(", ")
            );
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The Deployments of the applications and of Istio.
    pub(crate) fn deployments(&self) -> Result<Vec<Value>> {
        let all = self
            .kubectl
            .json(&["get", "deployments", "--all-namespaces"])?;
        let ours = |deployment: &&Value| {
            let namespace = text(&deployment["metadata"]["namespace"]);
            namespace == SYSTEM || APPLICATIONS.contains(&namespace)
        };
        Ok(items(&all).filter(ours).cloned().collect())
    }

    fn unfinished(&self) -> Result<Vec<String>> {
        let mut unfinished = Vec::new();
        for deployment in self.deployments()? {
            let status = &deployment["status"];
            let number = |value: &Value| value.as_u64().unwrap_or_default();
            let wanted = number(&deployment["spec"]["replicas"]);
            let seen = number(&status["observedGeneration"])
                >= number(&deployment["metadata"]["generation"]);
            let counts = ["replicas", "updatedReplicas", "availableReplicas"];
            let counts = counts.map(|count| number(&status[count]));
            if !seen || counts != [wanted; 3] {
                let name = text(&deployment["metadata"]["name"]);
                unfinished.push(format!("{name} ({} of {wanted})", counts[2]));
            }
        }
        Ok(unfinished)
    }

    /// Runs a program in a container of a pod.
    pub(crate) fn exec(
        &self,
        pod: &Pod,
        container: &str,
        words: &[&str],
        input: &[u8],
    ) -> Result<Vec<u8>> {
        let place = [
            "exec",
            "--stdin",
            "-n",
            &pod.namespace,
            &pod.name,
            "-c",
            container,
            "--",
        ];
        self.kubectl.bytes(&[&place, words].concat(), input)
    }

    /// Sends a request by curl from a container.
    fn curl(&self, pod: &Pod, container: &str, host: &str, request: &Request) -> Result<Response> {
        let (method, target, headers, body) = request.parts();
        let url = format!("http://{host}{target}");
        let headers = headers
            .iter()
            .map(|(name, value)| String::from_utf8([name.as_slice(), b": ", value].concat()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut words = vec!["curl", "--silent", "--show-error", "--include", "--http1.1"];
        words.extend(["--max-time", "20", "--request", method]);
        for header in &headers {
            words.extend(["--header", header]);
        }
        if !body.is_empty() {
            words.extend(["--data-binary", "@-"]);
        }
        words.push(&url);
        Response::of_curl(&self.exec(pod, container, &words, body)?)
    }

    /// Adds a container to a pod that is not the sidecar, so that iptables leads what it sends through
    /// the sidecar as it does with the application, whose image has no programs to call with.
    fn add_caller(&self, pod: &Pod) -> Result<()> {
        let place = ["-n", &pod.namespace, &pod.name];
        let there = |json: &Value| {
            let added = json["status"]["ephemeralContainerStatuses"].as_array();
            let mut added = added.into_iter().flatten();
            added.any(|status| status["name"] == CALLER && status["state"]["running"].is_object())
        };
        let get = [&["get", "pod"], &place[..]].concat();
        let json = self.kubectl.json(&get)?;
        if there(&json) {
            return Ok(());
        }
        let image = format!("--image={}", text(&proxy(&json)?["image"]));
        let container = format!("--container={CALLER}");
        let add = [
            "--profile=restricted",
            "--image-pull-policy=IfNotPresent",
            &image,
            &container,
            "--",
            "sleep",
            "infinity",
        ];
        self.kubectl.run(&[&["debug"], &place[..], &add].concat())?;
        let what = format!("the container to call from runs in {}", pod.name);
        wait_for(START_TIMEOUT, &what, || {
            Ok(there(&self.kubectl.json(&get)?))
        })
        .map(drop)
    }

    /// A pod as the cluster describes it.
    pub(crate) fn describe(&self, pod: &Pod) -> Result<Value> {
        self.kubectl
            .json(&["get", "pod", "-n", &pod.namespace, &pod.name])
    }

    /// How many of the pods run on a node.
    pub(crate) fn pods_on(&self, node: &str) -> Result<usize> {
        let there = format!("--field-selector=spec.nodeName={node}");
        let pods = ["get", "pods", "--all-namespaces", &there];
        let pods = self.kubectl.json(&pods)?;
        Ok(items(&pods).filter_map(running).count())
    }

    fn write_overlay(&self, changes: &Changes) -> Result<PathBuf> {
        let overlay = self.dir.join("overlay");
        if overlay.exists() {
            fs::remove_dir_all(&overlay)?;
        }
        fs::create_dir_all(&overlay)?;
        // Two cores have no room for what the two applications ask for.
        let cpu = "/spec/template/spec/containers/0/resources/requests/cpu";
        let changes = Changes::default()
            .replace("Deployment", ".*", cpu, "10m".into())
            .then(changes);
        let mut kustomization = changes.kustomization(&overlay, &[], Some(&self.plugin))?;
        let images = IMAGES.map(|name| {
            json!({
                "name": format!("registry.example/{name}"),
                "newName": format!("{}/{name}", self.images),
                "newTag": self.tag,
            })
        });
        kustomization["images"] = json!(images);
        fs::write(
            overlay.join("kustomization.yaml"),
            kustomization.to_string(),
        )?;
        Ok(overlay)
    }

    /// Removes what an earlier change added.
    fn remove(&self, objects: &BTreeSet<Object>) -> Result<()> {
        for object in objects {
            let mut words = vec!["delete", &object.kind, &object.name, "--ignore-not-found"];
            if !object.namespace.is_empty() {
                words.extend(["-n", &object.namespace]);
            }
            self.kubectl.run(&words)?;
        }
        Ok(())
    }
}

impl Drop for Kind {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Cluster for Kind {
    fn gateway(&self) -> Result<String> {
        Ok(self.gateway.clone())
    }

    fn apply(&mut self, changes: &Changes) -> Result<Instant> {
        let overlay = self.write_overlay(changes)?;
        let overlay = overlay.to_str().context("a path")?;
        let applied = self.kubectl.json(&["apply", "-k", overlay])?;
        let objects = items(&applied)
            .map(|object| Object {
                kind: text(&object["kind"]).to_owned(),
                namespace: text(&object["metadata"]["namespace"]).to_owned(),
                name: text(&object["metadata"]["name"]).to_owned(),
            })
            .collect();
        let old = std::mem::replace(&mut self.objects, objects);
        self.remove(&old.difference(&self.objects).cloned().collect())?;
        let handed_over = Instant::now();
        for (deployment, replicas) in std::mem::take(&mut self.replicas) {
            self.set_replicas(SYSTEM, &deployment, &replicas)?;
        }
        self.wait_for_rollouts()?;
        Ok(handed_over)
    }

    fn pods(&self) -> Vec<Pod> {
        // Whoever needs a pod finds out that there is none.
        let all = self.kubectl.json(&["get", "pods", "--all-namespaces"]);
        let all = all.unwrap_or_default();
        items(&all).filter_map(running).collect()
    }

    fn admin(&self, pod: &Pod, path: &str) -> Result<String> {
        let words = ["pilot-agent", "request", "GET", path];
        let answer = self.exec(pod, "istio-proxy", &words, b"")?;
        String::from_utf8(answer).context("the admin API")
    }

    fn call_from(&self, pod: &Pod, host: &str, request: &Request) -> Result<Response> {
        self.add_caller(pod)?;
        self.curl(pod, CALLER, host, request)
    }

    fn call_to(&self, pod: &Pod, request: &Request) -> Result<Response> {
        // A gateway has no iptables: what is sent there goes where it says.
        let gateway = self.pods().into_iter().find(|pod| pod.app == GATEWAY);
        let gateway = gateway.context("no gateway runs")?;
        let json = self.describe(pod)?;
        let host = format!("{}:{}", text(&json["status"]["podIP"]), pod.port());
        self.curl(&gateway, "istio-proxy", &host, request)
    }

    fn metrics(&self, pod: &Pod) -> Result<String> {
        let host = format!("localhost:{}", pod.port());
        let response = self.curl(pod, "istio-proxy", &host, &Request::get("/metrics"))?;
        Ok(response.text())
    }

    fn echo(&mut self) -> Result<(String, u16)> {
        let labels = json!({ "app": "echo" });
        // Not a pod by itself, which `kubectl drain` would not move.
        let deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": "echo", "namespace": registry::NAMESPACE },
            "spec": {
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "containers": [{
                        "name": "echo",
                        "image": format!("{}/echo:{}", self.images, self.tag),
                        "readinessProbe": { "httpGet": { "port": 8080 } },
                    }] },
                },
            },
        });
        self.kubectl
            .bytes(&["apply", "-f", "-"], deployment.to_string().as_bytes())?;
        let place = ["-n", registry::NAMESPACE];
        let ready = ["rollout", "status", "deployment/echo", "--timeout=120s"];
        self.kubectl.run(&[&ready, &place[..]].concat())?;
        let address = "jsonpath={.items[0].status.podIP}";
        let address = ["get", "pods", "-l", "app=echo", "-o", address];
        let address = self.kubectl.run(&[&address, &place[..]].concat())?;
        Ok((address, 8080))
    }

    fn registry(&mut self, is_there: bool) -> Result<()> {
        let registry = ["deployment/registry", "-n", registry::NAMESPACE];
        let replicas = format!("--replicas={}", usize::from(is_there));
        self.kubectl
            .run(&[&["scale", &replicas], &registry[..]].concat())?;
        let done = ["rollout", "status", "--timeout=120s"];
        self.kubectl.run(&[&done, &registry[..]].concat())?;
        if is_there {
            // It keeps nothing.
            registry::push(&self.kubectl, &self.layout)?;
        } else {
            let pods = ["pods", "-l", "app=registry", "-n", registry::NAMESPACE];
            let gone = ["wait", "--for=delete", "--timeout=120s"];
            self.kubectl.run(&[&gone, &pods[..]].concat())?;
        }
        Ok(())
    }

    fn kill(&mut self, pod: &Pod) -> Result<()> {
        let pods = self.pods();
        let pods: Vec<_> = pods.iter().filter(|other| other.is_beside(pod)).collect();
        // Or the ReplicaSet would have a new one at once.
        self.scale(&pod.namespace, &pod.deployment, 0)?;
        let names = pods.iter().map(|pod| pod.name.as_str());
        let now = ["delete", "pod", "--force", "--grace-period=0"];
        let now = now.into_iter().chain(["-n", &pod.namespace]);
        let words: Vec<_> = now.chain(["--ignore-not-found"]).chain(names).collect();
        self.kubectl.run(&words).map(drop)
    }
}

/// The pod, if it is one of the system's that runs, is ready and stays.
fn running(pod: &Value) -> Option<Pod> {
    let metadata = &pod["metadata"];
    let label = |name: &str| text(&metadata["labels"][name]).to_owned();
    let conditions = pod["status"]["conditions"].as_array()?;
    let ready = conditions
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let app = label("app");
    let namespace = text(&metadata["namespace"]);
    let ours = APPLICATIONS.contains(&namespace) || app == GATEWAY;
    if !ours || !ready || !metadata["deletionTimestamp"].is_null() {
        return None;
    }
    let set = text(&metadata["ownerReferences"][0]["name"]);
    Some(Pod {
        name: text(&metadata["name"]).to_owned(),
        namespace: namespace.to_owned(),
        deployment: set.rsplit_once('-')?.0.to_owned(),
        app,
        version: label("version"),
        has_proxy: proxy(pod).is_ok(),
    })
}

/// The proxy's container: since Istio 1.27 an init container that stays, before that one of the others.
pub(crate) fn proxy(pod: &Value) -> Result<&Value> {
    let lists = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array());
    let mut containers = lists.into_iter().flatten().flatten();
    containers
        .find(|container| container["name"] == "istio-proxy")
        .with_context(|| format!("{} has no sidecar", pod["metadata"]["name"]))
}

/// The elements of a list, or the one that there is.
pub(crate) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    match list["items"].as_array() {
        Some(items) => items.iter(),
        None => std::slice::from_ref(list).iter(),
    }
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
