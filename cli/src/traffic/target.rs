//! Where requests go, and what all of them are like.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::http::uri::{PathAndQuery, Scheme, Uri};

use super::Traffic;

/// Who is asked, and how.
#[derive(Debug)]
pub(crate) struct Target {
    /// A name, or an address.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: PathAndQuery,
    /// With Host.
    pub(crate) headers: HeaderMap,
    /// A connection serves one request.
    pub(crate) new_connections: bool,
    pub(crate) timeout: Duration,
}

impl Target {
    pub(crate) fn new(args: &Traffic) -> Self {
        let Url {
            authority,
            host,
            port,
            path,
        } = args.url.clone();
        let resolved = args.resolve.iter().find(|resolve| {
            (resolve.host.as_str(), resolve.port) == (host.to_lowercase().as_str(), port)
        });
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static("lanekeeper"));
        headers.insert(HOST, authority);
        for Header(name, value) in &args.headers {
            match *name {
                HOST | USER_AGENT => drop(headers.insert(name, value.clone())),
                _ => drop(headers.append(name, value.clone())),
            }
        }
        Self {
            host: resolved.map_or(host, |resolve| resolve.address.to_string()),
            port,
            path,
            headers,
            new_connections: args.new_connections,
            timeout: args.timeout,
        }
    }
}

/// `http://HOST[:PORT][/PATH][?QUERY]`
#[derive(Clone, Debug)]
pub(crate) struct Url {
    authority: HeaderValue,
    host: String,
    port: u16,
    path: PathAndQuery,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = "allowed is http://HOST[:PORT][/PATH][?QUERY], without user and password";
        let parts = text.parse::<Uri>().map_err(|_| allowed)?.into_parts();
        let authority = parts.authority.ok_or(allowed)?;
        if parts.scheme != Some(Scheme::HTTP) || authority.as_str().contains('@') {
            return Err(allowed.to_owned());
        }
        // `Authority::port` takes a port that is no number for none.
        let after_host = authority.as_str().strip_prefix(authority.host());
        let port = match after_host.ok_or(allowed)?.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| allowed)?,
            None => 80,
        };
        Ok(Self {
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| allowed)?,
            host: without_brackets(authority.host()).to_owned(),
            port,
            path: parts.path_and_query.ok_or(allowed)?,
        })
    }
}

/// `NAME: VALUE`
#[derive(Clone, Debug)]
pub(crate) struct Header(HeaderName, HeaderValue);

impl Header {
    pub(crate) fn is(&self, name: &HeaderName) -> bool {
        self.0 == *name
    }
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(name, value)| {
            let value = HeaderValue::from_str(value.trim()).ok()?;
            Some(Self(name.parse().ok()?, value))
        });
        parsed.ok_or_else(|| "allowed is a header as 'name: value'".to_owned())
    }
}

/// `HOST:PORT:ADDRESS`, where an IPv6 address may have brackets.
#[derive(Clone, Debug)]
pub(crate) struct Resolve {
    host: String,
    port: u16,
    address: IpAddr,
}

impl FromStr for Resolve {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let parsed = (|| {
            Some(Self {
                host: next()?.to_lowercase(),
                port: next()?.parse().ok()?,
                address: without_brackets(next()?).parse().ok()?,
            })
        })();
        parsed.ok_or_else(|| {
            "allowed is HOST:PORT:ADDRESS, such as shop.example:80:127.0.0.1".to_owned()
        })
    }
}

/// The address in `[::1]`; anything else as it is.
fn without_brackets(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(host)
}
