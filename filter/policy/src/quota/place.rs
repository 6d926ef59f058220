//! One place of a quota's table: the states of some keys, in one shared value.
//!
//! A table has a fixed number of places, and a key belongs to one of them. A place has so much room
//! and no more; keys that used little take little of it. Nobody is ever put out to let somebody
//! else in: only states that restrict no longer make room.

use super::algorithm::Algorithm;
use super::key::Fingerprint;

/// Format, algorithm, number of places of the table, last time the place was crowded.
const HEADER: usize = 1 + 1 + 4 + 8;
const FORMAT: u8 = 1;
/// A key before its words: fingerprint and number of words.
const KEY: usize = 16 + 1;
const WORD: usize = 8;

/// The bytes that a state of so many words takes.
pub(crate) const fn size(words: usize) -> usize {
    KEY + WORD * words
}

/// What a place must know of its table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// How many places the table has.
    pub(crate) places: u32,
    /// How many bytes a place may have for states.
    pub(crate) bytes: usize,
}

/// One place.
#[derive(Debug)]
pub(crate) struct Place {
    bytes: Vec<u8>,
    room: Room,
    algorithm: Algorithm,
    /// The value could not be read, or is of another table.
    reset: bool,
}

impl Place {
    /// Reads a place. What is not of this format, algorithm and number of places is forgotten.
    pub(crate) fn read(value: Option<Vec<u8>>, room: Room, algorithm: Algorithm) -> Self {
        let mut new = vec![FORMAT, algorithm.kind()];
        new.extend_from_slice(&room.places.to_le_bytes());
        let readable =
            |value: &Vec<u8>| value.starts_with(&new) && value.get(HEADER..).is_some_and(is_whole);
        let (bytes, reset) = match value {
            Some(value) if readable(&value) => (value, false),
            other => {
                new.extend_from_slice(&0u64.to_le_bytes());
                (new, other.is_some())
            }
        };
        Self {
            bytes,
            room,
            algorithm,
            reset,
        }
    }

    /// Whether what was there could not be used.
    pub(crate) fn reset(&self) -> bool {
        self.reset
    }

    /// The value to store.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The state of a key, if it is here.
    pub(crate) fn state(&self, key: &Fingerprint) -> Option<Vec<u64>> {
        let (_, words) = self.entries().find(|(other, _)| *other == key)?;
        Some(words_of(words))
    }

    /// Whether some key may have found no room here within the last `period`.
    pub(crate) fn was_crowded(&self, now: u64, period: u64) -> bool {
        self.is_full()
            || self
                .crowded()
                .is_some_and(|at| at.saturating_add(period) > now)
    }

    /// Whether there is room for another key, once states that restrict no longer are gone.
    pub(crate) fn has_room(&self, now: u64) -> bool {
        let in_use = self
            .entries()
            .filter(|(_, words)| self.algorithm.restricts(&words_of(words), now))
            .map(|(_, words)| KEY + words.len())
            .sum::<usize>();
        in_use + size(1) <= self.room.bytes
    }

    /// Keeps the state of a key; an empty one needs no keeping. Where room is short, it is
    /// coarsened.
    pub(crate) fn put(&mut self, key: &Fingerprint, mut state: Vec<u64>, now: u64) {
        let full = self.is_full();
        let old = self.remove(key);
        if old.is_none() {
            self.drop_idle(now);
        }
        let crowded = full || !self.fits(state.len());
        if crowded {
            self.drop_idle(now);
            self.set_crowded(now);
        }
        if state.is_empty() {
            return;
        }
        // A key that is here already stays, whatever happens around it.
        while state.len() > 1 && !self.fits(state.len()) && Some(state.len()) > old {
            Algorithm::coarsen(&mut state);
        }
        self.bytes.extend_from_slice(key);
        self.bytes.push(state.len().try_into().unwrap_or(u8::MAX));
        for word in state {
            self.bytes.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn entries(&self) -> Entries<'_> {
        Entries(self.bytes.get(HEADER..).unwrap_or_default())
    }

    fn used(&self) -> usize {
        self.bytes.len().saturating_sub(HEADER)
    }

    fn fits(&self, words: usize) -> bool {
        self.used() + size(words) <= self.room.bytes
    }

    fn is_full(&self) -> bool {
        !self.fits(1)
    }

    /// Removes a key; how many words its state had.
    fn remove(&mut self, key: &Fingerprint) -> Option<usize> {
        let mut at = HEADER;
        for (other, words) in self.entries() {
            let end = at + KEY + words.len();
            if other == key {
                let count = words.len() / WORD;
                self.bytes.drain(at..end);
                return Some(count);
            }
            at = end;
        }
        None
    }

    /// Forgets states that restrict no longer.
    fn drop_idle(&mut self, now: u64) {
        let restricts = |words: &[u8]| self.algorithm.restricts(&words_of(words), now);
        if self.entries().all(|(_, words)| restricts(words)) {
            return;
        }
        let mut kept = self.bytes.get(..HEADER).unwrap_or_default().to_vec();
        for (key, words) in self.entries().filter(|(_, words)| restricts(words)) {
            kept.extend_from_slice(key);
            kept.push((words.len() / WORD).try_into().unwrap_or(u8::MAX));
            kept.extend_from_slice(words);
        }
        self.bytes = kept;
    }

    /// When the place was last crowded, if it ever was.
    fn crowded(&self) -> Option<u64> {
        let bytes = self.bytes.get(HEADER - 8..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes)).filter(|at| *at > 0)
    }

    fn set_crowded(&mut self, now: u64) {
        if let Some(bytes) = self.bytes.get_mut(HEADER - 8..HEADER) {
            bytes.copy_from_slice(&now.to_le_bytes());
        }
    }
}

/// Keys and the bytes of their words.
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a Fingerprint, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = self.0.split_first_chunk()?;
        let (count, rest) = rest.split_first()?;
        let (words, rest) = rest.split_at_checked(usize::from(*count) * WORD)?;
        self.0 = rest;
        Some((key, words))
    }
}

/// Whether bytes are keys and states, to the last one.
fn is_whole(bytes: &[u8]) -> bool {
    let mut entries = Entries(bytes);
    entries.by_ref().for_each(drop);
    entries.0.is_empty()
}

fn words_of(bytes: &[u8]) -> Vec<u64> {
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}
