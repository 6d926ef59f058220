//! Follows the policy file: what is saved is in force a moment later, or said to be faulty.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lanekeeper_cli::LoadError;
use lanekeeper_policy::Policy;
use serde_json::Value;

use super::metrics::Metrics;
use super::tally::Era;
use harness::plugin::Plugin;

const POLL: Duration = Duration::from_millis(100);
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// The metrics say when the first worker of Envoy has a policy; the others have it a moment later.
const OTHER_WORKERS: Duration = Duration::from_millis(500);

/// What there is to say about the policy.
#[derive(Debug)]
pub(crate) enum News {
    /// Things are as they should be: a new policy is in force, or a faulty one is refused.
    Good(String),
    /// The gateway did not do what it should.
    Bad(String),
}

/// What is found in a policy file.
#[derive(Debug)]
pub(crate) enum Found {
    /// A policy.
    Good(Value, Box<Policy>),
    /// A document that is no policy, and its faults.
    Faulty(Value, LoadError),
    /// Not even a document.
    Unreadable(LoadError),
}

impl Found {
    pub(crate) fn read(file: &Path) -> Self {
        let env = |name: &str| std::env::var(name).ok();
        match lanekeeper_cli::find(file) {
            Ok(found) => match <[_; 1]>::try_from(found) {
                Ok([written]) => match written.compile(&env) {
                    Ok(policy) => Self::Good(written.document, Box::new(policy)),
                    Err(faults) => Self::Faulty(written.document, faults),
                },
                Err(several) => Self::Unreadable(LoadError::Unreadable {
                    place: file.display().to_string(),
                    reason: format!("{} policies: a file with one policy", several.len()),
                }),
            },
            Err(error) => Self::Unreadable(error),
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
        file: PathBuf,
        pushed: Option<Vec<u8>>,
        in_force: u32,
        gateway: Plugin,
        admin: String,
        era: Arc<Era>,
    ) -> Self {
        let (sender, news) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut follower = Follower {
            file,
            in_force,
            gateway,
            admin,
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
    file: PathBuf,
    /// The hash of the last good policy.
    in_force: u32,
    gateway: Plugin,
    admin: String,
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
                    Found::Good(document, policy) => self.push(&document, &policy, stop),
                    Found::Faulty(document, faults) => self.push_faulty(&document, &faults, stop),
                    Found::Unreadable(error) => Ok(News::Good(format!(
                        "the policy is faulty:\n{error}\nThe last good policy stays in force."
                    ))),
                };
                let news = news.unwrap_or_else(|error| News::Bad(format!("{error:#}")));
                // Nobody listens any more when the demo ends.
                let _ = self.news.send(news);
            }
            last = now;
        }
    }

    fn push(&mut self, document: &Value, policy: &Policy, stop: &AtomicBool) -> Result<News> {
        let hash = policy.hash();
        let start = Instant::now();
        // The same policy once more, such as after a faulty one, explains no change of version.
        let is_new = hash != self.in_force;
        if is_new {
            self.era.advance();
        }
        let in_force = self.gateway.push(&document.to_string()).and_then(|()| {
            self.wait(stop, &format!("take over policy {hash}"), |metrics| {
                metrics.hash == Some(hash) && !metrics.rejected
            })
        });
        let mut news = format!(
            "policy in force: {} (hash {hash}, after {} ms)",
            self.file.display(),
            start.elapsed().as_millis()
        );
        if is_new {
            thread::sleep(OTHER_WORKERS);
            self.era.advance();
        }
        in_force?;
        self.in_force = hash;
        if let Some(warning) = super::warning(policy) {
            news = format!("{news}\n{warning}");
        }
        Ok(News::Good(news))
    }

    /// The filter must not trust anybody to have checked a policy: it gets the faulty one, too.
    fn push_faulty(&self, document: &Value, faults: &LoadError, stop: &AtomicBool) -> Result<News> {
        self.gateway.push(&document.to_string())?;
        self.wait(stop, "refuse the policy", |metrics| metrics.rejected)?;
        Ok(News::Good(format!(
            "the policy is faulty:\n{faults}\nThe gateway refuses it, too: the last good policy stays in force."
        )))
    }

    /// Waits until the gateway's metrics say so, or the demo ends.
    fn wait(&self, stop: &AtomicBool, what: &str, done: impl Fn(&Metrics) -> bool) -> Result<()> {
        let start = Instant::now();
        while !stop.load(Ordering::SeqCst) && !Metrics::ask(&self.admin).is_ok_and(|m| done(&m)) {
            ensure!(
                start.elapsed() < PUSH_TIMEOUT,
                "the gateway did not {what} within {PUSH_TIMEOUT:?}"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
