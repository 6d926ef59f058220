//! What a quota counts by.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use siphasher::sip128::{Hasher128, SipHasher13};

/// A key, as it is kept and compared: its keyed hash, so that nobody can choose two keys that meet.
pub(crate) type Fingerprint = [u8; 16];

/// One part of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The user, where a trusted source names one.
    User,
    /// Host and path.
    Path,
    /// The address of the client.
    Address,
    /// The value of a header that is present exactly once.
    Header(String),
}

/// The address of a client, as far as it tells clients apart: whoever has one IPv6 address has the
/// /64 around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    V4([u8; 4]),
    V6([u8; 8]),
    /// No IP address, such as that of a Unix domain socket.
    Other,
}

impl Address {
    /// Reads Envoy's `source.address`: `192.0.2.1:4711`, `[2001:db8::1]:4711`.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let address = str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse::<SocketAddr>().ok());
        match address.map(|address| address.ip().to_canonical()) {
            Some(IpAddr::V4(address)) => Self::V4(address.octets()),
            Some(IpAddr::V6(address)) => {
                let [network @ .., _, _, _, _, _, _, _, _] = address.octets();
                Self::V6(network)
            }
            None => Self::Other,
        }
    }

    /// The block it is counted in when there is no room for each: /24, and /48, which is what one
    /// site has (RFC 6177).
    pub(crate) fn block(self) -> Self {
        match self {
            Self::V4([a, b, c, _]) => Self::V4([a, b, c, 0]),
            Self::V6([a, b, c, d, e, f, _, _]) => Self::V6([a, b, c, d, e, f, 0, 0]),
            Self::Other => Self::Other,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::V4(bytes) => bytes,
            Self::V6(bytes) => bytes,
            Self::Other => &[],
        }
    }
}

/// Puts the parts of a key together. Each is tagged and has its length before it, so that no two
/// keys look the same.
pub(crate) struct Hash(SipHasher13);

impl Hash {
    pub(crate) fn new(seed: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(seed))
    }

    pub(crate) fn user(&mut self, identity: &[u8]) {
        self.part(b'u', identity);
    }

    pub(crate) fn address(&mut self, address: Address) {
        self.part(b'a', address.bytes());
    }

    pub(crate) fn path(&mut self, host: &str, path: &[u8]) {
        self.part(b'h', host.as_bytes());
        self.part(b'p', path);
    }

    pub(crate) fn header(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.part(b'v', value),
            None => self.part(b'n', b""),
        }
    }

    fn part(&mut self, tag: u8, bytes: &[u8]) {
        self.0.write(&[tag]);
        self.0.write(&(bytes.len() as u64).to_le_bytes());
        self.0.write(bytes);
    }

    pub(crate) fn finish(self) -> Fingerprint {
        self.0.finish128().as_bytes()
    }
}

/// Whether a path is one that `template` stands for: `*` takes the place of one segment.
pub(crate) fn is_like(path: &[u8], template: &str) -> bool {
    let mut segments = path.split(|b| *b == b'/');
    let mut wanted = template.split('/');
    loop {
        match (segments.next(), wanted.next()) {
            (None, None) => return true,
            (Some(segment), Some("*")) if !segment.is_empty() => {}
            (Some(segment), Some(wanted)) if segment == wanted.as_bytes() => {}
            _ => return false,
        }
    }
}
