//! Asks Prometheus: its HTTP API, as documented under /docs/prometheus/latest/querying/api/.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use reqwest::{Client, Url};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use super::experiment::Time;

/// A larger answer is not read to its end.
const LONGEST_ANSWER: usize = 256 * 1024 * 1024;
/// How much is shown of what a server says about an error, in characters.
const SHOWN: usize = 300;
/// Who waits longer than this wants to know what for.
const PATIENCE: Duration = Duration::from_secs(2);
/// What notes on a query begin with, such as that by its name a metric is no counter. Prometheus 2.48
/// to 2.54 gives them as warnings.
const NOTE: &str = "PromQL info:";
/// The end of the year 9999: later times cannot be written as in RFC 3339.
const LATEST: f64 = 253_402_300_799.0;

/// Where Prometheus is. Displayed without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = "allowed is http://[USER:PASSWORD@]HOST[:PORT][/PATH]";
        let mut url: Url = text.parse().map_err(|_| allowed)?;
        if url.scheme() == "https" {
            let why = "; TLS is not spoken: use kubectl port-forward, or a proxy of your own";
            return Err(format!("{allowed}{why}"));
        }
        let plain = url.query().is_none() && url.fragment().is_none();
        if url.scheme() != "http" || !url.has_host() || !plain {
            return Err(allowed.to_owned());
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        // Only of URLs without a host these cannot be taken away.
        let _ = shown.set_username("");
        let _ = shown.set_password(None);
        shown.as_str().trim_end_matches('/').fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// A Prometheus, or what answers as one.
#[derive(Debug)]
pub struct Prometheus {
    address: Address,
    client: Client,
    runtime: Runtime,
    timeout: Duration,
}

/// A series of an answer.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) labels: BTreeMap<String, String>,
    /// Times, in seconds since 1970, and values.
    pub(super) points: Vec<(u64, f64)>,
}

impl Prometheus {
    /// One at this address, who has so much time for each answer.
    ///
    /// # Errors
    /// The operating system grants no event loop, or the proxies in the environment are faulty.
    pub fn new(address: Address, timeout: Duration) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let client = Client::builder().user_agent("lanekeeper");
        Ok(Self {
            address,
            client: client.build().map_err(io::Error::other)?,
            runtime,
            timeout,
        })
    }

    /// What time it is there: what it scraped carries the time of its clock, not of this machine's.
    ///
    /// # Errors
    /// It does not answer, or not as it should.
    pub fn now(&self) -> Result<Time, String> {
        let what = "the time";
        let rows = self.ask(what, "query", &[("query", "vector(time())")])?;
        let point = rows.first().and_then(|row| row.points.first());
        let time = point.map(|(time, _)| Time(*time));
        time.ok_or_else(|| self.fault(what, "the answer has none"))
    }

    /// The value of each series of an expression at a time. `what` names it for people.
    pub(super) fn query(&self, what: &str, query: &str, at: Time) -> Result<Vec<Row>, String> {
        let time = at.0.to_string();
        self.ask(what, "query", &[("query", query), ("time", &time)])
    }

    /// The values of each series of an expression every `step` seconds.
    pub(super) fn query_range(
        &self,
        what: &str,
        query: &str,
        [from, to]: [Time; 2],
        step: u64,
    ) -> Result<Vec<Row>, String> {
        let [from, to, step] = [from.0, to.0, step].map(|seconds| seconds.to_string());
        let parameters = [
            ("query", query),
            ("start", &from),
            ("end", &to),
            ("step", &step),
        ];
        self.ask(what, "query_range", &parameters)
    }

    fn ask(&self, what: &str, path: &str, parameters: &[(&str, &str)]) -> Result<Vec<Row>, String> {
        let answer = self.runtime.block_on(async {
            let exchange = timeout(self.timeout, self.exchange(path, parameters));
            let mut exchange = std::pin::pin!(exchange);
            tokio::select! {
                done = &mut exchange => return done,
                () = sleep(PATIENCE) => eprintln!("waiting for {}: {what} …", self.address),
            }
            exchange.await
        });
        let late = |_| Err(format!("no answer within {:?}", self.timeout));
        let rows = answer.unwrap_or_else(late).and_then(|body| rows(&body));
        rows.map_err(|reason| self.fault(what, &reason))
    }

    /// What is wrong with an answer, and whose it is.
    pub(super) fn fault(&self, what: &str, reason: &str) -> String {
        format!("{}: {what}: {reason}", self.address)
    }

    /// The JSON of an answer, be it good or an error.
    async fn exchange(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let mut url = self
            .address
            .0
            .join("api/v1/")
            .and_then(|url| url.join(path));
        let url = url.as_mut().map_err(|error| error.to_string())?;
        url.query_pairs_mut().extend_pairs(parameters);
        let mut response = self.client.get(url.clone()).send().await.map_err(explain)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(explain)? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_ANSWER {
                return Err(format!("the answer is over {LONGEST_ANSWER} bytes long"));
            }
        }
        match serde_json::from_slice::<Value>(&body) {
            Ok(json) if json.get("status").is_some() => Ok(json),
            _ if !status.is_success() => {
                let text = String::from_utf8_lossy(&body);
                let line = text.lines().next().unwrap_or_default();
                Err(format!("answered {status}: {}", printable(line)))
            }
            Ok(_) => Err("the answer is not one of Prometheus: it has no status".to_owned()),
            Err(error) => Err(format!("the answer is not JSON: {error}")),
        }
    }
}

/// What went wrong before there was an answer. The URL is known, and may hold a password.
fn explain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut reasons = vec![error.to_string()];
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        reasons.push(cause.to_string());
        source = cause.source();
    }
    printable(&reasons.join(": "))
}

fn rows(answer: &Value) -> Result<Vec<Row>, String> {
    let text = |field: &str| printable(answer.get(field).and_then(Value::as_str).unwrap_or("?"));
    if answer.get("status").and_then(Value::as_str) != Some("success") {
        return Err(format!("{}: {}", text("errorType"), text("error")));
    }
    // Such as that some of the data could not be had: a verdict on the rest would be another.
    let warnings = answer.get("warnings").and_then(Value::as_array);
    let mut warnings = warnings
        .into_iter()
        .flatten()
        .map(|warning| warning.as_str().unwrap_or("?"));
    if let Some(warning) = warnings.find(|warning| !warning.starts_with(NOTE)) {
        return Err(format!("answers with a warning: {}", printable(warning)));
    }
    let result = answer.pointer("/data/result").and_then(Value::as_array);
    let rows = result.and_then(|rows| rows.iter().map(row).collect::<Option<Vec<_>>>());
    let rows = rows.ok_or("the answer is not one of Prometheus: it has no series")?;
    for row in &rows {
        let unusable = row
            .points
            .iter()
            .find(|(_, value)| !value.is_finite() || *value < 0.0);
        if let Some((time, value)) = unusable {
            let labels = printable(&format!("{:?}", row.labels));
            let time = Time(*time);
            return Err(format!(
                "{value} at {time} for {labels}: a count is 0 or more"
            ));
        }
    }
    Ok(rows)
}

fn row(row: &Value) -> Option<Row> {
    let labels = row.get("metric")?.as_object()?.iter();
    let labels = labels.map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    let point = |point: &Value| {
        let time = point.get(0)?.as_f64().map(f64::round)?;
        let value = point.get(1)?.as_str()?.parse().ok()?;
        (0.0..=LATEST)
            .contains(&time)
            .then_some((time as u64, value))
    };
    let points = match row.get("values") {
        Some(values) => values
            .as_array()?
            .iter()
            .map(point)
            .collect::<Option<_>>()?,
        None => vec![point(row.get("value")?)?],
    };
    Some(Row {
        labels: labels.collect::<Option<_>>()?,
        points,
    })
}

/// What anybody may have said, fit for a terminal: one line, of limited length.
fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    // Quotes are no danger.
    shown.replace("\\\"", "\"").replace("\\'", "'")
}
