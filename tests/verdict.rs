//! What `lanekeeper verdict` says of a running system is what the counters of its services and its
//! gateway come to.

mod live;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use harness::{build, http};
use live::{System, now, wait};
use serde_json::{Value, json};

/// Users are counted so often, from the start of an experiment.
const STEP: u64 = 300;
/// And judged so much later: what is scraped needs a moment until it can be asked for.
const SETTLED: u64 = 60;
/// With fewer, some bucket might well have nobody in one of the versions.
const USERS: f64 = 1_000.0;

#[test]
fn the_verdict_is_what_the_counters_come_to() {
    // Not in a hurry: a scrape that is missed at the moment of the verdict would hide the users.
    let mut system = System::start(false);
    let start = system.watched_since;
    wait("enough people", || {
        let users = Sums::of(&mut system).users();
        (users >= USERS).then_some(())
    });
    system.crowd.go();
    let sums = Sums::of(&mut system);
    let users = sums.users();
    wait("the last scrape", || {
        let query = r#"sum(lanekeeper_assignments_total{rollout="sentiment"})"#;
        let scraped = system.monitoring.api().query(query).expect("a query");
        scraped
            .iter()
            .any(|(_, scraped)| *scraped == users)
            .then_some(())
    });
    assert!(now() < start + STEP, "they took too long");
    while now() <= start + STEP + SETTLED {
        thread::sleep(Duration::from_millis(200));
    }

    let [stable, canary] = ["stable", "canary"].map(|version| &sums.versions[version]);
    let said = verdict(&system, start, users as u64);
    assert_eq!(
        said["users"],
        json!({ "control": stable.users, "treatment": canary.users })
    );
    assert_eq!(
        said["slots"],
        json!({ "control": 5_000.0, "treatment": 5_000.0 })
    );
    // Those who came by 32 buckets, in each version.
    assert_eq!(said["buckets"], 32);
    let is_within = |tolerance: f64, place: &str, expected: f64| {
        let found = said.pointer(place).and_then(Value::as_f64);
        let found = found.unwrap_or_else(|| panic!("no {place}: {said:#}"));
        assert!(
            (found / expected - 1.0).abs() < tolerance,
            "{place}: {found}, not {expected}"
        );
    };
    // increase() goes by when a counter was scraped, and knows the counts to a few in a hundred; few
    // answers decide where a p95 is.
    for (role, version) in [("control", stable), ("treatment", canary)] {
        is_within(
            0.05,
            &format!("/correction_rate/{role}"),
            version.corrections / version.predictions,
        );
        is_within(
            0.05,
            &format!("/mean_latency_seconds/{role}"),
            version.seconds / version.answers,
        );
        is_within(0.1, &format!("/p95_latency_seconds/{role}"), version.p95());
    }

    // Canary is corrected less often, and not accepted. One time in a thousand, chance deals users out so
    // unevenly that nothing is said.
    let expected = users / 2.0;
    let chi_square = 2.0 * (stable.users - expected).powi(2) / expected;
    let verdict = if chi_square > 10.828 {
        "invalid"
    } else {
        "roll_back"
    };
    assert_eq!(said["verdict"], verdict, "{said:#}");
}

/// What `lanekeeper verdict` says of an experiment that began then, with so many users planned.
fn verdict(system: &System, start: u64, users: u64) -> Value {
    let start = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(start));
    let experiment = system.dir.join("experiment.yaml");
    let text = json!({
        "rollout": "sentiment",
        "control": "stable",
        "treatment": "canary",
        "start": start.to_string(),
        "users": users,
        "matchers": { "service": r#"namespace="sentiment""# },
    });
    fs::write(&experiment, text.to_string()).expect("a file");
    let output = Command::new(build::lanekeeper().expect("it builds"))
        .args(["verdict", "--output", "json", "--experiment"])
        .arg(&experiment)
        .arg("--prometheus")
        .arg(format!("http://{}", system.monitoring.api().address()))
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{error}"))
}

/// The counters of users in buckets, as the parts themselves show them.
#[derive(Debug)]
struct Sums {
    versions: BTreeMap<&'static str, OfVersion>,
}

#[derive(Debug, Default)]
struct OfVersion {
    users: f64,
    predictions: f64,
    corrections: f64,
    answers: f64,
    seconds: f64,
    /// By upper border in seconds, how many answers took no longer.
    histogram: Vec<(f64, f64)>,
}

impl OfVersion {
    /// Between the borders, answers are taken to lie evenly.
    fn p95(&self) -> f64 {
        let rank = 0.95 * self.answers;
        let reached = self.histogram.iter().position(|(_, count)| *count >= rank);
        let reached = reached.expect("a last border");
        let (high, until_high) = self.histogram[reached];
        let below = reached.checked_sub(1).map(|index| self.histogram[index]);
        let (low, until_low) = below.unwrap_or((0.0, 0.0));
        low + (high - low) * (rank - until_low) / (until_high - until_low)
    }
}

impl Sums {
    fn users(&self) -> f64 {
        self.versions.values().map(|version| version.users).sum()
    }

    fn of(system: &mut System) -> Self {
        let get = |url: String| http::get(&url).expect("metrics").text();
        // The experiment's rollout is dealt out by both gateways.
        let sms = system.sms.application().topology().admin().to_owned();
        let gateways = [system.review().topology().admin().to_owned(), sms];
        let gateways = gateways.map(|admin| get(format!("http://{admin}/stats/prometheus")));
        let apps = system.review().topology().apps();
        let versions = ["stable", "canary"]
            .into_iter()
            .zip(apps)
            .map(|(version, app)| {
                let metrics = get(format!("http://{app}/metrics"));
                let of = |name| in_buckets(&metrics, name);
                let label = format!(r#"version="{version}""#);
                let users = gateways.iter().flat_map(|gateway| gateway.lines());
                let users = users.filter(|line| {
                    line.starts_with("lanekeeper_assignments_total{")
                        && line.contains(r#"rollout="sentiment""#)
                        && line.contains(&label)
                });
                let sums = OfVersion {
                    users: users.map(value).sum(),
                    predictions: of("review_predictions_total"),
                    corrections: of("review_overrides_total"),
                    answers: of("answer_duration_seconds_count"),
                    seconds: of("answer_duration_seconds_sum"),
                    histogram: histogram(&metrics),
                };
                (version, sums)
            });
        Self {
            versions: versions.collect(),
        }
    }
}

fn in_buckets(metrics: &str, name: &str) -> f64 {
    let series = format!("{name}{{");
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with(&series) && !line.contains(r#"bucket="none""#));
    lines.map(value).sum()
}

fn histogram(metrics: &str) -> Vec<(f64, f64)> {
    let borders = metrics.lines().filter_map(|line| {
        let labels = line.strip_prefix("answer_duration_seconds_bucket{")?;
        let (_, border) = labels.split_once(r#"le=""#)?;
        Some(border.split_once('"')?.0)
    });
    let borders: BTreeSet<_> = borders.collect();
    let sum = |border: &str| {
        let of_border = format!(r#"le="{border}""#);
        let lines = metrics.lines().filter(|line| line.contains(&of_border));
        in_buckets(
            &lines.collect::<Vec<_>>().join("\n"),
            "answer_duration_seconds_bucket",
        )
    };
    // +Inf is a number to Rust, too.
    let seconds = |border: &str| border.parse::<f64>().expect("a number");
    let mut histogram: Vec<_> = borders.iter().map(|b| (seconds(b), sum(b))).collect();
    histogram.sort_by(|one, other| one.0.total_cmp(&other.0));
    histogram
}

fn value(line: &str) -> f64 {
    let (_, value) = line.rsplit_once(' ').expect("a value");
    value.parse().expect("a number")
}
