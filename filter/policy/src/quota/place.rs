//! One place of a quota's table: the states of some keys, in one shared value.
//!
//! A table has a fixed number of places, and a key belongs to one of them. A place has so much room
//! and no more; keys that used little take little of it. Nobody is ever put out to let somebody
//! else in: only states that restrict no longer make room.

use super::algorithm::Algorithm;
use super::key::Fingerprint;

/// Format, and the last time the place was crowded.
const HEADER: usize = 1 + 8;
const FORMAT: u8 = 1;
/// A key before its words: fingerprint and number of words.
const KEY: usize = 16 + 1;
const WORD: usize = 8;

/// The bytes of a place with so many keys, each with so many words.
pub(crate) const fn size(keys: usize, words: usize) -> usize {
    HEADER + keys * (KEY + words * WORD)
}

/// One place.
#[derive(Debug)]
pub(crate) struct Place {
    bytes: Vec<u8>,
    algorithm: Algorithm,
    room: usize,
    /// There was a value, and it could not be read.
    reset: bool,
}

impl Place {
    /// Reads a place of at most `room` bytes. What is not of our format is forgotten.
    pub(crate) fn read(value: Option<Vec<u8>>, algorithm: Algorithm, room: usize) -> Self {
        let readable = |value: &Vec<u8>| {
            value.first() == Some(&FORMAT) && value.get(HEADER..).is_some_and(is_whole)
        };
        // Shared data cannot be deleted: an empty value is one that was cleared.
        let (bytes, reset) = match value.filter(|value| !value.is_empty()) {
            Some(value) if readable(&value) => (value, false),
            other => {
                let mut new = vec![0; HEADER];
                new.splice(..1, [FORMAT]);
                (new, other.is_some())
            }
        };
        Self {
            bytes,
            algorithm,
            room,
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
        let (words, _) = words.as_chunks();
        Some(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    /// Whether some key may have found no room here within the last `period`.
    pub(crate) fn was_crowded(&self, now: u64, period: u64) -> bool {
        let at = self.crowded();
        !self.fits(1) || (at > 0 && at.saturating_add(period) > now)
    }

    /// Forgets states that restrict no longer; whether there is room for another key then.
    pub(crate) fn make_room(&mut self, now: u64) -> bool {
        if !self.fits(1) {
            self.set_crowded(now);
        }
        let algorithm = self.algorithm;
        let restricts = |words: &[u8]| algorithm.restricts(newest(words), now);
        if !self.entries().all(|(_, words)| restricts(words)) {
            let mut kept = self.bytes.get(..HEADER).unwrap_or_default().to_vec();
            for (key, words) in self.entries().filter(|(_, words)| restricts(words)) {
                kept.extend_from_slice(key);
                kept.push((words.len() / WORD).try_into().unwrap_or(u8::MAX));
                kept.extend_from_slice(words);
            }
            self.bytes = kept;
        }
        self.fits(1)
    }

    /// When the first of the states here will restrict no longer.
    pub(crate) fn next_room(&self) -> Option<u64> {
        let ends = self
            .entries()
            .map(|(_, words)| self.algorithm.restricts_until(newest(words)));
        ends.min()
    }

    /// Keeps the state of a key; an empty one needs no keeping. Where room is short, the state is
    /// coarsened, which is told: `false`. A key that is here already stays, whatever happens.
    pub(crate) fn put(&mut self, key: &Fingerprint, mut state: Vec<u64>, now: u64) -> bool {
        let full = !self.fits(1);
        let least = self.remove(key).unwrap_or_default().max(1);
        if full {
            self.set_crowded(now);
        }
        if !self.fits(state.len()) {
            self.set_crowded(now);
            self.make_room(now);
        }
        let words = state.len();
        while state.len() > least && !self.fits(state.len()) {
            Algorithm::coarsen(&mut state);
        }
        if !state.is_empty() {
            self.bytes.extend_from_slice(key);
            self.bytes.push(state.len().try_into().unwrap_or(u8::MAX));
            self.bytes
                .extend(state.iter().flat_map(|word| word.to_le_bytes()));
        }
        state.len() == words
    }

    fn entries(&self) -> Entries<'_> {
        Entries(self.bytes.get(HEADER..).unwrap_or_default())
    }

    /// Whether there is room for another state of so many words.
    fn fits(&self, words: usize) -> bool {
        self.bytes.len() + KEY + words * WORD <= self.room
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

    /// When the place was last crowded; 0 if it never was.
    fn crowded(&self) -> u64 {
        let at = self.bytes.get(HEADER - 8..).and_then(<[u8]>::first_chunk);
        at.map_or(0, |at| u64::from_le_bytes(*at))
    }

    fn set_crowded(&mut self, now: u64) {
        let at = self.crowded().max(now).to_le_bytes();
        if let Some(bytes) = self.bytes.get_mut(HEADER - 8..HEADER) {
            bytes.copy_from_slice(&at);
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

/// The last word of a state.
fn newest(words: &[u8]) -> u64 {
    words
        .last_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word))
}
