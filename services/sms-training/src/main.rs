//! Trains the SMS models and writes their artefacts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use sms::sha256;
use sms_training::metrics::{Figures, Metrics};
use sms_training::{data, logistic, naive_bayes};

/// Trains both SMS models, measures them, and writes the artefacts, metrics.json and SHA256SUMS.
#[derive(Parser)]
struct Args {
    /// The SMS Spam Collection: the file, or the directory it lies in.
    #[arg(long, default_value = "../shared/data/sms-spam-collection")]
    data: PathBuf,

    /// Where to write.
    #[arg(long, default_value = "services/model-service/models")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let file = match args.data.is_dir() {
        true => args.data.join("SMSSpamCollection"),
        false => args.data,
    };
    let named = || file.display().to_string();
    let bytes = fs::read(&file).with_context(named)?;
    let split = data::load(&bytes).with_context(named)?;

    let stable = timed("naive Bayes", || naive_bayes::train(&split.train))?;
    let canary = timed("logistic regression", || logistic::train(&split.train))?;
    let metrics = Metrics {
        data_sha256: sha256(&bytes),
        data: split.counts,
        models: vec![
            Figures::measure("stable", &stable, &split.test),
            Figures::measure("canary", &canary, &split.test),
        ],
    };
    println!("{}\n\n{}", metrics.summary(), metrics.table());

    let mut metrics_json = serde_json::to_vec_pretty(&metrics)?;
    metrics_json.push(b'\n');
    let mut sums = String::new();
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    for (name, bytes) in [
        ("metrics.json", metrics_json),
        ("sms-canary.json", canary.to_json()?),
        ("sms-stable.json", stable.to_json()?),
    ] {
        sums += &format!("{}  {name}\n", sha256(&bytes));
        write(&args.out.join(name), &bytes)?;
    }
    write(&args.out.join("SHA256SUMS"), sums.as_bytes())
}

fn timed<T>(what: &str, train: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    eprint!("training {what} ... ");
    let start = Instant::now();
    let model = train()?;
    eprintln!("{:.1} s", start.elapsed().as_secs_f64());
    Ok(model)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| path.display().to_string())?;
    eprintln!("wrote {} ({} bytes)", path.display(), bytes.len());
    Ok(())
}
