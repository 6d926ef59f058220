//! What the threads of an Envoy have logged.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// The log of a running Envoy. Envoy has no way to ask whether its workers have a configuration; a
/// filter that logs what it was given (level `info`) answers for each of them.
#[derive(Clone, Debug)]
pub struct Log {
    pub(super) file: PathBuf,
    /// The workers and the main thread, which has a VM of its own.
    pub(super) threads: usize,
}

impl Log {
    /// How long the log is by now.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether nothing was logged yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every thread has logged a line with `text` since the log was `from` long.
    pub fn all_threads_say(&self, text: &str, from: usize) -> bool {
        let log = self.bytes();
        let log = String::from_utf8_lossy(log.get(from..).unwrap_or_default());
        threads_that_say(&log, text).len() >= self.threads
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.file).unwrap_or_default()
    }
}

fn threads_that_say<'a>(log: &'a str, text: &str) -> BTreeSet<&'a str> {
    let lines = log.lines().filter(|line| line.contains(text));
    // [time][thread][level][component] ...
    lines.filter_map(|line| line.split("][").nth(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_counts_once_however_often_it_says_it() {
        let log = "[12:00][7][info][wasm] policy 5 is in force\n\
                   [12:00][8][info][wasm] policy 4 is in force\n\
                   [12:01][7][info][wasm] policy 5 is in force\n\
                   [12:01][9][info][wasm] policy 5 is in force\n";
        let threads = threads_that_say(log, "policy 5 is in force");
        assert_eq!(threads, BTreeSet::from(["7", "9"]));
    }
}
