//! Programs of Debian packages, unpacked but not installed: that takes no root, starts no service and
//! changes nothing on this machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{build, process};

/// Programs, and the packages that have them.
const PROGRAMS: [(&str, &str); 4] = [
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("prometheus-alertmanager", "prometheus-alertmanager"),
    ("amtool", "prometheus-alertmanager"),
];

/// `prometheus`, `promtool`, `prometheus-alertmanager` or `amtool`: the one on the `PATH`, else
/// Debian's, fetched on first use.
pub fn program(name: &str) -> Result<PathBuf> {
    let Some((_, package)) = PROGRAMS.iter().find(|(known, _)| *known == name) else {
        bail!("no package is known for {name}");
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join(name));
    if let Some(found) = on_path.into_iter().find(|file| file.is_file()) {
        return Ok(found);
    }
    let cache = Cache {
        dir: build::target_dir().join("tools/debian"),
        apt_get: "apt-get".into(),
    };
    Ok(cache.get(package)?.join("usr/bin").join(name))
}

/// A command that runs one of these.
pub fn command(name: &str) -> Result<Command> {
    let program = program(name)?;
    let share = program.ancestors().nth(2).map(|usr| usr.join("share"));
    let unpacked = share.filter(|share| share.starts_with(build::target_dir()));
    // Debian's Alertmanager looks for its templates in /usr/share, where they are not: it is given a
    // /usr/share that nobody else sees.
    let (Some(share), "prometheus-alertmanager") = (unpacked, name) else {
        return Ok(Command::new(program));
    };
    let alone = ["--mount", "--map-root-user"];
    let allowed = Command::new("unshare").args(alone).arg("true").output();
    ensure!(
        allowed.is_ok_and(|output| output.status.success()),
        "{name} must be installed where `unshare --mount --map-root-user` is not allowed; {}",
        by_hand(&["prometheus-alertmanager"])
    );
    let mut command = Command::new("unshare");
    let script = r#"mount --bind "$0" /usr/share && exec "$@""#;
    command.args(alone).args(["sh", "-c", script]);
    command.arg(share).arg(program);
    Ok(command)
}

/// How a person installs Debian packages.
pub fn by_hand(packages: &[&str]) -> String {
    let packages = packages.join(" ");
    format!("on Debian: sudo apt-get install --no-install-recommends {packages}")
}

/// Unpacked packages, `<dir>/<package>/usr/bin/...`.
struct Cache {
    dir: PathBuf,
    apt_get: PathBuf,
}

impl Cache {
    fn get(&self, package: &str) -> Result<PathBuf> {
        let unpacked = self.dir.join(package);
        if unpacked.is_dir() {
            return Ok(unpacked);
        }
        fs::create_dir_all(&self.dir)?;
        let lock = File::create(self.dir.join("lock"))?;
        lock.lock()
            .context("cannot lock the directory of packages")?;
        // Another process may have fetched it while we waited for the lock.
        if !unpacked.is_dir() {
            self.fetch(package, &unpacked).with_context(|| {
                let by_hand = by_hand(&[package]);
                format!("there is no {package}, and it cannot be fetched; {by_hand}")
            })?;
        }
        Ok(unpacked)
    }

    fn fetch(&self, package: &str, unpacked: &Path) -> Result<()> {
        // On the same file system as the result, so that the rename is atomic.
        let temp = tempfile::tempdir_in(&self.dir)?;
        let download = |options: &[String]| {
            let mut apt = Command::new(&self.apt_get);
            apt.args(options).args(["download", package]);
            apt.current_dir(temp.path());
            process::run(&mut apt, &format!("Downloading {package}"))
        };
        // A fresh system has no list of packages, or an old one, and only root may renew it: then
        // there is one of our own.
        download(&[]).or_else(|_| download(&self.list_packages(temp.path())?))?;

        let mut files = fs::read_dir(temp.path())?
            .flatten()
            .map(|entry| entry.path());
        let file = files.find(|path| path.extension().is_some_and(|e| e == "deb"));
        let content = temp.path().join("content");
        let mut unpack = Command::new("dpkg");
        unpack
            .arg("-x")
            .arg(file.context("apt-get left no package")?);
        process::run(unpack.arg(&content), &format!("Unpacking {package}"))?;
        fs::rename(content, unpacked)?;
        Ok(())
    }

    /// Fetches the list of packages to `dir`; the options by which apt-get finds it there.
    fn list_packages(&self, dir: &Path) -> Result<Vec<String>> {
        let (lists, cache) = (dir.join("lists"), dir.join("cache"));
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(cache.join("archives/partial"))?;
        let options = vec![
            format!("--option=Dir::State::lists={}", lists.display()),
            format!("--option=Dir::Cache={}", cache.display()),
        ];
        let mut apt = Command::new(&self.apt_get);
        apt.args(&options).arg("update");
        process::run(&mut apt, "Asking which packages there are")?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_apt_the_error_says_what_to_install() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache {
            dir: dir.path().to_owned(),
            apt_get: "/there/is/no/apt-get".into(),
        };
        let error = cache.get("prometheus").expect_err("no apt-get");
        let error = format!("{error:#}");
        assert!(
            error.contains("no-install-recommends prometheus"),
            "{error}"
        );
        assert!(!dir.path().join("prometheus").exists());
    }

    #[test]
    fn what_was_unpacked_is_used_again_without_apt() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("prometheus")).expect("a directory");
        let cache = Cache {
            dir: dir.path().to_owned(),
            apt_get: "/there/is/no/apt-get".into(),
        };
        assert!(cache.get("prometheus").is_ok());
    }

    #[test]
    fn only_known_programs_are_asked_for() {
        assert!(program("rm").is_err());
    }
}
