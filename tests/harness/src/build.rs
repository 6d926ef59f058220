//! Builds what tests and tools run. Cargo decides what is fresh; here each
//! artefact is asked for once per process.

use crate::process;
use anyhow::{Result, bail, ensure};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

const WASM_TARGET: &str = "wasm32-wasip1";

/// The compiled filter, built if it is not fresh.
pub fn filter_wasm() -> Result<PathBuf> {
    once("filter", || {
        ensure_wasm_target()?;
        cargo_build(&[
            "--package=lanekeeper-filter",
            "--profile=wasm",
            "--target",
            WASM_TARGET,
        ])?;
        Ok(target_dir().join(WASM_TARGET).join("wasm/lanekeeper.wasm"))
    })
}

/// The release binary of a workspace package (`app-service`, `lanekeeper`...),
/// built if it is not fresh. Package and binary carry the same name.
pub fn service_binary(name: &str) -> Result<PathBuf> {
    once(name, || {
        cargo_build(&["--package", name, "--release"])?;
        Ok(target_dir().join("release").join(name))
    })
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

fn cargo_build(args: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command
        .current_dir(workspace())
        .args(["build", "--locked", "--target-dir"])
        .arg(target_dir())
        .args(args);
    process::run(&mut command, &format!("cargo build {}", args.join(" ")))?;
    Ok(())
}

fn ensure_wasm_target() -> Result<()> {
    let mut rustc = Command::new("rustc");
    rustc
        .current_dir(workspace())
        .args(["--print", "target-libdir", "--target", WASM_TARGET]);
    let libdir = process::run(&mut rustc, "rustc --print target-libdir")?;
    if Path::new(libdir.trim()).is_dir() {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup
        .current_dir(workspace())
        .args(["target", "add", WASM_TARGET]);
    let added = process::run(&mut rustup, &format!("rustup target add {WASM_TARGET}"));
    if let Err(why) = added {
        bail!("the Rust target {WASM_TARGET} is missing and could not be added: {why:#}");
    }
    Ok(())
}
