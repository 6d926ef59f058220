//! Pages, each whole in itself.

use axum::http::header::InvalidHeaderValue;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

/// A page.
#[derive(Clone)]
pub struct Page {
    html: String,
    policy: HeaderValue,
}

impl Page {
    /// The page of a template, in which `{{STYLE}}` stands for what the style of all pages begins with.
    /// It may call `api`, an origin or `'self'`.
    pub fn new(template: &str, api: &str) -> Result<Self, InvalidHeaderValue> {
        let html = template.replace("{{STYLE}}", include_str!("page.css").trim_end());
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
