//! `cargo xtask e2e compose`: what `docker compose up --build` starts, and the promises in it.

mod engine;
mod images;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::build;
use harness::http::{Client, Request};
use harness::ports::free_ports;
use harness::sentiment;
use serde_json::json;

use super::run::{self, Folder, System, words};
use super::steps::Steps;
use engine::Engine;
use images::Images;

const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts compose.yaml and tests the promises in it.
///
/// Takes Docker where its engine runs, else podman and podman-compose, which are installed where that
/// needs no password. No image comes from a registry: the images are made of what cargo builds here,
/// and of the Envoy of PyPI with the libraries of this machine. In the end, and with Ctrl-C, all is
/// taken down and the images are removed.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// Leave everything running, and say how to look at it and how to take it down
    #[arg(long)]
    keep: bool,

    /// Build in containers, as `docker compose up --build` does: with the Rust and Envoy images of a
    /// registry
    #[arg(long)]
    from_registry: bool,
}

/// Runs the suite. `false` where a promise is broken.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let folder = Folder::of("compose")?;
    let dir = folder.path();
    let steps = Steps::new(dir.join("logs"))?;
    let engine = Engine::find(dir, &steps)?;
    let images = if args.from_registry {
        None
    } else {
        Some(Images::prepare(dir)?)
    };
    let setup = Setup::new(&engine, &steps, dir, images.is_some())?;
    run::run(&setup, &steps, args.keep, || {
        setup.start(images.as_ref())?;
        setup.test()
    })
}

/// An application of compose.yaml, whether it runs or not. Each is a project of its own, for they have
/// the same ports if nobody says otherwise.
struct App {
    project: &'static str,
    /// What it has beside the SMS checker's containers.
    profile: Option<&'static str>,
    /// What is started, with all that it needs: everything if there is none.
    service: Option<&'static str>,
    /// A host that its gateway knows.
    host: &'static str,
    port: u16,
    admin_port: u16,
}

impl App {
    fn gateway(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn admin(&self) -> String {
        format!("127.0.0.1:{}", self.admin_port)
    }

    fn answers(&self) -> bool {
        let request = Request::get("/version").header("host", self.host);
        let client = Client::connect_within(Duration::from_secs(2), &self.gateway());
        let answer = client.and_then(|mut client| client.send(&request));
        answer.is_ok_and(|answer| answer.status == 200)
    }
}

/// The set-up, whether it runs or not.
struct Setup<'a> {
    engine: &'a Engine,
    steps: &'a Steps,
    /// A copy of the policies, to be edited.
    policies: PathBuf,
    sms_checker: App,
    sentiment: App,
    own_images: bool,
}

impl<'a> Setup<'a> {
    fn new(engine: &'a Engine, steps: &'a Steps, dir: &Path, own_images: bool) -> Result<Self> {
        let [port, admin_port, other_port, other_admin_port] = free_ports(&[])?;
        let policies = dir.join("policies");
        fs::create_dir_all(&policies)?;
        for entry in fs::read_dir(build::workspace().join("wasm-plugins/policies"))? {
            let entry = entry?;
            fs::copy(entry.path(), policies.join(entry.file_name()))?;
        }
        Ok(Self {
            engine,
            steps,
            policies,
            sms_checker: App {
                project: "lanekeeper-e2e",
                profile: None,
                service: None,
                host: "sms-checker.local",
                port,
                admin_port,
            },
            sentiment: App {
                project: "lanekeeper-e2e-sentiment",
                profile: Some("sentiment"),
                service: Some("sentiment"),
                host: sentiment::API,
                port: other_port,
                admin_port: other_admin_port,
            },
            own_images,
        })
    }

    fn apps(&self) -> [&App; 2] {
        [&self.sms_checker, &self.sentiment]
    }

    /// `compose` for an application, with what this run sets.
    fn compose(&self, app: &App, arguments: &[&str]) -> Command {
        let mut command = self.engine.compose();
        command
            .args(["--project-name", app.project, "--file"])
            .arg(build::workspace().join("compose.yaml"));
        if let Some(profile) = app.profile {
            command.args(["--profile", profile]);
        }
        command.args(arguments);
        for (name, value) in self.environment(app) {
            command.env(name, value);
        }
        command
    }

    fn environment(&self, app: &App) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("TAG", "e2e".to_owned()),
            ("PORT", app.port.to_string()),
            ("ADMIN_PORT", app.admin_port.to_string()),
            ("POLICIES", self.policies.display().to_string()),
        ];
        if self.own_images {
            environment.push(("BINARIES", images::BINARIES.to_owned()));
            environment.push(("ENVOY_IMAGE", images::ENVOY.to_owned()));
        }
        environment
    }

    fn start(&self, images: Option<&Images>) -> Result<()> {
        if let Some(images) = images {
            for (image, context) in images.contexts() {
                let mut build = self.engine.command();
                build.args(["build", "--tag", image]).arg(context);
                self.steps.run(&format!("Making {image}"), &mut build)?;
            }
        }
        // One service of each image.
        let one_of_each = [
            "build",
            "app-stable",
            "model-stable",
            "gateway",
            "sentiment-page-stable",
        ];
        let build = &mut self.compose(&self.sentiment, &one_of_each);
        self.steps.run("Building the images", build)?;
        for app in self.apps() {
            let mut up = self.compose(app, &["up", "--detach"]);
            up.args(app.service);
            let what = format!("Starting the containers of {}", app.project);
            self.steps.run(&what, &mut up)?;
        }
        self.wait_until_healthy()
    }

    /// Waits until every container says that it is well, and the gateways answer.
    fn wait_until_healthy(&self) -> Result<()> {
        let mut unwell = Vec::new();
        let healthy = self
            .steps
            .wait("Waiting until all are healthy", READY_TIMEOUT, || {
                unwell.clear();
                for container in self.containers()? {
                    if !self.engine.is_healthy(&container)? {
                        unwell.push(container);
                    }
                }
                for app in self.apps() {
                    if !app.answers() {
                        unwell.push(app.gateway());
                    }
                }
                Ok(unwell.is_empty())
            });
        healthy.with_context(|| unwell.join(", "))
    }

    fn containers(&self) -> Result<Vec<String>> {
        let mut containers = Vec::new();
        for app in self.apps() {
            let mut list = self.engine.command();
            list.args(["ps", "--all", "--format", "{{.Names}}", "--filter"])
                .arg(format!("label=com.docker.compose.project={}", app.project));
            let names = harness::process::run(&mut list, "Listing the containers")?;
            containers.extend(names.lines().map(str::to_owned));
        }
        Ok(containers)
    }

    /// Runs the tests. `false` where one failed.
    fn test(&self) -> Result<bool> {
        let compose = self.compose(&self.sms_checker, &[]);
        let told = json!({
            "gateway": self.sms_checker.gateway(),
            "admin": self.sms_checker.admin(),
            "sentiment": { "gateway": self.sentiment.gateway(), "admin": self.sentiment.admin() },
            "policy": self.policies.join("gateway.yaml"),
            "command": words(&compose),
        });
        let mut tests = build::cargo();
        tests
            .args([
                "test",
                "--quiet",
                "--locked",
                "--package=promises",
                "--test=compose",
            ])
            .args(["--", "--test-threads=1", "--nocapture", "--format=pretty"])
            .env("E2E_COMPOSE", told.to_string())
            .env_remove("RUST_BACKTRACE");
        for (name, value) in compose.get_envs() {
            tests.envs(value.map(|value| (name, value)));
        }
        self.steps.show("Testing the promises", &mut tests)
    }
}

impl System for Setup<'_> {
    fn save_logs(&self) {
        for container in self.containers().unwrap_or_default() {
            let mut logs = self.engine.command();
            let _ = self.steps.save(&container, logs.args(["logs", &container]));
        }
    }

    fn remove(&self) -> Result<()> {
        for app in self.apps() {
            let down = &mut self.compose(app, &["down", "--volumes", "--timeout", "5"]);
            let what = format!("Taking down {}", app.project);
            self.steps.finish(&what, down)?;
        }
        let left = self.containers()?;
        if !left.is_empty() {
            bail!("these containers are still there: {}", left.join(", "));
        }
        let made = [
            "lanekeeper/app-frontend:e2e",
            "lanekeeper/app-service:e2e",
            "lanekeeper/model-service:e2e",
            "lanekeeper/envoy:e2e",
            images::BINARIES,
            images::ENVOY,
        ];
        self.engine.clean_up(&made, self.steps)
    }

    fn say_how_to_go_on(&self) {
        println!("\nAll runs on; gateway and admin page are");
        for app in self.apps() {
            let (gateway, admin) = (app.gateway(), app.admin());
            println!("    http://{gateway} and http://{admin}, for {}", app.host);
        }
        println!(
            "The policy that both gateways follow is {}.\nTo take all down, run",
            self.policies.join("gateway.yaml").display()
        );
        for app in self.apps() {
            let down = self.compose(app, &["down"]);
            for (name, value) in down.get_envs() {
                let value = value.unwrap_or_default().to_string_lossy();
                println!("    {}='{value}' \\", name.to_string_lossy());
            }
            println!("    {}", words(&down).join(" "));
        }
        println!("or run this suite again, which also removes the images.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_fills_in_every_configuration() {
        let root = build::workspace();
        let compose = lanekeeper_cli::read_document(&root.join("compose.yaml")).unwrap();
        for service in [
            "gateway",
            "sidecar-stable",
            "sidecar-canary",
            "sentiment",
            "sentiment-sidecar-stable",
            "sentiment-sidecar-canary",
        ] {
            let service = &compose["services"][service];
            let arguments = service["command"].as_array().unwrap().iter();
            let option = |name: &str| {
                let found = arguments
                    .clone()
                    .find_map(|a| a.as_str()?.strip_prefix(name));
                found.unwrap_or_else(|| panic!("{name} in {service}"))
            };
            let bootstrap = option("--bootstrap=/");
            let text = fs::read_to_string(root.join(bootstrap)).unwrap();
            let mut values = service["environment"].as_object().unwrap().clone();
            let filled = lanekeeper_cli::template::fill(&text, &mut |name| match name {
                "PLUGIN_FILE" => Some("plugin.yaml".to_owned()),
                name => Some(values.get(name)?.as_str()?.to_owned()),
            });
            assert!(filled.is_ok(), "{bootstrap}: {filled:?}");
            values.retain(|name, _| !text.contains(&format!("{{{{{name}}}}}")));
            assert!(values.is_empty(), "{bootstrap} has no use for {values:?}");
            let policy = root.join("wasm-plugins").join(option("--policy=/"));
            assert!(policy.is_file(), "{}", policy.display());
        }
    }
}
