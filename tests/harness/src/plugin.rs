//! The files that Envoys read the filter and its policy from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::envoy::Log;
use crate::template;

const VERDICT_TIMEOUT: Duration = Duration::from_secs(20);

/// The environment variables that the filter gets to see: policies take their secrets from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Variables of Envoy's own environment.
    pub of_envoy: BTreeSet<String>,
    /// Variables that have their value in the plugin's configuration.
    pub values: BTreeMap<String, String>,
}

/// What the filter says of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The policy with this hash is in force.
    InForce(u32),
    /// The policy is refused.
    Refused,
}

/// The filter in one kind of Envoy.
#[derive(Debug)]
pub struct Plugin {
    name: String,
    file: PathBuf,
    wasm: PathBuf,
    pushes: AtomicUsize,
}

impl Plugin {
    /// The plugin `name`, whose file lies in `dir`.
    pub fn new(name: &str, dir: &Path, wasm: &Path) -> Self {
        Self {
            name: name.to_owned(),
            file: dir.join(format!("{name}-plugin.yaml")),
            wasm: wasm.to_owned(),
            pushes: AtomicUsize::new(0),
        }
    }

    /// The file that Envoy reads.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Hands the text of a policy to Envoy, which takes it over at once; the filter judges it.
    pub fn push(&self, policy: &str, environment: &Environment) -> Result<()> {
        // Envoy does not configure a filter anew with a text that requests still run under. Space
        // makes each text another one, for the filter it is the same.
        let space = " ".repeat(self.pushes.fetch_add(1, Ordering::Relaxed));
        // JSON within YAML within quotes: a text in JSON is one in YAML, too.
        let policy = Value::from(format!("{policy}{space}")).to_string();
        let environment = json!({
            "host_env_keys": environment.of_envoy,
            "key_values": environment.values,
        });
        let wasm = self.wasm.display().to_string();
        let plugin = template::file(
            "plugin.yaml",
            &[
                ("PLUGIN", self.name.as_str()),
                ("WASM_FILE", &wasm),
                ("ENVIRONMENT", &environment.to_string()),
                ("POLICY", &policy),
            ],
        )?;
        // Envoy follows renames, and must not see half a file.
        let new = self.file.with_extension("new");
        fs::write(&new, plugin)
            .and_then(|()| fs::rename(&new, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// Pushes to a running Envoy, and waits until every thread of it has come to this verdict, or
    /// until somebody says stop.
    pub fn push_and_wait(
        &self,
        policy: &str,
        environment: &Environment,
        verdict: Verdict,
        envoy: &Log,
        stop: &AtomicBool,
    ) -> Result<()> {
        let name = &self.name;
        let says = match verdict {
            Verdict::InForce(hash) => format!("plugin {name}: policy {hash} is in force"),
            Verdict::Refused => format!("the policy of plugin {name} is refused"),
        };
        let from = envoy.len();
        self.push(policy, environment)?;
        let start = Instant::now();
        while !stop.load(Ordering::SeqCst) && !envoy.all_threads_say(&says, from) {
            ensure!(
                start.elapsed() < VERDICT_TIMEOUT,
                "after {VERDICT_TIMEOUT:?}, not every worker of Envoy has logged {says:?}"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
