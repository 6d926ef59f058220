//! Quotas mean what they say: so many for each key, for nobody's account but its own, in bounded
//! memory.

mod support;

use std::collections::BTreeMap;

use lanekeeper_policy::{Count, Headers, Judge, Policy, Request, Ruling};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const START: u64 = NOON * SECOND;

/// A gateway of one worker.
struct Gateway {
    policy: Policy,
    judge: Judge,
    shared: Shared,
    now: u64,
}

impl Gateway {
    /// The usual rollout, and these quotas.
    fn new(quotas: Value) -> Self {
        Self {
            policy: compile(json!({ "rollouts": [rollout()], "quotas": quotas })),
            judge: judge(),
            shared: Shared {
                address: "192.0.2.1:4711".to_owned(),
                ..Shared::default()
            },
            now: START,
        }
    }

    fn send(&mut self, headers: &[(&str, &str)]) -> Ruling<'_> {
        self.send_to("/sms", headers)
    }

    fn send_to(&mut self, path: &str, headers: &[(&str, &str)]) -> Ruling<'_> {
        self.request("POST", "sms-checker.local", path, headers)
    }

    fn request(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Ruling<'_> {
        let fields = request(method, host, path, headers);
        let request = Request {
            headers: Headers::new(&fields),
            now: self.now / SECOND,
        };
        let outcome = self.policy.decide(request, &mut || None).outcome;
        self.judge
            .judge(&self.policy, request, &outcome, self.now, &mut self.shared)
    }

    /// How many of `count` requests are admitted.
    fn admitted(&mut self, count: usize, headers: &[(&str, &str)]) -> usize {
        self.admitted_at("/sms", count, headers)
    }

    fn admitted_at(&mut self, path: &str, count: usize, headers: &[(&str, &str)]) -> usize {
        let passes = |gateway: &mut Self| gateway.send_to(path, headers).refusal.is_none();
        (0..count).filter(|_| passes(self)).count()
    }

    /// Another policy is pushed; shared data stays.
    fn push(&mut self, quotas: Value) {
        self.policy = compile(json!({ "rollouts": [rollout()], "quotas": quotas }));
        self.judge = judge();
    }

    fn from(&mut self, address: &str) -> &mut Self {
        self.shared.address = format!("{address}:4711");
        self
    }

    fn bytes(&self) -> usize {
        self.shared
            .values
            .values()
            .map(|(value, _)| value.len())
            .sum()
    }
}

fn judge() -> Judge {
    Judge::new("quota/".to_owned(), [7; 16])
}

/// Ten requests a minute of each user.
fn per_user(changes: Value) -> Value {
    let mut quota = json!({ "name": "per-user", "key": ["user"], "limit": 10, "period": "1m" });
    for (key, value) in changes.as_object().expect("an object") {
        quota[key] = value.clone();
    }
    quota
}

fn per_path() -> Value {
    json!({ "name": "per-path", "key": ["path"], "limit": 100, "period": "1m" })
}

#[test]
fn each_user_has_the_whole_limit_and_again_after_the_period() {
    let mut gateway = Gateway::new(json!([per_user(json!({}))]));
    for user in ["alice", "bob", "carol"] {
        assert_eq!(gateway.admitted(15, &[("x-user", user)]), 10, "{user}");
    }
    gateway.now += MINUTE;
    assert_eq!(gateway.admitted(15, &[("x-user", "alice")]), 10);
}

#[test]
fn a_path_has_its_limit_across_users_and_spellings() {
    let mut gateway = Gateway::new(json!([per_path()]));
    let spellings = ["/a", "/a?x=1", "/%61", "//a", "/b/../a", "/./a"];
    let mut admitted = 0;
    for n in 0..120 {
        let user = format!("user-{n}");
        admitted += gateway.admitted_at(spellings[n % 6], 1, &[("x-user", &user)]);
    }
    assert_eq!(admitted, 100);
    assert_eq!(gateway.admitted_at("/b", 1, &[]), 1);
    for host in [
        "SMS-checker.local",
        "sms-checker.local:8080",
        "sms-checker.local.",
    ] {
        assert!(
            gateway.request("GET", host, "/a", &[]).refusal.is_some(),
            "{host}"
        );
    }
    // Percent-encoded bytes have one spelling, too.
    assert_eq!(gateway.admitted_at("/x%2fy", 100, &[]), 100);
    assert_eq!(gateway.admitted_at("/x%2Fy", 1, &[]), 0);
}

#[test]
fn hosts_that_a_client_makes_up_count_together() {
    let mut quota = per_path();
    quota["limit"] = json!(10);
    quota["match"] = json!({ "hosts": ["shop.example", "*.shop.example", "*"] });
    let mut gateway = Gateway::new(json!([quota]));
    let mut admitted = |hosts: &dyn Fn(usize) -> String| {
        let send = |n| {
            gateway
                .request("GET", &hosts(n), "/a", &[])
                .refusal
                .is_none()
        };
        (0..30).map(send).filter(|admitted| *admitted).count()
    };
    assert_eq!(admitted(&|n| format!("made-up-{n}.example")), 10);
    assert_eq!(admitted(&|n| format!("made-up-{n}.shop.example")), 10);
    assert_eq!(admitted(&|_| "shop.example".to_owned()), 10);
    assert_eq!(admitted(&|_| "sms-checker.local".to_owned()), 10);
}

#[test]
fn a_template_counts_what_is_like_it_as_one_path() {
    let mut gateway = Gateway::new(json!([{
        "name": "api", "key": ["path"], "limit": 3, "period": "1m",
        "pathTemplates": ["/api/users/*", "/api/*/orders/*"],
    }]));
    let mut admitted = |path: &str| gateway.admitted_at(path, 1, &[]);
    let like_users = [
        "/api/users/1",
        "/api/users/2",
        "/api//users/3?x",
        "/api/users/4",
    ];
    assert_eq!(like_users.map(&mut admitted), [1, 1, 1, 0]);
    for path in [
        "/api/users",
        "/api/users/",
        "/api/users/1/orders",
        "/api/7/orders/9",
    ] {
        assert_eq!(admitted(path), 1, "{path}");
    }
}

#[test]
fn a_request_that_one_quota_refuses_costs_nothing_at_the_others() {
    let mut gateway = Gateway::new(json!([per_path(), per_user(json!({}))]));
    assert_eq!(gateway.admitted(50, &[("x-user", "noisy")]), 10);
    let writes = gateway.shared.writes;
    assert_eq!(gateway.admitted(50, &[("x-user", "noisy")]), 0);
    assert_eq!(gateway.shared.writes, writes, "a refusal writes nothing");
    let others = (0..100).map(|n| format!("user-{n}"));
    let admitted: usize = others
        .map(|user| gateway.admitted(1, &[("x-user", &user)]))
        .sum();
    assert_eq!(admitted, 90);
}

#[test]
fn a_charge_is_taken_back_when_a_later_quota_turns_out_spent() {
    let mut gateway = Gateway::new(json!([
        per_user(json!({})),
        per_path(),
        { "name": "both", "key": ["user", "path"], "limit": 5, "period": "1m", "onContention": "deny" },
    ]));
    // Races are lost only at the last quota.
    struct LosesAtBoth<'a>(&'a mut Shared);
    impl lanekeeper_policy::Host for LosesAtBoth<'_> {
        fn get(&mut self, key: &str) -> (Option<Vec<u8>>, u32) {
            self.0.get(key)
        }
        fn set(&mut self, key: &str, value: &[u8], token: u32) -> bool {
            !key.contains("both") && self.0.set(key, value, token)
        }
        fn address(&mut self) -> Option<Vec<u8>> {
            self.0.address()
        }
    }
    let fields = request("POST", "sms-checker.local", "/sms", &[("x-user", "alice")]);
    let request = Request {
        headers: Headers::new(&fields),
        now: NOON,
    };
    let Gateway {
        policy,
        judge,
        shared,
        ..
    } = &mut gateway;
    let outcome = policy.decide(request, &mut || None).outcome;
    for _ in 0..30 {
        let host = &mut LosesAtBoth(shared);
        let ruling = judge.judge(policy, request, &outcome, START, host);
        assert_eq!(ruling.refusal.expect("a refusal").quota().name(), "both");
        assert!(ruling.judgements.iter().any(|one| one.contended));
    }
    assert!(gateway.shared.writes >= 60);
    assert_eq!(gateway.admitted(20, &[("x-user", "alice")]), 5);
    assert_eq!(gateway.admitted_at("/other", 20, &[("x-user", "alice")]), 5);
}

#[test]
fn lost_races_are_run_again_and_then_decided_by_on_contention() {
    for (on_contention, admitted) in [("deny", false), ("allow", true)] {
        let mut gateway = Gateway::new(json!([per_user(json!({ "onContention": on_contention }))]));
        gateway.shared.lost_races = 20;
        let ruling = gateway.send(&[("x-user", "alice")]);
        assert!(ruling.refusal.is_none());
        assert!(!ruling.judgements[0].contended);
        gateway.shared.lost_races = usize::MAX;
        let ruling = gateway.send(&[("x-user", "alice")]);
        assert_eq!(ruling.refusal.is_none(), admitted);
        assert!(ruling.judgements[0].contended);
        gateway.shared.lost_races = 0;
        assert_eq!(gateway.admitted(20, &[("x-user", "alice")]), 9);
    }
}

#[test]
fn a_quota_is_for_the_requests_that_match_names() {
    let mut gateway = Gateway::new(json!([{
        "name": "posts", "key": ["address"], "limit": 1, "period": "1m",
        "match": {
            "hosts": ["sms-checker.local", "*.example"],
            "pathPrefixes": ["/sms"],
            "methods": ["POST"],
        },
    }]));
    let mut judged = |method: &str, host: &str, path: &str| {
        !gateway
            .request(method, host, path, &[])
            .judgements
            .is_empty()
    };
    assert!(judged("POST", "sms-checker.local", "/sms"));
    assert!(judged("POST", "a.example:80", "/sms/1"));
    assert!(!judged("GET", "sms-checker.local", "/sms"));
    assert!(!judged("POST", "other", "/sms"));
    assert!(!judged("POST", "sms-checker.local", "/smsx"));
}

#[test]
fn exempt_requests_and_preflights_are_not_counted() {
    let mut gateway = Gateway::new(json!([per_path()]));
    gateway.policy = compile(json!({
        "rollouts": [rollout_with(json!({ "exempt": ["/health"] }))],
        "quotas": [per_path()],
    }));
    assert!(gateway.send_to("/health", &[]).judgements.is_empty());
    let preflight = [
        ("origin", "https://a.example"),
        ("access-control-request-method", "PUT"),
    ];
    for host in ["sms-checker.local", "of-no-rollout.example"] {
        let ruling = gateway.request("OPTIONS", host, "/sms", &preflight);
        assert!(ruling.judgements.is_empty(), "{host}");
    }
}

#[test]
fn identities_that_clients_choose_do_not_escape_their_address() {
    let mut gateway = Gateway::new(json!([per_user(json!({}))]));
    let mut admitted = 0;
    for n in 0..50 {
        let visitor = format!("visitor={n}");
        admitted += gateway.admitted(1, &[("cookie", &visitor)]);
    }
    assert_eq!(admitted, 10);
    let forged = [("x-forwarded-for", "203.0.113.9"), ("cookie", "visitor=x")];
    assert_eq!(gateway.admitted(5, &forged), 0);
    // Two values of the trusted header: nobody can say which one is the user.
    assert_eq!(gateway.admitted(5, &[("x-user", "a"), ("x-user", "b")]), 0);
    assert_eq!(gateway.from("192.0.2.2").admitted(20, &[]), 10);
    // A user who calls himself like an address is somebody else.
    assert_eq!(gateway.from("97.98.99.100").admitted(20, &[]), 10);
    assert_eq!(gateway.admitted(20, &[("x-user", "abcd")]), 10);
}

#[test]
fn who_has_an_ipv6_address_has_the_64_around_it() {
    let mut gateway = Gateway::new(json!([per_user(json!({}))]));
    let mut admitted = 0;
    for n in 0..30 {
        admitted += gateway.from(&format!("[2001:db8::{n:x}]")).admitted(1, &[]);
    }
    assert_eq!(admitted, 10);
    assert_eq!(gateway.from("[2001:db8:0:1::1]").admitted(20, &[]), 10);
    assert_eq!(gateway.from("192.0.2.9").admitted(20, &[]), 10);
    assert_eq!(gateway.from("[::ffff:192.0.2.9]").admitted(20, &[]), 0);
}

#[test]
fn anonymous_users_may_be_skipped() {
    let mut gateway = Gateway::new(json!([per_user(json!({ "onAnonymous": "skip" }))]));
    assert_eq!(gateway.admitted(50, &[("cookie", "visitor=1")]), 50);
    assert_eq!(gateway.admitted(50, &[("x-user", "alice")]), 10);
}

#[test]
fn a_trusted_identity_counts_wherever_it_stands_in_the_list() {
    let mut gateway = Gateway::new(json!([per_user(json!({}))]));
    gateway.policy = compile(json!({
        "rollouts": [rollout_with(json!({
            "identity": [{ "cookie": "visitor" }, { "header": "x-user", "trusted": true }],
        }))],
        "quotas": [per_user(json!({}))],
    }));
    let mut admitted = 0;
    for n in 0..20 {
        let visitor = format!("visitor={n}");
        admitted += gateway.admitted(1, &[("cookie", &visitor), ("x-user", "alice")]);
    }
    assert_eq!(admitted, 10);
}

#[test]
fn a_header_may_be_the_key() {
    let mut gateway = Gateway::new(json!([{
        "name": "per-key", "key": ["header:x-api-key"], "limit": 2, "period": "1m",
    }]));
    assert_eq!(gateway.admitted(5, &[("x-api-key", "a")]), 2);
    assert_eq!(gateway.admitted(5, &[("x-api-key", "b")]), 2);
    // Of two values, nobody can say which one the next reader takes.
    let mut admitted = 0;
    for n in 0..5 {
        let made_up = n.to_string();
        admitted += gateway.admitted(1, &[("x-api-key", "a"), ("x-api-key", &made_up)]);
    }
    assert_eq!(admitted, 2);
    assert_eq!(gateway.admitted(5, &[]), 0, "no value is one key, too");
}

#[test]
fn observing_refuses_nobody_and_counts_what_it_would_have_refused() {
    let mut gateway = Gateway::new(json!([
        per_user(json!({ "enforcement": "observe" })),
        { "name": "off", "key": ["user"], "limit": 1, "period": "1m", "enforcement": "off" },
    ]));
    let mut counts = BTreeMap::new();
    for _ in 0..25 {
        let ruling = gateway.send(&[("x-user", "alice")]);
        assert!(ruling.refusal.is_none());
        for judgement in ruling.judgements {
            let count = judgement.count.map_or("none", Count::name);
            *counts.entry((judgement.quota, count)).or_insert(0) += 1;
        }
    }
    let expected = [((0, "admitted"), 10), ((0, "observed"), 15)];
    assert_eq!(counts, BTreeMap::from(expected));
}

#[test]
fn of_several_refusals_the_longest_is_told() {
    let mut gateway = Gateway::new(json!([
        per_user(json!({})),
        { "name": "hourly", "key": ["user"], "limit": 10, "period": "1h" },
    ]));
    gateway.admitted(10, &[("x-user", "alice")]);
    let ruling = gateway.send(&[("x-user", "alice")]);
    let refusal = ruling.refusal.expect("a refusal");
    assert_eq!(
        (refusal.quota().name(), refusal.retry_after()),
        ("hourly", 3600)
    );
}

#[test]
fn a_refusal_tells_how_long_to_wait_and_why() {
    let mut gateway = Gateway::new(json!([per_user(json!({}))]));
    gateway.admitted(10, &[("x-user", "alice")]);
    gateway.now += 48 * SECOND + 1;
    let ruling = gateway.send(&[("x-user", "alice")]);
    let refusal = ruling.refusal.expect("a refusal");
    let headers: Vec<String> = refusal
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    assert_eq!(
        headers,
        [
            "cache-control: no-store",
            "retry-after: 12",
            r#"ratelimit: "per-user";r=0;t=12"#,
            r#"ratelimit-policy: "per-user";q=10;w=60"#,
        ]
    );
    let body: Value = serde_json::from_str(&refusal.body()).expect("JSON");
    assert_eq!(body["status"], 429);
    assert_eq!(body["violated-policies"], json!(["per-user"]));
    assert_eq!(
        body["detail"],
        "Quota per-user admits 10 requests in 60 s; try again in 12 s."
    );
    gateway.now += 11 * SECOND;
    assert_eq!(gateway.admitted(1, &[("x-user", "alice")]), 0);
    gateway.now += SECOND;
    assert_eq!(gateway.admitted(1, &[("x-user", "alice")]), 1);
}

/// A gateway whose quota is spent, and whose refusals pages of one origin may read.
fn spent(allow_origin: &str) -> Gateway {
    let mut gateway = Gateway::new(json!([]));
    let quota = json!({ "name": "all", "key": ["address"], "limit": 1, "period": "1m" });
    let cors = json!({ "allowOrigins": [allow_origin], "allowCredentials": true });
    gateway.policy = compile(json!({
        "rollouts": [rollout_with(json!({ "cors": cors }))],
        "quotas": [quota],
    }));
    gateway.send(&[]);
    gateway
}

/// What a refusal says to the page of an origin.
fn allowed(gateway: &mut Gateway, origin: &str) -> Vec<String> {
    let refusal = gateway.send(&[("origin", origin)]).refusal;
    let headers = refusal.expect("a refusal").headers().into_iter();
    let cors = headers.filter(|(name, _)| name.starts_with("access-control-"));
    cors.map(|(name, value)| format!("{name}: {value}"))
        .collect()
}

/// What it says to pages that may read it.
fn readable_by(origin: &str) -> [String; 3] {
    [
        format!("access-control-allow-origin: {origin}"),
        "access-control-expose-headers: retry-after, ratelimit, ratelimit-policy".to_owned(),
        "access-control-allow-credentials: true".to_owned(),
    ]
}

#[test]
fn pages_that_the_rollout_names_may_read_a_refusal() {
    let mut gateway = spent("https://shop.example");
    let ours = "https://shop.example";
    assert_eq!(allowed(&mut gateway, ours), readable_by(ours));
    for origin in [
        "https://other.example",
        "null",
        "*",
        "https://SHOP.example",
        "https://shop.example:8443",
    ] {
        assert!(allowed(&mut gateway, origin).is_empty(), "{origin}");
    }
    for origin in [
        "https://shop.example/",
        "shop.example",
        "*",
        "*:*",
        "https://*",
        "https://a:b",
        "https://a:0",
        "https://a:8*",
        "https://a:*/",
        "https://a:*:*",
    ] {
        let cors = json!({ "allowOrigins": [origin] });
        let faults = faults(json!({ "rollouts": [rollout_with(json!({ "cors": cors }))] }));
        assert!(
            faults
                .concat()
                .starts_with("rollouts[0].cors.allowOrigins[0]: "),
            "{origin}"
        );
    }
}

#[test]
fn of_any_port_means_that_host_and_scheme_and_nothing_but_a_port() {
    let mut gateway = spent("http://shop.example:*");
    for origin in [
        "http://shop.example",
        "http://shop.example:1",
        "http://shop.example:8080",
        "http://shop.example:65535",
    ] {
        assert_eq!(allowed(&mut gateway, origin), readable_by(origin));
    }
    for origin in [
        "https://shop.example",
        "https://shop.example:8080",
        "http://shop.example.evil",
        "http://shop.example.evil:80",
        "http://shop.example8080",
        "http://shop.example:",
        "http://shop.example:80x",
        "http://shop.example:x80",
        "http://shop.example:+80",
        "http://shop.example:-80",
        "http://shop.example:80:90",
        "http://shop.example::80",
        "http://shop.example:808080",
        "http://shop.example:*",
        "http://shop.example:80/",
        "http://shop.example/",
        "http://shop.example:80@evil.example",
        "http://shop.example@evil.example",
        "http://evil.example@shop.example",
        "http://evil.shop.example",
        "HTTP://shop.example",
        "http://SHOP.example:80",
        "http://shop.example:80, http://evil.example",
        "http://shop.example:٨٠",
        " http://shop.example",
        "null",
        "",
    ] {
        assert!(allowed(&mut gateway, origin).is_empty(), "{origin}");
    }
    let twice = [
        ("origin", "http://shop.example"),
        ("origin", "http://shop.example:1"),
    ];
    let refusal = gateway.send(&twice).refusal.expect("a refusal");
    let mut names = refusal.headers().into_iter().map(|(name, _)| name);
    assert!(!names.any(|name| name.starts_with("access-control-")));
}

#[test]
fn a_push_keeps_what_was_counted_unless_it_is_counted_otherwise() {
    let mut gateway = Gateway::new(json!([per_user(json!({}))]));
    assert_eq!(gateway.admitted(20, &[("x-user", "alice")]), 10);
    gateway.push(json!([per_path(), per_user(json!({}))]));
    assert_eq!(gateway.admitted(20, &[("x-user", "alice")]), 0);
    gateway.push(json!([per_user(json!({ "limit": 12 }))]));
    assert_eq!(gateway.admitted(20, &[("x-user", "alice")]), 2);
    gateway.push(json!([per_user(json!({ "limit": 128 }))]));
    assert_eq!(gateway.admitted(200, &[("x-user", "alice")]), 116);
    gateway.push(json!([per_user(
        json!({ "algorithm": "bucket", "burst": 4 })
    )]));
    assert_eq!(gateway.admitted(20, &[("x-user", "alice")]), 4);
}

#[test]
fn shared_data_that_is_not_ours_is_forgotten() {
    for junk in [
        &b"\x02"[..],
        b"\x01",
        b"\x01\x01\0\0\0\0",
        &[0xff; 100],
        &[1; 5000],
    ] {
        let mut gateway = Gateway::new(json!([per_user(json!({ "capacity": 10 }))]));
        gateway.admitted(10, &[("x-user", "alice")]);
        for (value, _) in gateway.shared.values.values_mut() {
            *value = junk.to_vec();
        }
        gateway.judge = judge();
        let ruling = gateway.send(&[("x-user", "alice")]);
        assert!(
            ruling.refusal.is_none() && ruling.judgements[0].reset,
            "{junk:?}"
        );
        assert_eq!(gateway.admitted(20, &[("x-user", "alice")]), 9, "{junk:?}");
    }
}

#[test]
fn refusals_are_believed_for_a_second_and_no_longer() {
    let mut gateway = Gateway::new(json!([per_user(json!({}))]));
    gateway.admitted(11, &[("x-user", "alice")]);
    let reads = gateway.shared.reads;
    assert_eq!(gateway.admitted(100, &[("x-user", "alice")]), 0);
    assert_eq!(gateway.shared.reads, reads, "no look at the shared state");
    // Another worker takes its charge back.
    gateway.shared.values.clear();
    gateway.now += SECOND;
    assert_eq!(gateway.admitted(1, &[("x-user", "alice")]), 1);
}

#[test]
fn a_refused_user_stays_refused_in_a_flood_of_200_000_identities() {
    for changes in [
        json!({}),
        json!({ "limit": 1 }),
        json!({ "algorithm": "bucket", "burst": 10 }),
    ] {
        let limit = if changes["limit"] == 1 { 1 } else { 10 };
        // Node takes its time.
        let flood = if cfg!(target_arch = "wasm32") {
            20_000
        } else {
            200_000
        };
        let mut gateway = Gateway::new(json!([per_user(changes.clone())]));
        assert_eq!(gateway.admitted(20, &[("x-user", "alice")]), limit);
        for n in 0..flood {
            let user = format!("flood-{n}");
            gateway.from(&format!("198.51.{}.{}", n % 7, n % 250));
            gateway.admitted(1, &[("x-user", &user)]);
            if n % 10_000 == 0 {
                gateway.judge = judge();
                assert_eq!(gateway.admitted(1, &[("x-user", "alice")]), 0);
                let newcomer = format!("newcomer-{n}");
                gateway.from("203.0.113.5");
                let admitted = gateway.admitted(20, &[("x-user", &newcomer)]);
                assert_eq!(admitted, limit, "after {n} with {changes}");
            }
        }
    }
}

#[test]
fn states_take_no_more_memory_than_allowed() {
    for changes in [
        json!({ "maxMemory": "64Ki" }),
        json!({ "maxMemory": "64Ki", "limit": 128 }),
        json!({ "maxMemory": "64Ki", "algorithm": "bucket", "burst": 1 }),
        json!({ "maxMemory": "64Ki", "limit": 128, "capacity": 40 }),
        json!({ "maxMemory": "64Ki", "limit": 3, "capacity": 1200 }),
    ] {
        let mut gateway = Gateway::new(json!([per_user(changes.clone())]));
        for n in 0..20_000 {
            gateway.from(&format!("198.{}.{}.1", n / 250 % 250, n % 250));
            gateway.now += 1000;
            gateway.admitted(3, &[("x-user", &format!("flood-{n}"))]);
        }
        let bytes = gateway.bytes();
        assert!(
            (20_000..=64 << 10).contains(&bytes),
            "{bytes} with {changes}"
        );
    }
}

/// A table without room: `settled-0` to `settled-31` have made nine requests each.
fn full(on_overflow: &str) -> Gateway {
    let quota = per_user(json!({ "capacity": 32, "onOverflow": on_overflow }));
    let mut gateway = Gateway::new(json!([quota]));
    for n in 0..32 {
        let user = format!("settled-{n}");
        for _ in 0..9 {
            gateway.now += 1_000_000;
            assert_eq!(gateway.admitted(1, &[("x-user", &user)]), 1);
        }
    }
    // The room that is left goes to others.
    gateway.from("198.18.0.1");
    let mut n = 0;
    while !gateway.send(&[("x-user", &format!("last-{n}"))]).judgements[0].overflow {
        n += 1;
    }
    gateway.from("192.0.2.1");
    gateway
}

#[test]
fn newcomers_without_room_share_one_limit_for_each_address_block() {
    for (on_overflow, expected) in [("shared", 10), ("allow", 400), ("deny", 0)] {
        let mut gateway = full(on_overflow);
        let bytes = gateway.bytes();
        for block in ["198.51.100", "203.0.113"] {
            let mut admitted = 0;
            for n in 0..400 {
                let user = format!("newcomer-{block}-{n}");
                gateway.from(&format!("{block}.{}", n % 200));
                let ruling = gateway.send(&[("x-user", &user)]);
                assert!(ruling.judgements[0].overflow);
                admitted += usize::from(ruling.refusal.is_none());
            }
            assert_eq!(admitted, expected, "{on_overflow} {block}");
        }
        assert!(gateway.bytes() < bytes + 500, "{}", gateway.bytes());
        // Those who were there keep what is theirs.
        for n in 0..32 {
            let user = format!("settled-{n}");
            assert_eq!(
                gateway.admitted(5, &[("x-user", &user)]),
                1,
                "{on_overflow} {user}"
            );
        }
    }
}

#[test]
fn a_site_with_many_ipv6_networks_is_one_block() {
    let mut gateway = full("shared");
    let mut admitted = 0;
    for n in 0..500 {
        gateway.from(&format!("[2001:db8:1:{n:x}::1]"));
        admitted += gateway.admitted(1, &[("x-user", &format!("newcomer-{n}"))]);
    }
    assert_eq!(admitted, 10);
    assert_eq!(
        gateway
            .from("[2001:db8:2::1]")
            .admitted(1, &[("x-user", "other-site")]),
        1
    );
}

#[test]
fn the_refusal_of_one_block_says_nothing_of_another() {
    let mut gateway = full("shared");
    let spent = [("x-user", "spent")];
    assert_eq!(gateway.from("198.51.100.1").admitted(20, &spent), 10);
    assert_eq!(gateway.from("203.0.113.1").admitted(20, &spent), 10);
}

#[test]
fn who_was_admitted_without_room_is_remembered_when_there_is_room_again() {
    let mut gateway = full("shared");
    let newcomer = [("x-user", "newcomer")];
    gateway.now += 50 * SECOND;
    assert_eq!(gateway.admitted(20, &newcomer), 10);
    gateway.now += 15 * SECOND;
    let ruling = gateway.send(&newcomer);
    assert!(ruling.refusal.is_some() && !ruling.judgements[0].overflow);
    // Of another block, nothing was admitted.
    gateway.from("203.0.113.1");
    assert_eq!(gateway.admitted(20, &[("x-user", "somebody-else")]), 10);
    gateway.from("192.0.2.1").now += 45 * SECOND;
    assert_eq!(gateway.admitted(20, &newcomer), 10);
}

#[test]
fn a_newcomer_denied_for_want_of_room_learns_when_there_is_some() {
    let mut gateway = full("deny");
    gateway.now += 20 * SECOND;
    let ruling = gateway.send(&[("x-user", "newcomer")]);
    let wait = ruling.refusal.expect("a refusal").retry_after();
    assert_eq!(wait, 40);
    gateway.now += 39 * SECOND;
    assert_eq!(gateway.admitted(1, &[("x-user", "newcomer")]), 0);
    gateway.now += SECOND;
    assert_eq!(gateway.admitted(1, &[("x-user", "newcomer")]), 1);
}

#[test]
fn two_configurations_in_force_at_once_do_not_forget_each_others_states() {
    let quotas = [
        json!({ "capacity": 1000 }),
        json!({ "capacity": 2000 }),
        json!({ "limit": 9 }),
    ];
    let mut gateway = Gateway::new(json!([]));
    let mut admitted = 0;
    for n in 0..90 {
        gateway.push(json!([per_user(quotas[n % 3].clone())]));
        admitted += gateway.admitted(1, &[("x-user", "alice")]);
    }
    // Two tables of another cut, and one that only has another limit than the first would.
    assert!(admitted <= 10 + 10 + 9, "{admitted}");
}

/// Another worker, its request and its clock.
type Rival<'a> = (&'a mut Judge, Vec<(String, Vec<u8>)>, u64);

/// Shared data between two workers: before one stores, the other judges.
struct Race<'a> {
    shared: &'a mut Shared,
    policy: &'a Policy,
    rival: Option<Rival<'a>>,
    rival_admitted: bool,
}

impl lanekeeper_policy::Host for Race<'_> {
    fn get(&mut self, key: &str) -> (Option<Vec<u8>>, u32) {
        self.shared.get(key)
    }

    fn set(&mut self, key: &str, value: &[u8], token: u32) -> bool {
        if let Some((judge, fields, now)) = self.rival.take() {
            let request = Request {
                headers: Headers::new(&fields),
                now: now / SECOND,
            };
            let outcome = self.policy.decide(request, &mut || None).outcome;
            let ruling = judge.judge(self.policy, request, &outcome, now, self.shared);
            self.rival_admitted = ruling.refusal.is_none();
        }
        self.shared.set(key, value, token)
    }

    fn address(&mut self) -> Option<Vec<u8>> {
        self.shared.address()
    }
}

#[test]
fn of_two_workers_that_charge_a_key_in_different_places_one_takes_its_charge_back() {
    let mut gateway = Gateway::new(json!([per_user(json!({ "capacity": 1, "limit": 3 }))]));
    assert_eq!(gateway.admitted(1, &[("x-user", "filler")]), 1);
    gateway.now += SECOND;
    assert_eq!(
        gateway.admitted(2, &[("x-user", "newcomer")]),
        2,
        "in the block"
    );
    // For one worker there is no room yet, for the other there is.
    let (now, later) = (START + MINUTE - 128, START + MINUTE);
    let fields = get(&[("x-user", "newcomer")]);
    let request = Request {
        headers: Headers::new(&fields),
        now: NOON,
    };
    let Gateway {
        policy,
        judge: one,
        shared,
        ..
    } = &mut gateway;
    let outcome = policy.decide(request, &mut || None).outcome;
    let mut other = judge();
    let mut race = Race {
        shared,
        policy,
        rival: Some((&mut other, fields.clone(), later)),
        rival_admitted: false,
    };
    let ruling = one.judge(policy, request, &outcome, now, &mut race);
    assert!(race.rival_admitted);
    assert!(ruling.refusal.is_some());
}

#[test]
fn room_that_a_known_user_gives_back_is_no_refund_for_a_newcomer() {
    let mut gateway = Gateway::new(json!([per_user(json!({ "capacity": 2 }))]));
    let send = |gateway: &mut Gateway, user: &str, count: usize| {
        let mut admitted = 0;
        for _ in 0..count {
            gateway.now += 1000;
            admitted += gateway.admitted(1, &[("x-user", user)]);
        }
        admitted
    };
    for user in ["alice", "bob"] {
        assert_eq!(send(&mut gateway, user, 9), 9);
    }
    gateway.now += 30 * SECOND;
    for user in ["alice", "bob"] {
        assert_eq!(send(&mut gateway, user, 1), 1);
    }
    gateway.now += 20 * SECOND;
    assert_eq!(send(&mut gateway, "newcomer", 20), 10, "in the block");
    gateway.now += 11 * SECOND;
    // Nine of her ten have been forgotten: there is room again.
    assert_eq!(send(&mut gateway, "alice", 1), 1);
    assert_eq!(send(&mut gateway, "newcomer", 1), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(target_arch = "wasm32") { 16 } else { 128 }, ..ProptestConfig::default() })]

    /// However many keys, however little room there is for them, and whoever is faster.
    #[test]
    fn nobody_is_ever_admitted_more_often_than_the_limit(
        capacity in prop_oneof![1u32..6, 1u32..40],
        users in prop_oneof![Just(5u32), Just(60)],
        longest in prop_oneof![Just(3 * SECOND), Just(25 * SECOND)],
        requests in prop::collection::vec((0u32..60, 0u8..4, 0.0..1.0, any::<bool>()), 1..400),
    ) {
        let quota = per_user(json!({ "capacity": capacity, "limit": 3 }));
        let mut gateway = Gateway::new(json!([quota]));
        let mut other_worker = judge();
        let mut admitted: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (user, block, gap, rivalled) in requests {
            gateway.now += (gap * longest as f64) as u64 / 128 * 128;
            // A user has one address.
            gateway.from(&format!("198.51.{block}.1"));
            let name = format!("user-{}-{block}", user % users);
            let fields = get(&[("x-user", &name)]);
            let Gateway { policy, judge, shared, now } = &mut gateway;
            let (policy, now) = (&*policy, *now);
            let request = Request { headers: Headers::new(&fields), now: now / SECOND };
            let outcome = policy.decide(request, &mut || None).outcome;
            let rival = rivalled.then_some((&mut other_worker, fields.clone(), now + 128));
            let mut race = Race { shared, policy, rival, rival_admitted: false };
            let ruling = judge.judge(policy, request, &outcome, now, &mut race);
            let times = admitted.entry(name.clone()).or_default();
            let both = usize::from(ruling.refusal.is_none()) + usize::from(race.rival_admitted);
            times.extend(std::iter::repeat_n(now, both));
            let recent = times.iter().filter(|t| **t + MINUTE > now);
            prop_assert!(recent.count() <= 3, "{}", name);
        }
    }

    #[test]
    fn an_origin_of_any_port_is_allowed_and_not_with_one_more_character_that_is_no_digit(
        origin in "https://shop[.]example(:[0-9]{1,5})?",
        more in "[^0-9]",
        place in any::<prop::sample::Index>(),
    ) {
        let mut gateway = spent("https://shop.example:*");
        prop_assert_eq!(allowed(&mut gateway, &origin), readable_by(&origin));
        let mut other = origin.clone();
        other.insert_str(place.index(origin.len() + 1), &more);
        prop_assert!(allowed(&mut gateway, &other).is_empty(), "{}", other);
        let upper = origin.to_ascii_uppercase();
        prop_assert!(allowed(&mut gateway, &upper).is_empty(), "{}", upper);
    }

    #[test]
    fn no_request_panics(
        headers in prop::collection::vec(("[a-z:-]{0,12}", prop::collection::vec(any::<u8>(), 0..64)), 0..8),
        address in prop::collection::vec(any::<u8>(), 0..40),
        now in prop_oneof![any::<u64>(), Just(u64::MAX), Just(0)],
    ) {
        let mut gateway = Gateway::new(json!([
            per_user(json!({})), per_path(),
            { "name": "b", "key": ["address", "header:x"], "limit": 5, "period": "1d", "algorithm": "bucket", "burst": 5 },
        ]));
        let request = Request { headers: Headers::new(&headers), now: now / SECOND };
        let outcome = gateway.policy.decide(request, &mut || None).outcome;
        gateway.shared.address = String::from_utf8_lossy(&address).into_owned();
        for _ in 0..3 {
            gateway.judge.judge(&gateway.policy, request, &outcome, now, &mut gateway.shared);
        }
    }
}
