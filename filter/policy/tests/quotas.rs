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
    let other_host = gateway.request("GET", "other.example", "/a", &[]);
    assert!(other_host.refusal.is_none());
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
    assert_eq!(gateway.admitted(20, &[("x-user", "192.0.2.2")]), 10);
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
    assert_eq!(
        gateway.admitted(5, &[("x-api-key", "a"), ("x-api-key", "b")]),
        2
    );
    assert_eq!(gateway.admitted(5, &[]), 2);
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
    let headers = refusal
        .headers()
        .map(|(name, value)| format!("{name}: {value}"));
    assert_eq!(
        headers,
        [
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
    let ruling = gateway.send(&[("x-user", "alice")]);
    assert!(
        ruling.judgements[0].reset,
        "another algorithm's state says nothing"
    );
    assert_eq!(gateway.admitted(20, &[("x-user", "alice")]), 3);
}

#[test]
fn shared_data_that_is_not_ours_is_forgotten() {
    for junk in [
        &b""[..],
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
fn a_refused_user_stays_refused_in_a_flood_of_200_000_identities() {
    let mut gateway = Gateway::new(json!([per_user(json!({}))]));
    assert_eq!(gateway.admitted(20, &[("x-user", "alice")]), 10);
    for n in 0..200_000 {
        let user = format!("flood-{n}");
        gateway.from(&format!("198.51.{}.{}", n % 7, n % 250));
        gateway.admitted(1, &[("x-user", &user)]);
        if n % 10_000 == 0 {
            gateway.judge = judge();
            assert_eq!(gateway.admitted(1, &[("x-user", "alice")]), 0);
            let newcomer = format!("newcomer-{n}");
            gateway.from("203.0.113.5");
            assert_eq!(
                gateway.admitted(20, &[("x-user", &newcomer)]),
                10,
                "after {n}"
            );
        }
    }
    assert!(gateway.bytes() <= 16 << 20, "{}", gateway.bytes());
}

#[test]
fn newcomers_without_room_share_one_limit_for_each_address_block() {
    for (on_overflow, expected) in [("shared", 10), ("allow", 400), ("deny", 0)] {
        let quota = per_user(json!({ "capacity": 32, "onOverflow": on_overflow }));
        let mut gateway = Gateway::new(json!([quota]));
        for n in 0..32 {
            let user = format!("settled-{n}");
            for _ in 0..9 {
                gateway.now += 1_000_000;
                assert_eq!(gateway.admitted(1, &[("x-user", &user)]), 1);
            }
        }
        let full = gateway.bytes();
        for block in ["198.51.100", "203.0.113"] {
            let mut admitted = 0;
            for n in 0..400 {
                let user = format!("newcomer-{block}-{n}");
                gateway.from(&format!("{block}.{}", n % 200));
                let ruling = gateway.send(&[("x-user", &user)]);
                assert!(n < 32 || ruling.judgements[0].overflow);
                admitted += usize::from(ruling.refusal.is_none());
            }
            // A few found the room that was left.
            assert!(
                (expected..expected + 12).contains(&admitted),
                "{block} {admitted}"
            );
        }
        assert!(gateway.bytes() < full + 2_000, "{}", gateway.bytes());
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

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(target_arch = "wasm32") { 16 } else { 128 }, ..ProptestConfig::default() })]

    /// However many keys, and however little room there is for them.
    #[test]
    fn nobody_is_ever_admitted_more_often_than_the_limit(
        capacity in 1u32..40,
        requests in prop::collection::vec((0u32..60, 0u8..4, 0u64..3 * SECOND), 1..600),
        lost in prop::collection::vec(0usize..600, 0..20),
    ) {
        let quota = per_user(json!({ "capacity": capacity, "limit": 3 }));
        let mut gateway = Gateway::new(json!([quota]));
        let mut admitted: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for (index, (user, block, gap)) in requests.into_iter().enumerate() {
            gateway.now += gap / 128 * 128;
            gateway.from(&format!("198.51.{block}.1"));
            gateway.shared.lost_races = usize::from(lost.contains(&index));
            // A user has one address.
            let name = format!("user-{user}-{block}");
            let now = gateway.now;
            let ruling = gateway.send(&[("x-user", &name)]);
            if ruling.refusal.is_none() {
                let times = admitted.entry(user * 4 + u32::from(block)).or_default();
                times.push(now);
                let recent = times.iter().filter(|t| **t + MINUTE > now);
                prop_assert!(recent.count() <= 3, "{}", name);
            }
        }
    }

    #[test]
    fn no_request_panics(
        headers in prop::collection::vec(("[a-z:-]{0,12}", prop::collection::vec(any::<u8>(), 0..64)), 0..8),
        address in prop::collection::vec(any::<u8>(), 0..40),
        now in any::<u64>(),
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
