//! Sentiment review in a real browser: Chromium, driven through chromedriver, in front of the real gateway,
//! sidecars and services. `cargo xtask test` runs these where it finds the two programs; screenshots go
//! to `target/screenshots`.

use std::fs;
use std::process::Command;
use std::time::Duration;

use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use harness::build::target_dir;
use harness::http::{self, Request};
use harness::ports::free_ports;
use harness::process::Process;
use harness::sentiment;
use hyper_util::client::legacy::connect::HttpConnector;
use promises::{Sentiment, SmsChecker, half};
use serde_json::{Value, json};
use tokio::runtime::{self, Runtime};

const PATIENCE: Duration = Duration::from_secs(20);
const PRAISE: &str = "The food was excellent and the staff were lovely!";
const BLAME: &str = "Terrible. The food was bad, the service slow, I will never come back.";

/// A browser of its own, for which the hosts of the application are at a gateway.
struct Browser {
    runtime: Runtime,
    client: Client,
    /// The session's URL at the driver.
    session: String,
    driver: String,
    _process: Process,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Or its window would outlive the driver for a moment.
        let _ = self.runtime.block_on(self.client.clone().close());
    }
}

impl Browser {
    fn start(gateway: &str) -> Self {
        Self::start_with(gateway, json!({}))
    }

    /// A phone, 360 px wide.
    fn start_phone(gateway: &str) -> Self {
        let metrics = json!({ "width": 360, "height": 740, "pixelRatio": 2.0 });
        Self::start_with(
            gateway,
            json!({ "mobileEmulation": { "deviceMetrics": metrics } }),
        )
    }

    fn start_with(gateway: &str, mut options: Value) -> Self {
        let [port] = free_ports(&[]).expect("a port");
        let driver = format!("127.0.0.1:{port}");
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}"));
        let dir = Process::scratch_dir("chromedriver").expect("a directory");
        let mut process = Process::start("chromedriver", dir, &mut command)
            .expect("chromedriver (Debian: chromium-driver)");
        let status = format!("http://{driver}/status");
        process
            .wait_until_ready(PATIENCE, || {
                http::get(&status).is_ok_and(|answer| answer.status == 200)
            })
            .expect("the driver starts");
        let hosts = [sentiment::PAGE, sentiment::API].map(|host| format!("MAP {host} {gateway}"));
        options["args"] = json!([
            "--headless=new",
            "--window-size=900,1000",
            // The gateway's port is not the one in the URL, so that the policy's origins are as in a mesh.
            format!("--host-resolver-rules={}", hosts.join(", ")),
            // It would try https first.
            "--disable-features=HttpsUpgrades",
            // Its sandbox needs rights that containers and root do not have; the only pages are ours.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--no-proxy-server",
            // The browser ends with the driver, however that ends.
            "--remote-debugging-pipe",
        ]);
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let capabilities = capabilities.as_object().expect("an object").clone();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let client = runtime
            .block_on(
                ClientBuilder::new(HttpConnector::new())
                    .capabilities(capabilities)
                    .connect(&format!("http://{driver}")),
            )
            .expect("a browser");
        let id = runtime.block_on(client.session_id()).expect("a session");
        Self {
            session: format!("/session/{}", id.expect("an id")),
            runtime,
            client,
            driver,
            _process: process,
        }
    }

    /// Opens the page. Scripts are run when this returns.
    fn open(&self) {
        self.visit(&format!("http://{}/", sentiment::PAGE));
    }

    fn visit(&self, page: &str) {
        self.runtime
            .block_on(self.client.goto(page))
            .expect("the page");
    }

    /// Visits the page for the first time until chance has decided on `version`.
    fn open_as(&self, version: &str) {
        for _ in 0..64 {
            self.open();
            if self.version() == version {
                return;
            }
            self.forget();
        }
        panic!("nobody gets {version}");
    }

    /// Deletes all cookies: whoever comes next is a stranger.
    fn forget(&self) {
        self.runtime
            .block_on(self.client.delete_all_cookies())
            .expect("forgotten");
    }

    /// What a script returns.
    fn script(&self, script: &str) -> Value {
        self.runtime
            .block_on(self.client.execute(script, vec![]))
            .expect(script)
    }

    /// The version that the page belongs to.
    fn version(&self) -> String {
        let script = "return document.querySelector('meta[name=app-version]').content";
        self.script(script).as_str().expect("text").to_owned()
    }

    fn cookie(&self, name: &str) -> String {
        let cookie = self.runtime.block_on(self.client.get_named_cookie(name));
        let cookie = cookie.expect(name);
        // Both hosts get it.
        assert_eq!(cookie.domain(), Some("k8s.local"));
        cookie.value().to_owned()
    }

    /// The text of an element, which may have to appear first.
    fn text(&self, css: &str) -> String {
        self.runtime.block_on(async {
            let wait = self.client.wait().at_most(PATIENCE);
            let element = wait.for_element(Locator::Css(css)).await.expect(css);
            element.text().await.expect("text")
        })
    }

    fn has(&self, css: &str) -> bool {
        let found = self.client.find_all(Locator::Css(css));
        !self.runtime.block_on(found).expect("an answer").is_empty()
    }

    fn click(&self, css: &str) {
        self.runtime.block_on(async {
            let element = self.client.find(Locator::Css(css)).await.expect(css);
            element.click().await.expect(css);
        });
    }

    /// Types into whatever has the keyboard.
    fn type_keys(&self, keys: &str) {
        self.runtime.block_on(async {
            let element = self.client.active_element().await.expect("a focus");
            element.send_keys(keys).await.expect("typed");
        });
    }

    fn focus(&self) -> String {
        let id = self.script("return document.activeElement.id");
        id.as_str().expect("text").to_owned()
    }

    /// Writes a text of so many characters, all at once.
    fn write(&self, characters: usize) {
        self.script(&format!(
            "const text = document.querySelector('textarea');
            text.value = 'é'.repeat({characters});
            text.dispatchEvent(new Event('input'));"
        ));
    }

    /// Makes the page's patience end soon.
    fn hurry(&self) {
        self.script(
            "const timeout = AbortSignal.timeout.bind(AbortSignal);
            AbortSignal.timeout = limit => timeout(limit / 100);",
        );
    }

    /// Writes a review, sends it and waits for what comes of it.
    fn submit(&self, review: &str) {
        self.script("document.getElementById('review').value = ''");
        self.script("document.getElementById('review').focus()");
        self.type_keys(review);
        self.click("#send");
        self.text("#send:not([aria-disabled])");
    }

    /// Who served what is on the screen.
    fn tiers(&self) -> Vec<String> {
        let script = "return [...document.querySelectorAll('#tiers li')].map(li => li.textContent)";
        let tiers = self.script(script);
        let tiers = tiers.as_array().expect("a list").iter();
        tiers
            .map(|tier| tier.as_str().expect("text").to_owned())
            .collect()
    }

    /// The errors that the browser has to tell of, each once.
    fn errors(&self) -> Vec<String> {
        let request = Request::post(&format!("{}/se/log", self.session), r#"{"type":"browser"}"#);
        let answer = http::send(&self.driver, &request).expect("the log");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let log: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let entries = log["value"].as_array().expect("a list").iter();
        let errors = entries.filter(|entry| entry["level"] == "SEVERE");
        errors.map(|entry| entry["message"].to_string()).collect()
    }

    /// For people to look at.
    fn screenshot(&self, name: &str) {
        let png = self.runtime.block_on(self.client.screenshot());
        let dir = target_dir().join("screenshots");
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join(format!("{name}.png")), png.expect("a picture")).expect("a file");
    }
}

fn tiers_of(version: &str) -> [String; 3] {
    ["app-frontend", "app-service", "model-service"].map(|tier| format!("{tier}: {version}"))
}

#[test]
fn a_first_visit_gives_a_version_which_reloads_and_another_tab_keep() {
    let app = Sentiment::start(half);
    let browser = Browser::start(&app.gateway());
    for version in ["canary", "stable"] {
        browser.open_as(version);
        let cookie = browser.cookie("app-version");
        assert!(cookie.starts_with(&format!("{version}.0.")), "{cookie}");
        let visitor = browser.cookie("visitor");
        assert_eq!(browser.tiers(), [format!("app-frontend: {version}")]);
        let same = || {
            assert_eq!(browser.version(), version);
            assert_eq!(browser.cookie("app-version"), cookie);
            assert_eq!(browser.cookie("visitor"), visitor);
        };
        for _ in 0..10 {
            let reload = browser.runtime.block_on(browser.client.refresh());
            reload.expect("the page");
            same();
        }
        browser.runtime.block_on(async {
            let tab = browser.client.new_window(true).await.expect("a tab");
            let switched = browser.client.switch_to_window(tab.handle).await;
            switched.expect("the tab");
        });
        browser.open();
        same();
        browser.forget();
    }
    assert_eq!(browser.errors(), [""; 0]);
}

#[test]
fn the_page_shows_the_prediction_its_tiers_and_on_canary_alone_the_confidence() {
    let app = Sentiment::start(half);
    let browser = Browser::start(&app.gateway());
    for version in ["stable", "canary"] {
        browser.open_as(version);
        browser.screenshot(&format!("{version}-1-empty"));
        for (review, sounds) in [(BLAME, "unfavourable"), (PRAISE, "favourable")] {
            browser.submit(review);
            assert_eq!(browser.text("#answer h2"), format!("This sounds {sounds}"));
            assert_eq!(browser.tiers(), tiers_of(version));
            assert_eq!(browser.has("#confidence"), version == "canary");
        }
        if version == "canary" {
            let text = browser.text("#confidence");
            let percent = text.strip_prefix("The model is ");
            let percent = percent.and_then(|text| text.strip_suffix(" % sure."));
            let percent: u32 = percent.and_then(|n| n.parse().ok()).expect("a percentage");
            assert!((50..=99).contains(&percent), "{text}");
        }
        browser.screenshot(&format!("{version}-2-prediction"));
        browser.forget();
    }
    assert_eq!(browser.errors(), [""; 0]);
}

#[test]
fn what_the_user_says_of_a_prediction_is_counted_in_the_users_version() {
    let app = Sentiment::start(half);
    let browser = Browser::start(&app.gateway());
    for (version, other) in [("canary", "stable"), ("stable", "canary")] {
        browser.open_as(version);
        browser.submit(PRAISE);
        assert_eq!(app.counted(version, "reviews_pending", &[]), 1);
        browser.click("#confirm");
        assert_eq!(browser.text("#thanks"), "Thank you for confirming.");
        browser.submit(PRAISE);
        browser.click("#override");
        assert_eq!(browser.text("#thanks"), "Thank you: noted as unfavourable.");
        assert_eq!(browser.tiers(), tiers_of(version));
        browser.screenshot(&format!("{version}-3-noted"));
        let counted = |version, confirmed, overridden| {
            let confirmations = app.counted(
                version,
                "review_confirmations_total",
                &[r#"label="positive""#],
            );
            let labels = [r#"original="positive""#, r#"corrected="negative""#];
            let overrides = app.counted(version, "review_overrides_total", &labels);
            assert_eq!(
                (confirmations, overrides),
                (confirmed, overridden),
                "{version}"
            );
        };
        counted(version, 1, 1);
        // The first one of the two has not been there yet.
        let before = u64::from(other == "canary");
        counted(other, before, before);
        assert_eq!(app.counted(version, "reviews_submitted_total", &[]), 2);
        assert_eq!(app.counted(version, "reviews_pending", &[]), 0);
        browser.forget();
    }
    assert_eq!(browser.errors(), [""; 0]);
}

#[test]
fn whoever_sends_too_much_is_told_how_long_to_wait() {
    let app = Sentiment::start(Sentiment::one_review_a_minute);
    let browser = Browser::start(&app.gateway());
    browser.open();
    browser.submit(PRAISE);
    browser.submit(PRAISE);
    let told = browser.text("#problem");
    browser.screenshot("429");
    let wait = told.strip_prefix("Too many requests in a short time. Try again in ");
    let wait = wait.and_then(|text| text.strip_suffix(" s."));
    let wait: u32 = wait.and_then(|n| n.parse().ok()).expect(&told);
    assert!((1..=60).contains(&wait), "{told}");
    // The browser itself remarks upon the status, and has nothing to say of CORS.
    let errors = browser.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("429"), "{errors:?}");
}

#[test]
fn a_phone_and_a_keyboard_are_enough() {
    let app = Sentiment::start(|_| ());
    let browser = Browser::start_phone(&app.gateway());
    browser.open();
    assert_eq!(browser.script("return innerWidth"), 360);
    assert_eq!(browser.focus(), "review");
    browser.type_keys("<img src=x onerror=alert(1)> What a lovely place, the food was great");
    browser.type_keys(&Key::Tab.to_string());
    assert_eq!(browser.focus(), "send");
    browser.type_keys(&Key::Enter.to_string());
    assert_eq!(browser.text("#answer h2"), "This sounds favourable");
    assert_eq!(browser.focus(), "send", "the focus stays where it was");
    browser.screenshot("phone-1-prediction");
    for button in ["confirm", "override"] {
        browser.type_keys(&Key::Tab.to_string());
        assert_eq!(browser.focus(), button);
    }
    browser.type_keys(&Key::Enter.to_string());
    assert_eq!(browser.text("#thanks"), "Thank you: noted as unfavourable.");
    assert_eq!(browser.focus(), "thanks");
    browser.screenshot("phone-2-noted");
    let wide = browser.script("return document.documentElement.scrollWidth");
    assert_eq!(wide, 360, "nothing sticks out");
    assert!(!browser.has("main img"), "a review is text");
    assert_eq!(browser.errors(), [""; 0]);
}

#[test]
fn what_went_wrong_is_said_on_the_page() {
    let app = Sentiment::start(|_| ());
    let browser = Browser::start(&app.gateway());
    browser.open();
    browser.submit("   ");
    let told = browser.text("#problem");
    assert!(told.contains("allowed are 1 to 2000 characters"), "{told}");
    drop(app);
    browser.submit(PRAISE);
    let told = browser.text("#problem");
    assert_eq!(told, "The server cannot be reached. Try again in a moment.");
    assert_eq!(browser.focus(), "send");
}

const LATE: &str = "The server did not answer within 20 seconds. Try again in a moment.";

#[test]
fn while_a_review_is_checked_nothing_that_was_said_of_another_is_left() {
    let app = Sentiment::start(|_| ());
    let browser = Browser::start(&app.gateway());
    browser.open();
    browser.submit(PRAISE);
    assert!(browser.has("#confirm"));
    let page = browser.tiers()[..1].to_vec();
    app.signal_services("STOP");
    browser.click("#send");
    assert_eq!(browser.text("#checking"), "Checking…");
    assert!(!browser.has("#answer h2") && !browser.has("#answer button"));
    assert_eq!(browser.tiers(), page);
    assert_eq!(browser.focus(), "send");
    browser.screenshot("checking");
    app.signal_services("CONT");
    assert_eq!(browser.text("#answer h2"), "This sounds favourable");
    assert!(browser.has("#confirm") && !browser.has("#checking"));

    browser.hurry();
    app.signal_services("STOP");
    browser.click("#send");
    assert_eq!(browser.text("#problem"), LATE);
    assert!(!browser.has("#answer button"));
    browser.screenshot("late");
}

#[test]
fn a_review_that_is_too_long_is_not_sent() {
    let app = Sentiment::start(|_| ());
    let browser = Browser::start(&app.gateway());
    browser.open();
    let version = browser.version();
    let asked = || {
        let route = [r#"route="/predict-sentiment-review""#];
        app.counted(&version, "http_requests_total", &route)
    };
    browser.write(2001);
    assert_eq!(browser.text("#count.bad"), "2,001 of 2,000 characters");
    browser.click("#send");
    let told = browser.text("#problem");
    assert_eq!(told, "It has 2,001 characters; allowed are 1 to 2,000.");
    browser.screenshot("too-long");
    assert_eq!(asked(), 0);
    browser.write(2000);
    browser.click("#send");
    browser.text("#confirm");
    assert_eq!(asked(), 1);
    assert_eq!(browser.errors(), [""; 0]);
}

#[test]
fn the_page_of_the_sms_checker_says_that_it_checks_and_when_it_does_not() {
    let checker = SmsChecker::start();
    let browser = Browser::start(&checker.gateway());
    browser.visit(&format!("http://{}/", checker.gateway()));
    browser.write(2000);
    browser.click("#send");
    browser.text("#answer ul");
    browser.screenshot("sms-1-answer");
    checker.signal_services("STOP");
    browser.click("#send");
    assert_eq!(browser.text("#answer"), "Checking…");
    browser.screenshot("sms-2-checking");
    checker.signal_services("CONT");
    browser.text("#answer ul");

    browser.write(2001);
    browser.click("#send");
    let told = browser.text("#answer p");
    assert_eq!(told, "It has 2,001 characters; allowed are 1 to 2,000.");
    browser.screenshot("sms-3-too-long");
    assert_eq!(browser.errors(), [""; 0]);

    browser.write(2000);
    browser.hurry();
    checker.signal_services("STOP");
    browser.click("#send");
    browser.text("#answer h2");
    assert_eq!(browser.text("#answer p"), LATE);
    browser.screenshot("sms-4-late");
}
