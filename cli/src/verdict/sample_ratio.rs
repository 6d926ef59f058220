//! Whether users were dealt out as the slots say.

use statrs::distribution::{ChiSquared, ContinuousCDF};
use statrs::function::beta::ln_beta;

/// With fewer expected users in a version, the chi-squared test is wrong too often: at a level of 0.001
/// up to three times in a thousand, with five and a share of a tenth.
const FEWEST: f64 = 50.0;
/// The shares of the mixture spread around the expected one as those among so many users do by chance.
/// Any other would be as valid.
const CONCENTRATION: f64 = 100.0;

/// How likely it is by chance that users are dealt out so unevenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleRatio {
    /// The p-value.
    pub p: f64,
    /// Whether it may be looked at any number of times: it is that of a martingale, and not that of the
    /// chi-squared test.
    pub always_valid: bool,
}

/// The chi-squared test with one degree of freedom, good for one look; for few users, the other.
/// `None` if nobody is expected in one of the versions.
pub(super) fn once(users: [f64; 2], slots: [f64; 2]) -> Option<SampleRatio> {
    let all: f64 = users.iter().sum();
    let expected = shares(slots)?.map(|share| all * share);
    if expected.iter().any(|users| *users < FEWEST) {
        return always(users, slots);
    }
    let off = |(users, expected): (f64, f64)| (users - expected).powi(2) / expected;
    let statistic: f64 = users.into_iter().zip(expected).map(off).sum();
    let p = ChiSquared::new(1.0).ok()?.sf(statistic);
    Some(SampleRatio {
        p,
        always_valid: false,
    })
}

/// A test for any number of looks: that its p is ever below a level has that probability at most.
///
/// The likelihood of the users under a Beta mixture of shares, over the one under the expected share,
/// is a martingale if that is the true one: it ever exceeds 1 / p with probability p at most (Ville).
pub(super) fn always(users: [f64; 2], slots: [f64; 2]) -> Option<SampleRatio> {
    let shares = shares(slots)?;
    let [a, b] = shares.map(|share| CONCENTRATION * share);
    let log_likelihood: f64 = users
        .iter()
        .zip(shares)
        .map(|(users, share)| users * share.ln())
        .sum();
    let log_ratio = ln_beta(a + users[0], b + users[1]) - ln_beta(a, b) - log_likelihood;
    Some(SampleRatio {
        p: (-log_ratio).exp().min(1.0),
        always_valid: true,
    })
}

/// The share of the users that the slots give each version, if each has some.
fn shares(slots: [f64; 2]) -> Option<[f64; 2]> {
    let all: f64 = slots.iter().sum();
    let shares = slots.map(|slots| slots / all);
    shares.iter().all(|share| *share > 0.0).then_some(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-5, "{found}");
    }

    /// By betaln and chi2.sf of SciPy.
    #[test]
    fn p_values_are_those_of_another_library() {
        let slots = [9000.0, 1000.0];
        for (users, p) in [
            ([400.0, 100.0], 1.671_931e-8),
            ([300.0, 60.0], 0.005_805_369),
        ] {
            close(always(users, slots).unwrap().p, p);
        }
        let found = once([4400.0, 600.0], slots).unwrap();
        close(found.p, 2.428_467e-6);
        assert!(!found.always_valid);
    }

    /// With ten expected users, twice as many experiments would be invalid by chance.
    #[test]
    fn few_users_are_not_tested_by_chi_squared() {
        let slots = [9000.0, 1000.0];
        assert_eq!(once([450.0, 49.0], slots), always([450.0, 49.0], slots));
        assert!(!once([450.0, 50.0], slots).unwrap().always_valid);
        assert_eq!(once([450.0, 50.0], [9000.0, 0.0]), None);
    }
}
