//! Runs a service as its operator does: the real program, set up by environment variables.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running service on a free loopback port; ends when dropped.
pub struct Process {
    child: Child,
    /// Where it listens, such as `http://127.0.0.1:34567`.
    pub url: String,
    log: Arc<Mutex<Vec<Value>>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `program` and waits until it listens. Nothing of the caller's environment gets in.
    pub fn start(program: &str, environment: &[(&str, &str)]) -> io::Result<Self> {
        let mut child = command(program, environment).spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut lines = BufReader::new(stdout).lines();
        // What it does before it listens is logged, too.
        let mut before = Vec::new();
        let address = loop {
            let line = lines
                .next()
                .ok_or_else(|| io::Error::other(format!("{program} ended before it listened")))??;
            let line: Value = serde_json::from_str(&line)?;
            let address = line["address"].as_str().map(str::to_owned);
            before.push(line);
            if let Some(address) = address {
                break address;
            }
        };
        let url = format!("http://{address}");

        let log = Arc::new(Mutex::new(before));
        let reader = std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in lines.map_while(Result::ok) {
                    // A line that is not JSON is kept, for tests to stumble over.
                    let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                    log.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(line);
                }
            }
        });
        Ok(Self {
            child,
            url,
            log,
            reader: Some(reader),
        })
    }

    /// Sends a signal such as `TERM`.
    pub fn signal(&self, name: &str) -> io::Result<()> {
        let kill = format!("kill -{name} {}", self.child.id());
        Command::new("sh").args(["-c", &kill]).status().map(drop)
    }

    /// Waits for the end, for at most ten seconds.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops the service and hands back all that it logged.
    pub fn stop(mut self) -> io::Result<Vec<Value>> {
        self.signal("TERM")?;
        self.wait()?;
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| io::ErrorKind::Other)?;
        }
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *log))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, ready to start.
pub fn command(program: &str, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LISTEN_ADDR", "127.0.0.1:0")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// Runs the program in an environment in which it must not start; the error that it prints.
pub fn refusal(program: &str, environment: &[(&str, &str)]) -> String {
    let output = command(program, environment).output().expect("runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it started: {environment:?}");
    error
}

/// Checks that the program does not start with any of the bad settings, which have a name, a value and
/// what is allowed, in an environment that is good otherwise. It says name and what is allowed, and no
/// secret.
pub fn check_bad_settings(program: &str, good: &[(&str, &str)], bad: &[(&str, &str, &str)]) {
    for (name, value, allowed) in bad {
        let error = refusal(program, &[good, &[(*name, *value)]].concat());
        assert!(
            error.contains(name) && error.contains(allowed),
            "{name}={value}: {error}"
        );
        assert!(!error.contains("secret"), "{error}");
    }
}

/// Checks that `--help` lists the environment variables that every service has, and `more`, without
/// their values.
pub fn check_help(program: &str, more: &[&str]) {
    let common = [
        "LISTEN_ADDR",
        "VERSION",
        "REQUEST_TIMEOUT",
        "SHUTDOWN_TIMEOUT",
    ];
    let names = || common.iter().chain(more).copied();
    let environment: Vec<_> = names().map(|name| (name, "secret")).collect();
    let output = command(program, &environment).arg("--help").output();
    let output = output.expect("runs");
    let help = String::from_utf8_lossy(&output.stdout);
    for name in names() {
        let listed = format!("[env: {name}]");
        assert!(help.contains(&listed), "{name} is not in\n{help}");
    }
    assert!(!help.contains("secret"), "{help}");
}

/// A client that no proxy of the developer's gets in the way of.
pub fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
}
