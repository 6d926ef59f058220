//! Whether users were dealt out as the slots say.

use statrs::distribution::{ChiSquared, ContinuousCDF};
use statrs::function::beta::ln_beta;

/// Fewer expected users than this in a version, and the test says nothing.
const FEWEST: f64 = 5.0;
/// The shares of the mixture spread around the expected one as those among so many users do by chance.
/// Any other would be as valid.
const CONCENTRATION: f64 = 100.0;

/// How likely so uneven a share of the users would be by chance: the chi-squared test with one
/// degree of freedom. Good for one look. `None` for too few users.
pub(super) fn p_value(users: [f64; 2], slots: [f64; 2]) -> Option<f64> {
    let expected = expected(users, slots)?;
    let off = |(users, expected): (f64, f64)| (users - expected).powi(2) / expected;
    let statistic: f64 = users.into_iter().zip(expected).map(off).sum();
    ChiSquared::new(1.0).ok().map(|chi| chi.sf(statistic))
}

/// The same, for any number of looks: that it is ever below a level has that probability at most.
///
/// The likelihood of the users under a Beta mixture of shares, over the one under the expected share,
/// is a martingale if that is the true one: it ever exceeds 1 / p with probability p at most (Ville).
pub(super) fn always_valid_p_value(users: [f64; 2], slots: [f64; 2]) -> Option<f64> {
    expected(users, slots)?;
    let all: f64 = slots.iter().sum();
    let shares = slots.map(|slots| slots / all);
    let [a, b] = shares.map(|share| CONCENTRATION * share);
    let log_likelihood: f64 = users
        .iter()
        .zip(shares)
        .map(|(users, share)| users * share.ln())
        .sum();
    let log_ratio = ln_beta(a + users[0], b + users[1]) - ln_beta(a, b) - log_likelihood;
    Some((-log_ratio).exp().min(1.0))
}

/// How many of the users the slots give each version, if enough for a test.
fn expected(users: [f64; 2], slots: [f64; 2]) -> Option<[f64; 2]> {
    let all: f64 = users.iter().sum();
    let expected = slots.map(|share| all * share / slots.iter().sum::<f64>());
    let enough = expected.iter().all(|users| *users >= FEWEST);
    enough.then_some(expected)
}
