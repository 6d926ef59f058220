//! A shadow's model, the challenger, beside the one that most users have, the champion: how often the
//! two agree, and about which requests they do not.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use prometheus::{Gauge, GaugeVec, IntCounterVec, Opts, Registry};
use text::{Class, Model, Prediction};

use crate::artefact::Artefact;

pub(crate) struct Comparison {
    champion: Model,
    total: IntCounterVec,
    agreement: Gauge,
    agreement_by_champion: GaugeVec,
    log: Mutex<Allowance>,
}

impl Comparison {
    /// A comparison that counts in `registry`. The two must have one task.
    pub(crate) fn register(
        registry: &Registry,
        champion: Artefact,
        challenger: &Artefact,
    ) -> anyhow::Result<Self> {
        let (task, other) = (challenger.model.task(), champion.model.task());
        ensure!(
            task == other,
            "the champion's task is {other}; allowed is {task}, the model's"
        );
        champion.register_info(
            registry,
            "model_champion_info",
            "The model that a shadow compares with; always 1.",
        )?;
        let total = IntCounterVec::new(
            Opts::new(
                "model_comparison_total",
                "Texts by what champion and challenger call them.",
            ),
            &["champion", "challenger"],
        )?;
        let agreement = Gauge::new(
            "model_agreement_ratio",
            "The share of texts that both call the same, since the start.",
        )?;
        let agreement_by_champion = GaugeVec::new(
            Opts::new(
                "model_agreement_by_champion_ratio",
                "The same among the texts that the champion calls so.",
            ),
            &["champion"],
        )?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(agreement.clone()))?;
        registry.register(Box::new(agreement_by_champion.clone()))?;
        // Before the first text there is no share: 0 would be an alarm.
        agreement.set(f64::NAN);
        for champion in Class::BOTH.map(|class| task.label(class)) {
            agreement_by_champion
                .with_label_values(&[champion])
                .set(f64::NAN);
            for challenger in Class::BOTH.map(|class| task.label(class)) {
                total.with_label_values(&[champion, challenger]);
            }
        }
        Ok(Self {
            champion: champion.model,
            total,
            agreement,
            agreement_by_champion,
            log: Mutex::default(),
        })
    }

    /// Asks the champion too, and counts what both say. Of the request, only its id is logged.
    pub(crate) fn compare(&self, text: &str, challenger: Prediction, request_id: Option<&str>) {
        let champion = self.champion.predict(text);
        let label = |class| self.champion.task().label(class);
        let labels = [label(champion.class), label(challenger.class)];
        self.total.with_label_values(&labels).inc();
        self.update_shares();
        if champion.class == challenger.class {
            return;
        }
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unlogged) = log.take(Instant::now()) {
            tracing::info!(
                request_id,
                champion = labels[0],
                champion_confidence = champion.confidence,
                challenger = labels[1],
                challenger_confidence = challenger.confidence,
                unlogged,
                "champion and challenger disagree"
            );
        }
    }

    fn update_shares(&self) {
        let label = |class| self.champion.task().label(class);
        let (mut agreed, mut all) = (0, 0);
        for champion in Class::BOTH {
            let count = |challenger| {
                let labels = [label(champion), label(challenger)];
                self.total.with_label_values(&labels).get()
            };
            let (same, called_so) = (count(champion), Class::BOTH.map(count).iter().sum());
            if called_so > 0 {
                self.agreement_by_champion
                    .with_label_values(&[label(champion)])
                    .set(share(same, called_so));
            }
            agreed += same;
            all += called_so;
        }
        self.agreement.set(share(agreed, all));
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// At most [`LINES`] log lines in a [`PERIOD`], however many there are to write.
#[derive(Default)]
struct Allowance {
    start: Option<Instant>,
    taken: u32,
    refused: u64,
}

const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(60);

impl Allowance {
    /// Whether a line may be written now, and how many were not since the last one.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let over = |start| now.saturating_duration_since(start) >= PERIOD;
        if self.start.is_none_or(over) {
            self.start = Some(now);
            self.taken = 0;
        }
        if self.taken == LINES {
            self.refused += 1;
            return None;
        }
        self.taken += 1;
        Some(std::mem::take(&mut self.refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_and_says_what_it_left_out() {
        let mut log = Allowance::default();
        let start = Instant::now();
        let mut lines = |seconds, tries: usize| {
            let now = start + Duration::from_secs(seconds);
            (0..tries).filter_map(|_| log.take(now)).collect::<Vec<_>>()
        };
        assert_eq!(lines(0, 25), [0; 10]);
        assert_eq!(lines(59, 1000), [0; 0]);
        assert_eq!(lines(60, 2), [1015, 0]);
        assert_eq!(lines(3600, 1), [0]);
    }
}
