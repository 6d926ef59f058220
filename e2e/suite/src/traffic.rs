//! Users of the SMS checker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::http::{Client, Request, Response};
pub(crate) use harness::metrics::sum as metric;
pub(crate) use harness::promise::{PROMPTLY, predict, version, wait_for, within_4_sigma};

use crate::cluster::{Changes, Cluster, Pod};

/// The host that the gateway and the policy are for.
pub(crate) const HOST: &str = "sms-checker.local";

const WORKERS: usize = 4;

/// A message to be judged, for the gateway.
pub(crate) fn sms() -> Request {
    harness::promise::sms().header("host", HOST)
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
    /// How long each request took, in order.
    latencies: Vec<Duration>,
}

impl Load {
    /// Requests in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.time.as_secs_f64()
    }

    /// What so many of a hundred requests took at most.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        let latency = self.latencies.get(rank.saturating_sub(1));
        latency.copied().unwrap_or_default()
    }
}

/// Does something while visitors send requests without a pause, each of which must be answered by the
/// version of the visitor.
pub(crate) fn under_load<T>(
    gateway: &str,
    visitors: &[Visitor],
    action: impl FnOnce() -> Result<T>,
) -> Result<(T, Load)> {
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let (done, parts) = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let stop = &stop;
                let mut mine = share(visitors, worker);
                scope.spawn(move || {
                    let (mut latencies, mut failures) = (Vec::new(), Vec::new());
                    let mut client = Connection::new(gateway);
                    while !stop.load(Ordering::Relaxed) {
                        for visitor in &mut mine {
                            if stop.load(Ordering::Relaxed) {
                                break;
                            }
                            let sent = Instant::now();
                            if let Err(error) = visitor.stays(&mut client) {
                                failures.push(format!("{error:#}"));
                            }
                            latencies.push(sent.elapsed());
                        }
                    }
                    (latencies, failures)
                })
            })
            .collect();
        let done = action();
        stop.store(true, Ordering::Relaxed);
        let parts = workers.into_iter().map(|worker| match worker.join() {
            Ok(part) => part,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        (done, parts.collect::<Vec<_>>())
    });
    let time = start.elapsed();
    let (latencies, failures): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    let mut latencies = latencies.concat();
    latencies.sort_unstable();
    Ok((
        done?,
        Load {
            requests: latencies.len(),
            failures: failures.concat(),
            time,
            latencies,
        },
    ))
}

/// The pods of a tier of the SMS checker, which the traffic is for.
pub(crate) fn pods_of(cluster: &dyn Cluster, app: &str) -> Vec<Pod> {
    let mut pods = cluster.pods();
    pods.retain(|pod| pod.app == app && pod.namespace == "sms-checker");
    pods
}

/// The gateway's pod.
pub(crate) fn gateway_pod(cluster: &dyn Cluster) -> Result<Pod> {
    let mut pods = cluster.pods().into_iter();
    pods.find(|pod| pod.deployment == "istio-ingressgateway")
        .context("no gateway")
}

/// Takes back every change, and waits until that is in force.
pub(crate) fn restore(cluster: &mut dyn Cluster) -> Result<()> {
    cluster.apply(&Changes::default())?;
    wait_until_restored(cluster)
}

/// Waits until the manifests are in force again as they are in the repository.
pub(crate) fn wait_until_restored(cluster: &mut dyn Cluster) -> Result<()> {
    let gateway = cluster.gateway()?;
    // Several in a row, for there are several workers.
    let (mut in_a_row, mut last) = (0, String::new());
    let limit = Duration::from_secs(60);
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
