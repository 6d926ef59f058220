//! Compiling the filter, once per process.

use super::{hostcalls, vm::Host, wasi};
use crate::build;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::sync::{LazyLock, Mutex};
use wasmtime::{Config, Engine, Linker, OptLevel};

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let mut config = Config::new();
    config
        // Fuel ends endless loops.
        .consume_fuel(true)
        // Compile time counts more than speed here.
        .cranelift_opt_level(OptLevel::None)
        // The filter is stripped: a backtrace would only hide the reason.
        .wasm_backtrace_max_frames(None);
    Engine::new(&config).expect("a wasm engine")
});

/// A compiled wasm module, cheap to clone and to share between threads.
#[derive(Clone, Debug)]
pub struct Module {
    pub(super) compiled: wasmtime::Module,
    size: usize,
}

impl Module {
    /// The project's filter: built if it is not fresh, compiled once per process.
    pub fn filter() -> Result<Module> {
        static FILTER: Mutex<Option<Module>> = Mutex::new(None);
        let mut filter = FILTER
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if filter.is_none() {
            *filter = Some(Module::load(&build::filter_wasm()?)?);
        }
        Ok(filter.clone().expect("just set"))
    }

    /// A `.wasm` file.
    pub fn load(file: &Path) -> Result<Module> {
        let bytes = std::fs::read(file).with_context(|| format!("no {}", file.display()))?;
        Module::new(&bytes)
    }

    /// A module in binary or text (`.wat`) form. An error if it imports what
    /// the host does not provide.
    pub fn new(bytes: &[u8]) -> Result<Module> {
        let compiled = wasmtime::Module::new(&ENGINE, bytes)?;
        let module = Module {
            compiled,
            size: bytes.len(),
        };
        for (from, name) in module.imports() {
            let known = match from.as_str() {
                "env" => hostcalls::NAMES.contains(&name.as_str()),
                "wasi_snapshot_preview1" => wasi::NAMES.contains(&name.as_str()),
                _ => false,
            };
            ensure!(
                known,
                "the module imports {from}.{name}, which the host does not provide"
            );
        }
        Ok(module)
    }

    /// Everything the module asks of its host: module and name.
    pub fn imports(&self) -> Vec<(String, String)> {
        let imports = self.compiled.imports();
        imports
            .map(|import| (import.module().to_owned(), import.name().to_owned()))
            .collect()
    }

    /// The size of the file in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    pub(super) fn engine(&self) -> &Engine {
        &ENGINE
    }

    pub(super) fn linker(&self) -> wasmtime::Result<Linker<Host>> {
        let mut linker = Linker::new(&ENGINE);
        hostcalls::define(&mut linker)?;
        wasi::define(&mut linker)?;
        Ok(linker)
    }
}
