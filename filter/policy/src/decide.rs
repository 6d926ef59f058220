//! One request, one decision.

use crate::config::document::{CacheControl, ClientHeader, OnMissing, Stickiness};
use crate::cookie::{self, VersionCookie};
use crate::headers::Headers;
use crate::policy::{Identity, IdentitySource, Policy, Rollout};
use crate::sidecar::SHADOW_HEADER;
use crate::slot::{bucket, slot};
use crate::{VERSION_HEADER, path};

/// The request header that names the user's bucket, for metrics of experiments.
pub const BUCKET_HEADER: &str = "x-rollout-bucket";

/// Headers beside the version header that only the filter may set.
const FILTER_HEADERS: [&str; 2] = [SHADOW_HEADER, BUCKET_HEADER];

/// An identity is at most this long.
const MAX_IDENTITY: usize = 256;

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its headers, pseudo-headers included.
    pub headers: Headers<'a>,
    /// Seconds since 1970-01-01 UTC.
    pub now: u64,
}

/// Draws 128 random bits; `None` where there is no entropy.
pub type Entropy<'a> = &'a mut dyn FnMut() -> Option<[u8; 16]>;

/// What happens to a request and to its response.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision<'p> {
    /// What was decided.
    pub outcome: Outcome,
    /// The value of the version header; where it is `None`, the request leaves without one.
    pub version: Option<&'p str>,
    /// The value of the bucket header; where it is `None`, the request leaves without one.
    pub bucket: Option<u32>,
    /// Headers of the request that may not go on.
    pub remove: Vec<&'p str>,
    /// What happens to the response.
    pub response: ResponsePlan,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No rollout is for this host and path.
    Unmatched,
    /// A preflight or an exempt path: the baseline, and no trace.
    Exempt,
    /// A version was assigned.
    Assigned(Assignment),
}

/// The version of a request, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Index into [`Policy::rollouts`].
    pub rollout: usize,
    /// Index into [`Rollout::versions`].
    pub version: usize,
    /// Why this version.
    pub source: Source,
    /// The slot of the user's identity, where the request has one.
    pub slot: Option<u32>,
    /// Whether a visitor id was minted: a new person.
    pub minted: bool,
    /// Whether somebody chose the version: by the override, here or for the page that calls.
    pub chosen: bool,
}

impl Assignment {
    /// The user's bucket. Who chose the version belongs to no experiment.
    fn bucket(&self) -> Option<u32> {
        self.slot.filter(|_| !self.chosen).map(bucket)
    }
}

/// What a version was assigned by, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The override header.
    Override,
    /// The version cookie.
    Cookie,
    /// The client's own version header.
    Header,
    /// The slot of the identity.
    Slot,
    /// Nothing said otherwise.
    Baseline,
}

impl Source {
    /// All sources, in order of precedence.
    pub const ALL: [Self; 5] = [
        Self::Override,
        Self::Cookie,
        Self::Header,
        Self::Slot,
        Self::Baseline,
    ];

    /// The name, as in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::Cookie => "cookie",
            Self::Header => "header",
            Self::Slot => "slot",
            Self::Baseline => "baseline",
        }
    }
}

/// What happens to a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponsePlan {
    /// Values of Set-Cookie headers to add.
    pub set_cookies: Vec<String>,
    /// Whether shared caches are told not to store it
    /// ([`private_cache_control`](crate::private_cache_control)).
    pub private: bool,
}

impl Policy {
    /// Decides on a request at the gateway.
    pub fn decide(&self, request: Request<'_>, entropy: Entropy<'_>) -> Decision<'_> {
        let headers = request.headers;
        let present = |name: &&str| headers.contains(name);
        let mut remove: Vec<&str> = FILTER_HEADERS.into_iter().filter(present).collect();
        let target = headers.first(":path").unwrap_or_default();
        let path = path::normalise(target);
        let found = self.find(headers.first(":authority").unwrap_or_default(), &path);
        let Some((index, rollout)) =
            found.and_then(|index| Some((index, self.rollouts().get(index)?)))
        else {
            remove.extend(Some(VERSION_HEADER).filter(present));
            return Decision {
                outcome: Outcome::Unmatched,
                version: None,
                bucket: None,
                remove,
                response: ResponsePlan::default(),
            };
        };
        // A secret is for us, not for those behind us.
        remove.extend(rollout.secret_header().filter(present));
        if is_preflight(headers) || rollout.exempts(&path) {
            return Decision {
                outcome: Outcome::Exempt,
                version: rollout.version_name(rollout.baseline),
                bucket: None,
                remove,
                response: ResponsePlan::default(),
            };
        }
        let (assignment, set_cookies) = rollout.assign(index, request, entropy);
        let bucket = assignment.bucket();
        if bucket.is_some() {
            // It is replaced.
            remove.retain(|name| *name != BUCKET_HEADER);
        }
        Decision {
            outcome: Outcome::Assigned(assignment),
            version: rollout.version_name(assignment.version),
            bucket,
            remove,
            response: ResponsePlan {
                set_cookies,
                private: rollout.cache_control == CacheControl::Private,
            },
        }
    }
}

impl Rollout {
    fn version_name(&self, version: usize) -> Option<&str> {
        self.versions.get(version).map(|version| version.name())
    }

    fn secret_header(&self) -> Option<&str> {
        let secret = self.override_by.as_ref()?.secret.as_ref()?;
        Some(&secret.header)
    }

    /// Whether a path is exempt. One that another server may read as another path is not: where
    /// `%2f` is a slash, `/health/..%2fsms` is `/sms`.
    fn exempts(&self, path: &[u8]) -> bool {
        let ambiguous = path.contains(&b'\\')
            || path.windows(3).any(|triplet| {
                [b"%2f", b"%5c"]
                    .iter()
                    .any(|t| triplet.eq_ignore_ascii_case(*t))
            });
        !ambiguous
            && self
                .exempt
                .iter()
                .any(|prefix| path::is_below(path, prefix))
    }

    /// The assignment of a request, and the cookies that tell the client of it.
    fn assign(
        &self,
        index: usize,
        request: Request<'_>,
        entropy: Entropy<'_>,
    ) -> (Assignment, Vec<String>) {
        let headers = request.headers;
        let identity = self.identify(headers);
        let slot_of = |identity: &[u8]| slot(&self.name, identity);
        let mut assignment = Assignment {
            rollout: index,
            version: self.baseline,
            source: Source::Baseline,
            slot: identity.map(|(_, identity)| slot_of(identity)),
            minted: false,
            chosen: false,
        };
        let mut cookies = Vec::new();
        let cookie = self.version_cookie(headers);

        if let Some(version) = self.overridden(headers) {
            (assignment.version, assignment.source) = (version, Source::Override);
            assignment.chosen = true;
            return (assignment, cookies);
        }
        let remembered = cookie.filter(|_| self.stickiness == Stickiness::Cookie);
        let remembered = remembered.map(|(version, _)| version);
        // The header first: it is the version of the page that calls, which an override may have led
        // elsewhere than the cookie says, and page and API must agree.
        if let Some(version) = self.brought_along(headers) {
            (assignment.version, assignment.source) = (version, Source::Header);
            let of_slot = || Some(self.version_of_slot(assignment.slot?));
            assignment.chosen = remembered
                .or_else(of_slot)
                .is_some_and(|own| own != version);
        } else if let Some(version) = remembered {
            (assignment.version, assignment.source) = (version, Source::Cookie);
        } else if self.on_missing == OnMissing::Split {
            let mut minted = None;
            if assignment.slot.is_none() && self.client_header == ClientHeader::Ignore {
                minted = self.mint(entropy);
            }
            if let Some((name, id)) = &minted {
                assignment.slot = Some(slot_of(id.as_bytes()));
                assignment.minted = true;
                cookies.push(self.set_visitor_cookie(name, id, headers));
            }
            if let Some(slot) = assignment.slot {
                assignment.version = self.version_of_slot(slot);
                assignment.source = Source::Slot;
            }
        }

        // A client that brings its version along has its cookie from another host; a baseline that
        // nobody decided on is nothing to remember.
        let remembers = matches!(assignment.source, Source::Cookie | Source::Slot)
            && self.client_header == ClientHeader::Ignore;
        if !remembers {
            return (assignment, cookies);
        }
        let up_to_date = cookie.is_some_and(|(version, cookie)| {
            version == assignment.version && !cookie.is_due(request.now, self.cookie_max_age)
        });
        if !up_to_date {
            cookies.extend(self.set_version_cookie(assignment.version, request));
            if let Some((
                Identity {
                    source: IdentitySource::Cookie(name),
                    mint: true,
                    ..
                },
                id,
            )) = identity
                && let Some(id) = str::from_utf8(id).ok()
                && cookie::is_cookie_value(id.as_bytes())
            {
                // The two live and are renewed together.
                cookies.push(self.set_visitor_cookie(name, id, headers));
            }
        }
        (assignment, cookies)
    }

    /// The first source that names the user. A header, or a cookie that is trusted, must be present
    /// exactly once: of two, nobody can say which one others go by. Of several visitor cookies the
    /// first counts: a browser may have one of another scope that we cannot replace, and always
    /// sends them in the same order (RFC 6265, 5.4); to mint anew each time would heal nothing.
    fn identify<'a>(&self, headers: Headers<'a>) -> Option<(&Identity, &'a [u8])> {
        self.identity
            .iter()
            .find_map(|identity| Some((identity, identity.value(headers)?)))
    }

    /// Who the user is, as a source says that clients cannot choose.
    pub(crate) fn trusted<'a>(&self, headers: Headers<'a>) -> Option<&'a [u8]> {
        let trusted = self.identity.iter().filter(|identity| identity.trusted);
        trusted
            .filter_map(|identity| identity.value(headers))
            .next()
    }

    /// A new visitor id and the cookie it goes into.
    fn mint(&self, entropy: Entropy<'_>) -> Option<(&str, String)> {
        let name = self
            .identity
            .iter()
            .find_map(|identity| match &identity.source {
                IdentitySource::Cookie(name) if identity.mint => Some(name),
                _ => None,
            })?;
        Some((name, format!("{:032x}", u128::from_be_bytes(entropy()?))))
    }

    fn overridden(&self, headers: Headers<'_>) -> Option<usize> {
        let by = self.override_by.as_ref()?;
        let version = self.serving(headers.once(&by.header)?)?;
        let known = by.secret.as_ref().is_none_or(|secret| {
            use subtle::ConstantTimeEq;
            headers
                .once(&secret.header)
                .is_some_and(|value| value.ct_eq(secret.value.as_bytes()).into())
        });
        known.then_some(version)
    }

    /// The version cookie that counts. There may be several: a browser sends one for the host and
    /// one for its domain. The one that was issued last says what we last said; of equals, the first.
    fn version_cookie<'a>(&self, headers: Headers<'a>) -> Option<(usize, VersionCookie<'a>)> {
        cookie::values(headers, &self.cookie_name)
            .filter_map(VersionCookie::parse)
            .filter(|cookie| cookie.epoch == self.epoch)
            .filter_map(|cookie| Some((self.serving(cookie.version.as_bytes())?, cookie)))
            .reduce(|last, next| if next.1.day > last.1.day { next } else { last })
    }

    fn brought_along(&self, headers: Headers<'_>) -> Option<usize> {
        if self.client_header == ClientHeader::Ignore {
            return None;
        }
        self.serving(headers.once(VERSION_HEADER)?)
    }

    fn set_version_cookie(&self, version: usize, request: Request<'_>) -> Option<String> {
        let value = cookie::version_value(self.version_name(version)?, self.epoch, request.now);
        Some(self.set_cookie(&self.cookie_name, &value, "", request.headers))
    }

    fn set_visitor_cookie(&self, name: &str, id: &str, headers: Headers<'_>) -> String {
        // Scripts have no use for the id, and an attacker's script would.
        self.set_cookie(name, id, "; HttpOnly", headers)
    }

    fn set_cookie(&self, name: &str, value: &str, more: &str, headers: Headers<'_>) -> String {
        let domain = self
            .cookie_domain
            .as_ref()
            .map(|domain| format!("; Domain={domain}"))
            .unwrap_or_default();
        let secure = if is_https(headers) { "; Secure" } else { "" };
        let max_age = self.cookie_max_age;
        format!("{name}={value}; Path=/; Max-Age={max_age}; SameSite=Lax{domain}{secure}{more}")
    }
}

impl Identity {
    /// What this source says of a request.
    fn value<'a>(&self, headers: Headers<'a>) -> Option<&'a [u8]> {
        let usable = |value: &&[u8]| (1..=MAX_IDENTITY).contains(&value.len());
        match &self.source {
            IdentitySource::Header(name) => headers.once(name).filter(usable),
            IdentitySource::Cookie(name) if self.trusted => {
                cookie::once(headers, name).filter(usable)
            }
            IdentitySource::Cookie(name) => cookie::values(headers, name).find(usable),
        }
    }
}

/// A CORS preflight (Fetch standard, 3.2.2): sent by the browser without credentials.
pub(crate) fn is_preflight(headers: Headers<'_>) -> bool {
    headers.first(":method") == Some(b"OPTIONS")
        && headers.contains("origin")
        && headers.contains("access-control-request-method")
}

/// Whether the client speaks https, as Envoy's connection manager found (x-forwarded-proto; :scheme
/// is what the client wrote where HTTP/2 is spoken).
fn is_https(headers: Headers<'_>) -> bool {
    let scheme = headers
        .first("x-forwarded-proto")
        .or_else(|| headers.first(":scheme"));
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https"))
}
