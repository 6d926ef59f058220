//! `lanekeeper verdict` on a real Prometheus, whose series the tests make up and judge once more, in
//! another way.

mod run;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use harness::debian;
use run::{Ran, lanekeeper};
use serde_json::Value;

/// 2026-01-05T00:00:00Z, when all experiments here start.
const START: u64 = 1_767_571_200;
/// Users are counted so often.
const STEP: u64 = 300;
/// The service is scraped so often.
const SCRAPE: u64 = 1800;
const HOUR: u64 = 3600;
const END: u64 = START + 24 * HOUR;
/// Each Envoy deals out so many users in a step; there are two after ten hours.
const NEWCOMERS: [u64; 2] = [9, 3];
const SECOND_ENVOY: u64 = START + 10 * HOUR;
/// The first Envoy begins anew here.
const RESTART: u64 = START + 6 * HOUR;
/// 12 users in each of 120 steps, then 24: 2,016 after 144 of them, the first time over 2,000.
const PLANNED: u64 = 2000;
const FULFILLED: u64 = START + 144 * STEP;

const BORDERS: [f64; 10] = [
    0.1,
    0.12,
    0.144,
    0.1728,
    0.207_36,
    0.248_832,
    0.298_598_4,
    0.358_318_08,
    0.429_981_696,
    0.515_978_035_2,
];
/// The share of the answers up to each border.
const ANSWERED: [f64; 10] = [0.05, 0.15, 0.3, 0.5, 0.68, 0.8, 0.9, 0.96, 0.99, 1.0];
/// Predictions for each bucket and scrape.
const PREDICTIONS: [f64; 2] = [24.0, 8.0];
/// The 95th percentile of Student's t with 31 degrees of freedom, from a table.
const T_31: f64 = 1.6955;

/// A Prometheus that scrapes nothing.
struct Prometheus {
    port: u16,
    server: Child,
    _data: tempfile::TempDir,
}

impl Prometheus {
    fn start(series: &str) -> Self {
        let series = format!("{series}# EOF\n");
        let data = tempfile::tempdir().unwrap();
        let file = |name: &str| data.path().join(name);
        fs::write(file("series"), series).unwrap();
        fs::write(file("prometheus.yml"), "scrape_configs: []\n").unwrap();
        let mut promtool = debian::command("promtool").expect("promtool");
        promtool.args(["tsdb", "create-blocks-from", "openmetrics"]);
        let done = promtool.arg(file("series")).arg(file("data")).output();
        let done = done.expect("it runs");
        assert!(done.status.success(), "{done:?}");

        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let port = port.unwrap().port();
        let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let server = debian::command("prometheus")
            .expect("prometheus")
            .arg(option("config.file", &file("prometheus.yml")))
            .arg(option("storage.tsdb.path", &file("data")))
            .arg("--storage.tsdb.retention.time=100y")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--web.external-url=/mesh", "--web.route-prefix=/mesh"])
            .stdout(Stdio::null())
            .stderr(File::create(file("log")).unwrap())
            .spawn()
            .expect("it runs");
        let mut prometheus = Self {
            port,
            server,
            _data: data,
        };
        prometheus.wait();
        prometheus
    }

    fn wait(&mut self) {
        let start = Instant::now();
        while !self.get("/mesh/-/ready").starts_with("HTTP/1.0 200") {
            let ended = self.server.try_wait().unwrap();
            let log = fs::read_to_string(self._data.path().join("log"));
            assert!(ended.is_none(), "prometheus ended: {ended:?} {log:?}");
            assert!(start.elapsed() < Duration::from_secs(60), "{log:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The whole answer; nothing if there is none.
    fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        let connected = TcpStream::connect(("127.0.0.1", self.port));
        let _ = connected.and_then(|mut stream| {
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            stream.read_to_string(&mut answer)
        });
        answer
    }

    /// The one value of an expression, as Prometheus itself computes it.
    fn value(&self, expression: &str, at: u64) -> f64 {
        let escaped = expression.bytes().map(|byte| format!("%{byte:02x}"));
        let escaped: String = escaped.collect();
        let answer = self.get(&format!("/mesh/api/v1/query?query={escaped}&time={at}"));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        let value = &body["data"]["result"][0]["value"][1];
        value
            .as_str()
            .unwrap_or_else(|| panic!("{body}"))
            .parse()
            .unwrap()
    }

    fn verdict(&self, experiment: &str, at: u64, args: &[&str]) -> Ran {
        let url = format!("http://ops:secret@127.0.0.1:{}/mesh", self.port);
        let at = humantime::format_rfc3339(std::time::UNIX_EPOCH + Duration::from_secs(at));
        let at = at.to_string();
        let all = [
            "verdict",
            "--experiment",
            "-",
            "--prometheus",
            &url,
            "--at",
            &at,
        ];
        lanekeeper(Path::new("."), &[&all, args].concat(), experiment)
    }

    fn json(&self, experiment: &str, at: u64) -> (Value, Option<i32>) {
        let ran = self.verdict(experiment, at, &["--output", "json"]);
        assert_eq!(ran.err, "");
        (serde_json::from_str(&ran.out).unwrap(), ran.code)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn experiment(rollout: &str, namespace: &str) -> String {
    format!(
        "{{ rollout: {rollout}, control: stable, treatment: canary, start: 2026-01-05T00:00:00Z,
            users: {PLANNED}, matchers: {{ service: 'namespace=\"{namespace}\"' }} }}"
    )
}

/// How one bucket of a version differs from the others.
fn jitter(bucket: u64, version: usize) -> f64 {
    let number = (bucket * 7 + version as u64 * 3) % 11;
    (number as f64 - 5.0) / 100.0
}

/// What one bucket of a version does between two scrapes.
struct Bucket {
    predictions: f64,
    corrections: f64,
    seconds: f64,
    /// By border, with the infinite one.
    answers: Vec<f64>,
}

fn bucket(bucket: u64, version: usize, slower: [f64; 2]) -> Bucket {
    let jitter = jitter(bucket, version);
    let predictions = PREDICTIONS[version];
    let within = |share: &f64| predictions * share.powf(slower[version] * (1.0 + jitter));
    let answers = ANSWERED.iter().map(within);
    Bucket {
        predictions,
        corrections: predictions * [0.2, 0.26][version] * (1.0 + jitter),
        seconds: predictions * 0.18 * slower[version] * (1.0 + jitter / 2.0),
        answers: answers.chain([predictions]).collect(),
    }
}

/// A counter that grows evenly from its first sample on, and begins anew at `restart`.
fn counter(text: &mut String, series: &str, a_step: f64, (first, step): (u64, u64), restart: u64) {
    let mut value = 0.0;
    for time in (first..=END).step_by(step as usize) {
        value = if time == restart { 0.0 } else { value } + a_step;
        writeln!(text, "{series} {value} {time}").unwrap();
    }
}

fn assigned(text: &mut String, rollout: &str, newcomers: [u64; 2]) {
    for (version, newcomers) in ["stable", "canary"].iter().zip(newcomers) {
        for (pod, first) in [("a", START - HOUR), ("b", SECOND_ENVOY)] {
            let labels = format!("rollout=\"{rollout}\",version=\"{version}\",pod=\"{pod}\"");
            let series = format!("lanekeeper_assignments_total{{{labels}}}");
            let restart = if pod == "a" { RESTART } else { 0 };
            counter(text, &series, newcomers as f64, (first, STEP), restart);
        }
    }
}

fn dealt(text: &mut String, rollout: &str, slots: impl Fn(u64) -> [u64; 2]) {
    for (version, name) in ["stable", "canary"].iter().enumerate() {
        for pod in ["a", "b"] {
            for time in (START - HOUR..=END).step_by(STEP as usize) {
                let slots = slots(time)[version];
                let labels = format!("rollout=\"{rollout}\",version=\"{name}\",pod=\"{pod}\"");
                writeln!(text, "lanekeeper_slots{{{labels}}} {slots} {time}").unwrap();
            }
        }
    }
}

fn served(text: &mut String, namespace: &str, slower: [f64; 2]) {
    let from = (START - HOUR, SCRAPE);
    let restart = START + 3 * HOUR;
    for (version, name) in ["stable", "canary"].iter().enumerate() {
        for number in 0..32 {
            let counts = bucket(number, version, slower);
            let labels =
                format!("namespace=\"{namespace}\",version=\"{name}\",bucket=\"{number}\"");
            for (pod, share) in [("a", 0.25), ("b", 0.75)] {
                let mut add = |metric: &str, more: &str, a_step: f64| {
                    let series = format!("{metric}{{{labels},pod=\"{pod}\"{more}}}");
                    counter(text, &series, a_step * share, from, restart);
                };
                let [half, third] = [counts.predictions / 2.0, counts.corrections / 3.0];
                for label in ["positive", "negative"] {
                    let more = format!(",label=\"{label}\"");
                    add("review_predictions_total", &more, half);
                }
                for (original, times) in [("positive", 1.0), ("negative", 2.0)] {
                    let more = format!(",original=\"{original}\",corrected=\"other\"");
                    add("review_overrides_total", &more, third * times);
                }
                add("answer_duration_seconds_sum", "", counts.seconds);
                let borders = BORDERS
                    .iter()
                    .map(f64::to_string)
                    .chain(["+Inf".to_owned()]);
                for (border, answers) in borders.zip(&counts.answers) {
                    let more = format!(",le=\"{border}\"");
                    add("answer_duration_seconds_bucket", &more, *answers);
                }
            }
        }
        // Nobody's requests: every prediction is corrected, and takes a second.
        let labels = format!("namespace=\"{namespace}\",version=\"{name}\",bucket=\"none\"");
        for metric in [
            "review_predictions_total",
            "review_overrides_total",
            "answer_duration_seconds_sum",
        ] {
            let series = format!("{metric}{{{labels}}}");
            counter(text, &series, 100.0 * (version + 1) as f64, from, 0);
        }
    }
}

/// The series of an experiment without flaws, named sentiment.
fn sound() -> String {
    let mut text = String::new();
    assigned(&mut text, "sentiment", NEWCOMERS);
    dealt(&mut text, "sentiment", |_| [7500, 2500]);
    served(&mut text, "sentiment", [1.0, 1.01]);
    text
}

/// The logarithm of canary's figure over stable's and its standard error, by pseudo-values.
fn pseudo_values(figure: impl Fn(&[Bucket]) -> f64) -> (f64, f64) {
    let versions = [0, 1];
    let log_ratio = |without: Option<u64>| {
        let of = |version| {
            let numbers = (0..32).filter(|number| Some(*number) != without);
            let buckets = numbers.map(|number| bucket(number, version, [1.0, 1.01]));
            figure(&buckets.collect::<Vec<_>>())
        };
        let [stable, canary] = versions.map(of);
        canary.ln() - stable.ln()
    };
    let all = log_ratio(None);
    let pseudo: Vec<f64> = (0..32)
        .map(|number| 32.0 * all - 31.0 * log_ratio(Some(number)))
        .collect();
    let mean = pseudo.iter().sum::<f64>() / 32.0;
    let squares: f64 = pseudo.iter().map(|value| (value - mean).powi(2)).sum();
    (all, (squares / 31.0 / 32.0).sqrt())
}

fn close(value: &Value, expected: f64, tolerance: f64) {
    let value = value
        .as_f64()
        .unwrap_or_else(|| panic!("{value}, not {expected}"));
    assert!(
        (value - expected).abs() <= tolerance * expected.abs(),
        "{value}, not {expected}"
    );
}

/// Half an hour before the plan is fulfilled: six steps of 24 users are to come, eight users over it.
const EARLY: u64 = FULFILLED - HOUR / 2 + 90;

#[test]
fn the_verdict_is_that_of_another_computation() {
    let prometheus = Prometheus::start(&sound());
    let experiment = experiment("sentiment", "sentiment");
    let ran = prometheus.verdict(&experiment, EARLY, &[]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(4), ""));
    let begin = "verdict     not enough data, 128 more users\n";
    assert!(ran.out.starts_with(begin), "{}", ran.out);

    let ran = prometheus.verdict(&experiment, FULFILLED + 90, &[]);
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    for line in ran.out.lines() {
        let quoted = format!("\n    {line}");
        assert!(
            readme.contains(quoted.trim_end()),
            "README: {line}\n{}",
            ran.out
        );
    }
    let (json, code) = prometheus.json(&experiment, FULFILLED + 90);
    assert_eq!((&json["verdict"], code), (&"accept".into(), Some(0)));
    assert_eq!(json["judged_at"], "2026-01-05T12:00:00Z");
    let users = serde_json::json!({ "control": 1512, "treatment": 504 });
    assert_eq!(json["users"], users);
    close(&json["sample_ratio_p"], 1.0, 1e-9);
    assert_eq!(json["buckets"], 32);
    // Whoever asks later gets the same.
    assert_eq!(prometheus.json(&experiment, END), (json.clone(), Some(0)));

    let sum =
        |buckets: &[Bucket], field: fn(&Bucket) -> f64| buckets.iter().map(field).sum::<f64>();
    let rate = |buckets: &[Bucket]| {
        sum(buckets, |bucket| bucket.corrections) / sum(buckets, |bucket| bucket.predictions)
    };
    let mean = |buckets: &[Bucket]| {
        sum(buckets, |bucket| bucket.seconds) / sum(buckets, |bucket| bucket.predictions)
    };
    for (name, (log, error)) in [
        ("correction_rate", pseudo_values(rate)),
        ("mean_latency_seconds", pseudo_values(mean)),
    ] {
        let figure = &json[name];
        close(&figure["rise"], log.exp_m1(), 1e-6);
        close(&figure["interval"][0], (log - T_31 * error).exp_m1(), 1e-3);
        close(&figure["interval"][1], (log + T_31 * error).exp_m1(), 1e-3);
    }
    for (version, role) in [("stable", "control"), ("canary", "treatment")] {
        let increase = |metric: &str, more: &str| {
            let matchers =
                format!("namespace=\"sentiment\",version=\"{version}\",bucket!=\"none\"{more}");
            format!("sum(increase({metric}{{{matchers}}}[12h]))")
        };
        // At the p95, five of a hundred still wait, if between two borders they become fewer by the same
        // share of themselves all the time.
        let p95 = json["p95_latency_seconds"][role].as_f64().unwrap();
        let place = BORDERS.iter().position(|border| *border > p95).unwrap();
        let around = [place - 1, place].map(|place| BORDERS[place]);
        let within = (p95 - around[0]) / (around[1] - around[0]);
        let answers = |border: &str| {
            increase(
                "answer_duration_seconds_bucket",
                &format!(",le=\"{border}\""),
            )
        };
        let waiting = around.map(|border| {
            let until = answers(&border.to_string());
            let share = format!("1 - {until} / {}", answers("+Inf"));
            prometheus.value(&share, FULFILLED)
        });
        let left = waiting[0].powf(1.0 - within) * waiting[1].powf(within);
        close(&left.into(), 0.05, 1e-9);
        let [corrections, predictions] = ["review_overrides_total", "review_predictions_total"]
            .map(|metric| increase(metric, ""));
        let rate = format!("{corrections} / {predictions}");
        let rate = prometheus.value(&rate, FULFILLED);
        close(&json["correction_rate"][role], rate, 1e-9);
    }
}

#[test]
fn a_latency_that_rises_a_lot_is_rolled_back_early_and_late() {
    let mut series = sound();
    served(&mut series, "slow", [1.0, 1.4]);
    let prometheus = Prometheus::start(&series);
    let slow = experiment("sentiment", "slow");
    let ran = prometheus.verdict(&slow, EARLY, &[]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let begin = "verdict     roll back\n            mean latency: +";
    let (_, reason) = ran.out.split_once(begin).unwrap();
    let reason = reason.lines().next().unwrap();
    assert!(
        reason.contains(" at least, less than +5.0 % is asked for"),
        "{reason}"
    );
    let (json, code) = prometheus.json(&slow, END);
    assert_eq!((&json["verdict"], code), (&"roll_back".into(), Some(3)));
}

#[test]
fn an_experiment_that_was_not_run_as_declared_is_invalid() {
    let mut series = sound();
    assigned(&mut series, "lossy", [9, 2]);
    dealt(&mut series, "lossy", |_| [7500, 2500]);
    assigned(&mut series, "moved", NEWCOMERS);
    dealt(&mut series, "moved", |time| {
        if time < START + 5 * HOUR {
            return [7500, 2500];
        }
        [9000, 1000]
    });
    let prometheus = Prometheus::start(&series);
    for ([rollout, namespace], reason) in [
        (
            ["lossy", "sentiment"],
            "sample-ratio mismatch: 18.18 % of the new users got canary, 25.00 % should have",
        ),
        (
            ["moved", "sentiment"],
            "the weights moved, or were not the same in all gateways, for the last time by 2026-01-05T05:00:00Z: ",
        ),
        (
            ["absent", "sentiment"],
            "Prometheus has no lanekeeper_slots of rollout absent for both stable and canary: ",
        ),
        (
            ["sentiment", "absent"],
            "only 0 of 32 buckets have predictions and answers of both versions, ",
        ),
    ] {
        let (json, code) = prometheus.json(&experiment(rollout, namespace), END);
        assert_eq!((&json["verdict"], code), (&"invalid".into(), Some(5)));
        let told = json["reasons"][0].as_str().unwrap();
        assert!(told.starts_with(reason), "{told}");
    }
}

#[test]
fn what_prometheus_says_of_a_faulty_query_is_passed_on() {
    let prometheus = Prometheus::start(&sound());
    let faulty = experiment("sentiment", "sentiment");
    let faulty = faulty.replace("namespace=\"sentiment\"", "namespace=~\"[\"");
    let ran = prometheus.verdict(&faulty, END, &[]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    let begin = format!(
        "http://127.0.0.1:{}/mesh: predictions: bad_data: ",
        prometheus.port
    );
    assert!(ran.err.starts_with(&begin), "{}", ran.err);
}
