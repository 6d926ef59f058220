//! The host: every hostcall of the plugin is made here, and every failure of one ends here.
//!
//! Bytes only: a header or property may hold anything. What fails is answered with what "nothing
//! there" means to the caller: a failed call must not cost a request.
//!
//! The SDK hands on the statuses that Envoy gives for a call and aborts the VM on any other. The
//! calls below are made only in callbacks in which Envoy has what they ask for: request headers are
//! touched in the request's callback, response headers in the response's.

use std::time::{Duration, UNIX_EPOCH};

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, GrpcStatusCode, Status};
pub(crate) use proxy_wasm::types::{LogLevel, MapType, MetricType};

/// Header fields in order.
pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// The `pluginConfig`, as JSON.
pub(crate) fn plugin_configuration() -> Vec<u8> {
    hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX)
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// The plugin's name in Envoy's configuration; `default` where it has none.
pub(crate) fn plugin_name() -> String {
    property(&["plugin_name"])
        .and_then(|name| String::from_utf8(name).ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "default".to_owned())
}

/// The `version` label of the pod that this Envoy is the sidecar of.
pub(crate) fn pod_version() -> Option<Vec<u8>> {
    property(&["xds", "node", "metadata", "LABELS", "version"])
}

/// Whether the request came in by an inbound listener (Envoy attribute `xds.listener_direction`).
pub(crate) fn is_inbound() -> bool {
    const INBOUND: [u8; 8] = 1i64.to_le_bytes();
    property(&["xds", "listener_direction"]).is_some_and(|direction| direction == INBOUND)
}

/// The address of the client, as `ip:port`; which proxies are believed when they name another one
/// is Envoy's configuration (Envoy attribute `source.address`).
pub(crate) fn client_address() -> Option<Vec<u8>> {
    property(&["source", "address"])
}

/// Whether Envoy made up the response itself, as no upstream gave one (Envoy attribute
/// `response.code_details`).
pub(crate) fn is_local_reply() -> bool {
    property(&["response", "code_details"]).is_some_and(|details| details != b"via_upstream")
}

fn property(path: &[&str]) -> Option<Vec<u8>> {
    hostcalls::get_property(path.to_vec()).ok().flatten()
}

/// An environment variable of the plugin (`vmConfig.env`, `environment_variables`).
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The time since 1970-01-01 UTC.
pub(crate) fn now() -> Duration {
    hostcalls::get_current_time()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default()
}

/// 128 random bits.
pub(crate) fn entropy() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok().map(|()| bytes)
}

/// All headers of the request or response.
pub(crate) fn headers(map: MapType) -> Fields {
    hostcalls::get_map_bytes(map).unwrap_or_default()
}

/// The first value of a header.
pub(crate) fn header(map: MapType, name: &str) -> Option<Vec<u8>> {
    hostcalls::get_map_value_bytes(map, name).ok().flatten()
}

/// Makes `value` the only value of a header.
pub(crate) fn set_header(map: MapType, name: &str, value: &[u8]) {
    let _ = hostcalls::set_map_value_bytes(map, name, Some(value));
}

/// Adds a header beside those of the same name.
pub(crate) fn add_header(map: MapType, name: &str, value: &[u8]) {
    let _ = hostcalls::add_map_value_bytes(map, name, value);
}

/// Removes all values of a header.
pub(crate) fn remove_header(map: MapType, name: &str) {
    let _ = hostcalls::remove_map_value(map, name);
}

/// A value that all workers of this Envoy share.
pub(crate) fn shared(key: &str) -> Option<Vec<u8>> {
    // An empty value is one that was cleared.
    shared_for_swap(key).0.filter(|value| !value.is_empty())
}

/// A value that all workers of this Envoy share, and the token for [`swap_shared`].
pub(crate) fn shared_for_swap(key: &str) -> (Option<Vec<u8>>, u32) {
    // Of no token, Envoy thinks that anything may be overwritten; of one that no value has, that
    // there must be no value.
    const ABSENT: u32 = u32::MAX;
    let (value, token) = hostcalls::get_shared_data(key).unwrap_or_default();
    (value, token.unwrap_or(ABSENT))
}

/// Replaces a value that all workers of this Envoy share; `false` where another worker was faster.
pub(crate) fn swap_shared(key: &str, value: &[u8], token: u32) -> bool {
    hostcalls::set_shared_data(key, Some(value), Some(token)).is_ok()
}

/// Sets a value that all workers of this Envoy share, whatever it was.
pub(crate) fn set_shared(key: &str, value: &[u8]) -> Result<(), Status> {
    hostcalls::set_shared_data(key, Some(value), None)
}

/// Frees a value that all workers of this Envoy share. The ABI cannot delete; its name stays.
pub(crate) fn clear_shared(key: &str) {
    let _ = set_shared(key, b"");
}

/// Defines a metric; workers and plugins that define the same name share it.
pub(crate) fn define_metric(kind: MetricType, name: &str) -> Option<u32> {
    hostcalls::define_metric(kind, name).ok()
}

/// Adds one to a counter.
pub(crate) fn increment(metric: Option<u32>) {
    if let Some(id) = metric {
        // Nobody could be told of a counter that does not count.
        let _ = hostcalls::increment_metric(id, 1);
    }
}

/// Sets a gauge.
pub(crate) fn record(metric: Option<u32>, value: u64) {
    if let Some(id) = metric {
        let _ = hostcalls::record_metric(id, value);
    }
}

/// Answers a request in place of the upstream; the body says why (RFC 9457).
pub(crate) fn refuse(status: u32, mut headers: Vec<(&str, &str)>, problem: &str) {
    headers.push(("content-type", "application/problem+json"));
    let _ = hostcalls::send_http_response(status, headers, Some(problem.as_bytes()));
}

/// Answers a gRPC call in place of the upstream: that its resources are exhausted.
pub(crate) fn refuse_grpc(message: &str, metadata: Vec<(&str, &[u8])>) {
    let status = GrpcStatusCode::ResourceExhausted;
    let _ = hostcalls::send_grpc_response(status, Some(message), metadata);
}

/// Writes a line to Envoy's log.
pub(crate) fn log(level: LogLevel, message: &str) {
    let _ = hostcalls::log(level, message);
}
