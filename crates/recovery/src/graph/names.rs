use super::join::Seeded;
use hashbrown::HashTable;
use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::{Arc, OnceLock};

/// Names by number and numbers by name.
#[derive(Clone, Debug)]
pub(super) struct Names {
    seed: Seeded,
    numbers: HashTable<u32>,
    names: Vec<Arc<str>>,
    /// In the order of their bytes, so that it need not be sorted for every snapshot.
    ordered: BTreeMap<Arc<str>, u32>,
    order: OnceLock<Arc<Order>>,
}

/// The names in the order of their bytes. Numbers are in the order in which they came, ranks in this one.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    pub(super) names: Vec<Arc<str>>,
    /// Number by rank.
    pub(super) number: Vec<u32>,
    /// Rank by number.
    pub(super) rank: Vec<u32>,
}

impl Names {
    pub(super) fn new(seed: Seeded) -> Names {
        let order = OnceLock::new();
        Names { seed, numbers: HashTable::new(), names: Vec::new(), ordered: BTreeMap::new(), order }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("", |name| name)
    }

    pub(super) fn number(&self, name: &str) -> Option<u32> {
        let is = |number: &u32| self.name(*number) == name;
        self.numbers.find(hash(self.seed, name), is).copied()
    }

    /// Adds a name that is not there yet; answers its number.
    pub(super) fn add(&mut self, name: &str) -> u32 {
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        let (names, seed) = (&self.names, self.seed);
        let again = |number: &u32| names.get(*number as usize).map_or(0, |name| hash(seed, name));
        self.numbers.insert_unique(hash(seed, &name), number, again);
        self.ordered.insert(name, number);
        self.order = OnceLock::new();
        number
    }

    pub(super) fn order(&self) -> Arc<Order> {
        let made = self.order.get_or_init(|| {
            let number: Vec<u32> = self.ordered.values().copied().collect();
            let names = self.ordered.keys().cloned().collect();
            let mut rank = vec![0; number.len()];
            for (number, place) in number.iter().zip(0_u32..) {
                rank.get_mut(*number as usize).into_iter().for_each(|rank| *rank = place);
            }
            Arc::new(Order { names, number, rank })
        });
        Arc::clone(made)
    }
}

impl Order {
    /// Names that are sorted and distinct already; number and rank are the same.
    pub(super) fn of(names: Vec<Arc<str>>) -> Order {
        let number: Vec<u32> = (0_u32..).zip(&names).map(|(number, _)| number).collect();
        Order { names, rank: number.clone(), number }
    }

    pub(super) fn find(&self, name: &str) -> Option<u32> {
        let at = self.names.binary_search_by(|known| known.as_ref().cmp(name)).ok()?;
        u32::try_from(at).ok()
    }

    pub(super) fn name(&self, rank: u32) -> &str {
        self.names.get(rank as usize).map_or("", |name| name)
    }

    pub(super) fn rank_of(&self, number: u32) -> u32 {
        self.rank.get(number as usize).copied().unwrap_or(u32::MAX)
    }

    pub(super) fn number_of(&self, rank: u32) -> u32 {
        self.number.get(rank as usize).copied().unwrap_or(u32::MAX)
    }
}

fn hash(seed: Seeded, name: &str) -> u64 {
    seed.hash_one(name)
}
