//! The course of a run, whatever the system is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use harness::build;

use super::steps::Steps;

/// A folder in `target/e2e`, of one run at a time.
#[derive(Debug)]
pub(in crate::e2e) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// The folder of a suite. An error while another run has it.
    pub(in crate::e2e) fn of(suite: &str) -> Result<Self> {
        let path = build::target_dir().join("e2e").join(suite);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        let file = path.join("lock");
        let lock = File::create(&file)?;
        if lock.try_lock().is_err() {
            bail!("another run is under way (it locks {})", file.display());
        }
        Ok(Self { path, _lock: lock })
    }

    pub(in crate::e2e) fn path(&self) -> &Path {
        &self.path
    }
}

/// What a run makes and removes.
pub(in crate::e2e) trait System {
    /// Keeps what its parts have said.
    fn save_logs(&self);

    /// Removes everything that this or an earlier run has made.
    fn remove(&self) -> Result<()>;

    fn say_how_to_go_on(&self);
}

/// Starts a system and tests it by `test`, and removes it unless it is to be kept. `false` where a
/// promise is broken.
pub(in crate::e2e) fn run(
    system: &impl System,
    steps: &Steps,
    keep: bool,
    test: impl FnOnce() -> Result<bool>,
) -> Result<bool> {
    // Of a run that was killed.
    system.remove()?;
    let kept = test();
    if !matches!(kept, Ok(true)) && !steps.stopped() {
        system.save_logs();
        println!("The logs are in {}", steps.logs().display());
    }
    if keep && !steps.stopped() {
        system.say_how_to_go_on();
        return kept;
    }
    let removed = system.remove();
    // What went wrong first is what matters.
    let kept = kept?;
    removed?;
    Ok(kept)
}

/// A command as people would type it, word by word.
pub(in crate::e2e) fn words(command: &Command) -> Vec<String> {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}
