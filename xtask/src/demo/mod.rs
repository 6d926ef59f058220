//! `cargo xtask demo`: a canary release on this machine, with many users, beside the same release
//! without Lanekeeper.

mod app;
mod era;
mod fair;
mod live;
mod metrics;
mod table;
mod tally;
mod traffic;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::build;
use harness::plugin::{Environment, Plugin};
use harness::ports::{self, free_ports};
use harness::process::run_visibly;
use harness::prometheus::Monitoring;
use harness::topology::{Parts, Topology, VERSIONS};
use lanekeeper_policy::{Policy, Quota, SLOTS, Version};

use app::App;
use era::Era;
use live::{Found, Live, News};
use metrics::Metrics;
use table::{Screen, View};
use traffic::{Site, Traffic};
use watch::Watch;

/// Of all applications, in `wasm-plugins/policies`.
const GATEWAY_POLICY: &str = "gateway.yaml";

const MOMENT: Duration = Duration::from_millis(100);
/// The exit code of what Ctrl-C ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// Runs a canary release on this machine, beside the same release without Lanekeeper.
///
/// Starts real Envoys, the services of an application in the versions stable and canary, and the filter
/// with its policy. Then many users come and come again. A table shows for each of them whether they
/// kept their version, in every tier; and beside it, what the same requests meet at an Envoy that
/// splits by weights alone. One more user, noisy, sends so much that a quota refuses most of it.
///
/// Change the policy file while it runs: what you save is in force a moment later, and a faulty
/// policy is refused while traffic goes on. Ctrl-C ends everything.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The application
    #[arg(long, value_enum, default_value_t = App::SmsChecker)]
    app: App,

    /// Port of the gateway; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,

    /// Port of the gateway's admin page; 0 takes a free one
    #[arg(long, default_value_t = 9901)]
    admin_port: u16,

    /// The policy of the gateway, YAML or JSON; changes are followed [default: a copy of the one in wasm-plugins]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// Start Prometheus with the rules of monitoring/, Alertmanager, and a mail server that keeps what it gets
    #[arg(long)]
    monitoring: bool,

    /// Port of Prometheus; 0 takes a free one
    #[arg(long, default_value_t = 9090, requires = "monitoring")]
    prometheus_port: u16,

    /// Port of Alertmanager; 0 takes a free one
    #[arg(long, default_value_t = 9093, requires = "monitoring")]
    alertmanager_port: u16,

    /// How many users come
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    users: u32,

    /// Requests a second, to each of the two gateways
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,

    /// Stop after this time, such as 30s, and fail if the promise was broken
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,

    /// Send no traffic: you are the only user
    #[arg(long)]
    no_traffic: bool,

    /// Show nothing but the address, news of the policy and the summary
    #[arg(long)]
    quiet: bool,
}

/// Runs the demo. `false` where users met something that they should not have met.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let [running, stop] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (is_running, stopped) = (Arc::clone(&running), Arc::clone(&stop));
    ctrlc::set_handler(move || {
        // At first there is nothing to sum up, and who asks twice does not want to wait for it. The
        // harness sees to it that nothing outlives us.
        if !is_running.load(Ordering::SeqCst) || stopped.swap(true, Ordering::SeqCst) {
            process::exit(INTERRUPTED);
        }
    })?;

    let mut wanted = vec![(args.port, "--port"), (args.admin_port, "--admin-port")];
    if args.monitoring {
        // Said before anything is built.
        Monitoring::check()?;
        wanted.push((args.prometheus_port, "--prometheus-port"));
        wanted.push((args.alertmanager_port, "--alertmanager-port"));
    }
    let ports = usable_ports(&wanted)?;
    let (port, admin_port) = (ports[0], ports[1]);
    let policy_file = match &args.policy {
        Some(file) => file.clone(),
        None => copy_of_policy(port)?,
    };
    // Read before the policy: an edit in between, or during the build, is followed later.
    let pushed = fs::read(&policy_file).ok();
    let (config, policy) = match Found::read(&policy_file) {
        Found::Good(config, policy) => (config, policy),
        Found::Faulty(_, faults) | Found::Unusable(faults) => {
            bail!("the policy is faulty:\n{faults}")
        }
    };

    let mut screen = Screen::new(args.quiet);
    let parts = prepare(args, &mut screen, port)?;
    screen.tell("Starting Envoys and services ...")?;
    let filter = build::filter_wasm()?;
    let gateway = Plugin::new("gateway", &parts.dir, &filter);
    gateway.push(&config.policy, &config.environment)?;
    let sidecar = Plugin::new("sidecar", &parts.dir, &filter);
    let (policy_of_sidecar, _) =
        lanekeeper_cli::load(&default_policy(args.app.sidecar_policy()), &|_| None)?;
    sidecar.push(&policy_of_sidecar.to_string(), &Environment::default())?;
    let topology = Topology::start(&parts, port, admin_port, gateway.file(), sidecar.file())?;
    let admin = topology.admin().to_owned();
    ensure!(
        Metrics::ask(&admin)?.hash == Some(policy.hash()),
        "the gateway did not take over the policy. The logs are in {}; the gateway says:\n{}",
        parts.dir.display(),
        topology.gateway_envoy().process().log_tail()
    );
    let watch = match ports[..] {
        [_, _, prometheus, alertmanager] => {
            screen.tell("Starting Prometheus and Alertmanager ...")?;
            let dir = parts.dir.with_file_name("monitoring");
            let ports = [prometheus, alertmanager];
            Some(Watch::start(&dir, ports, &topology)?)
        }
        _ => None,
    };
    screen.tell("")?;
    screen.say(&address(args.app, port, &admin))?;
    if let Some(watch) = &watch {
        screen.say(&watch.address())?;
    }
    screen.tell(&what_to_try(args.app, port, &policy_file, &policy))?;
    for warning in warnings(args.app, &policy) {
        screen.say(&warning)?;
    }

    running.store(true, Ordering::SeqCst);
    let log = topology.gateway_envoy().log();
    let (hash, share) = (policy.hash(), share_of_canary(args.app, &policy));
    let (_, default) = lanekeeper_cli::load(&default_policy(GATEWAY_POLICY), &|_| None)?;
    let is_default = default.hash() == hash;
    let quotas = policy.quotas().to_vec();
    let era = Arc::new(Era::with(*policy));
    let traffic = match args.no_traffic {
        true => None,
        false => {
            let known = is_default.then(|| quotas.clone());
            let lanekeeper = Site::new(topology.gateway()?, Arc::clone(&era), known);
            // Plain Envoy knows no policy: nothing explains a change or a refusal there.
            let plain = Site::new(topology.plain()?, Arc::default(), None);
            let (users, rate) = (args.users as usize, f64::from(args.rate));
            screen.tell(&noise(rate))?;
            Some(Traffic::start(args.app, [lanekeeper, plain], users, rate))
        }
    };
    let mut demo = Demo {
        expected: share.filter(|_| is_default),
        era: Arc::clone(&era),
        live: Live::follow(args.app, policy_file, pushed, hash, gateway, log, era),
        traffic,
        watch,
        topology,
        start: Instant::now(),
        faults: Vec::new(),
    };
    while !stop.load(Ordering::SeqCst) && demo.faults.is_empty() && !demo.is_over(args.time) {
        demo.go_on(&mut screen)?;
    }
    // Who stops it early has not seen enough for a verdict on numbers.
    let is_over = args.time.is_some() && !stop.load(Ordering::SeqCst);
    let (view, faults) = demo.end(is_over);
    for line in view.summary() {
        screen.say(&line)?;
    }
    for fault in &faults {
        screen.say(&format!("\nFAILED: {fault}"))?;
    }
    if !faults.is_empty() {
        screen.say(&format!("The logs are in {}", parts.dir.display()))?;
    } else if args.port == 0 {
        // Nobody will look there again: the next run has another port.
        let _ = fs::remove_dir_all(parts.dir.parent().unwrap_or(&parts.dir));
    }
    Ok(faults.is_empty())
}

/// The demo while it runs. Its parts end in this order, so that nobody misses another.
struct Demo {
    live: Live,
    traffic: Option<Traffic>,
    watch: Option<Watch>,
    topology: Topology,
    start: Instant,
    /// Canary's share of the users, where it is known which it is to be.
    expected: Option<f64>,
    era: Arc<Era>,
    /// Why the demo cannot go on.
    faults: Vec<String>,
}

impl Demo {
    fn is_over(&self, time: Option<Duration>) -> bool {
        time.is_some_and(|time| self.start.elapsed() >= time)
    }

    /// A moment of the demo.
    fn go_on(&mut self, screen: &mut Screen) -> Result<()> {
        thread::sleep(MOMENT);
        self.faults.extend(self.topology.ended()?);
        for news in self.live.news() {
            let time = table::clock(self.start.elapsed());
            match news {
                News::Good(text) => screen.say(&format!("{time}  {text}"))?,
                News::Bad(text) => self.faults.push(text),
            }
        }
        if let Some(watch) = &mut self.watch {
            let time = table::clock(self.start.elapsed());
            for news in watch.news() {
                screen.say(&format!("{time}  {news}"))?;
            }
            for process in watch.processes_mut() {
                self.faults.extend(process.what_ended()?);
            }
        }
        if screen.is_due() {
            screen.show(&self.view())?;
        }
        Ok(())
    }

    fn view(&self) -> View {
        let tallies = |traffic: &Traffic| traffic.sites().each_ref().map(Site::so_far);
        View {
            elapsed: self.start.elapsed(),
            tallies: self.traffic.as_ref().map(tallies),
            metrics: Metrics::ask(self.topology.admin()).ok(),
            policy: self.era.newest(),
        }
    }

    /// Ends everything: how things stood, and what is wrong with that.
    fn end(mut self, is_over: bool) -> (View, Vec<String>) {
        let unanswered = self.traffic.as_mut().map_or(0, Traffic::stop);
        let view = self.view();
        let mut faults = self.faults;
        if unanswered > 0 {
            faults.push(format!(
                "{unanswered} requests had no answer {:?} after the end",
                traffic::LAST_ANSWERS
            ));
        }
        if let Some([lanekeeper, plain]) = &view.tallies {
            faults.extend(lanekeeper.broken_promises());
            for (name, tally) in [("lanekeeper", lanekeeper), ("plain Envoy", plain)] {
                faults.extend(tally.failed(name));
                if is_over && tally.requests == 0 {
                    faults.push(format!("{name}: there was not a single request"));
                }
            }
            // After an edit anything may be right.
            let unedited = self.expected.filter(|_| self.era.now() == 0);
            if let (true, Some(share)) = (is_over, unedited) {
                let odd = lanekeeper.odd_share("canary", share);
                faults.extend(odd.map(|odd| format!("lanekeeper: {odd}")));
                let steady = plain.too_steady();
                faults.extend(steady.map(|steady| format!("plain Envoy: {steady}")));
            }
        }
        (view, faults)
    }
}

/// A fresh copy of the gateway's policy, to be edited at will. Each port has its own: another demo
/// must not change the policy of this one.
fn copy_of_policy(port: u16) -> Result<PathBuf> {
    let dir = build::target_dir().join("demo").join(port.to_string());
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let file = dir.join("policy.yaml");
    // Written, not copied: the copy can be edited although the original cannot.
    let text = fs::read_to_string(default_policy(GATEWAY_POLICY));
    let text = text.context("cannot read the default policy")?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    // The shorter name is the one to type.
    let here = std::env::current_dir().unwrap_or_default();
    Ok(file.strip_prefix(here).map(Path::to_owned).unwrap_or(file))
}

fn default_policy(file: &str) -> PathBuf {
    build::workspace().join("wasm-plugins/policies").join(file)
}

/// What to say of a policy that is good, but not for this demo.
fn warnings(app: App, policy: &Policy) -> Vec<String> {
    let mut warnings = Vec::new();
    let (host, path) = app.page_at();
    if policy
        .rollout_of(host.as_bytes(), path.as_bytes())
        .is_none()
    {
        warnings.push(format!(
            "WARNING: no rollout of this policy is for the host {host}, which the traffic goes to: \
             everybody gets what the routes of Envoy say, and nobody canary by the policy."
        ));
    }
    for rollout in policy.rollouts() {
        let versions = rollout.versions().iter().map(Version::name);
        for version in versions.filter(|version| !VERSIONS.contains(version)) {
            warnings.push(format!(
                "WARNING: rollout {}, version {version}: the demo runs {} only, and \
                 envoy/gateway.yaml has no route for another one: its users get {}.",
                rollout.name(),
                VERSIONS.join(" and "),
                route_of(Some(version))
            ));
        }
    }
    warnings
}

/// The version that the routes of `envoy/gateway.yaml` send a request to, by the version that the
/// policy decided on.
fn route_of(version: Option<&str>) -> &'static str {
    let known = VERSIONS.into_iter().find(|known| version == Some(known));
    known.unwrap_or(VERSIONS[0])
}

/// The share of the users that canary is to have.
fn share_of_canary(app: App, policy: &Policy) -> Option<f64> {
    let (host, path) = app.page_at();
    let rollout = policy.rollout_of(host.as_bytes(), path.as_bytes())?;
    let is_canary = |slot: &u32| {
        let version = rollout.version_of_slot(*slot);
        rollout.versions()[version].name() == "canary"
    };
    let slots = (0..SLOTS).filter(is_canary).count();
    Some(slots as f64 / f64::from(SLOTS))
}

/// Ports that can be listened on, with the flags by which they are asked for: a free one for 0.
fn usable_ports(wanted: &[(u16, &str)]) -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    for (index, &(port, flag)) in wanted.iter().enumerate() {
        if port == 0 {
            // Of no other flag either.
            let asked: Vec<u16> = wanted.iter().map(|(port, _)| *port).collect();
            let [free] = free_ports(&[asked, ports.clone()].concat())?;
            ports.push(free);
            continue;
        }
        if let Some((_, other)) = wanted[..index].iter().find(|(other, _)| *other == port) {
            bail!("{other} and {flag} are both {port}: each needs a port of its own");
        }
        if let Err(error) = ports::hold(port) {
            bail!(
                "port {port} cannot be used ({error:#}). Choose another one with {flag}, \
                 or take any free one with {flag} 0"
            );
        }
        ports.push(port);
    }
    Ok(ports)
}

/// Builds and fetches what is to be run.
fn prepare(args: &Args, screen: &mut Screen, port: u16) -> Result<Parts> {
    let envoy = harness::envoy::find_or_on_path()?;
    screen.tell(&format!("Envoy is {}", envoy.display()))?;
    screen.tell("Building the filter and the services ...")?;
    build::ensure_target(build::WASM_TARGET)?;
    visibly(build::filter_command(), args.quiet)?;
    // The other services are built along with it.
    visibly(build::service_command("app-service"), args.quiet)?;
    let dir = build::target_dir()
        .join("demo")
        .join(port.to_string())
        .join("logs");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(Parts {
        app: args.app.parts(port)?,
        envoy,
        app_service: build::service_binary("app-service")?,
        model_service: build::service_binary("model-service")?,
        dir,
    })
}

/// Runs cargo so that its progress is seen.
fn visibly(mut cargo: Command, quiet: bool) -> Result<()> {
    if quiet {
        cargo.arg("--quiet");
    }
    let status = run_visibly(&mut cargo)?;
    ensure!(status.success(), "{cargo:?} failed ({status})");
    Ok(())
}

fn address(app: App, port: u16, admin: &str) -> String {
    format!(
        "{}\nEnvoy's admin page is at http://{admin}.",
        app.address(port)
    )
}

/// Who else is there.
fn noise(rate: f64) -> String {
    format!(
        "One more user, noisy, sends {} requests a second to Lanekeeper's gateway alone.",
        traffic::noise(rate)
    )
}

fn what_to_try(app: App, port: u16, file: &Path, policy: &Policy) -> String {
    let (commands, file) = (app.to_try(port), file.display());
    let refusal = refusal_to_try(&app.curl(port), policy).unwrap_or_default();
    format!(
        r#"
Try, in another terminal:

{commands}{refusal}
Then change {file}, such as its weights, and save it.
Ctrl-C ends everything.
"#
    )
}

/// How to be refused by a quota, where the policy has one that counts users.
fn refusal_to_try(url: &str, policy: &Policy) -> Option<String> {
    // More would take too long.
    let counts_users = |quota: &&Quota| quota.key().eq(["user"]) && quota.limit() <= 1000;
    let mut quotas = policy.quotas().iter().filter(counts_users);
    let quota = quotas.find(|quota| quota.enforcement() == "enforce")?;
    let some_more = quota.limit().saturating_add(10);
    Some(format!(
        r#"
  # Bob sends more than quota {name} admits; the last answer says why, and when to come again
  for i in $(seq {some_more}); do curl -s -o /dev/null -w '%{{http_code}}\n' {url} -H 'x-user: bob'; done | uniq -c; curl -i {url} -H 'x-user: bob'
"#,
        name = quota.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_default_policy_is_for_the_traffic() {
        for app in [App::SmsChecker, App::Sentiment] {
            let (_, policy) = lanekeeper_cli::load(&default_policy(GATEWAY_POLICY), &|_| None)
                .expect("a good policy");
            assert_eq!(share_of_canary(app, &policy), Some(0.1));
            assert_eq!(warnings(app, &policy), [""; 0]);
            // What the traffic knows of them.
            let per_user = |quota: &Quota| quota.key().eq(["user"]) && quota.limit() <= 128;
            assert!(policy.quotas().iter().all(per_user));
            assert!(refusal_to_try("", &policy).is_some());
            assert!(refusal_to_try("", &Policy::pass_through()).is_none());
            assert_eq!(warnings(app, &Policy::pass_through()).len(), 1);
            let sidecar = lanekeeper_cli::load(&default_policy(app.sidecar_policy()), &|_| None);
            assert!(sidecar.expect("a good policy").1.sidecar().is_some());
        }
    }

    #[test]
    fn each_flag_has_a_port_of_its_own() {
        let flags = ["--port", "--admin-port", "--prometheus-port"];
        let wanted = |ports: [u16; 3]| usable_ports(&[0, 1, 2].map(|n| (ports[n], flags[n])));
        let [one, other] = free_ports(&[]).expect("free ports");
        let ports = wanted([one, 0, other]).expect("free");
        assert_eq!((ports[0], ports[2]), (one, other));
        assert!(![0, one, other].contains(&ports[1]), "{ports:?}");
        let error = wanted([one, other, other]).expect_err("the same twice");
        let said = format!("--admin-port and --prometheus-port are both {other}");
        assert!(error.to_string().starts_with(&said), "{error}");
    }

    #[test]
    fn a_version_without_a_route_is_named_with_the_one_its_users_get() {
        let policy = json!({ "rollouts": [{
            "name": "shop",
            "hosts": ["sms-checker.local"],
            "versions": [
                { "name": "stable", "weight": 90, "baseline": true },
                { "name": "beta", "weight": 10 },
            ],
            "identity": [{ "header": "x-user" }],
        }]});
        let policy = Policy::compile(&policy, &|_| None).expect("a policy");
        let warnings = warnings(App::SmsChecker, &policy).join("\n");
        assert!(
            warnings.contains("version beta:") && warnings.ends_with("get stable."),
            "{warnings}"
        );
    }
}
