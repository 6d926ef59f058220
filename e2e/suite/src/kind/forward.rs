//! A way from here to something in the cluster.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread;

use anyhow::{Context, Result};

use super::kubectl::Kubectl;

/// `kubectl port-forward`. It ends when this is dropped.
pub(crate) struct Forward {
    child: Child,
    /// `host:port` here.
    pub(crate) address: String,
}

impl Forward {
    /// A way to a port of a workload, such as `service/registry`.
    pub(crate) fn start(
        kubectl: &Kubectl,
        namespace: &str,
        workload: &str,
        port: u16,
    ) -> Result<Self> {
        let port = format!(":{port}");
        let mut command =
            kubectl.command(&["port-forward", "--namespace", namespace, workload, &port]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        // Forwarding from 127.0.0.1:40000 -> 5000
        let address = line.strip_prefix("Forwarding from ");
        let address = address.and_then(|rest| rest.split(' ').next());
        let address = address.map(str::to_owned);
        // It says a line for each connection, and waits until somebody reads it.
        thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
        let mut forward = Self {
            child,
            address: String::new(),
        };
        forward.address = address.with_context(|| format!("kubectl port-forward says: {line}"))?;
        Ok(forward)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
