//! The files that Envoys read the filter and its policy from.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lanekeeper_cli::PluginFile;

pub use lanekeeper_cli::PluginEnvironment as Environment;

use crate::envoy::Log;

const VERDICT_TIMEOUT: Duration = Duration::from_secs(20);

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
pub struct Plugin(PluginFile);

impl Plugin {
    /// The plugin `name`, whose file lies in `dir`.
    pub fn new(name: &str, dir: &Path, wasm: &Path) -> Self {
        let file = dir.join(format!("{name}-plugin.yaml"));
        Self(PluginFile::new(name, file, wasm))
    }

    /// The file that Envoy reads.
    pub fn file(&self) -> &Path {
        self.0.file()
    }

    /// Hands the text of a policy to Envoy, which takes it over at once; the filter judges it.
    pub fn push(&self, policy: &str, environment: &Environment) -> Result<()> {
        self.0
            .push(policy, environment)
            .with_context(|| format!("cannot write {}", self.file().display()))
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
        let name = self.0.name();
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
