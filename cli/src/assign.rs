//! `lanekeeper assign`

use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use lanekeeper_cli::file_name;
use lanekeeper_policy::{Assignment, Decision, Headers, Outcome, Policy, Request, Source};
use serde_json::{Value, json};

use crate::Failure;

/// Say which version a user gets, and why.
///
/// Decides on a GET request as the filter at the gateway would. The name of a user goes where the
/// rollout looks first for an identity, a header or a cookie. Without --user and --users-from, the
/// request is a stranger's: a visitor id is minted unless --cookie or --header bring an identity.
///
/// The answer tells the version, its source (override, cookie, header, slot, baseline; also exempt
/// and unmatched), the slot of the identity, the cookies that the response would set and the
/// headers that would be taken from the request. With --users-from, it is one line for each user:
/// user, version, source, slot, with tabs between.
///
/// Secrets come from environment variables, as in the filter; where one is not set, no override
/// is honoured.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  lanekeeper assign --user alice
  lanekeeper assign --policy policy.yaml --user alice --cookie app-version=canary.0.20833
  lanekeeper assign --header 'x-experiment: canary' --header 'x-forwarded-proto: https'
  seq 10000 | lanekeeper assign --users-from - | cut -f2 | sort | uniq -c"
)]
pub(crate) struct Assign {
    /// The policy, or a manifest with one WasmPlugin; `-` is the standard input
    #[arg(
        long,
        value_name = "FILE",
        env = "LANEKEEPER_POLICY",
        hide_env_values = true,
        default_value = "policy.yaml"
    )]
    policy: PathBuf,

    /// The name of a user; may be repeated
    #[arg(long = "user", value_name = "USER", conflicts_with = "users_from")]
    users: Vec<String>,

    /// A file with the name of one user per line; `-` is the standard input
    #[arg(long, value_name = "FILE")]
    users_from: Option<PathBuf>,

    /// The host of the request [default: the first one of the policy that is no pattern]
    #[arg(long, value_name = "HOST", value_parser = host)]
    host: Option<String>,

    /// The path of the request [default: the first path prefix of the rollout of the default host,
    /// else /]
    #[arg(long, value_name = "PATH", value_parser = path)]
    path: Option<String>,

    /// A cookie of the request; may be repeated
    #[arg(long = "cookie", value_name = "NAME=VALUE", value_parser = cookie)]
    cookies: Vec<String>,

    /// A header of the request; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// The time of the request, in seconds since 1970-01-01 UTC [default: now]
    #[arg(long, value_name = "UNIX_SECONDS")]
    now: Option<u64>,

    /// How to answer
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// One JSON object per user and line
    Json,
}

impl Assign {
    pub(crate) fn run(&self, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let stdin = Path::new("-");
        if self.policy == stdin && self.users_from.as_deref() == Some(stdin) {
            let message = "--policy and --users-from cannot both be the standard input";
            return Err(Failure::Usage(message.to_owned()));
        }
        let (document, policy) = self.load()?;
        let asked = self.asked(&document)?;
        match &self.users_from {
            Some(file) => self.answer_each_line(file, &policy, &asked, out)?,
            None => self.answer_users(&policy, &asked, out)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn answer_users(
        &self,
        policy: &Policy,
        asked: &Asked,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let users: Vec<Option<&str>> = match self.users.as_slice() {
            [] => vec![None],
            users => users.iter().map(|user| Some(user.as_str())).collect(),
        };
        for (index, user) in users.into_iter().enumerate() {
            let answer = self
                .answer(policy, asked, user)
                .map_err(|reason| Failure::Usage(format!("--user {reason}")))?;
            match self.output {
                Output::Json => writeln!(out, "{}", answer.json())?,
                Output::Text => {
                    if index > 0 {
                        writeln!(out)?;
                    }
                    answer.explain(out)?;
                }
            }
        }
        Ok(())
    }

    fn answer_each_line(
        &self,
        file: &Path,
        policy: &Policy,
        asked: &Asked,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let text = lanekeeper_cli::read_text(file)?;
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, user)| !user.is_empty());
        for (index, user) in lines {
            let answer = self.answer(policy, asked, Some(user)).map_err(|reason| {
                Failure::Input(format!("{}:{}: {reason}", file_name(file), index + 1))
            })?;
            match self.output {
                Output::Json => writeln!(out, "{}", answer.json())?,
                Output::Text => writeln!(out, "{}", answer.line(user))?,
            }
        }
        Ok(())
    }

    fn answer<'a>(
        &self,
        policy: &'a Policy,
        asked: &'a Asked,
        user: Option<&'a str>,
    ) -> Result<Answer<'a>, String> {
        let fields = self.fields(policy, asked, user)?;
        let request = Request {
            headers: Headers::new(&fields),
            now: asked.now,
        };
        Ok(Answer {
            policy,
            asked,
            user,
            decision: policy.decide(request, &mut random),
        })
    }

    fn load(&self) -> Result<(Value, Policy), Failure> {
        let unset = RefCell::new(Vec::new());
        let env = |name: &str| {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            value.or_else(|| {
                unset.borrow_mut().push(name.to_owned());
                // Nobody can know this one.
                random().map(|bits| format!("{:032x}", u128::from_be_bytes(bits)))
            })
        };
        let loaded = lanekeeper_cli::load(&self.policy, &env).map_err(|error| {
            let default = self.policy == Path::new("policy.yaml") && !self.policy.exists();
            let hint = if default {
                "\nname the policy with --policy FILE or the environment variable LANEKEEPER_POLICY"
            } else {
                ""
            };
            Failure::Input(format!("{error}{hint}"))
        })?;
        // Whether a secret is known matters to those alone who send headers.
        if !self.headers.is_empty() {
            for name in unset.into_inner() {
                eprintln!("note: {name} is not set, so no override that needs it is honoured");
            }
        }
        Ok(loaded)
    }

    fn asked(&self, document: &Value) -> Result<Asked, Failure> {
        let rollouts = document
            .get("rollouts")
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        let mut default_rollout = None;
        let host = match &self.host {
            Some(host) => host.clone(),
            None if rollouts == 0 => {
                let message = "the policy has no rollouts, so there is nothing to assign";
                return Err(Failure::Input(format!(
                    "{}: {message}",
                    file_name(&self.policy)
                )));
            }
            None => {
                let hosts = (0..rollouts).flat_map(|index| {
                    strings(document, index, "hosts").map(move |host| (index, host))
                });
                let plain = hosts.into_iter().find(|(_, host)| !host.contains('*'));
                let (index, host) = plain.ok_or_else(|| {
                    let message = "--host is needed: every host of the policy is a pattern";
                    Failure::Usage(message.to_owned())
                })?;
                default_rollout = Some(index);
                host.to_owned()
            }
        };
        let prefix = default_rollout
            .and_then(|index| strings(document, index, "pathPrefixes").next())
            .unwrap_or("/");
        let now = match self.now {
            Some(now) => now,
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        };
        Ok(Asked {
            host,
            path: self.path.clone().unwrap_or_else(|| prefix.to_owned()),
            now,
        })
    }

    /// The headers of the request as Envoy shows them to the filter.
    fn fields(&self, policy: &Policy, asked: &Asked, user: Option<&str>) -> Result<Fields, String> {
        let field = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let mut fields = vec![
            field(":authority", &asked.host),
            field(":path", &asked.path),
            field(":method", "GET"),
            field(":scheme", "http"),
        ];
        let mut cookies = self.cookies.clone();
        let rollout = policy.rollout_of(asked.host.as_bytes(), asked.path.as_bytes());
        let identity = rollout.and_then(|rollout| rollout.identity().next());
        if let (Some(user), Some((source, name))) = (user, identity) {
            let fits = (1..=256).contains(&user.len())
                && !user.chars().any(char::is_control)
                && user.trim() == user
                && !(source == "cookie" && user.contains(';'));
            if !fits {
                return Err(format!(
                    "{user:?}: what the {source} {name} can carry: 1 to 256 bytes without control \
                     characters{} or spaces at the ends",
                    if source == "cookie" {
                        ", semicolons"
                    } else {
                        ""
                    },
                ));
            }
            if source == "header" {
                if self
                    .headers
                    .iter()
                    .any(|(other, _)| other.eq_ignore_ascii_case(name))
                {
                    return Err(format!(
                        "{user:?}: goes into the header {name}, which --header sets already"
                    ));
                }
                fields.push(field(name, user));
            } else {
                let taken = |pair: &str| {
                    pair.split_once('=')
                        .is_some_and(|(key, _)| key.trim() == name)
                };
                if cookies
                    .iter()
                    .flat_map(|cookie| cookie.split(';'))
                    .any(taken)
                {
                    return Err(format!(
                        "{user:?}: goes into the cookie {name}, which --cookie sets already"
                    ));
                }
                cookies.push(format!("{name}={user}"));
            }
        }
        for (name, value) in &self.headers {
            fields.push(field(name, value));
        }
        if !cookies.is_empty() {
            fields.push(field("cookie", &cookies.join("; ")));
        }
        Ok(fields)
    }
}

/// The request that was asked about.
struct Asked {
    host: String,
    path: String,
    now: u64,
}

type Fields = Vec<(String, Vec<u8>)>;

/// What is decided on one request.
struct Answer<'a> {
    policy: &'a Policy,
    asked: &'a Asked,
    user: Option<&'a str>,
    decision: Decision<'a>,
}

impl<'a> Answer<'a> {
    fn assignment(&self) -> Option<Assignment> {
        match self.decision.outcome {
            Outcome::Assigned(assignment) => Some(assignment),
            Outcome::Unmatched | Outcome::Exempt => None,
        }
    }

    fn rollout(&self) -> Option<&'a str> {
        let (host, path) = (self.asked.host.as_bytes(), self.asked.path.as_bytes());
        self.policy
            .rollout_of(host, path)
            .map(|rollout| rollout.name())
    }

    fn source(&self) -> &'static str {
        match self.decision.outcome {
            Outcome::Unmatched => "unmatched",
            Outcome::Exempt => "exempt",
            Outcome::Assigned(assignment) => assignment.source.name(),
        }
    }

    fn slot(&self) -> Option<u32> {
        self.assignment()?.slot
    }

    fn why(&self) -> String {
        let Some(assignment) = self.assignment() else {
            return match self.decision.outcome {
                Outcome::Exempt => "the path is exempt: baseline, no cookie",
                _ => "no rollout has this host and path: no version header",
            }
            .to_owned();
        };
        let version = self.decision.version.unwrap_or_default();
        match (assignment.source, assignment.slot) {
            (Source::Override, _) => format!("the override header asks for {version}"),
            (Source::Cookie, _) => format!("the version cookie names {version}"),
            (Source::Header, _) => format!("the client's own x-app-version names {version}"),
            (Source::Slot, Some(slot)) => format!("{version} owns slot {slot}"),
            (Source::Slot, None) | (Source::Baseline, _) => "nothing says otherwise".to_owned(),
        }
    }

    /// The visitor id, where one was minted: the first cookie that is set.
    fn minted(&self) -> Option<&str> {
        self.assignment().filter(|assignment| assignment.minted)?;
        let (pair, _) = self
            .decision
            .response
            .set_cookies
            .first()?
            .split_once(';')?;
        Some(pair.split_once('=')?.1)
    }

    fn explain(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let or_none = |value: Option<&str>| value.unwrap_or("none").to_owned();
        let user = match (self.user, self.minted()) {
            (Some(user), _) => user.to_owned(),
            (None, Some(id)) => format!("{id} (visitor id, minted)"),
            (None, None) => "not given".to_owned(),
        };
        let mut rows = vec![
            ("user", user),
            (
                "request",
                format!("GET {}{}", self.asked.host, self.asked.path),
            ),
            ("rollout", or_none(self.rollout())),
            ("version", or_none(self.decision.version)),
            ("source", format!("{}: {}", self.source(), self.why())),
            (
                "slot",
                or_none(self.slot().map(|slot| slot.to_string()).as_deref()),
            ),
        ];
        for cookie in &self.decision.response.set_cookies {
            rows.push(("set-cookie", cookie.clone()));
        }
        for header in &self.decision.remove {
            rows.push(("removed", (*header).to_owned()));
        }
        for (name, value) in rows {
            writeln!(out, "{name:<12}{value}")?;
        }
        Ok(())
    }

    fn line(&self, user: &str) -> String {
        let slot = self.slot().map(|slot| slot.to_string());
        [
            user,
            self.decision.version.unwrap_or("-"),
            self.source(),
            slot.as_deref().unwrap_or("-"),
        ]
        .join("\t")
    }

    fn json(&self) -> Value {
        json!({
            "user": self.user.or_else(|| self.minted()),
            "host": self.asked.host,
            "path": self.asked.path,
            "rollout": self.rollout(),
            "version": self.decision.version,
            "source": self.source(),
            "slot": self.slot(),
            "minted": self.minted().is_some(),
            "setCookies": self.decision.response.set_cookies,
            "removedHeaders": self.decision.remove,
        })
    }
}

/// The texts of a list in a rollout of a document that compiles.
pub(crate) fn strings<'a>(
    document: &'a Value,
    rollout: usize,
    field: &str,
) -> impl Iterator<Item = &'a str> {
    let list = document.pointer(&format!("/rollouts/{rollout}/{field}"));
    let list = list.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// 128 random bits.
fn random() -> Option<[u8; 16]> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).ok().map(|()| bits)
}

fn host(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if fits && !text.contains(['/', '*', '?', '#', '@']) {
        Ok(text.to_owned())
    } else {
        Err("a host, with or without a port".to_owned())
    }
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("a path that begins with /, without spaces".to_owned())
    }
}

fn cookie(text: &str) -> Result<String, String> {
    let pairs = text.split(';').all(|pair| pair.contains('='));
    if pairs && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("a cookie as name=value".to_owned())
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let allowed = "a header as 'name: value'";
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let (name, value) = text.split_once(':').ok_or(allowed)?;
    if name.is_empty() || !name.bytes().all(token) || value.contains(char::is_control) {
        return Err(allowed.to_owned());
    }
    if name.eq_ignore_ascii_case("host") {
        return Err("any header but host, which is --host".to_owned());
    }
    Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
}
