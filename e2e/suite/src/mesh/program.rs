//! The control plane's program: Istio's packages in a command of our own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{build, process};

const PROGRESS: Duration = Duration::from_secs(20);

/// The program, or why it cannot be had.
#[derive(Debug)]
pub(crate) enum Program {
    Built(PathBuf),
    /// Nothing is wrong here: `excused` if not even something is missing.
    Unavailable {
        reason: String,
        excused: bool,
    },
}

/// Builds the program, unless it is built from these very sources already: then neither Go nor a
/// network is needed.
pub(crate) fn build() -> Result<Program> {
    let source = build::workspace().join("e2e/mesh");
    let dir = build::target_dir().join("mesh");
    let (program, stamp) = (dir.join("mesh"), dir.join("sources"));
    let sources = sources(&source)?;
    if program.is_file() && fs::read_to_string(&stamp).is_ok_and(|built| built == sources) {
        return Ok(Program::Built(program));
    }
    if let Err(error) = go_is_new_enough(&source) {
        return Ok(Program::Unavailable {
            reason: format!("{error:#}; {}", install_go()),
            excused: false,
        });
    }
    fs::create_dir_all(&dir)?;
    let mut go = Command::new("go");
    go.current_dir(&source)
        .args([
            "build",
            "-v",
            "-trimpath",
            "-mod=readonly",
            "-ldflags=-s -w",
            "-o",
        ])
        .arg(&program)
        .arg(".");
    match run_with_progress(&mut go) {
        Ok(()) => {
            fs::write(&stamp, sources)?;
            Ok(Program::Built(program))
        }
        Err(error) => match missing_module(&format!("{error:#}")) {
            Some(answer) => Ok(Program::Unavailable {
                reason: format!("Istio's packages are no longer to be had: {answer}"),
                excused: true,
            }),
            None => Err(error),
        },
    }
}

/// Runs `go build -v`, which names each module that it fetches and each package that it compiles.
fn run_with_progress(go: &mut Command) -> Result<()> {
    eprintln!(
        "Building the control plane from Istio's packages. The first time, this takes about ten\n\
         minutes on two cores and 3 GB of disk, and 650 MB are fetched; then seconds."
    );
    let (mut fetched, mut compiled, mut lines) = (0, 0, Vec::new());
    let start = Instant::now();
    let mut told = start;
    let status = process::run_by_lines(go, |line| {
        if line.starts_with("go: downloading ") {
            fetched += 1;
        } else if line.contains([' ', ':']) {
            lines.push(line);
        } else {
            compiled += 1;
        }
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            let seconds = start.elapsed().as_secs();
            eprintln!(
                "  {seconds} s: {fetched} modules fetched, {compiled} of about 2,000 packages compiled"
            );
        }
    })?;
    let last = &lines[lines.len().saturating_sub(20)..];
    ensure!(
        status.success(),
        "go build ({status}):\n{}",
        last.join("\n")
    );
    Ok(())
}

/// All that the program is made of.
fn sources(dir: &Path) -> Result<String> {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    entries.sort();
    let mut texts = String::new();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        if entry.is_dir() {
            texts += &sources(&entry)?;
        } else if name.ends_with(".go") || name == "go.mod" || name == "go.sum" {
            texts += &fs::read_to_string(&entry)?;
        }
    }
    Ok(texts)
}

/// Whether there is a Go that can build the program. One that is only a little older fetches a newer
/// one by itself.
fn go_is_new_enough(source: &Path) -> Result<()> {
    let mut go = Command::new("go");
    go.current_dir(source).args(["env", "GOVERSION"]);
    let output = go.output().context("there is no Go (program `go`)")?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(
        output.status.success(),
        "Go is too old: {}",
        String::from_utf8_lossy(&said).trim()
    );
    Ok(())
}

fn install_go() -> String {
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    format!(
        "install Go 1.26: curl -fsSL https://go.dev/dl/go1.26.8.linux-{arch}.tar.gz | \
         sudo tar -C /usr/local -xz, then export PATH=$PATH:/usr/local/go/bin"
    )
}

/// What a registry answered, if it answered and does not have a module (any more).
fn missing_module(error: &str) -> Option<&str> {
    let gone = ["404 Not Found", "410 Gone", "unknown revision"];
    // What a server says to its status comes in the next line.
    let said = error.lines().skip(1).chain([""]);
    let mut lines = error.lines().zip(said);
    let missing = lines.find(|(line, said)| {
        gone.iter().any(|answer| line.contains(answer))
            // Without these words it may be somebody's own proxy or firewall, which has to be opened.
            || (line.contains("403 Forbidden")
                && said.contains("This module version is not available"))
    });
    missing.map(|(line, _)| line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_network_is_no_missing_module() {
        let gone = "istio.io/istio@v0.0.0-2026: reading https://x/@v/v0.zip: 404 Not Found";
        assert_eq!(
            missing_module(&format!("go build:\n{gone}\nmore")),
            Some(gone)
        );
        let forbidden = "istio.io/istio@v0.0.0-2026: reading https://x/@v/v0.zip: 403 Forbidden";
        assert_eq!(missing_module(forbidden), None);
        let refused = format!("{forbidden}\n\tserver response: Access denied by the firewall.");
        assert_eq!(missing_module(&refused), None);
        let gone = format!("{forbidden}\n\tserver response: This module version is not available.");
        assert_eq!(missing_module(&gone), Some(forbidden));
        assert_eq!(missing_module("dial tcp: lookup x: no such host"), None);
        assert_eq!(missing_module("./main.go:3:1: syntax error"), None);
    }
}
