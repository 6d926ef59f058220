//! What the demo shows: a table that is drawn anew in place, or plain lines where there is no
//! terminal.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, IsTerminal, Stdout, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lanekeeper_cli::limit_of;
use lanekeeper_policy::{Count, Policy, Quota, Source};
use terminal_size::Height;

use super::metrics::Metrics;
use super::tally::{OfVersion, Refused, Tally};

pub(crate) const PAGE: &str = "app-frontend";
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
    /// The newest policy.
    pub(crate) policy: Option<Arc<Policy>>,
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
        lines.extend(after_a_gap(self.all_of_quotas()));
        lines.extend(after_a_gap(self.sources()));
        lines
    }

    /// The table in one line.
    pub(crate) fn line(&self) -> String {
        let by = match self.all_sources() {
            by if by.is_empty() => String::new(),
            by => format!(", decided by {by}"),
        };
        let quotas = self.quotas().iter().map(|quota| {
            let counts = Count::ALL.map(|verdict| (verdict.name(), self.verdicts(quota, verdict)));
            let is_shown = |verdict: &str, n| n > 0 || verdict != Count::Observed.name();
            let counts = counts.into_iter().filter(|(name, n)| is_shown(name, *n));
            format!(", quota {}: {}", quota.name(), list(counts))
        });
        let by: String = [by].into_iter().chain(quotas).collect();
        let Some([lanekeeper, plain]) = &self.tallies else {
            return format!("{}{by}", self.policy());
        };
        format!(
            "{}  lanekeeper: {}{by} | plain Envoy: {}",
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
        lines.extend(after_a_gap(self.all_of_quotas()));
        lines.push(String::new());
        lines.push(contrast(tallies));
        lines
    }

    /// The quotas of the policy.
    fn quotas(&self) -> &[Quota] {
        self.policy.as_deref().map_or(&[], Policy::quotas)
    }

    /// How often the gateway came to a verdict by a quota.
    fn verdicts(&self, quota: &Quota, verdict: Count) -> u64 {
        let metrics = self.metrics.as_ref();
        let verdicts = metrics.and_then(|metrics| metrics.quotas.get(quota.name()));
        verdicts
            .and_then(|verdicts| verdicts.get(verdict.name()))
            .copied()
            .unwrap_or_default()
    }

    /// What each quota did, and whom it refused; empty where there is nothing to tell.
    fn all_of_quotas(&self) -> Vec<String> {
        let count = |verdict| move |quota: &Quota| self.verdicts(quota, verdict);
        let quotas = self.quotas();
        let mut verdicts = Count::ALL.to_vec();
        verdicts.retain(|verdict| {
            *verdict != Count::Observed || quotas.iter().map(count(*verdict)).any(|n| n > 0)
        });
        let row = |name: &str, limit: &str, cell: &dyn Fn(Count) -> String| {
            let cells = verdicts
                .iter()
                .map(|verdict| format!("{:>10}", cell(*verdict)));
            format!("{name:10} {limit:30}{}", cells.collect::<String>())
        };
        let mut lines = Vec::new();
        if !quotas.is_empty() {
            lines.push(row("quota", "limit", &|verdict| verdict.name().to_owned()));
        }
        for quota in quotas {
            lines.push(row(quota.name(), &limit_of(quota), &|verdict| {
                self.verdicts(quota, verdict).to_string()
            }));
        }
        if let Some([lanekeeper, _]) = &self.tallies
            && (!quotas.is_empty() || lanekeeper.refused.all() > 0)
        {
            lines.push(format!("{:10} {}", "refused", who(lanekeeper.refused)));
        }
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

    /// What the gateway decided by, for each version.
    fn sources(&self) -> Vec<String> {
        let row = |name: &str, cell: &dyn Fn(&str) -> String| {
            let cells = Source::ALL.map(|source| format!("{:>10}", cell(source.name())));
            format!("{name:10} {}", cells.concat())
        };
        let mut lines = vec![row("decided by", &|source| source.to_owned())];
        for (version, counts) in self.metrics.iter().flat_map(|metrics| &metrics.sources) {
            lines.push(row(version, &|source| {
                counts.get(source).copied().unwrap_or_default().to_string()
            }));
        }
        lines
    }

    /// What the gateway decided by, all versions together.
    fn all_sources(&self) -> String {
        let counts = |source: Source| {
            let versions = self.metrics.iter().flat_map(|m| m.sources.values());
            let counts = versions.filter_map(|counts| counts.get(source.name()));
            (source.name(), counts.sum::<u64>())
        };
        list(Source::ALL.map(counts).into_iter().filter(|(_, n)| *n > 0))
    }
}

/// Lines with a blank one before them, if there are any.
fn after_a_gap(mut lines: Vec<String>) -> Vec<String> {
    if !lines.is_empty() {
        lines.insert(0, String::new());
    }
    lines
}

/// Whose requests were refused.
fn who(Refused { noisy, others }: Refused) -> String {
    list([("noisy", noisy), ("others", others)].into_iter())
}

/// What users saw at a site, in few words.
fn site(tally: &Tally) -> String {
    let share = |version: &OfVersion| percent(version.users, tally.users());
    let shares = tally.versions.iter().map(|(name, of)| (name, share(of)));
    let refused = match tally.refused.all() {
        0 => String::new(),
        all => format!(", {all} refused ({})", who(tally.refused)),
    };
    format!(
        "{} requests, users {}, {} of {} flipped, {} mixed tiers, {} failures{refused}",
        tally.requests,
        list(shares),
        tally.flipped_users(),
        tally.users(),
        tally.mixed,
        tally.failures
    )
}

/// `a 1, b 2`.
fn list(pairs: impl Iterator<Item = (impl Display, impl Display)>) -> String {
    let pairs: Vec<_> = pairs
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    pairs.join(", ")
}

fn percent(part: usize, all: usize) -> String {
    format!("{:.0} %", 100.0 * part as f64 / all.max(1) as f64)
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
            let share = percent(version.users, tally.users());
            let users = format!("{} {share:>5}", version.users);
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
        if let Some((_, Height(rows))) = terminal_size::terminal_size_of(&self.out) {
            // What has scrolled away cannot be drawn over. The cursor needs a row, too.
            clip(&mut lines, usize::from(rows).saturating_sub(1));
        }
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

/// Cuts a table to so many rows, and says so. Blank ones go first.
fn clip(lines: &mut Vec<String>, rows: usize) {
    if lines.len() > rows {
        lines.retain(|line| !line.is_empty());
    }
    if lines.len() > rows && rows > 0 {
        lines.truncate(rows - 1);
        lines.push("... (there is more in a taller window)".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn view() -> View {
        let sources = |pairs: &[(&str, u64)]| -> BTreeMap<_, _> {
            let pairs = pairs.iter();
            pairs.map(|(name, n)| ((*name).to_owned(), *n)).collect()
        };
        let metrics = Metrics {
            sources: BTreeMap::from([
                ("stable".to_owned(), sources(&[("cookie", 70), ("slot", 9)])),
                ("canary".to_owned(), sources(&[("cookie", 8)])),
            ]),
            ..Metrics::default()
        };
        View {
            elapsed: Duration::from_secs(65),
            tallies: Some(Default::default()),
            metrics: Some(metrics),
            policy: None,
        }
    }

    fn words(lines: &[String]) -> Vec<String> {
        let words = |line: &String| line.split_whitespace().collect::<Vec<_>>().join(" ");
        lines.iter().map(words).collect()
    }

    #[test]
    fn quotas_are_shown_with_their_verdicts_and_whom_they_refused() {
        let mut view = view();
        let quiet = words(&view.table());
        assert!(!quiet.iter().any(|line| line.starts_with("refused")));
        let quotas = json!([{ "name": "a", "key": ["user"], "limit": 2, "period": "1m" }]);
        let policy = Policy::compile(&json!({ "quotas": quotas }), &|_| None);
        view.policy = Some(Arc::new(policy.expect("a policy")));
        let mut verdicts = BTreeMap::from([("admitted".to_owned(), 9), ("refused".to_owned(), 7)]);
        let count = |view: &mut View, verdicts: &BTreeMap<String, u64>| {
            let metrics = view.metrics.as_mut().expect("metrics");
            metrics.quotas.insert("a".to_owned(), verdicts.clone());
        };
        count(&mut view, &verdicts);
        if let Some([lanekeeper, _]) = &mut view.tallies {
            (lanekeeper.refused.noisy, lanekeeper.refused.others) = (6, 1);
        }
        let rows = [
            "quota limit admitted refused",
            "a 2 a minute by user 9 7",
            "refused noisy 6, others 1",
        ];
        for lines in [view.table(), view.summary()] {
            let lines = words(&lines);
            assert!(lines.windows(3).any(|lines| lines == rows), "{lines:?}");
        }
        let line = view.line();
        assert!(line.contains(", 7 refused (noisy 6, others 1), "), "{line}");
        assert!(
            line.contains(", quota a: admitted 9, refused 7 |"),
            "{line}"
        );

        verdicts.insert("observed".to_owned(), 3);
        count(&mut view, &verdicts);
        let table = words(&view.table());
        assert!(
            table.contains(&"a 2 a minute by user 9 7 3".to_owned()),
            "{table:?}"
        );
    }

    #[test]
    fn the_table_shows_the_sources_of_each_version_and_the_line_their_sums() {
        let table = words(&view().table());
        assert!(table.contains(&"decided by override cookie header slot baseline".to_owned()));
        assert!(table.contains(&"stable 0 70 0 9 0".to_owned()), "{table:?}");
        assert!(table.contains(&"canary 0 8 0 0 0".to_owned()), "{table:?}");
        let line = view().line();
        assert!(line.contains("decided by cookie 78, slot 9 |"), "{line}");
    }

    #[test]
    fn a_table_loses_its_gaps_before_its_rows() {
        let mut lines = ["", "a", "", "b"].map(str::to_owned).to_vec();
        clip(&mut lines, 2);
        assert_eq!(lines, ["a", "b"]);
    }

    #[test]
    fn a_table_is_cut_to_the_height_of_the_terminal() {
        for (rows, left) in [(9, 3), (3, 3), (2, 2), (1, 1)] {
            let mut lines = ["a", "b", "c"].map(str::to_owned).to_vec();
            clip(&mut lines, rows);
            assert_eq!(lines.len(), left);
            assert_eq!(lines[left - 1] == "c", rows >= 3);
        }
    }
}
