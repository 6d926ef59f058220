//! The hostcalls of proxy-wasm ABI 0.2.1, as Envoy answers them.

use super::guest::{Guest, Stop};
use super::vm::{GrpcCall, Host, LocalResponse, StreamState};
use super::{Headers, LogLevel, Metric, Status};
use std::time::Duration;
use wasmtime::{Caller, Linker};

/// Defines the functions, and lists their names. Each body may leave with a
/// status by `?`; at its end the guest gets `Ok`.
macro_rules! hostcalls {
    ($($name:ident($guest:ident $(, $arg:ident: $type:ty)*) $body:block)*) => {
        pub(super) const NAMES: &[&str] = &[$(stringify!($name)),*];

        pub(super) fn define(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
            $(linker.func_wrap(
                "env",
                stringify!($name),
                |caller: Caller<'_, Host>, $($arg: $type),*| -> wasmtime::Result<u32> {
                    Guest::answer(caller, stringify!($name), |$guest| $body)
                },
            )?;)*
            Ok(())
        }
    };
}

hostcalls! {
    // === log and clock ===

    proxy_log(guest, level: u32, message: u32, size: u32) {
        let level = match level {
            0 => LogLevel::Trace,
            1 => LogLevel::Debug,
            2 => LogLevel::Info,
            3 => LogLevel::Warn,
            4 => LogLevel::Error,
            5 => LogLevel::Critical,
            _ => return Err(Status::BadArgument.into()),
        };
        let message = guest.bytes(message, size)?;
        guest.world().log(level, String::from_utf8_lossy(&message).into_owned());
        Ok(())
    }

    proxy_get_log_level(guest, level: u32) {
        guest.write_u32(level, LogLevel::Info as u32)
    }

    proxy_get_current_time_nanoseconds(guest, time: u32) {
        let nanos = guest.world().now().as_nanos() as u64;
        guest.write(time, &nanos.to_le_bytes())
    }

    proxy_set_tick_period_milliseconds(guest, period: u32) {
        let host = guest.host();
        let root = host.root_of(host.effective);
        let plugin = host.plugins.get_mut(&root).ok_or(Status::BadArgument)?;
        plugin.tick_period = Duration::from_millis(period.into());
        Ok(())
    }

    // === buffers ===

    proxy_get_buffer_bytes(guest, kind: u32, start: u32, max: u32, data: u32, size: u32) {
        let buffer = buffer(guest, kind)?.ok_or(Status::NotFound)?;
        let start = (start as usize).min(buffer.len());
        let end = start.saturating_add(max as usize).min(buffer.len());
        guest.give(&buffer[start..end], data, size)
    }

    proxy_get_buffer_status(guest, kind: u32, size: u32, flags: u32) {
        let buffer = buffer(guest, kind)?.ok_or(Status::NotFound)?;
        guest.write_u32(size, buffer.len() as u32)?;
        guest.write_u32(flags, 0)
    }

    proxy_set_buffer_bytes(guest, kind: u32, start: u32, size: u32, data: u32, length: u32) {
        let new = guest.bytes(data, length)?;
        let body = match kind {
            0 => None,
            1 => guest.stream()?.response_body.as_mut(),
            _ => return Err(Status::BadArgument.into()),
        };
        let body = body.ok_or(Status::NotFound)?;
        let start = (start as usize).min(body.len());
        let end = start.saturating_add(size as usize).min(body.len());
        body.splice(start..end, new);
        Ok(())
    }

    // === header maps ===

    proxy_get_header_map_pairs(guest, map: u32, data: u32, size: u32) {
        // A map that is not there reads as empty here, but not below.
        let pairs = readable(guest, map)?.map(Headers::to_abi).unwrap_or_default();
        guest.give(&pairs, data, size)
    }

    proxy_get_header_map_value(guest, map: u32, key: u32, key_size: u32, data: u32, size: u32) {
        let key = guest.text(key, key_size)?;
        let headers = readable(guest, map)?.ok_or(Status::BadArgument)?;
        let value = headers.all(&key).first().map(|first| first.to_vec()).ok_or(Status::NotFound)?;
        guest.give(&value, data, size)
    }

    proxy_get_header_map_size(guest, map: u32, size: u32) {
        let headers = readable(guest, map)?.ok_or(Status::BadArgument)?;
        let bytes = headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        guest.write_u32(size, bytes as u32)
    }

    proxy_set_header_map_pairs(guest, map: u32, data: u32, size: u32) {
        let headers = guest.headers(data, size)?;
        *writable(guest, map)? = headers;
        Ok(())
    }

    proxy_add_header_map_value(guest, map: u32, key: u32, key_size: u32, data: u32, size: u32) {
        let (key, value) = (guest.text(key, key_size)?, guest.bytes(data, size)?);
        writable(guest, map)?.add(&key, &value);
        Ok(())
    }

    proxy_replace_header_map_value(guest, map: u32, key: u32, key_size: u32, data: u32, size: u32) {
        let (key, value) = (guest.text(key, key_size)?, guest.bytes(data, size)?);
        writable(guest, map)?.replace(&key, &value);
        Ok(())
    }

    proxy_remove_header_map_value(guest, map: u32, key: u32, key_size: u32) {
        let key = guest.text(key, key_size)?;
        writable(guest, map)?.remove(&key);
        Ok(())
    }

    // === properties ===

    proxy_get_property(guest, path: u32, path_size: u32, data: u32, size: u32) {
        let path = guest.bytes(path, path_size)?;
        let world = guest.world();
        let host = guest.host();
        let stream = host.streams.get(&host.effective);
        let plugin = host.plugins.get(&host.root_of(host.effective));
        let value = stream.and_then(|stream| stream.properties.get(&path).cloned());
        let value = value.or_else(|| match path.as_slice() {
            b"plugin_name" => Some(plugin?.options.name.clone().into_bytes()),
            b"plugin_root_id" => Some(plugin?.options.root_id.clone().into_bytes()),
            b"plugin_vm_id" => Some(vec![]),
            path => world.property(path),
        });
        guest.give(&value.ok_or(Status::NotFound)?, data, size)
    }

    proxy_set_property(guest, path: u32, path_size: u32, data: u32, size: u32) {
        let (path, value) = (guest.bytes(path, path_size)?, guest.bytes(data, size)?);
        guest.stream()?.properties.insert(path, value);
        Ok(())
    }

    // === shared data ===

    proxy_get_shared_data(guest, key: u32, key_size: u32, data: u32, size: u32, cas: u32) {
        let key = guest.text(key, key_size)?;
        let (value, version) = guest.world().shared_get(&key).ok_or(Status::NotFound)?;
        guest.give(&value, data, size)?;
        guest.write_u32(cas, version)
    }

    proxy_set_shared_data(guest, key: u32, key_size: u32, data: u32, size: u32, cas: u32) {
        let (key, value) = (guest.text(key, key_size)?, guest.bytes(data, size)?);
        Ok(guest.world().shared_set(&key, &value, cas)?)
    }

    // === metrics ===

    proxy_define_metric(guest, kind: u32, name: u32, size: u32, id: u32) {
        let name = guest.text(name, size)?;
        let zero = match kind {
            0 => Metric::Counter(0),
            1 => Metric::Gauge(0),
            2 => Metric::Histogram(vec![]),
            _ => return Err(Status::BadArgument.into()),
        };
        guest.world().define_metric(&name, zero)?;
        let metrics = &mut guest.host().metrics;
        metrics.push(name);
        let number = metrics.len() as u32 - 1;
        guest.write_u32(id, number)
    }

    proxy_increment_metric(guest, id: u32, offset: i64) {
        let name = metric(guest, id)?;
        Ok(guest.world().change_metric(&name, |metric| match metric {
            Metric::Counter(value) if offset > 0 => {
                *value += offset.unsigned_abs();
                Ok(())
            }
            Metric::Counter(_) => Err(Status::BadArgument),
            Metric::Gauge(value) => {
                *value = value.wrapping_add_signed(offset);
                Ok(())
            }
            Metric::Histogram(_) => Err(Status::NotFound),
        })?)
    }

    proxy_record_metric(guest, id: u32, new: u64) {
        let name = metric(guest, id)?;
        guest.world().change_metric(&name, |metric| match metric {
            Metric::Counter(value) => *value += new,
            Metric::Gauge(value) => *value = new,
            Metric::Histogram(values) => values.push(new),
        });
        Ok(())
    }

    proxy_get_metric(guest, id: u32, value: u32) {
        let name = metric(guest, id)?;
        let current = guest.world().metric(&name).ok_or(Status::BadArgument)?;
        guest.write(value, &current.to_le_bytes())
    }

    // === streams ===

    proxy_set_effective_context(guest, context: u32) {
        let host = guest.host();
        if !host.streams.contains_key(&context) && !host.plugins.contains_key(&context) {
            return Err(Status::BadArgument.into());
        }
        host.effective = context;
        Ok(())
    }

    proxy_continue_stream(guest, kind: u32) {
        let stream = guest.stream()?;
        match kind {
            0 => stream.request_paused = false,
            1 => stream.response_paused = false,
            _ => return Err(Status::BadArgument.into()),
        }
        stream.close_request_headers();
        Ok(())
    }

    proxy_send_local_response(
        guest,
        status: u32, details: u32, details_size: u32, body: u32, body_size: u32,
        headers: u32, headers_size: u32, grpc_status: i32
    ) {
        let response = LocalResponse {
            status,
            headers: guest.headers(headers, headers_size)?,
            body: guest.bytes(body, body_size)?,
            grpc_status: u32::try_from(grpc_status).ok(),
            details: guest.text(details, details_size)?,
        };
        guest.stream()?.local_response = Some(response);
        Ok(())
    }

    // === call-outs ===

    proxy_grpc_call(
        guest,
        upstream: u32, upstream_size: u32, service: u32, service_size: u32,
        method: u32, method_size: u32, metadata: u32, metadata_size: u32,
        message: u32, message_size: u32, timeout: u32, token: u32
    ) {
        let call = GrpcCall {
            token: guest.host().next_token(),
            cluster: guest.text(upstream, upstream_size)?,
            service: guest.text(service, service_size)?,
            method: guest.text(method, method_size)?,
            metadata: guest.headers(metadata, metadata_size)?,
            message: guest.bytes(message, message_size)?,
            timeout: Duration::from_millis(timeout.into()),
            context: guest.host().effective,
        };
        guest.write_u32(token, call.token)?;
        guest.host().grpc_calls.insert(call.token, call);
        Ok(())
    }

    proxy_grpc_cancel(guest, token: u32) {
        let call = guest.host().grpc_calls.remove(&token);
        call.map(drop).ok_or(Stop::Status(Status::NotFound))
    }

    proxy_get_status(guest, code: u32, message: u32, size: u32) {
        let (status, text) = guest.host().answer.status.clone();
        guest.write_u32(code, status)?;
        guest.give(text.as_bytes(), message, size)
    }

    proxy_call_foreign_function(
        guest,
        name: u32, name_size: u32, argument: u32, argument_size: u32, data: u32, size: u32
    ) {
        let (name, argument) = (guest.text(name, name_size)?, guest.bytes(argument, argument_size)?);
        // The one that filters need; Envoy does not know most others either.
        let known = name == "clear_route_cache";
        guest.world().record_foreign_call(name, argument);
        known.then_some(()).ok_or(Status::NotFound)?;
        guest.give(&[], data, size)
    }

    proxy_done(_guest) {
        Ok(())
    }

    // === not part of this host ===

    proxy_close_stream(_guest, _kind: u32) {
        Err(Status::Unimplemented.into())
    }

    proxy_http_call(
        _guest,
        _upstream: u32, _upstream_size: u32, _headers: u32, _headers_size: u32, _body: u32,
        _body_size: u32, _trailers: u32, _trailers_size: u32, _timeout: u32, _token: u32
    ) {
        Err(Status::Unimplemented.into())
    }

    proxy_register_shared_queue(_guest, _name: u32, _size: u32, _id: u32) {
        Err(Status::Unimplemented.into())
    }

    proxy_resolve_shared_queue(_guest, _vm: u32, _vm_size: u32, _name: u32, _size: u32, _id: u32) {
        Err(Status::Unimplemented.into())
    }

    proxy_dequeue_shared_queue(_guest, _id: u32, _data: u32, _size: u32) {
        Err(Status::Unimplemented.into())
    }

    proxy_enqueue_shared_queue(_guest, _id: u32, _data: u32, _size: u32) {
        Err(Status::Unimplemented.into())
    }

    proxy_grpc_stream(
        _guest,
        _upstream: u32, _upstream_size: u32, _service: u32, _service_size: u32,
        _method: u32, _method_size: u32, _metadata: u32, _metadata_size: u32, _id: u32
    ) {
        Err(Status::Unimplemented.into())
    }

    proxy_grpc_send(_guest, _token: u32, _message: u32, _size: u32, _end: u32) {
        Err(Status::Unimplemented.into())
    }

    proxy_grpc_close(_guest, _token: u32) {
        Err(Status::Unimplemented.into())
    }
}

/// A buffer's bytes; `None` if there is no such buffer now.
fn buffer(guest: &mut Guest<'_>, kind: u32) -> Result<Option<Vec<u8>>, Stop> {
    let host = guest.host();
    Ok(match kind {
        0 => None,
        1 => guest.stream()?.response_body.clone(),
        4 | 5 => Some(host.answer.body.clone()),
        6 => Some(host.vm_config.clone()),
        7 => host
            .configuring
            .and_then(|root| Some(host.plugins.get(&root)?.options.config.clone())),
        _ => return Err(Status::BadArgument.into()),
    })
}

/// A map as the guest may read it now.
fn readable<'a>(guest: &'a mut Guest<'_>, map: u32) -> Result<Option<&'a Headers>, Stop> {
    match map {
        0..=3 => Ok(guest.stream().ok().and_then(|stream| stream.readable(map))),
        // Of gRPC streams and HTTP calls, which this host does not have.
        4..=7 => Ok(None),
        _ => Err(Status::BadArgument.into()),
    }
}

/// A map as the guest may change it now.
fn writable<'a>(guest: &'a mut Guest<'_>, map: u32) -> Result<&'a mut Headers, Stop> {
    let stream: &mut StreamState = guest.stream()?;
    stream
        .writable(map)
        .ok_or(Stop::Status(Status::BadArgument))
}

fn metric(guest: &mut Guest<'_>, id: u32) -> Result<String, Stop> {
    guest
        .host()
        .metrics
        .get(id as usize)
        .cloned()
        .ok_or(Stop::Status(Status::NotFound))
}
