//! The guest as a hostcall sees it: its memory, and the state of the host.

use super::vm::{Host, StreamState};
use super::{Headers, Status, World};
use wasmtime::{Caller, Extern, Memory};

/// Why a hostcall ends early: the guest gets a status, or traps.
pub(super) enum Stop {
    Status(Status),
    Trap(wasmtime::Error),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Stop {
        Stop::Status(status)
    }
}

impl From<wasmtime::Error> for Stop {
    fn from(error: wasmtime::Error) -> Stop {
        Stop::Trap(error)
    }
}

pub(super) struct Guest<'a> {
    caller: Caller<'a, Host>,
    memory: Memory,
}

impl<'a> Guest<'a> {
    pub(super) fn new(mut caller: Caller<'a, Host>) -> wasmtime::Result<Guest<'a>> {
        let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
            return Err(wasmtime::Error::msg("the module exports no memory"));
        };
        Ok(Guest { caller, memory })
    }

    /// Runs a hostcall, unless the test wants it to fail.
    pub(super) fn answer(
        caller: Caller<'a, Host>,
        hostcall: &str,
        body: impl FnOnce(&mut Guest<'a>) -> Result<(), Stop>,
    ) -> wasmtime::Result<u32> {
        let mut guest = Guest::new(caller)?;
        if let Some(status) = guest.world().fault(hostcall) {
            return Ok(status as u32);
        }
        match body(&mut guest) {
            Ok(()) => Ok(Status::Ok as u32),
            Err(Stop::Status(status)) => Ok(status as u32),
            Err(Stop::Trap(error)) => Err(error.context(hostcall.to_owned())),
        }
    }

    pub(super) fn host(&mut self) -> &mut Host {
        self.caller.data_mut()
    }

    pub(super) fn world(&self) -> World {
        self.caller.data().world.clone()
    }

    /// The stream that the current callback, or the guest itself, has chosen.
    pub(super) fn stream(&mut self) -> Result<&mut StreamState, Stop> {
        let host = self.host();
        host.streams
            .get_mut(&host.effective)
            .ok_or(Stop::Status(Status::BadArgument))
    }

    pub(super) fn bytes(&self, pointer: u32, size: u32) -> Result<Vec<u8>, Stop> {
        let start = pointer as usize;
        let bytes = self
            .memory
            .data(&self.caller)
            .get(start..start + size as usize);
        bytes
            .map(<[u8]>::to_vec)
            .ok_or(Stop::Status(Status::InvalidMemoryAccess))
    }

    pub(super) fn text(&self, pointer: u32, size: u32) -> Result<String, Stop> {
        String::from_utf8(self.bytes(pointer, size)?).map_err(|_| Status::BadArgument.into())
    }

    pub(super) fn headers(&self, pointer: u32, size: u32) -> Result<Headers, Stop> {
        Headers::from_abi(&self.bytes(pointer, size)?).ok_or(Stop::Status(Status::BadArgument))
    }

    pub(super) fn read_u32(&self, pointer: u32) -> Result<u32, Stop> {
        let bytes = self.bytes(pointer, 4)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    pub(super) fn write(&mut self, pointer: u32, bytes: &[u8]) -> Result<(), Stop> {
        let written = self.memory.write(&mut self.caller, pointer as usize, bytes);
        written.map_err(|_| Status::InvalidMemoryAccess.into())
    }

    pub(super) fn write_u32(&mut self, pointer: u32, value: u32) -> Result<(), Stop> {
        self.write(pointer, &value.to_le_bytes())
    }

    /// Hands bytes over in memory that the guest allocates and then owns. No
    /// bytes are a null pointer, as in Envoy.
    pub(super) fn give(&mut self, bytes: &[u8], pointer: u32, size: u32) -> Result<(), Stop> {
        let length = u32::try_from(bytes.len()).map_err(|_| Status::InternalFailure)?;
        let mut at = 0;
        if length > 0 {
            let allocate = ["proxy_on_memory_allocate", "malloc"];
            let allocate = allocate
                .iter()
                .find_map(|name| self.caller.get_export(name)?.into_func());
            let allocate =
                allocate.ok_or_else(|| wasmtime::Error::msg("no allocator is exported"))?;
            at = allocate
                .typed::<u32, u32>(&self.caller)?
                .call(&mut self.caller, length)?;
            self.write(at, bytes)?;
        }
        self.write_u32(pointer, at)?;
        self.write_u32(size, length)
    }
}
