//! The steps of the suite, in their order.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use harness::prometheus::Monitoring;
use harness::{build, debian, envoy};

use super::{Outcome, Step};
use crate::machine::{self, works};

/// The step that is only taken when it is asked for.
pub(super) const MATRIX: &str = "envoys";

pub(super) const STEPS: [Step; 12] = [
    Step {
        name: "setup",
        about: "the Rust targets, Node.js, pip, Redis and Chromium",
        run: setup,
    },
    Step {
        name: "fmt",
        about: "cargo fmt --check, gofmt",
        run: fmt,
    },
    Step {
        name: "clippy",
        about: "clippy for all packages, and for the filter as wasm",
        run: clippy,
    },
    Step {
        name: "build",
        about: "the filter and the services, as they are released",
        run: build_all,
    },
    Step {
        name: "test",
        about: "cargo test for all packages",
        run: test,
    },
    Step {
        name: "browser",
        about: "sentiment review in a real browser",
        run: browser,
    },
    Step {
        name: "monitor",
        about: "rules, dashboards and mails by the tools of others, and what they say of a system that breaks",
        run: monitor,
    },
    Step {
        name: "mesh",
        about: "the promises and the manifests in a mesh, with Istio's own control plane",
        run: mesh,
    },
    Step {
        name: "wasm32",
        about: "the policy's tests compiled to wasm, on Node.js",
        run: wasm32,
    },
    Step {
        name: MATRIX,
        about: "the promises on every supported Envoy (--envoy-matrix)",
        run: envoys,
    },
    Step {
        name: "demo",
        about: "a short demo of each application, in which every user must keep the version",
        run: demo,
    },
    Step {
        name: "cutover",
        about: "from blue to green at full speed, by policy and by Service: no request may fail",
        run: cutover,
    },
];

fn setup() -> Result<Outcome> {
    for target in [build::WASM_TARGET, POLICY_TARGET] {
        build::ensure_target(target)?;
    }
    let mut missing = Vec::new();
    for (program, args, package) in [
        ("node", &["--version"][..], "nodejs"),
        ("python3", &["-m", "pip", "--version"][..], "python3-pip"),
        ("redis-server", &["--version"][..], "redis-server"),
        // The browser has the driver's version: Debian makes both from one source.
        ("chromium", &["--version"][..], "chromium"),
        ("chromedriver", &["--version"][..], "chromium-driver"),
    ] {
        let install = || machine::install(&[package], |_, command| say_and_run(command));
        let there = works(program, args) || (install().is_ok() && works(program, args));
        if !there {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        return Ok(Outcome::Passed);
    }
    skip(format!("missing packages; {}", debian::by_hand(&missing)))
}

fn fmt() -> Result<Outcome> {
    say_and_run(&mut cargo(&["fmt", "--check"]))?;
    // Without Go, the step `mesh` says that it is missing.
    let Ok(go) = Command::new("gofmt")
        .args(["-l", "."])
        .current_dir(build::workspace().join("e2e/mesh"))
        .output()
    else {
        return Ok(Outcome::Passed);
    };
    let files = String::from_utf8_lossy(&go.stdout);
    ensure!(
        go.status.success() && files.is_empty(),
        "gofmt would change, in e2e/mesh: {}",
        files.split_whitespace().collect::<Vec<_>>().join(", ")
    );
    Ok(Outcome::Passed)
}

fn clippy() -> Result<Outcome> {
    say_and_run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))?;
    let target = build::WASM_TARGET;
    passes(cargo(&[
        "clippy",
        "--package=lanekeeper-filter",
        "--target",
        target,
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))
}

fn build_all() -> Result<Outcome> {
    say_and_run(&mut build::filter_command())?;
    passes(build::service_command(build::SERVICES[0]))
}

fn test() -> Result<Outcome> {
    passes(cargo(&[
        "test",
        "--workspace",
        "--locked",
        "--no-fail-fast",
    ]))
}

/// Screenshots go to `target/screenshots`.
fn browser() -> Result<Outcome> {
    for program in ["chromium", "chromedriver"] {
        if !works(program, &["--version"]) {
            return skip(format!("there is no {program}"));
        }
    }
    passes(cargo(&[
        "test",
        "--package=promises",
        "--test=browser",
        "--locked",
    ]))
}

/// What can be checked is, also where a tool is missing.
fn monitor() -> Result<Outcome> {
    let run = |test| {
        let test = format!("--test={test}");
        say_and_run(&mut cargo(&[
            "test",
            "--package=promises",
            &test,
            "--locked",
        ]))
    };
    let mut missing = Vec::new();
    match debian::program("promtool").and_then(|_| debian::program("amtool")) {
        Ok(_) => run("monitoring_rules")?,
        Err(error) => missing.push(format!("{error:#}")),
    }
    match Monitoring::check() {
        Ok(()) => {
            run("alerts")?;
            run("verdict")?;
        }
        Err(error) => missing.push(format!("{error:#}")),
    }
    let python = "import sys, pip; sys.exit(sys.version_info < (3, 11))";
    match works("go", &["version"]) && works("python3", &["-c", python]) {
        true => run("monitoring_schemas")?,
        false => missing.push("there is no Go, or no Python 3.11 with pip".to_owned()),
    }
    match missing.is_empty() {
        true => Ok(Outcome::Passed),
        false => skip(missing.join("; ")),
    }
}

fn mesh() -> Result<Outcome> {
    let e2e = |system| {
        let mut e2e = cargo(&["run", "--quiet", "--locked", "--package=e2e", "--"]);
        e2e.arg(system);
        e2e
    };
    // Progress goes to stderr, the reason why there is no control plane to stdout.
    let built = e2e("build").stderr(Stdio::inherit()).output()?;
    let excused = match built.status.code() {
        Some(0) => return passes(e2e("mesh")),
        Some(3) => false,
        Some(4) => true,
        _ => bail!("no control plane was built ({})", built.status),
    };
    let reason = String::from_utf8_lossy(&built.stdout).trim().to_owned();
    Ok(Outcome::Skipped { reason, excused })
}

const POLICY_TARGET: &str = "wasm32-unknown-unknown";

/// The filter runs the policy in 32 bits: so do these tests.
fn wasm32() -> Result<Outcome> {
    if !works("node", &["--version"]) {
        return skip("there is no Node.js (program `node`)".to_owned());
    }
    let lock = fs::read_to_string(build::workspace().join("Cargo.lock")).context("Cargo.lock")?;
    let version =
        locked_version(&lock, "wasm-bindgen").context("Cargo.lock has no wasm-bindgen")?;
    let root = build::target_dir()
        .join("tools")
        .join(format!("wasm-bindgen-{version}"));
    let runner = root.join("bin/wasm-bindgen-test-runner");
    if !runner.is_file() {
        // Runner and library speak a protocol that changes with every version.
        let install = |lock: &[&str]| {
            let mut install = cargo(&["install", "wasm-bindgen-cli", "--version", version]);
            install.arg("--root").arg(&root).args(lock);
            say_and_run(&mut install)
        };
        // Its lock file may name versions of other crates that are gone.
        if let Err(error) = install(&["--locked"]).or_else(|_| install(&[])) {
            if crate_is_gone("wasm-bindgen-cli", version)? {
                let reason = format!("crates.io no longer has wasm-bindgen-cli {version}");
                return Ok(Outcome::Skipped {
                    reason,
                    excused: true,
                });
            }
            return Err(error);
        }
    }
    let mut tests = cargo(&[
        "test",
        "--package=lanekeeper-policy",
        "--lib",
        "--tests",
        "--locked",
    ]);
    tests.args(["--target", POLICY_TARGET]);
    tests.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", runner);
    passes(tests)
}

fn envoys() -> Result<Outcome> {
    let mut failed = Vec::new();
    let mut gone = Vec::new();
    for version in envoy::SUPPORTED {
        match envoy::version(version) {
            Ok(_) => {}
            Err(error) if wheel_is_gone(&format!("{error:#}")) => {
                gone.push(version);
                continue;
            }
            Err(error) => return Err(error),
        }
        println!("--- Envoy {version}");
        let mut tests = cargo(&["test", "--package=promises", "--locked"]);
        tests.env("ENVOY_VERSION", version);
        if let Err(error) = say_and_run(&mut tests) {
            println!("{error:#}");
            failed.push(version);
        }
    }
    ensure!(
        failed.is_empty(),
        "promises are broken on Envoy {}",
        failed.join(", ")
    );
    if gone.is_empty() {
        return Ok(Outcome::Passed);
    }
    let reason = format!("PyPI no longer has Envoy {}", gone.join(", "));
    Ok(Outcome::Skipped {
        reason,
        excused: true,
    })
}

fn demo() -> Result<Outcome> {
    let ports = ["--prometheus-port=0", "--alertmanager-port=0"];
    let monitoring = match Monitoring::check() {
        Ok(()) => [&["--monitoring"], &ports[..]].concat(),
        // The step of the monitoring says why.
        Err(_) => Vec::new(),
    };
    for app in ["sms-checker", "sentiment"] {
        // Through cargo: this program may have been built anew since it was started.
        let mut demo = cargo(&["run", "--quiet", "--locked", "--package=xtask", "--"]);
        demo.args([
            "demo",
            "--app",
            app,
            "--for",
            "20s",
            "--quiet",
            "--port",
            "0",
            "--admin-port",
            "0",
        ]);
        say_and_run(demo.args(&monitoring))?;
    }
    Ok(Outcome::Passed)
}

fn cutover() -> Result<Outcome> {
    let mut cutover = cargo(&["run", "--quiet", "--locked", "--package=xtask", "--"]);
    cutover.args(["cutover", "--runs", "1", "--for", "4s", "--quiet"]);
    passes(cutover)
}

fn cargo(args: &[&str]) -> Command {
    let mut command = build::cargo();
    command.args(args);
    command
}

fn skip(reason: String) -> Result<Outcome> {
    Ok(Outcome::Skipped {
        reason,
        excused: false,
    })
}

fn passes(mut command: Command) -> Result<Outcome> {
    say_and_run(&mut command).map(|()| Outcome::Passed)
}

/// Runs a command whose output is for the reader.
fn say_and_run(command: &mut Command) -> Result<()> {
    let program = Path::new(command.get_program()).file_name();
    let words = program.into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let line = words.join(" ");
    println!("$ {line}");
    let status = command
        .status()
        .with_context(|| format!("cannot run {line}"))?;
    match status.success() {
        true => Ok(()),
        false => bail!("{line} ({status})"),
    }
}

/// Whether crates.io answers, and has no such version: no reason to find fault with a change.
fn crate_is_gone(name: &str, version: &str) -> Result<bool> {
    let output = cargo(&["info", "--color=never", &format!("{name}@{version}")]).output()?;
    Ok(String::from_utf8_lossy(&output.stderr).contains("could not find"))
}

/// Whether pip had an answer, and there is no such version. An empty list is how it reports a
/// broken network.
fn wheel_is_gone(error: &str) -> bool {
    error.contains("(from versions: ") && !error.contains("(from versions: none)")
}

/// The version of a package in the text of a Cargo.lock.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines
        .nth(1)?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_says_which_version() {
        let lock = "[[package]]\nname = \"a-b\"\nversion = \"1.0.0\"\n\n\
                    [[package]]\nname = \"a\"\nversion = \"2.0.0\"\nsource = \"x\"\n";
        assert_eq!(locked_version(lock, "a"), Some("2.0.0"));
        assert_eq!(locked_version(lock, "b"), None);
    }

    #[test]
    fn a_broken_network_is_no_missing_version() {
        assert!(wheel_is_gone("(from versions: 1.38.3, 1.39.3)"));
        assert!(!wheel_is_gone("(from versions: none)"));
        assert!(!wheel_is_gone("THESE PACKAGES DO NOT MATCH THE HASHES"));
    }
}
