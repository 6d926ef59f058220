//! Trains the models of a task and writes their artefacts.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use text::{Model, Task, sha256};
use training::candidates::{VERSIONS, candidates};
use training::checks;
use training::data::{self, DataSet};
use training::metrics::{Figures, Metrics, cross_validate};
use training::relations::relations;

/// Checks a data set, compares models by cross-validation, trains those that are shipped, measures
/// them, and writes the artefacts, the metrics and SHA256SUMS.
#[derive(Parser)]
struct Args {
    /// What the models are for
    #[arg(long)]
    task: TaskArg,

    /// The directory of the data set: SMSSpamCollection, or the files *_labelled.txt of the Sentiment
    /// Labelled Sentences
    #[arg(long)]
    data: PathBuf,

    /// Where to write. The best figures that are there are what the new models are measured against
    #[arg(long, default_value = "services/model-service/models")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum TaskArg {
    SmsSpam,
    ReviewSentiment,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (task, prefix) = match args.task {
        TaskArg::SmsSpam => (Task::SmsSpam, "sms"),
        TaskArg::ReviewSentiment => (Task::ReviewSentiment, "review"),
    };
    let data = DataSet::parse(task, &data::read(task, &args.data)?)?;
    let split = data.split()?;
    checks::check(&data, &split)?;

    let candidates = candidates(task);
    let start = Instant::now();
    let candidates_compared = cross_validate(task, &candidates, &split.train, |done, all| {
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("cross-validation: {done} of {all} models, {seconds:.1} s");
    })?;
    let mut models = Vec::new();
    for version in VERSIONS {
        let mut candidates = candidates.iter();
        let candidate = candidates.find(|candidate| candidate.version == Some(version));
        let candidate = candidate.with_context(|| format!("no candidate is {version}"))?;
        let model = timed(version, || candidate.train(task, &split.train))?;
        models.push((version, model));
    }
    let relations = relations(task);
    let relations = relations.iter();
    let models_measured: Vec<_> = (models.iter())
        .map(|(version, model)| Figures::measure(version, model, &split.test))
        .collect();
    let mut metrics = Metrics {
        task,
        files: data.files.clone(),
        data: split.counts(&data),
        candidates: candidates_compared,
        relations: relations
            .map(|relation| relation.measure(task, &split.test, &models))
            .collect(),
        best_f1: (models_measured.iter())
            .map(|figures| (figures.version.clone(), figures.f1))
            .collect(),
        models: models_measured,
    };
    println!("{}", metrics.report());

    let metrics_file = args.out.join(format!("{prefix}-metrics.json"));
    if let Some(before) = read_metrics(&metrics_file)? {
        metrics.follow(&before).with_context(|| {
            let file = metrics_file.display();
            format!("nothing was written; to begin anew, remove {file}")
        })?;
    }
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let mut metrics_json = serde_json::to_vec_pretty(&metrics)?;
    metrics_json.push(b'\n');
    write(&metrics_file, &metrics_json)?;
    for (version, model) in &models {
        let file = args.out.join(format!("{prefix}-{version}.json"));
        write(&file, &model.to_json()?)?;
    }
    write_sums(&args.out)
}

fn timed(what: &str, train: impl FnOnce() -> anyhow::Result<Model>) -> anyhow::Result<Model> {
    eprint!("training {what} ... ");
    let start = Instant::now();
    let model = train()?;
    eprintln!("{:.1} s", start.elapsed().as_secs_f64());
    Ok(model)
}

fn read_metrics(file: &Path) -> anyhow::Result<Option<Metrics>> {
    let json = match fs::read(file) {
        Ok(json) => json,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    };
    let metrics = serde_json::from_slice(&json);
    Ok(Some(metrics.with_context(|| file.display().to_string())?))
}

/// The checksums of what is there of both tasks.
fn write_sums(directory: &Path) -> anyhow::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let name = name.to_str().context("a file name that is not UTF-8")?;
        if name.ends_with(".json") {
            names.push(name.to_owned());
        }
    }
    names.sort();
    let mut sums = String::new();
    for name in names {
        let bytes = fs::read(directory.join(&name))?;
        sums += &format!("{}  {name}\n", sha256(&bytes));
    }
    ensure!(!sums.is_empty(), "{}: no artefacts", directory.display());
    write(&directory.join("SHA256SUMS"), sums.as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| path.display().to_string())?;
    eprintln!("wrote {} ({} bytes)", path.display(), bytes.len());
    Ok(())
}
