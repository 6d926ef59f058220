//! Paths in normal form, so that one resource has one name.

use std::borrow::Cow;

/// The path of a request target in normal form: without query and fragment, unreserved characters
/// decoded, other percent-encodings in upper case (RFC 3986, 6.2.2), empty and dot segments resolved. A resource that is exempt or
/// counted under one spelling is so under all of them.
pub fn normalise(target: &[u8]) -> Cow<'_, [u8]> {
    let end = target.iter().position(|b| matches!(b, b'?' | b'#'));
    let path = target.get(..end.unwrap_or(target.len())).unwrap_or(target);
    let plain = !path.contains(&b'%') && !path.windows(2).any(|pair| matches!(pair, b"//" | b"/."));
    if plain {
        return Cow::Borrowed(path);
    }
    let path = decode_unreserved(path);
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut parts = path.split(|b| *b == b'/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            b"." | b".." => {
                if part == b".." {
                    segments.pop();
                }
                if last {
                    segments.push(b"");
                }
            }
            b"" if !last => {}
            _ => segments.push(part),
        }
    }
    let mut normal = Vec::with_capacity(path.len());
    for segment in segments {
        normal.push(b'/');
        normal.extend_from_slice(segment);
    }
    if normal.is_empty() {
        normal.push(b'/');
    }
    Cow::Owned(normal)
}

/// Whether a normalised path is `prefix` or lies below it. `/assets` and `/assets/` cover
/// `/assets/a.js`; `/assets` also covers `/assets` itself; neither covers `/assetsx`.
pub(crate) fn is_below(path: &[u8], prefix: &str) -> bool {
    path.strip_prefix(prefix.as_bytes())
        .is_some_and(|rest| prefix.ends_with('/') || matches!(rest.first(), None | Some(b'/')))
}

fn decode_unreserved(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        let encoded = match rest {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        rest = tail;
        let Some((high, low)) = encoded else {
            decoded.push(*first);
            continue;
        };
        let byte = high << 4 | low;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            decoded.push(byte);
        } else {
            let digits = tail.iter().take(2).map(u8::to_ascii_uppercase);
            decoded.push(b'%');
            decoded.extend(digits);
        }
        rest = tail.get(2..).unwrap_or_default();
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}
