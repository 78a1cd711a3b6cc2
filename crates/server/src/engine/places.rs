//! Where each promise lies in the store, whether memory holds it or not.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::RandomState;

/// Sequence numbers by id. Ids are kept as hashes of 64 bits: memory holds millions of them, and whoever finds a row
/// by its place compares the id. An id whose hash is taken is kept in full.
#[derive(Debug)]
pub(super) struct Places<S = RandomState> {
    hasher: S,
    by_hash: HashMap<u64, u64>,
    collided: HashMap<String, u64>,
}

impl Default for Places {
    fn default() -> Places {
        Places { hasher: RandomState::new(), by_hash: HashMap::new(), collided: HashMap::new() }
    }
}

impl<S: std::hash::BuildHasher> Places<S> {
    /// The place of an id that is known to exist, or the only place where it may lie.
    pub(super) fn get(&self, id: &str) -> Option<u64> {
        let exact = if self.collided.is_empty() { None } else { self.collided.get(id) };
        exact.or_else(|| self.by_hash.get(&self.hasher.hash_one(id))).copied()
    }

    /// Gives a new id its place. The id must have none.
    pub(super) fn add(&mut self, id: &str, seq: u64) {
        let hash = self.hasher.hash_one(id);
        match self.by_hash.entry(hash) {
            Entry::Occupied(_) => {
                self.collided.insert(id.to_owned(), seq);
            }
            Entry::Vacant(free) => {
                free.insert(seq);
            }
        }
    }

    /// Forgets an id and its place.
    pub(super) fn remove(&mut self, id: &str, seq: u64) {
        if self.collided.get(id) == Some(&seq) {
            self.collided.remove(id);
            return;
        }
        let hash = self.hasher.hash_one(id);
        if self.by_hash.get(&hash) == Some(&seq) {
            self.by_hash.remove(&hash);
        }
    }

    /// How many ids have a place.
    pub(super) fn len(&self) -> usize {
        self.by_hash.len() + self.collided.len()
    }

    /// Every place.
    pub(super) fn all(&self) -> impl Iterator<Item = u64> + '_ {
        self.by_hash.values().chain(self.collided.values()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::hash::{BuildHasher, Hasher};

    /// Hashes so badly that ids of the same length collide.
    #[derive(Default)]
    struct Length(u64);

    impl Hasher for Length {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0 += bytes.len() as u64;
        }
    }

    #[derive(Debug)]
    struct ByLength;

    impl BuildHasher for ByLength {
        type Hasher = Length;
        fn build_hasher(&self) -> Length {
            Length::default()
        }
    }

    proptest! {
        #[test]
        fn ids_are_found_although_their_hashes_collide(steps in proptest::collection::vec(("[ab]{1,2}", any::<bool>()), 1..60)) {
            let mut places = Places { hasher: ByLength, by_hash: HashMap::new(), collided: HashMap::new() };
            let mut model: BTreeMap<String, u64> = BTreeMap::new();
            for (seq, (id, adds)) in steps.into_iter().enumerate() {
                match (model.get(&id).copied(), adds) {
                    (None, true) => {
                        places.add(&id, seq as u64);
                        model.insert(id, seq as u64);
                    }
                    (Some(old), false) => {
                        places.remove(&id, old);
                        model.remove(&id);
                    }
                    (Some(_), true) | (None, false) => {}
                }
                prop_assert_eq!(places.len(), model.len());
                for (id, seq) in &model {
                    prop_assert_eq!(places.get(id), Some(*seq), "{}", id);
                }
            }
        }
    }
}
