//! Whether a quota gives a user what it says: not more, and not less.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A quota that counts in windows admits no more than this.
const MOST: usize = 128;
/// Envoy's clock may be set a little while it counts.
const TOLERANCE: Duration = Duration::from_secs(1);

/// When a request was under way: it was judged somewhere in between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
}

/// The requests of a user that were admitted, the newest first.
#[derive(Debug, Default)]
pub(crate) struct Admitted(VecDeque<Span>);

impl Admitted {
    pub(crate) fn add(&mut self, span: Span) {
        self.0.push_front(span);
        self.0.truncate(MOST + 1);
    }

    /// Whether more than `limit` were admitted in a `period` that the newest one ends.
    pub(crate) fn exceed(&self, limit: u32, period: Duration) -> bool {
        let newest = self.0.front();
        let one_too_many = self.0.get(limit as usize);
        newest
            .zip(one_too_many)
            .is_some_and(|(newest, first)| newest.answered < first.sent + period - TOLERANCE)
    }

    /// Whether `limit` may have been admitted in the `period` before `refused`.
    pub(crate) fn reach(&self, limit: u32, period: Duration, refused: Span) -> bool {
        let first = self.0.get((limit as usize).saturating_sub(1));
        first.is_some_and(|first| first.answered + period + TOLERANCE > refused.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A request that was under way for a second.
    fn at(start: Instant, second: u64) -> Span {
        let sent = start + Duration::from_secs(second);
        let answered = sent + Duration::from_secs(1);
        Span { sent, answered }
    }

    fn admitted(start: Instant, seconds: &[u64]) -> Admitted {
        let mut admitted = Admitted::default();
        for second in seconds {
            admitted.add(at(start, *second));
        }
        admitted
    }

    #[test]
    fn a_third_one_in_a_minute_is_more_than_two() {
        let start = Instant::now();
        let exceed = |seconds: &[u64]| admitted(start, seconds).exceed(2, MINUTE);
        assert!(!exceed(&[]));
        assert!(!exceed(&[0, 1]));
        assert!(exceed(&[0, 1, 50]));
        // Nobody knows when the requests were judged, and by which clock.
        assert!(!exceed(&[0, 1, 58]));
        assert!(!exceed(&[0, 1, 60]));
        assert!(exceed(&[0, 1, 60, 61, 62]));
    }

    #[test]
    fn who_had_two_within_a_minute_may_be_refused() {
        let start = Instant::now();
        let reach =
            |seconds: &[u64], now| admitted(start, seconds).reach(2, MINUTE, at(start, now));
        assert!(!reach(&[0], 1));
        assert!(reach(&[0, 30], 31));
        assert!(reach(&[0, 30], 61));
        assert!(!reach(&[0, 30], 62));
    }
}
