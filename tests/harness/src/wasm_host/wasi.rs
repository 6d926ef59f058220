//! The WASI functions that Envoy implements and a Rust filter needs.

use super::guest::{Guest, Stop};
use super::vm::Host;
use super::{LogLevel, Status};
use wasmtime::{Caller, Linker};

// Error numbers of WASI.
const SUCCESS: u32 = 0;
const BADF: u32 = 8;
const FAULT: u32 = 21;
const IO: u32 = 29;

macro_rules! functions {
    ($($name:ident($guest:ident $(, $arg:ident: $type:ty)*) $body:block)*) => {
        /// The names of all functions below.
        pub(super) const NAMES: &[&str] = &["proc_exit", $(stringify!($name)),*];

        fn define_all(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
            $(linker.func_wrap(
                "wasi_snapshot_preview1",
                stringify!($name),
                |caller: Caller<'_, Host>, $($arg: $type),*| -> wasmtime::Result<u32> {
                    errno(caller, |$guest| $body)
                },
            )?;)*
            Ok(())
        }
    };
}

pub(super) fn define(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    define_all(linker)?;
    // The only one that returns nothing, since it does not return.
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |code: u32| -> wasmtime::Result<()> {
            Err(wasmtime::Error::msg(format!(
                "the guest called proc_exit({code})"
            )))
        },
    )?;
    Ok(())
}

fn errno<'a>(
    caller: Caller<'a, Host>,
    body: impl FnOnce(&mut Guest<'a>) -> Result<u32, Stop>,
) -> wasmtime::Result<u32> {
    match body(&mut Guest::new(caller)?) {
        Ok(errno) => Ok(errno),
        Err(Stop::Status(Status::InvalidMemoryAccess)) => Ok(FAULT),
        Err(Stop::Status(_)) => Ok(IO),
        Err(Stop::Trap(error)) => Err(error),
    }
}

functions! {
    random_get(guest, buffer: u32, size: u32) {
        let Some(bytes) = guest.world().entropy(size as usize) else {
            return Ok(IO);
        };
        guest.write(buffer, &bytes)?;
        Ok(SUCCESS)
    }

    clock_time_get(guest, _clock: u32, _precision: u64, time: u32) {
        let nanos = guest.world().now().as_nanos() as u64;
        guest.write(time, &nanos.to_le_bytes())?;
        Ok(SUCCESS)
    }

    environ_sizes_get(guest, count: u32, size: u32) {
        let environ = environ(guest);
        guest.write_u32(count, environ.len() as u32)?;
        guest.write_u32(size, environ.concat().len() as u32)?;
        Ok(SUCCESS)
    }

    environ_get(guest, pointers: u32, strings: u32) {
        let (mut pointers, mut strings) = (pointers, strings);
        for variable in environ(guest) {
            guest.write_u32(pointers, strings)?;
            guest.write(strings, &variable)?;
            pointers += 4;
            strings += variable.len() as u32;
        }
        Ok(SUCCESS)
    }

    args_sizes_get(guest, count: u32, size: u32) {
        guest.write_u32(count, 0)?;
        guest.write_u32(size, 0)?;
        Ok(SUCCESS)
    }

    args_get(_guest, _pointers: u32, _strings: u32) {
        Ok(SUCCESS)
    }

    fd_write(guest, fd: u32, vectors: u32, count: u32, written: u32) {
        let level = match fd {
            1 => LogLevel::Info,
            2 => LogLevel::Error,
            _ => return Ok(BADF),
        };
        let mut text = vec![];
        for vector in (0..count).map(|n| vectors + 8 * n) {
            let (pointer, size) = (guest.read_u32(vector)?, guest.read_u32(vector + 4)?);
            text.extend(guest.bytes(pointer, size)?);
        }
        guest.write_u32(written, text.len() as u32)?;
        guest.world().log(level, String::from_utf8_lossy(&text).trim_end().to_owned());
        Ok(SUCCESS)
    }
}

/// `NAME=value`, each closed by a zero.
fn environ(guest: &mut Guest<'_>) -> Vec<Vec<u8>> {
    let env = guest.host().env.iter();
    env.map(|(name, value)| format!("{name}={value}\0").into_bytes())
        .collect()
}
