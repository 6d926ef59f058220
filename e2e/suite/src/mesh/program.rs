//! The control plane's program: Istio's packages in a command of our own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use harness::{build, process};

/// Istio needs it.
const GO: (u32, u32) = (1, 26);

const INSTALL_GO: &str = "install it: curl -fsSL https://go.dev/dl/go1.26.8.linux-amd64.tar.gz | \
                          sudo tar -C /usr/local -xz, then export PATH=$PATH:/usr/local/go/bin";

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
    let missing = |reason| Program::Unavailable {
        reason,
        excused: false,
    };
    match go_version() {
        Err(_) => {
            return Ok(missing(format!(
                "there is no Go (program `go`); {INSTALL_GO}"
            )));
        }
        Ok(version) if version < GO => {
            return Ok(missing(format!(
                "Go is older than {}.{}; {INSTALL_GO}",
                GO.0, GO.1
            )));
        }
        Ok(_) => {}
    }
    fs::create_dir_all(&dir)?;
    let mut go = Command::new("go");
    go.current_dir(&source)
        .args(["build", "-trimpath", "-mod=readonly", "-o"])
        .arg(&program)
        .arg(".");
    println!(
        "Building the control plane from Istio's packages. The first time, it takes about ten"
    );
    println!("minutes on two cores and 3 GB of disk, 650 MB of it fetched; then seconds.");
    match process::run(&mut go, "go build") {
        Ok(_) => {
            fs::write(&stamp, sources)?;
            Ok(Program::Built(program))
        }
        Err(error) if module_is_gone(&format!("{error:#}")) => Ok(Program::Unavailable {
            reason: format!("Istio's module is no longer to be had: {error:#}"),
            excused: true,
        }),
        Err(error) => Err(error),
    }
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

fn go_version() -> Result<(u32, u32)> {
    let text = process::run(Command::new("go").args(["env", "GOVERSION"]), "go version")?;
    let Some(version) = text.trim().strip_prefix("go") else {
        bail!("no version in {text:?}");
    };
    let mut numbers = version.split(['.', 'r', 'b', '-']).map(str::parse);
    let mut number = || numbers.next().and_then(Result::ok);
    number()
        .zip(number())
        .with_context(|| format!("no version in {text:?}"))
}

/// Whether a registry answered, and does not have a module (any more).
fn module_is_gone(error: &str) -> bool {
    let gone = [
        "404 Not Found",
        "410 Gone",
        "403 Forbidden",
        "unknown revision",
    ];
    gone.iter().any(|answer| error.contains(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_network_is_no_missing_module() {
        assert!(module_is_gone(
            "istio.io/istio@v0.0.0-2026: reading https://x/@v/v0.zip: 404 Not Found"
        ));
        assert!(!module_is_gone("dial tcp: lookup x: no such host"));
        assert!(!module_is_gone("./main.go:3:1: syntax error"));
    }
}
