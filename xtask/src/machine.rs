//! What this machine has, and what is installed on it.

use std::process::Command;

use anyhow::{Result, bail, ensure};

/// Whether a program is there and does what is asked of it.
pub(crate) fn works(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// Whether this is root.
pub(crate) fn is_root() -> Result<bool> {
    let id = harness::process::run(Command::new("id").arg("-u"), "id")?;
    Ok(id.trim() == "0")
}

/// Installs Debian packages, where that needs no password; `run` runs a command that it says, by what
/// it does.
pub(crate) fn install(
    packages: &[&str],
    run: impl Fn(&str, &mut Command) -> Result<()>,
) -> Result<()> {
    ensure!(works("apt-get", &["--version"]), "there is no apt-get");
    let root = is_root()?;
    if !root && !works("sudo", &["-n", "true"]) {
        bail!("sudo asks for a password");
    }
    let apt = |what: &str, arguments: &[&str]| {
        let mut command = Command::new(if root { "env" } else { "sudo" });
        command
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes"])
            .args(arguments);
        run(what, &mut command)
    };
    let what = format!("Installing {}", packages.join(" "));
    let add = [&["install", "--no-install-recommends"], packages].concat();
    apt(&what, &add)
        .or_else(|_| apt("Asking for packages", &["update"]).and_then(|()| apt(&what, &add)))
}
