//! The compiled filter in a proxy-wasm host (ABI 0.2.1) that a test controls
//! fully: time, entropy, properties, shared data, and the failure of any hostcall.
//! Messages have no bodies and trailers, for Lanekeeper never looks at them.
//!
//! The host behaves as Envoy does, also where that is unexpected: header names
//! are lower-case, a header read gives the first value only, request headers
//! cannot be read any more once the request went on, the answers that the filter
//! gives itself pass its own response callbacks.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use harness::wasm_host::{Module, PluginOptions, Vm, VmOptions, World};
//!
//! let world = World::new();
//! let vm = Vm::start(&Module::filter()?, &world, VmOptions::default())?;
//! let plugin = vm.configure(PluginOptions { config: b"{}".to_vec(), ..Default::default() })?;
//! let stream = plugin.request([(":method", "GET"), (":path", "/")])?;
//! assert_eq!(stream.request_headers().get("x-app-version"), Some("stable"));
//! let response = stream.respond([(":status", "200")])?;
//! assert_eq!(response.all("set-cookie").len(), 1);
//! stream.finish()?;
//! # Ok(())
//! # }
//! ```

mod guest;
mod hostcalls;
mod map;
mod module;
mod vm;
mod wasi;
mod world;

pub use crate::headers::Headers;
pub use module::Module;
pub use vm::{Action, GrpcCall, LocalResponse, Plugin, PluginOptions, Stream, Vm, VmOptions};
pub use world::{LogLevel, Metric, World};

/// What a hostcall answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names of the ABI")]
pub enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    SerializationFailure = 3,
    ParseFailure = 4,
    BadExpression = 5,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    ResultMismatch = 9,
    InternalFailure = 10,
    BrokenConnection = 11,
    Unimplemented = 12,
}

/// The filter panicked, looped without end or broke the ABI. Its VM is dead:
/// every further call reports this trap again.
#[derive(Clone, Debug)]
pub struct Trap(String);

impl std::fmt::Display for Trap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Trap {}
