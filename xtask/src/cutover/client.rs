//! The test client, and what it measured.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{build, http};
use serde_json::Value;

use super::{Args, HOST};

/// `lanekeeper traffic`
pub(super) struct Client {
    program: PathBuf,
    /// How long it sends requests.
    pub(super) time: Duration,
    concurrency: u16,
    quiet: bool,
}

impl Client {
    pub(super) fn new(args: &Args) -> Result<Self> {
        Ok(Self {
            program: build::lanekeeper()?,
            time: args.time,
            concurrency: args.concurrency,
            quiet: args.quiet,
        })
    }

    /// Sends requests to the gateway at `address`, strangers all of them, and does something meanwhile.
    pub(super) fn send_while(
        &self,
        address: &str,
        steps: impl FnOnce() -> Result<()>,
    ) -> Result<Figures> {
        wait_for_blue(address)?;
        let address: SocketAddr = address.parse()?;
        let (ip, port) = (address.ip(), address.port());
        let client = Command::new(&self.program)
            .arg("traffic")
            .arg(format!("http://{HOST}:{port}/api/v1/translate?phrase=Lol"))
            .args(["--resolve", &format!("{HOST}:{port}:{ip}")])
            .args(["--duration", &format!("{}ms", self.time.as_millis())])
            .args(["--concurrency", &self.concurrency.to_string(), "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(if self.quiet {
                Stdio::null()
            } else {
                Stdio::inherit()
            })
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let done = steps();
        let output = client.wait_with_output()?;
        done?;
        let summary = String::from_utf8_lossy(&output.stdout);
        let summary: Value = serde_json::from_str(&summary)
            .with_context(|| format!("lanekeeper traffic ({}): {summary}", output.status))?;
        Figures::of(&summary).with_context(|| summary.to_string())
    }
}

/// Routes are in force a moment after they are applied.
fn wait_for_blue(address: &str) -> Result<()> {
    let start = std::time::Instant::now();
    let mut last = String::new();
    // Several in a row, for there are several workers.
    let mut in_a_row = 0;
    while in_a_row < 10 {
        let request = http::Request::get("/version").header("host", HOST);
        match http::send(address, &request) {
            Ok(answer) if answer.text().contains(r#""version":"blue""#) => in_a_row += 1,
            Ok(answer) => (in_a_row, last) = (0, format!("{} {}", answer.status, answer.text())),
            Err(error) => (in_a_row, last) = (0, format!("{error:#}")),
        }
        ensure!(
            start.elapsed() < Duration::from_secs(20),
            "blue does not answer at {address}; the last answer was: {last}"
        );
        if in_a_row == 0 {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// What the client measured.
#[derive(Debug, PartialEq)]
pub(super) struct Figures {
    requests: u64,
    failures: u64,
    reasons: String,
    rate: f64,
    /// The versions that answered, in the order of their first answers.
    versions: Vec<String>,
    flicker: Duration,
}

impl Figures {
    fn of(summary: &Value) -> Result<Self> {
        let number = |field| summary[field].as_u64().context(field);
        let versions = summary["versions"].as_array().context("versions")?;
        let name = |version: &Value| version["version"].as_str().map(str::to_owned);
        let names = versions
            .iter()
            .map(|version| name(version).context("version"));
        let names = names.collect::<Result<Vec<_>>>()?;
        let flicker = match versions.as_slice() {
            [old, new] => {
                let overlap = old["last_ms"].as_f64().context("last_ms")?
                    - new["first_ms"].as_f64().context("first_ms")?;
                Duration::from_secs_f64(overlap.max(0.0) / 1e3)
            }
            _ => Duration::ZERO,
        };
        Ok(Self {
            requests: number("requests")?,
            failures: number("failures")?,
            reasons: summary["reasons"].to_string(),
            rate: summary["rate"].as_f64().context("rate")?,
            versions: names,
            flicker,
        })
    }

    /// What must not be.
    pub(super) fn fault(&self) -> Option<String> {
        if self.failures > 0 {
            let Self {
                failures, requests, ..
            } = self;
            return Some(format!(
                "{failures} of {requests} requests failed: {}",
                self.reasons
            ));
        }
        let moved = self.versions == ["blue", "green"];
        (!moved).then(|| format!("not from blue to green, but {}", self.versions.join(", ")))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flicker = format!("{:.1} ms", self.flicker.as_secs_f64() * 1e3);
        let Self {
            requests,
            rate,
            failures,
            ..
        } = self;
        write!(f, "{requests:>10}{rate:>10.0}{failures:>8}{flicker:>12}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn figures(failures: u64, versions: Value) -> Figures {
        let summary = json!({
            "requests": 1000, "failures": failures, "reasons": { "status 503": failures },
            "rate": 400.0, "versions": versions,
        });
        Figures::of(&summary).expect("a summary")
    }

    #[test]
    fn the_flicker_is_how_long_both_answered() {
        let versions = |last: f64| {
            json!([
                { "version": "blue", "first_ms": 1.0, "last_ms": last },
                { "version": "green", "first_ms": 500.0, "last_ms": 900.0 },
            ])
        };
        let flicker = |last| figures(0, versions(last)).flicker;
        assert_eq!(flicker(504.5), Duration::from_micros(4500));
        assert_eq!(flicker(499.0), Duration::ZERO);
    }

    #[test]
    fn a_failed_request_and_anything_but_blue_and_then_green_is_a_fault() {
        let version = |name| json!({ "version": name, "first_ms": 1.0, "last_ms": 2.0 });
        let [blue, green] = [version("blue"), version("green")];
        assert_eq!(figures(0, json!([blue, green])).fault(), None);
        let failed = figures(1, json!([blue, green])).fault().expect("a fault");
        assert!(
            failed.contains("1 of 1000") && failed.contains("503"),
            "{failed}"
        );
        for versions in [
            json!([]),
            json!([blue]),
            json!([green, blue]),
            json!([blue, green, blue]),
        ] {
            assert!(figures(0, versions.clone()).fault().is_some(), "{versions}");
        }
    }
}
