//! Where the model comes from, when all goes well and when it does not.

mod store;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use service_kit::testing::{self, Process, client, command};
use tempfile::TempDir;
use text::sha256;

use store::{Answer, Store};

const PROGRAM: &str = env!("CARGO_BIN_EXE_model-service");
const STABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/sms-stable.json");

fn stable() -> Vec<u8> {
    fs::read(STABLE).expect("committed")
}

fn cache() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// The settings to fetch stable's artefact from `url`.
fn settings(url: &str, cache: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("MODEL_URL", url.to_owned()),
        ("MODEL_SHA256", sha256(&stable())),
        ("MODEL_CACHE", cache.display().to_string()),
        // For those that are to fail.
        ("MODEL_FETCH_TIMEOUT", "2s".to_owned()),
    ]
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    let borrow = |(name, value): &'a (&'static str, String)| (*name, value.as_str());
    settings.iter().map(borrow).collect()
}

fn start(settings: &[(&'static str, String)]) -> Process {
    Process::start(PROGRAM, &borrowed(settings)).expect("starts")
}

fn refusal(settings: &[(&'static str, String)]) -> String {
    testing::refusal(PROGRAM, &borrowed(settings))
}

/// The files in the cache.
fn kept(cache: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(cache) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    };
    entries.map(name).collect()
}

/// The cache has stable's artefact, whole, and nothing else.
fn check_kept(cache: &Path) {
    let name = format!("{}.json", sha256(&stable()));
    assert_eq!(kept(cache), [name.as_str()]);
    let file = cache.join(name);
    assert!(fs::read(&file).expect("a file") == stable(), "not whole");
    let mode = fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

async fn status(url: &str) -> reqwest::Result<StatusCode> {
    let client = client().expect("client");
    Ok(client.get(format!("{url}/health")).send().await?.status())
}

/// An address where nobody listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

#[tokio::test]
async fn an_artefact_is_fetched_once_and_outlives_its_source() {
    let cache = cache();
    let cache = cache.path().join("not/there/yet");
    let store = Store::with(stable());
    let settings = settings(&format!("{}/stable.json", store.url), &cache);
    for _ in 0..2 {
        let service = start(&settings);
        assert_eq!(status(&service.url).await.expect("answers"), StatusCode::OK);
        check_kept(&cache);
        assert_eq!(store.requests(), 1, "the second start asks nobody");
    }
    let mut without = settings;
    without[0].1 = format!("http://{}/stable.json", nowhere());
    start(&without);
}

#[test]
fn the_log_says_how_far_the_artefact_is() {
    let cache = cache();
    let store = Store::start(|n, _| match n {
        0 => Answer::Status(503),
        _ => Answer::Body(stable()),
    });
    let service = start(&settings(
        &format!("{}/m?key=secret", store.url),
        cache.path(),
    ));
    let log = service.stop().expect("ends");
    let said: Vec<_> = log
        .iter()
        .filter_map(|line| line["message"].as_str())
        .collect();
    assert_eq!(
        said,
        [
            "fetching the artefact",
            "not fetched",
            "fetching the artefact",
            "fetched the artefact",
            "kept in the cache",
            "model loaded",
            "listening",
            "stopping"
        ]
    );
    let all = format!("{log:?}");
    assert!(
        all.contains("the source answered 503") && all.contains(&sha256(&stable())),
        "{all}"
    );
    assert!(!all.contains("secret"), "{all}");
}

#[test]
fn redirects_are_followed_but_not_for_ever() {
    let cache = cache();
    let store = Store::start(|n, path| match path {
        "/in-circles" => Answer::Redirect("/in-circles".to_owned()),
        "/tls" => Answer::Redirect("https://127.0.0.1/".to_owned()),
        _ if n < 5 => Answer::Redirect(format!("/{n}")),
        _ => Answer::Body(stable()),
    });
    start(&settings(&store.url, cache.path()));
    assert_eq!(store.requests(), 6);
    check_kept(cache.path());

    let other = tempfile::tempdir().expect("a directory");
    let error = refusal(&settings(
        &format!("{}/in-circles", store.url),
        other.path(),
    ));
    assert!(
        error.contains("/in-circles") && error.contains("too many redirects"),
        "{error}"
    );
    assert_eq!(store.requests(), 6 + 6, "and no second attempt");
    let error = refusal(&settings(&format!("{}/tls", store.url), other.path()));
    assert!(
        error.contains("allowed are redirects to http://"),
        "{error}"
    );
    assert!(kept(other.path()).is_empty());
}

#[test]
fn another_artefact_than_the_expected_one_is_refused_and_not_kept() {
    let cache = cache();
    let mut other = stable();
    other[100] ^= 1;
    let (expected, got) = (sha256(&stable()), sha256(&other));
    let store = Store::with(other);
    let error = refusal(&settings(&store.url, cache.path()));
    assert!(
        error.contains(&expected) && error.contains(&got) && error.contains(&store.url),
        "{error}"
    );
    assert_eq!(kept(cache.path()), [""; 0]);
}

#[test]
fn half_an_answer_is_fetched_again_and_never_kept() {
    let cache = cache();
    let store = Store::start(|n, _| match n {
        0 => Answer::Half(stable()),
        _ => Answer::Body(stable()),
    });
    start(&settings(&store.url, cache.path()));
    assert_eq!(store.requests(), 2);
    check_kept(cache.path());

    let other = tempfile::tempdir().expect("a directory");
    let store = Store::start(|_, _| Answer::Half(stable()));
    let error = refusal(&settings(&store.url, other.path()));
    assert!(
        error.contains("not fetched within 2s") && error.contains(&store.url),
        "{error}"
    );
    assert!(store.requests() > 1);
    assert_eq!(kept(other.path()), [""; 0]);
}

#[test]
fn half_an_answer_of_a_length_that_was_not_told_is_taken_for_another_artefact() {
    let cache = cache();
    let store = Store::start(|_, _| Answer::HalfUntold(stable()));
    let error = refusal(&settings(&store.url, cache.path()));
    assert!(error.contains(&sha256(&stable())), "{error}");
    assert_eq!(store.requests(), 1);
    assert_eq!(kept(cache.path()), [""; 0]);
}

#[test]
fn a_damaged_file_in_the_cache_is_noticed_and_replaced() {
    let cache = cache();
    let store = Store::with(stable());
    let file = cache.path().join(format!("{}.json", sha256(&stable())));
    let whole = stable();
    for damaged in [&whole[..whole.len() / 2], b"", b"{}"] {
        fs::write(&file, damaged).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
        let before = store.requests();
        let log = start(&settings(&store.url, cache.path()))
            .stop()
            .expect("ends");
        assert_eq!(store.requests(), before + 1);
        assert!(
            log[0]["message"]
                .as_str()
                .expect("text")
                .starts_with("damaged"),
            "{:?}",
            log[0]
        );
        check_kept(cache.path());
    }
}

#[test]
fn what_a_killed_process_left_half_written_is_never_used() {
    let cache = cache();
    let whole = stable();
    let left = cache.path().join(".incomplete-x");
    fs::write(&left, &whole[..whole.len() / 2]).expect("written");
    let store = Store::with(whole);
    start(&settings(&store.url, cache.path()));
    assert_eq!(store.requests(), 1);
    fs::remove_file(left).expect("still there");
    check_kept(cache.path());
}

#[test]
fn a_source_that_is_away_for_a_moment_is_asked_again() {
    let cache = cache();
    let store = Store::start(|n, _| match n {
        0 => Answer::Status(500),
        1 => Answer::Status(503),
        2 => Answer::Status(429),
        _ => Answer::Body(stable()),
    });
    start(&settings(&store.url, cache.path()));
    assert_eq!(store.requests(), 4);
    check_kept(cache.path());
}

#[test]
fn a_source_that_stays_away_is_an_error_within_the_stated_time() {
    let cache = cache();
    let silent = Store::start(|_, _| Answer::Silence);
    for (url, cause) in [
        (
            format!("http://user:secret@{}/m?key=secret", nowhere()),
            "Connection refused",
        ),
        (silent.url.clone(), "no whole answer in time"),
    ] {
        let mut settings = settings(&url, cache.path());
        settings[3].1 = "300ms".to_owned();
        let error = refusal(&settings);
        assert!(
            error.contains("not fetched within 300ms (MODEL_FETCH_TIMEOUT)"),
            "{error}"
        );
        assert!(
            error.contains(cause) && error.contains("model artefact http://"),
            "{error}"
        );
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn what_the_source_does_not_have_is_not_asked_for_again() {
    let cache = cache();
    for status in [404, 403, 204] {
        let store = Store::start(move |_, _| Answer::Status(status));
        let error = refusal(&settings(&store.url, cache.path()));
        assert!(
            error.contains(&format!("answered {status}, not 200")),
            "{error}"
        );
        assert_eq!(store.requests(), 1);
    }
}

#[test]
fn an_artefact_over_the_limit_is_refused() {
    let cache = cache();
    for answer in [|| Answer::Promised(1 << 40), || Answer::Endless] {
        let store = Store::start(move |_, _| answer());
        let mut settings = settings(&store.url, cache.path());
        // Not by the clock.
        settings[3].1 = "60s".to_owned();
        let error = refusal(&settings);
        assert!(error.contains("allowed are 16777216"), "{error}");
        assert_eq!(store.requests(), 1);
    }
    assert_eq!(kept(cache.path()), [""; 0]);
}

#[tokio::test]
async fn processes_that_start_at_once_on_one_volume_all_serve() {
    const PROCESSES: usize = 4;
    let cache = cache();
    // Nobody gets an answer before all have asked, so nobody finds the file of another.
    let store = Store::for_several(PROCESSES, stable());
    let settings = settings(&store.url, cache.path());
    let services: Vec<_> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..PROCESSES)
            .map(|_| scope.spawn(|| start(&settings)))
            .collect();
        starting
            .into_iter()
            .map(|one| one.join().expect("starts"))
            .collect()
    });
    for service in &services {
        assert_eq!(status(&service.url).await.expect("answers"), StatusCode::OK);
    }
    assert_eq!(store.requests(), PROCESSES);
    check_kept(cache.path());
}

/// Starts the service while the store keeps it waiting.
fn waiting(address: &str, store: &Store, cache: &Path) -> Child {
    let settings = settings(&store.url, cache);
    command(PROGRAM, &borrowed(&settings))
        .envs([("LISTEN_ADDR", address), ("MODEL_FETCH_TIMEOUT", "60s")])
        .stdout(Stdio::null())
        .spawn()
        .expect("starts")
}

#[tokio::test]
async fn it_is_healthy_only_when_the_model_serves() {
    let (cache, address) = (cache(), nowhere());
    let url = format!("http://{address}");
    let (store, asked, go) = Store::on_command(stable());
    let mut service = waiting(&address, &store, cache.path());
    asked.recv().expect("it asks");
    assert!(status(&url).await.expect_err("no model yet").is_connect());
    go.send(()).expect("the store waits");
    let deadline = Instant::now() + Duration::from_secs(10);
    while status(&url).await.is_err() {
        assert!(Instant::now() < deadline, "it never serves");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status(&url).await.expect("answers"), StatusCode::OK);
    service.kill().expect("ends");
    service.wait().expect("ended");
}

#[test]
fn it_can_be_stopped_while_it_fetches() {
    let cache = cache();
    let (store, asked, _go) = Store::on_command(stable());
    let mut service = waiting(&nowhere(), &store, cache.path());
    asked.recv().expect("it asks");
    let kill = format!("kill -TERM {}", service.id());
    std::process::Command::new("sh")
        .args(["-c", &kill])
        .status()
        .expect("a signal");
    assert!(service.wait().expect("ended").success());
    assert_eq!(kept(cache.path()), [""; 0]);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let cache = cache();
    let file = cache.path().join("file");
    fs::write(&file, "").expect("written");
    let store = Store::with(stable());
    let error = refusal(&settings(&store.url, &file));
    assert!(
        error.contains("MODEL_CACHE") && error.contains(file.to_str().expect("UTF-8")),
        "{error}"
    );
}

#[test]
fn a_bad_setting_is_named_and_no_secret_of_it_told() {
    let url = "http://store/stable.json".to_owned();
    let sum = sha256(&stable());
    for (settings, said) in [
        (vec![("MODEL_URL", url.clone())], "--model-sha256"),
        (
            vec![
                ("MODEL_URL", url.clone()),
                ("MODEL_SHA256", "../../etc".to_owned()),
            ],
            "64 hexadecimal digits",
        ),
        (
            vec![
                ("MODEL_URL", url.clone()),
                ("MODEL_SHA256", sum.clone()),
                ("MODEL_FILE", STABLE.to_owned()),
            ],
            "cannot be used with",
        ),
        (
            vec![
                ("MODEL_URL", "https://me:secret@store/".to_owned()),
                ("MODEL_SHA256", sum.clone()),
            ],
            "MODEL_URL: allowed is http://host/path",
        ),
        (
            vec![
                ("MODEL_URL", "secret".to_owned()),
                ("MODEL_SHA256", sum.clone()),
            ],
            "MODEL_URL: allowed is http://host/path",
        ),
        (
            vec![("MODEL_FILE", STABLE.to_owned()), ("CHAMPION_URL", url)],
            "--champion-sha256",
        ),
        (
            vec![("MODEL_FILE", STABLE.to_owned()), ("CHAMPION_SHA256", sum)],
            "allowed are CHAMPION_FILE, or CHAMPION_URL and CHAMPION_SHA256",
        ),
    ] {
        let error = refusal(&settings);
        assert!(error.contains(said), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
