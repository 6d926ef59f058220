//! Prometheus and Alertmanager beside the demo, and what they have to say.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::process::Process;
use harness::prometheus::{Monitoring, Options};
use harness::topology::Topology;
use serde_json::Value;

/// How often alerts are asked for.
const LOOK: Duration = Duration::from_secs(2);

pub(super) struct Watch {
    monitoring: Monitoring,
    /// What fires, and what it says.
    firing: BTreeMap<String, String>,
    next: Instant,
}

impl Watch {
    /// Starts both, with their data and the mails in `dir`.
    pub(super) fn start(dir: &Path, ports: [u16; 2], topology: &Topology) -> Result<Self> {
        // Another demo's alerts and mails are none of this one.
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("cannot empty {}", dir.display()))?;
        }
        let options = Options {
            dir: dir.to_owned(),
            ports,
            hurry: false,
        };
        Ok(Self {
            monitoring: Monitoring::start(&options, &[topology.metrics()])?,
            firing: BTreeMap::new(),
            next: Instant::now(),
        })
    }

    /// Where to look.
    pub(super) fn address(&self) -> String {
        let (prometheus, alertmanager) = (
            self.monitoring.api().address(),
            self.monitoring.alertmanager(),
        );
        let mails = self.monitoring.mail().dir();
        let here = std::env::current_dir().unwrap_or_default();
        let mails = mails.strip_prefix(here).unwrap_or(mails).display();
        format!(
            "Prometheus is at http://{prometheus}, Alertmanager's API at \
             http://{alertmanager}/api/v2/alerts.\nAlerts are mailed: the mails are in {mails}."
        )
    }

    /// What began or ceased to fire since this was last asked.
    pub(super) fn news(&mut self) -> Vec<String> {
        if Instant::now() < self.next {
            return Vec::new();
        }
        self.next = Instant::now() + LOOK;
        // It was asked too much at once, and is asked again soon.
        let Ok(alerts) = self.monitoring.api().alerts() else {
            return Vec::new();
        };
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        let firing: BTreeMap<_, _> = firing.map(|a| (a["labels"].to_string(), says(a))).collect();
        let begun = new_in(&firing, &self.firing).map(|says| format!("alert: {says}"));
        let over = new_in(&self.firing, &firing).map(|says| format!("no more: {says}"));
        let news = begun.chain(over).collect();
        self.firing = firing;
        news
    }

    pub(super) fn processes_mut(&mut self) -> [&mut Process; 2] {
        self.monitoring.processes_mut()
    }
}

fn says(alert: &Value) -> String {
    let text = |pointer| alert.pointer(pointer).and_then(Value::as_str);
    let text = |pointer| text(pointer).unwrap_or_default();
    let (name, summary) = (text("/labels/alertname"), text("/annotations/summary"));
    format!("{name}: {summary}")
}

/// What is said of the first and not of the second.
fn new_in<'a>(
    these: &'a BTreeMap<String, String>,
    those: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = &'a String> {
    let new = these.iter().filter(|(key, _)| !those.contains_key(*key));
    new.map(|(_, says)| says)
}
