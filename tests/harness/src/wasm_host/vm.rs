//! VMs, plugins and streams: the callbacks of the guest, in Envoy's order.

use super::{Headers, LogLevel, Module, Trap, World};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use wasmtime::{Instance, Store, Val};

/// What one callback may spend before it counts as an endless loop: some
/// seconds of work.
const FUEL: u64 = 2_000_000_000;

/// How to start a VM.
#[derive(Clone, Debug, Default)]
pub struct VmOptions {
    /// Environment variables of the guest.
    pub env: Vec<(String, String)>,
    /// The VM's own configuration.
    pub vm_config: Vec<u8>,
}

/// How to configure a plugin.
#[derive(Clone, Debug, Default)]
pub struct PluginOptions {
    /// The property `plugin_name`.
    pub name: String,
    /// The property `plugin_root_id`.
    pub root_id: String,
    /// The plugin's configuration.
    pub config: Vec<u8>,
}

/// What a callback wants to happen to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on.
    Continue,
    /// Wait until the filter resumes the stream, or answer with its local response.
    Pause,
}

/// An answer that the filter gave by itself, as it asked for it. (What left the
/// proxy is in [`Stream::response_headers`].)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalResponse {
    /// The status code.
    pub status: u32,
    /// Headers to add.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// The status for gRPC clients.
    pub grpc_status: Option<u32>,
    /// Response code details, for the access log.
    pub details: String,
}

/// A unary gRPC call that the filter made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcCall {
    /// Names the call in [`Vm::answer_grpc`].
    pub token: u32,
    /// The cluster, or the whole service in protobuf, as the filter named it.
    pub cluster: String,
    /// The service's full name.
    pub service: String,
    /// The method.
    pub method: String,
    /// The initial metadata.
    pub metadata: Headers,
    /// The request message.
    pub message: Vec<u8>,
    /// The time-out.
    pub timeout: Duration,
    pub(super) context: u32,
}

/// One wasm VM, as each worker of Envoy has. It can be moved to another thread.
#[derive(Clone, Debug)]
pub struct Vm(Arc<Mutex<Inner>>);

/// A configured plugin: a root context of a VM.
#[derive(Debug)]
pub struct Plugin {
    vm: Vm,
    id: u32,
    accepted: bool,
}

/// One HTTP request and its response. Several may be open at once. A stream
/// that is dropped is finished, and panics if the filter traps in that.
#[derive(Debug)]
pub struct Stream {
    vm: Vm,
    id: u32,
    finished: bool,
}

#[derive(Debug)]
struct Inner {
    store: Store<Host>,
    instance: Instance,
    /// Why the VM is dead.
    trap: Option<Trap>,
}

/// What hostcalls work on: the state of one VM.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) world: World,
    pub(super) env: Vec<(String, String)>,
    pub(super) vm_config: Vec<u8>,
    pub(super) plugins: BTreeMap<u32, PluginState>,
    pub(super) streams: BTreeMap<u32, StreamState>,
    /// The context that hostcalls are about.
    pub(super) effective: u32,
    /// The plugin whose configuration can be read: only while it is configured.
    pub(super) configuring: Option<u32>,
    /// The names of metrics, by id.
    pub(super) metrics: Vec<String>,
    pub(super) grpc_calls: BTreeMap<u32, GrpcCall>,
    /// The answer to a call that is being delivered.
    pub(super) answer: Answer,
    last_id: u32,
}

#[derive(Debug)]
pub(super) struct PluginState {
    pub(super) options: PluginOptions,
    pub(super) tick_period: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    pub(super) status: (u32, String),
}

#[derive(Debug, Default)]
pub(super) struct StreamState {
    root: u32,
    pub(super) properties: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Request and response headers, by the numbers of the ABI; trailers, in
    /// between, stay empty.
    maps: [Headers; 4],
    /// Which of the maps the guest may use now.
    open: [bool; 4],
    logging: bool,
    pub(super) response_body: Option<Vec<u8>>,
    pub(super) request_paused: bool,
    pub(super) response_paused: bool,
    pub(super) local_response: Option<LocalResponse>,
    /// Response headers have passed: nothing can answer any more.
    answered: bool,
}

const REQUEST_HEADERS: usize = 0;
const RESPONSE_HEADERS: usize = 2;

// === impl Vm ===

impl Vm {
    /// Instantiates and initialises a module.
    pub fn start(module: &Module, world: &World, options: VmOptions) -> Result<Vm, Trap> {
        let host = Host {
            world: world.clone(),
            env: options.env,
            vm_config: options.vm_config,
            plugins: BTreeMap::new(),
            streams: BTreeMap::new(),
            effective: 0,
            configuring: None,
            metrics: vec![],
            grpc_calls: BTreeMap::new(),
            answer: Answer::default(),
            last_id: 0,
        };
        let mut store = Store::new(module.engine(), host);
        let instance = store
            .set_fuel(FUEL)
            .and_then(|()| module.linker()?.instantiate(&mut store, &module.compiled))
            .map_err(|error| Trap(format!("the module does not start: {error:?}")))?;
        let mut inner = Inner {
            store,
            instance,
            trap: None,
        };
        inner.call("_initialize", 0, &[], 0)?;
        Ok(Vm(Arc::new(Mutex::new(inner))))
    }

    /// Adds a plugin: creates its root context, starts and configures it. A new
    /// configuration in Envoy is a new plugin too; streams of the old one live on.
    pub fn configure(&self, options: PluginOptions) -> Result<Plugin, Trap> {
        let mut inner = self.lock();
        let host = inner.store.data_mut();
        let id = host.next_token();
        let sizes = (host.vm_config.len() as u32, options.config.len() as u32);
        host.plugins.insert(
            id,
            PluginState {
                options,
                tick_period: Duration::ZERO,
            },
        );
        inner.call("proxy_on_context_create", id, &[id, 0], 0)?;
        let mut accepted = inner.call("proxy_on_vm_start", id, &[id, sizes.0], 1)? != 0;
        if accepted {
            inner.store.data_mut().configuring = Some(id);
            accepted = inner.call("proxy_on_configure", id, &[id, sizes.1], 1)? != 0;
            inner.store.data_mut().configuring = None;
        }
        drop(inner);
        Ok(Plugin {
            vm: self.clone(),
            id,
            accepted,
        })
    }

    /// The gRPC calls that wait for an answer.
    pub fn grpc_calls(&self) -> Vec<GrpcCall> {
        self.lock()
            .store
            .data()
            .grpc_calls
            .values()
            .cloned()
            .collect()
    }

    /// Answers a gRPC call: with a message, or a status and its text. A panic if
    /// nobody waits for it, as after the end of the stream that made the call.
    pub fn answer_grpc(&self, token: u32, answer: Result<&[u8], (u32, &str)>) -> Result<(), Trap> {
        let mut inner = self.lock();
        let host = inner.store.data_mut();
        let call = host
            .grpc_calls
            .remove(&token)
            .expect("a gRPC call that waits for its answer");
        match answer {
            Ok(message) => {
                host.answer = Answer {
                    body: message.to_vec(),
                    ..Answer::default()
                };
                let args = [call.context, token, message.len() as u32];
                inner.call("proxy_on_grpc_receive", call.context, &args, 0)?;
            }
            Err((status, text)) => {
                host.answer = Answer {
                    status: (status, text.to_owned()),
                    ..Answer::default()
                };
                let args = [call.context, token, status];
                inner.call("proxy_on_grpc_close", call.context, &args, 0)?;
            }
        }
        Ok(())
    }

    /// The guest's memory in bytes: it should not grow with traffic.
    pub fn memory_size(&self) -> usize {
        let mut inner = self.lock();
        let Inner {
            store, instance, ..
        } = &mut *inner;
        let memory = instance
            .get_memory(&mut *store, "memory")
            .expect("a memory");
        memory.data_size(store)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

// === impl Plugin ===

impl Plugin {
    /// Whether the plugin accepted its configuration.
    pub fn accepted(&self) -> bool {
        self.accepted
    }

    /// Opens a stream; no callback but its creation has run.
    pub fn stream(&self) -> Result<Stream, Trap> {
        let mut inner = self.vm.lock();
        let id = inner.store.data_mut().next_token();
        let state = StreamState {
            root: self.id,
            ..StreamState::default()
        };
        inner.store.data_mut().streams.insert(id, state);
        inner.call("proxy_on_context_create", id, &[id, self.id], 0)?;
        drop(inner);
        Ok(Stream {
            vm: self.vm.clone(),
            id,
            finished: false,
        })
    }

    /// Opens a stream with a request that has no body.
    pub fn request(&self, headers: impl Into<Headers>) -> Result<Stream, Trap> {
        let stream = self.stream()?;
        stream.on_request_headers(headers, true)?;
        Ok(stream)
    }

    /// How often the plugin wants ticks; zero if never.
    pub fn tick_period(&self) -> Duration {
        self.vm.lock().store.data().plugins[&self.id].tick_period
    }

    /// Delivers a tick. It does not move the clock.
    pub fn tick(&self) -> Result<(), Trap> {
        self.vm
            .lock()
            .call("proxy_on_tick", self.id, &[self.id], 0)
            .map(drop)
    }

    /// The VM.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }
}

// === impl Stream ===

impl Stream {
    /// A property of this stream, such as `["source", "address"]`.
    pub fn set_property(&self, path: &[&str], value: impl AsRef<[u8]>) {
        let (path, value) = (path.join("\0").into_bytes(), value.as_ref().to_vec());
        self.state(|stream| stream.properties.insert(path, value));
    }

    /// Delivers the request's headers.
    pub fn on_request_headers(
        &self,
        headers: impl Into<Headers>,
        end_of_stream: bool,
    ) -> Result<Action, Trap> {
        self.vm
            .lock()
            .headers(self.id, REQUEST_HEADERS, headers.into(), end_of_stream)
    }

    /// Delivers the response's headers; possible without a request, as Envoy
    /// does for requests that it refuses by itself.
    pub fn on_response_headers(
        &self,
        headers: impl Into<Headers>,
        end_of_stream: bool,
    ) -> Result<Action, Trap> {
        self.vm
            .lock()
            .headers(self.id, RESPONSE_HEADERS, headers.into(), end_of_stream)
    }

    /// A response without a body: its headers as the client gets them.
    pub fn respond(&self, headers: impl Into<Headers>) -> Result<Headers, Trap> {
        self.on_response_headers(headers, true)?;
        Ok(self.response_headers())
    }

    /// The request's headers as they go on.
    pub fn request_headers(&self) -> Headers {
        self.state(|stream| stream.maps[REQUEST_HEADERS].clone())
    }

    /// The response's headers as they go on; also those of a local response.
    pub fn response_headers(&self) -> Headers {
        self.state(|stream| stream.maps[RESPONSE_HEADERS].clone())
    }

    /// What the filter answered instead of the upstream.
    pub fn local_response(&self) -> Option<LocalResponse> {
        self.state(|stream| stream.local_response.clone())
    }

    /// Whether the filter holds the request back.
    pub fn is_paused(&self) -> bool {
        self.state(|stream| stream.request_paused)
    }

    /// Ends the stream: log, done, delete. Its calls are cancelled.
    pub fn finish(mut self) -> Result<(), Trap> {
        self.finished = true;
        self.vm.lock().finish(self.id)
    }

    fn state<T>(&self, look: impl FnOnce(&mut StreamState) -> T) -> T {
        look(self.vm.lock().stream(self.id))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.vm.lock();
        if self.finished || inner.trap.is_some() || std::thread::panicking() {
            return;
        }
        let finished = inner.finish(self.id);
        drop(inner);
        finished.expect("the filter finishes a stream");
    }
}

// === impl Inner ===

impl Inner {
    /// Runs a callback of the guest, then what the guest put off in it: its own
    /// answers, which pass its response callbacks. `absent` is the result if the
    /// guest does not export the callback.
    fn call(
        &mut self,
        callback: &str,
        context: u32,
        args: &[u32],
        absent: u32,
    ) -> Result<u32, Trap> {
        if let Some(trap) = &self.trap {
            return Err(Trap(format!("the VM is dead. {trap}")));
        }
        let logged = self.store.data().world.logs().len();
        let result = self
            .invoke(callback, context, args, absent)
            .map_err(|error| {
                let logs = self.store.data().world.logs();
                let errors = logs[logged..]
                    .iter()
                    .filter(|(level, _)| *level >= LogLevel::Error);
                let errors: String = errors.map(|(_, text)| format!("\n{text}")).collect();
                let trap = Trap(format!("{callback} trapped: {error:#}{errors}"));
                self.trap = Some(trap.clone());
                trap
            })?;
        self.deliver_local_responses()?;
        Ok(result)
    }

    fn invoke(
        &mut self,
        callback: &str,
        context: u32,
        args: &[u32],
        absent: u32,
    ) -> wasmtime::Result<u32> {
        let Some(function) = self.instance.get_func(&mut self.store, callback) else {
            return Ok(absent);
        };
        self.store.data_mut().effective = context;
        self.store.set_fuel(FUEL)?;
        let args: Vec<Val> = args.iter().map(|arg| Val::I32(arg.cast_signed())).collect();
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        function.call(&mut self.store, &args, &mut results)?;
        Ok(results
            .first()
            .map_or(0, |result| result.unwrap_i32().cast_unsigned()))
    }

    fn deliver_local_responses(&mut self) -> Result<(), Trap> {
        let unanswered = |(id, stream): (&u32, &StreamState)| {
            let local = stream
                .local_response
                .as_ref()
                .filter(|_| !stream.answered)?;
            Some((*id, stream.local_reply(local), local.body.clone()))
        };
        while let Some((id, headers, body)) = self.store.data().streams.iter().find_map(unanswered)
        {
            let grpc = headers.all("grpc-status").len() == 1;
            let body = if grpc { vec![] } else { body };
            self.headers(id, RESPONSE_HEADERS, headers, body.is_empty())?;
            if !body.is_empty() {
                self.response_body(id, body)?;
            }
        }
        Ok(())
    }

    fn headers(
        &mut self,
        id: u32,
        map: usize,
        headers: Headers,
        end_of_stream: bool,
    ) -> Result<Action, Trap> {
        let request = map == REQUEST_HEADERS;
        let callback = match request {
            true => "proxy_on_request_headers",
            false => "proxy_on_response_headers",
        };
        let headers = headers.in_lower_case();
        let args = [id, headers.len() as u32, end_of_stream.into()];
        let stream = self.stream(id);
        stream.answered |= !request;
        stream.maps[map] = headers;
        stream.open[map] = true;
        stream.pause(request, true);
        let result = self.call(callback, id, &args, 0)?;
        let stream = self.stream(id);
        let action = stream.action(result, request);
        if action == Action::Continue {
            stream.open[map] = false;
        }
        Ok(action)
    }

    /// Delivers the body of a local response.
    fn response_body(&mut self, id: u32, body: Vec<u8>) -> Result<(), Trap> {
        let args = [id, body.len() as u32, true.into()];
        let stream = self.stream(id);
        stream.response_body = Some(body);
        stream.pause(false, true);
        let result = self.call("proxy_on_response_body", id, &args, 0)?;
        self.stream(id).action(result, false);
        Ok(())
    }

    fn finish(&mut self, id: u32) -> Result<(), Trap> {
        self.stream(id).logging = true;
        self.call("proxy_on_log", id, &[id], 0)?;
        self.stream(id).logging = false;
        self.call("proxy_on_done", id, &[id], 1)?;
        self.call("proxy_on_delete", id, &[id], 0)?;
        let host = self.store.data_mut();
        host.streams.remove(&id);
        host.grpc_calls.retain(|_, call| call.context != id);
        Ok(())
    }

    fn stream(&mut self, id: u32) -> &mut StreamState {
        self.store
            .data_mut()
            .streams
            .get_mut(&id)
            .expect("an open stream")
    }
}

// === impl Host ===

impl Host {
    /// A number for a context or a call.
    pub(super) fn next_token(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    /// The plugin that a context belongs to.
    pub(super) fn root_of(&self, context: u32) -> u32 {
        self.streams
            .get(&context)
            .map_or(context, |stream| stream.root)
    }
}

// === impl StreamState ===

impl StreamState {
    pub(super) fn readable(&self, map: u32) -> Option<&Headers> {
        let map = map as usize;
        (*self.open.get(map)? || self.logging).then(|| &self.maps[map])
    }

    pub(super) fn writable(&mut self, map: u32) -> Option<&mut Headers> {
        let map = map as usize;
        self.open.get(map)?.then(|| &mut self.maps[map])
    }

    /// Envoy forgets the request once it goes on.
    pub(super) fn close_request_headers(&mut self) {
        self.open[REQUEST_HEADERS] = false;
    }

    fn pause(&mut self, request: bool, paused: bool) {
        if request {
            self.request_paused = paused;
        } else {
            self.response_paused = paused;
        }
    }

    /// What happens after a callback. The stream was marked as paused before
    /// it, so that a resumption within the callback counts.
    fn action(&mut self, result: u32, request: bool) -> Action {
        let resumed = !if request {
            self.request_paused
        } else {
            self.response_paused
        };
        let answered = request && self.local_response.is_some();
        let held = result != 0 && !resumed && !answered;
        self.pause(request, held);
        if held || answered {
            Action::Pause
        } else {
            Action::Continue
        }
    }

    /// The headers of a local response, as Envoy makes them.
    fn local_reply(&self, local: &LocalResponse) -> Headers {
        let pairs = local.headers.iter();
        let headers = Headers::default().with(":status", local.status.to_string());
        let mut headers = pairs.fold(headers, |headers, (name, value)| headers.with(name, value));
        let content_type = self.maps[REQUEST_HEADERS].all("content-type");
        if content_type
            .first()
            .is_some_and(|value| value.starts_with(b"application/grpc"))
        {
            // gRPC clients get an answer that is all trailers.
            headers.replace(":status", b"200");
            headers.replace("content-type", b"application/grpc");
            let status = local.grpc_status.unwrap_or(grpc_status_of(local.status));
            headers.replace("grpc-status", status.to_string().as_bytes());
            if !local.body.is_empty() {
                headers.replace("grpc-message", &local.body);
            }
        } else if !local.body.is_empty() {
            headers.replace("content-length", local.body.len().to_string().as_bytes());
            if headers.all("content-type").is_empty() {
                headers.add("content-type", b"text/plain");
            }
        }
        headers
    }
}

/// The gRPC status that Envoy gives to an HTTP status.
fn grpc_status_of(status: u32) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}
