//! What one key may do: never more than the limit, and never less for who keeps it.

use lanekeeper_policy::{Algorithm, Verdict};
use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
/// Noon of 2026-01-01 UTC.
const NOON: u64 = 1_767_268_800 * SECOND;

const TEN_A_MINUTE: Algorithm = Algorithm::Window {
    limit: 10,
    period: MINUTE,
};

/// GCRA: `limit` a minute, `burst` at once.
fn bucket(limit: u64, burst: u64) -> Algorithm {
    Algorithm::Bucket {
        interval: MINUTE / limit,
        tolerance: (burst - 1) * (MINUTE / limit),
        period: MINUTE,
    }
}

/// The times at which requests are admitted, of those at which they come.
fn admitted(algorithm: Algorithm, times: &[u64]) -> Vec<u64> {
    let mut state = Vec::new();
    let mut admitted = Vec::new();
    for now in times {
        let step = algorithm.step(&state, *now);
        state = step.state;
        if let Verdict::Admitted { .. } = step.verdict {
            admitted.push(*now);
        }
    }
    admitted
}

/// The most that any window holds, which ends before it is a period old.
fn most_in_a_window(times: &[u64], period: u64) -> usize {
    let in_window = |start: u64| {
        times
            .iter()
            .filter(move |t| (start..start + period).contains(t))
    };
    let starts = times.iter();
    starts
        .map(|start| in_window(*start).count())
        .max()
        .unwrap_or(0)
}

/// Times in order, close together and far apart, in whole units of the window's clock.
fn arrivals() -> impl Strategy<Value = Vec<u64>> {
    let gap = prop_oneof![0..SECOND / 100, 0..8 * SECOND, Just(0), Just(6 * SECOND)];
    prop::collection::vec(gap, 1..300).prop_map(|gaps| {
        let next = |now: &mut u64, gap: u64| {
            *now += gap / 128 * 128;
            Some(*now)
        };
        gaps.into_iter().scan(NOON, next).collect()
    })
}

proptest! {
    #[test]
    fn no_window_ever_holds_more_than_the_limit(times in arrivals(), limit in 1u32..=128) {
        let algorithm = Algorithm::Window { limit, period: MINUTE };
        let admitted = admitted(algorithm, &times);
        prop_assert!(most_in_a_window(&admitted, MINUTE) <= limit as usize);
    }

    #[test]
    fn a_window_refuses_only_when_it_is_full(times in arrivals()) {
        let admitted = admitted(TEN_A_MINUTE, &times);
        for now in times {
            let in_window = admitted.iter().filter(|t| **t <= now && **t + MINUTE > now);
            prop_assert!(admitted.contains(&now) || in_window.count() == 10, "{now}");
        }
    }

    #[test]
    fn who_keeps_the_limit_is_never_refused(limit in 1u64..=128, start in NOON..NOON + SECOND) {
        let times: Vec<u64> = (0..500).map(|n| start + n * MINUTE.div_ceil(limit)).collect();
        let algorithm = Algorithm::Window { limit: limit as u32, period: MINUTE };
        prop_assert_eq!(admitted(algorithm, &times).len(), times.len());
    }

    #[test]
    fn a_refusal_tells_the_first_moment_at_which_the_next_one_passes(
        times in arrivals(),
        algorithm in prop_oneof![Just(TEN_A_MINUTE), Just(bucket(10, 3))],
    ) {
        let mut state = Vec::new();
        for now in times {
            let step = algorithm.step(&state, now);
            if let Verdict::Refused { until } = step.verdict {
                let at = |now| algorithm.step(&state, now).verdict;
                prop_assert!(until > now);
                prop_assert!(until <= now + MINUTE);
                let passes = matches!(at(until), Verdict::Admitted { .. });
                prop_assert!(passes);
                prop_assert_eq!(at(until - 1), Verdict::Refused { until });
            }
            state = step.state;
        }
    }

    #[test]
    fn a_bucket_admits_its_burst_and_an_even_flow(times in arrivals(), burst in 1u64..=10) {
        let admitted = admitted(bucket(10, burst), &times);
        for period in [MINUTE / 10, MINUTE, 5 * MINUTE] {
            let most = burst + period / (MINUTE / 10);
            prop_assert!(most_in_a_window(&admitted, period) as u64 <= most);
        }
    }

    /// Also where others were charged since: then less may be given back, never more.
    #[test]
    fn what_is_taken_back_was_never_admitted(
        times in arrivals(),
        which in 0usize..300,
        since in prop::collection::vec(0..MINUTE / 5, 0..4),
    ) {
        let which = which % times.len();
        for algorithm in [TEN_A_MINUTE, bucket(10, 10)] {
            let (mut with, mut without) = (Vec::new(), Vec::new());
            for now in &times[..which] {
                with = algorithm.step(&with, *now).state;
                without = algorithm.step(&without, *now).state;
            }
            let mut now = times[which];
            let step = algorithm.step(&with, now);
            if let Verdict::Admitted { .. } = step.verdict {
                with = step.state;
                let charged = with.last().copied().expect("a word");
                for gap in &since {
                    now += gap / 128 * 128;
                    let both = [&with, &without].map(|state| algorithm.step(state, now));
                    if both.iter().any(|step| matches!(step.verdict, Verdict::Refused { .. })) {
                        break;
                    }
                    let [a, b] = both;
                    (with, without) = (a.state, b.state);
                }
                with = algorithm.take_back(&with, charged);
                let left = |state: &[u64]| match algorithm.step(state, now).verdict {
                    Verdict::Admitted { remaining } => remaining + 1,
                    Verdict::Refused { .. } => 0,
                };
                prop_assert!(left(&with) <= left(&without));
                if since.is_empty() {
                    prop_assert_eq!(left(&with), left(&without));
                }
            }
        }
    }

    #[test]
    fn no_state_and_no_time_panics(
        state in prop::collection::vec(any::<u64>(), 0..200),
        now in prop_oneof![any::<u64>(), Just(u64::MAX), Just(0)],
        limit in 1u32..=128,
    ) {
        for algorithm in [Algorithm::Window { limit, period: MINUTE }, bucket(10, 10)] {
            let step = algorithm.step(&state, now);
            algorithm.take_back(&step.state, now);
        }
    }
}

#[test]
fn one_every_six_seconds_passes_for_ever() {
    let times: Vec<u64> = (0..10_000).map(|n| NOON + n * 6 * SECOND).collect();
    assert_eq!(admitted(TEN_A_MINUTE, &times).len(), 10_000);
    assert_eq!(admitted(bucket(10, 1), &times).len(), 10_000);
}

#[test]
fn what_remains_is_counted_down() {
    let mut state = Vec::new();
    for left in (0..10).rev() {
        let step = TEN_A_MINUTE.step(&state, NOON + left);
        assert_eq!(
            step.verdict,
            Verdict::Admitted {
                remaining: left as u32
            }
        );
        state = step.state;
    }
}

#[test]
fn a_clock_that_falls_behind_refunds_nothing() {
    let mut state = Vec::new();
    for _ in 0..10 {
        state = TEN_A_MINUTE.step(&state, NOON).state;
    }
    let behind = TEN_A_MINUTE.step(&state, NOON - 30 * SECOND);
    assert_eq!(
        behind.verdict,
        Verdict::Refused {
            until: NOON + MINUTE
        }
    );
    assert!(!behind.reset);
}

#[test]
fn a_state_more_than_a_period_ahead_is_forgotten() {
    for algorithm in [TEN_A_MINUTE, bucket(10, 10)] {
        let mut state = Vec::new();
        for _ in 0..10 {
            state = algorithm.step(&state, NOON).state;
        }
        let step = algorithm.step(&state, NOON - 2 * MINUTE - SECOND);
        assert!(step.reset);
        assert!(matches!(step.verdict, Verdict::Admitted { remaining: 9 }));
    }
}

#[test]
fn a_lower_limit_counts_what_was_admitted_under_the_higher_one() {
    let mut state = Vec::new();
    for n in 0..10 {
        state = TEN_A_MINUTE.step(&state, NOON + n * SECOND).state;
    }
    let three = Algorithm::Window {
        limit: 3,
        period: MINUTE,
    };
    // Eight of the ten must be older than a minute before a third may be added to two.
    let until = NOON + 7 * SECOND + MINUTE;
    let verdict = three.step(&state, NOON + 10 * SECOND).verdict;
    assert_eq!(verdict, Verdict::Refused { until });
}
