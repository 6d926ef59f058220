//! What breaks is told by its alert and by no other, in Prometheus and by mail, until it is mended. When
//! all is well, every rule and every panel has something to show.

mod live;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use harness::http::{self, Client, Request};
use harness::monitoring;
use harness::prometheus::{Monitoring, WINDOW};
use harness::sentiment;
use lanekeeper_cli::read_document;
use live::{BUSY, PATIENCE, System, name, wait};
use serde_json::Value;

#[test]
fn when_all_is_well_every_rule_and_panel_has_data_and_nothing_is_told_but_that_it_is_busy() {
    let mut system = System::start(true);
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
    every_rule_is_evaluated(&system.monitoring);
    the_page_has_what_is_exported(&system.monitoring);

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

fn every_rule_is_evaluated(monitoring: &Monitoring) {
    let rules = monitoring.ask("rules", &[]).expect("rules");
    for group in rules["groups"].as_array().expect("groups") {
        for rule in group["rules"].as_array().expect("rules") {
            assert_eq!(rule["health"], "ok", "{rule:#}");
        }
    }
}

/// `monitoring/metrics.md` against what was scraped, but for what Envoy and Prometheus say themselves.
fn the_page_has_what_is_exported(monitoring: &Monitoring) {
    const OTHERS: [&str; 3] = ["envoy_", "scrape_", "ALERTS"];
    let names = monitoring.ask("label/__name__/values", &[]).expect("names");
    let names = names
        .as_array()
        .expect("names")
        .iter()
        .filter_map(Value::as_str);
    let is_ours = |name: &&str| !OTHERS.iter().any(|other| name.starts_with(other));
    let exported: BTreeSet<_> = names.filter(is_ours).map(str::to_owned).collect();

    let page = fs::read_to_string(monitoring::file("metrics.md")).expect("a page");
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let on_page = rows.flat_map(|(name, rest)| {
        match rest.starts_with("histogram ") {
            true => vec!["_bucket", "_count", "_sum"],
            false => vec![""],
        }
        .into_iter()
        .map(move |suffix| format!("{name}{suffix}"))
    });
    let on_page: BTreeSet<_> = on_page.collect();
    let difference: Vec<_> = exported.symmetric_difference(&on_page).collect();
    assert!(
        difference.is_empty(),
        "exported or on the page alone: {difference:#?}"
    );
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
    let mut system = System::start(true);
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
    told.push(told_by(&system, "VersionFails"));
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
    told.push(told_by(&system, "VersionSlow"));
    drop(pauses);
    system.wait_for_end("VersionSlow");

    // A route that is wrong.
    let sidecar = system.review().sidecar("canary");
    let astray = Request::get("/version").header("x-app-version", "stable");
    http::send(&sidecar, &astray).expect("a response");
    told.push(told_by(&system, "TierMismatch"));
    system.wait_for_end("TierMismatch");

    system.review().push(r#"{ "rollouts": 7 }"#);
    told.push(told_by(&system, "PolicyRejected"));
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
    told.push(told_by(&system, "QuotaRefuses"));
    system.wait_for_end("QuotaRefuses");

    // A challenger that likes nothing.
    let broken = system.dir.join("broken.json");
    let text = r#"{"format":1,"task":"review-sentiment","name":"broken","features":"word-counts","dimensions":1,"bias":-9.0,"weights":[0.0]}"#;
    fs::write(&broken, text).expect("a file");
    let (broken, champion) = (broken.display().to_string(), model("review-stable.json"));
    let shadow = |file| [("MODEL_FILE", file), ("CHAMPION_FILE", champion.as_str())];
    system.review().replace_model("shadow", &shadow(&broken));
    told.push(told_by(&system, "ShadowDisagrees"));
    let sound = model("review-shadow.json");
    system.review().replace_model("shadow", &shadow(&sound));
    system.wait_for_end("ShadowDisagrees");

    // Nothing makes the filter deal newcomers unfairly. So what it says of its slots is changed.
    let gateway = system.review().topology().admin().to_owned();
    system.scrape_gateways(&[&with_other_slots(&gateway)]);
    told.push(told_by(&system, "SampleRatioMismatch"));
    system.scrape_gateways(&[&gateway]);
    system.wait_for_end("SampleRatioMismatch");

    // An Envoy that has no filter.
    let plain = system.review().topology().plain_admin().to_owned();
    system.scrape_gateways(&[&gateway, &plain]);
    told.push(told_by(&system, "LanekeeperAbsent"));
    system.scrape_gateways(&[&gateway]);
    system.wait_for_end("LanekeeperAbsent");

    // A service that is dead, as it is seen where Istio's agent answers for both.
    system.scrape_sidecars_alone();
    told.push(told_by(&system, "ServiceSilent"));
    system.scrape_gateways(&[&gateway]);
    system.wait_for_end("ServiceSilent");

    for alert in told {
        let mail = wait(&format!("a mail that {} is over", name(&alert)), || {
            let mut mails = mails_about(&system.monitoring, &alert).into_iter();
            mails.find(|mail| mail.subject.starts_with("[RESOLVED] "))
        });
        says_what_to_do(&mail, &alert);
    }
}

/// Waits until an alert alone fires, and there is a mail of it; what fires.
fn told_by(system: &System, expected: &str) -> Value {
    let alert = system.wait_for(expected);
    let mail = wait(&format!("a mail of {expected}"), || {
        let mut mails = mails_about(&system.monitoring, &alert).into_iter();
        mails.find(|mail| !mail.subject.starts_with("[RESOLVED] "))
    });
    says_what_to_do(&mail, &alert);
    alert
}

fn says_what_to_do(mail: &Mail, alert: &Value) {
    let annotation = |name: &str| alert["annotations"][name].as_str().expect("text");
    let link = annotation("runbook_url");
    for expected in [annotation("summary"), link] {
        assert!(mail.text.contains(expected), "{}", mail.text);
    }
    let (_, section) = link.split_once("/runbook.md#").expect("a section");
    assert_eq!(section, name(alert).to_lowercase());
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
