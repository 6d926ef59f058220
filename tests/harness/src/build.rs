//! Builds what tests and tools run. Cargo decides what is fresh; here each
//! artefact is asked for once per process.

use crate::process;
use anyhow::{Result, bail, ensure};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The services. They are built together: one by one, each would compile the
/// libraries they share with features of its own.
pub const SERVICES: [&str; 4] = [
    "app-frontend",
    "app-service",
    "model-service",
    "translation-api",
];

/// What the filter is compiled for.
pub const WASM_TARGET: &str = "wasm32-wasip1";

/// The compiled filter, built if it is not fresh.
pub fn filter_wasm() -> Result<PathBuf> {
    once("filter", || {
        ensure_target(WASM_TARGET)?;
        process::run(&mut filter_command(), "Building the filter")?;
        Ok(module("lanekeeper"))
    })
}

/// A compiled filter that does nothing, built if it is not fresh.
pub fn empty_filter_wasm() -> Result<PathBuf> {
    once("empty filter", || {
        ensure_target(WASM_TARGET)?;
        process::run(
            &mut wasm_command("empty-filter"),
            "Building an empty filter",
        )?;
        Ok(module("empty_filter"))
    })
}

/// The release binary of a workspace package (`app-service`...), built if it is not fresh. Package and binary carry the same name.
pub fn service_binary(name: &str) -> Result<PathBuf> {
    once(name, || {
        process::run(&mut service_command(name), &format!("Building {name}"))?;
        Ok(target_dir().join("release").join(name))
    })
}

/// The release binary of `lanekeeper`, built if it is not fresh.
pub fn lanekeeper() -> Result<PathBuf> {
    once("lanekeeper", || {
        let mut command = service_command("lanekeeper-cli");
        process::run(&mut command, "Building lanekeeper")?;
        Ok(target_dir().join("release").join("lanekeeper"))
    })
}

/// The folder with the services, `lanekeeper` and the `echo` of the suites, linked statically for
/// images FROM scratch, built if not fresh.
pub fn static_binaries() -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    ensure_target(&target)?;
    let mut command = cargo_build();
    command.args(["--release", "--package", "lanekeeper-cli"]);
    command.args(["--package", "echo"]);
    target_of(&mut command, &target);
    for package in SERVICES {
        command.args(["--package", package]);
    }
    process::run(&mut command, "Building static binaries")?;
    Ok(target_dir().join(target).join("release"))
}

/// The cargo command of [`filter_wasm`], for those who want to see its output.
pub fn filter_command() -> Command {
    wasm_command("lanekeeper-filter")
}

/// The cargo command of [`service_binary`], for those who want to see its output.
pub fn service_command(name: &str) -> Command {
    let mut command = cargo_build();
    command.arg("--release");
    let alone = [name];
    let together = SERVICES.contains(&name);
    for package in if together { &SERVICES[..] } else { &alone } {
        command.args(["--package", package]);
    }
    command
}

/// The cargo command that builds the end-to-end suite.
pub fn suite_command() -> Command {
    let mut command = cargo_build();
    command.arg("--package=e2e");
    command
}

/// The built suite, once [`suite_command`] has run.
pub fn suite() -> PathBuf {
    target_dir().join("debug").join("e2e")
}

/// The cargo that runs this, else the one there is, in the workspace.
pub fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(workspace());
    command
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .ancestors()
        .nth(2)
        .expect("the harness lies two levels below the root")
}

/// Where cargo puts what it builds: `CARGO_TARGET_DIR`, else `target`.
pub fn target_dir() -> PathBuf {
    let dir = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace().join(dir)
}

/// Builds under a lock, so that parallel tests wait for one build instead of
/// starting several.
fn once(name: &str, build: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(path) = built.get(name) {
        return Ok(path.clone());
    }
    let path = build()?;
    ensure!(path.is_file(), "cargo built no {}", path.display());
    built.insert(name.to_owned(), path.clone());
    Ok(path)
}

fn wasm_command(package: &str) -> Command {
    let mut command = cargo_build();
    command.args(["--package", package, "--profile=wasm"]);
    target_of(&mut command, WASM_TARGET);
    command
}

fn target_of(command: &mut Command, target: &str) {
    command.args(["--target", target]);
    // Messages name the files of libraries: not by the home of whoever builds, so that the same
    // source makes the same bytes everywhere.
    if let Some(home) = cargo_home() {
        let remap = format!("--remap-path-prefix={}=/cargo", home.display());
        let flags = format!("target.{target}.rustflags=[{remap:?}]");
        command.args(["--config", &flags]);
    }
}

fn cargo_home() -> Option<PathBuf> {
    let set = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    set.or_else(|| Some(std::env::home_dir()?.join(".cargo")))
}

fn module(name: &str) -> PathBuf {
    let dir = target_dir().join(WASM_TARGET).join("wasm");
    dir.join(name).with_extension("wasm")
}

fn cargo_build() -> Command {
    let mut command = cargo();
    command
        .args(["build", "--locked", "--target-dir"])
        .arg(target_dir());
    command
}

/// Adds a target to the Rust toolchain where it is missing.
pub fn ensure_target(target: &str) -> Result<()> {
    let mut rustc = Command::new("rustc");
    rustc
        .current_dir(workspace())
        .args(["--print", "target-libdir", "--target", target]);
    let libdir = process::run(&mut rustc, "rustc --print target-libdir")?;
    if Path::new(libdir.trim()).is_dir() {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup
        .current_dir(workspace())
        .args(["target", "add", target]);
    let added = process::run(&mut rustup, &format!("rustup target add {target}"));
    if let Err(why) = added {
        bail!("the Rust target {target} is missing and could not be added: {why:#}");
    }
    Ok(())
}
