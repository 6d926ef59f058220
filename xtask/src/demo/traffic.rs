//! Many users at once: the same requests to two sites, each user's answers counted for each site.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use harness::http::{Client, Request, Response};
use lanekeeper_cli::limit_of;
use lanekeeper_policy::{Headers, Quota, Refusal};
use serde_json::Value;

use super::app::App;
use super::era::Era;
use super::fair::{Admitted, Span};
use super::tally::{Answer, NOISY, Tally, Tiers, Visit};

/// Each sends its requests one after another.
const WORKERS: usize = 4;

/// How long requests under way may take to finish when traffic ends.
pub(crate) const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// One request in this many is for the page instead of the API behind it.
const PAGES: usize = 5;

/// A place that users go to.
#[derive(Debug)]
pub(crate) struct Site {
    address: String,
    /// Of the policy that this place follows.
    era: Arc<Era>,
    /// The quotas that the place begins with, where it is known of each that it counts those who are
    /// logged in, by their name and in windows, and nobody else.
    known: Option<Vec<Quota>>,
    tally: Mutex<Tally>,
}

impl Site {
    pub(crate) fn new(address: String, era: Arc<Era>, known: Option<Vec<Quota>>) -> Self {
        let tally = Mutex::default();
        Self {
            address,
            era,
            known,
            tally,
        }
    }

    /// The quotas whose every verdict can be checked until `answered`.
    fn known(&self, answered: usize) -> Option<&[Quota]> {
        // After an edit, what was counted before may count otherwise.
        self.known.as_deref().filter(|_| answered == 0)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted so far.
    pub(crate) fn so_far(&self) -> Tally {
        self.tally().clone()
    }
}

/// Traffic that flows until it is told to stop.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Lanekeeper's gateway, and plain Envoy.
    sites: Arc<[Site; 2]>,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// `rate` requests a second of `users` users, to each of two sites; and to the first one, those
    /// of the noisy user.
    pub(crate) fn start(app: App, sites: [Site; 2], users: usize, rate: f64) -> Self {
        let sites = Arc::new(sites);
        let stop = Arc::new(AtomicBool::new(false));
        let workers = WORKERS.min(users);
        let pause = Duration::from_secs_f64(workers as f64 / rate);
        let workers = (0..workers).map(|worker| {
            // A user belongs to one worker, so that nobody's requests overtake each other.
            let users = (worker..users).step_by(workers).map(User::new).collect();
            let (sites, stop) = (Arc::clone(&sites), Arc::clone(&stop));
            thread::spawn(move || drive(app, users, &sites[..], pause, &stop))
        });
        let noisy = {
            let (sites, stop) = (Arc::clone(&sites), Arc::clone(&stop));
            let pause = Duration::from_secs(1) / noise(rate);
            thread::spawn(move || drive(app, vec![User::noisy()], &sites[..1], pause, &stop))
        };
        let workers = workers.chain([noisy]).collect();
        Self {
            sites,
            stop,
            workers,
        }
    }

    /// Lanekeeper's gateway, and plain Envoy.
    pub(crate) fn sites(&self) -> &[Site; 2] {
        &self.sites
    }

    /// Lets requests that are under way finish, and ends. Returns how many did not.
    pub(crate) fn stop(&mut self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let start = Instant::now();
        let mut unanswered = 0;
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            while !worker.is_finished() && start.elapsed() < LAST_ANSWERS {
                thread::sleep(Duration::from_millis(10));
            }
            if worker.is_finished() {
                // A worker that panicked has said so.
                let _ = worker.join();
            } else {
                // What it still counts, nobody reads.
                unanswered += 1;
            }
        }
        unanswered
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Requests a second of the noisy user, beside `rate` of the others: more than the default policy
/// admits, and not so many that the machine is busy with them.
pub(crate) fn noise(rate: f64) -> u32 {
    (rate / 10.0).clamp(5.0, 20.0) as u32
}

fn drive(app: App, mut users: Vec<User>, sites: &[Site], pause: Duration, stop: &AtomicBool) {
    let mut connections = [None, None];
    let mut next = Instant::now() + pause.mul_f64(fastrand::f64());
    while !stop.load(Ordering::SeqCst) {
        let now = Instant::now();
        if let Some(early) = next.checked_duration_since(now) {
            thread::park_timeout(early);
            if stop.load(Ordering::SeqCst) {
                return;
            }
        }
        // Who cannot keep the pace does not make up for it later.
        next = next.max(now) + pause;
        let user = fastrand::usize(..users.len());
        users[user].visit(app, sites, &mut connections);
    }
}

/// Somebody who comes again and again.
struct User {
    number: usize,
    /// Half of the users are logged in; the others are known by their cookies alone.
    name: Option<String>,
    /// One for each site.
    accounts: [Account; 2],
}

/// What a user has at one site.
#[derive(Debug, Default)]
struct Account {
    /// Who is logged in has one, too: a policy need not ask for X-User.
    jar: Jar,
    /// The version that the page was served in, which it tells the API.
    page: Option<String>,
    admitted: Admitted,
}

impl User {
    fn new(number: usize) -> Self {
        let logged_in = number.is_multiple_of(2);
        Self {
            number,
            name: logged_in.then(|| format!("user-{number}")),
            accounts: Default::default(),
        }
    }

    fn noisy() -> Self {
        Self {
            number: NOISY,
            name: Some("noisy".to_owned()),
            accounts: Default::default(),
        }
    }

    /// Sends one request to each site.
    fn visit(&mut self, app: App, sites: &[Site], connections: &mut [Option<Client>; 2]) {
        let question = app.question();
        let accounts = &self.accounts[..sites.len()];
        let has_page = accounts.iter().all(|account| account.page.is_some());
        let must_have_page = question.names_version && !has_page;
        let is_page = must_have_page || fastrand::usize(..PAGES) == 0;
        let errand = if is_page { app.page() } else { question };
        let request = errand.request.header("host", errand.host);
        let places = sites.iter().zip(connections).zip(&mut self.accounts);
        for ((site, connection), account) in places {
            let Account {
                jar,
                page,
                admitted,
            } = account;
            let version = page.clone().filter(|_| errand.names_version);
            let own = [
                ("x-user", self.name.clone()),
                ("cookie", jar.header()),
                ("x-app-version", version),
            ];
            let own = own
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)));
            let own: Vec<_> = own.collect();
            let request = own.iter().fold(request.clone(), |request, (name, value)| {
                request.header(name, value)
            });
            let (sent, start) = (site.era.now(), Instant::now());
            let answer = send(&site.address, connection, &request);
            let span = Span {
                sent: start,
                answered: Instant::now(),
            };
            let answered = site.era.now();
            if let Ok(answer) = &answer {
                for cookie in answer.headers.all("set-cookie") {
                    jar.keep(&String::from_utf8_lossy(cookie));
                }
            }
            let name = self.name.as_deref();
            let known = site.known(answered);
            let answer = match answer.map(|answer| (refused_by(&answer), answer)) {
                Ok((Some(quota), _)) if site.era.refuses(sent, answered, &quota) => {
                    match known.and_then(|known| too_early(known, &quota, name, admitted, span)) {
                        Some(failure) => Answer::Failed(failure),
                        None => Answer::Refused,
                    }
                }
                Ok((_, answer)) => {
                    served_by(&answer, errand.tiers).map_or_else(Answer::Failed, Answer::Served)
                }
                Err(failure) => Answer::Failed(failure),
            };
            if let (Answer::Served(tiers), true) = (&answer, is_page) {
                *page = Some(tiers.edge().to_owned());
            }
            let mut excess = None;
            // Nobody knows whether a quota counted what failed.
            if matches!(answer, Answer::Served(_)) {
                admitted.add(span);
                excess = known
                    .zip(name)
                    .and_then(|(known, name)| too_late(known, name, admitted));
            }
            // As the filter sees the request.
            let pseudo = [(":authority", errand.host), (":path", errand.path)];
            let fields = pseudo.map(|(name, value)| (name, value.to_owned()));
            let fields: Vec<_> = fields
                .into_iter()
                .chain(own)
                .map(|(name, value)| (name.to_owned(), value.into_bytes()))
                .collect();
            let headers = Headers::new(&fields);
            let decided = match &answer {
                Answer::Served(tiers) => site.era.decided(sent, answered, headers, tiers.edge()),
                Answer::Refused | Answer::Failed(_) => false,
            };
            site.tally().count(Visit {
                user: self.number,
                sent,
                answered,
                decided,
                answer,
                excess,
            });
        }
    }
}

fn send(
    address: &str,
    connection: &mut Option<Client>,
    request: &Request,
) -> Result<Response, String> {
    let explain = |error: anyhow::Error| format!("{error:#}");
    let mut client = match connection.take() {
        Some(client) => client,
        None => Client::connect(address).map_err(explain)?,
    };
    let response = client.send(request).map_err(explain)?;
    // What failed is not used again, nor what Envoy closes, as it does when it refuses a request
    // before it has read all of it.
    let closes = response.headers.all("connection") == [b"close"];
    *connection = (!closes).then_some(client);
    Ok(response)
}

/// The quota that refused a request.
fn refused_by(response: &Response) -> Option<String> {
    if u32::from(response.status) != Refusal::STATUS {
        return None;
    }
    let problem: Value = serde_json::from_slice(&response.body).ok()?;
    let quota = problem.pointer("/violated-policies/0")?.as_str()?;
    Some(quota.to_owned())
}

/// Says so where a quota refused somebody who had not had all that it admits.
fn too_early(
    known: &[Quota],
    quota: &str,
    name: Option<&str>,
    admitted: &Admitted,
    refused: Span,
) -> Option<String> {
    let Some(name) = name else {
        return Some(format!(
            "quota {quota} refused a visitor, whom it is not for"
        ));
    };
    let quota = known.iter().find(|known| known.name() == quota)?;
    let period = Duration::from_secs(quota.period());
    let rightly = admitted.reach(quota.limit(), period, refused);
    (!rightly).then(|| {
        format!(
            "quota {} ({}) refused {name}, who had sent fewer requests",
            quota.name(),
            limit_of(quota)
        )
    })
}

/// Says so where a quota admitted more than it should.
fn too_late(known: &[Quota], name: &str, admitted: &Admitted) -> Option<String> {
    let exceeds = |quota: &&Quota| {
        let period = Duration::from_secs(quota.period());
        admitted.exceed(quota.limit(), period)
    };
    let quota = known.iter().find(exceeds)?;
    Some(format!(
        "quota {} ({}) admitted more requests of {name}",
        quota.name(),
        limit_of(quota)
    ))
}

/// The tiers that answered: a question must have got to the model, too.
fn served_by(response: &Response, needed: &[&str]) -> Result<Tiers, String> {
    // There is nothing to say to an opinion.
    if ![200, 204].contains(&response.status) {
        let body: String = response.text().chars().take(200).collect();
        return Err(format!("status {}: {body}", response.status));
    }
    let header = response.headers.all("x-served-by").join(&b", "[..]);
    let text = String::from_utf8_lossy(&header);
    tiers(&text, needed)
}

fn tiers(served_by: &str, needed: &[&str]) -> Result<Tiers, String> {
    let tiers = Tiers::parse(served_by)
        .ok_or_else(|| format!("x-served-by: {served_by:?}: no tiers with versions"))?;
    match needed.iter().find(|tier| !tiers.names(tier)) {
        None => Ok(tiers),
        Some(tier) => Err(format!("x-served-by: {served_by:?}: no {tier}")),
    }
}

/// The cookies of a browser that only knows one site.
#[derive(Debug, Default)]
struct Jar(BTreeMap<String, String>);

impl Jar {
    /// Does what a Set-Cookie header asks for.
    fn keep(&mut self, set_cookie: &str) {
        let mut parts = set_cookie.split(';');
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
            return;
        };
        let name = name.trim().to_owned();
        let over = parts
            .filter_map(|part| part.split_once('='))
            .any(|(attribute, value)| {
                let age = attribute.trim().eq_ignore_ascii_case("max-age");
                age && value
                    .trim()
                    .parse::<i64>()
                    .is_ok_and(|seconds| seconds <= 0)
            });
        if over {
            self.0.remove(&name);
        } else {
            self.0.insert(name, value.trim().to_owned());
        }
    }

    /// The Cookie header of the next request.
    fn header(&self) -> Option<String> {
        let pairs = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        let pairs: Vec<_> = pairs.collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::table::{APP, MODEL, PAGE};
    use lanekeeper_policy::Policy;
    use serde_json::json;

    #[test]
    fn a_jar_keeps_replaces_and_drops_cookies() {
        let mut jar = Jar::default();
        assert_eq!(jar.header(), None);
        jar.keep("visitor=12ab; Path=/; Max-Age=2592000; SameSite=Lax; HttpOnly");
        jar.keep("app-version=stable.0.20833; Path=/");
        jar.keep("app-version=canary.0.20834; Path=/");
        jar.keep("nonsense");
        let both = "app-version=canary.0.20834; visitor=12ab";
        assert_eq!(jar.header().as_deref(), Some(both));
        jar.keep("app-version=; max-age=0");
        assert_eq!(jar.header().as_deref(), Some("visitor=12ab"));
    }

    #[test]
    fn half_of_the_users_are_logged_in() {
        let users: Vec<_> = (0..10).map(User::new).collect();
        assert_eq!(users.iter().filter(|user| user.name.is_some()).count(), 5);
    }

    fn per_user() -> Vec<Quota> {
        let quota = json!({ "name": "per-user", "key": ["user"], "limit": 2, "period": "1m" });
        let policy = Policy::compile(&json!({ "quotas": [quota] }), &|_| None);
        policy.expect("a policy").quotas().to_vec()
    }

    #[test]
    fn a_known_quota_may_refuse_who_had_all_of_it_and_nobody_else() {
        let known = per_user();
        let mut admitted = Admitted::default();
        let now = Instant::now();
        let span = Span {
            sent: now,
            answered: now,
        };
        let mut verdicts = Vec::new();
        for _ in 0..3 {
            let early = too_early(&known, "per-user", Some("alice"), &admitted, span);
            admitted.add(span);
            verdicts.push((
                early.is_some(),
                too_late(&known, "alice", &admitted).is_some(),
            ));
        }
        assert_eq!(verdicts, [(true, false), (true, false), (false, true)]);
        assert!(too_early(&known, "per-user", None, &admitted, span).is_some());
    }

    #[test]
    fn a_refusal_names_its_quota() {
        let response = |status, body: &str| Response {
            status,
            headers: Default::default(),
            body: body.into(),
        };
        let body = r#"{ "status": 429, "violated-policies": ["per-user"] }"#;
        let quota = refused_by(&response(429, body));
        assert_eq!(quota.as_deref(), Some("per-user"));
        assert_eq!(refused_by(&response(429, "try again later")), None);
        assert_eq!(refused_by(&response(503, body)), None);
    }

    #[test]
    fn noise_is_more_than_a_quota_admits_and_never_much() {
        assert_eq!([1.0, 100.0, 10_000.0].map(noise), [5, 10, 20]);
    }

    #[test]
    fn a_question_is_answered_by_both_tiers_and_a_page_by_its_own() {
        let both = "app-service;v=canary, model-service;v=canary";
        assert!(tiers(both, &[APP, MODEL]).is_ok());
        assert!(tiers("app-service;v=canary", &[APP]).is_ok());
        assert!(tiers("app-service;v=canary", &[APP, MODEL]).is_err());
        assert!(tiers("model-service;v=canary", &[APP, MODEL]).is_err());
        assert!(tiers("app-service;v=canary", &[PAGE]).is_err());
        assert_eq!(App::Sentiment.page().tiers, [PAGE]);
    }
}
