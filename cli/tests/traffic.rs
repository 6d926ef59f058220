//! `lanekeeper traffic`, against servers that do as the tests say.
#![cfg(unix)]

mod run;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use run::server::{Asked, Reply, Server};
use run::{Ran, files, lanekeeper};
use serde_json::{Value, json};

/// 200, by this version.
fn by(version: &str) -> Reply {
    Reply::Is(
        format!("200 OK\r\nx-served-by: api;v={version}"),
        "hello".into(),
    )
}

fn traffic(args: &[&str]) -> Ran {
    let args = [&["traffic"], args].concat();
    lanekeeper(files(&[]).path(), &args, "")
}

/// The summary of a run with these arguments and its exit code.
fn summary(args: &[&str]) -> (Value, Option<i32>) {
    let ran = traffic(&[args, &["--json"]].concat());
    let summary = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    (summary, ran.code)
}

/// The values of a field of the versions, in the order in which they appeared.
fn versions(summary: &Value, field: &str) -> Vec<Value> {
    let versions = summary["versions"].as_array().unwrap().iter();
    versions.map(|version| version[field].clone()).collect()
}

#[test]
fn a_good_run_is_summed_up_and_ends_with_0() {
    let server = Server::start(|_| by("blue"));
    let ran = traffic(&[&server.url("/version"), "--requests", "2500"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let thousands = ran.out.lines().filter(|line| line.contains(" 0 failed, "));
    assert_eq!(thousands.count(), 2);
    for line in [
        "\nrequests  2500\n",
        "\nfailures  0\n",
        "\nlatency   p50 ",
        "\nnewest    blue\n",
        "          blue: 2500 answers, from ",
    ] {
        assert!(ran.out.contains(line), "{line:?} is not in\n{}", ran.out);
    }
    assert!(!ran.out.contains("changes"), "{}", ran.out);
    assert_eq!(server.asked().len(), 2500);
    assert_eq!(server.connections(), 8);
}

#[test]
fn the_summary_is_also_to_be_had_as_json() {
    let server = Server::start(|_| by("blue"));
    let (summary, code) = summary(&[&server.url("/version"), "--requests", "20"]);
    assert_eq!(code, Some(0));
    assert_eq!(summary["requests"], 20);
    assert_eq!(summary["failures"], 0);
    assert_eq!(summary["reasons"], json!({}));
    assert_eq!(summary["newest_version"], "blue");
    assert_eq!(versions(&summary, "answers"), [20]);
    for (smaller, larger) in [("p50", "p99"), ("p99", "max")] {
        let [smaller, larger] = [smaller, larger].map(|name| summary["latency_ms"][name].as_f64());
        assert!(smaller > Some(0.0) && smaller <= larger, "{summary}");
    }
    let rate = summary["rate"].as_f64().unwrap() * summary["seconds"].as_f64().unwrap();
    assert!((rate - 20.0).abs() < 0.01, "{summary}");
}

#[test]
fn every_way_to_fail_is_counted_by_its_reason() {
    let server = Server::start(|asked| match asked.number {
        0 => Reply::Is("503 Service Unavailable".to_owned(), "".into()),
        1 => Reply::Is("429 Too Many Requests".to_owned(), "".into()),
        2 => Reply::Ends(""),
        3 => Reply::Ends("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"),
        4 => Reply::Ends("SSH-2.0-OpenSSH_9.2\r\n"),
        5 => Reply::Silence,
        // Neither are these failures.
        6 => Reply::Is("302 Found\r\nlocation: /".to_owned(), "".into()),
        7 => Reply::Is("200 OK\r\nconnection: close".to_owned(), "".into()),
        _ => by("blue"),
    });
    let one = ["--concurrency", "1", "--timeout", "300ms"];
    let (summary, code) = summary(
        &[
            &[server.url("/version").as_str(), "--requests", "10"],
            &one[..],
        ]
        .concat(),
    );
    assert_eq!(code, Some(1));
    assert_eq!(
        (&summary["requests"], &summary["failures"]),
        (&json!(10), &json!(6))
    );
    assert_eq!(
        summary["reasons"],
        json!({
            "status 503": 1,
            "status 429": 1,
            "the connection was closed before the answer": 1,
            "end of file before message length reached": 1,
            "what came is not HTTP/1.1": 1,
            "no answer within 300ms": 1,
        })
    );
    assert_eq!(server.asked().len(), 10, "nothing is sent twice");
}

#[test]
fn a_server_that_is_down_is_a_failure_and_no_crash() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", free.local_addr().unwrap());
    drop(free);
    for url in [url.as_str(), "http://no-such-host.invalid/"] {
        let ran = traffic(&[url, "--requests", "30", "--concurrency", "2"]);
        assert_eq!(ran.code, Some(1));
        // A line for each of the first, then how many more there were.
        let lines = ran
            .out
            .lines()
            .filter(|line| line.contains(" failed: cannot connect: "));
        let told = lines.count() - ran.out.matches(" the last at ").count();
        assert_eq!(told, 20, "{}", ran.out);
        assert!(ran.out.contains("\nfailures  30\n"), "{}", ran.out);
        assert!(ran.out.contains("\nnewest    no version\n"), "{}", ran.out);
    }
}

#[test]
fn a_change_of_version_is_told_with_its_time() {
    let server = Server::start(|asked| by(if asked.number < 50 { "blue" } else { "green" }));
    let args = [
        server.url("/version"),
        "--concurrency=1".to_owned(),
        "--requests=80".to_owned(),
    ];
    let args = args.each_ref().map(String::as_str);
    let ran = traffic(&args);
    let changes: Vec<_> = ran.out.lines().filter(|line| line.contains("->")).collect();
    assert!(
        matches!(changes[..], [line] if line.ends_with(" s  blue -> green")),
        "{changes:?}"
    );
    assert!(ran.out.contains("\nnewest    green\n"), "{}", ran.out);

    let server = Server::start(|asked| by(if asked.number < 50 { "blue" } else { "green" }));
    let (summary, _) = summary(&[&server.url("/version"), args[1], args[2]]);
    assert_eq!(versions(&summary, "version"), ["blue", "green"]);
    assert_eq!(versions(&summary, "answers"), [50, 30]);
    assert_eq!(summary["version_changes"], 1);
    let [first, last] = ["first_ms", "last_ms"].map(|field| versions(&summary, field));
    let times = [&first[0], &last[0], &first[1], &last[1]].map(|time| time.as_f64().unwrap());
    assert!(times.is_sorted(), "{summary}");
}

#[test]
fn versions_that_alternate_do_not_flood() {
    let server = Server::start(|asked| {
        by(if asked.number % 2 == 0 {
            "blue"
        } else {
            "green"
        })
    });
    let ran = traffic(&[
        &server.url("/version"),
        "--concurrency",
        "1",
        "--requests",
        "500",
    ]);
    let lines = ran.out.lines().filter(|line| line.contains(" -> "));
    let told = lines.count() - ran.out.matches(" the last at ").count();
    assert_eq!(told, 20, "{}", ran.out);
    assert!(
        ran.out.contains(" more changes of version, "),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("\nchanges   499\n"), "{}", ran.out);
}

#[test]
fn the_version_is_that_of_all_tiers_or_of_a_field() {
    let newest = |head: &'static str, body: &'static str, more: &[&str]| {
        let server = Server::start(move |_| Reply::Is(head.to_owned(), body.into()));
        let (summary, code) =
            summary(&[&[server.url("/version").as_str(), "--requests", "2"], more].concat());
        assert_eq!(code, Some(0));
        summary["newest_version"].clone()
    };
    let json = ["--version-from", "json"];
    let served_by = "200 OK\r\nx-served-by: a;v=canary, b;v=canary";
    assert_eq!(newest(served_by, "", &[]), "canary");
    assert_eq!(
        newest("200 OK\r\nx-served-by: a;v=canary, b;v=stable", "", &[]),
        "canary+stable"
    );
    assert_eq!(
        newest("200 OK\r\nx-served-by: nonsense", "", &[]),
        Value::Null
    );
    assert_eq!(newest("200 OK", "hello", &[]), Value::Null);
    assert_eq!(
        newest(served_by, r#"{"version": "v2", "errors": []}"#, &json),
        "v2"
    );
    assert_eq!(newest(served_by, "not JSON", &json), Value::Null);
    // It goes to a terminal.
    assert_eq!(
        newest("200 OK", r#"{"version": "\u001b[2J"}"#, &json),
        Value::Null
    );
}

#[test]
fn made_up_versions_are_bounded() {
    let server = Server::start(|asked| by(&format!("v{}", asked.number)));
    let (summary, _) = summary(&[&server.url("/version"), "--requests", "200"]);
    let names = versions(&summary, "version");
    assert_eq!((names.len(), &names[49]), (50, &json!("other")));
    assert_eq!(versions(&summary, "answers")[49], 151);
}

#[test]
fn a_connection_for_every_request_if_asked_for() {
    let server = Server::start(|_| Reply::Is("200 OK\r\nconnection: close".to_owned(), "".into()));
    let (summary, code) = summary(&[
        &server.url("/version"),
        "--requests",
        "40",
        "--new-connections",
    ]);
    assert_eq!((code, &summary["failures"]), (Some(0), &json!(0)));
    assert_eq!(server.connections(), 40);
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| asked.header("connection") == Some("close"))
    );
}

#[test]
fn strangers_keep_nothing_and_users_their_cookies() {
    let server = || {
        Server::start(|asked| {
            let number = asked.number;
            match asked.header("cookie") {
                None => Reply::Is(
                    format!("200 OK\r\nset-cookie: id={number}; Path=/\r\nset-cookie: old=1"),
                    "".into(),
                ),
                Some(cookie) if cookie.contains("old=1") => {
                    let gone = "200 OK\r\nset-cookie: old=; Max-Age=0";
                    Reply::Is(gone.to_owned(), "".into())
                }
                Some(_) => by("blue"),
            }
        })
    };
    let strangers = server();
    traffic(&[&strangers.url("/version"), "--requests", "10"]);
    assert!(
        strangers
            .asked()
            .iter()
            .all(|asked| asked.header("cookie").is_none())
    );

    let users = server();
    let three = ["--users", "3", "--concurrency", "1", "--requests", "15"];
    let (summary, _) = summary(&[&[users.url("/version").as_str()], &three[..]].concat());
    assert_eq!(versions(&summary, "answers"), [9]);
    let asked = users.asked();
    let new = asked
        .iter()
        .filter(|asked| asked.header("cookie").is_none());
    let ids: BTreeSet<_> = new.map(|asked| format!("id={}", asked.number)).collect();
    assert_eq!(ids.len(), 3);
    let last: BTreeSet<_> = asked[asked.len() - 6..]
        .iter()
        .filter_map(|asked| asked.header("cookie"))
        .map(str::to_owned)
        .collect();
    assert!(last.is_subset(&ids), "{last:?}");
}

#[test]
fn a_cookie_of_every_request_joins_those_that_users_keep() {
    let server = Server::start(|_| Reply::Is("200 OK\r\nset-cookie: id=1".to_owned(), "".into()));
    let given = ["--header", "Cookie: beta=1", "--header", "cookie: dark=1"];
    let two = ["--users", "2", "--concurrency", "1", "--requests", "4"];
    traffic(&[&[server.url("/version").as_str()], &given[..], &two[..]].concat());
    let asked = server.asked();
    let cookies = |asked: &Asked| asked.header("cookie").map(str::to_owned);
    let sent: Vec<_> = asked.iter().filter_map(cookies).collect();
    let (new, known) = ("beta=1; dark=1", "beta=1; dark=1; id=1");
    assert_eq!(sent, [new, new, known, known]);
    let fields = |asked: &Asked| asked.head.to_lowercase().matches("\ncookie: ").count();
    assert!(asked.iter().all(|asked| fields(asked) == 1), "{asked:?}");
}

#[test]
fn a_cookie_is_kept_until_the_server_takes_it_back() {
    let past = "Thu, 01 Jan 1970 00:00:00 GMT";
    let future = "Fri, 31 Dec 9999 23:59:59 GMT";
    for (attributes, kept) in [
        (String::new(), true),
        ("; Max-Age=60".to_owned(), true),
        ("; max-age=0".to_owned(), false),
        ("; Max-Age=-1".to_owned(), false),
        (format!("; Expires={future}"), true),
        (format!("; Path=/; expires={past}; HttpOnly"), false),
        // An old browser's way to write years.
        (
            "; Expires=Thursday, 01-Jan-70 00:00:00 GMT".to_owned(),
            false,
        ),
        // Max-Age goes before Expires.
        (format!("; Expires={past}; Max-Age=60"), true),
        (format!("; Max-Age=0; Expires={future}"), false),
        ("; Expires=soon".to_owned(), true),
    ] {
        let set = attributes.clone();
        let server = Server::start(move |asked| {
            let attributes = match asked.number {
                0 => "",
                _ => set.as_str(),
            };
            Reply::Is(format!("200 OK\r\nset-cookie: id=1{attributes}"), "".into())
        });
        let one = ["--users", "1", "--requests", "3"];
        traffic(&[&[server.url("/version").as_str()], &one[..]].concat());
        let last = server.asked().pop().expect("three requests");
        assert_eq!(last.header("cookie").is_some(), kept, "{attributes}");
    }
}

#[test]
fn users_can_be_named_by_a_header_and_each_has_a_version() {
    let server = Server::start(|asked| match asked.header("x-user") {
        // Who is in a version, stays; but for one.
        Some("user-1") if asked.number >= 40 => by("stable"),
        Some("user-0" | "user-1") => by("canary"),
        _ => by("stable"),
    });
    let args = [
        "--users",
        "4",
        "--user-header",
        "x-user",
        "--concurrency",
        "1",
    ];
    let ran = traffic(
        &[
            &[server.url("/version").as_str(), "--requests", "80"],
            &args[..],
        ]
        .concat(),
    );
    let changes: Vec<_> = ran.out.lines().filter(|line| line.contains("->")).collect();
    assert!(
        matches!(changes[..], [line] if line.ends_with(" s  user 1: canary -> stable")),
        "{changes:?}"
    );
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| asked.header("cookie").is_none())
    );
}

#[test]
fn headers_go_along_and_a_host_can_be_elsewhere() {
    let server = Server::start(|_| by("blue"));
    let port = server.address.port();
    let url = format!("http://Shop.example:{port}/a?b=c");
    let resolve = format!("shop.EXAMPLE:{port}:127.0.0.1");
    let args = [
        &url,
        "--resolve",
        &resolve,
        "--header",
        "X-Experiment: canary",
        "--requests",
        "1",
    ];
    assert_eq!(summary(&args).1, Some(0));
    let asked = &server.asked()[0];
    assert!(
        asked.head.starts_with("GET /a?b=c HTTP/1.1\n"),
        "{}",
        asked.head
    );
    assert_eq!(
        asked.header("host"),
        Some(format!("Shop.example:{port}").as_str())
    );
    assert_eq!(asked.header("x-experiment"), Some("canary"));

    let args = [
        &server.url("/version"),
        "--header",
        "host: other.example",
        "--requests",
        "1",
    ];
    assert_eq!(summary(&args).1, Some(0));
    assert_eq!(server.asked()[1].header("host"), Some("other.example"));
}

#[test]
fn a_rate_is_kept_and_a_slow_server_cannot_hide_behind_it() {
    let under_way = Arc::new(AtomicUsize::new(0));
    let at_once = Arc::clone(&under_way);
    let server = Server::start(move |_| {
        let at_once = at_once.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(100));
        under_way.fetch_sub(1, Ordering::SeqCst);
        by(if at_once < 2 { "fine" } else { "crowded" })
    });
    // Ten times as many as one connection can have answered: the last one is due 900 ms before its turn.
    let args = ["--rate", "100", "--concurrency", "1", "--requests", "10"];
    let (summary, _) = summary(&[&[server.url("/version").as_str()], &args[..]].concat());
    assert_eq!(summary["newest_version"], "fine");
    let latency = |name: &str| summary["latency_ms"][name].as_f64().unwrap();
    assert!(
        latency("p50") >= 400.0 && latency("max") >= 900.0,
        "{summary}"
    );

    // Nineteen pauses of 20 ms.
    let quick = Server::start(|_| by("blue"));
    let args = [&quick.url("/version"), "--rate", "50", "--requests", "20"];
    let seconds = self::summary(&args).0["seconds"].as_f64().unwrap();
    assert!(seconds >= 0.38, "{seconds}");
}

#[test]
fn it_ends_when_its_time_is_over() {
    let server = Server::start(|_| by("blue"));
    let (summary, code) = summary(&[&server.url("/version"), "--duration", "300ms"]);
    assert_eq!(code, Some(0));
    assert!(summary["seconds"].as_f64().unwrap() >= 0.3, "{summary}");
    assert_eq!(summary["requests"], server.asked().len());
}

#[test]
fn ctrl_c_and_kill_end_it_with_a_summary() {
    for (signal, hangs) in [("INT", false), ("TERM", false), ("INT", true)] {
        let server = Server::start(move |asked| match hangs && asked.number >= 1500 {
            true => Reply::Silence,
            false => by("blue"),
        });
        let mut child = Command::new(env!("CARGO_BIN_EXE_lanekeeper"))
            .args(["traffic", &server.url("/version"), "--timeout", "1h"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        assert!(first.contains("1000 requests, 0 failed"), "{first}");
        // All eight that are under way at a time.
        while hangs && server.asked().len() < 1508 {
            thread::sleep(Duration::from_millis(5));
        }
        let kill = format!("kill -{signal} {}", child.id());
        Command::new("sh").args(["-c", &kill]).status().unwrap();
        if hangs {
            // Once more, for nobody wants to wait for the last answers.
            let mut lines = output.by_ref().lines().map_while(Result::ok);
            let waiting = "waiting for the last answers; Ctrl-C ends at once";
            assert!(lines.any(|line| line == waiting), "it says nothing");
            Command::new("sh").args(["-c", &kill]).status().unwrap();
        }
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("\nfailures  0\n"), "{rest}");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
    }
}

#[test]
fn wrong_usage_is_2_and_says_what_is_allowed() {
    let url = "http://localhost/";
    for (args, allowed) in [
        (vec!["https://localhost/"], "http://HOST"),
        (vec!["localhost:8080"], "http://HOST"),
        (vec!["http://user:secret@localhost/"], "without user"),
        (vec!["http://localhost:99999/"], "http://HOST"),
        (vec![url, "--rate", "0"], "0.001 to 1000000"),
        (vec![url, "--rate", "NaN"], "0.001 to 1000000"),
        (vec![url, "--duration", "0s"], "a time above zero"),
        (vec![url, "--timeout", "soon"], "a time above zero"),
        (vec![url, "--concurrency", "0"], "1..=1000"),
        (vec![url, "--header", "x"], "'name: value'"),
        (vec![url, "--header", "x y: z"], "'name: value'"),
        (vec![url, "--resolve", "localhost:80"], "HOST:PORT:ADDRESS"),
        (
            vec![url, "--resolve", "localhost:80:there"],
            "HOST:PORT:ADDRESS",
        ),
        (vec![url, "--user-header", "x-user"], "--users"),
        (
            "http://localhost/ --users 2 --user-header x-user --header X-User:alice"
                .split(' ')
                .collect(),
            "--header x-user: --user-header sets it",
        ),
        (vec![], "<URL>"),
    ] {
        let ran = traffic(&[&args[..], &["--requests", "1"]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{args:?}");
        assert!(ran.err.contains(allowed), "{args:?}: {}", ran.err);
    }
}

#[test]
fn a_run_without_a_request_proves_nothing() {
    let server = Server::start(|_| by("blue"));
    let rate = ["--rate", "0.001", "--requests", "2", "--duration", "300ms"];
    let (one, code) = summary(&[&[server.url("/version").as_str()], &rate[..]].concat());
    assert_eq!((&one["requests"], code), (&json!(1), Some(0)));
    let silent = Server::start(|_| Reply::Silence);
    let mut child = Command::new(env!("CARGO_BIN_EXE_lanekeeper"))
        .args([
            "traffic",
            &silent.url("/version"),
            "--duration",
            "100ms",
            "--json",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    while silent.asked().len() < 8 {
        thread::sleep(Duration::from_millis(5));
    }
    let kill = format!("kill -INT {0}; sleep 0.3; kill -INT {0}", child.id());
    Command::new("sh").args(["-c", &kill]).status().unwrap();
    let mut out = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    let none: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&none["requests"], &none["latency_ms"]),
        (&json!(0), &Value::Null)
    );
    assert_eq!(child.wait().unwrap().code(), Some(1));
}
