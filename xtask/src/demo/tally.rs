//! Counts what users see.

use std::collections::BTreeMap;

/// So many users show how a rollout divides them.
const ENOUGH_USERS: usize = 100;
/// So many visits of known users show whether these keep their version.
const ENOUGH_VISITS: u64 = 500;

/// Which tiers answered, and in which version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tiers(Vec<(String, String)>);

impl Tiers {
    /// Reads `app-service;v=canary, model-service;v=canary`.
    pub(crate) fn parse(served_by: &str) -> Option<Self> {
        let tiers: Option<Vec<_>> = served_by
            .split(',')
            .map(|tier| {
                let (name, version) = tier.trim().split_once(";v=")?;
                let both = !name.is_empty() && !version.is_empty();
                both.then(|| (name.to_owned(), version.to_owned()))
            })
            .collect();
        tiers.map(Self)
    }

    /// The version of the tier that users meet.
    pub(crate) fn edge(&self) -> &str {
        &self.0[0].1
    }

    /// Whether this tier answered.
    pub(crate) fn names(&self, tier: &str) -> bool {
        self.0.iter().any(|(name, _)| name == tier)
    }

    fn disagree(&self) -> bool {
        self.0.iter().any(|(_, version)| version != self.edge())
    }
}

/// The number of the user who sends more than anybody should.
pub(crate) const NOISY: usize = usize::MAX;

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// These tiers answered.
    Served(Tiers),
    /// A quota refused it, and rightly so.
    Refused,
    /// What went wrong.
    Failed(String),
}

/// One request of a user.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) user: usize,
    /// The era in which the request was sent.
    pub(crate) sent: usize,
    /// The era in which the answer was there.
    pub(crate) answered: usize,
    /// Whether a policy that may have answered decides on the version that did.
    pub(crate) decided: bool,
    pub(crate) answer: Answer,
    /// The promise of a quota that is broken with this request, in words.
    pub(crate) excess: Option<String>,
}

/// What was counted of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OfVersion {
    /// Users whose last answer came from it.
    pub(crate) users: usize,
    /// Answers by tier.
    pub(crate) requests: BTreeMap<String, u64>,
    /// Users that left it for another version without a reason.
    pub(crate) flips: u64,
}

/// What was counted, all in all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) versions: BTreeMap<String, OfVersion>,
    pub(crate) requests: u64,
    /// Changes of version that a new policy decided on.
    pub(crate) reassigned: u64,
    /// Requests whose tiers answered in different versions.
    pub(crate) mixed: u64,
    pub(crate) failures: u64,
    last_failure: Option<String>,
    pub(crate) refused: Refused,
    excess: Option<String>,
    users: BTreeMap<usize, User>,
}

/// Requests that quotas refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Of the user who sends more than anybody should.
    pub(crate) noisy: u64,
    pub(crate) others: u64,
}

impl Refused {
    pub(crate) fn all(self) -> u64 {
        self.noisy + self.others
    }
}

#[derive(Clone, Debug)]
struct User {
    version: String,
    sent: usize,
    flipped: bool,
}

impl Tally {
    pub(crate) fn count(&mut self, visit: Visit) {
        self.requests += 1;
        self.excess = visit.excess.or(self.excess.take());
        let tiers = match visit.answer {
            Answer::Served(tiers) => tiers,
            Answer::Refused => {
                let is_noisy = visit.user == NOISY;
                self.refused.noisy += u64::from(is_noisy);
                self.refused.others += u64::from(!is_noisy);
                return;
            }
            Answer::Failed(failure) => {
                self.failures += 1;
                self.last_failure = Some(failure);
                return;
            }
        };
        self.mixed += u64::from(tiers.disagree());
        let version = tiers.edge().to_owned();
        for (tier, version) in tiers.0 {
            let of_version = self.versions.entry(version).or_default();
            *of_version.requests.entry(tier).or_default() += 1;
        }
        let Some(known) = self.users.get_mut(&visit.user) else {
            self.versions.entry(version.clone()).or_default().users += 1;
            let user = User {
                version,
                sent: visit.sent,
                flipped: false,
            };
            self.users.insert(visit.user, user);
            return;
        };
        let policy_changed = visit.answered > known.sent || known.sent % 2 == 1;
        known.sent = visit.sent;
        if known.version == version {
            return;
        }
        let left = self.versions.entry(known.version.clone()).or_default();
        left.users -= 1;
        if policy_changed && visit.decided {
            self.reassigned += 1;
        } else {
            left.flips += 1;
            known.flipped = true;
        }
        known.version.clone_from(&version);
        self.versions.entry(version).or_default().users += 1;
    }

    /// Users that were seen.
    pub(crate) fn users(&self) -> usize {
        self.users.len()
    }

    /// Users that flipped at least once.
    pub(crate) fn flipped_users(&self) -> usize {
        self.users.values().filter(|user| user.flipped).count()
    }

    /// Times that a user's version changed and no change of the policy explains it.
    pub(crate) fn flips(&self) -> u64 {
        self.versions.values().map(|version| version.flips).sum()
    }

    /// Answers of one tier in one version.
    pub(crate) fn answers(&self, version: &str, tier: &str) -> u64 {
        let requests = self.versions.get(version).map(|version| &version.requests);
        requests
            .and_then(|tiers| tiers.get(tier))
            .copied()
            .unwrap_or_default()
    }

    /// What failed at the site `name`, in words; nothing where all went well.
    pub(crate) fn failed(&self, name: &str) -> Option<String> {
        let last = self.last_failure.as_ref()?;
        let (failures, requests) = (self.failures, self.requests);
        Some(format!(
            "{name}: {failures} of {requests} requests failed, the last one with: {last}"
        ))
    }

    /// What breaks the promise, in words; empty where it was kept.
    pub(crate) fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if self.flips() > 0 {
            broken.push(format!(
                "{} of {} users changed their version without a reason",
                self.flipped_users(),
                self.users()
            ));
        }
        if self.mixed > 0 {
            broken.push(format!(
                "in {} requests the tiers were not of one version",
                self.mixed
            ));
        }
        broken.extend(self.excess.clone());
        broken
    }

    /// Says so where `version` has a share of the users that chance does not explain, if it is to
    /// have the share `wanted`. Too few users prove nothing.
    pub(crate) fn odd_share(&self, version: &str, wanted: f64) -> Option<String> {
        let all = self.users();
        if all < ENOUGH_USERS {
            return None;
        }
        let users = self.versions.get(version).map_or(0, |found| found.users);
        let expected = all as f64 * wanted;
        let sigma = (expected * (1.0 - wanted)).sqrt();
        let odd = (users as f64 - expected).abs() > 4.0 * sigma;
        odd.then(|| {
            format!(
                "{users} of {all} users have {version}, which is to have {:.1} % of them",
                100.0 * wanted
            )
        })
    }

    /// Says so where nobody flipped although the version is drawn anew for each request.
    pub(crate) fn too_steady(&self) -> Option<String> {
        // Who comes for the first time cannot flip.
        let again = (self.requests - self.failures).saturating_sub(self.users() as u64);
        (again >= ENOUGH_VISITS && self.flips() == 0)
            .then(|| format!("nobody flipped in {again} visits of known users"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(tally: &mut Tally, user: usize, eras: (usize, usize), served_by: &str) {
        let (sent, answered) = eras;
        let failure = || Answer::Failed(served_by.to_owned());
        let answer = Tiers::parse(served_by).map_or_else(failure, Answer::Served);
        tally.count(Visit {
            user,
            sent,
            answered,
            decided: true,
            answer,
            excess: None,
        });
    }

    #[test]
    fn served_by_names_tiers_and_versions() {
        let tiers =
            Tiers::parse("app-service;v=canary, model-service;v=stable").expect("two tiers");
        assert_eq!(tiers.edge(), "canary");
        assert!(tiers.disagree());
        assert!(
            !Tiers::parse("app-service;v=canary")
                .expect("one tier")
                .disagree()
        );
        for bad in ["", "app-service", "app-service;v=", ";v=canary", "a;v=b,"] {
            assert_eq!(Tiers::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_version_that_changes_is_a_flip() {
        let mut tally = Tally::default();
        for version in ["stable", "stable", "canary", "stable"] {
            visit(&mut tally, 1, (0, 0), &format!("app;v={version}"));
        }
        visit(&mut tally, 2, (0, 0), "app;v=canary");
        assert_eq!(
            (tally.flips(), tally.flipped_users(), tally.users()),
            (2, 1, 2)
        );
        assert_eq!(tally.versions["stable"].users, 1);
        assert_eq!(tally.versions["canary"].users, 1);
        assert_eq!(tally.answers("canary", "app"), 2);
        assert_eq!(tally.broken_promises().len(), 1);
    }

    #[test]
    fn a_change_of_the_policy_explains_one_change_of_version() {
        let mut tally = Tally::default();
        visit(&mut tally, 1, (0, 0), "app;v=stable");
        // The next policy is in force when this is answered.
        visit(&mut tally, 1, (2, 2), "app;v=canary");
        assert_eq!((tally.flips(), tally.reassigned), (0, 1));
        visit(&mut tally, 1, (2, 2), "app;v=stable");
        assert_eq!((tally.flips(), tally.reassigned), (1, 1));
    }

    #[test]
    fn while_a_policy_is_on_its_way_either_may_answer() {
        let mut tally = Tally::default();
        visit(&mut tally, 1, (0, 0), "app;v=stable");
        visit(&mut tally, 1, (0, 1), "app;v=canary");
        visit(&mut tally, 1, (1, 1), "app;v=stable");
        visit(&mut tally, 1, (2, 2), "app;v=canary");
        assert_eq!((tally.flips(), tally.reassigned), (0, 3));
    }

    #[test]
    fn a_change_that_no_policy_decided_on_is_a_flip_at_any_time() {
        let mut tally = Tally::default();
        visit(&mut tally, 1, (0, 0), "app;v=stable");
        tally.count(Visit {
            user: 1,
            sent: 1,
            answered: 1,
            decided: false,
            answer: Answer::Served(Tiers::parse("app;v=canary").expect("a tier")),
            excess: None,
        });
        assert_eq!((tally.flips(), tally.reassigned), (1, 0));
    }

    #[test]
    fn tiers_of_two_versions_and_failures_are_counted() {
        let mut tally = Tally::default();
        visit(&mut tally, 1, (0, 0), "app;v=canary, model;v=stable");
        visit(&mut tally, 1, (0, 0), "503");
        assert_eq!((tally.requests, tally.mixed, tally.failures), (2, 1, 1));
        assert_eq!(tally.last_failure.as_deref(), Some("503"));
        assert_eq!(tally.answers("stable", "model"), 1);
        assert_eq!(tally.users(), 1);
    }

    #[test]
    fn refusals_are_neither_failures_nor_answers_and_an_excess_breaks_a_promise() {
        let mut tally = Tally::default();
        for (user, excess) in [(NOISY, None), (NOISY, Some("too many")), (1, None)] {
            tally.count(Visit {
                user,
                sent: 0,
                answered: 0,
                decided: false,
                answer: Answer::Refused,
                excess: excess.map(str::to_owned),
            });
        }
        let [noisy, others] = [2, 1];
        assert_eq!(tally.refused, Refused { noisy, others });
        assert_eq!((tally.requests, tally.failures, tally.users()), (3, 0, 0));
        assert_eq!(tally.broken_promises(), ["too many"]);
    }

    #[test]
    fn a_share_of_users_is_odd_where_chance_does_not_explain_it() {
        let mut tally = Tally::default();
        for user in 0..200 {
            let version = if user < 20 { "canary" } else { "stable" };
            visit(&mut tally, user, (0, 0), &format!("app;v={version}"));
            if user < 50 {
                // Too few users for a verdict.
                assert_eq!(tally.odd_share("canary", 0.1), None);
            }
        }
        assert_eq!(tally.odd_share("canary", 0.1), None);
        assert!(tally.odd_share("canary", 0.5).is_some());
        assert!(tally.odd_share("other", 0.1).is_some());
    }

    #[test]
    fn users_that_never_flip_are_too_steady() {
        let mut tally = Tally::default();
        for _ in 0..ENOUGH_VISITS {
            assert_eq!(tally.too_steady(), None);
            visit(&mut tally, 1, (0, 0), "app;v=stable");
        }
        visit(&mut tally, 1, (0, 0), "app;v=stable");
        assert!(tally.too_steady().is_some());
        visit(&mut tally, 1, (0, 0), "app;v=canary");
        assert_eq!(tally.too_steady(), None);
    }
}
