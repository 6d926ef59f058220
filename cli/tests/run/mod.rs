//! Runs the real binary.

#![allow(dead_code, reason = "not every test file needs all of it")]

pub(crate) mod server;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a call printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Calls `lanekeeper` in `directory`.
pub(crate) fn lanekeeper(directory: &Path, args: &[&str], stdin: &str) -> Ran {
    lanekeeper_with(directory, args, stdin, &[])
}

/// Calls `lanekeeper` in `directory` with environment variables.
pub(crate) fn lanekeeper_with(
    directory: &Path,
    args: &[&str],
    stdin: &str,
    env: &[(&str, &str)],
) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lanekeeper"))
        .args(args)
        .current_dir(directory)
        .env_remove("LANEKEEPER_POLICY")
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let stdin = stdin.to_owned();
    // It may answer before it has read everything, or read nothing at all.
    let feed = std::thread::spawn(move || drop(pipe.write_all(stdin.as_bytes())));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A directory that holds these files.
pub(crate) fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

/// The repository's policies.
pub(crate) fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm-plugins/policies")
}
