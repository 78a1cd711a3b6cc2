use super::table::NONE;
use crate::miss::Trial;
use crate::span::{Kind, PeerKind};
use hashbrown::HashTable;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, DefaultHasher, Hasher as _};

/// LIMIT: spans of one generation of the join.
pub(super) const JOIN_MAX: usize = 734_003;
/// LIMIT: bytes of operation names that one generation of the join keeps for spans that wait.
pub(super) const WAITING_NAMES_BYTES_MAX: usize = 8 << 20;
/// Nodes are kept in blocks, so that growing copies none of them.
const BLOCK: usize = 4_096;

/// Trace and span.
pub(super) type Key = (u128, u64);

/// A hasher whose seed is an argument.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seeded(pub(super) u64);

impl BuildHasher for Seeded {
    type Hasher = DefaultHasher;
    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// Where a node is: its generation, and its place there. It leads nowhere when the generation is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ref(u32);

/// No node.
pub(super) const NOWHERE: Ref = Ref(u32::MAX);
const PLACE_BITS: u32 = 20;
const GENERATIONS: u32 = 1 << (32 - PLACE_BITS);

/// Where a span stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its parent has not come; `operation` is its own if it enters its service whatever its parent is, else the
    /// number of its name.
    Waiting,
    /// Known; `operation` is that of the execution it belongs to.
    Resolved,
}

/// A span in the join table.
#[derive(Clone, Debug)]
pub(super) struct Node {
    trace: [u64; 2],
    id: u64,
    pub(super) start_us: u64,
    pub(super) end_us: u64,
    pub(super) service: u32,
    pub(super) operation: u32,
    /// Of an outgoing span: the service it went to; [`NONE`] if it does not say.
    pub(super) peer: u32,
    /// Entry span of its execution.
    pub(super) entry: Ref,
    /// Newest birth number on the path from the root.
    pub(super) newest: u32,
    /// Number of its root; [`NONE`] without.
    pub(super) root: u32,
    /// While it waits: the next that waits for the same parent. Of an entry: the first call of its execution.
    pub(super) next: u32,
    /// Of an entry: what its execution is a trial of.
    pub(super) trial: Trial,
    pub(super) operation_trial: Trial,
    pub(super) kind: Kind,
    pub(super) peer_kind: PeerKind,
    pub(super) state: State,
    pub(super) depth: u16,
    pub(super) flags: Flags,
}

/// What is true of a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags(u16);

impl Flags {
    pub(super) const ERROR: u16 = 1;
    pub(super) const AUTHENTICATED: u16 = 2;
    pub(super) const BY_LINK: u16 = 4;
    /// A child in another service, or one that entered, was found.
    pub(super) const ANSWERED: u16 = 8;
    /// Its failure was charged to its peer's health already.
    pub(super) const BLAMED: u16 = 16;
    /// The call was counted per second when it arrived.
    pub(super) const FLOWED: u16 = 32;
    /// The entry was counted per second when it arrived.
    pub(super) const ENTERED: u16 = 64;
    /// `operation` is an operation, not the number of a name.
    pub(super) const NAMED: u16 = 128;
    /// Everything from the root to here waits for it.
    pub(super) const BLOCKING: u16 = 256;
    /// A parent above it never came.
    pub(super) const LOST: u16 = 512;
    /// It begins an execution.
    pub(super) const EXECUTES: u16 = 1_024;
    /// The execution is a trial.
    pub(super) const TRIED: u16 = 2_048;

    pub(super) fn has(self, flag: u16) -> bool {
        self.0 & flag != 0
    }

    pub(super) fn set(&mut self, flag: u16, to: bool) {
        self.0 = if to { self.0 | flag } else { self.0 & !flag };
    }
}

/// Calls of one execution over one edge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) edge: u32,
    pub(super) any_ok: bool,
    pub(super) next: u32,
}

/// What a trace did to a service so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Touch {
    pub(super) trial: Option<Trial>,
    pub(super) blocking: bool,
}

/// Two generations of everything that waits or may be asked for. Sets of traces are kept as hashes of 64 bits: two
/// of a million are one once in 2^25 windows, and then one trial is not counted.
#[derive(Debug)]
pub(super) struct Join {
    /// Spans of one generation at most; more rotate it early.
    pub(super) spans_max: usize,
    seed: Seeded,
    number: u32,
    pub(super) current: Generation,
    pub(super) older: Generation,
}

/// One generation.
#[derive(Debug, Default)]
pub(super) struct Generation {
    index: HashTable<u32>,
    blocks: Vec<Vec<Node>>,
    len: usize,
    calls: Vec<Call>,
    /// The last of those that wait, by the parent they wait for.
    waiting: HashMap<Key, u32, Seeded>,
    touches: HashTable<(u64, Touch)>,
    /// First calls of (trace, caller span, callee).
    firsts: HashTable<u64>,
    words: HashMap<Box<str>, u32, Seeded>,
    spelled: Vec<Box<str>>,
    spelled_bytes: usize,
}

impl Node {
    pub(super) fn new(key: Key, service: u32, kind: Kind) -> Node {
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
        Node {
            trace: [half(key.0 >> 64), half(key.0)],
            id: key.1,
            start_us: 0,
            end_us: 0,
            service,
            operation: 0,
            peer: NONE,
            entry: NOWHERE,
            newest: 0,
            root: NONE,
            next: NONE,
            trial: Trial::default(),
            operation_trial: Trial::default(),
            kind,
            peer_kind: PeerKind::Service,
            state: State::Waiting,
            depth: 0,
            flags: Flags::default(),
        }
    }

    pub(super) fn key(&self) -> Key {
        (self.trace(), self.id)
    }

    pub(super) fn trace(&self) -> u128 {
        u128::from(self.trace[0]) << 64 | u128::from(self.trace[1])
    }

    pub(super) fn is(&self, flag: u16) -> bool {
        self.flags.has(flag)
    }

    pub(super) fn enters(&self) -> bool {
        matches!(self.kind, Kind::Server | Kind::Consumer)
    }

    pub(super) fn leaves(&self) -> bool {
        matches!(self.kind, Kind::Client | Kind::Producer)
    }

    pub(super) fn is_resolved(&self) -> bool {
        self.state == State::Resolved
    }
}

impl Generation {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (u32, &Node)> {
        (0_u32..).zip(self.blocks.iter().flatten())
    }

    fn node(&self, place: u32) -> Option<&Node> {
        self.blocks.get(place as usize / BLOCK)?.get(place as usize % BLOCK)
    }

    fn node_mut(&mut self, place: u32) -> Option<&mut Node> {
        self.blocks.get_mut(place as usize / BLOCK)?.get_mut(place as usize % BLOCK)
    }

    fn find(&self, hash: u64, key: Key) -> Option<u32> {
        self.index.find(hash, |place| self.node(*place).is_some_and(|node| node.key() == key)).copied()
    }

    fn insert(&mut self, seed: Seeded, hash: u64, node: Node) -> u32 {
        let place = u32::try_from(self.len).unwrap_or(u32::MAX);
        let block = self.len / BLOCK;
        if block == self.blocks.len() {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        self.len += 1;
        if let Some(block) = self.blocks.get_mut(block) {
            block.push(node);
        }
        let blocks = &self.blocks;
        let again = |place: &u32| {
            let node = blocks.get(*place as usize / BLOCK).and_then(|block| block.get(*place as usize % BLOCK));
            node.map_or(0, |node| key_hash(seed, node.key()))
        };
        self.index.insert_unique(hash, place, again);
        place
    }

    fn clear(&mut self) {
        // What is kept serves the next generation, which is about as large.
        self.index.clear();
        self.blocks.truncate(self.len.div_ceil(BLOCK));
        self.blocks.iter_mut().for_each(Vec::clear);
        self.len = 0;
        self.calls.clear();
        self.waiting.clear();
        self.touches.clear();
        self.firsts.clear();
        self.words.clear();
        self.spelled.clear();
        self.spelled_bytes = 0;
    }
}

impl Join {
    pub(super) fn new(seed: u64) -> Join {
        let seed = Seeded(seed);
        let empty = || Generation {
            waiting: HashMap::with_hasher(seed),
            words: HashMap::with_hasher(seed),
            ..Generation::default()
        };
        Join { spans_max: JOIN_MAX, seed, number: 0, current: empty(), older: empty() }
    }

    pub(super) fn hash(&self, key: Key) -> u64 {
        key_hash(self.seed, key)
    }

    pub(super) fn find(&self, hash: u64, key: Key) -> Option<Ref> {
        if let Some(place) = self.current.find(hash, key) {
            return Some(self.current_ref(place));
        }
        self.older.find(hash, key).map(|place| self.older_ref(place))
    }

    pub(super) fn current_ref(&self, place: u32) -> Ref {
        Ref((self.number % GENERATIONS) << PLACE_BITS | place)
    }

    pub(super) fn older_ref(&self, place: u32) -> Ref {
        Ref((self.number.wrapping_sub(1) % GENERATIONS) << PLACE_BITS | place)
    }

    /// The generation of a node, and its place there.
    fn at(&self, at: Ref) -> Option<(bool, u32)> {
        let (generation, place) = (at.0 >> PLACE_BITS, at.0 & ((1 << PLACE_BITS) - 1));
        if generation == self.number % GENERATIONS {
            return Some((true, place));
        }
        (generation == self.number.wrapping_sub(1) % GENERATIONS).then_some((false, place))
    }

    pub(super) fn node(&self, at: Ref) -> Option<&Node> {
        let (current, place) = self.at(at)?;
        if current { self.current.node(place) } else { self.older.node(place) }
    }

    pub(super) fn node_mut(&mut self, at: Ref) -> Option<&mut Node> {
        let (current, place) = self.at(at)?;
        if current { self.current.node_mut(place) } else { self.older.node_mut(place) }
    }

    pub(super) fn insert(&mut self, hash: u64, node: Node) -> Ref {
        let place = self.current.insert(self.seed, hash, node);
        self.current_ref(place)
    }

    /// Lets a node of the current generation wait for its parent.
    pub(super) fn wait(&mut self, parent: Key, node: Ref) {
        let Some((true, place)) = self.at(node) else { return };
        let before = self.current.waiting.insert(parent, place).unwrap_or(NONE);
        self.current.node_mut(place).into_iter().for_each(|node| node.next = before);
    }

    /// What waits in the older generation for a parent that is here and waits itself.
    pub(super) fn hanging(&self) -> BTreeSet<u32> {
        let mut hanging = BTreeSet::new();
        // In any order: a set is what comes out.
        for (parent, last) in &self.older.waiting {
            let mut place = *last;
            while self.find(self.hash(*parent), *parent).is_some()
                && let Some(node) = self.older.node(place)
            {
                hanging.insert(place);
                place = node.next;
            }
        }
        hanging
    }

    pub(super) fn is_awaited(&self, key: Key) -> bool {
        (!self.current.waiting.is_empty() && self.current.waiting.contains_key(&key))
            || (!self.older.waiting.is_empty() && self.older.waiting.contains_key(&key))
    }

    pub(super) fn awaited(&self) -> usize {
        self.current.waiting.len() + self.older.waiting.len()
    }

    /// Those that wait for a span, in the order in which they came; they wait no more.
    pub(super) fn waiters(&mut self, key: Key, into: &mut Vec<Ref>) {
        let (current, older) = (self.current_ref(0).0, self.older_ref(0).0);
        let from = into.len();
        for (generation, base) in [(&mut self.current, current), (&mut self.older, older)] {
            if generation.waiting.is_empty() {
                continue;
            }
            let mut at = generation.waiting.remove(&key).unwrap_or(NONE);
            while let Some(node) = generation.node_mut(at) {
                into.push(Ref(base | at));
                at = std::mem::replace(&mut node.next, NONE);
            }
        }
        into.get_mut(from..).unwrap_or_default().reverse();
    }

    /// The number of a name for a span that waits; beyond the limit names are one, as in an operation that folds.
    pub(super) fn spell(&mut self, name: &str) -> u32 {
        let generation = &mut self.current;
        if let Some(known) = generation.words.get(name) {
            return *known;
        }
        let over = generation.spelled_bytes + name.len() > WAITING_NAMES_BYTES_MAX;
        let name = if over { "*" } else { name };
        if let Some(known) = generation.words.get(name) {
            return *known;
        }
        let number = u32::try_from(generation.spelled.len()).unwrap_or(NONE);
        generation.spelled_bytes += name.len();
        generation.words.insert(name.into(), number);
        generation.spelled.push(name.into());
        number
    }

    pub(super) fn spelled(&self, node: Ref, number: u32) -> &str {
        let name = self.at(node).and_then(|(current, _)| {
            let generation = if current { &self.current } else { &self.older };
            generation.spelled.get(number as usize)
        });
        name.map_or("*", |name| name)
    }

    /// The calls of an execution, newest first.
    pub(super) fn calls(&self, entry: Ref) -> impl Iterator<Item = &Call> {
        let found = self.at(entry).and_then(|(current, place)| {
            let generation = if current { &self.current } else { &self.older };
            let node = generation.node(place).filter(|node| node.is(Flags::EXECUTES))?;
            Some((generation, node.next))
        });
        let mut at = found.map_or(NONE, |(_, first)| first);
        std::iter::from_fn(move || {
            let call = found?.0.calls.get(at as usize)?;
            at = call.next;
            Some(call)
        })
    }

    /// The call of an execution over an edge, if there is one.
    pub(super) fn call_mut(&mut self, entry: Ref, edge: u32) -> Option<&mut Call> {
        let (current, place) = self.at(entry)?;
        let generation = if current { &mut self.current } else { &mut self.older };
        let mut at = generation.node(place).filter(|node| node.is(Flags::EXECUTES))?.next;
        while let Some(call) = generation.calls.get(at as usize) {
            if call.edge == edge {
                return generation.calls.get_mut(at as usize);
            }
            at = call.next;
        }
        None
    }

    pub(super) fn add_call(&mut self, entry: Ref, edge: u32, any_ok: bool) {
        let Some((current, place)) = self.at(entry) else { return };
        let generation = if current { &mut self.current } else { &mut self.older };
        let number = u32::try_from(generation.calls.len()).unwrap_or(NONE);
        let Some(node) = generation.node_mut(place) else { return };
        let next = std::mem::replace(&mut node.next, number);
        generation.calls.push(Call { edge, any_ok, next });
    }

    /// What the trace did to the service so far; begun when it did nothing yet.
    pub(super) fn touch(&mut self, trace: u128, service: u32) -> &mut Touch {
        let hash = self.seed.hash_one((trace, service));
        let is = |known: &(u64, Touch)| known.0 == hash;
        if let Some(known) = self.older.touches.find_mut(hash, is) {
            return &mut known.1;
        }
        let entry = self.current.touches.entry(hash, is, |known| known.0);
        &mut entry.or_insert((hash, Touch::default())).into_mut().1
    }

    /// Whether it is the first call of the span to the callee; remembered.
    pub(super) fn first(&mut self, (trace, span): Key, callee: u32) -> bool {
        let hash = self.seed.hash_one((trace, span, callee));
        let older = self.older.firsts.find(hash, |known| *known == hash).is_some();
        let mut fresh = false;
        let entry = self.current.firsts.entry(hash, |known| *known == hash, |known| *known);
        entry.or_insert_with(|| {
            fresh = true;
            hash
        });
        fresh && !older
    }

    /// Drops the older generation; the current one becomes the older.
    pub(super) fn rotate(&mut self) {
        std::mem::swap(&mut self.current, &mut self.older);
        self.current.clear();
        self.number = self.number.wrapping_add(1);
    }
}

fn key_hash(seed: Seeded, key: Key) -> u64 {
    seed.hash_one(key)
}
