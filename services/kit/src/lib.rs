//! What every service shares: it says who it is, what it does and what went wrong in one way.
//!
//! A service makes its own routes, has [`Service::router`] add the common ones, and serves the whole
//! with [`run`].

mod args;
mod healthcheck;
mod json;
mod observe;
mod page;
mod problem;
mod serve;
mod served_by;
mod service;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;
mod unread;

pub use args::{CommonArgs, Version, deadline, settings};
pub use json::Json;
pub use observe::{request_id, seconds};
pub use page::Page;
pub use problem::Problem;
pub use serve::run;
pub use served_by::SERVED_BY;
pub use service::{MAX_BODY, Service};
pub use trace::trace_headers;
