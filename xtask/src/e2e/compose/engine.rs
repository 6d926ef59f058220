//! What runs containers: Docker, or podman where there is no Docker engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use harness::{build, debian};

use crate::e2e::steps::Steps;
use crate::machine::{self, is_root, works};

const PODMAN_COMPOSE: &str = "1.6.0";
const PACKAGES: [(&str, &str); 5] = [
    ("podman", "podman"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("/usr/lib/podman/netavark", "netavark"),
    ("/usr/lib/podman/aardvark-dns", "aardvark-dns"),
];

/// Docker or podman.
#[derive(Debug)]
pub(super) enum Engine {
    Docker,
    Podman {
        /// The folder with podman-compose.
        compose: PathBuf,
        settings: Settings,
    },
}

/// A podman that shares no images and containers with others on this machine.
#[derive(Debug)]
pub(super) struct Settings {
    dir: PathBuf,
    storage: PathBuf,
    /// Where podman runs as root.
    containers: Option<PathBuf>,
}

impl Engine {
    /// Docker where its engine runs and has compose, else podman, installed if need be.
    pub(super) fn find(dir: &Path, steps: &Steps) -> Result<Self> {
        if works("docker", &["info"]) && works("docker", &["compose", "version"]) {
            println!("Docker runs the containers.");
            return Ok(Self::Docker);
        }
        let missing = || {
            PACKAGES
                .into_iter()
                .filter(|(program, _)| !is_there(program))
        };
        if missing().next().is_some() {
            let packages: Vec<_> = missing().map(|(_, package)| package).collect();
            machine::install(&packages, |what, command| steps.run(what, command)).with_context(
                || {
                    let by_hand = debian::by_hand(&packages);
                    format!("there is no Docker engine, and podman lacks something; {by_hand}")
                },
            )?;
        }
        let engine = Self::Podman {
            compose: podman_compose(steps)?,
            settings: Settings::write(&dir.join("podman"))?,
        };
        let mut version = engine.command();
        let version = harness::process::run(version.arg("--version"), "podman --version")?;
        println!(
            "No Docker engine: {} and podman-compose {PODMAN_COMPOSE} run the containers.",
            version.trim()
        );
        Ok(engine)
    }

    /// `docker` or `podman`.
    pub(super) fn command(&self) -> Command {
        let mut command = match self {
            Self::Docker => Command::new("docker"),
            Self::Podman { .. } => Command::new("podman"),
        };
        self.set_up(&mut command);
        command
    }

    /// `docker compose` or `podman-compose`.
    pub(super) fn compose(&self) -> Command {
        let mut command = match self {
            Self::Docker => {
                let mut docker = Command::new("docker");
                docker.arg("compose");
                docker
            }
            Self::Podman { compose, .. } => {
                let mut python = Command::new("python3");
                python.arg(compose.join("podman_compose.py"));
                python.env("PYTHONPATH", compose);
                python
            }
        };
        self.set_up(&mut command);
        command
    }

    fn set_up(&self, command: &mut Command) {
        if let Self::Podman { settings, .. } = self {
            command.env("CONTAINERS_STORAGE_CONF", &settings.storage);
            if let Some(containers) = &settings.containers {
                command.env("CONTAINERS_CONF", containers);
            }
        }
    }

    /// Removes the images that were made, and what an interrupted build has left.
    pub(super) fn clean_up(&self, images: &[&str], steps: &Steps) -> Result<()> {
        let mut remove = self.command();
        remove.args(["image", "rm", "--force"]);
        let Self::Podman { settings, .. } = self else {
            // Some may not be there.
            return steps.quietly(remove.args(images)).map(drop);
        };
        // All that this podman has is ours, also the images of steps in between.
        let mut list = self.command();
        list.args(["ps", "--all", "--external", "--quiet"]);
        let containers = harness::process::run(&mut list, "Listing the containers")?;
        if !containers.is_empty() {
            let mut rest = self.command();
            rest.args(["rm", "--force"])
                .args(containers.split_whitespace());
            steps.quietly(&mut rest)?;
        }
        steps.quietly(remove.arg("--all"))?;
        settings.remove_storage(steps)
    }

    /// What the health check of a container says.
    pub(super) fn is_healthy(&self, container: &str) -> Result<bool> {
        let mut command = self.command();
        match self {
            Self::Docker => {
                command.args(["inspect", "--format", "{{.State.Health.Status}}", container]);
                let status = harness::process::run(&mut command, "docker inspect")?;
                Ok(status.trim() == "healthy")
            }
            // Without systemd, nobody else asks.
            Self::Podman { .. } => {
                command.args(["healthcheck", "run", container]);
                Ok(command.output()?.status.success())
            }
        }
    }
}

impl Settings {
    fn write(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let storage = dir.join("storage.conf");
        let text = format!(
            "[storage]\n\
             driver = \"overlay\"\n\
             runroot = \"{0}/run\"\n\
             graphroot = \"{0}/graph\"\n",
            dir.display()
        );
        fs::write(&storage, text)?;
        let containers = is_root()?.then(|| Self::for_root(dir)).transpose()?;
        Ok(Self {
            dir: dir.to_owned(),
            storage,
            containers,
        })
    }

    /// Removes the storage, which has no images left. As root podman leaves a mount there.
    fn remove_storage(&self, steps: &Steps) -> Result<()> {
        let graph = self.dir.join("graph");
        let mut remove = match self.containers {
            Some(_) => {
                let mut unmount = Command::new("umount");
                steps.quietly(unmount.arg("--recursive").arg(graph.join("overlay")))?;
                Command::new("rm")
            }
            // Files of other users of the containers, who are all this user.
            None => {
                let mut podman = Command::new("podman");
                podman.env("CONTAINERS_STORAGE_CONF", &self.storage);
                podman.args(["unshare", "rm"]);
                podman
            }
        };
        remove.args(["-rf", "--one-file-system"]);
        steps
            .quietly(remove.arg(graph).arg(self.dir.join("run")))
            .map(drop)
    }

    /// What root needs in a container itself, where nobody may raise limits and crun finds no cgroups:
    /// the limits of this process, and runc. It does no harm elsewhere.
    fn for_root(dir: &Path) -> Result<PathBuf> {
        let file = dir.join("containers.conf");
        let mut limit = Command::new("sh");
        let files = harness::process::run(limit.args(["-c", "ulimit -Hn"]), "ulimit")?;
        let text = format!(
            "[containers]\n\
             default_ulimits = [\"nofile={files}:{files}\", \"nproc=32768:32768\"]\n\
             log_driver = \"k8s-file\"\n\
             [engine]\n\
             cgroup_manager = \"cgroupfs\"\n\
             events_logger = \"file\"\n\
             runtime = \"runc\"\n\
             [network]\n\
             network_backend = \"netavark\"\n\
             network_config_dir = \"{dir}/networks\"\n",
            files = files.trim(),
            dir = dir.display()
        );
        fs::write(&file, text)?;
        Ok(file)
    }
}

/// podman-compose from PyPI, which is pure Python. Debian's is too old for health checks in
/// `depends_on`.
fn podman_compose(steps: &Steps) -> Result<PathBuf> {
    let dir = build::target_dir().join(format!("tools/podman-compose-{PODMAN_COMPOSE}"));
    if dir.join("podman_compose.py").is_file() {
        return Ok(dir);
    }
    let new = dir.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ])
    .arg("--target")
    .arg(&new)
    .arg(format!("podman-compose=={PODMAN_COMPOSE}"));
    steps.run("Fetching podman-compose", &mut pip).context(
        "Python 3 with pip is needed (`apt install python3-pip`), and PyPI must be reachable",
    )?;
    fs::rename(&new, &dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

fn is_there(program: &str) -> bool {
    match program.starts_with('/') {
        // Distributions put the helpers of podman in different places.
        true => [program, &program.replace("/lib/", "/libexec/")]
            .iter()
            .any(|file| Path::new(file).is_file()),
        false => works(program, &["--version"]),
    }
}
