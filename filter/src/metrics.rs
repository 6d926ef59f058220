//! What the plugin counts. Labels are part of the name, as Istio does it: `label=.=value;.;`, which
//! the `stats_tags` of the bootstrap take out again. Every label is bounded by the policy.

use std::cell::RefCell;

use lanekeeper_policy::{
    Assignment, Count, Judgement, OTHER, Policy, Quota, Rollout, Source, Version,
};

use crate::host::{self, MetricType};

/// What went wrong, as the label `kind` of `lanekeeper_errors_total`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Error {
    /// No entropy for a visitor id.
    Entropy,
    /// The pod has no `version` label, or one that is no version name.
    PodVersion,
    /// The state of a quota was forgotten: unreadable, or more than a period ahead of the clock.
    QuotaState,
}

/// The metrics of one configuration of the plugin.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// By rollout, version and source.
    requests: Vec<Vec<[Option<u32>; Source::ALL.len()]>>,
    assignments: ByVersion,
    unserved: ByVersion,
    /// By the version that was meant.
    mismatches: Vec<(String, Option<u32>)>,
    blocked: Option<u32>,
    quotas: Vec<QuotaMetrics>,
    quota_state_errors: Option<u32>,
    entropy_errors: Option<u32>,
    pod_version_errors: Option<u32>,
}

/// A counter of each version of each rollout.
#[derive(Debug)]
struct ByVersion(Vec<Vec<Option<u32>>>);

impl ByVersion {
    fn define(policy: &Policy, name: &str) -> Self {
        let of_rollout = |rollout| {
            let versions = labels_of_versions(rollout).into_iter();
            versions.map(|labels| counter(&labels, name)).collect()
        };
        Self(policy.rollouts().iter().map(of_rollout).collect())
    }

    fn increment(&self, of: &Assignment) {
        let versions = self.0.get(of.rollout);
        let metric = versions.and_then(|versions| versions.get(of.version));
        host::increment(metric.copied().flatten());
    }
}

fn labels_of_versions(rollout: &Rollout) -> Vec<String> {
    let label =
        |version: &Version| labels(&[("rollout", rollout.name()), ("version", version.name())]);
    rollout.versions().iter().map(label).collect()
}

/// The metrics of one quota.
#[derive(Debug)]
struct QuotaMetrics {
    verdicts: [Option<u32>; Count::ALL.len()],
    overflow: Option<u32>,
    contention: Option<u32>,
}

impl QuotaMetrics {
    fn define(quota: &Quota) -> Self {
        let quota = labels(&[("quota", quota.name())]);
        let of = |verdict: Count| {
            let verdict = labels(&[("verdict", verdict.name())]);
            counter(&format!("{quota}{verdict}"), "quota_total")
        };
        Self {
            verdicts: Count::ALL.map(of),
            overflow: counter(&quota, "quota_overflow_total"),
            contention: counter(&quota, "quota_contention_total"),
        }
    }
}

impl Metrics {
    pub(crate) fn define(policy: &Policy, pod_version: Option<&str>) -> Self {
        let mismatches = policy.sidecar().zip(pod_version).map(|(sidecar, actual)| {
            let expected = sidecar.versions().iter().map(String::as_str).chain([OTHER]);
            expected
                .filter(|expected| *expected != actual)
                .map(|expected| {
                    let labels = labels(&[("expected", expected), ("actual", actual)]);
                    (expected.to_owned(), counter(&labels, "mismatch_total"))
                })
                .collect()
        });
        let error = |kind| counter(&labels(&[("kind", kind)]), "errors_total");
        Self {
            requests: policy
                .rollouts()
                .iter()
                .map(|rollout| {
                    let versions = labels_of_versions(rollout).into_iter();
                    versions
                        .map(|version| {
                            Source::ALL.map(|source| {
                                let source = labels(&[("source", source.name())]);
                                counter(&format!("{version}{source}"), "requests_total")
                            })
                        })
                        .collect()
                })
                .collect(),
            assignments: ByVersion::define(policy, "assignments_total"),
            unserved: ByVersion::define(policy, "unserved_total"),
            mismatches: mismatches.unwrap_or_default(),
            blocked: policy
                .sidecar()
                .and_then(|_| counter("", "shadow_blocked_total")),
            quotas: policy.quotas().iter().map(QuotaMetrics::define).collect(),
            quota_state_errors: error("quota_state"),
            entropy_errors: error("entropy"),
            pod_version_errors: error("pod_version"),
        }
    }

    pub(crate) fn assigned(&self, assignment: &Assignment) {
        let requests = self
            .requests
            .get(assignment.rollout)
            .and_then(|versions| versions.get(assignment.version));
        let source = Source::ALL
            .iter()
            .position(|source| *source == assignment.source);
        let metric = requests
            .zip(source)
            .and_then(|(requests, source)| requests.get(source));
        host::increment(metric.copied().flatten());
        if assignment.minted {
            self.assignments.increment(assignment);
        }
    }

    /// A request that no pod answered.
    pub(crate) fn unserved(&self, assignment: &Assignment) {
        self.unserved.increment(assignment);
    }

    pub(crate) fn judged(&self, judgement: &Judgement) {
        let Some(quota) = self.quotas.get(judgement.quota) else {
            return;
        };
        for (count, metric) in Count::ALL.iter().zip(quota.verdicts) {
            if judgement.count == Some(*count) {
                host::increment(metric);
            }
        }
        if judgement.overflow {
            host::increment(quota.overflow);
        }
        if judgement.contended {
            host::increment(quota.contention);
        }
        if judgement.reset {
            self.error(Error::QuotaState);
        }
    }

    pub(crate) fn mismatch(&self, expected: &str) {
        let metric = self.mismatches.iter().find(|(name, _)| name == expected);
        host::increment(metric.and_then(|(_, metric)| *metric));
    }

    pub(crate) fn blocked(&self) {
        host::increment(self.blocked);
    }

    pub(crate) fn error(&self, error: Error) {
        host::increment(match error {
            Error::Entropy => self.entropy_errors,
            Error::PodVersion => self.pod_version_errors,
            Error::QuotaState => self.quota_state_errors,
        });
    }
}

/// What was said of a plugin.
struct Said {
    plugin: String,
    rejected: bool,
    hash: u32,
    /// The labels under which its versions have slots.
    slots: Vec<String>,
}

thread_local! {
    /// What this VM said last of each plugin.
    static SAID: RefCell<Vec<Said>> = const { RefCell::new(Vec::new()) };
}

/// Says which policy of a plugin is in force, and whether the one that was pushed was refused. Asked
/// with every request, as a configuration may come back without notice; says only what is new.
pub(crate) fn configured(plugin: &str, rejected: bool, policy: &Policy) {
    let hash = policy.hash();
    SAID.with_borrow_mut(|said| {
        let before = said.iter().position(|said| said.plugin == plugin);
        let before = match before {
            Some(index) => match said.get(index) {
                Some(said) if (said.rejected, said.hash) == (rejected, hash) => return,
                _ => said.swap_remove(index).slots,
            },
            None => Vec::new(),
        };
        let labels = labels(&[("plugin", plugin)]);
        gauge(&labels, "config_rejected", rejected.into());
        gauge(&labels, "config_hash", hash.into());
        said.push(Said {
            plugin: plugin.to_owned(),
            rejected,
            hash,
            slots: say_slots(policy, before),
        });
    });
}

/// Says how many slots each version has by which newcomers are given it. A version that is gone, of
/// those that were `before`, has none.
fn say_slots(policy: &Policy, mut before: Vec<String>) -> Vec<String> {
    let mut now = Vec::new();
    for rollout in policy.rollouts().iter().filter(|rollout| rollout.splits()) {
        for (labels, slots) in labels_of_versions(rollout).into_iter().zip(rollout.slots()) {
            gauge(&labels, "slots", slots.into());
            before.retain(|old| *old != labels);
            now.push(labels);
        }
    }
    for labels in before {
        gauge(&labels, "slots", 0);
    }
    now
}

fn counter(labels: &str, name: &str) -> Option<u32> {
    host::define_metric(MetricType::Counter, &format!("{labels}lanekeeper_{name}"))
}

fn gauge(labels: &str, name: &str, value: u64) {
    let name = format!("{labels}lanekeeper_{name}");
    host::record(host::define_metric(MetricType::Gauge, &name), value);
}

fn labels(labels: &[(&str, &str)]) -> String {
    labels
        .iter()
        .map(|(label, value)| format!("{label}=.={value};.;"))
        .collect()
}
