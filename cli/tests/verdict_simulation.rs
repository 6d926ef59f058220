//! Verdicts on a thousand simulated experiments at a time, asked for every day: how often they are
//! wrong, and how often they find what is there. The very functions that the command uses judge.

use fastrand::Rng;
use lanekeeper_cli::verdict::{
    BUCKETS, Counter, Counts, Expected, Experiment, Outcome, Progress, RESOLUTION, Series, Sums,
    Time, Users, Verdict, judge,
};
use lanekeeper_policy::{SLOTS, slot};
use serde_json::json;
use statrs::distribution::{Beta, ContinuousCDF, Normal};

const EXPERIMENTS: u64 = 1000;
const DAY: u64 = 24 * 3600;
/// The plan is fulfilled on the tenth day or near it; four more, and it is still asked.
const DAYS: usize = 14;
const PLANNED_DAYS: f64 = 10.0;
/// So many standard deviations may a count of these experiments be off: 1 in 100 would be.
const MARGIN: f64 = 2.33;
/// Draws come from so many equally likely values.
const DRAWS: usize = 4096;

/// What the experiments are planned for: a rise of the correction rate from 20 % to 26 %.
const PLANNED: Expected = Expected {
    rate: 0.2,
    rise: 0.3,
    latency_rise: 0.0,
    minimal_rise: 0.1,
    maximal_latency_rise: 0.05,
    reviews: 3.0,
    share: 0.25,
    latency_variation: 0.5,
    correlation: 0.1,
};
const POWER: f64 = 0.8;

/// What is true of both versions.
struct World {
    planned: Experiment,
    /// The rate at which users correct, in control and treatment.
    propensity: [Vec<f64>; 2],
    normal: Vec<f64>,
    latency_rise: f64,
    /// So many of the treatment's users are never counted.
    lost: f64,
    borders: Vec<f64>,
}

impl World {
    fn new(rise: f64, latency_rise: f64) -> Self {
        let users = PLANNED.users(POWER).unwrap();
        let planned = json!({
            "rollout": "sentiment",
            "control": "stable",
            "treatment": "canary",
            "start": "2026-11-02T08:00:00Z",
            "users": users,
        });
        let concentration = 1.0 / PLANNED.correlation - 1.0;
        let propensity = [0.0, rise].map(|rise| {
            let rate = PLANNED.rate * (1.0 + rise);
            let beta = Beta::new(rate * concentration, (1.0 - rate) * concentration).unwrap();
            values(|share| beta.inverse_cdf(share))
        });
        let finite = (0..40).map(|power| 0.01 * 1.2_f64.powi(power));
        Self {
            planned: Experiment::compile(&planned).unwrap(),
            propensity,
            normal: values(|share| Normal::standard().inverse_cdf(share)),
            latency_rise,
            lost: 0.0,
            borders: finite.chain([f64::INFINITY]).collect(),
        }
    }
}

fn values(quantile: impl Fn(f64) -> f64) -> Vec<f64> {
    let shares = (0..DRAWS).map(|draw| (draw as f64 + 0.5) / DRAWS as f64);
    shares.map(quantile).collect()
}

/// One experiment: what was counted until the end of each day.
struct Lived {
    counts: Counts,
    outcomes: Vec<Outcome>,
}

fn live(world: &World, rng: &mut Rng) -> Lived {
    let start = world.planned.start.0;
    let mut days = vec![vec![<[Sums; 2]>::default(); BUCKETS.into()]; DAYS];
    for sums in days.iter_mut().flatten().flatten() {
        sums.answers = vec![0.0; world.borders.len()];
    }
    let mut users = [0.0; 2];
    let mut assignments = [vec![(start, 0.0)], vec![(start, 0.0)]];
    let arrivals = (world.planned.planned() as f64 / PLANNED_DAYS) as u64;
    let treated = (f64::from(SLOTS) * PLANNED.share) as u32;
    for day in 0..DAYS {
        for _ in 0..rng.u64(arrivals * 3 / 4..arrivals * 5 / 4) {
            let slot = slot("sentiment", &rng.u64(..).to_le_bytes());
            let version = usize::from(slot >= SLOTS - treated);
            if version == 1 && rng.f64() < world.lost {
                continue;
            }
            users[version] += 1.0;
            let bucket = slot % u32::from(BUCKETS);
            review(world, rng, day, version, bucket as usize, &mut days);
        }
        let time = start + (day as u64 + 1) * DAY;
        for (series, users) in assignments.iter_mut().zip(users) {
            series.push((time, users));
        }
    }
    let slots = [SLOTS - treated, treated].map(|slots| {
        let times = assignments[0].iter().map(|(time, _)| *time);
        times.map(|time| (time, f64::from(slots))).collect()
    });
    let counts = Counts {
        slots: named(slots),
        assignments: counters(assignments),
    };
    let mut buckets = vec![<[Sums; 2]>::default(); BUCKETS.into()];
    let outcomes = days.iter().map(|day| {
        for (sums, more) in buckets.iter_mut().flatten().zip(day.iter().flatten()) {
            *sums += more;
        }
        cumulated(world, &buckets)
    });
    Lived {
        outcomes: outcomes.collect(),
        counts,
    }
}

/// The series of both versions.
fn named(points: [Vec<(u64, f64)>; 2]) -> Vec<Series> {
    let named = ["stable", "canary"].into_iter().zip(points);
    let named = named.map(|(version, points)| Series {
        version: version.to_owned(),
        points,
    });
    named.collect()
}

/// The counters of both versions, each scraped at the end of every step.
fn counters(points: [Vec<(u64, f64)>; 2]) -> Vec<Counter> {
    let counters = named(points).into_iter().map(|series| Counter {
        version: series.version,
        points: series
            .points
            .into_iter()
            .map(|(time, value)| (time, [value; 2]))
            .collect(),
    });
    counters.collect()
}

/// A user's reviews: some on the day on which the user came, some a few days later.
fn review(
    world: &World,
    rng: &mut Rng,
    day: usize,
    version: usize,
    bucket: usize,
    days: &mut [Vec<[Sums; 2]>],
) {
    // A lognormal latency of mean 0.1 s, with a part of its variation between users.
    let variance = PLANNED.latency_variation.powi(2).ln_1p();
    let [of_user, of_answer] =
        [PLANNED.correlation, 1.0 - PLANNED.correlation].map(|share| (variance * share).sqrt());
    let slower = [1.0, 1.0 + world.latency_rise][version];
    let usual = (0.1 * slower).ln() - variance / 2.0 + of_user * world.normal[rng.usize(..DRAWS)];
    let propensity = world.propensity[version][rng.usize(..DRAWS)];
    loop {
        let later = if rng.u8(..10) < 8 { 0 } else { rng.usize(1..4) };
        if let Some(buckets) = days.get_mut(day + later) {
            let sums = &mut buckets[bucket][version];
            sums.predictions += 1.0;
            sums.corrections += f64::from(u8::from(rng.f64() < propensity));
            let seconds = (usual + of_answer * world.normal[rng.usize(..DRAWS)]).exp();
            sums.seconds += seconds;
            sums.answers[world.borders.partition_point(|border| *border < seconds)] += 1.0;
        }
        if rng.f64() < 1.0 / PLANNED.reviews {
            return;
        }
    }
}

/// With counts of answers up to each border, as in Prometheus.
fn cumulated(world: &World, buckets: &[[Sums; 2]]) -> Outcome {
    let mut buckets = buckets.to_vec();
    for sums in buckets.iter_mut().flatten() {
        let mut all = 0.0;
        for count in &mut sums.answers {
            all += *count;
            *count = all;
        }
    }
    Outcome {
        borders: world.borders.clone(),
        buckets,
    }
}

/// The verdict at the end of each day, and whether the plan was fulfilled.
fn asked_daily(experiment: &Experiment, lived: &Lived) -> Vec<(Verdict, bool)> {
    let ask = |day: u64| {
        let start = experiment.start.0;
        let progress = Progress::new(experiment, &lived.counts, Time(start + day * DAY));
        let judged = (progress.at.0 - start) / DAY - 1;
        let judgement = judge(experiment, &progress, &lived.outcomes[judged as usize]);
        (judgement.verdict, progress.fulfilled)
    };
    (1..=DAYS as u64).map(ask).collect()
}

/// How many of the experiments end like this.
#[derive(Debug, Default)]
struct Tally {
    accepted: u64,
    rolled_back_early: u64,
    invalid: u64,
}

fn tally(experiments: u64, world: &World, first_seed: u64) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..experiments {
        let lived = live(world, &mut Rng::with_seed(first_seed + seed));
        let verdicts = asked_daily(&world.planned, &lived);
        let any = |wanted: Verdict, early: bool| {
            let mut verdicts = verdicts.iter();
            verdicts.any(|(verdict, fulfilled)| *verdict == wanted && (!early || !fulfilled))
        };
        tally.accepted += u64::from(any(Verdict::Accept, false));
        tally.rolled_back_early += u64::from(any(Verdict::RollBack, true));
        tally.invalid += u64::from(any(Verdict::Invalid, false));

        let early = verdicts.iter().filter(|(_, fulfilled)| !fulfilled);
        assert!(
            early
                .clone()
                .all(|(verdict, _)| *verdict != Verdict::Accept)
        );
        // What is invalid early, is not fulfilled later.
        let decided =
            |(verdict, fulfilled): &&(Verdict, bool)| *fulfilled || *verdict == Verdict::Invalid;
        let after: Vec<_> = verdicts
            .iter()
            .skip_while(|verdict| !decided(verdict))
            .collect();
        assert!(after.len() >= 2, "{verdicts:?}");
        assert!(
            after.iter().all(|verdict| *verdict == after[0]),
            "{verdicts:?}"
        );
    }
    println!("{tally:?} of {experiments}");
    tally
}

/// At most so many of the experiments, if each is one with this probability at most.
fn at_most(experiments: u64, share: f64) -> u64 {
    let trials = experiments as f64;
    (trials * share + MARGIN * (trials * share * (1.0 - share)).sqrt()) as u64
}

/// At least so many of the experiments, if each is one with this probability at least.
fn at_least(experiments: u64, share: f64) -> u64 {
    experiments - at_most(experiments, 1.0 - share)
}

#[test]
fn without_a_difference_one_in_twenty_is_accepted_at_most_though_asked_every_day() {
    // So many that chance hardly makes it more of them.
    const MANY: u64 = 4 * EXPERIMENTS;
    let tally = tally(MANY, &World::new(0.0, 0.0), 1_000_000);
    assert!(tally.accepted <= MANY / 20, "{tally:?}");
    // Were it none, the simulation would not ask much.
    assert!(tally.accepted >= MANY / 100, "{tally:?}");
    assert!(tally.rolled_back_early <= MANY / 20, "{tally:?}");
    // Before the verdict and at it, one in a thousand each.
    assert!(tally.invalid <= at_most(MANY, 0.002), "{tally:?}");
}

#[test]
fn what_was_planned_for_is_found_with_the_promised_power() {
    let tally = tally(
        EXPERIMENTS,
        &World::new(PLANNED.rise, PLANNED.latency_rise),
        2_000_000,
    );
    assert!(tally.accepted >= at_least(EXPERIMENTS, POWER), "{tally:?}");
}

#[test]
fn a_latency_that_rises_as_much_as_allowed_seldom_breaches_a_guardrail() {
    let tally = tally(
        EXPERIMENTS,
        &World::new(0.0, PLANNED.maximal_latency_rise),
        3_000_000,
    );
    assert!(
        tally.rolled_back_early <= at_most(EXPERIMENTS, 0.05),
        "{tally:?}"
    );
}

#[test]
fn a_latency_that_rises_a_lot_is_rolled_back_before_the_plan_is_fulfilled() {
    let tally = tally(EXPERIMENTS, &World::new(PLANNED.rise, 0.25), 4_000_000);
    assert!(
        tally.rolled_back_early >= at_least(EXPERIMENTS, 0.9),
        "{tally:?}"
    );
    assert_eq!(tally.accepted, 0, "{tally:?}");
}

#[test]
fn lost_users_make_an_experiment_invalid() {
    let mut world = World::new(PLANNED.rise, 0.0);
    world.lost = 0.3;
    let tally = tally(EXPERIMENTS, &world, 5_000_000);
    assert!(tally.invalid >= at_least(EXPERIMENTS, 0.9), "{tally:?}");
}

/// How experiments of 2,000 users that come within two days fare, if they are asked about whenever users
/// are counted.
#[derive(Debug, Default)]
struct Looks {
    invalid_before_the_plan: u64,
    invalid: u64,
    /// At one of the looks, the test that is good for one was below its level.
    uneven: u64,
}

fn looks(lost: f64, first_seed: u64) -> Looks {
    const USERS: f64 = 2000.0;
    const STEPS: u64 = 2 * DAY / RESOLUTION;
    /// The chi-squared statistic with p 0.001, from a table.
    const UNEVEN: f64 = 10.828;
    let mut world = World::new(0.0, 0.0);
    world.planned.users = Users(USERS as u32);
    let start = world.planned.start.0;
    let treated = (f64::from(SLOTS) * PLANNED.share) as u32;
    let mut looks = Looks::default();
    for seed in 0..EXPERIMENTS {
        let mut rng = Rng::with_seed(first_seed + seed);
        let mut users = [0.0; 2];
        let mut points = [vec![(start, 0.0)], vec![(start, 0.0)]];
        let mut uneven = false;
        for step in 1.. {
            for _ in 0..rng.u64(0..=2 * USERS as u64 / STEPS + 1) {
                let version = usize::from(rng.u32(..SLOTS) < treated);
                if version == 0 || rng.f64() >= lost {
                    users[version] += 1.0;
                }
            }
            for (points, users) in points.iter_mut().zip(users) {
                points.push((start + step * RESOLUTION, users));
            }
            let all = users[0] + users[1];
            if all >= USERS {
                break;
            }
            let variance = all * PLANNED.share * (1.0 - PLANNED.share);
            uneven |= all * PLANNED.share >= 5.0
                && (users[1] - all * PLANNED.share).powi(2) / variance > UNEVEN;
        }
        let &(until, _) = points[0].last().unwrap();
        let slots = [SLOTS - treated, treated]
            .map(|slots| vec![(start, f64::from(slots)), (until, f64::from(slots))]);
        let counts = Counts {
            assignments: counters(points),
            slots: named(slots),
        };
        // The last look before the plan is fulfilled stands for all before it: a mismatch stays.
        let invalid = [until - RESOLUTION, until].map(|time| {
            let progress = Progress::new(&world.planned, &counts, Time(time));
            // Nobody reviewed yet, which is invalid too once the plan is fulfilled.
            let judgement = judge(&world.planned, &progress, &Outcome::default());
            judgement
                .reasons
                .iter()
                .any(|reason| reason.starts_with("sample-ratio mismatch"))
        });
        looks.invalid_before_the_plan += u64::from(invalid[0]);
        looks.invalid += u64::from(invalid[1]);
        looks.uneven += u64::from(uneven);
    }
    println!("{looks:?} of {EXPERIMENTS}");
    looks
}

#[test]
fn a_sound_split_is_invalid_once_in_a_thousand_though_asked_every_five_minutes() {
    let looks = looks(0.0, 6_000_000);
    assert!(
        looks.invalid_before_the_plan <= at_most(EXPERIMENTS, 0.001),
        "{looks:?}"
    );
    assert!(looks.invalid <= at_most(EXPERIMENTS, 0.002), "{looks:?}");
    // The test that is good for one look would call more of them invalid.
    assert!(looks.uneven > 2 * at_most(EXPERIMENTS, 0.001), "{looks:?}");
}

#[test]
fn lost_users_are_found_before_the_plan_is_fulfilled() {
    let looks = looks(0.3, 7_000_000);
    assert!(
        looks.invalid_before_the_plan >= at_least(EXPERIMENTS, 0.9),
        "{looks:?}"
    );
    assert!(looks.invalid >= looks.invalid_before_the_plan, "{looks:?}");
}

/// What the plan is for: without it, the same figures would be accepted on one day or another.
#[test]
fn whoever_decided_on_the_first_day_that_looks_good_would_accept_too_often() {
    let world = World::new(0.0, 0.0);
    let accepted = (0..EXPERIMENTS).filter(|seed| {
        let lived = live(&world, &mut Rng::with_seed(1_000_000 + seed));
        lived.outcomes.iter().enumerate().any(|(day, outcome)| {
            let until = Time(world.planned.start.0 + (day as u64 + 1) * DAY);
            let mut impatient = world.planned.clone();
            let counters = lived.counts.assignments.iter();
            let counted: f64 = counters.map(|counter| counter.points[day + 1].1[1]).sum();
            impatient.users = Users(counted as u32);
            let progress = Progress::new(&impatient, &lived.counts, until);
            judge(&impatient, &progress, outcome).verdict == Verdict::Accept
        })
    });
    let accepted = accepted.count() as u64;
    println!("{accepted} of {EXPERIMENTS}");
    assert!(accepted > 2 * at_most(EXPERIMENTS, 0.05), "{accepted}");
}
