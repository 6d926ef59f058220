//! Reviews that wait for their author's word.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::review::Sentiment;

/// More of one label do not wait at once: the oldest stops waiting.
const CAPACITY: usize = 10_000;

/// The gauge of reviews that have a prediction, which nobody has confirmed or overridden yet. A review
/// that nobody says anything about stops waiting by itself after a while.
///
/// A verdict names no review, so it ends the waiting of the oldest one of its label; for a number it
/// makes no difference which.
#[derive(Clone)]
pub(crate) struct Pending(Arc<Inner>);

struct Inner {
    limit: Duration,
    gauge: IntGauge,
    /// Since when: one queue for each label.
    since: Mutex<[VecDeque<Instant>; 2]>,
}

impl Pending {
    /// Reviews wait for `limit` at most.
    pub(crate) fn new(limit: Duration) -> prometheus::Result<Self> {
        let gauge = IntGauge::new(
            "reviews_pending",
            "Predictions that wait for the user's confirmation.",
        )?;
        let since = Mutex::default();
        Ok(Self(Arc::new(Inner {
            limit,
            gauge,
            since,
        })))
    }

    /// A review has its prediction.
    pub(crate) fn begin(&self, label: Sentiment) {
        let mut since = self.since();
        let queue = &mut since[label as usize];
        if queue.len() == CAPACITY {
            queue.pop_front();
        }
        queue.push_back(Instant::now());
    }

    /// Its author has said what it is. Where none of the label waits, it was too late, or another
    /// process made the prediction.
    pub(crate) fn end(&self, label: Sentiment) {
        self.since()[label as usize].pop_front();
    }

    /// The queues, without those who have waited long enough.
    fn since(&self) -> MutexGuard<'_, [VecDeque<Instant>; 2]> {
        let mut since = self.0.since.lock().unwrap_or_else(PoisonError::into_inner);
        for queue in &mut *since {
            while queue
                .front()
                .is_some_and(|begin| begin.elapsed() >= self.0.limit)
            {
                queue.pop_front();
            }
        }
        since
    }
}

impl Collector for Pending {
    fn desc(&self) -> Vec<&Desc> {
        self.0.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let pending: usize = self.since().iter().map(VecDeque::len).sum();
        self.0.gauge.set(pending.try_into().unwrap_or(i64::MAX));
        self.0.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(pending: &Pending) -> i64 {
        pending.collect();
        pending.0.gauge.get()
    }

    #[test]
    fn a_verdict_ends_the_waiting_of_one_review_of_its_label() {
        let pending = Pending::new(Duration::from_secs(600)).expect("a gauge");
        for label in [
            Sentiment::Positive,
            Sentiment::Positive,
            Sentiment::Negative,
        ] {
            pending.begin(label);
        }
        assert_eq!(count(&pending), 3);
        pending.end(Sentiment::Negative);
        pending.end(Sentiment::Negative);
        assert_eq!(
            count(&pending),
            2,
            "never less than those of the other label"
        );
        pending.end(Sentiment::Positive);
        assert_eq!(count(&pending), 1);
    }

    #[test]
    fn a_review_that_nobody_speaks_about_stops_waiting() {
        let pending = Pending::new(Duration::ZERO).expect("a gauge");
        pending.begin(Sentiment::Positive);
        assert_eq!(count(&pending), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let pending = Pending::new(Duration::from_secs(600)).expect("a gauge");
        for _ in 0..CAPACITY + 10 {
            pending.begin(Sentiment::Positive);
        }
        assert_eq!(count(&pending), CAPACITY as i64);
    }
}
