//! What `lanekeeper verdict` says of a running system is what the counters of its services and its
//! gateway come to.

mod live;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use harness::{build, http};
use live::{System, now, wait};
use serde_json::{Value, json};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Of users.
const BUCKETS: usize = 32;
/// Users are counted so often, from the start of an experiment.
const STEP: u64 = 300;
/// And judged so much later: what is scraped needs a moment until it can be asked for.
const SETTLED: u64 = 60;
/// With fewer, some bucket might well have nobody in one of the versions.
const USERS: f64 = 1_000.0;

#[test]
fn the_verdict_is_what_the_counters_come_to() {
    let mut system = System::start(false);
    let start = system.watched_since;
    // Until there is just time for a last scrape.
    while Sums::of(&mut system).users() < USERS {
        assert!(now() < start + STEP - 60, "they took too long");
        thread::sleep(Duration::from_secs(1));
    }
    system.crowd.go();
    let sums = Sums::of(&mut system);
    let users = sums.users();
    let gone = now() + 1;
    wait("the last scrape", || {
        let query = "min(timestamp(up))";
        let scraped = system.monitoring.api().query(query).expect("a query");
        scraped
            .iter()
            .any(|(_, scraped)| *scraped > gone as f64)
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
        json!({ "control": stable.users as u64, "treatment": canary.users as u64 })
    );
    assert_eq!(
        said["slots"],
        json!({ "control": 5_000, "treatment": 5_000 })
    );
    // One time in a thousand, chance deals users out so unevenly that nothing is said.
    let expected = users / 2.0;
    let chi_square = 2.0 * (stable.users - expected).powi(2) / expected;
    if chi_square > 10.828 {
        assert_eq!(said["verdict"], "invalid", "{said:#}");
        return;
    }
    // Canary is corrected less often, and not accepted.
    assert_eq!(said["verdict"], "roll_back", "{said:#}");
    // Those who came by 32 buckets, in each version.
    assert_eq!(said["buckets"], 32);
    // Counters of one service are scraped together, and begin at zero: whatever factor increase()
    // extrapolates them by cancels in ratios.
    let is = |place: &str, expected: f64| {
        let found = said.pointer(place).and_then(Value::as_f64);
        let found = found.unwrap_or_else(|| panic!("no {place}: {said:#}"));
        assert!(
            (found / expected - 1.0).abs() < 1e-6,
            "{place}: {found}, not {expected}"
        );
    };
    for (role, version) in [("control", stable), ("treatment", canary)] {
        let all = version.without(None);
        let rate = all.corrections / all.predictions;
        is(&format!("/correction_rate/{role}"), rate);
        let mean = all.seconds / all.answers();
        is(&format!("/mean_latency_seconds/{role}"), mean);
        is(&format!("/p95_latency_seconds/{role}"), all.p95());
    }
    let (log, error) = sums.log_ratio();
    let t = StudentsT::new(0.0, 1.0, 31.0).expect("degrees of freedom");
    let width = t.inverse_cdf(0.95) * error;
    is("/correction_rate/rise", log.exp_m1());
    is("/correction_rate/interval/0", (log - width).exp_m1());
    is("/correction_rate/interval/1", (log + width).exp_m1());
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

#[derive(Debug)]
struct OfVersion {
    users: f64,
    buckets: Vec<Counts>,
}

/// What was counted of the users of some buckets.
#[derive(Debug)]
struct Counts {
    predictions: f64,
    corrections: f64,
    seconds: f64,
    /// By upper border in seconds, how many answers took no longer.
    histogram: Vec<(f64, f64)>,
}

impl Counts {
    fn answers(&self) -> f64 {
        self.histogram.last().expect("a last border").1
    }

    /// Where five of a hundred still wait: between the borders, they become fewer by the same share of
    /// themselves all the time.
    fn p95(&self) -> f64 {
        let waiting = |until: f64| 1.0 - until / self.answers();
        let reached = self
            .histogram
            .iter()
            .position(|(_, until)| waiting(*until) <= 0.05);
        let reached = reached.expect("a last border");
        let (high, until_high) = self.histogram[reached];
        let below = reached.checked_sub(1).map(|index| self.histogram[index]);
        let (low, until_low) = below.unwrap_or((0.0, 0.0));
        let [first, last] = [until_low, until_high].map(waiting);
        // Of none, half of one.
        let last = last.max(0.5 / self.answers());
        low + (high - low) * (0.05 / first).ln() / (last / first).ln()
    }
}

impl OfVersion {
    /// The sums of all buckets but one.
    fn without(&self, bucket: Option<usize>) -> Counts {
        let rest = self.buckets.iter().enumerate();
        let rest = rest.filter(|(number, _)| Some(*number) != bucket);
        let rest: Vec<_> = rest.map(|(_, counts)| counts).collect();
        let sum = |field: fn(&Counts) -> f64| rest.iter().map(|counts| field(counts)).sum();
        let borders = rest[0].histogram.iter().enumerate();
        let histogram = borders.map(|(place, (border, _))| {
            let until = rest.iter().map(|counts| counts.histogram[place].1);
            (*border, until.sum())
        });
        Counts {
            predictions: sum(|counts| counts.predictions),
            corrections: sum(|counts| counts.corrections),
            seconds: sum(|counts| counts.seconds),
            histogram: histogram.collect(),
        }
    }
}

impl Sums {
    fn users(&self) -> f64 {
        self.versions.values().map(|version| version.users).sum()
    }

    /// The logarithm of canary's correction rate over stable's, and its standard error, by pseudo-values.
    fn log_ratio(&self) -> (f64, f64) {
        let log_ratio = |bucket| {
            let log_rate = |version| {
                let counts = self.versions[version].without(bucket);
                (counts.corrections / counts.predictions).ln()
            };
            log_rate("canary") - log_rate("stable")
        };
        let all = log_ratio(None);
        let pseudo = (0..BUCKETS).map(|bucket| 32.0 * all - 31.0 * log_ratio(Some(bucket)));
        let pseudo: Vec<f64> = pseudo.collect();
        let mean = pseudo.iter().sum::<f64>() / 32.0;
        let squares: f64 = pseudo.iter().map(|value| (value - mean).powi(2)).sum();
        (all, (squares / 31.0 / 32.0).sqrt())
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
                let label = format!(r#"version="{version}""#);
                let users = gateways.iter().flat_map(|gateway| gateway.lines());
                let users = users.filter(|line| {
                    line.starts_with("lanekeeper_assignments_total{")
                        && line.contains(r#"rollout="sentiment""#)
                        && line.contains(&label)
                });
                let of_version = OfVersion {
                    users: users.map(value).sum(),
                    buckets: (0..BUCKETS)
                        .map(|bucket| counts(&metrics, bucket))
                        .collect(),
                };
                (version, of_version)
            });
        Self {
            versions: versions.collect(),
        }
    }
}

fn counts(metrics: &str, bucket: usize) -> Counts {
    let label = format!(r#"bucket="{bucket}""#);
    let of_bucket = metrics.lines().filter(|line| line.contains(&label));
    let lines: Vec<_> = of_bucket.collect();
    let lines_of = |name: &str| {
        let series = format!("{name}{{");
        let lines = lines.iter().copied();
        lines.filter(move |line| line.starts_with(&series))
    };
    let sum = |name| lines_of(name).map(value).sum();
    let histogram = lines_of("answer_duration_seconds_bucket").map(|line| {
        let (_, border) = line.split_once(r#"le=""#).expect("a border");
        let (border, _) = border.split_once('"').expect("its end");
        // +Inf is a number to Rust, too.
        (border.parse::<f64>().expect("a number"), value(line))
    });
    let mut histogram: Vec<_> = histogram.collect();
    histogram.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    Counts {
        predictions: sum("review_predictions_total"),
        corrections: sum("review_overrides_total"),
        seconds: sum("answer_duration_seconds_sum"),
        histogram,
    }
}

fn value(line: &str) -> f64 {
    let (_, value) = line.rsplit_once(' ').expect("a value");
    value.parse().expect("a number")
}
