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
use harness::process::Process;
use harness::prometheus::{Monitoring, Options, WINDOW};
use harness::sentiment;
use live::{BUSY, PATIENCE, System, name, wait};
use serde_json::{Value, json};

#[test]
fn when_all_is_well_every_rule_and_panel_has_data_and_nothing_is_told_but_that_it_is_busy() {
    let mut system = System::start(true);
    let queries = monitoring::queries(&format!("{}s", WINDOW.as_secs())).expect("queries");
    assert!(queries.len() > 50, "{}", queries.len());
    let mut empty;
    let start = Instant::now();
    loop {
        empty = monitoring::without_data(system.monitoring.api(), &queries).expect("answers");
        if empty.is_empty() || start.elapsed() > WINDOW + PATIENCE {
            break;
        }
        thread::sleep(Duration::from_secs(1));
    }
    assert!(empty.is_empty(), "no data:\n{}", empty.join("\n"));
    let unhealthy = system.monitoring.api().unhealthy_rules().expect("rules");
    assert!(unhealthy.is_empty(), "{unhealthy:#?}");
    let faults = monitoring::faults_of_page(system.monitoring.api()).expect("answers");
    assert!(faults.is_empty(), "metrics.md: {faults:#?}");

    let firing = wait("that it is busy", || {
        let alerts = system.monitoring.api().alerts().expect("alerts");
        let firing = alerts.into_iter().filter(|a| a["state"] == "firing");
        let firing: Vec<_> = firing.collect();
        (BUSY
            .iter()
            .all(|busy| firing.iter().any(|alert| name(alert) == *busy)))
        .then_some(firing)
    });
    let names: BTreeSet<_> = firing.iter().map(name).collect();
    assert_eq!(names, BUSY.into());
    for alert in &firing {
        system.was_pending(name(alert));
        says_what_to_do(&mail_that_begins(&system.monitoring, alert), alert);
    }
    system.crowd.go();
    wait("that it is quiet", || {
        let alerts = system.monitoring.api().alerts().expect("alerts");
        (!alerts.iter().any(|alert| alert["state"] == "firing")).then_some(())
    });
    nothing_was_told_but(&system.monitoring, &[]);
}

/// Neither by Prometheus at any time, nor by mail, but that it is busy.
fn nothing_was_told_but(monitoring: &Monitoring, told: &[Value]) {
    let fired = monitoring.api().alerts_of_late("firing").expect("alerts");
    let fired: BTreeSet<_> = fired.iter().map(String::as_str).collect();
    let expected = told.iter().map(name).chain(BUSY);
    assert_eq!(fired, expected.collect());
    for mail in mails(monitoring) {
        let is_of = |name: &str| {
            let link = format!("#{}", name.to_lowercase());
            mail.text
                .lines()
                .any(|line| line.trim_end().ends_with(&link))
        };
        assert!(fired.iter().any(|name| is_of(name)), "{}", mail.subject);
    }
}

/// A plugin without a policy is told once, and not that the push was refused, too.
#[test]
fn what_is_said_by_a_graver_alert_is_not_told_again() {
    let dir = Process::scratch_dir("inhibited").expect("a directory");
    let options = Options {
        dir: dir.clone(),
        ports: [0, 0],
        hurry: true,
    };
    let monitoring = Monitoring::start(&options, &[]).expect("Prometheus and Alertmanager");
    let alert = |name: &str, instance: &str| {
        json!({
            "labels": {
                "alertname": name, "namespace": "istio-system", "job": "gateway",
                "instance": instance, "plugin": "lanekeeper", "severity": "warning",
            },
            "annotations": { "summary": format!("{name} at {instance}") },
        })
    };
    let alerts = json!([
        alert("PolicyRejected", "with-neither"),
        alert("PolicyRejected", "with-the-one-before"),
        alert("NoPolicy", "with-neither"),
    ]);
    let post = Request::post("/api/v2/alerts", alerts.to_string())
        .header("content-type", "application/json");
    let answer = http::send(monitoring.alertmanager(), &post).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mails = wait("two mails", || {
        let mails = mails(&monitoring);
        (mails.len() == 2).then_some(mails)
    });
    let mut subjects: Vec<_> = mails.into_iter().map(|mail| mail.subject).collect();
    subjects.sort();
    assert_eq!(
        subjects,
        [
            "[WARNING] NoPolicy at with-neither",
            "[WARNING] PolicyRejected at with-the-one-before"
        ]
    );
    drop(monitoring);
    let _ = fs::remove_dir_all(&dir);
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
            .api()
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

    let pauses = Pauses::of(pid(&mut system, "model-canary"));
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

    // Two Envoys that have no filter, told in one mail.
    let plain = system.review().topology().plain_admin().to_owned();
    let other = system.sms.application().topology().plain_admin().to_owned();
    system.scrape_gateways(&[&gateway, &plain, &other]);
    told.push(told_by(&system, "LanekeeperAbsent"));
    wait("a mail of both", || {
        let mails = mails(&system.monitoring);
        let both = |mail: &Mail| mail.subject.ends_with("gateway (2 alerts)");
        mails.iter().any(both).then_some(())
    });
    system.scrape_gateways(&[&gateway]);
    system.wait_for_end("LanekeeperAbsent");

    // A service that is dead beside its proxy, in a cluster.
    let metrics = system.review().topology().metrics();
    let apps = system.review().topology().apps();
    let agents = [0, 1].map(|index| agent(&metrics.sidecars[index], &apps[index]));
    system.scrape_agents(agents);
    kill(pid(&mut system, "app-canary"));
    told.push(told_by(&system, "ServiceSilent"));
    system.review().restart_app("canary");
    system.wait_for_end("ServiceSilent");

    // A version without pods, which are no targets then, until it is taken out by the policy.
    let [_, page] = system.review().topology().pages().expect("pages");
    system.scrape_all_but(&page);
    kill(pid(&mut system, "page-canary"));
    told.push(told_by(&system, "VersionUnserved"));
    let mut without_canary = system.review().policy().clone();
    for rollout in without_canary["rollouts"].as_array_mut().expect("rollouts") {
        rollout["versions"] = json!([
            { "name": "stable", "weight": 100, "baseline": true },
            { "name": "canary", "weight": 0, "state": "off" },
        ]);
    }
    system.review().push(&without_canary.to_string());
    system.wait_for_end("VersionUnserved");

    for alert in &told {
        let mail = wait(&format!("a mail that {} is over", name(alert)), || {
            let mut mails = mails_about(&system.monitoring, alert).into_iter();
            mails.find(|mail| mail.subject.starts_with("[RESOLVED] "))
        });
        says_what_to_do(&mail, alert);
    }
    nothing_was_told_but(&system.monitoring, &told);
}

/// Waits until an alert alone fires, and there is a mail of it; what fires.
fn told_by(system: &System, expected: &str) -> Value {
    let alert = system.wait_for(expected);
    says_what_to_do(&mail_that_begins(&system.monitoring, &alert), &alert);
    alert
}

/// The mail that an alert has begun.
fn mail_that_begins(monitoring: &Monitoring, alert: &Value) -> Mail {
    wait(&format!("a mail of {}", name(alert)), || {
        let mut mails = mails_about(monitoring, alert).into_iter();
        mails.find(|mail| !mail.subject.starts_with("[RESOLVED] "))
    })
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

/// The process of a service of sentiment review.
fn pid(system: &mut System, service: &str) -> u32 {
    let service = system.review().topology().service(service);
    service.expect("it runs").id()
}

fn kill(pid: u32) {
    signal("KILL", &pid.to_string());
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
    let url = format!("http://{gateway}/stats/prometheus");
    exporter(move || {
        let metrics = http::get(&url).ok()?.text();
        Some(
            metrics
                .lines()
                .map(other_slots)
                .collect::<Vec<_>>()
                .join("\n")
                + "\n",
        )
    })
}

/// What a proxy exports, and what its service does if it is there: as Istio's agent does.
fn agent(proxy: &str, service: &str) -> String {
    let proxy = format!("http://{proxy}/stats/prometheus");
    let service = format!("http://{service}/metrics");
    exporter(move || {
        let proxy = http::get(&proxy).ok()?.text();
        let service = http::get(&service).map(|answer| answer.text());
        Some(proxy + &service.unwrap_or_default())
    })
}

/// Where a text can be scraped, which is asked for each time.
fn exporter(text: impl Fn() -> Option<String> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let Some(body) = text() else { continue };
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

/// The mails about an alert, by what their subjects say.
fn mails_about(monitoring: &Monitoring, alert: &Value) -> Vec<Mail> {
    let summary = alert["annotations"]["summary"].as_str().expect("a summary");
    let mut mails = mails(monitoring);
    mails.retain(|mail| mail.subject.contains(summary));
    mails
}

fn mails(monitoring: &Monitoring) -> Vec<Mail> {
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
    mails.collect()
}
