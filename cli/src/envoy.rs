//! `lanekeeper envoy`

use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::thread;
use std::time::Duration;
use std::{env, fs};

use clap::Args;
use lanekeeper_cli::{LoadError, PluginFile, Written, template};

use crate::{Failure, lint};

const POLL: Duration = Duration::from_millis(100);

/// Run an Envoy of your own, without Istio, with the filter and a policy.
///
/// The policy file is followed: what you save is in force a moment later. A faulty policy is not
/// handed to Envoy, and its faults go to the standard error; at the start they end the command.
///
/// In Envoy's configuration each {{NAME}} is replaced by the environment variable NAME, and
/// {{PLUGIN_FILE}} by the file that the command writes for the filter: see envoy/gateway.yaml.
/// Environment variables that the policy names for secrets are handed to the filter.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Example:
  LISTEN_HOST=127.0.0.1 GATEWAY_PORT=8080 … lanekeeper envoy --bootstrap envoy/gateway.yaml \\
    --policy policy.yaml --module lanekeeper.wasm --dir /tmp/gateway -- --concurrency 2"
)]
pub(crate) struct Envoy {
    /// Envoy's configuration
    #[arg(long, value_name = "FILE")]
    bootstrap: PathBuf,

    /// The policy, which is followed
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,

    /// The compiled filter
    #[arg(long, value_name = "FILE")]
    module: PathBuf,

    /// Where to write what Envoy reads
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,

    /// Names the plugin in its metrics
    #[arg(long, default_value = "lanekeeper")]
    name: String,

    /// Where Envoy's admin API listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: std::net::SocketAddr,

    /// The program
    #[arg(long, value_name = "PROGRAM", default_value = "envoy")]
    envoy: PathBuf,

    /// Follow the policy while the process that started this one lives
    #[arg(long, hide = true)]
    follow: bool,

    /// More arguments of Envoy
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

impl Envoy {
    pub(crate) fn run(&self) -> Result<ExitCode, Failure> {
        let plugin = PluginFile::new(&self.name, self.dir.join("plugin.yaml"), &self.module);
        match self.follow {
            true => self.follow(&plugin),
            false => self.start(&plugin),
        }
    }

    /// Becomes Envoy, so that it gets the signals and is the one that is waited for. The policy is
    /// followed by a child, which ends with it.
    fn start(&self, plugin: &PluginFile) -> Result<ExitCode, Failure> {
        fs::create_dir_all(&self.dir).map_err(|error| cannot(&self.dir, "be made", &error))?;
        // Of an earlier run.
        let _ = fs::remove_file(plugin.file());
        let bootstrap = self.dir.join("envoy.yaml");
        fs::write(&bootstrap, self.filled(plugin)?)
            .map_err(|error| cannot(&bootstrap, "be written", &error))?;

        let mut follower = follower()?;
        while !plugin.file().is_file() {
            let ended = follower.try_wait();
            if let Some(status) = ended.map_err(|error| Failure::Input(error.to_string()))? {
                // It has said why.
                return Ok(match status.success() {
                    true => ExitCode::SUCCESS,
                    false => ExitCode::FAILURE,
                });
            }
            thread::sleep(POLL / 10);
        }
        let admin = format!(
            "admin: {{address: {{socket_address: {{address: {:?}, port_value: {}}}}}}}",
            self.admin.ip().to_string(),
            self.admin.port()
        );
        let error = Command::new(&self.envoy)
            .arg("--config-path")
            .arg(&bootstrap)
            .args(["--config-yaml", &admin])
            // Shared memory by base id would tie Envoys of one machine together.
            .arg("--disable-hot-restart")
            .args(&self.arguments)
            .exec();
        let _ = follower.kill();
        Err(cannot(&self.envoy, "be run", &error))
    }

    fn filled(&self, plugin: &PluginFile) -> Result<String, Failure> {
        let file = lanekeeper_cli::file_name(&self.bootstrap);
        let text = lanekeeper_cli::read_text(&self.bootstrap)?;
        let filled = template::fill(&text, &mut |name| match name {
            "PLUGIN_FILE" => Some(plugin.file().display().to_string()),
            name => env::var(name).ok(),
        });
        filled.map_err(|reason| Failure::Input(format!("{file}: {reason} in the environment")))
    }

    /// Looks at the contents again and again: unlike notifications of the file system, that works
    /// whether an editor writes the file or replaces it, and on every file system.
    fn follow(&self, plugin: &PluginFile) -> Result<ExitCode, Failure> {
        let parent = parent_id();
        let mut pushed = fs::read(&self.policy).ok();
        let mut last = pushed.clone();
        self.push(plugin)?;
        while parent_id() == parent {
            thread::sleep(POLL);
            let now = fs::read(&self.policy).ok();
            // Twice the same: the editor is done.
            if now == last && now != pushed {
                pushed.clone_from(&now);
                if let Err(Failure::Input(faults)) = self.push(plugin) {
                    eprintln!("{faults}\nThe last good policy stays in force.");
                }
            }
            last = now;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn push(&self, plugin: &PluginFile) -> Result<(), Failure> {
        let written = lanekeeper_cli::find_one(&self.policy)?;
        let summary = summary(&written)?;
        plugin
            .push(&written.document.to_string(), &written.environment()?)
            .map_err(|error| cannot(plugin.file(), "be written", &error))?;
        eprintln!("{}: ok: {summary}", written.label);
        Ok(())
    }
}

/// What a policy holds that is good with the secrets of this environment.
fn summary(written: &Written) -> Result<String, LoadError> {
    let policy = written.compile(&|name| env::var(name).ok())?;
    Ok(lint::summary(&policy, &written.document))
}

/// This command once more, as the one that follows.
fn follower() -> Result<Child, Failure> {
    let mut arguments = env::args_os().skip(1);
    env::current_exe()
        .and_then(|program| {
            Command::new(program)
                .args(arguments.next())
                .arg("--follow")
                .args(arguments)
                .spawn()
        })
        .map_err(|error| Failure::Input(format!("cannot follow the policy: {error}")))
}

fn cannot(path: &Path, what: &str, error: &std::io::Error) -> Failure {
    Failure::Input(format!("{} cannot {what}: {error}", path.display()))
}
