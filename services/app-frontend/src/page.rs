//! The page.

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use service_kit::Version;

use crate::origin::Origin;

/// The page with its settings written into it: where the API is, and the version that it belongs to.
/// They come with the page and not after it, so they cannot be those of another version.
#[derive(Clone)]
pub(crate) struct Page {
    html: String,
    policy: HeaderValue,
}

impl Page {
    pub(crate) fn new(api: &Origin, version: &Version) -> anyhow::Result<Self> {
        let html = include_str!("page.html")
            .replace("{{API_URL}}", &api.to_string())
            .replace("{{VERSION}}", &version.to_string());
        // All of it is in the page: the browser is told to load nothing else, and to call only the API.
        let policy = format!(
            "default-src 'none'; connect-src {api}; img-src data:; script-src 'unsafe-inline'; \
             style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let policy = HeaderValue::try_from(policy)?;
        Ok(Self { html, policy })
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let headers = [
            (header::CONTENT_SECURITY_POLICY, self.policy),
            // Versions have pages of their own: ask before showing a kept one.
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        (headers, Html(self.html)).into_response()
    }
}
