//! How many users an experiment needs for the rules of `judge` to find what is there.

use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};

use super::experiment::Users;
use super::jackknife::quantile;
use super::judge::SIGNIFICANCE;
use super::sums::BUCKETS;

/// Fewer users or corrections than this for each bucket and version: some bucket might well have none,
/// and no logarithm of a rate is anywhere near normal.
const FEWEST_A_BUCKET: f64 = 5.0;
/// Into how many equally likely values the standard error's distribution is cut.
const CUTS: u32 = 200;

/// What is expected of an experiment. Fractions, not percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// The control's correction rate, between 0 and 1.
    pub rate: f64,
    /// By how much the treatment's is larger.
    pub rise: f64,
    /// By how much the treatment's latency is larger.
    pub latency_rise: f64,
    /// By how much the correction rate has to rise at least.
    pub minimal_rise: f64,
    /// By how much latency may not rise.
    pub maximal_latency_rise: f64,
    /// Predictions for each new user until the verdict, on average; at least 1.
    pub reviews: f64,
    /// The treatment's share of the new users, between 0 and 1.
    pub share: f64,
    /// The standard deviation of the latency of an answer, divided by its mean.
    pub latency_variation: f64,
    /// How alike the predictions of one user are: the intraclass correlation of corrections and of
    /// latency. 0: as those of different users; 1: all the same.
    pub correlation: f64,
}

/// How likely such a treatment misses each of the criteria.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Misses {
    /// The correction rate: too small a rise, or one that may be chance.
    pub corrections: f64,
    /// Mean latency.
    pub mean: f64,
    /// The 95th percentile of latency.
    pub p95: f64,
}

impl Misses {
    /// How likely the treatment is accepted, at the least: as if no experiment missed two criteria.
    pub fn power(&self) -> f64 {
        1.0 - self.corrections - self.mean - self.p95
    }
}

impl Expected {
    /// The fewest users, of both versions together, with which such a treatment is accepted with this
    /// probability at least; `None` if not even a billion suffice.
    pub fn users(&self, power: f64) -> Option<u64> {
        let enough =
            |users: u32| self.misses(users.into()).power() >= power && self.countable(users.into());
        let (mut below, mut above) = (Users::FEWEST - 1, Users::MOST);
        if !enough(above) {
            return None;
        }
        while above - below > 1 {
            let middle = below.midpoint(above);
            match enough(middle) {
                true => above = middle,
                false => below = middle,
            }
        }
        Some(above.into())
    }

    /// How likely such a treatment misses each criterion with so many users.
    pub fn misses(&self, users: u64) -> Misses {
        let [control, treatment] = self.predictions(users);
        let odds = |rate: f64, predictions: f64| (1.0 - rate) / (rate * predictions);
        let shares = 1.0 / control + 1.0 / treatment;
        let corrections = odds(self.rate, control) + odds(self.rate * (1.0 + self.rise), treatment);
        // The p95 of a lognormal latency: p (1 - p) / density², on the scale of the logarithm.
        let spread = self.latency_variation.powi(2).ln_1p();
        let normal = Normal::standard();
        let density = statrs::distribution::Continuous::pdf(&normal, normal.inverse_cdf(0.95));
        let p95 = spread * 0.95 * 0.05 / density.powi(2);
        let room = ((1.0 + self.maximal_latency_rise) / (1.0 + self.latency_rise)).ln();
        let too_slow = |variance: f64| normal.sf(room / (variance * shares * self.design()).sqrt());
        Misses {
            corrections: 1.0 - self.found((corrections * self.design()).sqrt()),
            mean: too_slow(self.latency_variation.powi(2)),
            p95: too_slow(p95),
        }
    }

    /// How likely the rise of the correction rate is found to be large enough and significant, by the
    /// true standard error of its logarithm. The error that the jackknife sees varies around that, as
    /// the root of a chi-squared variable.
    fn found(&self, error: f64) -> f64 {
        let freedom = f64::from(BUCKETS) - 1.0;
        let critical = quantile(freedom, 1.0 - SIGNIFICANCE);
        let least = self.minimal_rise.ln_1p();
        let Ok(chi) = ChiSquared::new(freedom) else {
            return 0.0;
        };
        let found = (0..CUTS).map(|cut| {
            let share = (f64::from(cut) + 0.5) / f64::from(CUTS);
            let seen = error * (chi.inverse_cdf(share) / freedom).sqrt();
            let needed = least.max(critical * seen);
            Normal::standard().cdf((self.rise.ln_1p() - needed) / error)
        });
        found.sum::<f64>() / f64::from(CUTS)
    }

    /// By how much the variance is larger than if each prediction were another user's: Kish's design
    /// effect, with users whose numbers of predictions are geometrically distributed.
    fn design(&self) -> f64 {
        1.0 + self.correlation * 2.0 * (self.reviews - 1.0)
    }

    fn predictions(&self, users: u64) -> [f64; 2] {
        [1.0 - self.share, self.share].map(|share| users as f64 * share * self.reviews)
    }

    /// Whether every bucket may be expected to have users and corrections of both versions.
    fn countable(&self, users: u64) -> bool {
        let predictions = self.predictions(users);
        predictions.into_iter().all(|number| {
            let fewest = (number / self.reviews).min(number * self.rate);
            fewest >= FEWEST_A_BUCKET * f64::from(BUCKETS)
        })
    }
}
