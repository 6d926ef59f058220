//! Whatever a client sends, it gets an ordinary answer, and no VM crashes.

use harness::http::{self, Request};
use harness::wasm_host::World;
use promises::{Gateway, SmsChecker, plugin, policy, request, user_of};
use serde_json::json;

/// What a hostile client may send beside `X-User`, and where it ends up.
fn attacks(user: &str) -> Vec<Vec<(&'static str, Vec<u8>)>> {
    let cookie = |value: &str| {
        vec![
            ("x-user", user.as_bytes().to_vec()),
            ("cookie", value.into()),
        ]
    };
    let identity = |value: Vec<u8>| vec![("x-user", value)];
    let many: String = (0..1_000).map(|n| format!("c{n}=v{n}; ")).collect();
    let mut attacks = vec![
        cookie("app-version=nonsense"),
        cookie("app-version=canary.7.20000"),
        cookie("app-version=canary.0.99999999999999999999"),
        cookie("app-version=; app-version; =; ;;; app-version=\"canary"),
        cookie(&many),
        cookie(&format!("app-version={}", "x".repeat(50_000))),
        cookie(&"app-version=a.b.c;".repeat(2_000)),
        vec![
            ("x-user", user.as_bytes().to_vec()),
            ("cookie", vec![0xff, 0xfe, b'=', 0x80]),
        ],
        vec![
            ("x-user", user.as_bytes().to_vec()),
            ("cookie", b"app-version=\xff".to_vec()),
        ],
        vec![
            ("x-user", user.as_bytes().to_vec()),
            ("x-experiment", vec![0xc3, 0x28]),
        ],
        vec![
            ("x-user", user.as_bytes().to_vec()),
            ("x-app-version", vec![0xff]),
        ],
        vec![
            ("x-user", user.as_bytes().to_vec()),
            ("x-forwarded-proto", vec![0xff]),
        ],
        identity(vec![]),
        identity(vec![b'x'; 10_240]),
        identity(vec![0xff, 0xfe, 0x80]),
    ];
    let mut repeated = identity(b"a".to_vec());
    repeated.extend(identity(b"b".to_vec()));
    attacks.push(repeated);
    attacks
}

#[test]
fn hostile_requests_get_ordinary_answers_from_envoy() {
    let gateway = Gateway::start(&policy(json!({})));
    let user = user_of("stable");
    for attack in attacks(&user) {
        let request = attack
            .iter()
            .fold(Request::get("/"), |request, (name, value)| {
                request.header(name, value)
            });
        let shown = format!(
            "{:?}",
            attack
                .iter()
                .map(|(n, v)| (n, &v[..v.len().min(40)]))
                .collect::<Vec<_>>()
        );
        let response = gateway.send(&request);
        // Envoy itself refuses headers of over 60 KiB in all; nothing here is that long.
        assert_eq!(response.status, 200, "{shown}");
        let named = attack.iter().filter(|(name, _)| *name == "x-user").count() == 1;
        let length = attack
            .iter()
            .find(|(name, _)| *name == "x-user")
            .map_or(0, |(_, v)| v.len());
        if named && length == user.len() {
            let (_, echo) = gateway.echo(&request);
            assert_eq!(echo.upstream, "stable", "{shown}");
        }
    }
    // And the gateway is as it was, in every worker.
    for _ in 0..20 {
        assert_eq!(
            gateway.get(&[("x-user", &user_of("canary"))]).1.upstream,
            "canary"
        );
    }
    assert_eq!(gateway.crashes(), 0);
}

#[test]
fn a_large_body_gets_the_answer_of_the_service_and_not_of_an_envoy_in_between() {
    const LARGE: usize = 1_000_000;
    let checker = SmsChecker::start();
    let json = "application/json";
    for round in 0..50 {
        for (method, path, kind, length, status) in [
            ("POST", "/sms", json, LARGE, 413),
            // More would be too large, whatever it is.
            ("POST", "/sms", "text/plain", 65_536, 415),
            ("DELETE", "/sms", json, LARGE, 405),
            ("POST", "/nowhere", json, LARGE, 404),
        ] {
            let request = Request::new(method, path)
                .header("content-type", kind)
                .body(vec![b'['; length]);
            let response = http::send(&checker.gateway(), &request).expect("a response");
            let header = |name| response.headers.get(name);
            let seen = (response.status, header("content-type"));
            let expected = (status, Some("application/problem+json"));
            assert_eq!(seen, expected, "{round}: {}", response.text());
            let served_by = header("x-served-by").unwrap_or_default();
            assert!(served_by.starts_with("app-service;v="), "{served_by}");
        }
    }
}

#[test]
fn hostile_requests_trap_no_vm() {
    let world = World::new();
    let plugin = plugin(&world, &policy(json!({})));
    let user = user_of("stable");
    for attack in attacks(&user) {
        let mut headers = request(&[]);
        for (name, value) in &attack {
            headers = headers.with(name, value);
        }
        let stream = plugin.request(headers).expect("no trap");
        assert!(
            ["stable", "canary"].contains(
                &stream
                    .request_headers()
                    .get("x-app-version")
                    .expect("a version")
            )
        );
        let response = stream.respond([(":status", "200")]).expect("no trap");
        for cookie in response.all("set-cookie") {
            assert!(cookie.iter().all(|b| (b' '..=b'~').contains(b)));
        }
        stream.finish().expect("no trap");
    }
}

#[test]
fn requests_without_pseudo_headers_and_strange_targets_trap_no_vm() {
    let world = World::new();
    let plugin = plugin(
        &world,
        &policy(json!({ "hosts": ["a.b"], "exempt": ["/x"] })),
    );
    for (authority, path) in [
        ("", ""),
        ("a.b", ""),
        ("a.b", "*"),
        ("a.b:80", "http://a.b/x"),
        ("a.b.", "/%"),
        ("a.b:", "/%2"),
        ("[", "/%%%"),
        ("[::1", "//..//"),
        (":", "?"),
        ("a.b:99999999999999999999", "/../../../x/%2e%2E"),
    ] {
        let stream = plugin
            .request([(":authority", authority), (":path", path)])
            .expect("no trap");
        stream.finish().expect("no trap");
    }
    let none: [(&str, &str); 0] = [];
    plugin
        .request(none)
        .expect("no trap")
        .finish()
        .expect("no trap");
}

#[test]
fn a_response_without_its_request_is_left_alone() {
    let world = World::new();
    let plugin = plugin(&world, &policy(json!({})));
    let stream = plugin.stream().expect("no trap");
    stream
        .on_response_headers([(":status", "408"), ("cache-control", "public")], true)
        .expect("no trap");
    assert_eq!(
        stream.response_headers().get("cache-control"),
        Some("public")
    );
    stream.finish().expect("no trap");
}

#[test]
fn memory_does_not_grow_with_traffic() {
    let world = World::new();
    let plugin = plugin(&world, &policy(json!({})));
    let attacks = attacks(&user_of("stable"));
    let send = |n: usize| {
        // Users, newcomers, renewals, attacks.
        let user = format!("user-{n}");
        let mut headers = match n % 4 {
            0 => request(&[("x-user", &user)]),
            1 => request(&[]),
            _ => request(&[("cookie", "visitor=v; app-version=canary.0.1")]),
        };
        if n % 4 == 3 {
            for (name, value) in &attacks[n / 4 % attacks.len()] {
                headers = headers.with(name, value);
            }
        }
        let stream = plugin.request(headers).expect("no trap");
        stream.respond([(":status", "200")]).expect("no trap");
        stream.finish().expect("no trap");
    };
    (0..2_000).for_each(send);
    let before = plugin.vm().memory_size();
    (2_000..20_000).for_each(send);
    assert_eq!(plugin.vm().memory_size(), before);
}
