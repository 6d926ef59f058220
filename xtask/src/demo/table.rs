//! What the demo shows: a table that is drawn anew in place, or plain lines where there is no
//! terminal.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use lanekeeper_policy::Source;

use super::metrics::Metrics;
use super::tally::Tally;

pub(crate) const APP: &str = "app-service";
pub(crate) const MODEL: &str = "model-service";

/// What is known at one time.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) elapsed: Duration,
    /// What users saw at Lanekeeper's gateway and at plain Envoy; `None` without traffic.
    pub(crate) tallies: Option<[Tally; 2]>,
    /// What the gateway says of itself; `None` where it did not answer.
    pub(crate) metrics: Option<Metrics>,
}

impl View {
    /// The whole table.
    pub(crate) fn table(&self) -> Vec<String> {
        let mut lines = vec![self.policy()];
        if let Some(tallies) = &self.tallies {
            lines.push(String::new());
            lines.extend(versions(tallies));
            lines.push(String::new());
            lines.extend(totals(tallies));
        }
        lines.push(String::new());
        lines.push(self.sources());
        lines
    }

    /// The table in one line.
    pub(crate) fn line(&self) -> String {
        let Some([lanekeeper, plain]) = &self.tallies else {
            return self.policy();
        };
        let site = |tally: &Tally| {
            format!(
                "{} requests, {} of {} users flipped, {} mixed tiers, {} failures",
                tally.requests,
                tally.flipped_users(),
                tally.users(),
                tally.mixed,
                tally.failures
            )
        };
        format!(
            "{}  lanekeeper: {} | plain Envoy: {}",
            clock(self.elapsed),
            site(lanekeeper),
            site(plain)
        )
    }

    /// The last words.
    pub(crate) fn summary(&self) -> Vec<String> {
        let Some(tallies) = &self.tallies else {
            return Vec::new();
        };
        let mut lines = vec![format!("After {}:", clock(self.elapsed)), String::new()];
        lines.extend(versions(tallies));
        lines.push(String::new());
        lines.extend(totals(tallies));
        lines.push(String::new());
        lines.push(contrast(tallies));
        lines
    }

    fn policy(&self) -> String {
        let state = match &self.metrics {
            Some(Metrics {
                hash: Some(hash),
                rejected: false,
                ..
            }) => {
                format!("policy {hash} in force")
            }
            Some(Metrics {
                hash: Some(hash),
                rejected: true,
                ..
            }) => {
                format!("FAULTY POLICY REFUSED, policy {hash} stays in force")
            }
            _ => "the gateway says nothing of a policy".to_owned(),
        };
        format!("{}  {state}", clock(self.elapsed))
    }

    fn sources(&self) -> String {
        let count = |source: &str| {
            let sources = self.metrics.as_ref().map(|metrics| &metrics.sources);
            sources.and_then(|sources| sources.get(source)).copied()
        };
        let sources = Source::ALL.map(|source| {
            let name = source.name();
            format!("   {name} {}", count(name).unwrap_or_default())
        });
        format!("decided by{}", sources.concat())
    }
}

fn versions(tallies: &[Tally; 2]) -> Vec<String> {
    let names: BTreeSet<_> = tallies
        .iter()
        .flat_map(|tally| tally.versions.keys())
        .collect();
    let columns = format!("{:>10}{:>7}{:>7}{:>6}", "users", "app", "model", "flips");
    let mut lines = vec![
        format!("{:10} {:>30}   {:>30}", "", "lanekeeper", "plain Envoy"),
        format!("{:10} {columns}   {columns}", "version"),
    ];
    for name in names {
        let columns = |tally: &Tally| {
            let version = tally.versions.get(name).cloned().unwrap_or_default();
            let percent = 100.0 * version.users as f64 / tally.users().max(1) as f64;
            let users = format!("{} {percent:3.0} %", version.users);
            let (app, model) = (tally.answers(name, APP), tally.answers(name, MODEL));
            format!("{users:>10}{app:>7}{model:>7}{:>6}", version.flips)
        };
        lines.push(format!(
            "{name:10} {}   {}",
            columns(&tallies[0]),
            columns(&tallies[1])
        ));
    }
    lines
}

fn totals(tallies: &[Tally; 2]) -> Vec<String> {
    type Figure = fn(&Tally) -> String;
    let figures: [(&str, Figure); 5] = [
        ("users that flipped", |t| {
            format!("{} of {}", t.flipped_users(), t.users())
        }),
        ("flips", |t| t.flips().to_string()),
        ("requests with mixed tiers", |t| t.mixed.to_string()),
        ("re-assigned by a new policy", |t| t.reassigned.to_string()),
        ("failures", |t| t.failures.to_string()),
    ];
    figures
        .map(|(name, figure)| {
            let [lanekeeper, plain] = [figure(&tallies[0]), figure(&tallies[1])];
            format!("{name:27} {lanekeeper:>13}   {plain:>30}")
        })
        .to_vec()
}

fn contrast([lanekeeper, plain]: &[Tally; 2]) -> String {
    format!(
        "{} of {} users flipped with Lanekeeper, {} of {} with plain Envoy.",
        lanekeeper.flipped_users(),
        lanekeeper.users(),
        plain.flipped_users(),
        plain.users()
    )
}

/// Minutes and seconds.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

/// Where the demo writes.
#[derive(Debug)]
pub(crate) struct Screen {
    out: Stdout,
    quiet: bool,
    moving: bool,
    /// Lines of the table that stand above the cursor.
    drawn: usize,
    /// When the table was last drawn.
    shown: Instant,
}

impl Screen {
    pub(crate) fn new(quiet: bool) -> Self {
        let out = io::stdout();
        let moving = !quiet && out.is_terminal();
        Self {
            out,
            quiet,
            moving,
            drawn: 0,
            shown: Instant::now(),
        }
    }

    /// Whether it is time to show how things stand.
    pub(crate) fn is_due(&self) -> bool {
        let interval = Duration::from_millis(if self.moving { 500 } else { 5000 });
        self.shown.elapsed() >= interval
    }

    /// Writes a text that stays.
    pub(crate) fn say(&mut self, text: &str) -> io::Result<()> {
        self.erase()?;
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Writes a text that stays, unless everything is to be quiet.
    pub(crate) fn tell(&mut self, text: &str) -> io::Result<()> {
        if self.quiet { Ok(()) } else { self.say(text) }
    }

    /// Shows how things stand.
    pub(crate) fn show(&mut self, view: &View) -> io::Result<()> {
        self.shown = Instant::now();
        if !self.moving {
            return self.tell(&view.line());
        }
        self.erase()?;
        let mut lines = view.table();
        lines.insert(0, String::new());
        // Without line wrap, a narrow terminal cuts the table and it still moves in place.
        write!(self.out, "\x1b[?7l")?;
        for line in &lines {
            writeln!(self.out, "{line}")?;
        }
        write!(self.out, "\x1b[?7h")?;
        self.drawn = lines.len();
        self.out.flush()
    }

    fn erase(&mut self) -> io::Result<()> {
        if self.drawn > 0 {
            // Up to where the table begins, and away with it.
            write!(self.out, "\r\x1b[{}A\x1b[J", self.drawn)?;
            self.drawn = 0;
        }
        Ok(())
    }
}
