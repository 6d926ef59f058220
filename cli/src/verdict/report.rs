//! A judgement for people and for programs.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::experiment::Experiment;
use super::judge::{
    CONFIDENCE, FALSE_ALARM, Figure, Judgement, Of, SIGNIFICANCE, Verdict, chance, percent,
};
use super::progress::{MISMATCH, Progress, Slots};
use super::sums::{BUCKETS, Sums};

/// Says a judgement in words.
///
/// # Errors
/// It cannot be written.
pub fn text(
    out: &mut dyn Write,
    experiment: &Experiment,
    progress: &Progress,
    judgement: &Judgement,
) -> io::Result<()> {
    let verdict = match judgement.verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::RollBack => "roll back".to_owned(),
        Verdict::NotEnoughData => {
            format!(
                "not enough data, {} more users",
                thousands(judgement.missing)
            )
        }
        Verdict::Invalid => "invalid".to_owned(),
    };
    writeln!(out, "verdict     {verdict}")?;
    for reason in &judgement.reasons {
        writeln!(out, "            {reason}")?;
    }
    let [control, treatment] = experiment.versions();
    let users = progress.users.map(|users| thousands(users as u64));
    let pace = pace(experiment, progress, judgement).map_or(String::new(), |pace| {
        format!("; at this pace {} more", humantime::format_duration(pace))
    });
    writeln!(
        out,
        "users       {} in {control}, {} in {treatment}, {} planned{pace}",
        users[0],
        users[1],
        thousands(experiment.planned()),
    )?;
    let until = if progress.fulfilled {
        ", when the plan was fulfilled"
    } else {
        ""
    };
    writeln!(
        out,
        "time        {} to {}{until}",
        experiment.start, progress.at
    )?;
    if let (Slots::Steady(slots), Some(split)) = (progress.slots, judgement.sample_ratio) {
        let [control, treatment] = slots;
        writeln!(
            out,
            "split       by {control} : {treatment} slots, {}",
            chance(split.p)
        )?;
    }
    writeln!(out, "buckets     {} of {BUCKETS}", judgement.buckets)?;
    let counts = |sums: &Sums| {
        let counts = [sums.predictions, sums.answered(), sums.corrections];
        let [predictions, answers, corrections] =
            counts.map(|count| thousands(count.round() as u64));
        // While users are missing, nothing is said of corrections.
        let corrections = match progress.fulfilled {
            true => format!(", {corrections} corrections"),
            false => String::new(),
        };
        format!("{predictions} predictions{corrections}, {answers} answers")
    };
    for (first, version, sums) in [
        ("counted", control, &judgement.total[0]),
        ("", treatment, &judgement.total[1]),
    ] {
        writeln!(out, "{first:11} {} in {version}", counts(sums))?;
    }
    for note in &judgement.notes {
        writeln!(out, "note        {note}")?;
    }
    if judgement.figures.is_empty() {
        return Ok(());
    }
    let certainty = match progress.fulfilled {
        true => format!("{:.0} % interval", 100.0 * CONFIDENCE),
        false => "at least, at any time".to_owned(),
    };
    let width = control.len().max(treatment.len()).max(9);
    writeln!(
        out,
        "\n{:17} {control:>width$} {treatment:>width$} {:>9}   {certainty}",
        "", "rise"
    )?;
    for figure in &judgement.figures {
        let [control, treatment] = figure.values.map(|value| shown(figure.of, value));
        let rise = figure.rise.map_or("?".to_owned(), percent);
        let certain = certain(figure);
        let name = figure.of.name();
        writeln!(
            out,
            "{name:17} {control:>width$} {treatment:>width$} {rise:>9}   {certain}"
        )?;
    }
    Ok(())
}

fn certain(figure: &Figure) -> String {
    let interval = match (figure.low, figure.high) {
        (Some(low), Some(high)) => format!("{} to {}", percent(low), percent(high)),
        (Some(low), None) => percent(low),
        (None, _) => "not known".to_owned(),
    };
    match figure.p {
        Some(p) => format!("{interval}, {}", chance(p)),
        None => interval,
    }
}

fn shown(of: Of, value: Option<f64>) -> String {
    match value {
        None => "?".to_owned(),
        Some(value) if of == Of::CorrectionRate => format!("{:.2} %", 100.0 * value),
        Some(seconds) => format!("{:.1} ms", 1000.0 * seconds),
    }
}

/// How long it takes until the plan is fulfilled if users come as they did, in whole hours.
fn pace(
    experiment: &Experiment,
    progress: &Progress,
    judgement: &Judgement,
) -> Option<std::time::Duration> {
    const HOUR: f64 = 3600.0;
    let counted: f64 = progress.users.iter().sum();
    if judgement.verdict != Verdict::NotEnoughData || counted == 0.0 {
        return None;
    }
    let passed = progress.at.0.saturating_sub(experiment.start.0) as f64;
    let hours = (passed * judgement.missing as f64 / counted / HOUR).ceil();
    std::time::Duration::try_from_secs_f64(hours * HOUR).ok()
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// Says a judgement in JSON: times as in RFC 3339, rates and rises as fractions, latency in seconds,
/// standard errors of the logarithm of treatment over control, `null` for what is not known.
pub fn json(experiment: &Experiment, progress: &Progress, judgement: &Judgement) -> Value {
    let [control, treatment] = experiment.versions();
    let verdict = match judgement.verdict {
        Verdict::Accept => "accept",
        Verdict::RollBack => "roll_back",
        Verdict::NotEnoughData => "not_enough_data",
        Verdict::Invalid => "invalid",
    };
    let slots = match progress.slots {
        Slots::Steady(slots) => whole(slots),
        _ => Value::Null,
    };
    let test = judgement
        .sample_ratio
        .map(|split| match split.always_valid {
            true => "always_valid",
            false => "chi_squared",
        });
    let counts = |count: fn(&Sums) -> f64| whole(judgement.total.each_ref().map(count));
    let mut json = json!({
        "verdict": verdict,
        "reasons": judgement.reasons,
        "notes": judgement.notes,
        "rollout": experiment.rollout.as_str(),
        "control": control,
        "treatment": treatment,
        "start": experiment.start.to_string(),
        "judged_at": progress.at.to_string(),
        "planned_users": experiment.planned(),
        "missing_users": judgement.missing,
        "fulfilled": progress.fulfilled,
        "criteria": {
            "minimal_rise": experiment.minimal_rise.fraction(),
            "significance": SIGNIFICANCE,
            "maximal_latency_rise": experiment.maximal_latency_rise.fraction(),
            "sample_ratio_p": MISMATCH,
        },
        "users": whole(progress.users),
        "slots": slots,
        "sample_ratio_p": judgement.sample_ratio.map(|split| split.p),
        "sample_ratio_test": test,
        "buckets": judgement.buckets,
        "predictions": counts(|sums| sums.predictions),
        "answers": counts(Sums::answered),
    });
    if progress.fulfilled {
        json["corrections"] = counts(|sums| sums.corrections);
    }
    for figure in &judgement.figures {
        let name = match figure.of {
            Of::CorrectionRate => "correction_rate",
            Of::MeanLatency => "mean_latency_seconds",
            Of::P95Latency => "p95_latency_seconds",
        };
        let mut fields = json!({
            "control": figure.values[0],
            "treatment": figure.values[1],
            "rise": figure.rise,
            "standard_error": figure.ratio.map(|ratio| ratio.error),
            "degrees_of_freedom": figure.ratio.map(|ratio| ratio.freedom as u64),
        });
        match progress.fulfilled {
            true => {
                fields["confidence"] = CONFIDENCE.into();
                fields["interval"] = json!([figure.low, figure.high]);
            }
            false => {
                fields["confidence"] = (1.0 - FALSE_ALARM / 2.0).into();
                fields["at_least"] = figure.low.into();
            }
        }
        if let Some(p) = figure.p {
            fields["p"] = p.into();
        }
        json[name] = fields;
    }
    json
}

/// Numbers of both versions, to the next whole one: what `increase()` extrapolates is none.
fn whole(numbers: [f64; 2]) -> Value {
    let [control, treatment] = numbers.map(|number| number.round() as u64);
    json!({ "control": control, "treatment": treatment })
}
