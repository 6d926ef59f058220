//! Both applications behind Lanekeeper, people who use them, and Prometheus and Alertmanager that watch.
#![allow(dead_code)] // each test file uses its part

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::http::{self, Client, Request};
use harness::process::Process;
use harness::prometheus::{Monitoring, Options, WINDOW};
use harness::sentiment;
use harness::topology::Metrics;
use promises::{Application, Sentiment, SmsChecker, cookies, half};
use serde_json::{Value, json};

/// What is told of a system that is well, as long as it is used.
pub(crate) const BUSY: [&str; 2] = ["ManyRequests", "ManyReviews"];

/// How long an alert may take to come or to go, beside what it looks back at.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Both applications, those who use them, and those who watch them.
pub(crate) struct System {
    /// Everything was scraped by then, and nobody had come yet: seconds since 1970-01-01 UTC.
    pub(crate) watched_since: u64,
    pub(crate) crowd: Crowd,
    pub(crate) sms: SmsChecker,
    pub(crate) sentiment: Sentiment,
    pub(crate) monitoring: Monitoring,
    pub(crate) dir: PathBuf,
}

impl System {
    /// Starts everything; whether in a hurry, see [`Options`].
    pub(crate) fn start(hurry: bool) -> Self {
        let mut sms = SmsChecker::start_with(half);
        let mut sentiment = Sentiment::start(half);
        let dir = Process::scratch_dir("alerts").expect("a directory");
        let options = Options {
            dir: dir.clone(),
            ports: [0, 0],
            hurry,
        };
        let watched = [sentiment.application(), sms.application()];
        let watched = watched.map(|application| application.topology().metrics());
        let monitoring =
            Monitoring::start(&options, &watched).expect("Prometheus and Alertmanager");
        // What is counted before it is scraped for the first time, Prometheus does not see.
        wait("all targets", || {
            let down = monitoring.query("up == 0 or absent(up)").expect("a query");
            let seen = monitoring.query("count(up)").expect("a query");
            let all = watched.iter().map(Metrics::count).sum::<usize>() as f64;
            let is_all = seen.iter().any(|(_, seen)| *seen == all);
            (down.is_empty() && is_all).then_some(())
        });
        // The next second, or it might lie before the scrape.
        let watched_since = now() + 1;
        // Of what was counted before the first scrape after that, increase() would know nothing.
        wait("a scrape", || {
            let scraped = monitoring.query("min(timestamp(up))").expect("a query");
            let is_since = |(_, at): &(Value, f64)| *at > watched_since as f64;
            scraped.iter().any(is_since).then_some(())
        });
        Self {
            watched_since,
            crowd: Crowd::start(&sentiment.gateway(), &sms.gateway()),
            sms,
            sentiment,
            monitoring,
            dir,
        }
    }

    pub(crate) fn review(&mut self) -> &mut Application {
        self.sentiment.application()
    }

    /// The gateways that Prometheus is to scrape, by their admin APIs.
    pub(crate) fn scrape_gateways(&mut self, gateways: &[&str]) {
        let mut review = self.review().topology().metrics();
        let mut sms = self.sms.application().topology().metrics();
        review.gateways = gateways.iter().map(|&gateway| gateway.to_owned()).collect();
        sms.gateways = Vec::new();
        self.monitoring.scrape(&[review, sms]).expect("a file");
    }

    /// Neither the app-services of reviews nor another gateway than theirs, but their sidecars.
    pub(crate) fn scrape_sidecars_alone(&mut self) {
        let mut review = self.review().topology().metrics();
        review
            .services
            .retain(|(service, _)| *service != "app-service");
        self.monitoring.scrape(&[review]).expect("a file");
    }

    /// The alerts in this state, but for those of a busy system.
    pub(crate) fn alerts(&self, state: &str) -> Vec<Value> {
        let alerts = self.monitoring.alerts().expect("alerts").into_iter();
        let is_told = |alert: &Value| alert["state"] == state && !BUSY.contains(&name(alert));
        alerts.filter(is_told).collect()
    }

    /// Waits until an alert fires that was pending before, and no other fires; what it says.
    pub(crate) fn wait_for(&self, expected: &str) -> Value {
        let mut was_pending = false;
        let firing = wait(expected, || {
            was_pending |= self.alerts("pending").iter().any(|a| name(a) == expected);
            let firing = self.alerts("firing");
            self.only(expected, &firing);
            firing.into_iter().next()
        });
        assert!(was_pending, "{expected} was not pending before");
        firing
    }

    pub(crate) fn wait_for_end(&self, of: &str) {
        wait(&format!("the end of {of}"), || {
            let firing = self.alerts("firing");
            self.only(of, &firing);
            firing.is_empty().then_some(())
        });
    }

    pub(crate) fn only(&self, expected: &str, firing: &[Value]) {
        let others: Vec<_> = firing.iter().filter(|a| name(a) != expected).collect();
        assert!(
            others.is_empty(),
            "while {expected} is expected: {others:#?}"
        );
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

pub(crate) fn name(alert: &Value) -> &str {
    alert["labels"]["alertname"].as_str().unwrap_or_default()
}

/// Seconds since 1970-01-01 UTC.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

/// Waits until there is something.
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        let waited = start.elapsed();
        assert!(waited < WINDOW + PATIENCE, "{what}: not within {waited:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// People who come, ask about a review and a message, and say what they think of the answer.
pub(crate) struct Crowd {
    is_over: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Crowd {
    pub(crate) fn start(reviews: &str, messages: &str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let workers = (0..4).map(|worker| {
            let is_over = Arc::clone(&is_over);
            let (reviews, messages) = (reviews.to_owned(), messages.to_owned());
            thread::spawn(move || {
                for visit in (worker..).step_by(4) {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    // What is broken is broken for them, too.
                    let _ = ask_about_a_review(&reviews, visit);
                    let _ = http::send(&messages, &message(visit));
                    thread::sleep(Duration::from_millis(100));
                }
            })
        });
        Self {
            workers: workers.collect(),
            is_over,
        }
    }

    pub(crate) fn go(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().expect("no panic");
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn ask_about_a_review(gateway: &str, visit: usize) -> anyhow::Result<()> {
    let mut client = Client::connect(gateway)?;
    let page = client.send(&Request::get("/").header("host", sentiment::PAGE))?;
    let served_by = page.headers.get("x-served-by").unwrap_or_default();
    let version = served_by
        .rsplit_once("v=")
        .map_or("", |(_, version)| version);
    let ask = |path, body: Value| {
        Request::post(path, body.to_string())
            .header("host", sentiment::API)
            .header("content-type", "application/json")
            .header("cookie", cookies(&page))
            .header("x-app-version", version)
    };
    let review = [
        "The food was excellent!",
        "Terrible, the worst service ever",
    ][visit % 2];
    let answer = client.send(&ask(
        "/predict-sentiment-review",
        json!({ "review": review }),
    ))?;
    let answer: Value = serde_json::from_slice(&answer.body)?;
    let label = &answer["prediction"];
    // Canary's answers are corrected half as often.
    let one_in = if version == "canary" { 6 } else { 3 };
    let verdict = match (visit % one_in, label.as_u64()) {
        (0, Some(label)) => {
            json!({ "action": "override", "originalLabel": label, "correctedLabel": 1 - label })
        }
        _ => json!({ "action": "confirm", "originalLabel": label }),
    };
    client.send(&ask("/reviews/confirm", verdict))?;
    Ok(())
}

pub(crate) fn message(visit: usize) -> Request {
    let sms = [
        "see you at six",
        "WINNER! Claim your FREE prize now, text YES to 80001",
    ][visit % 2];
    Request::post("/sms", json!({ "sms": sms, "guess": "ham" }).to_string())
        .header("host", "sms-checker.local")
        // Few enough for no quota to refuse them, and no other one asks about visitors.
        .header("x-user", format!("user-{}", visit % 500))
        .header("content-type", "application/json")
}
