//! Envoy, the upstream and the raw client, together.

use harness::envoy::{Envoy, Options};
use harness::http::{self, Client, Request};
use harness::process::Process;
use harness::upstream::{Echo, Upstream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// An HTTP listener named `edge` in front of one upstream.
fn bootstrap(upstream: &Upstream) -> String {
    format!(
        r#"
static_resources:
  listeners:
  - name: edge
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          max_request_headers_kb: 96
          common_http_protocol_options: {{ max_headers_count: 2000 }}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{ match: {{ prefix: / }}, route: {{ cluster: upstream }} }}]
          http_filters:
          - name: router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: upstream
    type: STATIC
    load_assignment:
      cluster_name: upstream
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }}
"#,
        upstream.port()
    )
}

#[test]
fn envoy_starts_serves_and_is_asked() {
    let upstream = Upstream::start("one").expect("an upstream");
    upstream.set_response_headers([("set-cookie", "a=1"), ("set-cookie", "b=2")]);
    let options = Options::new("serves", bootstrap(&upstream)).expect("an Envoy");
    let envoy = Envoy::start(options).expect("Envoy starts");
    let edge = envoy.address("edge").expect("the listener");

    let mut client = Client::connect(&edge).expect("a connection");
    let request = Request::post("/a?b=c", "body")
        .header("X-Two", "1")
        .header("x-TWO", b"\xff2");
    let response = client.send(&request).expect("an answer");
    assert_eq!(response.status, 200);
    assert_eq!(response.headers.all("set-cookie"), [b"a=1", b"b=2"]);
    let echo = Echo::of(&response).expect("an echo");
    assert_eq!(
        (echo.upstream.as_str(), echo.method.as_str()),
        ("one", "POST")
    );
    assert_eq!(
        (echo.path.as_str(), echo.body.as_slice()),
        ("/a?b=c", b"body".as_slice())
    );
    assert_eq!(echo.headers.all("x-two"), [b"1".as_slice(), b"\xff2"]);
    assert_eq!(upstream.received(), [echo]);

    let again = client
        .send(&Request::get("/again"))
        .expect("an answer on the same connection");
    assert_eq!(Echo::of(&again).expect("an echo").path, "/again");
    assert_eq!(
        envoy.stat("http.edge.downstream_rq_2xx").expect("stats"),
        Some(2)
    );
    assert_eq!(
        envoy.stat("http.edge.downstream_cx_total").expect("stats"),
        Some(1)
    );
    assert_eq!(envoy.stat("no.such.stat").expect("stats"), None);
    assert!(envoy.prometheus().expect("metrics").contains("# TYPE"));
    assert!(envoy.config_dump().expect("a dump")["configs"].is_array());
    assert!(
        envoy.logs().contains("all dependencies initialized"),
        "{}",
        envoy.logs()
    );
    assert!(envoy.port("nobody").is_err());
}

#[test]
fn the_client_sends_huge_headers_and_many_cookies() {
    let upstream = Upstream::start("big").expect("an upstream");
    let options = Options::new("big", bootstrap(&upstream)).expect("an Envoy");
    let envoy = Envoy::start(options).expect("Envoy starts");
    let edge = envoy.address("edge").expect("the listener");

    let request = Request::get("/").header("x-big", "b".repeat(50_000));
    let echo = Echo::of(&http::send(&edge, &request).expect("an answer")).expect("an echo");
    assert_eq!(echo.headers.get("x-big").map(str::len), Some(50_000));

    let cookies = (0..1000).fold(Request::get("/"), |r, i| {
        r.header("cookie", format!("c{i}={i}"))
    });
    let response = http::send(&edge, &cookies).expect("an answer");
    assert_eq!(response.status, 200, "{}", response.text());

    let refused = http::send(&edge, &Request::get("/").header("x-nul", b"a\0b"));
    assert_eq!(refused.expect("an answer").status, 400);
}

#[test]
fn a_bad_bootstrap_is_an_error_with_the_reason() {
    let options = Options::new("bad", "static_resources: { listners: [] }").expect("an Envoy");
    let error = format!("{:#}", Envoy::start(options).expect_err("a misspelt field"));
    assert!(
        error.contains("listners") && error.contains("before it was ready"),
        "{error}"
    );
}

#[test]
fn a_dropped_envoy_is_gone_and_so_are_its_files() {
    let upstream = Upstream::start("gone").expect("an upstream");
    let options = Options::new("gone", bootstrap(&upstream)).expect("an Envoy");
    let envoy = Envoy::start(options).expect("Envoy starts");
    let (log, admin) = (envoy.process().log_path(), envoy.admin_address().to_owned());
    assert!(log.exists());
    drop(envoy);
    assert!(!log.exists());
    assert!(Client::connect(&admin).is_err());
}

#[test]
fn a_process_dies_with_an_owner_that_was_killed() {
    if let Some(pid_file) = std::env::var_os("PID_FILE") {
        return own_a_process(pid_file.as_ref());
    }
    // The owner is a copy of this test program that runs only this test, as `own_a_process`.
    let dir = tempfile::tempdir().expect("a directory");
    let pid_file = dir.path().join("pid");
    let mut owner = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "a_process_dies_with_an_owner_that_was_killed"])
        .env("PID_FILE", &pid_file)
        .spawn()
        .expect("a second test program");
    let child = wait_for(|| {
        std::fs::read_to_string(&pid_file)
            .ok()
            .filter(|pid| !pid.is_empty())
    });
    assert!(alive(&child));
    owner.kill().expect("SIGKILL");
    owner.wait().expect("an end");
    wait_for(|| (!alive(&child)).then_some(()));
}

fn own_a_process(pid_file: &Path) {
    let dir = Process::scratch_dir("owned").expect("a directory");
    let process = Process::start("owned", dir, Command::new("sleep").arg("60")).expect("sleep");
    std::fs::write(pid_file, process.id().to_string()).expect("a file");
    thread::sleep(Duration::from_secs(60));
}

fn alive(pid: &str) -> bool {
    Command::new("kill")
        .args(["-0", pid])
        .output()
        .expect("kill")
        .status
        .success()
}

fn wait_for<T>(mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain");
        thread::sleep(Duration::from_millis(20));
    }
}
