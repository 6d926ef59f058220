//! What one key may do: pure steps from a state and a time to a verdict and the next state.
//!
//! Times are nanoseconds since 1970-01-01 UTC. A state is a list of words, empty for a key that is
//! not restricted; what a word means is the algorithm's business.

/// How many requests a key may make in which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Exact, to 128 ns: in any window of `period` at most `limit` requests are admitted, and a
    /// client that keeps the limit is never refused. A word is a [run](Run) of admissions.
    Window {
        /// Requests in any window, 1 to 128.
        limit: u32,
        /// Length of the window, a whole number of seconds.
        period: u64,
    },
    /// GCRA (ITU-T I.371, the leaky bucket as a meter): a burst at once, then one request each
    /// `interval`. The only word is the theoretical arrival time.
    Bucket {
        /// Time between two requests of an even flow.
        interval: u64,
        /// How much earlier than an even flow a request may come: `(burst - 1) * interval`.
        tolerance: u64,
        /// No state is further ahead than this, unless a clock was wrong.
        period: u64,
    },
}

/// Nanoseconds of a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// The largest limit of [`Algorithm::Window`].
pub(crate) const MAX_WINDOW: u32 = 128;

/// What a step says about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Admitted {
        /// How many more may pass at this moment.
        remaining: u32,
    },
    /// It may not.
    Refused {
        /// When the next one may.
        until: u64,
    },
}

/// What a step leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it says.
    pub verdict: Verdict,
    /// The state afterwards; a refusal changes nothing that counts.
    pub state: Vec<u64>,
    /// Whether the state was more than a period ahead of the clock, and therefore forgotten.
    pub reset: bool,
}

/// One or more admissions in one word: the time in units of 128 ns, and in the low seven bits how
/// many there were, less one.
#[derive(Clone, Copy)]
struct Run(u64);

impl Run {
    const GRAIN: u64 = 1 << Self::BITS;
    const BITS: u32 = 7;

    fn new(tick: u64, count: u32) -> Self {
        let count = u64::from(count.clamp(1, MAX_WINDOW)) - 1;
        Self(tick << Self::BITS | count)
    }

    /// Time in units of [`Run::GRAIN`] nanoseconds.
    fn tick(self) -> u64 {
        self.0 >> Self::BITS
    }

    fn count(self) -> u32 {
        (self.0 & (Self::GRAIN - 1)) as u32 + 1
    }
}

impl Algorithm {
    /// Judges a request at `now`.
    ///
    /// ```
    /// use lanekeeper_policy::{Algorithm, Verdict};
    ///
    /// const SECOND: u64 = 1_000_000_000;
    /// let two_a_minute = Algorithm::Window { limit: 2, period: 60 * SECOND };
    /// let first = two_a_minute.step(&[], 0);
    /// let second = two_a_minute.step(&first.state, 10 * SECOND);
    /// let third = two_a_minute.step(&second.state, 20 * SECOND);
    /// assert_eq!(second.verdict, Verdict::Admitted { remaining: 0 });
    /// assert_eq!(third.verdict, Verdict::Refused { until: 60 * SECOND });
    /// ```
    pub fn step(&self, state: &[u64], now: u64) -> Step {
        match *self {
            Self::Window { limit, period } => window(limit, period / Run::GRAIN, state, now),
            Self::Bucket {
                interval,
                tolerance,
                ..
            } => {
                let theirs = state.first().copied().unwrap_or_default();
                let ahead = theirs.saturating_sub(now);
                let reset = ahead > self.furthest();
                let ahead = if reset { 0 } else { ahead };
                let (verdict, next) = match tolerance.checked_sub(ahead) {
                    Some(left) => {
                        let remaining = left.checked_div(interval).unwrap_or_default();
                        let remaining = remaining.try_into().unwrap_or(u32::MAX);
                        (
                            Verdict::Admitted { remaining },
                            ahead.saturating_add(interval),
                        )
                    }
                    None => {
                        let until = now.saturating_add(ahead - tolerance);
                        (Verdict::Refused { until }, ahead)
                    }
                };
                Step {
                    verdict,
                    state: vec![now.saturating_add(next)],
                    reset,
                }
            }
        }
    }

    /// The state without a request that was charged, by the last word that this had left behind.
    pub fn take_back(&self, state: &[u64], charged: u64) -> Vec<u64> {
        let mut state = state.to_vec();
        match *self {
            Self::Window { .. } => {
                // Where runs were merged since, it went into the next later one.
                let ours = state
                    .iter()
                    .position(|run| Run(*run).tick() >= Run(charged).tick());
                if let Some(index) = ours
                    && let Some(word) = state.get_mut(index)
                {
                    let run = Run(*word);
                    if run.count() > 1 {
                        *word = Run::new(run.tick(), run.count() - 1).0;
                    } else {
                        state.remove(index);
                    }
                }
            }
            // Of a bucket that was charged again, nobody can say how much of ours had leaked out.
            Self::Bucket { interval, .. } => {
                for arrival in state.iter_mut().filter(|arrival| **arrival == charged) {
                    *arrival = arrival.saturating_sub(interval);
                }
            }
        }
        state
    }

    /// Whether a state with this newest word makes a difference to what comes at `now` or later.
    pub(crate) fn restricts(&self, newest: u64, now: u64) -> bool {
        let until = self.restricts_until(newest);
        // What is further ahead than a state can be is the trace of a wrong clock.
        let furthest = match *self {
            Self::Window { period, .. } => period.saturating_mul(2),
            Self::Bucket { .. } => self.furthest(),
        };
        until > now && until <= now.saturating_add(furthest)
    }

    /// When a state with this newest word stops to make a difference.
    pub(crate) fn restricts_until(&self, newest: u64) -> u64 {
        match *self {
            Self::Window { period, .. } => {
                let ticks = Run(newest).tick().saturating_add(period / Run::GRAIN);
                ticks.saturating_mul(Run::GRAIN)
            }
            Self::Bucket { .. } => newest,
        }
    }

    /// How far ahead of the clock a state of a bucket can be.
    fn furthest(&self) -> u64 {
        match *self {
            Self::Window { period, .. } => period,
            Self::Bucket {
                interval,
                tolerance,
                period,
            } => period.max(tolerance.saturating_add(interval)),
        }
    }

    /// Makes a state one word shorter: two admissions that lie close together count as if both had
    /// come at the later time. Never admits more than before. A single word stays as it is.
    pub(crate) fn coarsen(state: &mut Vec<u64>) {
        let gap = |pair: &[u64]| match pair {
            [earlier, later] => Run(*later).tick().saturating_sub(Run(*earlier).tick()),
            _ => 0,
        };
        let closest = state.windows(2).map(gap).enumerate();
        let Some((index, _)) = closest.min_by_key(|(_, gap)| *gap) else {
            return;
        };
        let earlier = Run(state.remove(index));
        if let Some(later) = state.get_mut(index) {
            let run = Run(*later);
            *later = Run::new(run.tick(), run.count() + earlier.count()).0;
        }
    }

    /// The most words that a state has.
    pub(crate) fn words(&self) -> usize {
        match *self {
            Self::Window { limit, .. } => limit as usize,
            Self::Bucket { .. } => 1,
        }
    }

    /// Tells the states of one algorithm from those of another.
    pub(crate) fn kind(&self) -> char {
        match self {
            Self::Window { .. } => 'w',
            Self::Bucket { .. } => 'l',
        }
    }
}

/// `period` is in ticks.
fn window(limit: u32, period: u64, state: &[u64], now: u64) -> Step {
    let mut now = now / Run::GRAIN;
    let newest = state.last().map_or(0, |run| Run(*run).tick());
    let reset = newest > now.saturating_add(period);
    if !reset {
        // Time never runs back: the clocks of two workers may differ.
        now = now.max(newest);
    }
    let counts = |run: &&u64| !reset && Run(**run).tick().saturating_add(period) > now;
    let mut state: Vec<u64> = state.iter().filter(counts).copied().collect();
    let used: u32 = state.iter().map(|run| Run(*run).count()).sum();
    let verdict = match limit.checked_sub(used + 1) {
        Some(remaining) => {
            match state.last_mut() {
                Some(last) if Run(*last).tick() == now => {
                    *last = Run::new(now, Run(*last).count() + 1).0;
                }
                _ => state.push(Run::new(now, 1).0),
            }
            Verdict::Admitted { remaining }
        }
        None => {
            // So many must be forgotten before the next one may pass; more than one where the
            // limit was lowered.
            let mut surplus = used + 1 - limit;
            let last_to_go = state.iter().find(|run| {
                surplus = surplus.saturating_sub(Run(**run).count());
                surplus == 0
            });
            let tick = last_to_go.map_or(now, |run| Run(*run).tick() + period);
            Verdict::Refused {
                until: tick * Run::GRAIN,
            }
        }
    };
    Step {
        verdict,
        state,
        reset,
    }
}
