//! `lanekeeper envoy` and `lanekeeper ready`, with a program in place of Envoy.

#![cfg(unix)]

mod run;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use run::{files, lanekeeper};

/// Says how it was called, and waits to be ended.
const PROGRAM: &str = "#!/bin/sh\necho \"$@\"\nexec sleep 60\n";
const BOOTSTRAP: &str = "port: {{SOME_PORT}}\nplugin: {{PLUGIN_FILE}}\n";
const FAULTY: &str = "rollouts: [{ name: shop }]\n";

fn policy(weight: u32) -> String {
    format!(
        "rollouts: [{{ name: shop, hosts: ['*'], identity: [{{ header: x-user }}], versions: \
         [{{ name: stable, weight: {}, baseline: true }}, {{ name: canary, weight: {weight} }}] }}]\n",
        100 - weight
    )
}

fn directory(policy: &str) -> tempfile::TempDir {
    let directory = files(&[
        ("program", PROGRAM),
        ("bootstrap.yaml", BOOTSTRAP),
        ("policy.yaml", policy),
    ]);
    let program = directory.path().join("program");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

const ARGUMENTS: [&str; 7] = [
    "envoy",
    "--bootstrap=bootstrap.yaml",
    "--policy=policy.yaml",
    "--module=/filter.wasm",
    "--dir=out",
    "--envoy=./program",
    "--name=here",
];

/// The running command, which is killed when it goes out of scope.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(directory: &Path) -> Running {
    let child = Command::new(env!("CARGO_BIN_EXE_lanekeeper"))
        .args(ARGUMENTS)
        .args(["--", "--concurrency", "2"])
        .current_dir(directory)
        .env("SOME_PORT", "8080")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Running(child.unwrap())
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn it_becomes_envoy_and_follows_the_policy() {
    let directory = directory(&policy(10));
    let mut envoy = start(directory.path());
    let mut called = String::new();
    let mut out = BufReader::new(envoy.0.stdout.take().unwrap());
    out.read_line(&mut called).unwrap();
    assert!(
        called.starts_with("--config-path out/envoy.yaml"),
        "{called}"
    );
    assert!(called.ends_with("--concurrency 2\n"), "{called}");
    let bootstrap = fs::read_to_string(directory.path().join("out/envoy.yaml")).unwrap();
    assert_eq!(bootstrap, "port: 8080\nplugin: out/plugin.yaml\n");
    let plugin = || fs::read_to_string(directory.path().join("out/plugin.yaml")).unwrap();
    assert!(plugin().contains(r#"name: "here""#), "{}", plugin());
    assert!(plugin().contains(r#"\"weight\":90"#), "{}", plugin());

    let edit = |text: &str| fs::write(directory.path().join("policy.yaml"), text).unwrap();
    edit(&policy(50));
    wait_until("the edit arrives", || plugin().contains(r#"\"weight\":50"#));
    // What is faulty is said, and not handed on.
    edit(FAULTY);
    let mut said = BufReader::new(envoy.0.stderr.take().unwrap()).lines();
    let stays = "The last good policy stays in force.";
    assert!(said.any(|line| line.unwrap() == stays));
    assert!(plugin().contains(r#"\"weight\":50"#), "{}", plugin());
    edit(&policy(30));
    wait_until("the next edit arrives", || {
        plugin().contains(r#"\"weight\":30"#)
    });

    // With Envoy ends the child that follows it: nobody holds the other end of the pipe any more.
    drop(envoy);
    said.for_each(drop);
}

#[test]
fn it_does_not_start_with_a_faulty_policy_or_without_a_value() {
    let directory = directory(FAULTY);
    let with = |value: &str| {
        run::lanekeeper_with(directory.path(), &ARGUMENTS, "", &[("SOME_PORT", value)])
    };
    let ran = with("8080");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.contains("policy.yaml: rollouts[0].hosts"),
        "{}",
        ran.err
    );
    let ran = lanekeeper(directory.path(), &ARGUMENTS, "");
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.err,
        "bootstrap.yaml: {{SOME_PORT}}: no such value in the environment\n"
    );
}

#[test]
fn ready_says_what_envoy_says() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = listener.local_addr().unwrap().to_string();
    let ready = || lanekeeper(Path::new("."), &["ready", "--admin", &admin], "");
    for (status, code) in [("200 OK", 0), ("503 Service Unavailable", 1)] {
        let ran = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let head: Vec<_> = lines
                    .map_while(Result::ok)
                    .take_while(|l| !l.is_empty())
                    .collect();
                assert_eq!(head[0], "GET /ready HTTP/1.1");
                // At once: who asked leaves when the status is there.
                let answer = format!("HTTP/1.1 {status}\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
            });
            ready()
        });
        assert_eq!(ran.code, Some(code), "{}", ran.err);
    }
    drop(listener);
    assert_eq!(ready().code, Some(1));
}
