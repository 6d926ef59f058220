//! What the promises are tested with: the compiled filter in a gateway, once in the real Envoy and
//! once in a host whose clock, entropy and failures a test controls.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use harness::envoy::{self, Envoy};
pub use harness::http::cookies;
use harness::http::{self, Request, Response};
use harness::plugin::{Environment, Plugin as PluginFile, Verdict};
use harness::process::Process;
use harness::sentiment;
use harness::template;
use harness::topology::{App, Parts, Topology};
use harness::upstream::{Echo, Upstream};
use harness::wasm_host::{Module, Plugin, PluginOptions, Vm, VmOptions, World};
use lanekeeper_policy::Policy;
use serde_json::{Value, json};

const WORKERS: u32 = 2;

/// The rollout of most tests: stable 90 (baseline), canary 10, users named by `x-user`, else by the
/// visitor cookie; for every host, so that tests need not name one.
pub fn rollout() -> Value {
    json!({
        "name": "sms-checker",
        "hosts": ["*"],
        "versions": [
            { "name": "stable", "weight": 90, "baseline": true },
            { "name": "canary", "weight": 10 },
        ],
        "identity": [{ "header": "x-user", "trusted": true }, { "cookie": "visitor" }],
        "override": { "header": "x-experiment" },
        "exempt": ["/health"],
    })
}

/// A policy of one rollout: [`rollout`] with some fields changed.
pub fn policy(changes: Value) -> Value {
    let mut rollout = rollout();
    for (key, value) in changes.as_object().expect("an object") {
        rollout[key] = value.clone();
    }
    json!({ "rollouts": [rollout] })
}

/// A policy of the usual rollout, and these quotas.
pub fn with_quotas(quotas: Value) -> Value {
    let mut policy = policy(json!({}));
    policy["quotas"] = quotas;
    policy
}

/// `versions` with these weights and this state of canary.
pub fn versions(stable: u32, canary: u32, state: &str) -> Value {
    json!([
        { "name": "stable", "weight": stable, "baseline": true },
        { "name": "canary", "weight": canary, "state": state },
    ])
}

/// Gives each of two versions half of the users, so that tests soon have enough of both.
pub fn half(policy: &mut Value) {
    for rollout in policy["rollouts"].as_array_mut().expect("a list") {
        for version in rollout["versions"].as_array_mut().expect("a list") {
            version["weight"] = json!(50);
        }
    }
}

/// The version that a user's slot gives under [`rollout`], by an implementation of others.
pub fn version_of(user: &str) -> &'static str {
    let key = format!("sms-checker:{user}");
    match mur3::murmurhash3_x86_32(key.as_bytes(), 0) % 10_000 {
        0..9_000 => "stable",
        _ => "canary",
    }
}

/// The first of `user-0`, `user-1`, … whose slot gives `version`.
pub fn user_of(version: &str) -> String {
    (0..)
        .map(|n| format!("user-{n}"))
        .find(|user| version_of(user) == version)
        .expect("there is one")
}

/// The Envoy under test: the version that `ENVOY_VERSION` names, as the matrix does, or the default.
fn binary() -> PathBuf {
    match std::env::var("ENVOY_VERSION") {
        Ok(version) => envoy::version(&version),
        Err(_) => envoy::find(),
    }
    .expect("an Envoy")
}

/// `envoy/gateway.yaml` in a real Envoy of two workers, in front of an echoing stable and canary.
pub struct Gateway {
    envoy: Envoy,
    /// What stands in for the stable version of the application.
    pub stable: Upstream,
    /// What stands in for canary.
    pub canary: Upstream,
    address: String,
    plugin: PluginFile,
    _dir: tempfile::TempDir,
}

impl Gateway {
    /// Starts a gateway with a policy.
    pub fn start(policy: &Value) -> Self {
        Self::start_with_text(&policy.to_string())
    }

    /// Starts a gateway with what may be no policy.
    pub fn start_with_text(policy: &str) -> Self {
        let stable = Upstream::start("stable").expect("an upstream");
        let canary = Upstream::start("canary").expect("an upstream");
        let dir = tempfile::tempdir().expect("a directory");
        let filter = harness::build::filter_wasm().expect("the filter");
        let plugin = PluginFile::new("gateway", dir.path(), &filter);
        plugin
            .push(policy, &Environment::default())
            .expect("a file");
        let bootstrap = template::file(
            "gateway.yaml",
            &[
                ("LISTEN_HOST", "127.0.0.1"),
                ("GATEWAY_PORT", "0"),
                (
                    "PLUGIN_FILE",
                    plugin.file().to_str().expect("a path in UTF-8"),
                ),
                ("APP_STABLE_HOST", "127.0.0.1"),
                ("APP_STABLE_PORT", &stable.port().to_string()),
                ("APP_CANARY_HOST", "127.0.0.1"),
                ("APP_CANARY_PORT", &canary.port().to_string()),
            ],
        )
        .expect("a template");
        let envoy = start_envoy("gateway", bootstrap, WORKERS);
        let address = envoy.address("gateway").expect("a listener");
        Self {
            envoy,
            stable,
            canary,
            address,
            plugin,
            _dir: dir,
        }
    }

    /// `127.0.0.1:port` of the gateway.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request on a connection of its own.
    pub fn send(&self, request: &Request) -> Response {
        http::send(&self.address, request).expect("a response")
    }

    /// Sends `GET /` with some headers; the response, and the request as the upstream got it.
    pub fn get(&self, headers: &[(&str, &str)]) -> (Response, Echo) {
        let request = headers
            .iter()
            .fold(Request::get("/"), |request, (name, value)| {
                request.header(name, value)
            });
        self.echo(&request)
    }

    /// Sends a request; the response, and the request as the upstream got it.
    pub fn echo(&self, request: &Request) -> (Response, Echo) {
        let response = self.send(request);
        let echo = Echo::of(&response).expect("an answer of the upstream");
        (response, echo)
    }

    /// Pushes a good policy and waits until every worker has it.
    pub fn push(&self, policy: &Value) {
        let hash = Policy::compile(policy, &|_| None).expect("a policy").hash();
        self.push_text(&policy.to_string(), Verdict::InForce(hash));
    }

    /// Pushes what is no policy and waits until every worker has refused it.
    pub fn push_refused(&self, text: &str) {
        self.push_text(text, Verdict::Refused);
        assert_eq!(self.gauge("lanekeeper_config_rejected"), Some(1));
    }

    fn push_text(&self, text: &str, verdict: Verdict) {
        let (no_environment, go_on) = (Environment::default(), AtomicBool::new(false));
        let log = self.envoy.log();
        self.plugin
            .push_and_wait(text, &no_environment, verdict, &log, &go_on)
            .unwrap_or_else(|error| panic!("{error:#}:\n{}", self.envoy.logs()));
    }

    /// A gauge of this gateway's plugin.
    pub fn gauge(&self, name: &str) -> Option<u64> {
        self.metric(name, &[("plugin", "gateway")])
    }

    /// A metric as Prometheus would scrape it.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        metric(&self.envoy, name, labels)
    }

    /// How often a wasm VM crashed: by Envoy's counters of VMs that were started anew, which move
    /// with the next request of the worker, and by its log.
    pub fn crashes(&self) -> u64 {
        let stats = self.envoy.admin_get("/stats").expect("stats");
        let reloads = stats
            .lines()
            .filter(|line| line.starts_with("wasm.gateway.vm_reload"));
        let reloads = reloads.filter_map(|line| line.rsplit_once(": ")?.1.parse::<u64>().ok());
        let traps = self.envoy.logs().matches("in-VM backtrace").count() as u64;
        reloads.sum::<u64>() + traps
    }

    /// The running Envoy.
    pub fn envoy(&self) -> &Envoy {
        &self.envoy
    }
}

/// Starts the Envoy under test.
pub fn start_envoy(name: &str, bootstrap: String, workers: u32) -> Envoy {
    Envoy::start(envoy::Options {
        binary: binary(),
        concurrency: workers,
        ..envoy::Options::new(name, bootstrap).expect("an Envoy")
    })
    .expect("Envoy starts")
}

/// A metric as Prometheus would scrape it; all of `labels` and no others.
pub fn metric(envoy: &Envoy, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
    let text = envoy.prometheus().expect("metrics");
    harness::metrics::exactly(&text, name, labels)
}

/// The compiled filter as the plugin `gateway` of a world.
pub fn plugin(world: &World, policy: &Value) -> Plugin {
    let module = Module::filter().expect("the filter");
    let vm = Vm::start(&module, world, VmOptions::default()).expect("a VM");
    configure(&vm, &policy.to_string())
}

/// Pushes a configuration to a VM.
pub fn configure(vm: &Vm, config: &str) -> Plugin {
    let options = PluginOptions {
        name: "gateway".to_owned(),
        config: config.as_bytes().to_vec(),
        ..Default::default()
    };
    let plugin = vm.configure(options).expect("no trap");
    assert!(
        plugin.accepted(),
        "a refused configuration would stop a new pod's traffic"
    );
    plugin
}

/// A request in the controlled host, as Envoy shows it.
pub fn request(headers: &[(&str, &str)]) -> harness::wasm_host::Headers {
    let pseudo = [
        (":authority", "sms-checker.local"),
        (":path", "/"),
        (":method", "GET"),
        (":scheme", "http"),
    ];
    pseudo.iter().chain(headers).copied().collect()
}

/// An application behind Lanekeeper, as `cargo xtask demo` runs it.
pub struct Application {
    topology: Topology,
    parts: Parts,
    gateway: PluginFile,
    policy: Value,
}

impl Drop for Application {
    fn drop(&mut self) {
        // The logs of a failure stay.
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.parts.dir);
        }
    }
}

impl Application {
    /// Starts everything, with these policies at the gateway and in the sidecars.
    fn start(name: &str, app: App, policy: Value, sidecar: &Value) -> Self {
        let dir = Process::scratch_dir(name).expect("a directory");
        let filter = harness::build::filter_wasm().expect("the filter");
        let [gateway, sidecar] =
            [("gateway", &policy), ("sidecar", sidecar)].map(|(role, policy)| {
                let plugin = PluginFile::new(role, &dir, &filter);
                plugin
                    .push(&policy.to_string(), &Environment::default())
                    .expect("a file");
                plugin
            });
        let parts = Parts {
            app,
            envoy: binary(),
            app_service: service("app-service"),
            model_service: service("model-service"),
            dir,
        };
        let topology = Topology::start(&parts, 0, 0, gateway.file(), sidecar.file());
        Self {
            topology: topology.expect("all parts start"),
            parts,
            gateway,
            policy,
        }
    }

    /// `127.0.0.1:port` of the gateway.
    pub fn gateway(&self) -> String {
        self.topology.gateway().expect("a listener")
    }

    /// `127.0.0.1:port` of the inbound listener of a version's sidecar.
    pub fn sidecar(&self, version: &str) -> String {
        let index = usize::from(version == "canary");
        self.topology.sidecars()[index]
            .address("inbound")
            .expect("a listener")
    }

    /// What runs.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The gateway's policy.
    pub fn policy(&self) -> &Value {
        &self.policy
    }

    /// Hands a policy, or what is none, to the gateway.
    pub fn push(&self, text: &str) {
        self.gateway
            .push(text, &Environment::default())
            .expect("a file");
    }

    /// Puts another model service in the place of a version's, or the shadow's, with these settings
    /// instead of the usual ones.
    pub fn replace_model(&mut self, version: &str, settings: &[(&str, &str)]) {
        self.topology
            .replace_model(&self.parts, version, settings)
            .expect("it starts");
    }

    /// Starts the app-service of a version anew.
    pub fn restart_app(&mut self, version: &str) {
        self.topology
            .restart_app(&self.parts, version)
            .expect("it starts");
    }

    fn signal_services(&self, name: &str) {
        let ids = self.topology.services().iter().map(Process::id);
        let mut kill = Command::new("kill");
        kill.arg(format!("-{name}"))
            .args(ids.map(|id| id.to_string()));
        assert!(kill.status().expect("kill").success());
    }
}

fn service(name: &str) -> PathBuf {
    harness::build::service_binary(name).expect("a service")
}

/// A policy of `wasm-plugins/`.
fn policy_of_repository(name: &str) -> Value {
    let file = format!("wasm-plugins/policies/{name}.yaml");
    let file = harness::build::workspace().join(file);
    lanekeeper_cli::load(&file, &|_| None).expect("a policy").0
}

/// The SMS checker behind Lanekeeper, with the policies of `wasm-plugins/`.
pub struct SmsChecker(Application);

impl SmsChecker {
    /// Starts everything.
    pub fn start() -> Self {
        Self::start_with(|_| ())
    }

    /// Starts everything, with some fields of the gateway's policy changed.
    pub fn start_with(change: impl FnOnce(&mut Value)) -> Self {
        let mut gateway = policy_of_repository("gateway");
        change(&mut gateway);
        Self(Application::start(
            "sms-checker",
            App::SmsChecker,
            gateway,
            &policy_of_repository("sms-checker-sidecar"),
        ))
    }

    /// `127.0.0.1:port` of the gateway.
    pub fn gateway(&self) -> String {
        self.0.gateway()
    }

    /// Sends a signal such as `STOP` to all services: what is asked of them waits until `CONT`.
    pub fn signal_services(&self, name: &str) {
        self.0.signal_services(name);
    }

    /// `127.0.0.1:port` of the inbound listener of a version's sidecar.
    pub fn sidecar(&self, version: &str) -> String {
        self.0.sidecar(version)
    }

    /// What it consists of.
    pub fn application(&mut self) -> &mut Application {
        &mut self.0
    }

    /// Requests that reached a sidecar of another version than they were meant for.
    pub fn mismatches(&self) -> u64 {
        let pairs = [("stable", "canary"), ("canary", "stable")];
        let sidecars = self.0.topology.sidecars().iter();
        sidecars
            .flat_map(|envoy| {
                pairs.map(|(expected, actual)| {
                    let labels = [("expected", expected), ("actual", actual)];
                    metric(envoy, "lanekeeper_mismatch_total", &labels).unwrap_or_default()
                })
            })
            .sum()
    }
}

/// Sentiment review behind Lanekeeper: a page, and the API that it calls under another host.
pub struct Sentiment(Application);

impl Sentiment {
    /// Starts everything, with some fields of the gateway's policy in `wasm-plugins/` changed.
    pub fn start(change: impl FnOnce(&mut Value)) -> Self {
        let mut gateway = policy_of_repository("gateway");
        change(&mut gateway);
        let sidecar = policy_of_repository("sentiment-sidecar");
        let app = App::Sentiment {
            frontend: service("app-frontend"),
            api_url: format!("http://{}", sentiment::API),
        };
        Self(Application::start("sentiment", app, gateway, &sidecar))
    }

    /// For [`Sentiment::start`]: one review a minute is admitted from an address.
    pub fn one_review_a_minute(policy: &mut Value) {
        policy["quotas"] = json!([{
            "name": "reviews",
            "key": ["address"],
            "limit": 1,
            "period": "1m",
            "match": { "hosts": [sentiment::API], "methods": ["POST"] },
        }]);
    }

    /// `127.0.0.1:port` of the gateway.
    pub fn gateway(&self) -> String {
        self.0.gateway()
    }

    /// What it consists of.
    pub fn application(&mut self) -> &mut Application {
        &mut self.0
    }

    /// Sends a signal such as `STOP` to all services: what is asked of them waits until `CONT`.
    pub fn signal_services(&self, name: &str) {
        self.0.signal_services(name);
    }

    /// The sum of the app-service's series `name`, in a version, that have all of these labels.
    pub fn counted(&self, version: &str, name: &str, labels: &[&str]) -> u64 {
        let apps = self.0.topology.apps();
        let address = &apps[usize::from(version == "canary")];
        let metrics = http::get(&format!("http://{address}/metrics")).expect("metrics");
        let metrics = metrics.text();
        let series = metrics.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let found = series.strip_prefix(name)?.strip_prefix('{')?;
            let all = labels.iter().all(|label| found.contains(label));
            all.then(|| value.parse::<u64>().expect("a number"))
        });
        series.sum()
    }
}
