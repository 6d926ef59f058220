//! What came of the requests.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::mem;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// A line for so many requests.
const REQUESTS_A_LINE: u64 = 1000;
/// So many failures, and changes of version, get a line each.
const FIRST: usize = 20;
/// What a server may make up has bounds: so many versions, and as many reasons.
const KINDS: usize = 50;
const OTHER: &str = "other";
const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

/// Counts, and lines that tell of them.
#[derive(Debug)]
pub(crate) struct Report {
    start: Instant,
    time: Duration,
    requests: u64,
    failures: u64,
    changes: u64,
    /// Of answers, in microseconds.
    latency: Histogram<u64>,
    /// In the order of their first answers.
    versions: Vec<Version>,
    reasons: BTreeMap<String, u64>,
    /// The version of each user's last answer.
    users: Vec<Option<usize>>,
    /// The version of the last answer.
    current: Option<usize>,
    last_line: Instant,
    last_second: Instant,
    lines: Vec<String>,
    failure_lines: Flood,
    change_lines: Flood,
}

#[derive(Debug)]
struct Version {
    name: String,
    answers: u64,
    /// Since the start.
    first: Duration,
    last: Duration,
}

impl Report {
    pub(crate) fn new(users: u32) -> Self {
        let now = Instant::now();
        let three_digits = Histogram::new(3);
        Self {
            start: now,
            time: Duration::ZERO,
            requests: 0,
            failures: 0,
            changes: 0,
            latency: three_digits.expect("histograms have up to five digits"),
            versions: Vec::new(),
            reasons: BTreeMap::new(),
            users: vec![None; users as usize],
            current: None,
            last_line: now,
            last_second: now,
            lines: Vec::new(),
            failure_lines: Flood::default(),
            change_lines: Flood::default(),
        }
    }

    /// Counts a request of a user: status and version of the answer, or why there is none.
    pub(crate) fn count(
        &mut self,
        user: u32,
        took: Duration,
        answer: Result<(u16, Option<String>), String>,
    ) {
        let at = self.start.elapsed();
        self.requests += 1;
        match answer {
            Ok((status, version)) => {
                // A histogram that grows takes every value.
                let _ = self.latency.record(micros(took));
                if let Some(version) = version {
                    self.answered(user, at, version);
                }
                if status >= 400 {
                    self.failed(at, format!("status {status}"));
                }
            }
            Err(reason) => self.failed(at, reason),
        }
        if self.requests.is_multiple_of(REQUESTS_A_LINE) {
            let now = Instant::now();
            let rate = per_second(
                REQUESTS_A_LINE,
                now - mem::replace(&mut self.last_line, now),
            );
            let current = self
                .current
                .map_or("no version", |at| &self.versions[at].name);
            self.lines.push(format!(
                "{}  {} requests, {} failed, {rate:.0} a second, {current}",
                clock(at),
                self.requests,
                self.failures,
            ));
        }
    }

    fn answered(&mut self, user: u32, at: Duration, name: String) {
        let known = self.versions.iter().position(|known| known.name == name);
        let version = known.unwrap_or_else(|| {
            let full = self.versions.len() >= KINDS;
            let place = self.versions.len() - usize::from(full);
            if !full {
                self.versions.push(Version {
                    name: if place + 1 == KINDS {
                        OTHER.to_owned()
                    } else {
                        name
                    },
                    answers: 0,
                    first: at,
                    last: at,
                });
            }
            place
        });
        self.versions[version].answers += 1;
        self.versions[version].last = at;
        self.current = Some(version);
        let before = self.users[user as usize].replace(version);
        if let Some(before) = before.filter(|before| *before != version) {
            self.changes += 1;
            let who = match self.users.len() {
                1 => String::new(),
                _ => format!("user {user}: "),
            };
            let [before, version] = [before, version].map(|at| &self.versions[at].name);
            let line = format!("{}  {who}{before} -> {version}", clock(at));
            self.lines.extend(self.change_lines.admit(line));
        }
    }

    fn failed(&mut self, at: Duration, reason: String) {
        self.failures += 1;
        let line = format!("{}  request {} failed: {reason}", clock(at), self.requests);
        self.lines.extend(self.failure_lines.admit(line));
        let known = self.reasons.len() < KINDS || self.reasons.contains_key(&reason);
        let reason = if known { reason } else { OTHER.to_owned() };
        *self.reasons.entry(reason).or_default() += 1;
    }

    /// The lines since it was last asked.
    pub(crate) fn news(&mut self) -> Vec<String> {
        if self.last_second.elapsed() >= Duration::from_secs(1) {
            self.last_second = Instant::now();
            self.tell_held();
        }
        mem::take(&mut self.lines)
    }

    /// The last lines. No more requests are counted.
    pub(crate) fn end(&mut self) -> Vec<String> {
        self.time = self.start.elapsed();
        self.tell_held();
        mem::take(&mut self.lines)
    }

    fn tell_held(&mut self) {
        let at = clock(self.start.elapsed());
        let floods = [
            (&mut self.failure_lines, "failures"),
            (&mut self.change_lines, "changes of version"),
        ];
        for (flood, what) in floods {
            let (held, last) = mem::take(&mut flood.held);
            if held > 0 {
                let line = format!("{at}  {held} more {what}, the last at {last}");
                self.lines.push(line);
            }
        }
    }

    /// Whether requests were sent and none failed.
    pub(crate) fn is_good(&self) -> bool {
        self.requests > 0 && self.failures == 0
    }

    fn newest(&self) -> Option<&str> {
        self.versions.last().map(|version| version.name.as_str())
    }

    pub(crate) fn summarize(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "\nrequests  {}", self.requests)?;
        writeln!(out, "failures  {}", self.failures)?;
        for (reason, count) in &self.reasons {
            writeln!(out, "          {count} × {reason}")?;
        }
        writeln!(out, "time      {}", clock(self.time))?;
        writeln!(
            out,
            "rate      {:.0} a second",
            per_second(self.requests, self.time)
        )?;
        if !self.latency.is_empty() {
            let quantiles = self.quantiles();
            let quantiles = quantiles.map(|(name, time)| format!("{name} {time:.1} ms"));
            writeln!(out, "latency   {}", quantiles.join(", "))?;
        }
        writeln!(out, "newest    {}", self.newest().unwrap_or("no version"))?;
        for version in &self.versions {
            writeln!(
                out,
                "          {}: {} answers, from {} to {}",
                version.name,
                version.answers,
                clock(version.first),
                clock(version.last)
            )?;
        }
        if self.changes > 0 {
            writeln!(out, "changes   {}", self.changes)?;
        }
        Ok(())
    }

    pub(crate) fn json(&self) -> Value {
        let latency = match self.latency.is_empty() {
            true => Value::Null,
            false => {
                let quantiles = self.quantiles();
                let fields = quantiles.map(|(name, time)| (name.to_owned(), time.into()));
                Map::from_iter(fields).into()
            }
        };
        let versions = self.versions.iter().map(|version| {
            json!({
                "version": version.name,
                "answers": version.answers,
                "first_ms": millis(version.first),
                "last_ms": millis(version.last),
            })
        });
        json!({
            "requests": self.requests,
            "failures": self.failures,
            "reasons": self.reasons,
            "seconds": self.time.as_secs_f64(),
            "rate": per_second(self.requests, self.time),
            "latency_ms": latency,
            "newest_version": self.newest(),
            "versions": versions.collect::<Vec<_>>(),
            "version_changes": self.changes,
        })
    }

    fn quantiles(&self) -> [(&'static str, f64); QUANTILES.len()] {
        QUANTILES.map(|(name, quantile)| {
            let micros = self.latency.value_at_quantile(quantile);
            (name, millis(Duration::from_micros(micros)))
        })
    }
}

/// Lines of which only the first are shown.
#[derive(Debug, Default)]
struct Flood {
    shown: usize,
    /// How many were held back since that was told, and the last of them.
    held: (u64, String),
}

impl Flood {
    fn admit(&mut self, line: String) -> Option<String> {
        if self.shown < FIRST {
            self.shown += 1;
            return Some(line);
        }
        self.held = (self.held.0 + 1, line);
        None
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> f64 {
    micros(time) as f64 / 1e3
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

fn clock(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}
