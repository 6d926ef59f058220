//! The configuration as it is written: the `pluginConfig` of a WasmPlugin, in camelCase.

use serde_json::{Value, json};

use super::fault::Faults;
use super::read::{Read, object, text, words};
use crate::cookie::DAY;
use crate::host::HostPattern;
use crate::quota::key::Part;
use crate::slot::{SLOTS, SlotRange};

object! {
    /// A Lanekeeper policy.
    pub(crate) struct Document {
        /// Applications under change; they decide which version a request gets.
        rollouts: Vec<RolloutDocument> = Vec::new(),
        /// How many requests are admitted; for requests of every host, whether a rollout is for them or not.
        quotas: Vec<QuotaDocument> = Vec::new(),
        /// What the plugin does in the sidecar of a pod; in a policy of its own.
        sidecar: Option<SidecarDocument>,
    }
}

object! {
    /// One application under change.
    pub(crate) struct RolloutDocument {
        /// Names the rollout in metrics and salts the hash: two rollouts with different names pick different users. Entries with the same name must have the same versions.
        name: Label,
        /// Hosts of the requests: exact names, `*.suffix`, or `*`.
        hosts: Vec<HostPattern>,
        /// Paths of the requests; `/api` covers `/api` and everything below it. The longest one wins. Default: every path.
        path_prefixes: Vec<PathPrefix> = vec![PathPrefix("/".to_owned())],
        /// The versions, in the order in which slots are dealt out by weight.
        versions: Vec<VersionDocument>,
        /// What names a user, most important first. Default: the cookie `visitor`.
        identity: Vec<IdentityDocument> = vec![IdentityDocument::visitor()],
        /// `cookie`: a user keeps the version although weights move. `identity`: the slot always decides. Default: `cookie`.
        stickiness: Stickiness = Stickiness::Cookie,
        /// Raising it re-assigns everybody: cookies of another epoch do not count. Default: 0.
        epoch: u32 = 0,
        /// The version cookie.
        cookie: CookieDocument = CookieDocument::default(),
        /// A header by which a client asks for a version.
        r#override: Option<OverrideDocument>,
        /// `accept`: the client's own X-App-Version counts, for hosts that a page calls with the version it was served with; such a rollout sets no cookie. Default: `ignore`.
        client_header: ClientHeader = ClientHeader::Ignore,
        /// What a user without a version gets: `split` by slot, or the `baseline`. Default: `split`.
        on_missing: OnMissing = OnMissing::Split,
        /// Paths that get the baseline and nothing else (health, metrics, assets that every version serves); `/healthz` covers everything below it.
        exempt: Vec<PathPrefix> = Vec::new(),
        /// Which pages of other hosts may read a quota's refusal. (All other answers are the application's, or the VirtualService's corsPolicy.) Default: none.
        cors: Option<CorsDocument>,
        /// `private`: shared caches do not store responses of this rollout. `leave`: Cache-Control stays as it is. Default: `private`.
        cache_control: CacheControl = CacheControl::Private,
    }
}

object! {
    /// A named release of the whole chain.
    pub(crate) struct VersionDocument {
        /// The version as it stands in X-App-Version, in the cookie and in the pods' `version` label.
        name: Label,
        /// Share of the users in percent. The weights add up to 100; slots of a version that is not live fall to the baseline.
        weight: Option<Weight>,
        /// Slots of the version, as in `0-8999`, instead of a weight. Slots that nobody owns fall to the baseline.
        slots: Option<Vec<SlotRange>>,
        /// Exactly one version is the baseline: what a request gets when nothing says otherwise. Default: false.
        baseline: bool = false,
        /// `live`; `draining`: keeps its cookie holders and takes nobody new; `off`: its holders are re-assigned at once. Default: `live`.
        state: State = State::Live,
    }
}

object! {
    /// One source of a user's identity: a header or a cookie.
    pub(crate) struct IdentityDocument {
        /// A request header.
        header: Option<HeaderName>,
        /// A cookie.
        cookie: Option<CookieName>,
        /// True where clients cannot choose the value (it is set behind authentication). Default: false.
        trusted: bool = false,
        /// Whether a new visitor id is stored in this cookie when nothing names the user. Default: true for the last untrusted cookie of the list.
        mint: Option<bool>,
    }
}

object! {
    /// The version cookie.
    pub(crate) struct CookieDocument {
        /// Default: `app-version`.
        name: CookieName = CookieName("app-version".to_owned()),
        /// How long a browser keeps it. It is renewed when older than half of that. Default: `30d`.
        max_age: MaxAge = MaxAge::default(),
        /// The Domain attribute: a domain that all hosts of the rollout belong to. Default: none, the host alone.
        domain: Option<Domain>,
    }
}

object! {
    /// A header by which a client asks for a version; it does not touch the cookie.
    pub(crate) struct OverrideDocument {
        /// The header, as in `x-experiment`.
        header: HeaderName,
        /// Without it the override is not honoured.
        secret: Option<SecretDocument>,
    }
}

object! {
    /// What a client must know to override.
    pub(crate) struct SecretDocument {
        /// The request header that carries the secret. It is not handed on.
        header: HeaderName,
        /// The environment variable of the plugin that holds the secret (`vmConfig.env` in a WasmPlugin, `environment_variables` in Envoy).
        env: EnvName,
    }
}

object! {
    /// Which pages of other hosts may read a quota's refusal (the Fetch standard's CORS protocol).
    pub(crate) struct CorsDocument {
        /// Origins of the pages, as in `https://shop.example`; `https://shop.example:*` is every port of that host, and none.
        allow_origins: Vec<Origin>,
        /// Whether they may send cookies. Default: false.
        allow_credentials: bool = false,
    }
}

object! {
    /// At most so many requests in so much time, for each value of a key.
    pub(crate) struct QuotaDocument {
        /// Names the quota in metrics and refusals. States are kept under it: a quota of another name begins anew.
        name: Label,
        /// What is counted by, together: `user`, `path`, `address`, `header:<name>`.
        key: Vec<KeyPart>,
        /// Requests in a period.
        limit: u32,
        /// A duration, as in `1m`.
        period: Period,
        /// Which requests are counted. Default: all that are not exempt.
        r#match: MatchDocument = MatchDocument::stand_in(),
        /// `window`: in any period at most `limit` requests, which is at most 128. `bucket`: a `burst` at once, then evenly `limit` in a period. Default: `window`.
        algorithm: AlgorithmName = AlgorithmName::Window,
        /// With `bucket`: requests that may come at once.
        burst: Option<u32>,
        /// Paths that count as one, for a key with `path`: `*` takes the place of one segment, as in `/api/users/*`. The first that is like a path counts. Default: none.
        path_templates: Vec<PathPrefix> = Vec::new(),
        /// For a key with `user`, what happens to users whom no trusted identity names: `address` counts them by client address, `skip` does not count them. Default: `address`.
        on_anonymous: OnAnonymous = OnAnonymous::Address,
        /// For about how many keys there is room. Default: as many as `maxMemory` has room for.
        capacity: Option<u32>,
        /// The most memory that the states may take in each Envoy; their names take some more. Default: `16Mi`.
        max_memory: Memory = Memory(16 << 20),
        /// What happens to a key for which there is no room. `shared`: all new keys of an address block (/24, /48) together have one more limit. `allow`, `deny`. Default: `shared`.
        on_overflow: OnOverflow = OnOverflow::Shared,
        /// What happens when other workers change a state again and again. Default: `deny`.
        on_contention: OnContention = OnContention::Deny,
        /// `observe`: counts what it would have refused. Default: `enforce`.
        enforcement: Enforcement = Enforcement::Enforce,
    }
}

object! {
    /// Which requests a quota counts; each list that is not empty must have one that fits.
    pub(crate) struct MatchDocument {
        /// Hosts: exact names, `*.suffix`, or `*`.
        hosts: Vec<HostPattern> = Vec::new(),
        /// Paths; `/api` covers `/api` and everything below it.
        path_prefixes: Vec<PathPrefix> = Vec::new(),
        /// Methods, as in `POST`.
        methods: Vec<Method> = Vec::new(),
    }
}

object! {
    /// What the plugin does in the sidecar of a pod.
    pub(crate) struct SidecarDocument {
        /// What the pod is. `own`: one version, named by its `version` label. `shadow`: it gets copies of requests, and nobody sees its answers; its own calls are marked with `x-shadow: true`.
        serves: Serves,
        /// Hosts whose requests leave with the pod's version: exact names, `*.suffix`, or `name.*` for a service under any of its cluster names (`name`, `name.namespace`, `name.namespace.svc` and below).
        stamp: Vec<HostPattern> = Vec::new(),
        /// What happens to a request for another version. `observe`: it is counted; `refuse`: it is counted and gets 421 (RFC 9110, 15.5.20), which the gateway turns into 502. Default: `observe`.
        on_mismatch: OnMismatch = OnMismatch::Observe,
        /// Version names that the mismatch metric may show; others count as `other`.
        versions: Vec<Label> = Vec::new(),
        /// With `serves: shadow`: hosts that may be called with methods that are not safe (RFC 9110, 9.2.1), written as in `stamp`. Others are not: a copy of a request must not do again what the request does.
        unsafe_to: Vec<HostPattern> = Vec::new(),
    }
}

words! {
    /// What decides for a user who has a version already.
    pub(crate) enum Stickiness {
        /// The version cookie.
        Cookie = "cookie",
        /// The slot; the cookie only reports.
        Identity = "identity",
    }
}

words! {
    /// Whether the client's own X-App-Version counts.
    pub(crate) enum ClientHeader {
        /// It does not.
        Ignore = "ignore",
        /// It does.
        Accept = "accept",
    }
}

words! {
    /// What a user without a version gets.
    pub(crate) enum OnMissing {
        /// The version of the slot.
        Split = "split",
        /// The baseline.
        Baseline = "baseline",
    }
}

words! {
    /// What happens to Cache-Control of responses.
    pub(crate) enum CacheControl {
        /// Shared caches are told not to store.
        Private = "private",
        /// Nothing.
        Leave = "leave",
    }
}

words! {
    /// The state of a version.
    pub(crate) enum State {
        /// Serves and takes new users.
        Live = "live",
        /// Keeps its cookie holders, takes nobody new.
        Draining = "draining",
        /// Serves nobody; holders are re-assigned at their next request.
        Off = "off",
    }
}

words! {
    /// How a quota counts.
    pub(crate) enum AlgorithmName {
        /// Exactly, in any window.
        Window = "window",
        /// As a bucket that leaks (GCRA).
        Bucket = "bucket",
    }
}

words! {
    /// What happens to users whom no trusted identity names.
    pub(crate) enum OnAnonymous {
        /// They are counted by client address.
        Address = "address",
        /// They are not counted.
        Skip = "skip",
    }
}

words! {
    /// What happens to a key for which there is no room.
    pub(crate) enum OnOverflow {
        /// It shares one state with the new keys of its address block.
        Shared = "shared",
        /// It is admitted.
        Allow = "allow",
        /// It is refused.
        Deny = "deny",
    }
}

words! {
    /// What happens when other workers change a state again and again.
    pub(crate) enum OnContention {
        /// The request is refused.
        Deny = "deny",
        /// The request is admitted.
        Allow = "allow",
    }
}

words! {
    /// Whether a quota is kept.
    pub(crate) enum Enforcement {
        /// It is.
        Enforce = "enforce",
        /// It counts what it would have refused.
        Observe = "observe",
        /// It does nothing.
        Off = "off",
    }
}

words! {
    /// What a pod serves.
    pub(crate) enum Serves {
        /// The version of its label.
        Own = "own",
        /// Copies of requests.
        Shadow = "shadow",
    }
}

words! {
    /// What happens to a request for another version than the pod's.
    pub(crate) enum OnMismatch {
        /// It is counted and served.
        Observe = "observe",
        /// It is counted and refused.
        Refuse = "refuse",
    }
}

text! {
    /// A name that may stand in headers, cookies and metrics (RFC 1123).
    pub(crate) struct Label: "1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit (a DNS-1123 label)", is_label
}

text! {
    /// A request header that a policy may name.
    pub(crate) struct HeaderName: "a header name in lower case (RFC 9110 token) other than host, cookie, x-app-version, x-shadow, x-rollout-bucket and those of the connection", |text| {
        const TAKEN: [&str; 12] = [
            "connection", "content-length", "cookie", "host", "keep-alive", "te", "trailer",
            "transfer-encoding", "upgrade", "x-app-version", "x-rollout-bucket", "x-shadow",
        ];
        is_token(text) && !text.bytes().any(|b| b.is_ascii_uppercase()) && !TAKEN.contains(&text)
    }
}

text! {
    /// The name of a cookie (RFC 6265, section 4.1.1).
    pub(crate) struct CookieName: "a cookie name (RFC 6265 token) of at most 64 characters", is_token
}

text! {
    /// A prefix of normalised paths.
    pub(crate) struct PathPrefix: "a path that begins with /, in normal form: no query, fragment, empty or dot segments, unreserved characters not percent-encoded, percent-encodings in upper case", |text| {
        text.starts_with('/')
            && !text.contains(['?', '#'])
            && text.bytes().all(|b| b.is_ascii_graphic())
            && crate::path::normalise(text.as_bytes()) == text.as_bytes()
    }
}

text! {
    /// The origin of a page (RFC 6454, section 6.2), or `:*` in the place of its port.
    pub(crate) struct Origin: "an origin in lower case: http:// or https://, a host, and a port unless it is the scheme's own, or :* for any port and none; no path", |text| {
        let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        authority.is_some_and(|authority| {
            let (host, port) = authority.split_once(':').unwrap_or((authority, "1"));
            let is_port = port == "*" || port.parse::<u16>().is_ok_and(|port| port > 0);
            crate::host::is_domain(host) && is_port
        })
    }
}

text! {
    /// A cookie's Domain attribute.
    pub(crate) struct Domain: "a domain name in lower case without a leading dot, not an IP address, of at most 253 characters", |text| {
        crate::host::is_domain(text) && text.contains(|c: char| c.is_ascii_lowercase())
    }
}

text! {
    /// A request method (RFC 9110, section 9.1).
    pub(crate) struct Method: "a method in upper case, as in POST", |text| {
        is_token(text) && !text.bytes().any(|b| b.is_ascii_lowercase())
    }
}

text! {
    /// The name of an environment variable.
    pub(crate) struct EnvName: "the name of an environment variable: A-Z, a-z, 0-9 and _, not beginning with a digit", |text| {
        !text.is_empty()
            && !text.starts_with(|c: char| c.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    }
}

pub(crate) fn is_label(text: &str) -> bool {
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(inner)
        && bytes.last().is_some_and(inner)
        && bytes.iter().all(|b| inner(b) || *b == b'-')
}

fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

impl IdentityDocument {
    fn visitor() -> Self {
        Self {
            header: None,
            cookie: Some(CookieName("visitor".to_owned())),
            trusted: false,
            mint: None,
        }
    }
}

impl Default for CookieDocument {
    fn default() -> Self {
        Self {
            name: CookieName("app-version".to_owned()),
            max_age: MaxAge::default(),
            domain: None,
        }
    }
}

/// A share of the users, in slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weight(pub(crate) u32);

impl Read for Weight {
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self {
        let slots = value
            .as_f64()
            .map(|percent| percent * f64::from(SLOTS) / 100.0);
        // Half a millionth of a slot: what decimal fractions lose in binary.
        let whole = |slots: &f64| {
            (0.0..=f64::from(SLOTS)).contains(slots) && (slots - slots.round()).abs() < 5e-7
        };
        match slots.filter(whole) {
            Some(slots) => Self(slots.round() as u32),
            None => {
                faults.add(
                    path,
                    value,
                    "a percentage from 0 to 100 with at most two decimals",
                );
                Self::stand_in()
            }
        }
    }

    fn stand_in() -> Self {
        Self(0)
    }

    fn schema() -> Value {
        json!({ "type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.01 })
    }
}

/// How long a browser keeps a cookie, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MaxAge(pub(crate) u64);

impl Default for MaxAge {
    fn default() -> Self {
        Self(30 * DAY)
    }
}

impl Read for MaxAge {
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self {
        // The cookie carries its day of issue, so anything under two days could not be renewed in
        // time; browsers cut what is over 400 days (RFC 6265bis, section 5.5).
        let seconds = value
            .as_str()
            .and_then(duration)
            .filter(|seconds| (2 * DAY..=400 * DAY).contains(seconds));
        match seconds {
            Some(seconds) => Self(seconds),
            None => {
                let allowed = "a duration from 2d to 400d: a whole number and s, m, h or d";
                faults.add(path, value, allowed);
                Self::default()
            }
        }
    }

    fn stand_in() -> Self {
        Self::default()
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9]+[smhd]$" })
    }
}

/// The period of a quota, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period(pub(crate) u64);

impl Read for Period {
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self {
        let seconds = value
            .as_str()
            .and_then(duration)
            .filter(|seconds| (1..=DAY).contains(seconds));
        seconds.map_or_else(
            || {
                let allowed = "a duration from 1s to 1d: a whole number and s, m, h or d";
                faults.add(path, value, allowed);
                Self::stand_in()
            },
            Self,
        )
    }

    fn stand_in() -> Self {
        Self(60)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9]+[smhd]$" })
    }
}

/// An amount of memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory(pub(crate) usize);

impl Read for Memory {
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self {
        let bytes = value
            .as_str()
            .and_then(|text| {
                let (number, unit) = text.split_at_checked(text.len().checked_sub(2)?)?;
                let shift = match unit {
                    "Ki" => 10,
                    "Mi" => 20,
                    _ => return None,
                };
                let digits =
                    (1..=6).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
                digits
                    .then(|| number.parse::<usize>().ok())
                    .flatten()?
                    .checked_mul(1 << shift)
            })
            .filter(|bytes| (64 << 10..=256 << 20).contains(bytes));
        bytes.map_or_else(
            || {
                let allowed = "an amount from 64Ki to 256Mi: a whole number and Ki or Mi";
                faults.add(path, value, allowed);
                Self::stand_in()
            },
            Self,
        )
    }

    fn stand_in() -> Self {
        Self(16 << 20)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9]{1,6}[KM]i$" })
    }
}

/// One part of what a quota counts by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyPart(pub(crate) Part);

impl Read for KeyPart {
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self {
        let part = value.as_str().and_then(|text| {
            Some(match text {
                "user" => Part::User,
                "path" => Part::Path,
                "address" => Part::Address,
                _ => {
                    let name = text.strip_prefix("header:")?;
                    let mut none = Faults::default();
                    let HeaderName(name) = HeaderName::read(&Value::from(name), "", &mut none);
                    none.is_empty().then_some(Part::Header(name))?
                }
            })
        });
        part.map_or_else(
            || {
                let allowed = "user, path, address or header:<name in lower case>";
                faults.add(path, value, allowed);
                Self::stand_in()
            },
            Self,
        )
    }

    fn stand_in() -> Self {
        Self(Part::User)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^(user|path|address|header:[^A-Z]+)$" })
    }
}

/// Seconds of `30d`, `12h`, `5m`, `90s`.
fn duration(text: &str) -> Option<u64> {
    let unit = match text.bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 60 * 60,
        b'd' => DAY,
        _ => return None,
    };
    let number = text.get(..text.len().checked_sub(1)?)?;
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(unit)
}

impl Read for SlotRange {
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self {
        // YAML reads a single slot as a number.
        let text = match value {
            Value::Number(slot) => slot.to_string(),
            value => value.as_str().unwrap_or_default().to_owned(),
        };
        Self::parse(&text).unwrap_or_else(|| {
            let allowed =
                "slots as in 0-8999 or 42: whole numbers from 0 to 9999, the smaller first";
            faults.add(path, value, allowed);
            Self::stand_in()
        })
    }

    fn stand_in() -> Self {
        Self { first: 0, last: 0 }
    }

    fn schema() -> Value {
        json!({
            "type": ["string", "integer"],
            "pattern": "^[0-9]{1,4}(-[0-9]{1,4})?$",
            "minimum": 0,
            "maximum": 9999,
        })
    }
}

impl Read for HostPattern {
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self {
        value.as_str().and_then(Self::parse).unwrap_or_else(|| {
            let allowed = "a host name in lower case without a port, *.suffix, name.* or *";
            faults.add(path, value, allowed);
            Self::stand_in()
        })
    }

    fn stand_in() -> Self {
        Self::Any
    }

    fn schema() -> Value {
        json!({ "type": "string" })
    }
}
