//! Runs what a suite consists of: each step is said, logged, and ends when Ctrl-C is pressed.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{IsTerminal, Write, stdout};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const POLL: Duration = Duration::from_millis(50);
const LAST_LINES: usize = 30;

/// The steps of one run.
#[derive(Debug)]
pub(in crate::e2e) struct Steps {
    logs: PathBuf,
    stop: Arc<AtomicBool>,
    /// The step under way, for a terminal.
    under_way: RefCell<Option<(String, Instant)>>,
}

impl Steps {
    /// From here on Ctrl-C and SIGTERM end the step that is under way, not this program. The logs of
    /// an earlier run are removed.
    pub(in crate::e2e) fn new(logs: PathBuf) -> Result<Self> {
        if logs.exists() {
            fs::remove_dir_all(&logs).with_context(|| logs.display().to_string())?;
        }
        fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        ctrlc::set_handler(move || stopped.store(true, Ordering::SeqCst))?;
        let under_way = RefCell::default();
        Ok(Self {
            logs,
            stop,
            under_way,
        })
    }

    /// Where the logs are.
    pub(in crate::e2e) fn logs(&self) -> &Path {
        &self.logs
    }

    /// Whether somebody has pressed Ctrl-C.
    pub(in crate::e2e) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Runs a command with its output in a log; an error shows the end of it.
    pub(in crate::e2e) fn run(&self, what: &str, command: &mut Command) -> Result<()> {
        self.timed(what, || self.logged(what, command, true))
    }

    /// As [`Steps::run`], but to the end, whatever is pressed.
    pub(in crate::e2e) fn finish(&self, what: &str, command: &mut Command) -> Result<()> {
        self.timed(what, || self.logged(what, command, false))
    }

    /// Runs a command whose output is for the reader. `false` where it fails.
    pub(in crate::e2e) fn show(&self, what: &str, command: &mut Command) -> Result<bool> {
        println!("{what}");
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {:?}", command.get_program()))?;
        Ok(self.wait_for(child, true)?.success())
    }

    /// Runs a command to its end. `false` where it fails.
    pub(in crate::e2e) fn quietly(&self, command: &mut Command) -> Result<bool> {
        let null = Stdio::null;
        command.stdin(null()).stdout(null()).stderr(null());
        let child = command.process_group(0).spawn()?;
        Ok(self.wait_for(child, false)?.success())
    }

    /// Keeps what a command says.
    pub(in crate::e2e) fn save(&self, name: &str, command: &mut Command) -> Result<()> {
        self.logged(name, command, false)
    }

    /// Waits until something holds.
    pub(in crate::e2e) fn wait(
        &self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        self.timed(what, || {
            let start = Instant::now();
            while !holds()? {
                self.go_on()?;
                ensure!(start.elapsed() < limit, "not after {limit:?}");
                self.show_time();
                sleep(POLL);
            }
            Ok(())
        })
    }

    fn timed(&self, what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let start = Instant::now();
        if stdout().is_terminal() {
            self.under_way.replace(Some((what.to_owned(), start)));
            self.show_time();
        } else {
            println!("{what} ...");
        }
        let done = work().with_context(|| what.to_owned());
        if self.under_way.take().is_some() {
            println!();
        } else if start.elapsed() > Duration::from_secs(2) {
            println!("    {:.1} s", start.elapsed().as_secs_f64());
        }
        done
    }

    /// Says on a terminal how long the step takes.
    fn show_time(&self) {
        if let Some((what, start)) = &*self.under_way.borrow() {
            print!("\r{what} ... {:.0} s", start.elapsed().as_secs_f64());
            let _ = stdout().flush();
        }
    }

    fn logged(&self, what: &str, command: &mut Command, stoppable: bool) -> Result<()> {
        let name: String = what
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let path = self.logs.join(name.to_lowercase() + ".log");
        let log = File::create(&path).with_context(|| path.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {:?}", command.get_program()))?;
        let status = self.wait_for(child, stoppable)?;
        if status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        bail!("{status}. The end of {}:\n{last}", path.display())
    }

    /// Waits for the end of a process, or ends it and all that it started.
    fn wait_for(&self, mut child: Child, stoppable: bool) -> Result<ExitStatus> {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if stoppable && self.stopped() {
                let group = format!("-{}", child.id());
                Command::new("kill")
                    .args(["-s", "TERM", "--", &group])
                    .status()?;
                child.wait()?;
            }
            if stoppable {
                self.go_on()?;
            }
            self.show_time();
            sleep(POLL);
        }
    }

    fn go_on(&self) -> Result<()> {
        ensure!(!self.stopped(), "interrupted");
        Ok(())
    }
}
