//! By Service: the files of `istio/blue-green` in a mesh.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, bail};
use harness::build;

use super::client::Client;
use super::{Outcome, after, expect};

/// Exit codes of `e2e` where the control plane cannot be built.
const UNAVAILABLE: [i32; 2] = [3, 4];

pub(super) fn cutover(client: &Client) -> Result<Outcome> {
    let mut mesh = Mesh::start()?;
    mesh.ask("01-blue.yaml")?;
    let first = mesh.line()?;
    let Ok(gateway) = expect(&first, "gateway ") else {
        let status = mesh.e2e.wait()?;
        match status.code() {
            Some(code) if UNAVAILABLE.contains(&code) => {
                return Ok(Outcome::Skipped(first.trim().to_owned()));
            }
            _ => bail!("the mesh did not start ({status})"),
        }
    };
    mesh.applied("01-blue.yaml")?;
    mesh.apply("02-green.yaml")?;
    let third = client.time / 3;
    let figures = client.send_while(gateway, || {
        after(third, || mesh.apply("03-switch.yaml"))?;
        after(third, || mesh.apply("04-retire.yaml"))
    })?;
    Ok(Outcome::Done(figures))
}

/// The end-to-end suite's mesh. It ends with its input.
struct Mesh {
    e2e: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Mesh {
    fn start() -> Result<Self> {
        let mut e2e = build::cargo()
            .args(["run", "--quiet", "--locked", "--package=e2e", "--", "apply"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run cargo")?;
        let output = e2e.stdout.take().context("its output")?;
        Ok(Self {
            input: e2e.stdin.take(),
            output: BufReader::new(output),
            e2e,
        })
    }

    fn apply(&mut self, file: &str) -> Result<()> {
        self.ask(file)?;
        self.applied(file)
    }

    fn ask(&mut self, file: &str) -> Result<()> {
        println!("kubectl apply -f istio/blue-green/{file}");
        let file = build::workspace().join("istio/blue-green").join(file);
        let input = self.input.as_mut().context("its input")?;
        // If it cannot be had, it says so and reads nothing.
        let _ = writeln!(input, "{}", file.display());
        Ok(())
    }

    fn applied(&mut self, file: &str) -> Result<()> {
        let line = self.line()?;
        expect(&line, "applied ").with_context(|| file.to_owned())?;
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.input = None;
        // It says itself what goes wrong.
        let _ = self.e2e.wait();
    }
}
