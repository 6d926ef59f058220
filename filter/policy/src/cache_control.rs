//! Keeps shared caches from serving one version's answer to another version's user.

/// Response headers that speak to shared caches alone (RFC 9213; Edge Architecture).
pub const SHARED_CACHE_HEADERS: [&str; 2] = ["cdn-cache-control", "surrogate-control"];

/// The Cache-Control of a response that only its own user may keep: `public` and `s-maxage` go,
/// `private` comes, everything else stays. A response that must not be stored at all stays so, and
/// one whose header nobody can read is not stored either.
///
/// ```
/// use lanekeeper_policy::private_cache_control;
///
/// assert_eq!(private_cache_control(&[b"public, max-age=60"]), b"max-age=60, private");
/// assert_eq!(private_cache_control(&[b"no-store"]), b"no-store");
/// assert_eq!(private_cache_control(&[]), b"private");
/// ```
pub fn private_cache_control(values: &[&[u8]]) -> Vec<u8> {
    let Some(directives) = directives(&values.join(b",".as_slice())) else {
        return b"no-store".to_vec();
    };
    let kept: Vec<&[u8]> = directives
        .iter()
        .map(Vec::as_slice)
        .filter(|directive| !directive.is_empty())
        .filter(|directive| {
            let name = directive.split(|b| *b == b'=').next().unwrap_or_default();
            let name = name.trim_ascii_end();
            !["public", "private", "s-maxage"]
                .iter()
                .any(|dropped| name.eq_ignore_ascii_case(dropped.as_bytes()))
        })
        .collect();
    let no_store = kept
        .iter()
        .any(|directive| directive.eq_ignore_ascii_case(b"no-store"));
    let mut value = kept.join(b", ".as_slice());
    if !no_store {
        if !value.is_empty() {
            value.extend_from_slice(b", ");
        }
        value.extend_from_slice(b"private");
    }
    value
}

/// The parts between commas, quoted strings kept whole; `None` if a quote has no end.
fn directives(value: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut quoted = false;
    let mut escaped = false;
    let parts = value.split(|b| {
        if escaped {
            escaped = false;
        } else {
            match b {
                b'"' => quoted = !quoted,
                b'\\' => escaped = quoted,
                b',' => return !quoted,
                _ => {}
            }
        }
        false
    });
    let parts = parts.map(|part| part.trim_ascii().to_vec()).collect();
    (!quoted).then_some(parts)
}
