//! `cargo xtask bench`: what a request costs in Envoy, with Lanekeeper and with what else one could
//! use.

mod bootstrap;
mod cpu;
mod load;
mod progress;
mod report;
mod variants;

use std::io::{self, Write};
use std::process;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValuesParser;
use harness::build;
use harness::envoy::{Envoy, Options};
use serde_json::Value;

use bootstrap::{Upstream, VERSIONS};
use cpu::Time;
use load::{Clients, Requests};
use progress::Progress;
use report::{Measured, Report};
use variants::{EMPTY, Modules, PEER, VARIANTS, Variant, WINDOW};

/// The exit code of what Ctrl-C ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// The share of the time that the worker may wait for requests. It also costs time to fall asleep and
/// to wake up.
const MOST_IDLE: f64 = 0.2;

/// Measures what a request costs in a real Envoy, beside what else one could use. Linux only.
///
/// All variants run in one Envoy with one worker, each behind a listener of its own. A round measures
/// each of them once, in an order drawn anew. What is counted is the CPU time of the worker thread
/// (/proc/PID/task/*/schedstat) per request: what other processes do, the load included, does not
/// count. Machines that others use, or that change their clock rate, still do their part: so the table
/// has medians of the rounds, and a ratio is the median of the ratios within the rounds.
///
///   base       no filter
///   empty      a wasm filter on the same SDK that does nothing
///   rollout    Lanekeeper: a rollout, no quotas
///   window     Lanekeeper: the rollout, and exact quotas per user and per path
///   bucket     Lanekeeper: the same quotas with algorithm: bucket
///   refused    Lanekeeper: a flood of users who have spent their quota, answered 429
///   lua        Lua: the assignment alone; it counts nothing
///   lua-limit  Envoy's local_ratelimit per user and per path, and Lua: the nearest peer
///
/// Eight connections send requests of 4,000 users and 1,000 paths, nine in ten of them with a version
/// cookie. Each answer is checked: its status, and that the user got the right version.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// How many rounds
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,

    /// Requests of each variant in a round
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    requests: u32,

    /// Measure these variants only
    #[arg(long, value_name = "VARIANT,...", value_delimiter = ',', value_parser = PossibleValuesParser::new(VARIANTS.map(|variant| variant.name)))]
    only: Vec<String>,

    /// Let another Envoy answer the requests, as an upstream; without, the routes answer
    #[arg(long)]
    upstream: bool,

    /// Fail if the targets are not met
    #[arg(long)]
    check: bool,
}

/// Runs the bench. `false` where an answer was wrong, or targets that matter are not met.
pub(crate) fn run(args: &Args) -> Result<bool> {
    ensure!(
        cfg!(target_os = "linux"),
        "the bench reads the CPU time of Envoy's threads from /proc, which only Linux has"
    );
    let is_wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let variants = VARIANTS.iter().filter(|variant| is_wanted(variant.name));
    let variants: Vec<&Variant> = variants.collect();
    ensure!(
        !args.check || [EMPTY, WINDOW, PEER].into_iter().all(is_wanted),
        "--check needs the variants {EMPTY}, {WINDOW} and {PEER}"
    );
    // The harness sees to it that nothing outlives us.
    ctrlc::set_handler(|| process::exit(INTERRUPTED))?;

    let bench = Bench::start(&variants, args.upstream)?;
    say(&format!(
        "Envoy {}, {} rounds of {} requests to each variant{}",
        bench.envoy_version()?,
        args.rounds,
        args.requests,
        match args.upstream {
            true => ", answered by an upstream",
            false => "",
        }
    ))?;
    let outcome = bench.measure(args);
    let outcome = outcome.with_context(|| {
        let log = bench.gateway.process().log_tail();
        format!("the end of Envoy's log:\n{log}")
    })?;
    outcome.tell(args.check)
}

/// The processes of the bench, and who is measured in them.
struct Bench<'v> {
    gateway: Envoy,
    /// Answers until it is dropped.
    _upstream: Option<Envoy>,
    variants: &'v [&'v Variant],
}

struct Outcome {
    measured: Vec<Measured>,
    /// Wrong answers by variant.
    wrong: Vec<usize>,
    /// The share of the time in which the worker had a CPU, and in which it waited for one.
    on_cpu: f64,
    waiting: f64,
}

impl<'v> Bench<'v> {
    fn start(variants: &'v [&'v Variant], with_upstream: bool) -> Result<Self> {
        let modules = Modules::new(&build::filter_wasm()?, &build::empty_filter_wasm()?);
        let (upstream, routes) = match with_upstream {
            true => {
                let options = Options::new("bench-upstream", bootstrap::upstream())?;
                let upstream = Envoy::start(options)?;
                let [first, second] = VERSIONS.map(|version| upstream.port(version));
                (Some(upstream), Upstream::Ports([first?, second?]))
            }
            false => (None, Upstream::None),
        };
        let bootstrap = bootstrap::gateway(variants, &modules, routes);
        let gateway = Envoy::start(Options::new("bench", bootstrap)?)?;
        Ok(Self {
            gateway,
            _upstream: upstream,
            variants,
        })
    }

    /// As Envoy says it: `commit/version/...`.
    fn envoy_version(&self) -> Result<String> {
        let info: Value = serde_json::from_str(&self.gateway.admin_get("/server_info")?)?;
        let version = info["version"].as_str().and_then(|v| v.split('/').nth(1));
        Ok(version.context("Envoy has no version")?.to_owned())
    }

    fn measure(&self, args: &Args) -> Result<Outcome> {
        let mut progress = Progress::new();
        let worker = self.gateway.process().id();
        let (rounds, count) = (args.rounds as usize, args.requests as usize);
        let steps = self.variants.len() * (rounds + 1);
        let mut step = 0;
        let mut subjects = Vec::new();
        let mut measured = Vec::new();
        let mut wrong = Vec::new();
        for variant in self.variants {
            progress.show(step, steps, "warming up")?;
            let mut clients = Clients::connect(&self.gateway.address(variant.name)?)?;
            let requests = Requests::of_users(variant.users());
            let mut faults = clients.send(&requests, requests.len(), variant.at_first())?;
            // Until V8 and Lua have compiled what is worth it.
            faults += clients.send(&requests, count, variant.later())?;
            wrong.push(faults);
            measured.push(Measured {
                name: variant.name,
                rounds: Vec::with_capacity(rounds),
            });
            subjects.push((clients, requests));
            step += 1;
        }
        let (mut all, mut clock) = (Time::default(), Duration::ZERO);
        let mut order: Vec<usize> = (0..self.variants.len()).collect();
        for round in 1..=rounds {
            fastrand::shuffle(&mut order);
            for &index in &order {
                progress.show(step, steps, &format!("round {round} of {rounds}"))?;
                let (clients, requests) = &mut subjects[index];
                let start = Instant::now();
                let before = cpu::of_workers(worker)?;
                wrong[index] += clients.send(requests, count, self.variants[index].later())?;
                let used = cpu::of_workers(worker)?.since(before);
                clock += start.elapsed();
                all = all.and(used);
                let micros = used.on_cpu.as_secs_f64() * 1e6 / count as f64;
                measured[index].rounds.push(micros);
                step += 1;
            }
        }
        progress.end()?;
        Ok(Outcome {
            measured,
            wrong,
            on_cpu: all.on_cpu.as_secs_f64() / clock.as_secs_f64(),
            waiting: all.waiting.as_secs_f64() / clock.as_secs_f64(),
        })
    }
}

impl Outcome {
    /// Says what came of it. `false` where an answer was wrong, or targets that matter are not met.
    fn tell(&self, check: bool) -> Result<bool> {
        let report = Report(&self.measured);
        say("")?;
        for line in report.table() {
            say(&line)?;
        }
        let idle = 1.0 - self.on_cpu - self.waiting;
        say(&format!(
            "\nThe worker had a CPU for {:.0} % of the time, waited {:.0} % for one that others had, and \
             {:.0} % for requests.{}",
            100.0 * self.on_cpu,
            100.0 * self.waiting,
            100.0 * idle.max(0.0),
            match idle > MOST_IDLE {
                true => " That is too long: falling asleep and waking up counts, too.",
                false => "",
            }
        ))?;
        let (targets, met) = report.targets();
        say(&targets)?;
        let wrong: usize = self.wrong.iter().sum();
        let names = self.measured.iter().map(|measured| measured.name);
        let faulty = names.zip(&self.wrong).filter(|(_, wrong)| **wrong > 0);
        let faulty: Vec<_> = faulty.map(|(name, n)| format!("{name} {n}")).collect();
        match faulty.as_slice() {
            [] => say("Wrong answers: 0")?,
            faulty => say(&format!(
                "FAILED: {wrong} wrong answers: {}",
                faulty.join(", ")
            ))?,
        }
        let failed = check && met != Some(true);
        if failed {
            say("FAILED: targets are not met")?;
        }
        Ok(wrong == 0 && !failed)
    }
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
