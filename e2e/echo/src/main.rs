//! Answers on port 8080 with what it receives, in the words of the echo upstream of `tests/harness`:
//! for a cluster, where that one cannot be reached.

use std::io;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Uri};
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:8080").await?;
    axum::serve(listener, Router::new().fallback(echo)).await
}

async fn echo(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> axum::Json<Value> {
    let headers = headers.iter();
    let headers = headers.map(|(name, value)| json!([name.as_str(), latin1(value.as_bytes())]));
    axum::Json(json!({
        "upstream": "echo",
        "method": method.as_str(),
        "path": uri.to_string(),
        "headers": headers.collect::<Vec<_>>(),
        "body": latin1(&body),
    }))
}

/// Any bytes as characters, one for each.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
