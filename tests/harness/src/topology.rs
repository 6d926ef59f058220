//! An application behind Lanekeeper, and the same behind plain Envoy: everything that the demo runs, on
//! the loopback address.
//!
//! ```text
//! gateway ── sidecar stable ── app stable ── sidecar stable ── model stable
//!        └── sidecar canary ── app canary ── sidecar canary ── model canary
//!                                                          └── a copy for model shadow
//!
//! plain gateway ── app stable, app canary ── plain ── model stable, model canary
//! ```
//!
//! Sentiment review has its pages besides: either gateway ── page stable, page canary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::envoy::{Envoy, Options};
use crate::ports::free_ports;
use crate::process::Process;
use crate::template;
use crate::{build, http};

const HOST: &str = "127.0.0.1";
/// The versions that run. The first one gets what the routes send nowhere else.
pub const VERSIONS: [&str; 2] = ["stable", "canary"];
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Which application is to be run.
#[derive(Debug)]
pub enum App {
    /// Messages: the app-service has the page.
    SmsChecker,
    /// Reviews: the page is a tier of its own, and calls the app-service under another host.
    Sentiment {
        /// The app-frontend.
        frontend: PathBuf,
        /// Where browsers reach the app-service.
        api_url: String,
    },
}

/// What is to be run.
#[derive(Debug)]
pub struct Parts {
    /// The application.
    pub app: App,
    /// Envoy.
    pub envoy: PathBuf,
    /// The app-service.
    pub app_service: PathBuf,
    /// The model-service.
    pub model_service: PathBuf,
    /// Logs and configurations go here.
    pub dir: PathBuf,
}

/// Everything that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Topology {
    gateway: Envoy,
    plain: Envoy,
    sidecars: Vec<Envoy>,
    services: Vec<Process>,
    app_ports: [u16; 2],
    page_ports: Option<[u16; 2]>,
    /// Stable's, canary's and the shadow's.
    model_ports: [u16; 3],
}

/// Where Prometheus finds metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The namespace that the application has in a cluster.
    pub namespace: &'static str,
    /// The services behind Lanekeeper: the name of the Service, and `host:port`.
    pub services: Vec<(&'static str, String)>,
    /// The admin APIs of the gateways, which have them under `/stats/prometheus`.
    pub gateways: Vec<String>,
    /// The same of the sidecars.
    pub sidecars: Vec<String>,
}

impl Metrics {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.services.len() + self.gateways.len() + self.sidecars.len()
    }
}

impl Topology {
    /// Starts everything and waits until it is ready. The ports are the gateway's; the filter is
    /// read from two files, which hold their policies.
    pub fn start(
        parts: &Parts,
        port: u16,
        admin_port: u16,
        gateway_plugin: &Path,
        sidecar_plugin: &Path,
    ) -> Result<Self> {
        // Services and Envoys name each other's ports, so these must be known before.
        let [a, b, c, d, e, f, g, h, i, j, shadow_port, plain_model_port] =
            free_ports(&[port, admin_port])?;
        let (model_ports, outbound_ports) = ([a, b], [c, d]);
        let (app_ports, plain_app_ports) = ([e, f], [g, h]);
        let page_ports = [i, j];

        let mut services = Vec::new();
        for (version, port) in VERSIONS.into_iter().zip(model_ports) {
            services.push(parts.model_service(version, port, &[])?);
        }
        // What is tried out, beside the model that most users have.
        let champion = parts.model_file("stable");
        let settings = [("CHAMPION_FILE", champion.as_str())];
        services.push(parts.model_service("shadow", shadow_port, &settings)?);
        if let App::Sentiment { frontend, api_url } = &parts.app {
            let settings = [("API_URL", api_url.as_str())];
            for (version, port) in VERSIONS.into_iter().zip(page_ports) {
                services.push(parts.service(frontend, "page", version, port, &settings)?);
            }
        }
        let mut sidecars = Vec::new();
        for (index, version) in VERSIONS.into_iter().enumerate() {
            let (app_port, outbound_port) = (app_ports[index], outbound_ports[index]);
            sidecars.push(parts.sidecar(
                version,
                sidecar_plugin,
                app_port,
                outbound_port,
                model_ports,
                shadow_port,
            )?);
            services.push(parts.app_behind_sidecar(version, app_port, outbound_port)?);

            let model = format!("http://{HOST}:{plain_model_port}");
            let settings = [("MODEL_SERVICE_URL", model.as_str())];
            let port = plain_app_ports[index];
            services.push(parts.app_service("plain-app", version, port, &settings)?);
        }

        let inbound = |sidecar: &Envoy| sidecar.port("inbound");
        let sidecar_ports = [inbound(&sidecars[0])?, inbound(&sidecars[1])?];
        let pages = parts.pages(page_ports);
        let gateway = parts.gateway(port, admin_port, gateway_plugin, sidecar_ports, &pages)?;
        let plain = parts.plain(plain_app_ports, plain_model_port, model_ports, &pages)?;
        Ok(Self {
            gateway,
            plain,
            sidecars,
            services,
            app_ports,
            page_ports: matches!(parts.app, App::Sentiment { .. }).then_some(page_ports),
            model_ports: [a, b, shadow_port],
        })
    }

    /// Where users reach Lanekeeper's gateway, as `host:port`.
    pub fn gateway(&self) -> Result<String> {
        self.gateway.address("gateway")
    }

    /// Where users reach plain Envoy.
    pub fn plain(&self) -> Result<String> {
        self.plain.address("gateway")
    }

    /// The sidecars of the app-service: stable's and canary's.
    pub fn sidecars(&self) -> &[Envoy] {
        &self.sidecars
    }

    /// Where the app-services themselves listen, behind their sidecars: stable's and canary's.
    pub fn apps(&self) -> [String; 2] {
        self.app_ports.map(|port| format!("{HOST}:{port}"))
    }

    /// Where the pages listen: stable's and canary's.
    pub fn pages(&self) -> Option<[String; 2]> {
        let ports = self.page_ports?;
        Some(ports.map(|port| format!("{HOST}:{port}")))
    }

    /// Pages, apps and models.
    pub fn services(&self) -> &[Process] {
        &self.services
    }

    /// The admin API of the gateway.
    pub fn admin(&self) -> &str {
        self.gateway.admin_address()
    }

    /// The gateway itself.
    pub fn gateway_envoy(&self) -> &Envoy {
        &self.gateway
    }

    /// Where metrics of what stands behind Lanekeeper are, and of Lanekeeper itself: the name of the
    /// Service and `host:port`. Envoys have them under `/stats/prometheus`.
    pub fn metrics(&self) -> Metrics {
        let at = |port| format!("{HOST}:{port}");
        let pages = self.pages().into_iter().flatten();
        let pages = pages.map(|address| ("app-frontend", address));
        let apps = self.apps().map(|address| ("app-service", address));
        let [stable, canary, shadow] = self.model_ports.map(at);
        let models = [
            ("model-service", stable),
            ("model-service", canary),
            ("model-shadow", shadow),
        ];
        let sidecars = self.sidecars.iter();
        let namespace = match self.page_ports {
            Some(_) => "sentiment",
            None => "sms-checker",
        };
        Metrics {
            namespace,
            services: pages.chain(apps).chain(models).collect(),
            gateways: vec![self.admin().to_owned()],
            sidecars: sidecars.map(|e| e.admin_address().to_owned()).collect(),
        }
    }

    /// The admin API of the gateway without Lanekeeper.
    pub fn plain_admin(&self) -> &str {
        self.plain.admin_address()
    }

    /// A service by its name, such as `model-canary`, `model-shadow`, `app-stable` or `page-canary`.
    pub fn service(&self, name: &str) -> Option<&Process> {
        self.services.iter().find(|service| service.name() == name)
    }

    /// Puts another model service in the place of a version's, or the shadow's; `settings` are in
    /// addition to the usual ones, or instead of them.
    pub fn replace_model(
        &mut self,
        parts: &Parts,
        version: &str,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        let versions = VERSIONS.into_iter().chain(["shadow"]);
        let mut models = versions.zip(self.model_ports);
        let model = models.find(|(known, _)| *known == version);
        let (_, port) = model.with_context(|| format!("there is no model {version}"))?;
        let name = format!("model-{version}");
        self.services.retain(|service| service.name() != name);
        self.services
            .push(parts.model_service(version, port, settings)?);
        Ok(())
    }

    /// Starts the app-service of a version anew.
    pub fn restart_app(&mut self, parts: &Parts, version: &str) -> Result<()> {
        let name = format!("app-{version}");
        self.services.retain(|service| service.name() != name);
        let index = VERSIONS.iter().position(|known| *known == version);
        let index = index.with_context(|| format!("there is no app {version}"))?;
        let outbound_port = self.sidecars[index].port("outbound")?;
        let app = parts.app_behind_sidecar(version, self.app_ports[index], outbound_port)?;
        self.services.push(app);
        Ok(())
    }

    /// What to say of the first process that ended by itself; `None` while all run.
    pub fn ended(&mut self) -> Result<Option<String>> {
        let envoys = [&mut self.gateway, &mut self.plain]
            .into_iter()
            .chain(&mut self.sidecars);
        for process in envoys.map(Envoy::process_mut).chain(&mut self.services) {
            if let Some(end) = process.what_ended()? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }
}

impl Parts {
    /// The artefact of a model.
    fn model_file(&self, version: &str) -> String {
        let task = match self.app {
            App::SmsChecker => "sms",
            App::Sentiment { .. } => "review",
        };
        let file = format!("services/model-service/models/{task}-{version}.json");
        build::workspace().join(file).display().to_string()
    }

    /// The bootstrap of one of the gateways, which each application has its own of.
    fn gateway_bootstrap(&self, name: &str, values: &[(&str, &str)]) -> Result<String> {
        match self.app {
            App::SmsChecker => template::file(&format!("{name}.yaml"), values),
            App::Sentiment { .. } => template::file(&format!("sentiment-{name}.yaml"), values),
        }
    }

    /// Where the gateways find the pages, for their bootstraps; nothing where there are none.
    fn pages(&self, ports: [u16; 2]) -> Vec<(&'static str, String)> {
        if matches!(self.app, App::SmsChecker) {
            return Vec::new();
        }
        let [stable, canary] = ports.map(|port| port.to_string());
        vec![
            ("FRONTEND_STABLE_HOST", HOST.to_owned()),
            ("FRONTEND_STABLE_PORT", stable),
            ("FRONTEND_CANARY_HOST", HOST.to_owned()),
            ("FRONTEND_CANARY_PORT", canary),
        ]
    }

    /// A directory for one process.
    fn dir_of(&self, process: &str) -> Result<PathBuf> {
        let dir = self.dir.join(process);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    fn model_service(
        &self,
        version: &str,
        port: u16,
        settings: &[(&str, &str)],
    ) -> Result<Process> {
        let model = self.model_file(version);
        let settings = [&[("MODEL_FILE", model.as_str())], settings].concat();
        self.service(&self.model_service, "model", version, port, &settings)
    }

    fn app_behind_sidecar(&self, version: &str, port: u16, outbound_port: u16) -> Result<Process> {
        let proxy = format!("http://{HOST}:{outbound_port}");
        let settings = [
            ("HTTP_PROXY", proxy.as_str()),
            // The name that the model has in a cluster; the sidecar knows where it is.
            ("MODEL_SERVICE_URL", "http://model-service:8081"),
        ];
        self.app_service("app", version, port, &settings)
    }

    fn app_service(
        &self,
        name: &str,
        version: &str,
        port: u16,
        settings: &[(&str, &str)],
    ) -> Result<Process> {
        let task: &[_] = match (&self.app, version) {
            (App::SmsChecker, _) => &[],
            (App::Sentiment { .. }, "canary") => &[("TASK", "review"), ("SHOW_CONFIDENCE", "true")],
            (App::Sentiment { .. }, _) => &[("TASK", "review")],
        };
        let settings = [task, settings].concat();
        self.service(&self.app_service, name, version, port, &settings)
    }

    fn service(
        &self,
        binary: &Path,
        name: &str,
        version: &str,
        port: u16,
        settings: &[(&str, &str)],
    ) -> Result<Process> {
        let name = format!("{name}-{version}");
        let address = format!("{HOST}:{port}");
        let mut command = Command::new(binary);
        command
            // Proxies that the user has set are not for these calls.
            .env_clear()
            .envs([("LISTEN_ADDR", address.as_str()), ("VERSION", version)])
            .envs(settings.iter().copied());
        let mut service = Process::start(&name, self.dir_of(&name)?, &mut command)?;
        service.keep_dir();
        let health = format!("http://{address}/health");
        service
            .wait_until_ready(START_TIMEOUT, || {
                http::get(&health).is_ok_and(|answer| answer.status == 200)
            })
            .with_context(|| format!("the log is {}", service.log_path().display()))?;
        Ok(service)
    }

    fn gateway(
        &self,
        port: u16,
        admin_port: u16,
        plugin: &Path,
        sidecars: [u16; 2],
        pages: &[(&'static str, String)],
    ) -> Result<Envoy> {
        let [stable, canary] = sidecars.map(|port| port.to_string());
        let (port, plugin) = (port.to_string(), plugin.display().to_string());
        let mut values = vec![
            ("LISTEN_HOST", HOST),
            ("GATEWAY_PORT", port.as_str()),
            ("PLUGIN_FILE", plugin.as_str()),
            ("APP_STABLE_HOST", HOST),
            ("APP_STABLE_PORT", &stable),
            ("APP_CANARY_HOST", HOST),
            ("APP_CANARY_PORT", &canary),
        ];
        values.extend(pages.iter().map(|(name, value)| (*name, value.as_str())));
        let bootstrap = self.gateway_bootstrap("gateway", &values)?;
        self.envoy("gateway", bootstrap, admin_port)
    }

    fn sidecar(
        &self,
        version: &str,
        plugin: &Path,
        app_port: u16,
        outbound_port: u16,
        models: [u16; 2],
        shadow: u16,
    ) -> Result<Envoy> {
        let [stable, canary] = models.map(|port| port.to_string());
        let bootstrap = template::file(
            "sidecar.yaml",
            &[
                ("VERSION", version),
                ("LISTEN_HOST", HOST),
                ("INBOUND_PORT", "0"),
                ("OUTBOUND_PORT", &outbound_port.to_string()),
                ("PLUGIN_FILE", &plugin.display().to_string()),
                ("APP_HOST", HOST),
                ("APP_PORT", &app_port.to_string()),
                ("MODEL_STABLE_HOST", HOST),
                ("MODEL_STABLE_PORT", &stable),
                ("MODEL_CANARY_HOST", HOST),
                ("MODEL_CANARY_PORT", &canary),
                ("MODEL_SHADOW_HOST", HOST),
                ("MODEL_SHADOW_PORT", &shadow.to_string()),
            ],
        )?;
        self.envoy(&format!("sidecar-{version}"), bootstrap, 0)
    }

    fn plain(
        &self,
        apps: [u16; 2],
        model_port: u16,
        models: [u16; 2],
        pages: &[(&'static str, String)],
    ) -> Result<Envoy> {
        let [app_stable, app_canary] = apps.map(|port| port.to_string());
        let [model_stable, model_canary] = models.map(|port| port.to_string());
        let model_port = model_port.to_string();
        let mut values = vec![
            ("LISTEN_HOST", HOST),
            ("GATEWAY_PORT", "0"),
            ("MODEL_PORT", model_port.as_str()),
            ("APP_STABLE_HOST", HOST),
            ("APP_STABLE_PORT", &app_stable),
            ("APP_CANARY_HOST", HOST),
            ("APP_CANARY_PORT", &app_canary),
            ("MODEL_STABLE_HOST", HOST),
            ("MODEL_STABLE_PORT", &model_stable),
            ("MODEL_CANARY_HOST", HOST),
            ("MODEL_CANARY_PORT", &model_canary),
        ];
        values.extend(pages.iter().map(|(name, value)| (*name, value.as_str())));
        let bootstrap = self.gateway_bootstrap("plain", &values)?;
        self.envoy("plain", bootstrap, 0)
    }

    fn envoy(&self, name: &str, bootstrap: String, admin_port: u16) -> Result<Envoy> {
        let dir = self.dir_of(name)?;
        let log = dir.join("log");
        Envoy::start(Options {
            name: name.to_owned(),
            binary: self.envoy.clone(),
            bootstrap,
            // Several workers share one policy: users must not notice which one they got.
            concurrency: 2,
            admin_port,
            log_level: "info".to_owned(),
            args: vec![],
            dir: Some(dir),
        })
        .with_context(|| format!("the log is {}", log.display()))
    }
}
