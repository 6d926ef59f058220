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
    let detail = match rejection {
        JsonRejection::MissingJsonContentType(_) => {
            "allowed is a body with content-type: application/json".to_owned()
        }
        JsonRejection::JsonDataError(error) => field_error(&error.body_text()).to_owned(),
        JsonRejection::BytesRejection(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return too_large();
        }
        other => other.body_text(),
    };
    Problem::new(rejection.status(), detail)
}

fn too_large() -> Problem {
    let detail = format!("allowed are bodies up to {MAX_BODY} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// `sms: what is wrong` out of `Failed to ... target type: sms: what is wrong at line 1 column 9`.
fn field_error(text: &str) -> &str {
    let text = text.split_once(": ").map_or(text, |(_, error)| error);
    text.rsplit_once(" at line ")
        .map_or(text, |(error, _)| error)
}
