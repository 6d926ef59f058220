//! The quotas of one request: all are tested first, and a refusal writes nothing; then each is
//! charged in the order of the policy, and if one turns out spent meanwhile, the charges already
//! made are taken back.
//!
//! States lie in shared values that several workers change at a time. A value is only replaced if
//! it is still the one that was read (compare and swap), so that no admission is lost.

use super::Quota;
use super::algorithm::{SECOND, Verdict};
use super::key::{self, Address, Fingerprint, Part};
use super::place::Place;
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

/// How many refusals are remembered.
const REMEMBERED: usize = 256;

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
    /// There was no room for the key, or too little to note all that it did: it was judged by the
    /// state that newcomers share, or more strictly than the quota says.
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
    /// It would have been refused, but the quota only observes.
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
}

/// A quota and a request that it is for.
struct Case<'p> {
    quota: &'p Quota,
    key: Fingerprint,
    tested: Tested,
    judgement: Judgement,
}

enum Tested {
    /// There is room for one more, in this seat.
    Free(Seat),
    /// The request has taken this seat.
    Charged(Seat),
    /// There is room for one more, and nowhere to note it.
    Uncounted,
    Refused(u64),
}

/// A place, as it was read, and the key looked for in it.
struct Seat {
    name: String,
    token: u32,
    place: Place,
    key: Fingerprint,
    /// The last word of the key's state, when it is charged.
    charged: u64,
    /// Other places that the decision rests on, as they were read.
    relies_on: Vec<(String, u32)>,
}

/// Where the state of a key is kept: in its own name; with those of its address block, when there
/// is no room for newcomers; with everybody else, when there is no room for another block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Own,
    Block,
    Rest,
}

impl Judge {
    /// Keeps states under names that begin with `prefix`; keys are hashed with `seed`, which all
    /// who share the states must know and nobody else.
    pub fn new(prefix: String, seed: [u8; 16]) -> Self {
        Self {
            prefix,
            seed,
            refused: vec![None; REMEMBERED],
        }
    }

    /// The names of all shared values that a quota may have.
    pub fn places<'a>(&'a self, quota: &'a Quota) -> impl Iterator<Item = String> + 'a {
        let table = quota.table;
        let marks = [('k', table.places), ('b', table.blocks()), ('r', 1)];
        marks.into_iter().flat_map(move |(mark, places)| {
            (0..places).map(move |number| quota.place_name(&self.prefix, mark, number))
        })
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
            let mut spent = false;
            for case in &mut cases {
                trial.charge(case);
                spent = refuses(case).is_some();
                if spent {
                    break;
                }
            }
            if spent {
                for case in &mut cases {
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
            refusal: longest.map(|(until, quota)| {
                let page = policy.page_that_may_read(request.headers, outcome);
                Refusal::new(quota, until, now, page)
            }),
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
                        let host = policy.host_named(quota, authority);
                        hash.path(host, template.map_or(&path, String::as_bytes));
                    }
                    Part::Address => hash.address(self.address()),
                    Part::Header(name) => hash.header(headers.once(name)),
                }
            }
            if skip {
                continue;
            }
            cases.push(Case {
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
        let (now, quota) = (self.now, case.judgement.quota);
        let at = slot_of(quota, &case.key);
        let still = |known: &&Remembered| {
            known.quota == quota
                && known.key == case.key
                && known.until > now
                && now
                    .checked_sub(known.since)
                    .is_some_and(|age| age < BELIEVED)
        };
        let memory = self.judge.refused.get(at).and_then(Option::as_ref);
        if let Some(known) = memory.filter(still) {
            case.tested = Tested::Refused(known.until);
            return;
        }
        case.tested = self.sit(case);
        // What refuses a newcomer without room is not its own state.
        if let Tested::Refused(until) = case.tested
            && !case.judgement.overflow
            && let Some(memory) = self.judge.refused.get_mut(at)
        {
            *memory = Some(Remembered {
                quota,
                key: case.key,
                until,
                since: now,
            });
        }
    }

    /// Finds the seat of a key, and charges it in memory.
    fn sit(&mut self, case: &mut Case<'_>) -> Tested {
        let (now, quota) = (self.now, case.quota);
        let shared = quota.on_overflow == OnOverflow::Shared;
        let mut relies_on = Vec::new();
        let mut seat: Option<Seat> = None;
        let mut state = Vec::new();
        case.judgement.overflow = false;
        for level in [Level::Own, Level::Block, Level::Rest] {
            let mut found = self.find(case, level);
            let known = found.place.state(&found.key);
            let crowded = found.place.was_crowded(now, quota.period);
            let sits = seat.is_none()
                && (known.is_some() || found.place.make_room(now) || level == Level::Rest);
            if level == Level::Own && !sits {
                case.judgement.overflow = true;
                match quota.on_overflow {
                    OnOverflow::Shared => {}
                    OnOverflow::Allow => return Tested::Uncounted,
                    OnOverflow::Deny => {
                        return Tested::Refused(found.place.next_room().unwrap_or(now));
                    }
                }
            }
            // Who has no state here may have been admitted while there was no room, below.
            let last = known.is_some() || !crowded || !shared;
            state = known.unwrap_or_default();
            if sits {
                seat = Some(found);
            } else {
                relies_on.push((found.name, found.token));
            }
            if last {
                break;
            }
        }
        let Some(mut seat) = seat else {
            return Tested::Uncounted;
        };
        let step = quota.algorithm.step(&state, now);
        case.judgement.reset |= step.reset;
        match step.verdict {
            Verdict::Refused { until } => Tested::Refused(until),
            Verdict::Admitted { .. } => {
                seat.charged = step.state.last().copied().unwrap_or_default();
                seat.relies_on = relies_on;
                let whole = seat.place.put(&seat.key, step.state, now);
                case.judgement.overflow |= !whole;
                Tested::Free(seat)
            }
        }
    }

    fn find(&mut self, case: &mut Case<'_>, level: Level) -> Seat {
        let table = case.quota.table;
        let (mark, key, places) = match level {
            Level::Own => ('k', case.key, table.places),
            Level::Block => {
                let mut hash = key::Hash::new(&self.judge.seed);
                hash.address(self.address().block());
                ('b', hash.finish(), table.blocks())
            }
            Level::Rest => ('r', Fingerprint::default(), 1),
        };
        let [a, b, c, d, ..] = key;
        let number = u32::from_le_bytes([a, b, c, d]) % places.max(1);
        let name = case.quota.place_name(&self.judge.prefix, mark, number);
        let (value, token) = self.host.get(&name);
        let place = Place::read(value, case.quota.algorithm, table.room);
        case.judgement.reset |= place.reset();
        Seat {
            name,
            token,
            place,
            key,
            charged: 0,
            relies_on: Vec::new(),
        }
    }

    /// Stores a charge that was tested. Where another worker was faster, the test is run again.
    fn charge(&mut self, case: &mut Case<'_>) {
        for _ in 0..ATTEMPTS {
            let Tested::Free(seat) = &case.tested else {
                return;
            };
            if self.host.set(&seat.name, seat.place.bytes(), seat.token) {
                // Of two workers that decide by the same places and store in different ones, at
                // least one sees here what the other did.
                let mut others = seat.relies_on.iter();
                let still = others.all(|(name, token)| self.host.get(name).1 == *token);
                if let Tested::Free(seat) = std::mem::replace(&mut case.tested, Tested::Uncounted) {
                    case.tested = Tested::Charged(seat);
                }
                if still {
                    return;
                }
                self.take_back(case);
            }
            case.tested = self.sit(case);
        }
        if !matches!(case.tested, Tested::Free(_)) {
            return;
        }
        case.judgement.contended = true;
        case.tested = match case.quota.on_contention {
            OnContention::Deny => Tested::Refused(self.now),
            OnContention::Allow => Tested::Uncounted,
        };
    }

    /// Takes a charge back. Should all races be lost, the key has one request less for a period.
    fn take_back(&mut self, case: &mut Case<'_>) {
        let Tested::Charged(seat) = &case.tested else {
            return;
        };
        let Quota {
            algorithm, table, ..
        } = case.quota;
        for _ in 0..ATTEMPTS {
            let (value, token) = self.host.get(&seat.name);
            let mut place = Place::read(value, *algorithm, table.room);
            let Some(state) = place.state(&seat.key) else {
                return;
            };
            let state = algorithm.take_back(&state, seat.charged);
            place.put(&seat.key, state, self.now);
            if self.host.set(&seat.name, place.bytes(), token) {
                return;
            }
        }
    }
}

/// Where a refusal is remembered.
fn slot_of(quota: usize, key: &Fingerprint) -> usize {
    let [.., last] = key;
    (usize::from(*last) ^ quota.wrapping_mul(37)) % REMEMBERED
}
