//! Child processes that never outlive their owner.

use crate::http;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
#[cfg(unix)]
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a waiting loop looks again.
const POLL: Duration = Duration::from_millis(10);

/// How much of a log is shown.
const LAST_LINES: usize = 25;

/// A running program. Its output goes to a file, whose end is printed when the
/// owner panics; it is killed when this value is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    dir: PathBuf,
    keeps_dir: bool,
    child: Child,
    watchdog: Child,
}

impl Process {
    /// A directory for one run of a program: its log, and whatever the caller
    /// puts beside it. [`Process::start`] takes it over and removes it in the end.
    pub fn scratch_dir(name: &str) -> Result<PathBuf> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let run = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = crate::build::target_dir()
            .join("harness")
            .join(format!("{name}-{}-{run}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    /// Starts a program with its log in `dir` (see [`Process::scratch_dir`]).
    pub fn start(name: &str, dir: PathBuf, command: &mut Command) -> Result<Process> {
        let log = File::create(dir.join("log"))?;
        // Ctrl-C in a terminal goes to a whole process group: it is for the
        // owner, who may have to say something before the programs end.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name} ({:?})", command.get_program()))?;
        let watchdog = watchdog(&child.id().to_string()).inspect_err(|_| {
            let _ = child.kill();
        })?;
        Ok(Process {
            name: name.to_owned(),
            dir,
            keeps_dir: false,
            child,
            watchdog,
        })
    }

    /// Leaves the directory with the log behind when the process is dropped.
    pub fn keep_dir(&mut self) {
        self.keeps_dir = true;
    }

    /// Starts a service binary and waits until `url` answers 200.
    pub fn start_service(
        name: &str,
        binary: &Path,
        env: &[(&str, &str)],
        url: &str,
    ) -> Result<Process> {
        let mut command = Command::new(binary);
        command.envs(env.iter().copied());
        let mut service = Process::start(name, Process::scratch_dir(name)?, &mut command)?;
        service.wait_until_ready(Duration::from_secs(20), || {
            http::get(url).is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(service)
    }

    /// Waits until `ready` says yes. An error, with the end of the log, if the
    /// program ends before or the time is over.
    pub fn wait_until_ready(
        &mut self,
        timeout: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended ({status}) before it was ready:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            if start.elapsed() > timeout {
                bail!(
                    "{} was not ready after {timeout:?}:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// How the program ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// What to say of the program if it ended by itself.
    pub fn what_ended(&mut self) -> Result<Option<String>> {
        let Some(status) = self.ended()? else {
            return Ok(None);
        };
        Ok(Some(format!(
            "{} ended ({status}). The end of {}:\n{}",
            self.name,
            self.log_path().display(),
            self.log_tail()
        )))
    }

    /// What the program is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything the program wrote so far.
    pub fn logs(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The file the program writes to.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Asks the program to end (SIGTERM) and waits for it.
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        run(Command::new("kill").arg(self.id().to_string()), "kill")?;
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                start.elapsed() < timeout,
                "{} still runs {timeout:?} after SIGTERM:\n{}",
                self.name,
                self.log_tail()
            );
            thread::sleep(POLL);
        }
    }

    /// The end of the log; of Envoy's, the warnings and errors, if there are any.
    pub fn log_tail(&self) -> String {
        telling_lines(&self.logs(), LAST_LINES)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Should we be ended in the midst of this, the child is either killed
        // already or still watched. The watchdog goes before the child is reaped:
        // then its id may belong to somebody else.
        let _ = self.child.kill();
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!(
                "--- end of {}\n{}",
                self.log_path().display(),
                last_lines(&self.logs(), LAST_LINES)
            );
        } else if !self.keeps_dir {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Kills a process (or with `-id` its group) when we are gone, however we went:
/// the watchdog reads from a pipe that only we hold, and so learns of our end
/// even by SIGKILL.
fn watchdog(target: &str) -> Result<Child> {
    let mut watchdog = Command::new("sh");
    // Or Ctrl-C would end the watchdog instead of the process it watches.
    #[cfg(unix)]
    watchdog.process_group(0);
    watchdog
        .args(["-c", "read -r _; kill -s KILL -- \"$1\"", "watchdog"])
        .arg(target)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start sh")
}

/// Runs a command whose output the user shall see to its end. Should we end
/// before it does, it ends at once, and all that it started with it.
pub fn run_visibly(command: &mut Command) -> Result<ExitStatus> {
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    let mut watchdog = watchdog(&format!("-{}", child.id())).inspect_err(|_| {
        let _ = child.kill();
    })?;
    let status = child.wait();
    let _ = watchdog.kill();
    let _ = watchdog.wait();
    Ok(status?)
}

/// Runs a command that may take minutes, and hands over each line that it writes to stderr. As with
/// [`run_visibly`], it ends when we do.
pub fn run_by_lines(command: &mut Command, mut line: impl FnMut(String)) -> Result<ExitStatus> {
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    let mut watchdog = watchdog(&format!("-{}", child.id())).inspect_err(|_| {
        let _ = child.kill();
    })?;
    let output = child.stderr.take();
    for text in output
        .into_iter()
        .flat_map(|output| BufReader::new(output).lines())
    {
        let Ok(text) = text else { break };
        line(text);
    }
    let status = child.wait();
    let _ = watchdog.kill();
    let _ = watchdog.wait();
    Ok(status?)
}

/// Runs a command to its end and returns what it wrote to stdout. Says what is
/// going on when that takes longer than two seconds; an error carries the end
/// of what the command wrote to stderr.
pub fn run(command: &mut Command, what: &str) -> Result<String> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {:?} ({what})", command.get_program()))?;
    let (ended, wait) = mpsc::channel::<()>();
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            if wait.recv_timeout(Duration::from_secs(2)) == Err(RecvTimeoutError::Timeout) {
                // Where nobody listens, there is nobody to tell.
                let _ = writeln!(io::stderr(), "{what} ...");
            }
        });
        let output = child.wait_with_output();
        drop(ended);
        output
    })?;
    ensure!(
        output.status.success(),
        "{what} failed ({}):\n{}",
        output.status,
        last_lines(&String::from_utf8_lossy(&output.stderr), 40)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn telling_lines(log: &str, count: usize) -> String {
    // Envoy: [time][thread][level][component] ...
    let is_chatter = |line: &&str| {
        let level = line.split("][").nth(2);
        level.is_some_and(|level| ["trace", "debug", "info"].contains(&level))
    };
    let telling: Vec<&str> = log.lines().filter(|line| !is_chatter(line)).collect();
    match telling.is_empty() {
        true => last_lines(log, count),
        false => last_lines(&telling.join("\n"), count),
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_envoys_log_the_warnings_and_errors_are_shown() {
        let info = "[12:00][7][info][main] [main.cc:1] starting";
        let error = "[12:00][7][critical][main] [main.cc:2] cannot bind\nthe port is in use";
        let log = format!("{info}\n{error}\n{info}\n");
        assert_eq!(telling_lines(&log, 9), error);
        assert_eq!(telling_lines(info, 9), info);
        assert_eq!(
            telling_lines("{\"level\":\"info\"}", 9),
            "{\"level\":\"info\"}"
        );
    }
}
