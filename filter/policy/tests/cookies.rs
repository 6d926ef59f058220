//! What a client is told to keep: on the first response and on renewals, never in between.

mod support;

use lanekeeper_policy::Source;
use serde_json::json;
use support::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn set_cookies(changes: serde_json::Value, headers: &[(&str, &str)]) -> Vec<String> {
    set_cookies_at(changes, headers, NOON)
}

fn set_cookies_at(changes: serde_json::Value, headers: &[(&str, &str)], now: u64) -> Vec<String> {
    let policy = policy(changes);
    decide_at(&policy, &get(headers), now).response.set_cookies
}

#[test]
fn a_visitor_gets_both_cookies_with_the_first_response() {
    assert_eq!(
        set_cookies(json!({}), &[]),
        [
            format!("visitor={MINTED}; Path=/; Max-Age=2592000; SameSite=Lax; HttpOnly"),
            format!("app-version=stable.0.{TODAY}; Path=/; Max-Age=2592000; SameSite=Lax"),
        ]
    );
}

#[test]
fn and_none_with_the_second() {
    let cookies = format!("visitor={MINTED}; app-version=stable.0.{TODAY}");
    assert!(set_cookies(json!({}), &[("cookie", &cookies)]).is_empty());
}

#[test]
fn a_user_who_is_named_by_a_header_gets_the_version_cookie_alone() {
    let user = stable_user();
    assert_eq!(
        set_cookies(json!({}), &[("x-user", &user)]),
        [format!(
            "app-version=stable.0.{TODAY}; Path=/; Max-Age=2592000; SameSite=Lax"
        )]
    );
}

#[test]
fn attributes_follow_the_policy_and_the_scheme() {
    let changes = json!({
        "hosts": ["sms-checker.local"],
        "epoch": 7,
        "cookie": { "name": "lane", "maxAge": "14d", "domain": "sms-checker.local" },
    });
    let user = [("x-user", &*stable_user()), ("x-forwarded-proto", "https")];
    assert_eq!(
        set_cookies(changes.clone(), &user),
        [format!(
            "lane=stable.7.{TODAY}; Path=/; Max-Age=1209600; SameSite=Lax; \
             Domain=sms-checker.local; Secure"
        )]
    );
    let plain = [user[0], ("x-forwarded-proto", "http")];
    assert!(!set_cookies(changes, &plain)[0].contains("Secure"));
}

#[test]
fn a_cookie_is_renewed_when_older_than_half_its_max_age() {
    let cookie = |day: u64| format!("visitor=v; app-version=canary.0.{day}");
    let renewed_at = |now: u64| set_cookies_at(json!({}), &[("cookie", &cookie(TODAY))], now);
    let half = TODAY * DAY + 15 * DAY;
    assert!(renewed_at(half).is_empty());
    let day = TODAY + 15;
    assert_eq!(
        renewed_at(half + 1),
        [
            format!("app-version=canary.0.{day}; Path=/; Max-Age=2592000; SameSite=Lax"),
            // The id lives as long as the version it stands for.
            "visitor=v; Path=/; Max-Age=2592000; SameSite=Lax; HttpOnly".to_owned(),
        ]
    );
}

#[test]
fn an_active_user_never_expires() {
    let policy = policy(json!({ "cookie": { "maxAge": "2d" } }));
    let (mut cookie, mut kept_until) = (String::new(), 0);
    for hour in 0..24 * 30 {
        let now = NOON + hour * 3_600;
        if hour > 0 {
            assert!(now < kept_until, "expired after {hour} hours");
        }
        let request = get(&[("x-user", "alice"), ("cookie", &cookie)]);
        let decision = decide_at(&policy, &request, now);
        let source = assignment(&decision).source;
        assert_eq!(
            source,
            if hour == 0 {
                Source::Slot
            } else {
                Source::Cookie
            }
        );
        if let Some(set) = decision.response.set_cookies.first() {
            cookie = set.split(';').next().unwrap_or_default().to_owned();
            kept_until = now + 2 * DAY;
        }
    }
}

#[test]
fn renewal_keeps_the_version_although_the_slot_says_otherwise() {
    let headers = [
        ("x-user", &*stable_user()),
        ("cookie", "app-version=canary.0.1"),
    ];
    assert!(set_cookies(json!({}), &headers)[0].starts_with("app-version=canary.0.20454;"));
}

#[test]
fn a_bare_version_is_epoch_zero_and_is_renewed() {
    let headers = [
        ("x-user", &*stable_user()),
        ("cookie", "app-version=canary"),
    ];
    assert!(set_cookies(json!({}), &headers)[0].starts_with("app-version=canary.0.20454;"));
    // Under another epoch it does not count.
    assert!(
        set_cookies(json!({ "epoch": 1 }), &headers)[0].starts_with("app-version=stable.1.20454;")
    );
}

#[test]
fn a_day_in_the_future_is_renewed_unless_it_is_tomorrow() {
    let cookies = |day: u64| {
        let cookie = format!("app-version=canary.0.{day}");
        set_cookies(json!({}), &[("x-user", "alice"), ("cookie", &cookie)]).len()
    };
    assert_eq!(
        [
            cookies(TODAY + 1),
            cookies(TODAY + 2),
            cookies(9_999_999_999)
        ],
        [0, 1, 1]
    );
}

#[test]
fn with_stickiness_identity_the_cookie_reports() {
    let changes = json!({ "stickiness": "identity" });
    let user = canary_user();
    let cookie = format!("app-version=canary.0.{TODAY}");
    let reported = [("x-user", &*user), ("cookie", &cookie)];
    assert!(set_cookies(changes.clone(), &reported).is_empty());
    let cookie = format!("app-version=stable.0.{TODAY}");
    let wrong = [("x-user", &*user), ("cookie", &cookie)];
    assert!(set_cookies(changes, &wrong)[0].starts_with("app-version=canary.0.20454;"));
}

#[test]
fn what_is_no_version_cookie_counts_as_none() {
    let user = stable_user();
    for value in [
        "nonsense",
        "canary.",
        "canary.0",
        "canary.0.",
        "canary.0.x",
        "canary.-1.1",
        "canary.+0.1",
        "canary.0.1.2",
        "canary.4294967296.1",
        "canary.0.99999999999",
        "Canary.0.20454",
        ".0.20454",
        "",
        "\"canary.0.20454",
    ] {
        let cookie = format!("app-version={value}");
        let headers = [("x-user", &*user), ("cookie", &*cookie)];
        let (version, source) = assigned(&policy(json!({})), &headers);
        assert_eq!((&*version, source), ("stable", Source::Slot), "{value:?}");
    }
}

#[test]
fn cookies_are_found_wherever_the_client_puts_them() {
    let policy = policy(json!({}));
    let user = stable_user();
    for cookie in [
        "app-version=canary.0.20454",
        "a=b; app-version=canary.0.20454",
        "a=b;app-version=canary.0.20454;c",
        " ; ;=; app-version = canary.0.20454 ;",
        "app-version=\"canary.0.20454\"",
        // One for the host and one for the domain: of equally old ones, the first that counts.
        "app-version=nonsense; app-version=canary.0.20454; app-version=stable.0.20454",
        "app-version=stable.0.20453; app-version=canary.0.20454; app-version=stable",
        "xapp-version=stable; App-Version=stable; app-version=canary.0.20454",
    ] {
        let headers = [("x-user", &*user), ("cookie", cookie)];
        assert_eq!(assigned(&policy, &headers).0, "canary", "{cookie}");
    }
    let two_headers = [
        ("x-user", &*user),
        ("cookie", "a=b"),
        ("cookie", "app-version=canary"),
    ];
    assert_eq!(assigned(&policy, &two_headers).0, "canary");
}

#[test]
fn an_old_cookie_of_another_scope_neither_wins_nor_causes_renewals() {
    let old = TODAY - 20;
    let cookies = format!("visitor=v; app-version=stable.0.{old}; app-version=canary.0.{TODAY}");
    assert_eq!(
        assigned(&policy(json!({})), &[("cookie", &cookies)]).0,
        "canary"
    );
    assert!(set_cookies(json!({}), &[("cookie", &cookies)]).is_empty());
}

#[test]
fn a_visitor_id_that_no_cookie_may_hold_is_not_written_back() {
    let renewed = |id: &str| {
        let cookie = format!("visitor={id}; app-version=canary.0.1");
        set_cookies(json!({}), &[("cookie", &cookie)]).len()
    };
    assert_eq!(renewed("plain"), 2);
    for id in ["a\"b", "a,b", "a\\b", "a b", "é"] {
        assert_eq!(renewed(id), 1, "{id}");
    }
}

#[test]
fn the_id_goes_into_the_last_untrusted_cookie_or_the_one_that_says_mint() {
    let name = |identity: serde_json::Value| {
        set_cookies(json!({ "identity": identity }), &[])
            .first()
            .map(|cookie| cookie.split('=').next().unwrap_or_default().to_owned())
    };
    assert_eq!(
        name(json!([{ "cookie": "a" }, { "cookie": "b" }])),
        Some("b".into())
    );
    let first = json!([{ "cookie": "a", "mint": true }, { "cookie": "b" }]);
    assert_eq!(name(first), Some("a".into()));
    let session = json!([{ "cookie": "a" }, { "cookie": "session", "trusted": true }]);
    assert_eq!(name(session), Some("a".into()));
    // Nothing names the visitor, nothing is minted: the baseline, and nothing to remember.
    for none in [
        json!([{ "cookie": "a", "mint": false }]),
        json!([{ "header": "x-user" }]),
    ] {
        assert_eq!(name(none), None);
    }
}

#[test]
fn default_identity_and_cookie_are_visitor_and_app_version() {
    let policy = compile(json!({ "rollouts": [{
        "name": "shop",
        "hosts": ["sms-checker.local"],
        "versions": [{ "name": "only", "weight": 100, "baseline": true }],
    }]}));
    let cookies = decide(&policy, &get(&[])).response.set_cookies;
    let names: Vec<_> = cookies
        .iter()
        .filter_map(|cookie| cookie.split('=').next())
        .collect();
    assert_eq!(names, ["visitor", "app-version"]);
}
