//! Lanekeeper as a proxy-wasm plugin: wiring between Envoy and the decision core.
#![allow(missing_docs)] // the macro's entry point is no API
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod host;
mod last_good;
mod metrics;
mod plugin;
mod quota;
mod request;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(plugin::Plugin::default()));
}}
