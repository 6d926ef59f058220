//! The CPU time of Envoy's workers, as the scheduler of Linux accounts for it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// How long the worker threads of an Envoy have been running on a CPU.
pub(crate) fn of_workers(pid: u32) -> Result<Duration> {
    let tasks = format!("/proc/{pid}/task");
    let mut workers = 0;
    let mut nanoseconds = 0;
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
        nanoseconds += on_cpu(&read("schedstat")?)?;
    }
    ensure!(workers > 0, "process {pid} has no worker threads");
    Ok(Duration::from_nanos(nanoseconds))
}

/// The first number of a `schedstat`: nanoseconds on a CPU.
fn on_cpu(schedstat: &str) -> Result<u64> {
    let first = schedstat.split_whitespace().next();
    first
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("schedstat: {schedstat:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_is_the_time_on_a_cpu() {
        assert_eq!(
            on_cpu("8123456789 77 3\n").expect("a number"),
            8_123_456_789
        );
        assert!(on_cpu("").is_err());
    }
}
