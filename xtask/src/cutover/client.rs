//! The test client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{build, http};
use serde_json::Value;

use super::figures::Figures;
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
