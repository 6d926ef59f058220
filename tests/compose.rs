//! The promises in containers, with the policies of `wasm-plugins/`, which are edited in the running
//! set-up. `cargo xtask e2e compose` starts it and runs these tests one after another.

mod crowd;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::http::{self, Client, Request, Response};
use harness::metrics;
use harness::promise::{self, PROMPTLY, sms, within_4_sigma};
use harness::sentiment;
use lanekeeper_policy::{BUCKETS, slot};
use promises::{cookies, user_of, version_of};
use serde_json::Value;

/// The running set-up, as the variable `E2E_COMPOSE` says.
struct Compose {
    gateway: String,
    /// Of the gateway.
    admin: String,
    /// Another gateway, that of sentiment review, and its admin page.
    sentiment: (String, String),
    /// The policy of both.
    policy: PathBuf,
    /// `docker compose` or what stands in for it, with its options.
    command: Vec<String>,
}

impl Compose {
    /// The set-up with the policy of the repository.
    fn running() -> Self {
        let told = std::env::var("E2E_COMPOSE").expect("cargo xtask e2e compose");
        let told: Value = serde_json::from_str(&told).expect("JSON");
        let text = |key: &str| {
            told.pointer(key)
                .and_then(Value::as_str)
                .expect(key)
                .to_owned()
        };
        let words = told["command"].as_array().expect("command").iter();
        let compose = Self {
            gateway: text("/gateway"),
            admin: text("/admin"),
            sentiment: (text("/sentiment/gateway"), text("/sentiment/admin")),
            policy: text("/policy").into(),
            command: words
                .map(|word| word.as_str().expect("a word").to_owned())
                .collect(),
        };
        compose.edit(&policy("gateway"));
        compose
    }

    /// Saves a good policy and waits until it is in force; how long that took.
    fn edit(&self, policy: &str) -> Duration {
        let start = Instant::now();
        fs::write(&self.policy, policy).expect("a file");
        let (_, compiled) = lanekeeper_cli::load(&self.policy, &|_| None).expect("a policy");
        let hash = compiled.hash();
        wait_for("the policy is in force", || self.hash() == hash);
        let promptly = start.elapsed();
        let (_, admin) = &self.sentiment;
        wait_for("the other gateway has it, too", || hash_at(admin) == hash);
        promptly
    }

    /// The policy in force.
    fn hash(&self) -> u32 {
        hash_at(&self.admin)
    }

    fn compose(&self, arguments: &[&str]) -> String {
        let output = Command::new(&self.command[0])
            .args(&self.command[1..])
            .args(arguments)
            .output()
            .expect("compose");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {error}");
        // Of a container's two streams, each is where the container wrote it.
        out + &error
    }

    /// Waits until both versions have served for a while after containers came or went: podman's resolver
    /// then knows no names for a moment, and an Envoy that asks it in that moment loses its upstreams
    /// until it asks again, five seconds later.
    fn settle(&self) {
        let mut since = Instant::now();
        promise::wait_for(Duration::from_secs(60), "all serve again", || {
            let ok = ["stable", "canary"].into_iter().all(|version| {
                let header = ("x-experiment", version);
                let request = sms().header(header.0, header.1);
                let response = http::send(&self.gateway, &request);
                response.is_ok_and(|response| response.status == 200)
                    && sentiment::is_of_one_version(&self.sentiment.0, header, version).is_ok()
            });
            if !ok {
                since = Instant::now();
            }
            Ok(since.elapsed() > Duration::from_secs(12))
        })
        .expect("in time");
    }

    /// How many requests a model has answered, by its log.
    fn predictions(&self, model: &str) -> usize {
        self.compose(&["logs", model])
            .matches(r#""route":"/predict""#)
            .count()
    }
}

/// The policy in force in an Envoy, by its admin page.
fn hash_at(admin: &str) -> u32 {
    let metrics = http::get(&format!("http://{admin}/stats/prometheus"));
    let metrics = metrics.expect("metrics").text();
    let hash = metrics::sum(&metrics, "lanekeeper_config_hash", &[]).expect("a hash");
    hash.try_into().expect("a hash")
}

/// The text of a policy of the repository.
fn policy(name: &str) -> String {
    let file = format!("wasm-plugins/policies/{name}.yaml");
    fs::read_to_string(harness::build::workspace().join(file)).expect("a policy")
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    promise::wait_for(PROMPTLY, what, || Ok(holds())).expect("promptly")
}

/// The version that answered, in both tiers.
fn version(response: &Response) -> String {
    promise::version(response).expect("an answer")
}

#[test]
fn users_and_visitors_stay_in_one_version_in_both_tiers() {
    const USERS: usize = 300;
    const REQUESTS: usize = 10;
    let compose = Compose::running();
    let visitors = crowd::stays_in_one_version(&compose.gateway, USERS, REQUESTS, &sms(), version);
    let canary = visitors.iter().filter(|version| *version == "canary");
    let canary = canary.count();
    within_4_sigma(canary, USERS, 0.1).expect("as many as the weight says");
    println!(
        "{USERS} named users and {USERS} visitors, {} requests: no flip, the tiers agree; \
         {canary} visitors in canary",
        USERS + 2 * USERS * REQUESTS
    );
}

#[test]
fn an_override_reaches_canary_and_what_a_client_makes_up_changes_nothing() {
    let compose = Compose::running();
    let send = |request: &Request| http::send(&compose.gateway, request).expect("a response");
    for theirs in ["stable", "canary"] {
        let request = sms().header("x-user", user_of(theirs));
        for other in ["stable", "canary"] {
            let response = send(&request.clone().header("x-experiment", other));
            assert_eq!(version(&response), other);
            assert!(response.headers.get("set-cookie").is_none());
        }
        // Versions that there are, one that users never get, and one that nobody has.
        for spoofed in ["stable", "canary", "shadow", "nobody"] {
            for name in ["x-app-version", "X-App-Version", "X-APP-VERSION"] {
                let spoofed = request.clone().header(name, spoofed);
                assert_eq!(version(&send(&spoofed)), theirs, "{name}");
                let twice = spoofed.header("x-app-version", "stable");
                assert_eq!(version(&send(&twice)), theirs, "{name}");
            }
        }
    }
}

#[test]
fn a_made_up_bucket_does_not_reach_the_experiments_metrics() {
    let compose = Compose::running();
    let guesses = |bucket: &str| {
        let request = Request::get("/metrics").header("x-experiment", "stable");
        let metrics = http::send(&compose.gateway, &request).expect("metrics");
        metrics::sum(
            &metrics.text(),
            "sms_guesses_total",
            &[("bucket", bucket), ("version", "stable")],
        )
    };
    let user = user_of("stable");
    let own = slot("sms-checker", user.as_bytes()) % BUCKETS;
    let [own, made_up] = [own, (own + 1) % BUCKETS].map(|bucket| bucket.to_string());
    let before = [&own, &made_up].map(|bucket| guesses(bucket));
    let request = Request::post("/sms", r#"{"sms": "see you at six", "guess": "ham"}"#)
        .header("content-type", "application/json")
        .header("x-user", &user)
        .header("x-shadow", "true")
        .header("x-rollout-bucket", &made_up);
    let response = http::send(&compose.gateway, &request).expect("a response");
    assert_eq!(version(&response), "stable");
    let counted = [before[0].map(|count| count + 1), before[1]];
    assert_eq!([&own, &made_up].map(|bucket| guesses(bucket)), counted);
}

#[test]
fn holders_of_a_version_that_is_gone_get_503_until_it_is_off() {
    let compose = Compose::running();
    let mut newcomers =
        std::iter::repeat_with(|| http::send(&compose.gateway, &sms()).expect("a response"))
            .take(1_000);
    let [canary, stable] = ["canary", "stable"].map(|name| {
        let holder = newcomers.find(|response| version(response) == name);
        [
            sms().header("cookie", cookies(&holder.expect("one in a thousand"))),
            sms().header("x-user", user_of(name)),
        ]
    });
    let send = |request: &Request| http::send(&compose.gateway, request).expect("a response");

    // The sidecar lives in the network of the other, and could not say good-bye without it.
    compose.compose(&["stop", "sidecar-canary"]);
    compose.compose(&["stop", "app-canary"]);
    for request in canary.iter().cycle().take(6) {
        let response = send(request);
        assert_eq!(response.status, 503, "{}", response.text());
    }
    let others_stay = || {
        for request in stable.iter().cycle().take(20) {
            assert_eq!(version(&send(request)), "stable");
        }
    };
    others_stay();

    let on = "name: canary, weight: 10";
    let off = policy("gateway").replace(on, &format!("{on}, state: off"));
    let promptly = compose.edit(&off);
    for request in &canary {
        assert_eq!(version(&send(request)), "stable");
    }
    others_stay();
    println!("canary stopped: 503 for its holders, stable {promptly:.1?} after it is off");

    compose.compose(&["start", "app-canary"]);
    compose.compose(&["start", "sidecar-canary"]);
    compose.edit(&policy("gateway"));
    compose.settle();
}

#[test]
fn a_quota_admits_its_limit_and_not_one_more() {
    let compose = Compose::running();
    // Every request over the limit is refused, and says how long to wait.
    let admitted = |user: &str, requests: usize| {
        // A client that says it is a shadow is counted like everybody.
        let request = sms().header("x-user", user).header("x-shadow", "true");
        let statuses = (0..requests).map(|_| {
            // Envoy may close the connection of a request whose body it need not read.
            let response = http::send(&compose.gateway, &request).expect("a response");
            if response.status == 429 {
                let wait = response.headers.get("retry-after").expect("retry-after");
                let wait: u32 = wait.parse().expect("seconds");
                assert!((1..=60).contains(&wait), "{wait}");
            }
            response.status
        });
        let statuses: Vec<_> = statuses.collect();
        let admitted = statuses.iter().filter(|status| **status == 200).count();
        assert!(statuses[admitted..].iter().all(|status| *status == 429));
        admitted
    };
    assert_eq!(admitted("noisy", 140), 120);
    assert_eq!(admitted("quiet", 5), 5);
    let promptly = compose.edit(&policy("gateway-quotas"));
    assert_eq!(admitted("another", 30), 10);
    println!("120 of 140 admitted; after an edit, in force after {promptly:.1?}, 10 of 30");
}

#[test]
fn an_edit_is_in_force_promptly_fails_no_request_and_moves_no_holder() {
    let compose = Compose::running();
    let holders: Vec<(String, String)> = (0..40)
        .map(|_| {
            let response = http::send(&compose.gateway, &sms()).expect("a response");
            (cookies(&response), version(&response))
        })
        .collect();
    let (done, start) = (AtomicBool::new(false), Instant::now());
    let (promptly, sent) = thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|client| {
                let (compose, holders, done) = (&compose, &holders, &done);
                scope.spawn(move || {
                    // One connection throughout: an edit must not close it.
                    let mut connection = Client::connect(&compose.gateway).expect("a connection");
                    let mut sent = 0;
                    while !done.load(Ordering::Relaxed) {
                        for (jar, given) in holders.iter().skip(client).step_by(2) {
                            let request = sms().header("cookie", jar);
                            let response = connection.send(&request).expect("a response");
                            assert_eq!(&version(&response), given);
                            sent += 1;
                        }
                    }
                    sent
                })
            })
            .collect();
        let edited = std::panic::catch_unwind(|| {
            let half = policy("gateway")
                .replace("weight: 90", "weight: 50")
                .replace("weight: 10", "weight: 50");
            let promptly = compose.edit(&half);
            // Between the old share of canary and the new one: a user that changes hands.
            let user = (0..)
                .map(|n| format!("user-{n}"))
                .find(|user| {
                    let slot = lanekeeper_policy::slot("sms-checker", user.as_bytes());
                    version_of(user) == "stable" && slot >= 5_000
                })
                .expect("there is one");
            let request = sms().header("x-user", user);
            let response = http::send(&compose.gateway, &request).expect("a response");
            assert_eq!(version(&response), "canary");

            let hash = compose.hash();
            fs::write(&compose.policy, half.replace("weight: 50", "weight: fifty"))
                .expect("a file");
            wait_for("the faults are said", || {
                let said = compose.compose(&["logs", "gateway"]);
                said.contains("rollouts[0].versions[0].weight: \"fifty\"")
            });
            assert_eq!(compose.hash(), hash);
            promptly
        });
        done.store(true, Ordering::Relaxed);
        let sent = clients
            .into_iter()
            .map(|client| client.join().expect("no failure"))
            .sum::<usize>();
        (edited.expect("no failure"), sent)
    });
    let rate = sent as f64 / start.elapsed().as_secs_f64();
    println!(
        "weights 10 to 50 in force after {promptly:.1?}, a faulty policy never; {sent} requests at \
         {rate:.0} a second meanwhile, none failed, no holder moved"
    );
}

#[test]
fn the_shadow_gets_a_copy_of_every_request_and_nobody_misses_it() {
    const REQUESTS: usize = 50;
    let compose = Compose::running();
    let models = ["model-stable", "model-canary", "model-shadow"];
    let before = models.map(|model| compose.predictions(model));
    let send = || {
        let mut client = Client::connect(&compose.gateway).expect("a connection");
        for _ in 0..REQUESTS {
            version(&client.send(&sms()).expect("a response"));
        }
    };
    send();
    // Nobody waits for copies.
    wait_for("all copies have come", || {
        let after = models.map(|model| compose.predictions(model));
        let [stable, canary, shadow] = [0, 1, 2].map(|n| after[n] - before[n]);
        assert!(shadow <= REQUESTS, "{shadow}");
        stable + canary == REQUESTS && shadow == REQUESTS
    });
    compose.compose(&["kill", "model-shadow"]);
    send();
    println!("{REQUESTS} requests, {REQUESTS} copies; {REQUESTS} more without the shadow");
    compose.compose(&["start", "model-shadow"]);
    compose.settle();
}

#[test]
fn the_page_of_another_host_is_of_one_version_with_the_api_and_the_model() {
    const USERS: usize = 100;
    let compose = Compose::running();
    let (gateway, _) = &compose.sentiment;
    for version in ["stable", "canary"] {
        sentiment::is_of_one_version(gateway, ("x-experiment", version), version)
            .expect("as overridden");
    }
    let mut canary = 0;
    for user in (0..USERS).map(|n| format!("user-{n}")) {
        let version = match lanekeeper_policy::slot("sentiment", user.as_bytes()) {
            0..9_000 => "stable",
            _ => "canary",
        };
        sentiment::is_of_one_version(gateway, ("x-user", &user), version).expect(&user);
        canary += usize::from(version == "canary");
    }
    // A visitor's cookies are for both hosts.
    let send = |request: &Request| http::send(gateway, request).expect("a response");
    let first = send(&sentiment::page());
    let served_by = first.headers.get("x-served-by");
    let given = served_by.and_then(|tiers| tiers.strip_prefix("app-frontend;v="));
    let given = given.expect("the page alone");
    for _ in 0..10 {
        sentiment::is_of_one_version(gateway, ("cookie", &cookies(&first)), given).expect("stays");
    }
    println!(
        "{USERS} users, {canary} of canary, and a visitor: page, API and model are of one version"
    );
}
