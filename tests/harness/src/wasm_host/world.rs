//! What one Envoy process holds for all its workers, and what a test sets for them.

use super::{Status, hostcalls};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// 2026-01-01T00:00:00Z, when the clock of a new world stands still.
const START: Duration = Duration::from_secs(1_767_225_600);

/// The surroundings of the filter: shared data, metrics, log, clock, entropy,
/// properties, faults. A clone is another handle on the same world; VMs of
/// several threads may share one, as the workers of an Envoy do.
#[derive(Clone, Debug, Default)]
pub struct World(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    now: Duration,
    entropy: u64,
    entropy_fails: bool,
    properties: BTreeMap<Vec<u8>, Vec<u8>>,
    shared: BTreeMap<String, (Vec<u8>, u32)>,
    last_cas: u32,
    metrics: BTreeMap<String, Metric>,
    logs: Vec<(LogLevel, String)>,
    foreign_calls: Vec<(String, Vec<u8>)>,
    faults: BTreeMap<String, Fault>,
    cas_conflicts: u32,
}

#[derive(Debug)]
struct Fault {
    status: Status,
    /// `None`: for good.
    left: Option<u32>,
}

/// A metric's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Only grows.
    Counter(u64),
    /// Goes both ways.
    Gauge(u64),
    /// All recorded values.
    Histogram(Vec<u64>),
}

/// How important a log line is. What the guest writes to stdout is `Info`, to
/// stderr `Error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names of the ABI")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

impl Default for State {
    fn default() -> State {
        State {
            now: START,
            entropy: 0,
            entropy_fails: false,
            properties: BTreeMap::new(),
            shared: BTreeMap::new(),
            last_cas: 0,
            metrics: BTreeMap::new(),
            logs: vec![],
            foreign_calls: vec![],
            faults: BTreeMap::new(),
            cas_conflicts: 0,
        }
    }
}

impl World {
    /// An empty world, its clock at the start of 2026. Every new world yields
    /// the same entropy.
    pub fn new() -> World {
        World::default()
    }

    // === time and entropy ===

    /// The time since 1970.
    pub fn now(&self) -> Duration {
        self.state().now
    }

    /// Sets the clock, also backwards.
    pub fn set_time(&self, since_1970: Duration) {
        self.state().now = since_1970;
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        self.state().now += by;
    }

    /// Starts another sequence of entropy.
    pub fn seed(&self, seed: u64) {
        self.state().entropy = seed;
    }

    /// Whether `random_get` fails.
    pub fn set_entropy_failure(&self, fails: bool) {
        self.state().entropy_fails = fails;
    }

    pub(super) fn entropy(&self, length: usize) -> Option<Vec<u8>> {
        let mut state = self.state();
        if state.entropy_fails {
            return None;
        }
        let mut out = vec![];
        while out.len() < length {
            // SplitMix64
            state.entropy = state.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state.entropy;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            out.extend((z ^ (z >> 31)).to_le_bytes());
        }
        out.truncate(length);
        Some(out)
    }

    // === properties ===

    /// A property that every context sees, such as
    /// `["xds", "node", "metadata", "LABELS", "version"]`. Numbers are 8 bytes,
    /// little-endian.
    pub fn set_property(&self, path: &[&str], value: impl AsRef<[u8]>) {
        self.state()
            .properties
            .insert(path.join("\0").into(), value.as_ref().to_vec());
    }

    pub(super) fn property(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.state().properties.get(path).cloned()
    }

    // === shared data ===

    /// All shared data.
    pub fn shared(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        state
            .shared
            .iter()
            .map(|(key, (value, _))| (key.clone(), value.clone()))
            .collect()
    }

    /// Overwrites shared data, as another worker would.
    pub fn set_shared(&self, key: &str, value: &[u8]) {
        self.state().write(key, value);
    }

    /// The next `count` conditional writes find that another worker was faster.
    pub fn force_cas_conflicts(&self, count: u32) {
        self.state().cas_conflicts = count;
    }

    pub(super) fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.state().shared.get(key).cloned()
    }

    /// A write with `cas` 0 is unconditional; one to a missing key always
    /// succeeds, whatever its `cas`.
    pub(super) fn shared_set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), Status> {
        let mut state = self.state();
        if cas != 0 {
            if state.cas_conflicts > 0 {
                state.cas_conflicts -= 1;
                return Err(Status::CasMismatch);
            }
            if state
                .shared
                .get(key)
                .is_some_and(|(_, current)| *current != cas)
            {
                return Err(Status::CasMismatch);
            }
        }
        state.write(key, value);
        Ok(())
    }

    // === metrics, log, foreign functions ===

    /// All metrics that were defined.
    pub fn metrics(&self) -> BTreeMap<String, Metric> {
        self.state().metrics.clone()
    }

    /// A counter or gauge; `None` while nobody defined it.
    pub fn metric(&self, name: &str) -> Option<u64> {
        match self.state().metrics.get(name)? {
            Metric::Counter(value) | Metric::Gauge(value) => Some(*value),
            Metric::Histogram(_) => None,
        }
    }

    /// The log of all VMs.
    pub fn logs(&self) -> Vec<(LogLevel, String)> {
        self.state().logs.clone()
    }

    /// The foreign functions called so far: name and argument.
    pub fn foreign_calls(&self) -> Vec<(String, Vec<u8>)> {
        self.state().foreign_calls.clone()
    }

    /// Defines a metric, or finds the one that has this name: plugins and
    /// workers share it.
    pub(super) fn define_metric(&self, name: &str, zero: Metric) -> Result<(), Status> {
        let mut state = self.state();
        let metric = state
            .metrics
            .entry(name.to_owned())
            .or_insert_with(|| zero.clone());
        let same_kind = std::mem::discriminant(metric) == std::mem::discriminant(&zero);
        same_kind.then_some(()).ok_or(Status::BadArgument)
    }

    pub(super) fn change_metric<T>(&self, name: &str, change: impl FnOnce(&mut Metric) -> T) -> T {
        change(
            self.state()
                .metrics
                .get_mut(name)
                .expect("a defined metric"),
        )
    }

    pub(super) fn log(&self, level: LogLevel, message: String) {
        self.state().logs.push((level, message));
    }

    pub(super) fn record_foreign_call(&self, name: String, argument: Vec<u8>) {
        self.state().foreign_calls.push((name, argument));
    }

    // === faults ===

    /// From now on, a hostcall (such as `proxy_get_property`) does nothing and
    /// answers `status`; `Status::Ok` heals it. (Envoy answers calls to unknown
    /// clusters with `BadArgument` for HTTP and `ParseFailure` for gRPC.)
    pub fn fail(&self, hostcall: &str, status: Status) {
        self.set_fault(hostcall, status, None);
    }

    /// The next `times` uses of a hostcall do nothing and answer `status`.
    pub fn fail_times(&self, hostcall: &str, status: Status, times: u32) {
        self.set_fault(hostcall, status, Some(times));
    }

    fn set_fault(&self, hostcall: &str, status: Status, left: Option<u32>) {
        assert!(
            hostcalls::NAMES.contains(&hostcall),
            "there is no hostcall {hostcall}"
        );
        let mut state = self.state();
        if status == Status::Ok {
            state.faults.remove(hostcall);
        } else {
            state
                .faults
                .insert(hostcall.to_owned(), Fault { status, left });
        }
    }

    pub(super) fn fault(&self, hostcall: &str) -> Option<Status> {
        let mut state = self.state();
        let fault = state.faults.get_mut(hostcall)?;
        match &mut fault.left {
            None => {}
            Some(0) => return None,
            Some(left) => *left -= 1,
        }
        Some(fault.status)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn write(&mut self, key: &str, value: &[u8]) {
        // Never 0, which stands for an unconditional write.
        self.last_cas = self.last_cas.checked_add(1).unwrap_or(1);
        self.shared
            .insert(key.to_owned(), (value.to_vec(), self.last_cas));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_compare_and_swap() {
        let world = World::new();
        assert_eq!(
            world.shared_set("a", b"1", u32::MAX),
            Ok(()),
            "creates a missing key"
        );
        assert_eq!(
            world.shared_set("a", b"2", u32::MAX),
            Err(Status::CasMismatch)
        );
        let (value, cas) = world.shared_get("a").expect("a");
        assert_eq!(value, b"1");
        assert_eq!(world.shared_set("a", b"2", cas), Ok(()));
        assert_eq!(
            world.shared_set("a", b"3", cas),
            Err(Status::CasMismatch),
            "cas moved on"
        );
        assert_eq!(world.shared_set("a", b"4", 0), Ok(()), "unconditional");
        assert_eq!(world.shared()["a"], b"4");
    }

    #[test]
    fn forced_conflicts_hit_conditional_writes_only() {
        let world = World::new();
        world.force_cas_conflicts(1);
        assert_eq!(world.shared_set("a", b"1", 0), Ok(()));
        assert_eq!(world.shared_set("b", b"1", 7), Err(Status::CasMismatch));
        assert_eq!(world.shared_set("b", b"1", 7), Ok(()));
    }

    #[test]
    fn entropy_is_repeatable() {
        let world = World::new();
        let first = world.entropy(20).expect("entropy");
        assert_ne!(world.entropy(20).expect("entropy"), first);
        assert_eq!(World::new().entropy(20), Some(first.clone()));
        world.seed(7);
        assert_ne!(world.entropy(20).expect("entropy"), first);
        world.set_entropy_failure(true);
        assert_eq!(world.entropy(20), None);
    }

    #[test]
    #[should_panic(expected = "there is no hostcall")]
    fn a_misspelt_hostcall_is_noticed() {
        World::new().fail("proxy_get_shared_date", Status::NotFound);
    }
}
