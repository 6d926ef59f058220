//! The quotas of one request: all are tested first, and a refusal writes nothing; then each is
//! charged in the order of the policy, and if one turns out spent meanwhile, the charges already
//! made are taken back.
//!
//! States lie in shared values that several workers change at a time. A value is only replaced if
//! it is still the one that was read (compare and swap), so that no admission is lost.

use std::fmt::Write;

use super::Quota;
use super::algorithm::{SECOND, Verdict};
use super::key::{self, Address, Fingerprint, Part};
use super::place::{Place, Room};
use super::refusal::Refusal;
use crate::config::document::{Enforcement, OnAnonymous, OnContention, OnOverflow};
use crate::decide::{Outcome, Request, is_preflight};
use crate::host;
use crate::path;
use crate::policy::Policy;

/// How often a lost race is run again.
const ATTEMPTS: usize = 32;

/// How long a refusal may be repeated without a look at the shared state, which moves back only
/// when a charge is taken back.
const BELIEVED: u64 = SECOND;

/// What quotas need of the host.
pub trait Host {
    /// A shared value, and the token by which [`Host::set`] knows it again.
    fn get(&mut self, key: &str) -> (Option<Vec<u8>>, u32);

    /// Replaces the value that [`Host::get`] gave with this token; `false` where it is another one
    /// by now.
    fn set(&mut self, key: &str, value: &[u8], token: u32) -> bool;

    /// The address of the client as `ip:port`.
    fn address(&mut self) -> Option<Vec<u8>>;
}

/// How a quota judged a request, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Index into [`Policy::quotas`].
    pub quota: usize,
    /// What came of it; `None` for a request that another quota refused.
    pub count: Option<Count>,
    /// Judged by the state that newcomers share, as there was no room for another key.
    pub overflow: bool,
    /// Judged by `onContention`, as other workers changed the state again and again.
    pub contended: bool,
    /// A state was forgotten: it could not be read, or was more than a period ahead of the clock.
    pub reset: bool,
}

/// What came of a request at a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// It was admitted.
    Admitted,
    /// It was refused.
    Refused,
    /// It was let through, as the quota only observes.
    Observed,
}

impl Count {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Admitted, Self::Refused, Self::Observed];

    /// The name, as the metrics' label `verdict`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::Observed => "observed",
        }
    }
}

/// What the quotas say of a request.
#[derive(Debug)]
pub struct Ruling<'p> {
    /// One for each quota that is for the request.
    pub judgements: Vec<Judgement>,
    /// The answer to the client, where a quota refuses.
    pub refusal: Option<Refusal<'p>>,
}

/// Judges requests by a policy's quotas; remembers refusals.
#[derive(Debug)]
pub struct Judge {
    prefix: String,
    seed: [u8; 16],
    refused: Vec<Option<Remembered>>,
}

#[derive(Clone, Debug)]
struct Remembered {
    quota: usize,
    key: Fingerprint,
    until: u64,
    since: u64,
    overflow: bool,
}

/// A quota and a request that it is for.
struct Case<'p> {
    index: usize,
    quota: &'p Quota,
    key: Fingerprint,
    tested: Tested,
    judgement: Judgement,
}

enum Tested {
    /// There is room for one more, charged in this seat.
    Free(Seat),
    /// There is room for one more, and nowhere to note it.
    Uncounted,
    Refused(u64),
    /// Charged at this place and time.
    Charged(String, Room, Fingerprint, u64),
}

/// A place in which a key was charged, not yet stored.
struct Seat {
    name: String,
    token: u32,
    place: Place,
    room: Room,
    key: Fingerprint,
    at: u64,
}

/// Where the state of a key is kept: in its own name; with those of its address block, when there
/// is no room for newcomers; with everybody else, when there is no room for another block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Own,
    Block,
    Rest,
}

impl Level {
    fn below(self) -> Option<Self> {
        match self {
            Self::Own => Some(Self::Block),
            Self::Block => Some(Self::Rest),
            Self::Rest => None,
        }
    }
}

impl Judge {
    /// Keeps states under names that begin with `prefix`; keys are hashed with `seed`, which all
    /// who share the states must know and nobody else.
    pub fn new(prefix: String, seed: [u8; 16]) -> Self {
        const REMEMBERED: usize = 256;
        Self {
            prefix,
            seed,
            refused: vec![None; REMEMBERED],
        }
    }

    /// Judges a request at `now`, in nanoseconds since 1970-01-01 UTC, and charges the quotas.
    pub fn judge<'p>(
        &mut self,
        policy: &'p Policy,
        request: Request<'_>,
        outcome: &Outcome,
        now: u64,
        host: &mut dyn Host,
    ) -> Ruling<'p> {
        let mut trial = Trial {
            judge: self,
            host,
            address: None,
            now,
        };
        let mut cases = trial.cases(policy, request, outcome);
        for case in &mut cases {
            trial.test(case);
        }
        let refuses = |case: &Case<'_>| match case.tested {
            Tested::Refused(until) if case.quota.enforcement == Enforcement::Enforce => Some(until),
            _ => None,
        };
        if !cases.iter().any(|case| refuses(case).is_some()) {
            let mut charged = 0;
            for case in &mut cases {
                trial.charge(case);
                charged += 1;
                if refuses(case).is_some() {
                    break;
                }
            }
            if cases.iter().any(|case| refuses(case).is_some()) {
                for case in cases.iter().take(charged) {
                    trial.take_back(case);
                }
            }
        }
        // Whoever waits as long as the strictest quota says is admitted by all.
        let longest = cases
            .iter()
            .filter_map(|case| Some((refuses(case)?, case.quota)))
            .max_by_key(|(until, _)| *until);
        let refused = longest.is_some();
        let judgements = cases.iter().map(|case| Judgement {
            count: match case.tested {
                Tested::Refused(_) if refuses(case).is_none() => Some(Count::Observed),
                Tested::Refused(_) => Some(Count::Refused),
                _ => (!refused).then_some(Count::Admitted),
            },
            ..case.judgement
        });
        Ruling {
            judgements: judgements.collect(),
            refusal: longest.map(|(until, quota)| Refusal::new(quota, until, now)),
        }
    }
}

/// One request before the judge.
struct Trial<'j> {
    judge: &'j mut Judge,
    host: &'j mut dyn Host,
    address: Option<Address>,
    now: u64,
}

impl Trial<'_> {
    /// The quotas that are for a request, with its key in each.
    fn cases<'p>(
        &mut self,
        policy: &'p Policy,
        request: Request<'_>,
        outcome: &Outcome,
    ) -> Vec<Case<'p>> {
        let rollout = match outcome {
            Outcome::Exempt => return Vec::new(),
            Outcome::Unmatched if is_preflight(request.headers) => return Vec::new(),
            Outcome::Unmatched => None,
            Outcome::Assigned(assignment) => policy.rollouts().get(assignment.rollout),
        };
        let headers = request.headers;
        let authority = host::of_authority(headers.first(":authority").unwrap_or_default());
        let path = path::normalise(headers.first(":path").unwrap_or_default());
        let method = headers.first(":method").unwrap_or_default();
        let mut cases = Vec::new();
        for (index, quota) in policy.quotas().iter().enumerate() {
            if !quota.is_for(authority, &path, method) {
                continue;
            }
            let mut hash = key::Hash::new(&self.judge.seed);
            let mut skip = false;
            for part in &quota.key {
                match part {
                    Part::User => match rollout.and_then(|rollout| rollout.trusted(headers)) {
                        Some(user) => hash.user(user),
                        None if quota.on_anonymous == OnAnonymous::Skip => skip = true,
                        None => hash.address(self.address()),
                    },
                    Part::Path => {
                        let like = |template: &&String| key::is_like(&path, template);
                        let template = quota.templates.iter().find(like);
                        hash.path(authority, template.map_or(&path, String::as_bytes));
                    }
                    Part::Address => hash.address(self.address()),
                    Part::Header(name) => hash.header(headers.all(name)),
                }
            }
            if skip {
                continue;
            }
            cases.push(Case {
                index,
                quota,
                key: hash.finish(),
                tested: Tested::Uncounted,
                judgement: Judgement {
                    quota: index,
                    count: None,
                    overflow: false,
                    contended: false,
                    reset: false,
                },
            });
        }
        cases
    }

    /// Asked for once, and only if a key needs it: the question is not cheap.
    fn address(&mut self) -> Address {
        let host = &mut *self.host;
        *self.address.get_or_insert_with(|| {
            let address = host.address();
            address.map_or(Address::Other, |address| Address::parse(&address))
        })
    }

    fn test(&mut self, case: &mut Case<'_>) {
        let now = self.now;
        let memory = self
            .judge
            .refused
            .get(slot_of(&case.key))
            .cloned()
            .flatten();
        let still = |known: &Remembered| {
            known.quota == case.index
                && known.key == case.key
                && known.until > now
                && now
                    .checked_sub(known.since)
                    .is_some_and(|age| age < BELIEVED)
        };
        if let Some(known) = memory.filter(still) {
            case.judgement.overflow = known.overflow;
            case.tested = Tested::Refused(known.until);
            return;
        }
        case.tested = self.sit(case, Level::Own);
        if let Tested::Refused(until) = case.tested
            && let Some(memory) = self.judge.refused.get_mut(slot_of(&case.key))
        {
            *memory = Some(Remembered {
                quota: case.index,
                key: case.key,
                until,
                since: now,
                overflow: case.judgement.overflow,
            });
        }
    }

    /// Reads the state of a key, and charges it in memory.
    fn sit(&mut self, case: &mut Case<'_>, level: Level) -> Tested {
        let Found {
            name,
            token,
            mut place,
            room,
            key,
        } = self.find(case, level);
        let (now, algorithm) = (self.now, &case.quota.algorithm);
        let below = level
            .below()
            .filter(|_| place.was_crowded(now, case.quota.period));
        let state = match (place.state(&key), below) {
            (Some(state), _) => state,
            (None, None) => Vec::new(),
            (None, Some(below)) if !place.has_room(now) => {
                case.judgement.overflow = true;
                return match case.quota.on_overflow {
                    OnOverflow::Shared => self.sit(case, below),
                    OnOverflow::Allow => Tested::Uncounted,
                    OnOverflow::Deny => Tested::Refused(now),
                };
            }
            // It may have been admitted while there was no room for it.
            (None, Some(below)) => match case.quota.on_overflow {
                OnOverflow::Shared => self.inherited(case, below),
                OnOverflow::Allow | OnOverflow::Deny => Vec::new(),
            },
        };
        let step = algorithm.step(&state, now);
        case.judgement.reset |= step.reset;
        match step.verdict {
            Verdict::Refused { until } => Tested::Refused(until),
            Verdict::Admitted { .. } => {
                place.put(&key, step.state, now);
                Tested::Free(Seat {
                    name,
                    token,
                    place,
                    room,
                    key,
                    at: step.at,
                })
            }
        }
    }

    /// What was counted for a key at the levels below its own.
    fn inherited(&mut self, case: &mut Case<'_>, level: Level) -> Vec<u64> {
        let Found { place, key, .. } = self.find(case, level);
        match (place.state(&key), level.below()) {
            (Some(state), _) => state,
            (None, Some(below)) if place.was_crowded(self.now, case.quota.period) => {
                self.inherited(case, below)
            }
            (None, _) => Vec::new(),
        }
    }

    fn find(&mut self, case: &mut Case<'_>, level: Level) -> Found {
        let own = case.quota.room;
        let (mark, key, room) = match level {
            Level::Own => ("", case.key, own),
            Level::Block => {
                let mut hash = key::Hash::new(&self.judge.seed);
                hash.address(self.address().block());
                let places = (own.places / 16).max(1);
                ("block-", hash.finish(), Room { places, ..own })
            }
            Level::Rest => ("rest-", Fingerprint::default(), Room { places: 1, ..own }),
        };
        let [a, b, c, d, ..] = key;
        let place = u32::from_le_bytes([a, b, c, d]) % room.places.max(1);
        let mut name = String::with_capacity(self.judge.prefix.len() + case.quota.name.len() + 16);
        name.push_str(&self.judge.prefix);
        name.push_str(&case.quota.name);
        name.push('/');
        name.push_str(mark);
        // Writing to a string does not fail.
        let _ = write!(name, "{place:x}");
        let (value, token) = self.host.get(&name);
        let place = Place::read(value, room, case.quota.algorithm);
        case.judgement.reset |= place.reset();
        Found {
            name,
            token,
            place,
            room,
            key,
        }
    }

    /// Stores a charge that was tested. Where another worker was faster, the test is run again.
    fn charge(&mut self, case: &mut Case<'_>) {
        for _ in 0..ATTEMPTS {
            let Tested::Free(seat) = &case.tested else {
                return;
            };
            if self.host.set(&seat.name, seat.place.bytes(), seat.token) {
                let (name, room, key, at) = (seat.name.clone(), seat.room, seat.key, seat.at);
                case.tested = Tested::Charged(name, room, key, at);
                return;
            }
            case.judgement.overflow = false;
            case.tested = self.sit(case, Level::Own);
        }
        if let Tested::Free(_) = case.tested {
            case.judgement.contended = true;
            case.tested = match case.quota.on_contention {
                OnContention::Deny => Tested::Refused(self.now),
                OnContention::Allow => Tested::Uncounted,
            };
        }
    }

    /// Takes a charge back. Should all races be lost, the key has one request less for a period.
    fn take_back(&mut self, case: &Case<'_>) {
        let Tested::Charged(name, room, key, at) = &case.tested else {
            return;
        };
        let algorithm = case.quota.algorithm;
        for _ in 0..ATTEMPTS {
            let (value, token) = self.host.get(name);
            let mut place = Place::read(value, *room, algorithm);
            let Some(state) = place.state(key) else {
                return;
            };
            place.put(key, algorithm.take_back(&state, *at), self.now);
            if self.host.set(name, place.bytes(), token) {
                return;
            }
        }
    }
}

/// A place as it was read.
struct Found {
    name: String,
    token: u32,
    place: Place,
    room: Room,
    key: Fingerprint,
}

/// Where a refusal is remembered.
fn slot_of(key: &Fingerprint) -> usize {
    let [.., last] = key;
    usize::from(*last)
}
