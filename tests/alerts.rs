//! What breaks is told by its alert and by no other, in Prometheus and by mail, until it is mended. When
//! all is well, every rule and every panel has something to show.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use harness::http::{self, Client, Request};
use harness::monitoring;
use harness::process::Process;
use harness::prometheus::{Monitoring, Options, WINDOW};
use harness::sentiment;
use lanekeeper_cli::read_document;
use promises::{Application, Sentiment, SmsChecker, cookies};
use serde_json::{Value, json};

/// What is told of a system that is well, as long as it is used.
const BUSY: [&str; 2] = ["ManyRequests", "ManyReviews"];

/// How long an alert may take to come or to go, beside what it looks back at.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both applications, those who use them, and those who watch them.
struct System {
    crowd: Crowd,
    sms: SmsChecker,
    sentiment: Sentiment,
    monitoring: Monitoring,
    dir: PathBuf,
}

impl System {
    fn start() -> Self {
        let mut sms = SmsChecker::start_with(half);
        let mut sentiment = Sentiment::start(half);
        let dir = Process::scratch_dir("alerts").expect("a directory");
        let options = Options {
            dir: dir.clone(),
            ports: [0, 0],
            hurry: true,
        };
        let watched = [sentiment.application(), sms.application()];
        let watched = watched.map(|application| application.topology().metrics());
        let monitoring =
            Monitoring::start(&options, &watched).expect("Prometheus and Alertmanager");
        Self {
            crowd: Crowd::start(&sentiment.gateway(), &sms.gateway()),
            sms,
            sentiment,
            monitoring,
            dir,
        }
    }

    fn review(&mut self) -> &mut Application {
        self.sentiment.application()
    }

    /// The gateways that Prometheus is to scrape, by their admin APIs.
    fn scrape_gateways(&mut self, gateways: &[&str]) {
        let mut review = self.review().topology().metrics();
        let mut sms = self.sms.application().topology().metrics();
        review.gateways = gateways.iter().map(|&gateway| gateway.to_owned()).collect();
        sms.gateways = Vec::new();
        self.monitoring.scrape(&[review, sms]).expect("a file");
    }

    /// The alerts in this state, but for those of a busy system.
    fn alerts(&self, state: &str) -> Vec<Value> {
        let alerts = self.monitoring.alerts().expect("alerts").into_iter();
        let is_told = |alert: &Value| alert["state"] == state && !BUSY.contains(&name(alert));
        alerts.filter(is_told).collect()
    }

    /// Waits until an alert fires that was pending before, and no other fires; what it says.
    fn wait_for(&self, expected: &str) -> Value {
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

    fn wait_for_end(&self, of: &str) {
        wait(&format!("the end of {of}"), || {
            let firing = self.alerts("firing");
            self.only(of, &firing);
            firing.is_empty().then_some(())
        });
    }

    fn only(&self, expected: &str, firing: &[Value]) {
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

/// Half of the users for either version, so that both soon have enough of them to be judged.
fn half(policy: &mut Value) {
    for rollout in policy["rollouts"].as_array_mut().expect("rollouts") {
        rollout["versions"] = promises::versions(50, 50, "live");
    }
}

fn name(alert: &Value) -> &str {
    alert["labels"]["alertname"].as_str().unwrap_or_default()
}

/// Waits until there is something.
fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
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
struct Crowd {
    is_over: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn start(reviews: &str, messages: &str) -> Self {
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

    fn go(&mut self) {
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

fn ask_about_a_review(gateway: &str, visit: usize) -> anyhow::Result<()> {
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
    let verdict = match (visit % 3, label.as_u64()) {
        (0, Some(label)) => {
            json!({ "action": "override", "originalLabel": label, "correctedLabel": 1 - label })
        }
        _ => json!({ "action": "confirm", "originalLabel": label }),
    };
    client.send(&ask("/reviews/confirm", verdict))?;
    Ok(())
}

fn message(visit: usize) -> Request {
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

#[test]
fn when_all_is_well_every_rule_and_panel_has_data_and_nothing_is_told_but_that_it_is_busy() {
    let mut system = System::start();
    let queries = [recording_rules(), panels()].concat();
    assert!(queries.len() > 50, "{}", queries.len());
    let mut empty = Vec::new();
    let start = Instant::now();
    loop {
        empty.clear();
        for (place, query) in &queries {
            let found = system.monitoring.query(query).expect("a query");
            if !found.iter().any(|(_, value)| value.is_finite()) {
                empty.push(format!("{place}: {query}"));
            }
        }
        if empty.is_empty() || start.elapsed() > WINDOW + PATIENCE {
            break;
        }
        thread::sleep(Duration::from_secs(1));
    }
    assert!(empty.is_empty(), "no data:\n{}", empty.join("\n"));

    let firing = wait("that it is busy", || {
        let alerts = system.monitoring.alerts().expect("alerts");
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        let firing: BTreeSet<_> = firing.map(|alert| name(alert).to_owned()).collect();
        (firing.len() >= BUSY.len()).then_some(firing)
    });
    assert_eq!(firing, BUSY.map(str::to_owned).into());
    system.crowd.go();
    wait("that it is quiet", || {
        let alerts = system.monitoring.alerts().expect("alerts");
        (!alerts.iter().any(|alert| alert["state"] == "firing")).then_some(())
    });
}

/// Where it is, and the name of what is recorded.
fn recording_rules() -> Vec<(String, String)> {
    let files = monitoring::files("rules", "yaml").expect("rules");
    let documents = files.iter().map(|file| read_document(file).expect("rules"));
    let mut found = Vec::new();
    for document in documents {
        for group in document["groups"].as_array().expect("groups") {
            for rule in group["rules"].as_array().expect("rules") {
                let record = rule["record"].as_str();
                found.extend(record.map(|name| ("rules".to_owned(), name.to_owned())));
            }
        }
    }
    found
}

/// Where it is, and what the panel asks when nothing is chosen.
fn panels() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in monitoring::files("dashboards", "json").expect("dashboards") {
        let dashboard = read_document(&file).expect("a dashboard");
        let variables = dashboard["templating"]["list"].as_array().expect("a list");
        for panel in dashboard["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let mut query = target["expr"].as_str().expect("a query").to_owned();
                query = query.replace("$__rate_interval", &format!("{}s", WINDOW.as_secs()));
                for variable in variables {
                    let variable = variable["name"].as_str().expect("a name");
                    query = query.replace(&format!("${variable}"), ".*");
                }
                let place = format!("{}, {}", file.display(), panel["title"]);
                found.push((place, query));
            }
        }
    }
    found
}

#[test]
fn what_breaks_is_told_by_its_alert_alone_and_by_mail_until_it_is_mended() {
    let mut system = System::start();
    let models = harness::build::workspace().join("services/model-service/models");
    let model = |name: &str| models.join(name).display().to_string();
    let canary = model("review-canary.json");
    // Nothing is told before there is enough to judge by.
    wait("data", || {
        let z = system
            .monitoring
            .query("version:lanekeeper_assignments:z1h");
        (!z.expect("a query").is_empty()).then_some(())
    });
    system.only("nothing", &system.alerts("firing"));
    let mut told = Vec::new();

    // Canary's model is that of another task, and answers no question.
    let other = model("sms-canary.json");
    system
        .review()
        .replace_model("canary", &[("MODEL_FILE", &other)]);
    told.push(system.wait_for("VersionFails"));
    system
        .review()
        .replace_model("canary", &[("MODEL_FILE", &canary)]);
    system.wait_for_end("VersionFails");

    let pid = system
        .review()
        .topology()
        .model("canary")
        .expect("a model")
        .id();
    let pauses = Pauses::of(pid);
    told.push(system.wait_for("VersionSlow"));
    drop(pauses);
    system.wait_for_end("VersionSlow");

    // A route that is wrong.
    let sidecar = system.review().sidecar("canary");
    let astray = Request::get("/version").header("x-app-version", "stable");
    http::send(&sidecar, &astray).expect("a response");
    told.push(system.wait_for("TierMismatch"));
    system.wait_for_end("TierMismatch");

    system.review().push(r#"{ "rollouts": 7 }"#);
    told.push(system.wait_for("PolicyRejected"));
    let policy = system.review().policy().to_string();
    system.review().push(&policy);
    system.wait_for_end("PolicyRejected");

    let mut noisy = Client::connect(&system.sentiment.gateway()).expect("a connection");
    let request = Request::get("/")
        .header("host", sentiment::PAGE)
        .header("x-user", "noisy");
    for _ in 0..300 {
        noisy.send(&request).expect("a response");
    }
    told.push(system.wait_for("QuotaRefuses"));
    system.wait_for_end("QuotaRefuses");

    // A challenger that likes nothing.
    let broken = system.dir.join("broken.json");
    let text = r#"{"format":1,"task":"review-sentiment","name":"broken","features":"word-counts","dimensions":1,"bias":-9.0,"weights":[0.0]}"#;
    fs::write(&broken, text).expect("a file");
    let (broken, champion) = (broken.display().to_string(), model("review-stable.json"));
    let shadow = |file| [("MODEL_FILE", file), ("CHAMPION_FILE", champion.as_str())];
    system.review().replace_model("shadow", &shadow(&broken));
    told.push(system.wait_for("ShadowDisagrees"));
    let sound = model("review-shadow.json");
    system.review().replace_model("shadow", &shadow(&sound));
    system.wait_for_end("ShadowDisagrees");

    // Nothing makes the filter deal newcomers unfairly. So what it says of its slots is changed.
    let gateway = system.review().topology().admin().to_owned();
    system.scrape_gateways(&[&with_other_slots(&gateway)]);
    told.push(system.wait_for("SampleRatioMismatch"));
    system.scrape_gateways(&[&gateway]);
    system.wait_for_end("SampleRatioMismatch");

    // An Envoy that has no filter.
    let plain = system.review().topology().plain_admin().to_owned();
    system.scrape_gateways(&[&gateway, &plain]);
    told.push(system.wait_for("LanekeeperAbsent"));
    system.scrape_gateways(&[&gateway]);
    system.wait_for_end("LanekeeperAbsent");

    for alert in told {
        let (firing, resolved) = wait(&format!("mails of {}", name(&alert)), || {
            let mails = mails_about(&system.monitoring, &alert);
            let is_resolved = |mail: &&Mail| mail.subject.starts_with("[RESOLVED] ");
            let (resolved, firing): (Vec<_>, Vec<_>) = mails.iter().partition(is_resolved);
            Some((firing.first()?.text.clone(), resolved.first()?.text.clone()))
        });
        let annotation = |name: &str| alert["annotations"][name].as_str().expect("text");
        for text in [firing, resolved] {
            assert!(text.contains(annotation("summary")), "{text}");
            let link = annotation("runbook_url");
            assert!(text.contains(link), "{text}");
            let (_, section) = link.split_once("/runbook.md#").expect("a section");
            assert_eq!(section, name(&alert).to_lowercase());
        }
    }
}

/// Stops a process for a moment, again and again.
struct Pauses {
    pid: String,
    is_over: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

impl Pauses {
    fn of(pid: u32) -> Self {
        let (pid, is_over) = (pid.to_string(), Arc::new(AtomicBool::new(false)));
        let worker = {
            let (pid, is_over) = (pid.clone(), Arc::clone(&is_over));
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    signal("STOP", &pid);
                    thread::sleep(Duration::from_millis(200));
                    signal("CONT", &pid);
                    thread::sleep(Duration::from_millis(100));
                }
            })
        };
        Self {
            pid,
            is_over,
            worker: Some(worker),
        }
    }
}

impl Drop for Pauses {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.worker.take().map(JoinHandle::join);
        signal("CONT", &self.pid);
    }
}

fn signal(name: &str, pid: &str) {
    let _ = Command::new("kill").args(["-s", name, pid]).status();
}

/// The metrics of a gateway, but that it says to deal one newcomer in ten to canary.
fn with_other_slots(gateway: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let url = format!("http://{gateway}/stats/prometheus");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let Ok(metrics) = http::get(&url) else { break };
            let lines = metrics.text().lines().map(other_slots).collect::<Vec<_>>();
            let body = lines.join("\n") + "\n";
            let length = body.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    address
}

fn other_slots(line: &str) -> String {
    match line.rsplit_once(' ') {
        Some((series, _)) if series.starts_with("lanekeeper_slots{") => {
            let is_canary = series.contains(r#"version="canary""#);
            format!("{series} {}", if is_canary { 1_000 } else { 9_000 })
        }
        _ => line.to_owned(),
    }
}

struct Mail {
    subject: String,
    text: String,
}

/// The mails about an alert, by what its subject says.
fn mails_about(monitoring: &Monitoring, alert: &Value) -> Vec<Mail> {
    let summary = alert["annotations"]["summary"].as_str().expect("a summary");
    let mails = monitoring.mail().mails().into_iter().map(|mail| {
        let mail = mailparse::parse_mail(&mail).expect("a mail");
        let subject = mail
            .headers
            .iter()
            .find(|header| header.get_key() == "Subject");
        let parts = mail.parts();
        let text = parts
            .into_iter()
            .find(|part| part.ctype.mimetype == "text/plain");
        Mail {
            subject: subject.expect("a subject").get_value(),
            text: text.expect("text").get_body().expect("text"),
        }
    });
    mails
        .filter(|mail| mail.subject.contains(summary))
        .collect()
}
