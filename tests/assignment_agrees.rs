//! The slot of an identity is the same for everybody who computes it: the filter in Envoy, the
//! command line, and an implementation of others.

use std::io::Write;
use std::process::{Command, Stdio};

use promises::{Gateway, policy, version_of};
use serde_json::json;

/// Identities of all kinds that a header can carry.
fn users() -> Vec<String> {
    let plain = (0..300).map(|n| format!("user-{n}"));
    let odd = [
        "a",
        "user@example.com",
        "Ünïcödé",
        "with space",
        "comma,semi;colon",
        "日本語",
        "%00",
    ];
    plain
        .chain(odd.map(str::to_owned))
        .chain(["x".repeat(256)])
        .collect()
}

#[test]
fn envoy_and_the_command_line_never_disagree() {
    let policy = policy(json!({ "hosts": ["sms-checker.local"] }));
    let gateway = Gateway::start(&policy);
    let by_command = assigned_by_command_line(&policy.to_string(), &users());
    for (user, version) in users().iter().zip(by_command) {
        let (_, echo) = gateway.get(&[("host", "sms-checker.local"), ("x-user", user)]);
        assert_eq!(echo.upstream, version, "{user}");
        assert_eq!(echo.upstream, version_of(user), "{user}");
    }
}

/// The second column of `lanekeeper assign --users-from -`.
fn assigned_by_command_line(policy: &str, users: &[String]) -> Vec<String> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(policy.as_bytes()).expect("a file");
    let mut command = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--locked",
            "-p",
            "lanekeeper-cli",
            "--bin",
            "lanekeeper",
            "--",
        ])
        .args(["assign", "--users-from", "-", "--policy"])
        .arg(file.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command");
    let mut stdin = command.stdin.take().expect("a pipe");
    stdin
        .write_all(users.join("\n").as_bytes())
        .expect("a pipe");
    drop(stdin);
    let output = command.wait_with_output().expect("the command");
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).expect("text");
    let versions: Vec<String> = lines
        .lines()
        .map(|line| line.split('\t').nth(1).unwrap_or_default().to_owned())
        .collect();
    assert_eq!(versions.len(), users.len(), "{lines}");
    versions
}
