//! How sure a rise is: the jackknife over buckets of users.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::sums::{Outcome, Sums};

/// The logarithm of treatment over control, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogRatio {
    /// The logarithm of the ratio.
    pub estimate: f64,
    /// Its standard error.
    pub error: f64,
    /// How many degrees of freedom the standard error has.
    pub freedom: f64,
}

impl LogRatio {
    /// Compares a figure of the two versions, by leaving out one bucket after the other.
    ///
    /// `None` where the figure is not known, or is zero, in either version, or would be so without
    /// one of the buckets; or with fewer than two complete buckets.
    pub(super) fn of(outcome: &Outcome, figure: impl Fn(&Sums) -> Option<f64>) -> Option<Self> {
        let log_ratio = |[control, treatment]: [&Sums; 2]| {
            let log = (figure(treatment)? / figure(control)?).ln();
            log.is_finite().then_some(log)
        };
        let total = outcome.total();
        let estimate = log_ratio(total.each_ref())?;
        let mut without = Vec::with_capacity(outcome.buckets.len());
        for [control, treatment] in &outcome.buckets {
            let rest = [&total[0] - control, &total[1] - treatment];
            without.push(log_ratio(rest.each_ref())?);
        }
        // One that has no users of a version tells nothing of how much buckets differ.
        let freedom = outcome.complete().checked_sub(1).filter(|left| *left > 0)? as f64;
        let buckets = without.len() as f64;
        let mean = without.iter().sum::<f64>() / buckets;
        let squares: f64 = without.iter().map(|log| (log - mean).powi(2)).sum();
        let error = (squares * (buckets - 1.0) / buckets).sqrt();
        error.is_finite().then_some(Self {
            estimate,
            error,
            freedom,
        })
    }

    /// How likely a rise of this size or more would be by chance, were there none.
    pub(super) fn p_value(&self) -> f64 {
        if self.error == 0.0 {
            return if self.estimate > 0.0 { 0.0 } else { 1.0 };
        }
        students_t(self.freedom).map_or(1.0, |t| t.sf(self.estimate / self.error))
    }

    /// The interval in which the logarithm lies with this confidence.
    pub(super) fn interval(&self, confidence: f64) -> [f64; 2] {
        let tail = (1.0 - confidence) / 2.0;
        let width = self.error * quantile(self.freedom, 1.0 - tail);
        [self.estimate - width, self.estimate + width]
    }
}

/// The quantile of Student's t distribution.
pub(super) fn quantile(freedom: f64, share: f64) -> f64 {
    students_t(freedom).map_or(f64::INFINITY, |t| t.inverse_cdf(share))
}

fn students_t(freedom: f64) -> Option<StudentsT> {
    StudentsT::new(0.0, 1.0, freedom).ok()
}
