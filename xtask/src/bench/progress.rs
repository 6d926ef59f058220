//! How far the bench is: one line that is written anew, or now and then a line where there is no
//! terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// What is said while it runs. It goes to stderr: the result is on stdout.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    last: Option<Instant>,
    terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            last: None,
            terminal: io::stderr().is_terminal(),
        }
    }

    /// So many of all steps are done.
    pub(crate) fn show(&mut self, done: usize, all: usize, what: &str) -> io::Result<()> {
        let pause = Duration::from_secs(if self.terminal { 1 } else { 10 });
        if self.last.is_some_and(|last| last.elapsed() < pause) {
            return Ok(());
        }
        self.last = Some(Instant::now());
        let percent = 100 * done / all.max(1);
        let mut line = format!("{percent:3} %  {what}");
        if done > 0 {
            let left = self.start.elapsed().as_secs_f64() / done as f64 * (all - done) as f64;
            line += &format!(", about {left:.0} s left");
        }
        match self.terminal {
            true => write!(io::stderr(), "\r\x1b[K{line}")?,
            false => writeln!(io::stderr(), "{line}")?,
        }
        io::stderr().flush()
    }

    /// Leaves nothing behind on a terminal.
    pub(crate) fn end(&self) -> io::Result<()> {
        match self.terminal {
            true => write!(io::stderr(), "\r\x1b[K"),
            false => Ok(()),
        }
    }
}
