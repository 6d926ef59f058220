//! Whether users were dealt out as the slots say.

use statrs::distribution::{ChiSquared, ContinuousCDF};

/// Fewer expected users than this in a version, and the test says nothing.
const FEWEST: f64 = 5.0;

/// How likely so uneven a share of the users would be by chance: the chi-squared test with one
/// degree of freedom. `None` for too few users.
pub(super) fn p_value(users: [f64; 2], slots: [f64; 2]) -> Option<f64> {
    let all: f64 = users.iter().sum();
    let expected = slots.map(|share| all * share / slots.iter().sum::<f64>());
    if !expected.iter().all(|users| *users >= FEWEST) {
        return None;
    }
    let off = |(users, expected): (f64, f64)| (users - expected).powi(2) / expected;
    let statistic: f64 = users.into_iter().zip(expected).map(off).sum();
    ChiSquared::new(1.0).ok().map(|chi| chi.sf(statistic))
}
