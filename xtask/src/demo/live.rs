//! Follows the policy file: what is saved is in force a moment later, or said to be faulty.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::envoy::Log;
use harness::plugin::{Environment, Plugin, Verdict};
use lanekeeper_cli::{LoadError, Written};
use lanekeeper_policy::{Fault, Policy};

use super::app::App;
use super::era::Era;

const POLL: Duration = Duration::from_millis(100);
/// A worker says that it has a policy just before it hands requests to it.
const A_MOMENT_LATER: Duration = Duration::from_millis(100);

/// What there is to say about the policy.
#[derive(Debug)]
pub(crate) enum News {
    /// Things are as they should be: a new policy is in force, or a faulty one is refused.
    Good(String),
    /// The gateway did not do what it should.
    Bad(String),
}

/// What the filter at the gateway is given.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) policy: String,
    /// The variables that the policy names.
    pub(crate) environment: Environment,
}

/// What is found in a policy file.
#[derive(Debug)]
pub(crate) enum Found {
    /// A policy for a gateway.
    Good(Config, Box<Policy>),
    /// A document that is no policy, and its faults.
    Faulty(Config, LoadError),
    /// Nothing to give to a gateway.
    Unusable(LoadError),
}

impl Found {
    pub(crate) fn read(file: &Path) -> Self {
        match lanekeeper_cli::find(file) {
            Ok(found) => match <[_; 1]>::try_from(found) {
                Ok([written]) => Self::judge(&written),
                Err(several) => Self::Unusable(LoadError::Unreadable {
                    place: file.display().to_string(),
                    reason: format!("{} policies: a file with one policy", several.len()),
                }),
            },
            Err(error) => Self::Unusable(error),
        }
    }

    fn judge(written: &Written) -> Self {
        let used = RefCell::new(BTreeSet::new());
        let compiled = written.compile(&|name| {
            let value = std::env::var(name).ok()?;
            used.borrow_mut().insert(name.to_owned());
            Some(value)
        });
        let inline = written.variables();
        let config = Config {
            policy: written.document.to_string(),
            environment: Environment {
                of_envoy: used.into_inner(),
                values: inline
                    .map(|(name, value)| (name.into(), value.into()))
                    .collect(),
            },
        };
        match compiled {
            // The filter would take it for the policy of a sidecar, and decide nothing.
            Ok(policy) if policy.sidecar().is_some() => Self::Unusable(LoadError::Faulty {
                file: written.label.clone(),
                faults: vec![Fault {
                    path: "policy".to_owned(),
                    value: "only sidecar".to_owned(),
                    allowed: "rollouts, which a gateway needs".to_owned(),
                }],
            }),
            Ok(policy) => Self::Good(config, Box::new(policy)),
            Err(faults) => Self::Faulty(config, faults),
        }
    }
}

/// Follows a policy file until it is dropped.
#[derive(Debug)]
pub(crate) struct Live {
    news: Receiver<News>,
    stop: Arc<AtomicBool>,
    follower: Option<JoinHandle<()>>,
}

impl Live {
    /// Follows `file`. What it held when it was read is `pushed`; that policy, with the hash
    /// `in_force`, is in force at the gateway.
    pub(crate) fn follow(
        app: App,
        file: PathBuf,
        pushed: Option<Vec<u8>>,
        in_force: u32,
        gateway: Plugin,
        log: Log,
        era: Arc<Era>,
    ) -> Self {
        let (sender, news) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut follower = Follower {
            app,
            file,
            in_force,
            gateway,
            log,
            era,
            news: sender,
        };
        let follower = Some(thread::spawn(move || follower.run(pushed, &stopped)));
        Self {
            news,
            stop,
            follower,
        }
    }

    /// What happened since it was last asked.
    pub(crate) fn news(&self) -> impl Iterator<Item = News> + '_ {
        self.news.try_iter()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(follower) = self.follower.take() {
            // A follower that panicked has said so.
            let _ = follower.join();
        }
    }
}

struct Follower {
    app: App,
    file: PathBuf,
    /// The hash of the last good policy.
    in_force: u32,
    gateway: Plugin,
    /// The gateway's.
    log: Log,
    era: Arc<Era>,
    news: Sender<News>,
}

impl Follower {
    /// Looks at the contents again and again: unlike notifications of the file system, that works
    /// whether an editor writes the file or replaces it, and on every file system.
    fn run(&mut self, mut pushed: Option<Vec<u8>>, stop: &AtomicBool) {
        let mut last = pushed.clone();
        while !stop.load(Ordering::SeqCst) {
            thread::sleep(POLL);
            let now = fs::read(&self.file).ok();
            // Twice the same: the editor is done.
            if now == last && now != pushed {
                pushed.clone_from(&now);
                let news = match Found::read(&self.file) {
                    Found::Good(config, policy) => self.push(&config, *policy, stop),
                    Found::Faulty(config, faults) => self.push_faulty(&config, &faults, stop),
                    Found::Unusable(error) => Ok(News::Good(format!(
                        "the policy is faulty:\n{error}\n\
                         The gateway does not get it: the last good policy stays in force."
                    ))),
                };
                let news = news.unwrap_or_else(|error| News::Bad(format!("{error:#}")));
                // Nobody listens any more when the demo ends.
                let _ = self.news.send(news);
            }
            last = now;
        }
    }

    fn push(&mut self, config: &Config, policy: Policy, stop: &AtomicBool) -> Result<News> {
        let hash = policy.hash();
        let warnings = super::warnings(self.app, &policy);
        // The same policy once more, such as after a faulty one, explains no change of version.
        let is_new = hash != self.in_force;
        if is_new {
            self.era.begin(policy);
        }
        let start = Instant::now();
        self.push_and_wait(config, Verdict::InForce(hash), stop)?;
        let news = format!(
            "policy in force: {} (hash {hash}, after {} ms)",
            self.file.display(),
            start.elapsed().as_millis()
        );
        if is_new {
            thread::sleep(A_MOMENT_LATER);
            self.era.settle();
            self.in_force = hash;
        }
        let news = [vec![news], warnings].concat();
        Ok(News::Good(news.join("\n")))
    }

    /// The filter must not trust anybody to have checked a policy: it gets the faulty one, too.
    fn push_faulty(&self, config: &Config, faults: &LoadError, stop: &AtomicBool) -> Result<News> {
        self.push_and_wait(config, Verdict::Refused, stop)?;
        Ok(News::Good(format!(
            "the policy is faulty:\n{faults}\nThe gateway refuses it, too: the last good policy stays in force."
        )))
    }

    fn push_and_wait(&self, config: &Config, verdict: Verdict, stop: &AtomicBool) -> Result<()> {
        let Config {
            policy,
            environment,
        } = config;
        self.gateway
            .push_and_wait(policy, environment, verdict, &self.log, stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn judge(manifest: Value) -> Found {
        let dir = std::env::temp_dir().join(format!("lanekeeper-live-{}", fastrand::u64(..)));
        fs::write(&dir, manifest.to_string()).expect("a file");
        let found = Found::read(&dir);
        fs::remove_file(&dir).expect("the file");
        found
    }

    fn rollout(secret: &str) -> Value {
        json!({ "rollouts": [{
            "name": "shop",
            "hosts": ["shop.example"],
            "versions": [{ "name": "stable", "weight": 100, "baseline": true }],
            "identity": [{ "header": "x-user" }],
            "override": {
                "header": "x-experiment",
                "secret": { "header": "x-secret", "env": secret },
            },
        }]})
    }

    #[test]
    fn the_filter_gets_the_variables_that_its_policy_names_and_no_others() {
        // Cargo sets this one for tests.
        let Found::Good(config, _) = judge(rollout("CARGO_PKG_NAME")) else {
            panic!("a good policy")
        };
        let environment = Environment {
            of_envoy: ["CARGO_PKG_NAME".to_owned()].into(),
            ..Environment::default()
        };
        assert_eq!(config.environment, environment);
    }

    #[test]
    fn a_manifest_brings_the_values_of_its_variables_along() {
        let found = judge(json!({
            "apiVersion": "extensions.istio.io/v1alpha1",
            "kind": "WasmPlugin",
            "spec": {
                "pluginConfig": rollout("SECRET"),
                "vmConfig": { "env": [{ "name": "SECRET", "value": "open sesame" }] },
            },
        }));
        let Found::Good(config, _) = found else {
            panic!("a good policy: {found:?}")
        };
        let environment = Environment {
            values: [("SECRET".to_owned(), "open sesame".to_owned())].into(),
            ..Environment::default()
        };
        assert_eq!(config.environment, environment);
    }

    #[test]
    fn a_policy_for_sidecars_is_not_given_to_the_gateway() {
        let found = judge(json!({ "sidecar": { "serves": "own", "versions": ["stable"] } }));
        let Found::Unusable(error) = found else {
            panic!("not for a gateway: {found:?}")
        };
        let error = error.to_string();
        assert!(
            error.contains(": policy: only sidecar: rollouts"),
            "{error}"
        );
    }
}
