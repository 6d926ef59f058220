//! Prometheus and Alertmanager with the configuration in `monitoring/`, and a mail server that they
//! write to.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use lanekeeper_cli::read_document;
use serde_json::{Value, json};

use crate::http;
use crate::mail::{self, MailServer};
use crate::ports::free_ports;
use crate::process::Process;
use crate::prometheus_api::Api;
use crate::topology::Metrics;
use crate::{debian, monitoring};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How it is to run.
#[derive(Debug)]
pub struct Options {
    /// Configurations, data, mails and logs go here.
    pub dir: PathBuf,
    /// Prometheus's port and Alertmanager's; 0 takes a free one.
    pub ports: [u16; 2],
    /// Tests cannot wait for hours: what rules look back at, and how long alerts are pending, is cut
    /// down to seconds. Nothing else about them is changed.
    pub hurry: bool,
}

/// Prometheus, Alertmanager and the mail server. They end when this is dropped.
#[derive(Debug)]
pub struct Monitoring {
    prometheus: Process,
    alertmanager: Process,
    mail: MailServer,
    api: Api,
    /// `127.0.0.1:port` of Alertmanager.
    alertmanager_address: String,
    config: PathBuf,
}

impl Monitoring {
    /// Whether there are programs to start: an error that says what is missing.
    pub fn check() -> Result<()> {
        debian::command("prometheus")?;
        debian::command("prometheus-alertmanager")?;
        Ok(())
    }

    /// Starts all three, and waits until they are ready.
    pub fn start(options: &Options, targets: &[Metrics]) -> Result<Self> {
        let config = options.dir.join("config");
        let free: [u16; 2] = free_ports(&options.ports)?;
        let port = |index: usize| match options.ports[index] {
            0 => free[index],
            port => port,
        };
        let addresses = [0, 1].map(|index| format!("127.0.0.1:{}", port(index)));
        let mail = MailServer::start(&options.dir.join("mail"))?;
        write_config(&config, options.hurry, &addresses[1], &mail.address())?;
        write_targets(&config, targets)?;

        let place = |name: &str| -> Result<PathBuf> {
            let dir = options.dir.join(name);
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            Ok(dir)
        };
        let mut alertmanager = debian::command("prometheus-alertmanager")?;
        alertmanager
            .arg(flag(
                "config.file",
                config.join("alertmanager.yaml").display(),
            ))
            .arg(flag("storage.path", place("alertmanager/data")?.display()))
            .arg(flag("web.listen-address", &addresses[1]))
            // One alone, which looks for no others.
            .arg("--cluster.listen-address=");
        let alertmanager =
            Process::start("alertmanager", place("alertmanager")?, &mut alertmanager)?;
        let mut prometheus = debian::command("prometheus")?;
        prometheus
            .arg(flag(
                "config.file",
                config.join("prometheus.yaml").display(),
            ))
            .arg(flag(
                "storage.tsdb.path",
                place("prometheus/data")?.display(),
            ))
            .arg(flag("web.listen-address", &addresses[0]))
            // Links in mails lead here.
            .arg(format!("--web.external-url=http://{}", addresses[0]))
            .arg("--web.enable-lifecycle");
        let prometheus = Process::start("prometheus", place("prometheus")?, &mut prometheus)?;
        let mut monitoring = Self {
            prometheus,
            alertmanager,
            mail,
            api: Api::at(&addresses[0]),
            alertmanager_address: addresses[1].clone(),
            config,
        };
        let [prometheus, alertmanager] = addresses;
        for (process, address) in [
            (&mut monitoring.prometheus, prometheus),
            (&mut monitoring.alertmanager, alertmanager),
        ] {
            process.keep_dir();
            let ready = format!("http://{address}/-/ready");
            process.wait_until_ready(START_TIMEOUT, || {
                http::get(&ready).is_ok_and(|answer| answer.status == 200)
            })?;
        }
        Ok(monitoring)
    }

    /// Prometheus, to be asked.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// `127.0.0.1:port` of Alertmanager.
    pub fn alertmanager(&self) -> &str {
        &self.alertmanager_address
    }

    /// The mail server.
    pub fn mail(&self) -> &MailServer {
        &self.mail
    }

    /// The processes, to see whether they still run.
    pub fn processes_mut(&mut self) -> [&mut Process; 2] {
        [&mut self.prometheus, &mut self.alertmanager]
    }

    /// Scrapes others from now on; Prometheus follows the file.
    pub fn scrape(&self, targets: &[Metrics]) -> Result<()> {
        write_targets(&self.config, targets)
    }
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

/// A copy of `monitoring/`, for this machine.
fn write_config(dir: &Path, hurry: bool, alertmanager: &str, mail: &str) -> Result<()> {
    for folder in ["rules", "targets", "alertmanagers"] {
        let folder = dir.join(folder);
        // From an earlier run.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut prometheus = read_document(&monitoring::file("prometheus.yaml"))?;
    if hurry {
        for interval in ["scrape_interval", "evaluation_interval"] {
            prometheus["global"][interval] = "1s".into();
        }
    }
    write(&dir.join("prometheus.yaml"), &prometheus)?;
    for rules in monitoring::files("rules", "yaml")? {
        let mut document = read_document(&rules)?;
        if hurry {
            cut_down(&mut document);
        }
        let name = rules.file_name().context("a file")?;
        write(&dir.join("rules").join(name), &document)?;
    }
    write(
        &dir.join("alertmanagers/local.yaml"),
        &json!([{ "targets": [alertmanager] }]),
    )?;

    let password = dir.join("password");
    fs::write(&password, mail::PASSWORD)?;
    let mut alerts = read_document(&monitoring::file("alertmanager.yaml"))?;
    let global = &mut alerts["global"];
    global["smtp_smarthost"] = mail.into();
    global["smtp_require_tls"] = false.into();
    global["smtp_auth_username"] = mail::USER.into();
    global["smtp_auth_password_file"] = password.display().to_string().into();
    if hurry {
        let route = &mut alerts["route"];
        let routes = route["routes"].as_array().map_or(0, Vec::len);
        let mut places = vec![String::new()];
        places.extend((0..routes).map(|index| format!("/routes/{index}")));
        for place in places {
            let route = route.pointer_mut(&place).context("a route")?;
            route["group_wait"] = "1s".into();
            route["group_interval"] = "1s".into();
        }
    }
    write(&dir.join("alertmanager.yaml"), &alerts)?;
    fs::copy(monitoring::file("email.tmpl"), dir.join("email.tmpl"))?;
    Ok(())
}

fn write_targets(config: &Path, targets: &[Metrics]) -> Result<()> {
    let all: Vec<Value> = targets.iter().flat_map(entries).collect();
    write(&config.join("targets/local.yaml"), &all.into())
}

fn entries(of: &Metrics) -> Vec<Value> {
    let entry = |address: &String, job: &str, kind: &str, path: &str| {
        json!({
            "targets": [address],
            "labels": {
                "job": job, "namespace": of.namespace, "lanekeeper": kind, "__metrics_path__": path,
            },
        })
    };
    let services = of.services.iter();
    let services = services.map(|(job, address)| entry(address, job, "none", "/metrics"));
    let envoy = |job, kind| move |address| entry(address, job, kind, "/stats/prometheus");
    let gateways = of.gateways.iter().map(envoy("gateway", "gateway"));
    let sidecars = of.sidecars.iter().map(envoy("app-service", "sidecar"));
    services.chain(gateways).chain(sidecars).collect()
}

/// JSON is YAML, too. Moved into place, as the file may be followed.
fn write(file: &Path, document: &Value) -> Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, document.to_string())
        .and_then(|()| fs::rename(&new, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// What rules look back at in a hurry, at most, and how long alerts are pending and go on.
pub const WINDOW: Duration = Duration::from_secs(20);
const PENDING: Duration = Duration::from_secs(5);
/// As long as programs take to start, or Prometheus to learn of another target, nothing is down.
const DOWN: Duration = Duration::from_secs(15);

fn cut_down(rules: &mut Value) {
    let groups = rules["groups"].as_array_mut().into_iter().flatten();
    let rules = groups.flat_map(|group| group["rules"].as_array_mut().into_iter().flatten());
    for rule in rules {
        if let Some(expression) = rule["expr"].as_str() {
            rule["expr"] = look_back_less(expression).into();
        }
        let is_of_targets = rule["expr"]
            .as_str()
            .is_some_and(|expr| expr.contains("up{"));
        let most = if is_of_targets { DOWN } else { PENDING };
        for field in ["for", "keep_firing_for"] {
            if let Some(time) = rule[field].as_str() {
                rule[field] = at_most(time, most).into();
            }
        }
    }
}

/// The expression with all ranges (`[1h]`) and offsets (`offset 1h`) cut down to [`WINDOW`].
fn look_back_less(expression: &str) -> String {
    let mut pieces = expression.split('[');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        text.push('[');
        match piece.split_once(']') {
            Some((range, rest)) => {
                text += &at_most(range, WINDOW);
                text.push(']');
                text += rest;
            }
            None => text += piece,
        }
    }
    let words = text.split_inclusive(char::is_whitespace);
    let mut behind_offset = false;
    let words: Vec<String> = words
        .map(|word| {
            let trimmed = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            let cut = match behind_offset {
                true => at_most(trimmed, WINDOW) + &word[trimmed.len()..],
                false => word.to_owned(),
            };
            behind_offset = trimmed == "offset";
            cut
        })
        .collect();
    words.concat()
}

/// A duration, or a shorter one; whatever is no duration stays.
fn at_most(text: &str, most: Duration) -> String {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > most => format!("{}s", most.as_secs()),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_in_a_hurry_look_back_at_seconds() {
        for (expression, hurried) in [
            ("rate(a[5m]) > 1", "rate(a[20s]) > 1"),
            ("rate(a[10s])", "rate(a[10s])"),
            ("(a unless a offset 1h)", "(a unless a offset 20s)"),
            (
                "a{b=~\"[a-z]+\"}[1h] offset 5s",
                "a{b=~\"[a-z]+\"}[20s] offset 5s",
            ),
            ("sum by (offset) (a)", "sum by (offset) (a)"),
        ] {
            assert_eq!(look_back_less(expression), hurried);
        }
    }
}
