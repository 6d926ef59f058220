//! The rules, configurations and mails of `monitoring/`, by the tools of Prometheus and Alertmanager.

use std::fs;
use std::process::Command;

use harness::{debian, monitoring, process};
use serde_json::json;

/// Runs a tool; what it said.
fn run(tool: &str, arguments: &[&str]) -> String {
    let program = debian::program(tool).expect("the tool");
    let mut command = Command::new(program);
    command.args(arguments).current_dir(monitoring::file(""));
    process::run(&mut command, tool).expect("no fault")
}

/// The names of files, as arguments.
fn named(folder: &str) -> Vec<String> {
    let files = monitoring::files(folder, "yaml").expect("files");
    let names = files.iter().map(|file| file.display().to_string());
    names.collect()
}

#[test]
fn rules_are_sound_and_do_as_their_tests_say() {
    for (check, folder) in [
        (["check", "rules"], "rules"),
        (["test", "rules"], "rules/tests"),
    ] {
        let files = named(folder);
        assert!(files.len() >= 3, "{files:?}");
        let files: Vec<_> = files.iter().map(String::as_str).collect();
        run("promtool", &[&check[..], &files].concat());
    }
}

#[test]
fn a_rule_that_does_something_else_fails_its_test() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["versions", "requests", "tests/requests"] {
        let text = fs::read_to_string(monitoring::file(&format!("rules/{name}.yaml")));
        // Per second, as if it were per minute.
        let text = text.expect("rules").replace("* 60 > 15", "> 15");
        fs::create_dir_all(dir.path().join("tests")).expect("a directory");
        fs::write(dir.path().join(format!("{name}.yaml")), text).expect("a file");
    }
    let mut promtool = Command::new(debian::program("promtool").expect("promtool"));
    promtool
        .args(["test", "rules"])
        .arg(dir.path().join("tests/requests.yaml"));
    let error = process::run(&mut promtool, "promtool").expect_err("a fault");
    assert!(format!("{error:#}").contains("ManyRequests"), "{error:#}");
}

#[test]
fn prometheus_and_alertmanager_take_their_configurations() {
    let said = run("promtool", &["check", "config", "prometheus.yaml"]);
    assert!(said.contains("4 rule files found"), "{said}");
    let said = run("amtool", &["check-config", "alertmanager.yaml"]);
    assert!(said.contains("2 receivers"), "{said}");
}

#[test]
fn that_it_is_busy_is_told_apart_from_faults() {
    for (severity, receiver) in [
        ("info", "operators-info"),
        ("warning", "operators"),
        ("critical", "operators"),
    ] {
        let alert = format!("severity={severity}");
        let config = "--config.file=alertmanager.yaml";
        let said = run("amtool", &["config", "routes", "test", config, &alert]);
        assert_eq!(said.trim(), receiver, "{severity}");
    }
}

/// A mail about two alerts, rendered as Alertmanager does.
fn mail(template: &str, status: &str) -> String {
    let alert = json!({
        "status": status,
        "labels": { "alertname": "VersionFails", "severity": "critical", "version": "canary" },
        "annotations": {
            "summary": "canary fails",
            "description": "10% of <requests> failed",
            "runbook_url": "https://git.example/runbook.md#versionfails",
        },
        "startsAt": "2030-01-02T03:04:05Z",
        "endsAt": "2030-01-02T04:04:05Z",
        "generatorURL": "http://prometheus.example/graph?g0.expr=up",
    });
    let data = json!({
        "status": status,
        "alerts": [alert, alert],
        "groupLabels": { "alertname": "VersionFails" },
        "commonLabels": alert["labels"],
        "commonAnnotations": alert["annotations"],
    });
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("data.json");
    fs::write(&file, data.to_string()).expect("a file");
    let kind = if template.ends_with("html") {
        "html"
    } else {
        "text"
    };
    run(
        "amtool",
        &[
            "template",
            "render",
            "--template.glob=email.tmpl",
            &format!("--template.type={kind}"),
            &format!("--template.text={{{{ template \"lanekeeper.{template}\" . }}}}"),
            &format!("--template.data={}", file.display()),
        ],
    )
}

#[test]
fn a_mail_says_how_bad_it_is_what_is_wrong_and_where_to_read_on() {
    let subject = mail("subject", "firing");
    assert_eq!(subject.trim_end(), "[CRITICAL] canary fails (2 alerts)");
    let subject = mail("subject", "resolved");
    assert_eq!(subject.trim_end(), "[RESOLVED] canary fails (2 alerts)");
    let text = mail("text", "firing");
    for part in [
        "canary fails\n",
        "10% of <requests> failed",
        "2030-01-02 03:04 UTC",
        "https://git.example/runbook.md#versionfails",
        "http://prometheus.example/graph?g0.expr=up",
    ] {
        assert_eq!(text.matches(part).count(), 2, "{part}: {text}");
    }
    let text = mail("text", "resolved");
    assert!(
        text.contains("canary fails: over since 2030-01-02 04:04 UTC"),
        "{text}"
    );
    let html = mail("html", "firing");
    assert!(html.contains("10% of &lt;requests&gt; failed"), "{html}");
    let link = r#"<a href="https://git.example/runbook.md#versionfails">"#;
    assert!(html.contains(link), "{html}");
}
