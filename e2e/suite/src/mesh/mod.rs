//! The mesh without a cluster: Istio's control plane, a real Envoy for every pod, and the service
//! binaries, on loopback addresses.

mod program;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::build;
use harness::envoy::{self, Envoy};
use harness::http::{self, Request, Response};
use harness::image::Image;
use harness::process::Process;
use harness::template;
use harness::upstream::Upstream;
use serde::Deserialize;
use serde_json::Value;

pub(crate) use program::{Program, build};

use crate::cluster::{Changes, Cluster, Pod};

/// What Istio of the version in `e2e/mesh/go.mod` ships.
const ENVOY: &str = "1.39.3";

const BOOTSTRAP: &str = include_str!("../../../mesh/bootstrap.yaml");

/// What a cluster has installed before the manifests, relative to the workspace.
const INSTALLATION: &str = "e2e/mesh/installation";

/// Relative to the workspace: what Lanekeeper wants of an installation of Istio.
const OPERATOR: &str = "istio/mesh.yaml";

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Everything that runs. It ends when this is dropped.
pub(crate) struct Mesh {
    program: PathBuf,
    envoy: PathBuf,
    dir: PathBuf,
    network: u8,
    control: Process,
    /// Of the filter, in the control plane's registry.
    image: String,
    pods: BTreeMap<String, Running>,
    echo: Option<Upstream>,
    changes: usize,
    keeps_logs: bool,
}

/// A pod that runs.
struct Running {
    spec: PodSpec,
    services: Vec<Process>,
    envoy: Option<Envoy>,
}

/// What of a pod a signal is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Part {
    /// The application.
    Service,
    /// And its Envoy.
    All,
}

/// What the control plane says of itself.
#[derive(Debug, Deserialize)]
struct Status {
    loads: usize,
    refused: String,
    image: String,
    #[serde(default)]
    pods: Vec<PodSpec>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct PodSpec {
    name: String,
    namespace: String,
    deployment: String,
    labels: BTreeMap<String, String>,
    address: String,
    outbound: String,
    proxy: String,
    node: Value,
    stats_tags: Value,
    containers: Vec<Container>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Container {
    image: String,
    env: BTreeMap<String, String>,
    ports: Option<Vec<Port>>,
    ready: Option<Probe>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Port {
    listen: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Probe {
    path: String,
    listen: String,
}

impl Mesh {
    /// Starts everything, with these changes, and waits until it is ready.
    pub(crate) fn start(program: &Path, changes: &Changes) -> Result<Self> {
        let dir = Process::scratch_dir("mesh")?;
        // As `cargo xtask dist` makes it.
        let layout = dir.join("image");
        let module = fs::read(build::filter_wasm()?)?;
        Image::plugin(module).write_layout(&layout, "e2e")?;
        let envoy = match std::env::var_os("ENVOY") {
            Some(_) => envoy::find()?,
            None => envoy::version(ENVOY)?,
        };
        let overlay = dir.join("overlay");
        fs::create_dir_all(&overlay)?;
        // The image's digest is not known yet, and nobody connects before it is.
        write_overlay(&overlay, changes, None)?;
        let network = free_network()?;
        let mut command = Command::new(program);
        command
            .args(["--network", &network.to_string()])
            .arg("--operator")
            .arg(build::workspace().join(OPERATOR))
            .arg("--image")
            .arg(&layout)
            .arg("--state")
            .arg(&dir)
            .arg(&overlay);
        let log = dir.join("control-plane");
        fs::create_dir_all(&log)?;
        let control = Process::start("control-plane", log, &mut command)?;
        let mut mesh = Self {
            program: program.to_owned(),
            envoy,
            dir,
            network,
            control,
            image: String::new(),
            pods: BTreeMap::new(),
            echo: None,
            changes: 0,
            keeps_logs: false,
        };
        let url = mesh.status_url();
        mesh.control
            .wait_until_ready(START_TIMEOUT, || http::get(&url).is_ok())?;
        mesh.image = mesh.status()?.image;
        mesh.apply(changes)?;
        Ok(mesh)
    }

    /// Leaves the logs behind.
    pub(crate) fn keep_logs(&mut self) {
        self.keeps_logs = true;
        self.control.keep_dir();
        let services = self.pods.values_mut().flat_map(|pod| &mut pod.services);
        services.for_each(Process::keep_dir);
    }

    /// Where the control plane says what it does.
    fn pages(&self) -> String {
        format!("127.{}.0.1:15014", self.network)
    }

    fn status_url(&self) -> String {
        format!("http://{}/status", self.pages())
    }

    fn status(&self) -> Result<Status> {
        let answer = http::get(&self.status_url())?;
        serde_json::from_slice(&answer.body).with_context(|| answer.text())
    }

    /// Every message of validation and analysis about the manifests, with `istio` or one of its overlays,
    /// and one more.
    pub(crate) fn check(&self, istio: &str, one_more: Option<&str>) -> Result<Vec<String>> {
        let paths = [INSTALLATION, istio, "wasm-plugins"].map(|dir| build::workspace().join(dir));
        let mut kustomizations = Vec::from(paths);
        if let Some(manifest) = one_more {
            let dir = self.scratch("one-more")?;
            fs::write(dir.join("manifest.yaml"), manifest)?;
            fs::write(
                dir.join("kustomization.yaml"),
                "resources: [manifest.yaml]\n",
            )?;
            kustomizations.push(dir);
        }
        let output = self.run_check(&kustomizations)?;
        if output.status.success() {
            return Ok(vec![]);
        }
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        Ok(said.lines().map(str::to_owned).collect())
    }

    fn run_check(&self, kustomizations: &[PathBuf]) -> Result<Output> {
        Command::new(&self.program)
            .arg("--check")
            .arg("--operator")
            .arg(build::workspace().join(OPERATOR))
            .args(kustomizations)
            .output()
            .context("cannot run the control plane's check")
    }

    /// Where a pod is.
    pub(crate) fn address(&self, pod: &Pod) -> Result<&str> {
        Ok(&self.running(pod)?.spec.address)
    }

    /// Sends a signal, such as `KILL`, to what runs in a pod.
    pub(crate) fn signal(&self, pod: &Pod, part: Part, signal: &str) -> Result<()> {
        let pod = self.running(pod)?;
        let envoys = pod.envoy.iter().map(Envoy::process);
        let envoys = envoys.filter(|_| part == Part::All);
        for process in pod.services.iter().chain(envoys) {
            let id = process.id().to_string();
            let mut kill = Command::new("kill");
            harness::process::run(kill.args(["-s", signal, &id]), "kill")?;
        }
        Ok(())
    }

    fn running(&self, pod: &Pod) -> Result<&Running> {
        self.pods
            .get(&pod.name)
            .with_context(|| format!("{} does not run", pod.name))
    }

    /// Starts the pods that are to run and are not, or are not as they should be, and ends those that
    /// are to run no longer.
    fn reconcile(&mut self, mut specs: Vec<PodSpec>) -> Result<()> {
        // As istioctl calls them: applications have pods of the same name, each in its namespace.
        for spec in &mut specs {
            spec.name = format!("{}.{}", spec.name, spec.namespace);
        }
        self.pods.retain(|name, pod| {
            let wanted = specs
                .iter()
                .any(|spec| *spec == pod.spec && spec.name == *name);
            let envoys = pod.envoy.iter_mut().map(Envoy::process_mut);
            let well = pod
                .services
                .iter_mut()
                .chain(envoys)
                .all(|process| matches!(process.ended(), Ok(None)));
            wanted && well
        });
        let new: Vec<PodSpec> = specs
            .into_iter()
            .filter(|spec| !self.pods.contains_key(&spec.name))
            .collect();
        let started: Vec<Result<Running>> = thread::scope(|scope| {
            let threads: Vec<_> = new
                .into_iter()
                .map(|spec| scope.spawn(|| self.start_pod(spec)))
                .collect();
            threads
                .into_iter()
                .map(|thread| match thread.join() {
                    Ok(pod) => pod,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect()
        });
        for pod in started {
            let pod = pod?;
            self.pods.insert(pod.spec.name.clone(), pod);
        }
        Ok(())
    }

    fn start_pod(&self, spec: PodSpec) -> Result<Running> {
        let mut services = Vec::new();
        for container in &spec.containers {
            if let Some(service) = self.start_container(&spec, container)? {
                services.push(service);
            }
        }
        let envoy = match spec.proxy.as_str() {
            "" => None,
            _ => Some(self.start_envoy(&spec)?),
        };
        Ok(Running {
            spec,
            services,
            envoy,
        })
    }

    /// Runs the program of an image of this repository; `None` for the images of others.
    fn start_container(&self, spec: &PodSpec, container: &Container) -> Result<Option<Process>> {
        let image = container.image.split(['@', ':']).next().unwrap_or_default();
        let service = image.rsplit('/').next().unwrap_or_default();
        if !build::SERVICES.contains(&service) {
            return Ok(None);
        }
        let ports = container.ports.iter().flatten();
        let listen = ports.map(|port| port.listen.as_str()).next();
        let listen = listen.with_context(|| format!("{}: no port", spec.name))?;
        let mut command = Command::new(build::service_binary(service)?);
        // What the manifests say, but for where the kernel of a pod of its own would lead.
        command
            .env_clear()
            .envs(&container.env)
            .env("LISTEN_ADDR", listen);
        if let (Some(port), "sidecar") = (called_port(&container.env)?, spec.proxy.as_str()) {
            command.env("HTTP_PROXY", format!("http://{}:{port}", spec.outbound));
        }
        for variable in ["MODEL_FILE", "CHAMPION_FILE"] {
            if let Some(model) = container.env.get(variable) {
                let name = Path::new(model).file_name().unwrap_or_default();
                let models = build::workspace().join("services/model-service/models");
                command.env(variable, models.join(name));
            }
        }
        let dir = self.scratch(&format!("{}-app", spec.name))?;
        let mut process = Process::start(&spec.name, dir, &mut command)?;
        let probe = container.ready.as_ref();
        let probe = probe.with_context(|| format!("{}: no readiness probe", spec.name))?;
        let url = format!("http://{}{}", probe.listen, probe.path);
        process.wait_until_ready(START_TIMEOUT, || {
            http::get(&url).is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(Some(process))
    }

    fn start_envoy(&self, spec: &PodSpec) -> Result<Envoy> {
        let bootstrap = template::render(
            BOOTSTRAP,
            &[
                ("NODE", &spec.node.to_string()),
                ("STATS_TAGS", &spec.stats_tags.to_string()),
                ("ADS_HOST", &format!("127.{}.0.1", self.network)),
                ("ADS_PORT", "15010"),
            ],
        )?;
        let mut options = envoy::Options::new(&spec.name, bootstrap)?;
        options.binary = self.envoy.clone();
        // Users must not notice which worker they got.
        options.concurrency = if spec.proxy == "router" { 2 } else { 1 };
        options.log_level = "error".to_owned();
        options.args = ["--component-log-level", "wasm:info"]
            .map(str::to_owned)
            .into();
        options.dir = Some(self.scratch(&format!("{}-envoy", spec.name))?);
        Envoy::start(options)
    }

    fn scratch(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.pods.clear();
        if self.keeps_logs || thread::panicking() {
            eprintln!("the logs are in {}", self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

impl Cluster for Mesh {
    fn gateway(&self) -> Result<String> {
        let mut routers = self.pods.values().filter(|pod| pod.spec.proxy == "router");
        let router = routers.next().context("no gateway runs")?;
        Ok(format!("{}:8080", router.spec.address))
    }

    fn apply(&mut self, changes: &Changes) -> Result<Instant> {
        self.changes += 1;
        let before = self.status()?.loads;
        let start = Instant::now();
        write_overlay(
            &self.dir.join("overlay"),
            changes,
            Some((self.image.as_str(), self.changes)),
        )?;
        let status = loop {
            let status = self.status()?;
            if status.loads > before {
                break status;
            }
            ensure!(
                start.elapsed() < START_TIMEOUT,
                "the control plane did not notice a change:\n{}",
                self.control.log_tail()
            );
            thread::sleep(Duration::from_millis(20));
        };
        if !status.refused.is_empty() {
            bail!("refused: {}", status.refused);
        }
        self.reconcile(status.pods)?;
        Ok(start)
    }

    fn pods(&self) -> Vec<Pod> {
        let pods = self.pods.values();
        pods.map(|pod| {
            let label = |name| pod.spec.labels.get(name).cloned().unwrap_or_default();
            Pod {
                name: pod.spec.name.clone(),
                namespace: pod.spec.namespace.clone(),
                deployment: pod.spec.deployment.clone(),
                app: label("app"),
                version: label("version"),
                has_proxy: pod.envoy.is_some(),
            }
        })
        .collect()
    }

    fn admin(&self, pod: &Pod, path: &str) -> Result<String> {
        let envoy = self.running(pod)?.envoy.as_ref();
        envoy
            .with_context(|| format!("{} has no Envoy", pod.name))?
            .admin_get(path)
    }

    fn call_from(&self, pod: &Pod, host: &str, request: &Request) -> Result<Response> {
        let (_, port) = host.split_once(':').context("a host without a port")?;
        // Where iptables would redirect to.
        let sidecar = format!("{}:{port}", self.running(pod)?.spec.outbound);
        http::send(&sidecar, &request.clone().header("host", host))
    }

    fn call_to(&self, pod: &Pod, request: &Request) -> Result<Response> {
        let spec = &self.running(pod)?.spec;
        http::send(&format!("{}:{}", spec.address, pod.port()), request)
    }

    fn metrics(&self, pod: &Pod) -> Result<String> {
        let containers = self.running(pod)?.spec.containers.iter();
        let mut ready = containers.filter_map(|container| container.ready.as_ref());
        let listen = &ready.next().context("no probe")?.listen;
        Ok(http::get(&format!("http://{listen}/metrics"))?.text())
    }

    fn echo(&mut self) -> Result<(String, u16)> {
        let echo = self.echo.insert(Upstream::start("echo")?);
        Ok(("127.0.0.1".to_owned(), echo.port()))
    }

    fn registry(&mut self, there: bool) -> Result<()> {
        let action = if there { "start" } else { "stop" };
        let request = Request::post(&format!("/registry/{action}"), "");
        let answer = http::send(&self.pages(), &request)?;
        ensure!(answer.status == 200, "registry: {}", answer.text());
        Ok(())
    }

    fn kill(&mut self, pod: &Pod) -> Result<()> {
        let pods = self.pods().into_iter();
        let mut pods = pods.filter(|other| other.is_beside(pod));
        pods.try_for_each(|pod| self.signal(&pod, Part::All, "KILL"))
    }
}

/// Manifests of the repository, and on top of them what is different here: the place of the
/// filter's image, and `changes`.
fn write_overlay(overlay: &Path, changes: &Changes, image: Option<(&str, usize)>) -> Result<()> {
    let (image, number) = image.unzip();
    let text = changes.kustomization(overlay, &[INSTALLATION], image)?;
    // Each change is another file, also where it says the same.
    let new = overlay.join("new");
    fs::write(&new, format!("# {}\n{text}\n", number.unwrap_or_default()))?;
    fs::rename(new, overlay.join("kustomization.yaml"))?;
    Ok(())
}

/// The port that the URLs in an application's settings name. What it calls goes to the sidecar by
/// `HTTP_PROXY`, and that is one listener.
fn called_port(env: &BTreeMap<String, String>) -> Result<Option<&str>> {
    let urls = env
        .values()
        .filter_map(|value| value.strip_prefix("http://"));
    let hosts = urls.map(|rest| rest.split('/').next().unwrap_or_default());
    let mut ports: Vec<_> = hosts
        .filter_map(|host| Some(host.rsplit_once(':')?.1))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ensure!(ports.len() < 2, "{env:?}: more than one port is called");
    Ok(ports.first().copied())
}

/// The second number of a loopback network that nobody uses.
fn free_network() -> Result<u8> {
    let mut numbers: Vec<u8> = (64..192).collect();
    let start = std::process::id() as usize % numbers.len();
    numbers.rotate_left(start);
    let free = |number: &u8| {
        let bind = |port: u16| std::net::TcpListener::bind(format!("127.{number}.0.1:{port}"));
        bind(15010).is_ok() && bind(15014).is_ok()
    };
    numbers.into_iter().find(free).context("no free network")
}
