//! Both applications behind Lanekeeper, people who use them, and Prometheus and Alertmanager that watch.
#![allow(dead_code)] // each test file uses its part

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::http;
use harness::process::Process;
use harness::prometheus::{Monitoring, Options, WINDOW};
use harness::promise;
use harness::sentiment;
use harness::topology::Metrics;
use promises::{Application, Sentiment, SmsChecker, half};
use serde_json::Value;

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
            let down = monitoring
                .api()
                .query("up == 0 or absent(up)")
                .expect("a query");
            let seen = monitoring.api().query("count(up)").expect("a query");
            let all = watched.iter().map(Metrics::count).sum::<usize>() as f64;
            let is_all = seen.iter().any(|(_, seen)| *seen == all);
            (down.is_empty() && is_all).then_some(())
        });
        // The next second, or it might lie before the scrape.
        let watched_since = now() + 1;
        // Of what was counted before the first scrape after that, increase() would know nothing.
        wait("a scrape", || {
            let scraped = monitoring
                .api()
                .query("min(timestamp(up))")
                .expect("a query");
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

    /// The app-services of reviews as in a cluster, where an agent offers what they export together with
    /// what their sidecars do; by the addresses of such agents. And no other gateway than theirs.
    pub(crate) fn scrape_agents(&mut self, agents: [String; 2]) {
        let mut review = self.review().topology().metrics();
        review
            .services
            .retain(|(service, _)| *service != "app-service");
        review.sidecars = agents.into();
        self.monitoring.scrape(&[review]).expect("a file");
    }

    /// As [`System::scrape_gateways`], but for one target.
    pub(crate) fn scrape_all_but(&mut self, target: &str) {
        let mut review = self.review().topology().metrics();
        review.services.retain(|(_, address)| address != target);
        self.monitoring.scrape(&[review]).expect("a file");
        let seen = format!(r#"up{{instance="{target}"}}"#);
        wait("one target less", || {
            let seen = self.monitoring.api().query(&seen).expect("a query");
            seen.is_empty().then_some(())
        });
    }

    /// The alerts in this state, but for those of a busy system.
    pub(crate) fn alerts(&self, state: &str) -> Vec<Value> {
        let alerts = self.monitoring.api().alerts().expect("alerts").into_iter();
        let is_told = |alert: &Value| alert["state"] == state && !BUSY.contains(&name(alert));
        alerts.filter(is_told).collect()
    }

    /// Waits until an alert fires, and no other does; what it says. It was pending before.
    pub(crate) fn wait_for(&self, expected: &str) -> Value {
        let firing = wait(expected, || {
            let firing = self.alerts("firing");
            self.only(expected, &firing);
            firing.into_iter().next()
        });
        self.was_pending(expected);
        firing
    }

    pub(crate) fn was_pending(&self, alert: &str) {
        let pending = self.monitoring.api().alerts_of_late("pending");
        let pending = pending.expect("alerts");
        assert!(
            pending.iter().any(|name| name == alert),
            "{alert}: {pending:?}"
        );
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
                    let _ = sentiment::visit(&reviews, visit);
                    let _ = http::send(&messages, &promise::message(visit));
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
