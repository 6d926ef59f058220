//! A new policy is in force at once, and no request notices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::http::{Client, Request};
use promises::{Gateway, policy, user_of, versions};
use serde_json::json;

/// Ends the clients, also when a push fails: else the test would never end.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn pushes_under_load_fail_no_request_and_flip_nobody_who_has_a_cookie() {
    let gateway = Gateway::start(&policy(json!({})));
    let done = AtomicBool::new(false);
    let sent: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (gateway, done) = (&gateway, &done);
                scope.spawn(move || {
                    // One connection throughout: a push must not close it.
                    let mut connection = Client::connect(gateway.address()).expect("a connection");
                    let version = ["stable", "canary"][client % 2];
                    let cookie =
                        promises::cookies(&gateway.get(&[("x-user", &user_of(version))]).0);
                    let request = Request::get("/").header("Cookie", &cookie);
                    let mut sent = 0;
                    while !done.load(Ordering::Relaxed) {
                        let response = connection.send(&request).expect("a response");
                        assert_eq!(response.status, 200);
                        let echo = harness::upstream::Echo::of(&response).expect("an echo");
                        assert_eq!(echo.upstream, version);
                        sent += 1;
                    }
                    sent
                })
            })
            .collect();
        let stop = Stop(&done);
        for canary in [20, 50, 80, 10] {
            gateway.push(&policy(
                json!({ "versions": versions(100 - canary, canary, "live") }),
            ));
            gateway.push_refused("{}");
        }
        drop(stop);
        clients
            .into_iter()
            .map(|client| client.join().expect("no failure"))
            .sum()
    });
    assert!(sent > 100, "{sent}");
    assert_eq!(gateway.crashes(), 0);
}

#[test]
fn a_push_needs_no_new_connection() {
    let gateway = Gateway::start(&policy(json!({})));
    let mut connection = Client::connect(gateway.address()).expect("a connection");
    let request = Request::get("/").header("X-User", user_of("stable"));
    let mut upstream = || {
        let response = connection.send(&request).expect("a response");
        harness::upstream::Echo::of(&response)
            .expect("an echo")
            .upstream
    };
    assert_eq!(upstream(), "stable");
    gateway.push(&policy(
        json!({ "epoch": 1, "versions": versions(0, 100, "live") }),
    ));
    let deadline = Instant::now() + Duration::from_secs(5);
    while upstream() != "canary" {
        assert!(Instant::now() < deadline, "not in force on this connection");
    }
}
