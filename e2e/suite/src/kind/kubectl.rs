//! kubectl, with the cluster that the suite was given.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    kubeconfig: PathBuf,
}

impl Kubectl {
    pub(super) fn new(kubeconfig: &Path) -> Self {
        Self {
            kubeconfig: kubeconfig.to_owned(),
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command.args(arguments);
        command
    }

    /// What kubectl prints; an error if it fails.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.bytes(arguments, b"")?;
        String::from_utf8(output).with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// What kubectl prints with `--output json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let printed = self.run(&[arguments, &["--output", "json"]].concat())?;
        serde_json::from_str(&printed).with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// What kubectl prints when it is given these bytes.
    pub(crate) fn bytes(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        let what = || format!("kubectl {}", arguments.join(" "));
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(what)?;
        // Dropped at once, which is the end of the input. Whoever does not read it needs none.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{}: {}",
            what(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(output.stdout)
    }
}
