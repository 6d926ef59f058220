//! The real Envoy: started with a bootstrap, asked through its admin API.

mod binary;
mod log;

pub use binary::{SUPPORTED, find, find_or_on_path, version};
pub use log::Log;

use crate::http;
use crate::process::Process;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How to start Envoy.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names the process in messages and its directory of logs.
    pub name: String,
    /// The Envoy to run; see [`find`].
    pub binary: PathBuf,
    /// The bootstrap, YAML or JSON, without an `admin` section. Listeners
    /// should bind port 0 and be looked up with [`Envoy::port`].
    pub bootstrap: String,
    /// Worker threads.
    pub concurrency: u32,
    /// Loopback port of the admin API; 0 lets the system choose.
    pub admin_port: u16,
    /// `warning`, `info`, `debug`..., for the wasm and other components alike.
    pub log_level: String,
    /// More command line arguments, such as `--service-node`.
    pub args: Vec<String>,
    /// Where the log and the bootstrap go, to stay there; `None` for a
    /// directory that is removed in the end.
    pub dir: Option<PathBuf>,
}

impl Options {
    /// One worker of the newest supported Envoy.
    pub fn new(name: &str, bootstrap: impl Into<String>) -> Result<Options> {
        Ok(Options {
            name: name.to_owned(),
            binary: find()?,
            bootstrap: bootstrap.into(),
            concurrency: 1,
            admin_port: 0,
            log_level: "info".to_owned(),
            args: vec![],
            dir: None,
        })
    }
}

/// A running Envoy. Killed when dropped; its log is printed when a test panics.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    admin: String,
    concurrency: u32,
}

impl Envoy {
    /// Starts Envoy and waits until it is ready to serve.
    pub fn start(options: Options) -> Result<Envoy> {
        let keeps_dir = options.dir.is_some();
        let dir = match options.dir {
            Some(dir) => dir,
            None => Process::scratch_dir(&options.name)?,
        };
        let config = dir.join("bootstrap.yaml");
        fs::write(&config, &options.bootstrap)?;
        let admin_address = dir.join("admin-address");
        let admin = format!(
            "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}",
            options.admin_port
        );
        let mut command = Command::new(&options.binary);
        command
            .arg("--config-path")
            .arg(&config)
            .args(["--config-yaml", &admin])
            .arg("--admin-address-path")
            .arg(&admin_address)
            .args(["--concurrency", &options.concurrency.to_string()])
            .args(["--log-level", &options.log_level])
            // Shared memory by base id would tie Envoys of one machine together.
            .arg("--disable-hot-restart")
            .args(&options.args);
        let mut process = Process::start(&options.name, dir, &mut command)?;
        if keeps_dir {
            process.keep_dir();
        }
        let mut envoy = Envoy {
            process,
            admin: String::new(),
            concurrency: options.concurrency,
        };
        let mut admin = String::new();
        envoy.process.wait_until_ready(START_TIMEOUT, || {
            // Envoy writes the file in one go, but may be caught in the act.
            admin = fs::read_to_string(&admin_address).unwrap_or_default();
            !admin.is_empty()
                && http::get(&format!("http://{admin}/ready")).is_ok_and(|r| r.status == 200)
        })?;
        envoy.admin = admin;
        Ok(envoy)
    }

    /// The port that the system gave to a listener, by the listener's name.
    pub fn port(&self, listener: &str) -> Result<u16> {
        let listeners = self.admin_get("/listeners?format=json")?;
        let listeners: Value = serde_json::from_str(&listeners)?;
        let statuses = listeners["listener_statuses"]
            .as_array()
            .into_iter()
            .flatten();
        let mut named = statuses.filter(|status| status["name"] == listener);
        let port = named.next().and_then(|status| {
            status
                .pointer("/local_address/socket_address/port_value")?
                .as_u64()?
                .try_into()
                .ok()
        });
        port.with_context(|| format!("Envoy has no listener {listener:?}: {listeners}"))
    }

    /// `127.0.0.1:port` of a listener, as [`http::send`] takes it.
    pub fn address(&self, listener: &str) -> Result<String> {
        Ok(format!("127.0.0.1:{}", self.port(listener)?))
    }

    /// `host:port` of the admin API.
    pub fn admin_address(&self) -> &str {
        &self.admin
    }

    /// Asks the admin API; anything but 200 is an error.
    pub fn admin_get(&self, path: &str) -> Result<String> {
        self.admin_send(&http::Request::get(path), path)
    }

    /// Changes something through the admin API, such as `/logging?wasm=debug`.
    pub fn admin_post(&self, path: &str) -> Result<String> {
        self.admin_send(&http::Request::post(path, ""), path)
    }

    fn admin_send(&self, request: &http::Request, path: &str) -> Result<String> {
        let response = http::send(&self.admin, request)?;
        ensure!(
            response.status == 200,
            "{path}: {} {}",
            response.status,
            response.text()
        );
        Ok(response.text())
    }

    /// A counter or gauge by its full name; `None` while Envoy does not know it.
    pub fn stat(&self, name: &str) -> Result<Option<u64>> {
        let stats = self.admin_get("/stats")?;
        let value = stats
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value
            .map(|v| v.parse().with_context(|| format!("{name}: {v}")))
            .transpose()
    }

    /// All metrics in the Prometheus text format.
    pub fn prometheus(&self) -> Result<String> {
        self.admin_get("/stats/prometheus")
    }

    /// The configuration in force.
    pub fn config_dump(&self) -> Result<Value> {
        let dump = self.admin_get("/config_dump")?;
        serde_json::from_str(&dump).with_context(|| format!("/config_dump is no JSON: {dump}"))
    }

    /// What can be asked of its threads, also while somebody else holds this Envoy.
    pub fn log(&self) -> Log {
        Log {
            file: self.process.log_path(),
            threads: self.concurrency as usize + 1,
        }
    }

    /// Everything Envoy logged so far.
    pub fn logs(&self) -> String {
        self.process.logs()
    }

    /// The process, for its id and log file.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process, to be asked whether it still runs.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
