//! The CPU time of Envoy's workers, as the scheduler of Linux accounts for it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// What threads have done with their time; the rest of it they were asleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) on_cpu: Duration,
    /// There was work, and another process had the CPU.
    pub(crate) waiting: Duration,
}

impl Time {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            on_cpu: self.on_cpu.saturating_sub(before.on_cpu),
            waiting: self.waiting.saturating_sub(before.waiting),
        }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            on_cpu: self.on_cpu + other.on_cpu,
            waiting: self.waiting + other.waiting,
        }
    }
}

/// What the worker threads of an Envoy have done so far.
pub(crate) fn of_workers(pid: u32) -> Result<Time> {
    let tasks = format!("/proc/{pid}/task");
    let mut workers = 0;
    let mut time = Time::default();
    for task in fs::read_dir(&tasks).context(tasks)? {
        let task = task?.path();
        let read = |name: &str| {
            let file = task.join(name);
            fs::read_to_string(&file).with_context(|| file.display().to_string())
        };
        // A thread that has ended since was no worker.
        if !read("comm").is_ok_and(|name| name.starts_with("wrk:worker_")) {
            continue;
        }
        workers += 1;
        time = time.and(parse(&read("schedstat")?)?);
    }
    ensure!(workers > 0, "process {pid} has no worker threads");
    Ok(time)
}

/// A `schedstat`: nanoseconds on a CPU, nanoseconds of waiting for one, and how often.
fn parse(schedstat: &str) -> Result<Time> {
    let mut numbers = schedstat.split_whitespace().map(str::parse);
    let mut duration = || Some(Duration::from_nanos(numbers.next()?.ok()?));
    let mut time = || {
        Some(Time {
            on_cpu: duration()?,
            waiting: duration()?,
        })
    };
    time().with_context(|| format!("schedstat: {schedstat:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_runs_or_waits() {
        let time = parse("8123456789 77 3\n").expect("two numbers");
        assert_eq!(time.on_cpu, Duration::from_nanos(8_123_456_789));
        assert_eq!(time.waiting, Duration::from_nanos(77));
        assert!(parse("1").is_err());
        let later = parse("8123456790 177 4\n")
            .expect("two numbers")
            .since(time);
        assert_eq!(later, parse("1 100").expect("two numbers"));
    }
}
