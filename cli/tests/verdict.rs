//! `lanekeeper verdict` and `lanekeeper sample-size`: what they say, and what they say of faults. The
//! server answers as Prometheus does, or should not.

mod run;

use std::path::Path;
use std::process::{Command, Stdio};

use run::server::{Asked, Reply, Server};
use run::{Ran, files, lanekeeper};
use serde_json::{Value, json};

const EXPERIMENT: &str = "\
rollout: sentiment
control: stable
treatment: canary
start: 2026-01-05T00:00:00Z
users: 5000
";
/// 2026-01-05T00:00:00Z
const START: u64 = 1_767_571_200;
/// Two days later; all users came on the first.
const AT: &str = "2026-01-07T00:00:00Z";
const FULFILLED: u64 = START + 24 * 3600;
/// The last time at which users are counted before that.
const LAST: u64 = START + 48 * 3600 - 300;

/// What the service counted, by version: predictions and corrections, the mean and the histogram of
/// latency; the same in each bucket, but for some noise.
#[derive(Clone)]
struct World {
    users: [f64; 2],
    buckets: u8,
    predictions: [f64; 2],
    corrections: [f64; 2],
    mean: [f64; 2],
    /// Of a hundred answers, those within the first border and within 0.2 s.
    answers: [[f64; 2]; 2],
    /// In seconds.
    first_border: &'static str,
    /// For each prediction.
    answered: f64,
    /// The filter was scraped until then.
    scraped: u64,
}

impl World {
    fn good() -> Self {
        Self {
            users: [4500.0, 500.0],
            buckets: 32,
            predictions: [900.0, 100.0],
            corrections: [180.0, 24.0],
            mean: [0.1, 0.101],
            answers: [[40.0, 98.0], [39.5, 97.9]],
            first_border: "0.16",
            answered: 1.0,
            scraped: LAST,
        }
    }

    /// The answer to one of the queries.
    fn answer(&self, asked: &Asked) -> Reply {
        let is = |metric: &str| asked.head.lines().next().unwrap().contains(metric);
        let points = |values: [f64; 3]| {
            let times = [START, FULFILLED, self.scraped].into_iter();
            let points = times.zip(values);
            json!(
                points
                    .map(|(time, value)| json!([time, value.to_string()]))
                    .collect::<Vec<_>>()
            )
        };
        let rows = if is("query=last_over_time%28lanekeeper_assignments_total") {
            rows_of(self.users, "values", |users| {
                points([3.0, users + 3.0, users + 3.0])
            })
        } else if is("query=min_over_time%28lanekeeper_assignments_total") {
            rows_of(self.users, "values", |users| {
                points([3.0, 3.0, users + 3.0])
            })
        } else if is("query=last_over_time%28lanekeeper_slots") {
            rows_of([9000.0, 1000.0], "values", |slots| points([slots; 3]))
        } else if is("review_predictions_total") {
            self.buckets(|_, version| vec![("", self.predictions[version])])
        } else if is("review_overrides_total") {
            self.buckets(|noise, version| vec![("", self.corrections[version] * noise)])
        } else if is("answer_duration_seconds_sum") {
            self.buckets(|noise, version| {
                vec![(
                    "",
                    self.answered * self.predictions[version] * self.mean[version] * noise.sqrt(),
                )]
            })
        } else {
            assert!(is("answer_duration_seconds_bucket"), "{}", asked.head);
            self.buckets(|noise, version| {
                let all = self.answered * self.predictions[version];
                let [first, second] = self.answers[version].map(|share| all * share / 100.0);
                vec![
                    (self.first_border, first * noise.sqrt()),
                    ("0.2", second),
                    ("+Inf", all),
                ]
            })
        };
        good(&rows)
    }

    fn buckets(&self, values: impl Fn(f64, usize) -> Vec<(&'static str, f64)>) -> Value {
        let mut rows = Vec::new();
        for bucket in 0..self.buckets {
            for (version, name) in ["stable", "canary"].into_iter().enumerate() {
                let noise = 1.0 + f64::from((bucket * 5 + version as u8 * 2) % 7) / 50.0;
                for (border, value) in values(noise, version) {
                    let labels =
                        json!({ "version": name, "bucket": bucket.to_string(), "le": border });
                    rows.push(json!({ "metric": labels, "value": [FULFILLED, value.to_string()] }));
                }
            }
        }
        rows.into()
    }

    fn verdict(&self, args: &[&str]) -> Ran {
        let world = self.clone();
        let server = Server::start(move |asked| world.answer(asked));
        verdict(&server.url(""), EXPERIMENT, args)
    }

    fn json(&self) -> (Value, Option<i32>) {
        let ran = self.verdict(&["--output", "json"]);
        let json = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
        (json, ran.code)
    }
}

fn rows_of(values: [f64; 2], field: &str, points: impl Fn(f64) -> Value) -> Value {
    let rows = ["stable", "canary"].into_iter().zip(values);
    let rows = rows
        .map(|(version, value)| json!({ "metric": { "version": version }, field: points(value) }));
    rows.collect::<Vec<_>>().into()
}

fn good(rows: &Value) -> Reply {
    let body = json!({ "status": "success", "data": { "resultType": "any", "result": rows } });
    Reply::Is("200 OK".to_owned(), body.to_string().into())
}

fn verdict(url: &str, experiment: &str, args: &[&str]) -> Ran {
    let all = [
        "verdict",
        "--experiment",
        "-",
        "--prometheus",
        url,
        "--at",
        AT,
    ];
    lanekeeper(files(&[]).path(), &[&all, args].concat(), experiment)
}

/// What the command says where the answer to one of the queries is another.
fn told(what: &'static str, reply: impl Fn() -> Reply + Send + Sync + 'static) -> String {
    let (lines, url) = lines(what, reply, &[]);
    let line = lines
        .strip_prefix(&url)
        .unwrap_or_else(|| panic!("{lines}"));
    let line = line.strip_prefix(": ").unwrap().strip_suffix('\n').unwrap();
    assert!(!line.contains(char::is_control), "{line:?}");
    line.to_owned()
}

/// All that it says, and what the address is.
fn lines(
    what: &'static str,
    reply: impl Fn() -> Reply + Send + Sync + 'static,
    args: &[&str],
) -> (String, String) {
    let world = World::good();
    let server = Server::start(move |asked| match asked.head.contains(what) {
        true => reply(),
        false => world.answer(asked),
    });
    let ran = verdict(&server.url(""), EXPERIMENT, args);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{ran:?}");
    (ran.err, server.url(""))
}

fn reasons(json: &Value) -> Vec<&str> {
    let reasons = json["reasons"].as_array().unwrap().iter();
    reasons.map(|reason| reason.as_str().unwrap()).collect()
}

#[test]
fn a_good_treatment_is_accepted_with_0() {
    let ran = World::good().verdict(&[]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    let mut lines = ran.out.lines();
    for expected in [
        "verdict     accept",
        "users       4,500 in stable, 500 in canary, 5,000 planned",
        "time        2026-01-05T00:00:00Z to 2026-01-06T00:00:00Z, when the plan was fulfilled",
        "split       by 9000 : 1000 slots, p 1.000",
        "buckets     32 of 32",
        "counted     28,800 predictions, 6,095 corrections, 28,800 answers in stable",
        "            3,200 predictions, 813 corrections, 3,200 answers in canary",
        "",
    ] {
        assert_eq!(lines.next(), Some(expected), "{}", ran.out);
    }
    let names: Vec<_> = lines
        .skip(1)
        .map(|line| line.split("  ").next().unwrap())
        .collect();
    assert_eq!(
        names,
        ["correction rate", "mean latency", "p95 latency"],
        "{}",
        ran.out
    );
}

#[test]
fn each_criterion_that_is_missed_is_a_reason_to_roll_back() {
    let with = |change: fn(&mut World)| {
        let mut world = World::good();
        change(&mut world);
        let (json, code) = world.json();
        assert_eq!(
            (&json["verdict"], code),
            (&json!("roll_back"), Some(3)),
            "{json:#}"
        );
        reasons(&json).join("\n")
    };
    assert_eq!(
        with(|world| world.corrections[1] = 21.9),
        "correction rate: +9.6 %, +10.0 % or more is asked for"
    );
    // As exactly as it takes.
    assert_eq!(
        with(|world| world.corrections[1] = 21.985),
        "correction rate: +9.99 %, +10.00 % or more is asked for"
    );
    assert_eq!(
        with(|world| world.mean[1] = 0.106),
        "mean latency: +6.0 %, less than +5.0 % is asked for"
    );
    let p95 = with(|world| world.answers = [[90.0, 98.0], [80.0, 97.0]]);
    assert_eq!(p95, "p95 latency: +9.5 %, less than +5.0 % is asked for");
    assert_eq!(
        with(|world| world.answers[1][1] = 94.0),
        "p95 latency: not known of canary: it is above the last border of the histogram, 0.2 s"
    );
    assert_eq!(
        with(|world| world.corrections[0] = 0.0),
        "correction rate: zero in stable: no rise can be told"
    );
    let none = with(|world| world.corrections[1] = 0.0);
    assert!(
        none.starts_with("correction rate: -100.0 %, +10.0 % or more is asked for\n"),
        "{none}"
    );
    // All that are missed are told.
    let all = with(|world| {
        world.corrections = [180.0, 18.0];
        world.mean[1] = 0.2;
        world.answers[1][1] = 94.0;
    });
    assert_eq!(all.lines().count(), 4, "{all}");
}

#[test]
fn until_all_users_came_it_says_how_many_more_and_nothing_of_corrections() {
    let mut world = World::good();
    world.users = [2241.0, 249.0];
    let ran = world.verdict(&[]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(4), ""), "{ran:?}");
    let begin = "\
verdict     not enough data, 2,510 more users
users       2,241 in stable, 249 in canary, 5,000 planned; at this pace 2days 1h more
time        2026-01-05T00:00:00Z to 2026-01-06T23:55:00Z
";
    assert!(ran.out.starts_with(begin), "{}", ran.out);
    assert!(!ran.out.contains("correction"), "{}", ran.out);

    world.mean[1] = 0.2;
    let (json, code) = world.json();
    assert_eq!(
        (&json["verdict"], code),
        (&json!("roll_back"), Some(3)),
        "{json:#}"
    );
    assert!(json["mean_latency_seconds"]["at_least"].as_f64().unwrap() > 0.05);
    assert_eq!(json["correction_rate"], Value::Null);
}

#[test]
fn what_looks_wrong_is_noted_and_changes_nothing() {
    let with = |change: fn(&mut World)| {
        let mut world = World::good();
        world.users = [2241.0, 249.0];
        change(&mut world);
        let (json, code) = world.json();
        assert_eq!(
            (&json["verdict"], code),
            (&json!("not_enough_data"), Some(4)),
            "{json:#}"
        );
        let ran = world.verdict(&[]);
        let notes = json["notes"].as_array().unwrap();
        let notes: Vec<_> = notes.iter().map(|note| note.as_str().unwrap()).collect();
        for note in &notes {
            assert!(
                ran.out.contains(&format!("\nnote        {note}\n")),
                "{ran:?}"
            );
        }
        assert_eq!(
            (ran.code, ran.out.matches("note ").count()),
            (code, notes.len())
        );
        notes.join("\n")
    };
    assert_eq!(with(|_| {}), "");
    assert_eq!(
        with(|world| world.buckets = 7),
        "only 7 of 32 buckets have predictions and answers of both versions, 8 are needed: is the service \
         scraped, does it get x-rollout-bucket, are names and matchers of its metrics right?"
    );
    // A version that few users got yet may well have so few.
    let few = |world: &mut World| (world.buckets, world.users) = (7, [270.0, 30.0]);
    assert_eq!(with(few), "");
    assert_eq!(
        with(|world| world.scraped = LAST - 600),
        "lanekeeper_assignments_total or lanekeeper_slots is not known since 2026-01-06T23:45:00Z: was a \
         gateway scraped since? Who came later is not counted yet"
    );
    let apart = with(|world| world.answered = 2.1);
    assert_eq!(
        apart,
        "stable has 28800 predictions and 60480 answers: does another service count \
         answer_duration_seconds, are names and matchers of the service's metrics right?\n\
         canary has 3200 predictions and 6720 answers: does another service count \
         answer_duration_seconds, are names and matchers of the service's metrics right?"
    );
    let wide = with(|world| world.first_border = "0.15");
    let begin = "p95 latency: that of stable is between 0.15 s and 0.2 s, borders of the histogram that \
                 are more than 25 % apart: its rise is inexact\np95 latency: that of canary is ";
    assert!(wide.starts_with(begin), "{wide}");
}

#[test]
fn programs_get_the_counts_the_criteria_and_how_sure_it_is() {
    let (json, _) = World::good().json();
    for (field, expected) in [
        ("users", json!({ "control": 4500, "treatment": 500 })),
        ("slots", json!({ "control": 9000, "treatment": 1000 })),
        (
            "predictions",
            json!({ "control": 28800, "treatment": 3200 }),
        ),
        ("corrections", json!({ "control": 6095, "treatment": 813 })),
        ("answers", json!({ "control": 28800, "treatment": 3200 })),
        ("fulfilled", json!(true)),
        ("sample_ratio_test", json!("chi_squared")),
        (
            "criteria",
            json!({
                "minimal_rise": 0.1,
                "significance": 0.05,
                "maximal_latency_rise": 0.05,
                "sample_ratio_p": 0.001,
            }),
        ),
    ] {
        assert_eq!(json[field], expected, "{field}");
    }
    let rate = &json["correction_rate"];
    assert_eq!(rate["degrees_of_freedom"], 31);
    let number = |place: &str| rate.pointer(place).unwrap().as_f64().unwrap();
    let log_ratio = |place| number(place).ln_1p();
    // The 95th percentile of Student's t with 31 degrees of freedom, from a table.
    let width = log_ratio("/interval/1") - log_ratio("/rise");
    assert!((width / number("/standard_error") - 1.695_5).abs() < 1e-3);

    let world = World {
        users: [2241.0, 249.0],
        ..World::good()
    };
    let (json, _) = world.json();
    assert_eq!(json["sample_ratio_test"], "always_valid");
    // Nothing of corrections.
    assert_eq!(
        (&json["fulfilled"], &json["corrections"]),
        (&json!(false), &Value::Null)
    );
}

#[test]
fn nobody_yet_is_not_enough_data_either() {
    let world = World {
        users: [0.0; 2],
        buckets: 0,
        ..World::good()
    };
    let (json, code) = world.json();
    assert_eq!(
        (&json["verdict"], code),
        (&json!("not_enough_data"), Some(4)),
        "{json:#}"
    );
    assert_eq!(json["missing_users"], 5000);
}

#[test]
fn users_who_are_not_dealt_out_as_the_slots_say_make_it_invalid() {
    for users in [[4400.0, 600.0], [440.0, 60.0]] {
        let world = World {
            users,
            ..World::good()
        };
        let (json, code) = world.json();
        // 60 of 500, where 50 are expected, may well be chance.
        let expected = match users[0] {
            4400.0 => ("invalid", Some(5)),
            _ => ("not_enough_data", Some(4)),
        };
        assert_eq!(
            (json["verdict"].as_str().unwrap(), code),
            expected,
            "{json:#}"
        );
    }
}

#[test]
fn now_is_when_prometheus_says_it_is() {
    let world = World {
        users: [2241.0, 249.0],
        ..World::good()
    };
    let server = Server::start(move |asked| match asked.head.contains("vector%28time") {
        true => good(&json!([{ "metric": {}, "value": [FULFILLED as f64 + 0.7, "0"] }])),
        false => world.answer(asked),
    });
    let directory = files(&[("experiment.yaml", EXPERIMENT)]);
    let url = server.url("");
    let args = ["verdict", "--output", "json", "--prometheus", &url];
    let ran = lanekeeper(directory.path(), &args, "");
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    // A minute passes until what was scraped can be asked for.
    assert_eq!(json["judged_at"], "2026-01-05T23:55:00Z", "{json:#}");
}

#[test]
fn whoever_does_not_read_the_verdict_gets_its_exit_code() {
    let mut world = World::good();
    world.mean[1] = 0.2;
    let server = Server::start(move |asked| world.answer(asked));
    for output in ["text", "json"] {
        let directory = files(&[("experiment.yaml", EXPERIMENT)]);
        let mut child = Command::new(env!("CARGO_BIN_EXE_lanekeeper"))
            .args(["verdict", "--at", AT, "--output", output, "--prometheus"])
            .arg(server.url(""))
            .current_dir(&directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(3), "{output}");
    }
}

#[test]
fn too_few_buckets_make_it_invalid() {
    for (buckets, verdict) in [(7, "invalid"), (8, "accept")] {
        let world = World {
            buckets,
            ..World::good()
        };
        let (json, _) = world.json();
        assert_eq!(
            (&json["verdict"], &json["buckets"]),
            (&json!(verdict), &json!(buckets))
        );
    }
}

#[test]
fn what_is_wrong_with_an_answer_is_said_with_what_was_asked() {
    let is = |head: &str, body: &'static str| Reply::Is(head.to_owned(), body.into());
    let unavailable = told("assignments", move || {
        is("503 Service Unavailable", "busy\nbusy")
    });
    assert_eq!(
        unavailable,
        "new users: answered 503 Service Unavailable: busy"
    );
    let broken = told("review_predictions", move || {
        is("200 OK", "{\"status\": \"succ")
    });
    assert!(
        broken.starts_with("predictions: the answer is not JSON: EOF"),
        "{broken}"
    );
    let other = told("lanekeeper_slots", move || is("200 OK", "[]"));
    assert_eq!(
        other,
        "slots: the answer is not one of Prometheus: it has no status"
    );
    let empty = told("lanekeeper_slots", move || {
        is("200 OK", "{\"status\": \"success\"}")
    });
    assert_eq!(
        empty,
        "slots: the answer is not one of Prometheus: it has no series"
    );
    let timed_out = r#"{"status":"error","errorType":"timeout","error":"query timed out"}"#;
    let timed_out = told("overrides", move || {
        is("503 Service Unavailable", timed_out)
    });
    assert_eq!(timed_out, "corrections: timeout: query timed out");
    let partial = r#"{"status":"success","data":{"result":[]},"warnings":["a store is away"]}"#;
    let partial = told("seconds_sum", move || is("200 OK", partial));
    assert_eq!(
        partial,
        "seconds to an answer: answers with a warning: a store is away"
    );
    let noted = r#"{"status":"success","data":{"result":[]},"warnings":["PromQL info: m","away"]}"#;
    let noted = told("seconds_sum", move || is("200 OK", noted));
    assert_eq!(noted, "seconds to an answer: answers with a warning: away");
    let cut = told("assignments", || {
        Reply::Ends("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{")
    });
    assert!(cut.starts_with("new users: "), "{cut}");
}

#[test]
fn notes_on_a_query_are_no_warnings() {
    let world = World::good();
    let server = Server::start(move |asked| {
        let Reply::Is(status, body) = world.answer(asked) else {
            panic!("an answer");
        };
        let mut body: Value = serde_json::from_str(&body).unwrap();
        body["warnings"] = json!([
            "PromQL info: metric might not be a counter, name does not end in \
             _total/_sum/_count/_bucket: \"answered\" (1:40)"
        ]);
        Reply::Is(status, body.to_string().into())
    });
    let ran = verdict(&server.url(""), EXPERIMENT, &[]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
}

#[test]
fn whoever_waits_is_told_what_for_and_not_for_ever() {
    let silence = || Reply::Silence;
    let (lines, url) = lines("seconds_bucket", silence, &["--timeout", "2500ms"]);
    let histogram = "the latency histogram";
    let expected =
        format!("waiting for {url}: {histogram} …\n{url}: {histogram}: no answer within 2.5s\n");
    assert_eq!(lines, expected);
}

#[test]
fn numbers_and_labels_that_cannot_be_are_faults() {
    let row = |metric: Value, value: &'static str| {
        move || good(&json!([{ "metric": metric, "value": [FULFILLED, value] }]))
    };
    let labels = json!({ "version": "canary", "bucket": "3" });
    for value in ["NaN", "+Inf", "-1"] {
        let fault = told("overrides", row(labels.clone(), value));
        let end = r#" at 2026-01-06T00:00:00Z for {"bucket": "3", "version": "canary"}: a count is 0 or more"#;
        assert!(
            fault.starts_with("corrections: ") && fault.ends_with(end),
            "{fault}"
        );
    }
    let late = told("overrides", || {
        good(&json!([{ "metric": {}, "value": [1e18, "-1"] }]))
    });
    let expected = "corrections: the answer is not one of Prometheus: it has no series";
    assert_eq!(late, expected);
    let other = told(
        "overrides",
        row(json!({ "version": "canary", "bucket": "77" }), "1"),
    );
    assert_eq!(
        other,
        "corrections: a series with bucket \"77\" and version \"canary\": \
         allowed are bucket 0 to 31, and version stable or canary"
    );
    let borders = |rows: &'static [(&str, &str)]| {
        move || {
            let row = |(version, border): &(&str, &str)| {
                let labels = json!({ "version": version, "bucket": "3", "le": border });
                json!({ "metric": labels, "value": [FULFILLED, "1"] })
            };
            good(&rows.iter().map(row).collect::<Vec<_>>().into())
        }
    };
    let differ = told(
        "seconds_bucket",
        borders(&[("stable", "+Inf"), ("stable", "1"), ("canary", "+Inf")]),
    );
    assert!(
        differ.starts_with("the latency histogram: its borders are not the same everywhere"),
        "{differ}"
    );
    let open = told(
        "seconds_bucket",
        borders(&[("stable", "1"), ("canary", "1")]),
    );
    assert!(open.contains("it has no border +Inf"), "{open}");
}

#[test]
fn hostile_texts_do_not_reach_the_terminal() {
    let hostile = "\u{1b}]0;gone\u{7}\u{1b}[2J\r\nverdict     accept\u{202e}";
    let long = hostile.to_owned() + &"x".repeat(10_000);
    let error = json!({ "status": "error", "errorType": hostile, "error": long }).to_string();
    let fault = told("assignments", move || {
        Reply::Is("400 Bad Request".to_owned(), error.clone().into())
    });
    assert!(
        fault.contains("\\u{1b}") && fault.contains("\\u{202e}"),
        "{fault}"
    );
    assert!(fault.len() < 1000, "{}", fault.len());
    let fault = told("assignments", move || {
        Reply::Is("502 Bad Gateway".to_owned(), hostile.into())
    });
    assert!(fault.contains("\\u{1b}"), "{fault}");
}

#[test]
fn the_address_may_have_a_path_and_a_user_who_is_not_shown() {
    let world = World::good();
    let server = Server::start(move |asked| match asked.header("authorization") {
        Some("Basic b3BzOnNlY3JldA==") if asked.head.starts_with("GET /mesh/api/v1/query") => {
            world.answer(asked)
        }
        _ => Reply::Is("401 Unauthorized".to_owned(), "".into()),
    });
    let url = |user: &str| format!("http://{user}@{}/mesh", server.address);
    assert_eq!(verdict(&url("ops:secret"), EXPERIMENT, &[]).code, Some(0));
    let ran = verdict(&url("ops:wrong"), EXPERIMENT, &[]);
    let expected = format!(
        "http://{}/mesh: new users: answered 401 Unauthorized: \n",
        server.address
    );
    assert_eq!((ran.code, ran.err), (Some(1), expected));
}

#[test]
fn a_prometheus_that_is_away_is_an_error() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let ran = verdict(&format!("http://ops:secret@{address}"), EXPERIMENT, &[]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let begin = format!("http://{address}: new users: ");
    assert!(
        ran.err.starts_with(&begin) && ran.err.contains("refused"),
        "{}",
        ran.err
    );
    assert!(!ran.err.contains("secret"), "{}", ran.err);
}

#[test]
fn all_faults_of_an_experiment_are_told_at_once() {
    let faulty = "\
rollout: Sentiment
control: stable
start: yesterday
users: 50
minimalRise: 10.001
colour: red
metrics: { latency: 'a-b', colour: red }
matchers: { service: 'namespace=sentiment', filter: 'a=\"b\"} or x{c=\"d\"' }
";
    let ran = verdict("http://localhost:1", faulty, &[]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    let faults: Vec<_> = ran
        .err
        .lines()
        .map(|line| line.strip_prefix("<stdin>: ").unwrap())
        .collect();
    assert_eq!(
        faults,
        [
            "colour: \"red\": unknown field; allowed: rollout, control, treatment, start, users, \
             minimalRise, maximalLatencyRise, metrics, matchers",
            "rollout: \"Sentiment\": a name of up to 63 lower-case letters, digits and hyphens",
            "treatment: missing: this field is required",
            "start: \"yesterday\": a time in UTC as in 2026-11-02T08:00:00Z",
            "users: 50: a whole number from 100 to 1000000000",
            "minimalRise: 10.001: a percentage from 0 to 1000 with at most two decimals",
            "metrics.colour: \"red\": unknown field; allowed: assignments, slots, predictions, \
             corrections, latency",
            "metrics.latency: \"a-b\": the name of a metric: letters, digits, _ and :",
            "matchers.filter: \"a=\\\"b\\\"} or x{c=\\\"d\\\"\": label matchers as in \
             namespace=\"sentiment\", or none",
            "matchers.service: \"namespace=sentiment\": label matchers as in \
             namespace=\"sentiment\", or none",
        ]
    );
    for (faulty, fault) in [
        (
            "[]",
            "<stdin>: experiment: []: an object with the fields rollout, ",
        ),
        (
            &EXPERIMENT.replace("canary", "stable"),
            "<stdin>: treatment: \"stable\": another version than the control\n",
        ),
        (
            &EXPERIMENT.replace("2026", "2036"),
            "<stdin>: start: \"2036-01-05T00:00:00Z\": a time before now, 2026-01-07T00:00:00Z: ",
        ),
    ] {
        let ran = verdict("http://localhost:1", faulty, &[]);
        assert_eq!(ran.code, Some(1));
        assert!(ran.err.starts_with(fault), "{}", ran.err);
    }
}

#[test]
fn the_example_is_one_and_so_says_the_schema() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/verdict");
    let example = lanekeeper_cli::read_document(&directory.join("experiment.yaml")).unwrap();
    let schema = lanekeeper(&directory, &["schema", "experiment"], "").out;
    let schema = serde_json::from_str(&schema).unwrap();
    jsonschema::validate(&schema, &example).unwrap();
    assert!(!jsonschema::is_valid(
        &schema,
        &json!({ "rollout": "sentiment" })
    ));

    let world = World {
        users: [0.0; 2],
        ..World::good()
    };
    let server = Server::start(move |asked| world.answer(asked));
    let url = server.url("");
    let args = [
        "verdict",
        "--at",
        "2026-11-03T08:00:00Z",
        "--prometheus",
        &url,
    ];
    let ran = lanekeeper(&directory, &args, "");
    assert!(
        ran.out
            .starts_with("verdict     not enough data, 5,000 more"),
        "{ran:?}"
    );
    let asked = server.asked();
    let (filter, service) = (
        "namespace%3D%22istio-system%22",
        "namespace%3D%22sentiment%22",
    );
    let with = |matcher| {
        asked
            .iter()
            .filter(|asked| asked.head.contains(matcher))
            .count()
    };
    assert_eq!((with(filter), with(service), asked.len()), (3, 4, 7));
}

#[test]
fn wrong_usage_is_2_and_says_what_is_allowed() {
    for (args, allowed) in [
        (&["verdict"][..], "--prometheus <URL>"),
        (
            &["verdict", "--prometheus", "https://a"],
            "TLS is not spoken",
        ),
        (
            &["verdict", "--prometheus", "http://a/?b"],
            "allowed is http://[USER:PASSWORD@]HOST",
        ),
        (
            &[
                "verdict",
                "--prometheus",
                "http://a",
                "--at",
                "9999-01-01T00:00:00Z",
            ],
            "allowed is a time up to now",
        ),
        (
            &["verdict", "--prometheus", "http://a", "--at", "now"],
            "allowed is a time in UTC",
        ),
        (&["sample-size", "--rate", "0.2"], "allowed is a percentage"),
        (
            &[
                "sample-size",
                "--rate",
                "0%",
                "--rise",
                "10%",
                "--reviews",
                "1",
            ],
            "--rate: more than 0 % and less than 100 %\n--rise: more than --minimal-rise\n",
        ),
        (
            &[
                "sample-size",
                "--rate",
                "1%",
                "--rise",
                "10.001%",
                "--reviews",
                "1",
            ],
            "not even a billion users suffice",
        ),
    ] {
        let ran = lanekeeper(files(&[]).path(), args, "");
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{args:?}");
        assert!(ran.err.contains(allowed), "{}", ran.err);
    }
}

#[test]
fn the_sample_size_is_the_smallest_with_the_power_asked_for() {
    let users = |more: &[&str]| {
        let args = [
            "sample-size",
            "--rate",
            "20%",
            "--rise",
            "30%",
            "--reviews",
            "3",
            "--json",
        ];
        let ran = lanekeeper(files(&[]).path(), &[&args, more].concat(), "");
        let json: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(ran.code, Some(0));
        (
            json["users"].as_u64().unwrap(),
            json["power"].as_f64().unwrap(),
        )
    };
    let (_, power) = users(&["--share", "50%"]);
    assert!((0.8..0.802).contains(&power), "{power}");
    let (usual, _) = users(&[]);
    for (more, larger) in [
        (["--power", "90%"], true),
        (["--share", "50%"], false),
        (["--correlation", "50%"], true),
        (["--latency-rise", "1%"], true),
        (["--latency-variation", "20%"], false),
        (["--maximal-latency-rise", "10%"], false),
    ] {
        let (users, _) = users(&more);
        assert_eq!(users > usual, larger, "{more:?}: {users}, {usual}");
    }
}

#[test]
fn the_sample_size_fills_the_buckets_of_both_versions_however_certain_one_is() {
    for (share, users) in [("50%", 320), ("10%", 1600)] {
        let args = [
            "sample-size",
            "--rate",
            "45%",
            "--rise",
            "100%",
            "--reviews",
            "50",
        ];
        let sure = ["--latency-variation", "1%", "--correlation", "0%", "--json"];
        let args = [&args[..], &sure, &["--share", share]].concat();
        let ran = lanekeeper(files(&[]).path(), &args, "");
        let json: Value = serde_json::from_str(&ran.out).unwrap();
        // Five for each of 32 buckets.
        assert_eq!(json["users"], users, "{share}");
    }
}
