//! Set-Cookie comes with the first response and with renewals, and never in between.

use std::time::Duration;

use harness::http::Request;
use harness::wasm_host::World;
use promises::{Gateway, cookies, plugin, policy, request};
use serde_json::json;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn envoy_sets_cookies_with_the_first_response_only() {
    let gateway = Gateway::start(&policy(json!({})));
    let (first, echo) = gateway.get(&[]);
    let set = first.headers.all("set-cookie");
    assert_eq!(set.len(), 2, "{set:?}");
    let attributes = "Path=/; Max-Age=2592000; SameSite=Lax";
    let visitor = String::from_utf8_lossy(set[0]);
    let (id, rest) = visitor.split_once("; ").expect("attributes");
    assert_eq!(rest, format!("{attributes}; HttpOnly"));
    let id = id.strip_prefix("visitor=").expect("the visitor cookie");
    assert!(
        id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "{id}"
    );
    let version = String::from_utf8_lossy(set[1]);
    assert!(
        version.starts_with(&format!("app-version={}.0.", echo.upstream)),
        "{version}"
    );
    assert!(version.ends_with(attributes), "{version}");

    let jar = cookies(&first);
    for _ in 0..3 {
        let (response, again) = gateway.get(&[("cookie", &jar)]);
        assert!(response.headers.get("set-cookie").is_none());
        assert_eq!(again.upstream, echo.upstream);
    }
}

#[test]
fn visitor_ids_are_never_the_same() {
    let gateway = Gateway::start(&policy(json!({})));
    let ids: std::collections::HashSet<String> =
        (0..100).map(|_| cookies(&gateway.get(&[]).0)).collect();
    assert_eq!(ids.len(), 100);
}

#[test]
fn cookies_are_secure_where_the_client_speaks_https() {
    let world = World::new();
    let plugin = plugin(&world, &policy(json!({})));
    for (scheme, secure) in [("https", true), ("http", false)] {
        let stream = plugin
            .request(request(&[("x-forwarded-proto", scheme)]))
            .expect("no trap");
        let response = stream.respond([(":status", "200")]).expect("no trap");
        for cookie in response.all("set-cookie") {
            let cookie = String::from_utf8_lossy(cookie).into_owned();
            assert_eq!(cookie.contains("; Secure"), secure, "{cookie}");
        }
    }
}

/// A year of daily visits by one browser that obeys Max-Age.
#[test]
fn an_active_visitor_keeps_version_and_id_for_a_year_and_is_told_so_every_16_days() {
    let world = World::new();
    let plugin = plugin(&world, &policy(json!({ "cookie": { "maxAge": "30d" } })));
    let mut jar = String::new();
    let mut versions = std::collections::HashSet::new();
    let mut renewed = Vec::new();
    for day in 0..365 {
        let stream = plugin
            .request(request(&[("cookie", &jar)]))
            .expect("no trap");
        versions.insert(
            stream
                .request_headers()
                .get("x-app-version")
                .map(str::to_owned),
        );
        let response = stream.respond([(":status", "200")]).expect("no trap");
        let set = response.all("set-cookie");
        if !set.is_empty() {
            assert_eq!(set.len(), 2, "version and id are renewed together");
            let pairs = set.iter().map(|cookie| {
                let cookie = String::from_utf8_lossy(cookie);
                cookie.split(';').next().unwrap_or_default().to_owned()
            });
            let mut pairs: Vec<String> = pairs.collect();
            pairs.sort();
            if day > 0 {
                let id = |jar: &str| {
                    jar.split("; ")
                        .find(|pair| pair.starts_with("visitor="))
                        .map(str::to_owned)
                };
                assert_eq!(id(&pairs.join("; ")), id(&jar));
            }
            jar = pairs.join("; ");
            renewed.push(day);
        }
        world.advance(DAY);
    }
    assert_eq!(versions.len(), 1, "{versions:?}");
    // The world begins at midnight: older than 15 days is true on the 16th.
    assert_eq!(renewed, (0..365).step_by(16).collect::<Vec<_>>());
}

#[test]
fn a_bare_version_cookie_of_another_tool_counts_and_is_renewed() {
    let gateway = Gateway::start(&policy(json!({})));
    let (response, echo) = gateway.get(&[("cookie", "app-version=canary"), ("x-user", "anybody")]);
    assert_eq!(echo.upstream, "canary");
    assert!(cookies(&response).starts_with("app-version=canary.0."));
}

#[test]
fn without_entropy_requests_are_answered_and_the_failure_is_counted() {
    let world = World::new();
    let plugin = plugin(&world, &policy(json!({})));
    world.set_entropy_failure(true);
    let stream = plugin.request(request(&[])).expect("no trap");
    assert_eq!(
        stream.request_headers().get("x-app-version"),
        Some("stable")
    );
    let response = stream.respond([(":status", "200")]).expect("no trap");
    assert!(response.all("set-cookie").is_empty());
    assert_eq!(
        world.metric("kind=.=entropy;.;lanekeeper_errors_total"),
        Some(1)
    );
}

#[test]
fn shared_caches_do_not_keep_what_is_one_users_answer() {
    let gateway = Gateway::start(&policy(json!({})));
    gateway.stable.set_response_headers([
        ("Cache-Control", "public, max-age=60"),
        ("Cache-Control", "s-maxage=600"),
        ("CDN-Cache-Control", "max-age=600"),
        ("Surrogate-Control", "max-age=600"),
    ]);
    let user = promises::user_of("stable");
    let (response, _) = gateway.get(&[("x-user", &user)]);
    assert_eq!(
        response.headers.get("cache-control"),
        Some("max-age=60, private")
    );
    assert!(response.headers.get("cdn-cache-control").is_none());
    assert!(response.headers.get("surrogate-control").is_none());
    // An exempt path is the same for everybody.
    let (response, _) = gateway.echo(&Request::get("/health"));
    assert_eq!(
        response.headers.get("cdn-cache-control"),
        Some("max-age=600")
    );
}
