//! By policy: blue and green run, and the weights say who answers.

use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::envoy::{self, Envoy, Options};
use harness::plugin::{Environment, Plugin, Verdict};
use harness::ports::free_ports;
use harness::process::Process;
use harness::{build, http, template};
use lanekeeper_policy::Policy;
use serde_json::{Value, json};

use super::client::Client;
use super::{Outcome, after};

const POLICY: &str = "wasm-plugins/policies/translation-cutover.yaml";
const START_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn cutover(client: &Client) -> Result<Outcome> {
    let ports: [u16; 2] = free_ports(&[])?;
    let [_blue, _green] = [start("blue", ports[0])?, start("green", ports[1])?];
    let dir = Process::scratch_dir("cutover")?;
    let plugin = Plugin::new("gateway", &dir, &build::filter_wasm()?);
    let (blue, _) = lanekeeper_cli::load(&build::workspace().join(POLICY), &|_| None)?;
    plugin.push(&blue.to_string(), &Environment::default())?;
    let green = with_weights(&blue, 0, 100)?;
    let policy = Policy::compile(&green, &|_| None);
    let hash = policy
        .map_err(|faults| anyhow::anyhow!("{faults:?}"))?
        .hash();

    let gateway = gateway(&plugin, ports)?;
    let address = gateway.address("gateway")?;
    let figures = client.send_while(&address, || {
        after(client.time / 2, || {
            let in_force = Verdict::InForce(hash);
            let never = AtomicBool::new(false);
            let text = green.to_string();
            plugin.push_and_wait(
                &text,
                &Environment::default(),
                in_force,
                &gateway.log(),
                &never,
            )
        })
    })?;
    drop(gateway);
    // It is a scratch directory.
    let _ = std::fs::remove_dir_all(&dir);
    Ok(Outcome::Done(figures))
}

fn start(version: &str, port: u16) -> Result<Process> {
    let address = format!("127.0.0.1:{port}");
    let mut command = Command::new(build::service_binary("translation-api")?);
    command
        .env_clear()
        .envs([("LISTEN_ADDR", address.as_str()), ("VERSION", version)]);
    let mut service = Process::start(version, Process::scratch_dir(version)?, &mut command)?;
    let health = format!("http://{address}/health");
    service.wait_until_ready(START_TIMEOUT, || {
        http::get(&health).is_ok_and(|answer| answer.status == 200)
    })?;
    Ok(service)
}

/// The gateway of the demo, but for the names of the versions.
fn gateway(plugin: &Plugin, [blue, green]: [u16; 2]) -> Result<Envoy> {
    let bootstrap = template::file(
        "gateway.yaml",
        &[
            ("LISTEN_HOST", "127.0.0.1"),
            ("GATEWAY_PORT", "0"),
            ("PLUGIN_FILE", &plugin.file().display().to_string()),
            ("APP_STABLE_HOST", "127.0.0.1"),
            ("APP_STABLE_PORT", &blue.to_string()),
            ("APP_CANARY_HOST", "127.0.0.1"),
            ("APP_CANARY_PORT", &green.to_string()),
        ],
    )?;
    let mut options = Options::new(
        "gateway",
        bootstrap.replace("exact: canary", "exact: green"),
    )?;
    options.binary = envoy::find_or_on_path()?;
    // Workers take a policy over one after another: some of the flicker.
    options.concurrency = 2;
    Envoy::start(options)
}

fn with_weights(policy: &Value, blue: u32, green: u32) -> Result<Value> {
    let mut policy = policy.clone();
    for (index, weight) in [blue, green].into_iter().enumerate() {
        let field = format!("/rollouts/0/versions/{index}/weight");
        *policy.pointer_mut(&field).context(field)? = json!(weight);
    }
    Ok(policy)
}
