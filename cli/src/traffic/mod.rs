//! `lanekeeper traffic`

mod connection;
mod report;
mod target;
mod user;

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io::{self, Write};
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hyper::header::HeaderName;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, interval, sleep, sleep_until};

use crate::{Failure, above_zero};
use connection::Connection;
use report::Report;
use target::{Header, Resolve, Target, Url};
use user::User;

/// A server that is down would otherwise be asked some 20,000 times a second, if without a rate.
const PAUSE_WITHOUT_ANSWER: Duration = Duration::from_millis(10);

/// What is said while the end is near and answers are still to come.
const WAITING: &str = "waiting for the last answers; Ctrl-C ends at once";

/// How often lines are printed.
const TICK: Duration = Duration::from_millis(100);

/// Send GET requests, as fast as they are answered or at a rate, and tell which versions answer.
///
/// It prints a line for every 1000 requests, for each failure and for each change of version of a user
/// (the first 20 of either, then a count each second), and at the end, or on Ctrl-C, a summary.
///
/// A request fails if it cannot be sent, has no whole answer within the timeout, or is answered with
/// a status of 400 or above. Nothing is sent twice; but a connection that the server closed while it
/// was idle is made anew. After a request without an answer there is a pause of 10 ms.
///
/// The version of an answer is the one that all tiers of x-served-by name (app-service;v=canary), or
/// all of them, as in canary+stable, should the tiers not agree. The newest version is the one that
/// answered for the first time last.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Exit codes: 0 no request failed; 1 one did, or none was sent; 2 wrong usage.

Examples:
  lanekeeper traffic http://localhost:8080/version --duration 10s
  lanekeeper traffic http://sms-checker.local/version --resolve sms-checker.local:80:127.0.0.1 \\
    --users 100 --rate 50
  lanekeeper traffic http://localhost:8080/version --requests 10000 --new-connections --json"
)]
pub(crate) struct Traffic {
    /// What to get, http://HOST[:PORT][/PATH][?QUERY]
    #[arg(value_name = "URL")]
    url: Url,

    /// Stop after so many requests
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,

    /// Stop after this time, such as 30s
    #[arg(long, value_name = "TIME", value_parser = above_zero)]
    duration: Option<Duration>,

    /// Requests a second, evenly; latency then counts from when a request was due [default: as fast as
    /// they are answered]
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,

    /// How many requests are under way at a time; with --users, at most one of each user
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,

    /// Make a new connection for every request
    #[arg(long)]
    new_connections: bool,

    /// How long a request may take, its connection included
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = above_zero)]
    timeout: Duration,

    /// So many users take turns, each of whom keeps the cookies, of whatever path [default: strangers,
    /// who keep none]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    users: Option<u32>,

    /// Name the users by this header, as user-0, user-1 …, instead of by cookies
    #[arg(long, value_name = "NAME", requires = "users")]
    user_header: Option<HeaderName>,

    /// A header of every request; may be repeated. Cookies join those that users keep
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<Header>,

    /// Where a host and port really are, as with curl; may be repeated
    #[arg(long, value_name = "HOST:PORT:ADDRESS")]
    resolve: Vec<Resolve>,

    /// What says which version answered
    #[arg(long, value_enum, default_value_t = VersionFrom::ServedBy)]
    version_from: VersionFrom,

    /// Print the summary as JSON, and everything else to the standard error
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum VersionFrom {
    /// The header x-served-by
    ServedBy,
    /// The field `version` of a JSON body
    Json,
}

impl Traffic {
    pub(crate) fn run(&self, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        if let Some(name) = &self.user_header
            && self.headers.iter().any(|header| header.is(name))
        {
            let twice =
                format!("--header {name}: --user-header sets it, to another name for each user");
            return Err(Failure::Usage(twice));
        }
        // One thread leaves the other cores to what is tested.
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(cannot_start)?;
        let report = if self.json {
            LocalSet::new().block_on(&runtime, self.send(&mut io::stderr()))?
        } else {
            LocalSet::new().block_on(&runtime, self.send(out))?
        };
        let report = report.borrow();
        match self.json {
            true => writeln!(out, "{:#}", report.json())?,
            false => report.summarize(out)?,
        }
        Ok(match report.is_good() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    /// Sends everything; `lines` gets what is told meanwhile.
    async fn send(&self, lines: &mut dyn Write) -> Result<Rc<RefCell<Report>>, Failure> {
        let mut signals = Signals::new().map_err(cannot_start)?;
        let target = Rc::new(Target::new(self));
        let report = Rc::new(RefCell::new(Report::new(self.users.unwrap_or(1))));
        let tickets = Rc::new(Tickets::new(self.requests, self.rate));
        let (stop, stopped) = watch::channel(false);
        let mut workers = JoinSet::new();
        for users in self.dealt_out() {
            let worker = Worker {
                connection: Connection::new(Rc::clone(&target)),
                version_from: self.version_from,
                tickets: Rc::clone(&tickets),
                report: Rc::clone(&report),
                stopped: stopped.clone(),
            };
            workers.spawn_local(worker.work(users));
        }
        let mut end = pin!(async {
            match self.duration {
                Some(duration) => sleep(duration).await,
                None => pending().await,
            }
        });
        let mut tick = interval(TICK);
        let mut stopping = false;
        let mut said = false;
        loop {
            tokio::select! {
                ended = workers.join_next() => match ended {
                    Some(Ok(())) => {}
                    Some(Err(error)) => return Err(Failure::Input(error.to_string())),
                    None => break,
                },
                _ = tick.tick() => {
                    print(report.borrow_mut().news(), lines)?;
                    // Mostly they are there before the next tick.
                    if stopping && !said {
                        said = true;
                        writeln!(lines, "{WAITING}")?;
                    }
                }
                () = &mut end, if !stopping => stopping = true,
                // Who asks twice does not want to wait for the last answers.
                () = signals.next() => match stopping {
                    false => stopping = true,
                    true => break,
                },
            }
            stop.send_replace(stopping);
        }
        print(report.borrow_mut().end(), lines)?;
        Ok(report)
    }

    /// The users whose requests each worker sends, one after another.
    fn dealt_out(&self) -> Vec<Vec<User>> {
        let concurrency = usize::from(self.concurrency);
        let Some(users) = self.users else {
            return (0..concurrency).map(|_| vec![User::stranger()]).collect();
        };
        let workers = concurrency.min(users as usize);
        let mut dealt: Vec<Vec<User>> = (0..workers).map(|_| Vec::new()).collect();
        for (number, worker) in (0..users).zip((0..workers).cycle()) {
            dealt[worker].push(User::new(number, self.user_header.as_ref()));
        }
        dealt
    }
}

fn cannot_start(error: io::Error) -> Failure {
    Failure::Input(error.to_string())
}

fn print(lines: Vec<String>, to: &mut dyn Write) -> io::Result<()> {
    lines.iter().try_for_each(|line| writeln!(to, "{line}"))
}

/// Ctrl-C, and what `kill` sends.
struct Signals([Signal; 2]);

impl Signals {
    fn new() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self([interrupt, signal(SignalKind::terminate())?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// The requests that may be sent, and when.
struct Tickets {
    start: Instant,
    limit: u64,
    rate: Option<f64>,
    given: Cell<u64>,
}

impl Tickets {
    fn new(limit: Option<u64>, rate: Option<f64>) -> Self {
        Self {
            start: Instant::now(),
            limit: limit.unwrap_or(u64::MAX),
            rate,
            given: Cell::new(0),
        }
    }

    /// When the next request is due, if there is one.
    fn next(&self) -> Option<Instant> {
        let given = self.given.get();
        (given < self.limit).then(|| {
            self.given.set(given + 1);
            match self.rate {
                Some(rate) => self.start + Duration::from_secs_f64(given as f64 / rate),
                None => Instant::now(),
            }
        })
    }
}

/// Sends one request at a time.
struct Worker {
    connection: Connection,
    version_from: VersionFrom,
    tickets: Rc<Tickets>,
    report: Rc<RefCell<Report>>,
    stopped: watch::Receiver<bool>,
}

impl Worker {
    async fn work(mut self, mut users: Vec<User>) {
        loop {
            for user in &mut users {
                let Some(due) = self.tickets.next() else {
                    return;
                };
                if !self.wait_until(due).await {
                    return;
                }
                let done = self.connection.get(user.headers()).await;
                let time = due.elapsed();
                let answer = done.map(|answer| {
                    user.take_cookies(&answer.headers);
                    let version = match self.version_from {
                        VersionFrom::ServedBy => answer.served_by(),
                        VersionFrom::Json => answer.json_version(),
                    };
                    (answer.status.as_u16(), version)
                });
                let unanswered = answer.is_err();
                self.report.borrow_mut().count(user.number(), time, answer);
                if unanswered && !self.wait_until(Instant::now() + PAUSE_WITHOUT_ANSWER).await {
                    return;
                }
            }
        }
    }

    /// `false` if no more requests are wanted.
    async fn wait_until(&mut self, due: Instant) -> bool {
        if due > Instant::now() {
            tokio::select! {
                () = sleep_until(due) => {}
                _ = self.stopped.wait_for(|stop| *stop) => {}
            }
        }
        !*self.stopped.borrow()
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("allowed are 0.001 to 1000000 requests a second".to_owned()),
    }
}
