//! A bound that holds however often one looks: the confidence sequence of a normal mixture.

use statrs::distribution::{ContinuousCDF, Normal};

use super::jackknife::{LogRatio, quantile};

/// The rise at which the bound is made to be tight, as a logarithm: the spread of the mixture. Any
/// other would be as valid; this one suits rises of five to twenty percent.
const SPREAD: f64 = 0.1;
/// Eight standard deviations out. Only an error that moves no digit anybody reads leads further.
const SMALLEST_TAIL: f64 = 1e-15;

/// A bound that lies above the true logarithm at any time, ever, with probability `alpha` at most.
///
/// With the variance v of the estimate, the mixture of likelihood ratios over normally distributed
/// rises of variance s is √(v / (v + s)) · exp(s z² / (2 (v + s))): a martingale, were there no rise,
/// which exceeds 1 / `alpha` at any time with probability `alpha` at most (Ville).
pub(super) fn lower_bound(ratio: &LogRatio, alpha: f64) -> f64 {
    let (variance, spread) = (ratio.error.powi(2), SPREAD.powi(2));
    if variance == 0.0 {
        return ratio.estimate;
    }
    let both = variance + spread;
    let z = (both / spread * (2.0 * (1.0 / alpha).ln() + (both / variance).ln())).sqrt();
    // The error is an estimate itself: the t that is as unlikely as z is further out.
    let tail = Normal::standard().sf(z).max(SMALLEST_TAIL);
    ratio.estimate + ratio.error * quantile(ratio.freedom, tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By norm.sf and t.ppf of SciPy.
    #[test]
    fn bounds_are_those_of_another_library() {
        for (estimate, error, freedom, bound) in [
            (0.3, 0.05, 31.0, 0.114_296_6),
            (0.1, 0.01, 31.0, 0.061_138_5),
            (0.1, 0.01, 7.0, 0.039_198_0),
        ] {
            let ratio = LogRatio {
                estimate,
                error,
                freedom,
            };
            let found = lower_bound(&ratio, 0.025);
            assert!((found - bound).abs() < 1e-6, "{found}");
        }
    }
}
