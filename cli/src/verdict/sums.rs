//! What users of one bucket did in one version.

use std::ops::{AddAssign, Sub};

/// Buckets of users: slots modulo this.
pub const BUCKETS: u8 = 32;

/// What was counted of some users in one version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Predictions that users got.
    pub predictions: f64,
    /// Predictions that users corrected.
    pub corrections: f64,
    /// Seconds that all answers took.
    pub seconds: f64,
    /// How many answers took at most as long as each of the histogram's borders; the last border is
    /// infinite.
    pub answers: Vec<f64>,
}

impl Sums {
    /// Corrections for each prediction; `None` without predictions.
    pub fn correction_rate(&self) -> Option<f64> {
        ratio(self.corrections, self.predictions)
    }

    /// Seconds to an answer, on average.
    pub fn mean(&self) -> Option<f64> {
        ratio(self.seconds, self.answered())
    }

    /// How many answers there were.
    pub fn answered(&self) -> f64 {
        self.answers.last().copied().unwrap_or(0.0)
    }

    /// The seconds within which this share of the answers (less than 1) came; `None` beyond the last finite
    /// border, where nobody knows.
    ///
    /// Between two borders, answers are taken to come at a rate that is the same share of those who still
    /// wait, as in the tail of most latencies. Were they taken to lie evenly, as PromQL's
    /// `histogram_quantile` does, a p95 that rises by 5 % might look 4 % or 7 % larger, where borders are
    /// 20 % apart.
    pub fn quantile(&self, share: f64, borders: &[f64]) -> Option<f64> {
        let [(below, before), (above, after)] = self.bin(share, borders)?;
        let waiting = self.answered() - share * self.answered();
        // Half of one, if there is none: whether there is one or none shall not matter much.
        let after = after.max(waiting.min(0.5));
        let within = (before / waiting).ln() / (before / after).ln();
        Some(below + (above - below) * within)
    }

    /// The borders between which this share of the answers is reached, and how many took longer than
    /// each.
    pub(super) fn bin(&self, share: f64, borders: &[f64]) -> Option<[(f64, f64); 2]> {
        let answered = self.answered();
        let rank = share * answered;
        let place = self.answers.iter().position(|count| *count >= rank);
        let place = place.filter(|_| answered > 0.0)?;
        let above = borders.get(place).filter(|border| border.is_finite())?;
        let below = match place {
            0 => (0.0, answered),
            place => (borders[place - 1], answered - self.answers[place - 1]),
        };
        Some([below, (*above, answered - self.answers[place])])
    }
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

impl AddAssign<&Self> for Sums {
    fn add_assign(&mut self, other: &Self) {
        self.predictions += other.predictions;
        self.corrections += other.corrections;
        self.seconds += other.seconds;
        let longer = self.answers.len().max(other.answers.len());
        self.answers.resize(longer, 0.0);
        for (count, more) in self.answers.iter_mut().zip(&other.answers) {
            *count += more;
        }
    }
}

impl Sub for &Sums {
    type Output = Sums;

    fn sub(self, other: Self) -> Sums {
        let mut answers = self.answers.clone();
        for (count, less) in answers.iter_mut().zip(&other.answers) {
            *count -= less;
        }
        Sums {
            predictions: self.predictions - other.predictions,
            corrections: self.corrections - other.corrections,
            seconds: self.seconds - other.seconds,
            answers,
        }
    }
}

/// What was counted since the start, in control and treatment.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The borders of the latency histogram in seconds, ascending; the last is infinite.
    pub borders: Vec<f64>,
    /// By bucket; one without data may be left out.
    pub buckets: Vec<[Sums; 2]>,
}

impl Outcome {
    /// How many buckets have predictions and answers in both versions.
    pub fn complete(&self) -> usize {
        let has_data = |sums: &Sums| sums.predictions > 0.0 && sums.answered() > 0.0;
        let complete = self.buckets.iter();
        complete.filter(|both| both.iter().all(has_data)).count()
    }

    /// What was counted in all buckets.
    pub fn total(&self) -> [Sums; 2] {
        let mut total = <[Sums; 2]>::default();
        for bucket in &self.buckets {
            total[0] += &bucket[0];
            total[1] += &bucket[1];
        }
        total
    }
}
