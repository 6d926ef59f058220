//! Behind the gateway, every tier answers in the user's version: real services, a real sidecar
//! beside each version, and an application that knows nothing of versions.

use std::collections::{HashMap, HashSet};

use harness::http::{Client, Request, Response};
use promises::{SmsChecker, cookies, user_of, version_of};

const USERS: usize = 200;
const REQUESTS: usize = 5;

fn sms() -> Request {
    Request::post("/sms", r#"{"sms": "see you at the station at six"}"#)
        .header("Content-Type", "application/json")
}

/// The versions that took part: `app-service;v=canary, model-service;v=canary`.
fn tiers(response: &Response) -> (String, String) {
    assert_eq!(response.status, 200, "{}", response.text());
    let served_by = response.headers.get("x-served-by").expect("x-served-by");
    let of = |service: &str| {
        let mut parts = served_by.split(", ");
        let found = parts.find_map(|part| part.strip_prefix(service)?.strip_prefix(";v="));
        found
            .unwrap_or_else(|| panic!("no {service} in {served_by}"))
            .to_owned()
    };
    (of("app-service"), of("model-service"))
}

#[test]
fn users_and_visitors_stay_in_one_version_in_both_tiers() {
    let checker = SmsChecker::start();
    let seen: Vec<(String, HashSet<String>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let address = checker.gateway();
                scope.spawn(move || {
                    let mut client = Client::connect(&address).expect("a connection");
                    let mut jars: HashMap<usize, String> = HashMap::new();
                    let mut seen: HashMap<String, HashSet<String>> = HashMap::new();
                    for _ in 0..REQUESTS {
                        for user in (worker..USERS).step_by(4) {
                            let name = format!("user-{user}");
                            let response = client
                                .send(&sms().header("X-User", &name))
                                .expect("a response");
                            let (app, model) = tiers(&response);
                            assert_eq!(app, model);
                            assert_eq!(app, version_of(&name));
                            seen.entry(name).or_default().insert(app);

                            let jar = jars.entry(user).or_default();
                            let response = client
                                .send(&sms().header("Cookie", &*jar))
                                .expect("a response");
                            if jar.is_empty() {
                                *jar = cookies(&response);
                            }
                            let (app, model) = tiers(&response);
                            assert_eq!(app, model);
                            seen.entry(format!("visitor-{user}"))
                                .or_default()
                                .insert(app);
                        }
                    }
                    seen
                })
            })
            .collect();
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().expect("no failure"));
        joined.flatten().collect()
    });
    assert_eq!(seen.len(), 2 * USERS);
    let flipped: Vec<_> = seen
        .iter()
        .filter(|(_, versions)| versions.len() > 1)
        .collect();
    assert!(flipped.is_empty(), "{flipped:?}");
    assert_eq!(checker.mismatches(), 0);
}

#[test]
fn an_override_reaches_canary_in_both_tiers_and_a_spoofed_version_in_none() {
    let checker = SmsChecker::start();
    let address = checker.gateway();
    let user = user_of("stable");
    let request = sms()
        .header("X-User", &user)
        .header("X-Experiment", "canary");
    let response = harness::http::send(&address, &request).expect("a response");
    assert_eq!(tiers(&response), ("canary".to_owned(), "canary".to_owned()));
    // What the client claims does not go through two tiers either.
    let request = sms()
        .header("X-User", &user)
        .header("X-App-Version", "canary");
    let response = harness::http::send(&address, &request).expect("a response");
    assert_eq!(tiers(&response), ("stable".to_owned(), "stable".to_owned()));
}

#[test]
fn a_request_that_reaches_the_wrong_pod_is_counted_by_its_sidecar() {
    let checker = SmsChecker::start();
    let request = sms().header("X-App-Version", "stable");
    let response = harness::http::send(&checker.sidecar("canary"), &request).expect("a response");
    // It is served, and goes on in the pod's own version.
    assert_eq!(tiers(&response), ("canary".to_owned(), "canary".to_owned()));
    assert_eq!(checker.mismatches(), 1);
}
