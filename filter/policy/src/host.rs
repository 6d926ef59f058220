//! Which hosts a rollout or a sidecar rule is for.

use crate::config::document::is_label;

/// A pattern of hosts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostPattern {
    /// One host.
    Exact(String),
    /// `*.suffix`: every host below a domain, not the domain itself. Holds `.suffix`.
    Suffix(String),
    /// `name.*`: a service under any of its cluster names: `name`, `name.namespace`,
    /// `name.namespace.svc`, `name.namespace.svc.cluster.local`. Holds `name`.
    Service(String),
    /// `*`: every host.
    Any,
}

impl HostPattern {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            return is_domain(suffix).then(|| Self::Suffix(format!(".{suffix}")));
        }
        if let Some(name) = text.strip_suffix(".*") {
            return is_domain(name).then(|| Self::Service(name.to_owned()));
        }
        let address = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
        (is_domain(text) || address).then(|| Self::Exact(text.to_owned()))
    }

    /// Whether `host` (without port) is one of them. Host names have no case (RFC 9110, 4.2.3).
    pub(crate) fn matches(&self, host: &[u8]) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name.as_bytes()),
            Self::Suffix(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .filter(|rest| *rest > 0)
                .and_then(|rest| host.get(rest..))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes())),
            Self::Service(name) => {
                let Some((start, rest)) = host.split_at_checked(name.len()) else {
                    return false;
                };
                let mut labels = rest.split(|b| *b == b'.');
                // Before the first dot there must be nothing, after the second one `svc`.
                start.eq_ignore_ascii_case(name.as_bytes())
                    && labels.next() == Some(b"")
                    && labels
                        .nth(1)
                        .is_none_or(|label| label.eq_ignore_ascii_case(b"svc"))
            }
            Self::Any => true,
        }
    }

    /// What tells it from other patterns.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Suffix(text) | Self::Service(text) => text,
            Self::Any => "*",
        }
    }

    /// More specific patterns come first: exact names, then longer suffixes, then `*`.
    pub(crate) fn specificity(&self) -> (u8, usize) {
        match self {
            Self::Exact(_) => (3, 0),
            Self::Suffix(suffix) => (2, suffix.len()),
            Self::Service(name) => (1, name.len()),
            Self::Any => (0, 0),
        }
    }

    /// Whether all hosts of the pattern belong to `domain`, as far as that can be known.
    pub(crate) fn within(&self, domain: &str) -> bool {
        match self {
            Self::Exact(name) => name == domain || name.ends_with(&format!(".{domain}")),
            Self::Suffix(suffix) => format!("*{suffix}").ends_with(&format!(".{domain}")),
            Self::Service(_) | Self::Any => true,
        }
    }
}

/// The host of an authority: without port and without the dot of a rooted name.
pub(crate) fn of_authority(authority: &[u8]) -> &[u8] {
    let host = match authority.iter().rposition(|b| *b == b':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some(colon) => match authority.split_at_checked(colon) {
            Some((host, port)) if port.iter().skip(1).all(u8::is_ascii_digit) => host,
            _ => authority,
        },
        None => authority,
    };
    host.strip_suffix(b".").unwrap_or(host)
}

pub(crate) fn is_domain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Service(name) => write!(f, "{name}.*"),
            Self::Any => write!(f, "*"),
        }
    }
}
