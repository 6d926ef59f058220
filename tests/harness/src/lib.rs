//! The real parts that tests and tools run: the filter in an in-process host,
//! Envoy, services, a raw HTTP client and an upstream that echoes.
//!
//! Everything here blocks: tests are plain `#[test]` functions that run in
//! parallel, so nothing is global and every port is chosen by the system.
//!
//! | module | what it gives |
//! | --- | --- |
//! | [`build`] | the compiled filter and the service binaries |
//! | [`debian`] | Prometheus and Alertmanager, found or fetched |
//! | [`image`] | container images, written without a container engine |
//! | [`wasm_host`] | the compiled filter under full control: time, entropy, faults (feature `wasm-host`) |
//! | [`envoy`] | the real Envoy, found or fetched, started and asked by its admin API |
//! | [`plugin`] | the file from which an Envoy reads the filter and its policy |
//! | [`topology`] | an application with gateway, sidecars and services, and the same behind plain Envoy |
//! | [`prometheus`] | Prometheus and Alertmanager, configured as in `monitoring/` |
//! | [`prometheus_api`] | any Prometheus, asked |
//! | [`mail`] | a mail server that keeps what it gets |
//! | [`process`] | any other program, with its log, killed with its owner |
//! | [`upstream`] | a server that answers with exactly what it received |
//! | [`headers`] | headers in order, repeated ones included: the type that all of these share |
//! | [`http`] | a client that can send what decent clients refuse to |
//! | [`metrics`] | what Prometheus would scrape, read |
//! | [`monitoring`] | the files of `monitoring/` |
//! | [`promise`] | what promises about the SMS checker have in common |
//! | [`sentiment`] | what promises about sentiment review have in common |

pub mod build;
pub mod debian;
pub mod envoy;
pub mod headers;
pub mod http;
pub mod image;
pub mod mail;
pub mod metrics;
pub mod monitoring;
pub mod plugin;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod prometheus_api;
pub mod promise;
pub mod sentiment;
pub mod template;
pub mod topology;
pub mod upstream;
#[cfg(feature = "wasm-host")]
pub mod wasm_host;
