//! Users of the SMS checker.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::http::{Client, Request, Response};

use crate::cluster::{Cluster, Pod};

/// The host that the gateway and the policy are for.
pub(crate) const HOST: &str = "sms-checker.local";

/// How soon a push is to be in force.
pub(crate) const PROMPTLY: Duration = Duration::from_secs(5);

const WORKERS: usize = 4;

/// A message to be judged: a request that goes through both tiers.
pub(crate) fn sms() -> Request {
    Request::post("/sms", r#"{"sms": "see you at the station at six"}"#)
        .header("host", HOST)
        .header("content-type", "application/json")
}

/// The question that an app-service asks its model.
pub(crate) fn predict() -> Request {
    Request::post("/predict", r#"{"sms": "see you at the station at six"}"#)
        .header("content-type", "application/json")
}

/// The version that answered, in every tier; an error if the tiers do not agree, or if it was the
/// shadow.
pub(crate) fn version(response: &Response) -> Result<String> {
    ensure!(
        response.status == 200,
        "{} {}",
        response.status,
        response.text()
    );
    let served_by = response.headers.get("x-served-by").context("x-served-by")?;
    let tiers: Option<Vec<_>> = served_by
        .split(", ")
        .map(|tier| tier.split_once(";v="))
        .collect();
    match tiers.as_deref() {
        Some([("app-service", app), ("model-service", model)])
            if app == model && *model != "shadow" =>
        {
            Ok((*app).to_owned())
        }
        _ => bail!("the tiers do not agree: {served_by}"),
    }
}

/// A connection to the gateway that is made anew when it was closed, as a browser does.
pub(crate) struct Connection {
    address: String,
    client: Option<Client>,
}

impl Connection {
    pub(crate) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            client: None,
        }
    }

    pub(crate) fn send(&mut self, request: &Request) -> Result<Response> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.address)?,
        };
        let response = client.send(request)?;
        if response.headers.get("connection") != Some("close") {
            self.client = Some(client);
        }
        Ok(response)
    }
}

/// Somebody with a browser: the cookies are kept and sent back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visitor {
    jar: BTreeMap<String, String>,
    /// The version of the first answer.
    pub(crate) given: String,
}

impl Visitor {
    /// Sends a first request.
    pub(crate) fn new(client: &mut Connection) -> Result<Self> {
        let mut visitor = Self::default();
        visitor.given = version(&visitor.send(client)?)?;
        Ok(visitor)
    }

    /// Sends a request with the cookies, and takes new ones.
    pub(crate) fn send(&mut self, client: &mut Connection) -> Result<Response> {
        let cookies: Vec<_> = self.jar.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mut request = sms();
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        let response = client.send(&request)?;
        for cookie in response.headers.all("set-cookie") {
            let cookie = String::from_utf8_lossy(cookie);
            let pair = cookie.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(response)
    }

    /// Sends a request, which must be answered by the version that was given first.
    pub(crate) fn stays(&mut self, client: &mut Connection) -> Result<()> {
        let response = self.send(client)?;
        let version = version(&response)?;
        ensure!(
            version == self.given,
            "a flip from {} to {version}",
            self.given
        );
        Ok(())
    }
}

/// So many visitors, each with a first answer.
pub(crate) fn visitors(gateway: &str, count: usize) -> Result<Vec<Visitor>> {
    let parts = in_parallel(|worker| {
        let mut client = Connection::new(gateway);
        (worker..count)
            .step_by(WORKERS)
            .map(|_| Visitor::new(&mut client))
            .collect::<Result<Vec<_>>>()
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// Every visitor sends so many requests more, and stays.
pub(crate) fn stay(gateway: &str, visitors: &[Visitor], rounds: usize) -> Result<()> {
    in_parallel(|worker| {
        let mut client = Connection::new(gateway);
        let mut mine = share(visitors, worker);
        for _ in 0..rounds {
            for visitor in &mut mine {
                visitor.stays(&mut client)?;
            }
        }
        Ok(())
    })
    .map(drop)
}

/// The visitors whose requests one worker sends.
fn share(visitors: &[Visitor], worker: usize) -> Vec<Visitor> {
    let share = visitors.iter().skip(worker).step_by(WORKERS);
    share.cloned().collect()
}

fn in_parallel<T: Send>(work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| scope.spawn(move || work(worker)))
            .collect();
        let results = workers.into_iter().map(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.collect()
    })
}

/// What traffic went on while something was done.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) requests: usize,
    pub(crate) failures: Vec<String>,
    pub(crate) time: Duration,
}

impl Load {
    /// Requests in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.time.as_secs_f64()
    }
}

/// Does something while visitors send requests without a pause, each of which must be answered by the
/// version of the visitor.
pub(crate) fn under_load<T>(
    gateway: &str,
    visitors: &[Visitor],
    action: impl FnOnce() -> Result<T>,
) -> Result<(T, Load)> {
    let (stop, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failures = Mutex::new(Vec::new());
    let start = Instant::now();
    let done = thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (stop, requests, failures) = (&stop, &requests, &failures);
            let mut mine = share(visitors, worker);
            scope.spawn(move || {
                let fail = |error: anyhow::Error| {
                    failures
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push(format!("{error:#}"));
                };
                let mut client = Connection::new(gateway);
                while !stop.load(Ordering::Relaxed) {
                    for visitor in &mut mine {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        requests.fetch_add(1, Ordering::Relaxed);
                        if let Err(error) = visitor.stays(&mut client) {
                            fail(error);
                        }
                    }
                }
            });
        }
        let done = action();
        stop.store(true, Ordering::Relaxed);
        done
    })?;
    let failures = failures
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok((
        done,
        Load {
            requests: requests.into_inner(),
            failures,
            time: start.elapsed(),
        },
    ))
}

/// Whether a number of hits out of `trials` is within four standard deviations of its expectation.
pub(crate) fn within_4_sigma(hits: usize, trials: usize, share: f64) -> Result<()> {
    let (mean, sigma) = (
        trials as f64 * share,
        (trials as f64 * share * (1.0 - share)).sqrt(),
    );
    ensure!(
        (hits as f64 - mean).abs() <= 4.0 * sigma,
        "{hits} of {trials} are not within 4 sigma ({:.0}) of {mean:.0}",
        4.0 * sigma
    );
    Ok(())
}

/// Waits until something holds; how long that took.
pub(crate) fn wait_for(
    limit: Duration,
    what: &str,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let start = Instant::now();
    while !holds().with_context(|| what.to_owned())? {
        ensure!(start.elapsed() < limit, "{what}: not after {limit:?}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(start.elapsed())
}

/// The pods of a tier of the SMS checker, which the traffic is for.
pub(crate) fn pods_of(cluster: &dyn Cluster, app: &str) -> Vec<Pod> {
    let mut pods = cluster.pods();
    pods.retain(|pod| pod.app == app && pod.name.ends_with(".sms-checker"));
    pods
}

/// The gateway's pod.
pub(crate) fn gateway_pod(cluster: &dyn Cluster) -> Result<Pod> {
    let mut pods = cluster.pods().into_iter();
    pods.find(|pod| pod.deployment == "istio-ingressgateway")
        .context("no gateway")
}

/// The sum of a metric in a text that Prometheus would scrape, over the series with these labels; `None`
/// if there is none.
pub(crate) fn metric(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
    let series: Vec<u64> = text
        .lines()
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let rest = series.strip_prefix(name)?;
            let has =
                |(label, value): &(&str, &str)| rest.contains(&format!("{label}=\"{value}\""));
            ((rest.is_empty() || rest.starts_with('{')) && labels.iter().all(has))
                .then(|| value.parse::<u64>().ok())
                .flatten()
        })
        .collect();
    (!series.is_empty()).then(|| series.iter().sum())
}

/// Waits until the manifests are in force again as they are in the repository.
pub(crate) fn wait_until_restored(cluster: &mut dyn Cluster) -> Result<()> {
    let gateway = cluster.gateway()?;
    // Several in a row, for there are several workers.
    let (mut in_a_row, mut last) = (0, String::new());
    let limit = Duration::from_secs(15);
    let restored = wait_for(limit, "the manifests are in force", || {
        let canary = sms().header("x-experiment", "canary");
        let answers = [sms(), canary].map(|request| {
            let response = harness::http::send(&gateway, &request)?;
            let minted = response.headers.all("set-cookie").len();
            Ok::<_, anyhow::Error>((version(&response)?, minted))
        });
        let fine = matches!(&answers, [Ok((_, 2)), Ok((canary, 0))] if canary == "canary");
        in_a_row = if fine { in_a_row + 1 } else { 0 };
        last = format!("{answers:?}");
        Ok(in_a_row > 10)
    });
    restored.map(drop).with_context(|| {
        format!("the last answers to a newcomer and to one who asked for canary: {last}")
    })
}
