//! What holds of every verdict, whatever was counted.

use lanekeeper_cli::verdict::{
    Counter, Counts, Experiment, Outcome, Progress, Series, Slots, Sums, Time, Verdict, judge,
};
use proptest::prelude::*;
use serde_json::json;
use statrs::distribution::{ContinuousCDF, LogNormal};

const START: u64 = 1_767_571_200;
const STEP: u64 = 300;

fn experiment(users: u32) -> Experiment {
    let document = json!({
        "rollout": "sentiment",
        "control": "stable",
        "treatment": "canary",
        "start": "2026-01-05T00:00:00Z",
        "users": users,
    });
    Experiment::compile(&document).unwrap()
}

fn series(version: &str, values: &[f64]) -> Series {
    let times = (0..).map(|step| START + step * STEP);
    Series {
        version: version.to_owned(),
        points: times.zip(values.iter().copied()).collect(),
    }
}

fn slots(values: [&[f64]; 2]) -> Vec<Series> {
    vec![series("stable", values[0]), series("canary", values[1])]
}

/// A counter that is scraped once in each step.
fn counter(version: &str, values: &[f64]) -> Counter {
    let points = series(version, values).points.into_iter();
    Counter {
        version: version.to_owned(),
        points: points.map(|(time, value)| (time, [value; 2])).collect(),
    }
}

fn counters(values: [&[f64]; 2]) -> Vec<Counter> {
    vec![counter("stable", values[0]), counter("canary", values[1])]
}

/// How far an experiment of 100 users is after so many steps.
fn after(steps: u64, counts: &Counts) -> Progress {
    Progress::new(&experiment(100), counts, Time(START + steps * STEP))
}

#[test]
fn users_are_counted_from_the_start_on_over_restarts_and_new_gateways() {
    let mut late = counter("canary", &[0.0, 0.0, 0.0, 5.0, 10.0]);
    late.points.drain(..3);
    // It had counted one when it was scraped for the first time.
    late.points[0].1 = [1.0, 5.0];
    let counts = Counts {
        // 1,000 came before; the gateway begins anew after the second step.
        assignments: vec![
            counter("stable", &[1000.0, 1010.0, 1030.0, 5.0, 25.0]),
            late,
        ],
        slots: slots([&[9000.0; 5], &[1000.0; 5]]),
    };
    let users = |steps| after(steps, &counts).users;
    assert_eq!(users(0), [0.0, 0.0]);
    assert_eq!(users(1), [10.0, 0.0]);
    assert_eq!(users(2), [30.0, 0.0]);
    assert_eq!(users(3), [35.0, 4.0]);
    assert_eq!(users(4), [55.0, 9.0]);
    assert_eq!(after(4, &counts).missing(&experiment(100)), 36);
}

#[test]
fn a_gateway_that_began_anew_and_overtook_itself_counts_from_zero() {
    let mut stable = counter("stable", &[7.0, 60.0]);
    stable.points[1].1 = [2.0, 60.0];
    let counts = Counts {
        assignments: vec![stable],
        slots: Vec::new(),
    };
    assert_eq!(after(1, &counts).users, [60.0, 0.0]);
}

/// An old gateway by which 36 and 4 came in the end, without what was not scraped in some steps.
fn old_gateway(away: impl Fn(u64) -> bool) -> Counts {
    let known = |time: u64| !away((time - START) / STEP);
    let before = |more: &[f64], before: f64| more.iter().map(|more| before + more).collect();
    let [stable, canary]: [Vec<f64>; 2] = [
        before(&[0.0, 0.0, 0.0, 18.0, 36.0], 900_000.0),
        before(&[0.0, 0.0, 0.0, 2.0, 4.0], 100_000.0),
    ];
    let mut counts = Counts {
        assignments: counters([&stable, &canary]),
        slots: slots([&[9000.0; 5], &[1000.0; 5]]),
    };
    for counter in &mut counts.assignments {
        counter.points.retain(|(time, _)| known(*time));
    }
    for series in &mut counts.slots {
        series.points.retain(|(time, _)| known(*time));
    }
    counts
}

fn is_late(counts: &Counts, since: u64) {
    let progress = after(4, counts);
    assert_eq!((progress.users, progress.fulfilled), ([36.0, 4.0], false));
    let time = Time(START + since * STEP);
    assert_eq!(progress.slots, Slots::Late(time));
    let judgement = judge(&experiment(100), &progress, &Outcome::default());
    assert_eq!(judgement.verdict, Verdict::Invalid);
    let advice = format!("with a start at {time} or later");
    assert!(
        judgement.reasons[0].ends_with(&advice),
        "{:?}",
        judgement.reasons
    );
}

#[test]
fn an_old_gateway_scraped_for_the_first_time_after_the_start_is_not_taken_for_new_users() {
    is_late(&old_gateway(|step| step < 1), 1);
    is_late(&old_gateway(|step| step < 2), 2);
}

#[test]
fn a_prometheus_that_was_away_at_the_start_does_not_take_old_users_for_new_ones() {
    let mut counts = old_gateway(|step| step < 2);
    // A gateway that came meanwhile is as old as the other, for all that is known.
    let mut newer = counters([&[7.0; 5], &[7.0; 5]]);
    for counter in &mut newer {
        counter.points.drain(..2);
    }
    counts.assignments.extend(newer);
    is_late(&counts, 2);
}

#[test]
fn a_prometheus_that_was_away_later_counts_on_where_it_was() {
    let progress = after(4, &old_gateway(|step| (1..3).contains(&step)));
    assert_eq!(progress.users, [36.0, 4.0]);
    assert_eq!(progress.slots, Slots::Steady([9000.0, 1000.0]));
}

#[test]
fn a_renamed_target_does_not_bring_its_old_users_along() {
    let mut counts = old_gateway(|_| false);
    for old in 0..2 {
        let mut renamed = counts.assignments[old].clone();
        renamed.points.drain(..2);
        counts.assignments[old].points.truncate(2);
        counts.assignments.push(renamed);
    }
    assert_eq!(after(1, &counts).users, [0.0, 0.0]);
    assert_eq!(after(2, &counts).users, [0.0, 0.0]);
    assert_eq!(after(4, &counts).users, [36.0, 4.0]);
}

#[test]
fn the_moment_of_the_verdict_is_the_first_with_all_users() {
    let counts = Counts {
        assignments: counters([
            &[0.0, 60.0, 89.0, 95.0, 900.0],
            &[0.0, 5.0, 10.0, 10.0, 90.0],
        ]),
        slots: Vec::new(),
    };
    assert!(!after(2, &counts).fulfilled);
    for steps in 3..10 {
        let progress = after(steps, &counts);
        assert!(progress.fulfilled);
        assert_eq!(
            (progress.at, progress.users),
            (Time(START + 3 * STEP), [95.0, 10.0])
        );
    }
}

#[test]
fn weights_that_move_before_the_verdict_are_noticed_and_later_ones_are_not() {
    let users = counters([&[0.0, 0.0, 200.0], &[0.0, 0.0, 20.0]]);
    let told = |control: &[f64], treatment: &[f64]| {
        let counts = Counts {
            assignments: users.clone(),
            slots: slots([control, treatment]),
        };
        after(9, &counts).slots
    };
    let [nine, eight] = [9000.0, 8000.0];
    let steady = Slots::Steady([nine, 1000.0]);
    assert_eq!(told(&[nine; 3], &[1000.0; 3]), steady);
    assert_eq!(
        told(
            &[nine, nine, nine, eight],
            &[1000.0, 1000.0, 1000.0, 2000.0]
        ),
        steady
    );
    let moved = Slots::Moved(Time(START + 2 * STEP));
    assert_eq!(told(&[nine, eight, nine], &[1000.0; 3]), moved);
    assert_eq!(told(&[nine; 3], &[]), Slots::Unknown);

    let mut late = slots([&[nine; 9], &[1000.0; 9]]);
    late[1].points.remove(0);
    let counts = Counts {
        assignments: Vec::new(),
        slots: late,
    };
    assert_eq!(after(9, &counts).slots, Slots::Late(Time(START + STEP)));
}

#[test]
fn gateways_that_do_not_deal_out_alike_are_noticed() {
    let told = |other: [f64; 3]| {
        let mut slots = slots([&[9000.0; 3], &[1000.0; 3]]);
        slots.push(series("canary", &other));
        let counts = Counts {
            assignments: Vec::new(),
            slots,
        };
        after(2, &counts).slots
    };
    let moved = |step| Slots::Moved(Time(START + step * STEP));
    assert_eq!(told([1000.0; 3]), Slots::Steady([9000.0, 1000.0]));
    assert_eq!(told([2000.0, 1000.0, 1000.0]), moved(1));
    assert_eq!(told([1000.0, 2000.0, 2000.0]), moved(2));
    assert_eq!(told([2000.0; 3]), moved(2));
}

#[test]
fn a_split_that_was_too_uneven_once_stays_so_whoever_asks_later() {
    // After the first step canary has a fifth where a tenth is expected; later it has a tenth.
    let counts = Counts {
        assignments: counters([
            &[0.0, 400.0, 1800.0, 3600.0, 7200.0],
            &[0.0, 100.0, 200.0, 400.0, 800.0],
        ]),
        slots: slots([&[9000.0; 5], &[1000.0; 5]]),
    };
    let experiment = experiment(5000);
    for steps in 1..9 {
        let progress = Progress::new(&experiment, &counts, Time(START + steps * STEP));
        assert_eq!(
            (progress.at, progress.users, progress.fulfilled),
            (Time(START + STEP), [400.0, 100.0], false)
        );
        let judgement = judge(&experiment, &progress, &Outcome::default());
        assert_eq!(judgement.verdict, Verdict::Invalid);
        let begin = "sample-ratio mismatch: 20.00 % of the new users got canary, 10.00 %";
        assert!(
            judgement.reasons[0].starts_with(begin),
            "{:?}",
            judgement.reasons
        );
    }
}

#[test]
fn an_uneven_split_by_moved_weights_is_told_as_moved_weights() {
    let counts = Counts {
        assignments: counters([&[0.0, 900.0, 1800.0], &[0.0, 100.0, 1000.0]]),
        slots: slots([&[9000.0, 9000.0, 5000.0], &[1000.0, 1000.0, 5000.0]]),
    };
    let progress = Progress::new(&experiment(5000), &counts, Time(START + 9 * STEP));
    assert_eq!(progress.slots, Slots::Moved(Time(START + 2 * STEP)));
}

#[test]
fn a_quantile_is_interpolated_within_its_borders() {
    let sums = Sums {
        answers: vec![10.0, 90.0, 99.0, 99.0, 100.0],
        ..Sums::default()
    };
    let borders = [0.1, 0.3, 0.6, 0.8, f64::INFINITY];
    for (share, seconds) in [
        // Of 90 who wait longer than 0.1 s, 10 wait longer than 0.3 s: 30 halfway.
        (0.7, Some(0.2)),
        (0.9, Some(0.3)),
        (0.99, Some(0.6)),
        (0.995, None),
    ] {
        match (sums.quantile(share, &borders), seconds) {
            (Some(found), Some(seconds)) => assert!((found - seconds).abs() < 1e-12, "{found}"),
            (found, seconds) => assert_eq!(found, seconds),
        }
    }
    assert_eq!(Sums::default().quantile(0.5, &[]), None);
}

#[test]
fn whether_one_answer_took_longer_or_none_hardly_changes_a_quantile() {
    let p95 = |last: f64| {
        let sums = Sums {
            answers: vec![8_000.0, last, 10_000.0],
            ..Sums::default()
        };
        sums.quantile(0.95, &[0.1, 0.12, f64::INFINITY]).unwrap()
    };
    let [none, one] = [10_000.0, 9_999.0].map(p95);
    assert!((one / none - 1.0).abs() < 0.005, "{none} {one}");
    // Of three answers, none longer: within the borders all the same.
    let few = Sums {
        answers: vec![0.0, 3.0, 3.0],
        ..Sums::default()
    };
    assert_eq!(few.quantile(0.95, &[0.1, 0.12, f64::INFINITY]), Some(0.12));
}

#[test]
fn a_p95_that_rises_by_five_percent_is_read_as_one_wherever_it_lies_between_borders() {
    // The borders of the service, and lognormal latencies with a standard deviation of half the mean.
    let borders: Vec<f64> = (0..60).map(|power| 0.0005 * 1.2_f64.powi(power)).collect();
    let deviation = 0.25_f64.ln_1p().sqrt();
    let p95 = |median: f64| {
        let latency = LogNormal::new(median.ln(), deviation).unwrap();
        let answers = borders.iter().map(|border| 1e6 * latency.cdf(*border));
        let sums = Sums {
            answers: answers.chain([1e6]).collect(),
            ..Sums::default()
        };
        sums.quantile(0.95, &borders).unwrap()
    };
    for place in 0..20 {
        let median = 0.1 * 1.01_f64.powi(place);
        let rise = p95(1.05 * median) / p95(median) - 1.0;
        assert!((0.049..0.051).contains(&rise), "{rise}");
    }
}

/// The planned users came, as the slots say.
fn fulfilled() -> Progress {
    Progress {
        at: Time(START + STEP),
        users: [75.0, 25.0],
        fulfilled: true,
        slots: Slots::Steady([7500.0, 2500.0]),
        known: Some(Time(START + STEP)),
    }
}

#[test]
fn a_bucket_without_users_of_a_version_is_no_degree_of_freedom() {
    let sums = |corrections: f64| Sums {
        predictions: 100.0,
        corrections,
        seconds: 10.0,
        answers: vec![90.0, 100.0, 100.0],
    };
    let none = Sums {
        answers: vec![0.0; 3],
        ..Sums::default()
    };
    let treatment = |bucket: u8| match bucket {
        20.. => none.clone(),
        bucket => sums(24.0 + f64::from(bucket % 5)),
    };
    let outcome = Outcome {
        borders: vec![0.1, 0.12, f64::INFINITY],
        buckets: (0..32)
            .map(|bucket| [sums(20.0), treatment(bucket)])
            .collect(),
    };
    let progress = fulfilled();
    let judgement = judge(&experiment(100), &progress, &outcome);
    assert_eq!(judgement.buckets, 20);
    for figure in judgement.figures {
        assert_eq!(figure.ratio.unwrap().freedom, 19.0);
    }
}

#[test]
fn a_rise_is_shown_beside_its_limit_as_exactly_as_it_takes() {
    let told = |seconds: f64| {
        let sums = |seconds: f64| Sums {
            predictions: 100.0,
            corrections: 20.0,
            seconds,
            answers: vec![90.0, 100.0, 100.0],
        };
        let outcome = Outcome {
            borders: vec![0.1, 0.12, f64::INFINITY],
            buckets: vec![[sums(10.0), sums(seconds)]; 32],
        };
        let progress = fulfilled();
        let judgement = judge(&experiment(100), &progress, &outcome);
        let mut reasons = judgement.reasons.into_iter();
        reasons.find(|reason| reason.starts_with("mean latency"))
    };
    let shown = |rise: &str, limit: &str| {
        Some(format!(
            "mean latency: {rise} %, less than {limit} % is asked for"
        ))
    };
    assert_eq!(told(10.499_999), None);
    assert_eq!(told(10.5), shown("+5.0", "+5.0"));
    assert_eq!(told(10.500_4), shown("+5.004", "+5.000"));
    assert_eq!(told(10.6), shown("+6.0", "+5.0"));
}

/// Counts of all sizes, and none often enough.
fn count() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(1.0), 0.0..10.0, 0.0..1e6, Just(1e300)]
}

fn sums() -> impl Strategy<Value = Sums> {
    let answers = proptest::collection::vec(count(), 0..6);
    (count(), count(), count(), answers).prop_map(
        |(predictions, corrections, seconds, mut answers)| {
            // Up to each border there are as many as up to the one before, or more.
            answers.sort_by(f64::total_cmp);
            Sums {
                predictions,
                corrections,
                seconds,
                answers,
            }
        },
    )
}

fn anything() -> impl Strategy<Value = Vec<[Sums; 2]>> {
    proptest::collection::vec([sums(), sums()], 0..33)
}

/// What an experiment may look like, good or bad.
fn plausible() -> impl Strategy<Value = Vec<[Sums; 2]>> {
    let noise = proptest::collection::vec([0.9..1.1, 0.9..1.1], 8..33);
    (noise, 0.8..1.6, 0.97..1.1).prop_map(|(noise, more, slower): (Vec<[f64; 2]>, f64, f64)| {
        let bucket = |noise: [f64; 2]| {
            [(noise[0], 1.0, 1.0), (noise[1], more, slower)].map(|(noise, more, slower)| Sums {
                predictions: 100.0,
                corrections: 20.0 * more * noise,
                seconds: 15.0 * slower * noise.sqrt(),
                answers: vec![20.0, 70.0, 97.0 / slower, 100.0, 100.0],
            })
        };
        noise.into_iter().map(bucket).collect()
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![anything(), plausible()].prop_map(|buckets| Outcome {
        borders: vec![0.1, 0.2, 0.4, 0.8, f64::INFINITY],
        buckets,
    })
}

fn progress() -> impl Strategy<Value = Progress> {
    let slots = prop_oneof![
        [count(), count()].prop_map(Slots::Steady),
        Just(Slots::Steady([9000.0, 1000.0])),
        Just(Slots::Moved(Time(START))),
        Just(Slots::Late(Time(START))),
        Just(Slots::Unknown),
    ];
    let users = prop_oneof![
        [count(), count()],
        (1.0..1000.0).prop_map(|users| [9.0 * users, users])
    ];
    (users, any::<bool>(), slots).prop_map(|(users, fulfilled, slots)| Progress {
        at: Time(START + STEP),
        users,
        fulfilled,
        slots,
        known: Some(Time(START)),
    })
}

proptest! {
    #[test]
    fn every_verdict_has_its_reasons_and_can_be_said(outcome in outcome(), progress in progress()) {
        let experiment = experiment(1000);
        let judgement = judge(&experiment, &progress, &outcome);
        let reasons = !judgement.reasons.is_empty();
        match judgement.verdict {
            Verdict::Accept => prop_assert!(progress.fulfilled && !reasons),
            Verdict::NotEnoughData => prop_assert!(!progress.fulfilled && !reasons),
            Verdict::RollBack | Verdict::Invalid => prop_assert!(reasons),
        }
        let accepted = judgement.verdict == Verdict::Accept;
        for figure in judgement.figures.iter().filter(|_| accepted) {
            let rise = figure.rise.unwrap();
            match figure.p {
                Some(p) => prop_assert!(rise >= 0.1 && p < 0.05 && figure.low > Some(0.0)),
                None => prop_assert!(rise < 0.05),
            }
        }
        let mut said = Vec::new();
        lanekeeper_cli::verdict::text(&mut said, &experiment, &progress, &judgement).unwrap();
        let json = lanekeeper_cli::verdict::json(&experiment, &progress, &judgement);
        prop_assert!(said.starts_with(b"verdict ") && json["verdict"].is_string());
    }

    #[test]
    fn the_order_of_buckets_does_not_matter(outcome in outcome(), progress in progress()) {
        let experiment = experiment(1000);
        let mut turned = outcome.clone();
        turned.buckets.reverse();
        let [one, other] = [&outcome, &turned].map(|outcome| judge(&experiment, &progress, outcome));
        prop_assert_eq!(one.verdict, other.verdict);
    }
}
