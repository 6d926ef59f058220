//! Images that are made without a registry, for the arguments of the Dockerfile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use harness::{build, envoy, process};

/// What the Dockerfile otherwise builds, in /out.
pub(super) const BINARIES: &str = "localhost/lanekeeper-e2e/binaries:e2e";
/// An Envoy.
pub(super) const ENVOY: &str = "localhost/lanekeeper-e2e/envoy:e2e";

/// The version that the Dockerfile names.
const ENVOY_VERSION: &str = "1.38.2";

/// The contexts from which the images are built.
#[derive(Debug)]
pub(super) struct Images {
    binaries: PathBuf,
    envoy: PathBuf,
}

impl Images {
    /// Builds and fetches what goes into the images.
    pub(super) fn prepare(dir: &Path) -> Result<Self> {
        let images = Self {
            binaries: dir.join("binaries"),
            envoy: dir.join("envoy"),
        };
        for context in [&images.binaries, &images.envoy] {
            if context.exists() {
                fs::remove_dir_all(context).with_context(|| context.display().to_string())?;
            }
            fs::create_dir_all(context)?;
            fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY root/ /\n")?;
        }
        let out = images.binaries.join("root/out");
        fs::create_dir_all(&out)?;
        let programs = build::static_binaries()?;
        for program in build::SERVICES.into_iter().chain(["lanekeeper"]) {
            copy(&programs.join(program), &out)?;
        }
        copy(&build::filter_wasm()?, &out)?;

        let program = envoy::version(ENVOY_VERSION)?;
        let root = images.envoy.join("root");
        let bin = root.join("usr/local/bin");
        fs::create_dir_all(&bin)?;
        copy(&program, &bin)?;
        for library in libraries(&program)? {
            let place = library.strip_prefix("/")?;
            let place = root.join(place.parent().context("a library in a folder")?);
            fs::create_dir_all(&place)?;
            copy(&library, &place)?;
        }
        Ok(images)
    }

    /// The images, each with the folder that it is built from.
    pub(super) fn contexts(&self) -> [(&'static str, &Path); 2] {
        [(BINARIES, &self.binaries), (ENVOY, &self.envoy)]
    }
}

fn copy(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().context("a file")?;
    fs::copy(file, folder.join(name)).with_context(|| file.display().to_string())?;
    Ok(())
}

/// The shared libraries that a program needs, and the loader; links are followed when copied.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let list = process::run(Command::new("ldd").arg(program), "ldd")?;
    let libraries = libraries_in(&list);
    ensure!(!libraries.is_empty(), "ldd says: {list}");
    if list.contains("not found") {
        bail!("{} lacks libraries: {list}", program.display());
    }
    Ok(libraries)
}

fn libraries_in(list: &str) -> Vec<PathBuf> {
    // `libc.so.6 => /lib/libc.so.6 (0x…)` or, for the loader, `/lib64/ld-linux.so.2 (0x…)`.
    let words = list.lines().filter_map(|line| {
        let path = line.split_once("=> ").map_or(line, |(_, path)| path);
        path.trim().split(' ').next()
    });
    let paths = words.filter(|word| word.starts_with('/'));
    paths.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_what_ldd_says() {
        let list = "\tlinux-vdso.so.1 (0x1)\n\
                    \tlibm.so.6 => /lib/x/libm.so.6 (0x2)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let expected = ["/lib/x/libm.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries_in(list), expected.map(PathBuf::from));
    }

    #[test]
    fn the_rust_is_the_one_of_the_toolchain() {
        let read = |name| fs::read_to_string(build::workspace().join(name)).unwrap();
        let toolchain = read("rust-toolchain.toml");
        let channel = toolchain.split('"').nth(1).unwrap();
        let from = format!("\nFROM rust:{channel}-alpine AS build\n");
        assert!(read("Dockerfile").contains(&from), "{from}");
    }

    #[test]
    fn the_envoy_is_the_one_of_the_dockerfile() {
        let text = fs::read_to_string(build::workspace().join("Dockerfile")).unwrap();
        let default = format!("\nARG ENVOY_IMAGE=envoyproxy/envoy:v{ENVOY_VERSION}\n");
        assert!(text.contains(&default));
        let text = fs::read_to_string(build::workspace().join("compose.yaml")).unwrap();
        assert!(text.contains(&format!("-envoyproxy/envoy:v{ENVOY_VERSION}}}")));
    }
}
