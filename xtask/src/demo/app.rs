//! What the applications differ in, for those who use them.

use anyhow::Result;
use harness::http::Request;
use harness::sentiment::{API, PAGE as FRONTEND};
use harness::{build, topology};
use serde_json::json;

use super::table::{APP, MODEL, PAGE};

/// Made up: what is no spam for both models, and what is.
const HAM: [&str; 8] = [
    "Shall we meet at the station at six?",
    "The soup is on the stove, just warm it up",
    "Running ten minutes late, start without me",
    "Did you remember to feed the neighbour's cat?",
    "Your mother called, she found the blue scarf",
    "Practice is moved to Thursday, hall two",
    "Thanks for the lift yesterday, I owe you one",
    "Can you send me the notes from this morning?",
];
const SPAM: [&str; 8] = [
    "WINNER! Claim your FREE cruise now, text SAIL to 80000",
    "Your account is on hold. Reply with your PIN to unlock a 500 pound bonus",
    "Hot singles near you! Call 0900 000 000, only 2.99 per minute",
    "Congratulations! You have won a guaranteed cash prize. Call 0900 000 001 now!",
    "URGENT: your parcel waits, text PAY to 80003 to claim it now",
    "Get a new phone today for FREE, text YES to 80001. T&Cs apply",
    "Last chance to win! Text START to 80004 now for a FREE weekly draw",
    "Free ringtones every week! Text TUNE to 80002, stop with STOP",
];

/// Made up, half of them favourable.
const REVIEWS: [&str; 8] = [
    "The food was excellent and the staff were lovely!",
    "Great coffee, friendly people, we will be back",
    "Best pasta I have had in years, simply delicious",
    "A wonderful evening, the dessert was perfect",
    "Terrible service, the soup was cold and bland",
    "Overpriced and disappointing, never again",
    "The worst burger I have ever had, and a dirty table",
    "We waited an hour and the food was not good",
];

/// One of so many requests to the API says what the user thinks of an answer.
const OPINIONS: usize = 3;

/// An application that the demo can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum App {
    /// Is a text message spam? Two tiers
    SmsChecker,
    /// Is a review favourable? Three tiers: the page calls the API under another host
    Sentiment,
}

/// A request of a user.
#[derive(Clone, Debug)]
pub(crate) struct Errand {
    pub(crate) host: &'static str,
    pub(crate) path: &'static str,
    /// Without its host and all that is the user's own.
    pub(crate) request: Request,
    /// The tiers that must have answered.
    pub(crate) tiers: &'static [&'static str],
    /// Whether it names the version that the user's page was served in.
    pub(crate) names_version: bool,
}

impl App {
    /// The host that users go to, where they get their version, and the path of the page.
    pub(crate) fn page_at(self) -> (&'static str, &'static str) {
        match self {
            Self::SmsChecker => ("sms-checker.local", "/sms"),
            Self::Sentiment => (FRONTEND, "/"),
        }
    }

    /// For the page.
    pub(crate) fn page(self) -> Errand {
        let (host, path) = self.page_at();
        Errand {
            host,
            path,
            request: Request::get(path),
            tiers: match self {
                Self::SmsChecker => &[APP],
                Self::Sentiment => &[PAGE],
            },
            names_version: false,
        }
    }

    /// For the API.
    pub(crate) fn question(self) -> Errand {
        let (host, path, body) = match self {
            Self::SmsChecker => {
                let (messages, guess) = match fastrand::bool() {
                    true => (HAM, "ham"),
                    false => (SPAM, "spam"),
                };
                let sms = messages[fastrand::usize(..messages.len())];
                let body = json!({ "sms": sms, "guess": guess });
                ("sms-checker.local", "/sms", body)
            }
            Self::Sentiment if fastrand::usize(..OPINIONS) == 0 => {
                let label = fastrand::u8(..2);
                let opinion = match fastrand::u8(..5) {
                    0 => {
                        json!({ "action": "override", "originalLabel": label, "correctedLabel": 1 - label })
                    }
                    _ => json!({ "action": "confirm", "originalLabel": label }),
                };
                (API, "/reviews/confirm", opinion)
            }
            Self::Sentiment => {
                let review = REVIEWS[fastrand::usize(..REVIEWS.len())];
                (
                    API,
                    "/predict-sentiment-review",
                    json!({ "review": review }),
                )
            }
        };
        Errand {
            host,
            path,
            request: Request::post(path, body.to_string())
                .header("content-type", "application/json"),
            tiers: match path {
                "/reviews/confirm" => &[APP],
                _ => &[APP, MODEL],
            },
            names_version: self == Self::Sentiment,
        }
    }

    /// The policy of its sidecars in `wasm-plugins/policies`. The gateway's is for all applications.
    pub(crate) fn sidecar_policy(self) -> &'static str {
        match self {
            Self::SmsChecker => "sms-checker-sidecar.yaml",
            Self::Sentiment => "sentiment-sidecar.yaml",
        }
    }

    /// Beside the parts that both have. The page calls the gateway at `port`.
    pub(crate) fn parts(self, port: u16) -> Result<topology::App> {
        Ok(match self {
            Self::SmsChecker => topology::App::SmsChecker,
            Self::Sentiment => topology::App::Sentiment {
                frontend: build::service_binary("app-frontend")?,
                api_url: format!("http://{API}:{port}"),
            },
        })
    }

    /// Where it is, for people.
    pub(crate) fn address(self, port: u16) -> String {
        match self {
            Self::SmsChecker => format!(
                "The SMS checker is at http://localhost:{port}, also as Host: sms-checker.local."
            ),
            Self::Sentiment => format!(
                "Sentiment review is at http://{FRONTEND}:{port}, for a browser that knows the names:\n\
                 \n  chromium --user-data-dir=/tmp/sentiment --host-resolver-rules='MAP *.k8s.local 127.0.0.1' http://{FRONTEND}:{port}\n\
                 \nor with the line `127.0.0.1 {FRONTEND} {API}` in /etc/hosts."
            ),
        }
    }

    /// Commands to try: a title, curl's address and its further arguments.
    pub(crate) fn to_try(self, port: u16) -> String {
        match self {
            Self::SmsChecker => {
                let url = format!("http://localhost:{port}/sms");
                format!(
                    r#"  # Alice keeps one version, in both tiers, however often she comes
  for i in 1 2 3 4 5; do curl -s -o /dev/null -D - {url} -H 'x-user: alice' -H 'content-type: application/json' -d '{{"sms":"See you at six"}}' | grep x-served-by; done

  # A visitor gets cookies, and keeps a version by them
  curl -s -o /dev/null -D - {url} | grep -e x-served-by -e set-cookie

  # A tester asks for the canary
  curl -i {url} -H 'x-experiment: canary' -H 'content-type: application/json' -d '{{"sms":"URGENT! You have won a prize. Call 0800 123 456 now to claim"}}'
"#
                )
            }
            Self::Sentiment => {
                let resolve = format!("--resolve '*:{port}:127.0.0.1'");
                format!(
                    r#"  # Alice keeps one version of the page, however often she comes
  for i in 1 2 3 4 5; do curl -s -o /dev/null -D - {resolve} http://{FRONTEND}:{port}/ -H 'x-user: alice' | grep x-served-by; done

  # A visitor gets cookies, for both hosts
  curl -s -o /dev/null -D - {resolve} http://{FRONTEND}:{port}/ | grep -e x-served-by -e set-cookie

  # A page of canary calls the API, which says how sure the model is
  curl -i {resolve} http://{API}:{port}/predict-sentiment-review -H 'x-app-version: canary' -H 'content-type: application/json' -d '{{"review":"The food was excellent!"}}'
"#
                )
            }
        }
    }

    /// A request that a quota counts, as curl has it.
    pub(crate) fn curl(self, port: u16) -> String {
        match self {
            Self::SmsChecker => format!("http://localhost:{port}/sms"),
            Self::Sentiment => format!("http://localhost:{port}/ -H 'host: {FRONTEND}'"),
        }
    }
}
