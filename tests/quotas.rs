//! Ten requests a minute of each user and a hundred of each path, whoever else is there and however
//! many workers the gateway has.

use std::sync::Barrier;

use harness::build::workspace;
use harness::http::{Client, Request};
use promises::{Gateway, with_quotas};
use serde_json::{Value, json};

/// The policy file with these quotas.
fn ten_per_user_and_a_hundred_per_path() -> Value {
    let file = workspace().join("wasm-plugins/policies/gateway-quotas.yaml");
    lanekeeper_cli::load(&file, &|_| None).expect("a policy").0
}

/// Sends all requests at once, each on a connection of its own; how many are admitted. Others are
/// refused with 429.
fn admitted_at_once(gateway: &Gateway, requests: &[Request]) -> usize {
    let start = Barrier::new(requests.len());
    let send = |request: &Request| {
        let mut client = Client::connect(gateway.address()).expect("a connection");
        start.wait();
        match client.send(request).expect("a response").status {
            200 => 1,
            429 => 0,
            status => panic!("{status}"),
        }
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = requests
            .iter()
            .map(|request| scope.spawn(|| send(request)))
            .collect();
        let clients = clients.into_iter();
        clients.map(|client| client.join().expect("an end")).sum()
    })
}

fn of_user(user: &str, path: &str) -> Request {
    Request::get(path).header("X-User", user)
}

#[test]
fn of_200_requests_of_one_user_at_once_ten_are_admitted() {
    let gateway = Gateway::start(&ten_per_user_and_a_hundred_per_path());
    let requests = vec![of_user("alice", "/sms"); 200];
    assert_eq!(admitted_at_once(&gateway, &requests), 10);
    assert_eq!(admitted_at_once(&gateway, &requests[..50]), 0);
    assert_eq!(
        gateway.stable.received().len() + gateway.canary.received().len(),
        10
    );
    assert_eq!(gateway.crashes(), 0);
}

#[test]
fn after_the_period_there_are_ten_more() {
    let quota = json!({ "name": "per-user", "key": ["user"], "limit": 10, "period": "3s" });
    let gateway = Gateway::start(&with_quotas(json!([quota])));
    let requests = vec![of_user("alice", "/sms"); 40];
    assert_eq!(admitted_at_once(&gateway, &requests), 10);
    std::thread::sleep(std::time::Duration::from_millis(3_100));
    assert_eq!(admitted_at_once(&gateway, &requests), 10);
}

#[test]
fn twenty_users_at_once_have_ten_each() {
    let gateway = Gateway::start(&ten_per_user_and_a_hundred_per_path());
    std::thread::scope(|scope| {
        for user in 0..20 {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut client = Client::connect(gateway.address()).expect("a connection");
                let mut admitted = 0;
                for n in 0..30 {
                    // A path of their own, or the path's quota would be spent before theirs.
                    let request = of_user(&format!("user-{user}"), &format!("/own/{user}?{n}"));
                    let status = client.send(&request).expect("a response").status;
                    admitted += usize::from(status == 200);
                }
                assert_eq!(admitted, 10, "user-{user}");
            });
        }
    });
}

#[test]
fn a_path_has_a_hundred_across_users_and_spellings() {
    let gateway = Gateway::start(&ten_per_user_and_a_hundred_per_path());
    let spellings = ["/a", "/a?x=1", "/%61", "//a", "/b/../a"];
    let requests: Vec<Request> = (0..150)
        .map(|n| of_user(&format!("user-{n}"), spellings[n % spellings.len()]))
        .collect();
    assert_eq!(admitted_at_once(&gateway, &requests), 100);
    assert_eq!(admitted_at_once(&gateway, &[of_user("user-0", "/b")]), 1);
}

#[test]
fn what_one_quota_refuses_is_not_spent_at_the_other() {
    let gateway = Gateway::start(&ten_per_user_and_a_hundred_per_path());
    let noisy = vec![of_user("noisy", "/a"); 100];
    assert_eq!(admitted_at_once(&gateway, &noisy), 10);
    let others: Vec<Request> = (0..120)
        .map(|n| of_user(&format!("user-{n}"), "/a"))
        .collect();
    assert_eq!(admitted_at_once(&gateway, &others), 90);
    // Thirty of them were refused by the path, and have lost nothing; the others one of ten.
    let refused: usize = (0..120)
        .map(|n| {
            let elsewhere = vec![of_user(&format!("user-{n}"), &format!("/elsewhere/{n}")); 15];
            match admitted_at_once(&gateway, &elsewhere) {
                10 => 1,
                9 => 0,
                other => panic!("user-{n}: {other}"),
            }
        })
        .sum();
    assert_eq!(refused, 30);
}

#[test]
fn what_clients_choose_does_not_let_them_escape() {
    let gateway = Gateway::start(&ten_per_user_and_a_hundred_per_path());
    let fresh: Vec<Request> = (0..60)
        .map(|n| match n % 4 {
            0 => Request::get("/a").header("Cookie", format!("visitor={n:032x}")),
            1 => Request::get("/a").header("X-Forwarded-For", format!("203.0.113.{n}")),
            // Two users: nobody can say which one it is.
            2 => of_user(&n.to_string(), "/a").header("x-user", "x"),
            _ => Request::get("/a").header("X-Envoy-External-Address", format!("203.0.113.{n}")),
        })
        .collect();
    assert_eq!(admitted_at_once(&gateway, &fresh), 10);
    let source = [127, 9, 9, 9].into();
    let mut neighbour = Client::connect_from(source, gateway.address()).expect("a connection");
    let response = neighbour.send(&Request::get("/a")).expect("a response");
    assert_eq!(response.status, 200);
}
