//! JSON request bodies.

use std::fmt;
use std::marker::PhantomData;

use axum::body::HttpBody;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::{MAX_BODY, Problem};

/// How much of what was sent an error repeats, in characters.
const MAX_QUOTED: usize = 50;

/// A JSON object as request body; what is not one is answered with a [`Problem`].
pub struct Json<T>(
    /// The body.
    pub T,
);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        // By its Content-Length, where it has one: such a body is not waited for.
        if request.body().size_hint().lower() > MAX_BODY as u64 {
            return Err(too_large());
        }
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(Object(body))) => Ok(Self(body)),
            Err(rejection) => Err(explain(&rejection)),
        }
    }
}

/// Serde would take an array for a struct too, its elements for the fields in order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

fn explain(rejection: &JsonRejection) -> Problem {
    // What is before the error says only which of these it is.
    let text = rejection.body_text();
    let text = text.split_once(": ").map_or(&*text, |(_, error)| error);
    let (error, place) = text.rsplit_once(" at line ").unwrap_or((text, "1"));
    let detail = match rejection {
        JsonRejection::MissingJsonContentType(_) => {
            "content-type: allowed is application/json".to_owned()
        }
        JsonRejection::JsonSyntaxError(_) => {
            format!("body: not JSON from line {place}: allowed is a JSON object in UTF-8")
        }
        JsonRejection::JsonDataError(_) => fault(error),
        other if other.status() == StatusCode::PAYLOAD_TOO_LARGE => return too_large(),
        _ => "body: broken off: allowed is a whole one".to_owned(),
    };
    Problem::new(rejection.status(), detail)
}

fn too_large() -> Problem {
    let detail = format!("body: too large: allowed are up to {MAX_BODY} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// `path: value: what is allowed`, out of what serde and our own types say.
fn fault(error: &str) -> String {
    let is_path = |path: &str| path.chars().all(|c| c.is_ascii_alphanumeric());
    let (path, error) = match error.split_once(": ") {
        Some((path, error)) if is_path(path) => (path, error),
        _ => ("body", error),
    };
    let after = |kind| error.strip_prefix(kind);
    // The path of one that is unknown is its name, which may be anything.
    let unknown = error.rsplit_once("unknown field ").map(|(_, field)| field);
    let value = after("invalid type: ").or_else(|| after("invalid value: "));
    if let Some(field) = after("missing field ") {
        format!("{}: missing: it is required", unquoted(field))
    } else if let Some(field) = after("duplicate field ") {
        format!("{}: given twice: allowed is once", unquoted(field))
    } else if let Some((value, kind)) = value.and_then(expected) {
        format!("{path}: {}: allowed is {kind}", shortened(value))
    } else if let Some((field, fields)) = unknown.and_then(expected) {
        let field = shortened(field.trim_matches('`'));
        format!("{field}: unknown: allowed is {}", unquoted(fields))
    } else if let Some((value, allowed)) = error.rsplit_once(": allowed ") {
        format!("{path}: {}: allowed {allowed}", shortened(value))
    } else {
        format!("{path}: {}", shortened(error))
    }
}

/// What is wrong, and what serde expected in its place.
fn expected(error: &str) -> Option<(&str, &str)> {
    error.rsplit_once(", expected ")
}

fn unquoted(fields: &str) -> String {
    fields.replace('`', "")
}

/// What was sent, for the sender to recognise.
fn shortened(value: &str) -> String {
    match value.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::header::CONTENT_TYPE;
    use axum::response::IntoResponse;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Question {
        #[serde(rename = "sms")]
        _sms: String,
        #[serde(rename = "guess")]
        _guess: Option<Guess>,
    }

    #[derive(Deserialize)]
    #[serde(try_from = "String")]
    struct Guess;

    impl TryFrom<String> for Guess {
        type Error = String;

        fn try_from(text: String) -> Result<Self, String> {
            Err(format!("{text:?}: allowed are spam and ham"))
        }
    }

    async fn refusal(body: impl Into<Body>) -> String {
        let request = Request::builder().header(CONTENT_TYPE, "application/json");
        let request = request.body(body.into()).expect("a request");
        let Err(problem) = Json::<Question>::from_request(request, &()).await else {
            panic!("it is accepted");
        };
        let body = to_bytes(problem.into_response().into_body(), usize::MAX).await;
        let body = String::from_utf8(body.expect("a body").to_vec()).expect("UTF-8");
        let detail = body.split_once(r#""detail":""#).expect("a problem").1;
        let detail = detail.strip_suffix(r#""}"#).expect("the end");
        detail.replace(r#"\""#, "\"")
    }

    #[tokio::test]
    async fn a_fault_is_told_by_where_it_is_what_it_is_and_what_is_allowed() {
        for (body, said) in [
            (r#"{"sms": 7}"#, "sms: integer `7`: allowed is a string"),
            (r#"{"sms": {}}"#, "sms: map: allowed is a string"),
            ("{}", "sms: missing: it is required"),
            (
                r#"{"sms": "", "sms": ""}"#,
                "sms: given twice: allowed is once",
            ),
            (
                r#"{"v: 1, expected `x`": 7}"#,
                "v: 1, expected `x: unknown: allowed is sms or guess",
            ),
            (
                r#"{"sms": "", "guess": "x: allowed are eggs"}"#,
                r#"guess: "x: allowed are eggs": allowed are spam and ham"#,
            ),
            (
                r#""hi at line 3""#,
                r#"body: string "hi at line 3": allowed is a JSON object"#,
            ),
            ("[]", "body: sequence: allowed is a JSON object"),
        ] {
            assert_eq!(refusal(body).await, said, "{body}");
        }
    }

    #[tokio::test]
    async fn what_is_not_json_is_told_by_where_it_stops_to_be() {
        for (body, place) in [
            ("", "line 1 column 0"),
            ("sms=hi", "line 1 column 1"),
            ("{\n\"sms\": \"\\u00zz\"}", "line 2 column 14"),
            (r#"{"sms": "hi"} {}"#, "line 1 column 15"),
        ] {
            let said = format!("body: not JSON from {place}: allowed is a JSON object in UTF-8");
            assert_eq!(refusal(body).await, said, "{body}");
        }
        let detail = refusal(b"{\"sms\": \"\xff\"}".as_slice()).await;
        assert!(
            detail.ends_with("allowed is a JSON object in UTF-8"),
            "{detail}"
        );
    }

    #[tokio::test]
    async fn what_was_sent_does_not_come_back_at_length() {
        let long = "é".repeat(20_000);
        for (body, allowed) in [
            (
                format!(r#"{{"sms": "", "guess": "{long}"}}"#),
                "spam and ham",
            ),
            (format!(r#"{{"{long}": 1}}"#), "sms or guess"),
            (format!(r#""{long}""#), "a JSON object"),
        ] {
            let detail = refusal(body).await;
            assert!(detail.chars().count() < 120, "{detail}");
            assert!(
                detail.contains("ééé…: ") && detail.ends_with(allowed),
                "{detail}"
            );
        }
    }
}
