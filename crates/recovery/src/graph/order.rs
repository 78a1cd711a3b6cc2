use super::index::Index;
use super::snapshot::Snapshot;

/// The start order of every service, as if all of them restarted: blocks that need each other, in waves.
#[derive(Clone, Debug)]
pub struct StartOrder<'a> {
    snapshot: &'a Snapshot,
    /// (wave, block, rank), ascending.
    placed: Vec<(u32, u32, u32)>,
}

impl StartOrder<'_> {
    /// How many waves there are.
    #[must_use]
    pub fn waves(&self) -> u32 {
        self.placed.last().map_or(0, |(wave, _, _)| wave + 1)
    }

    /// Members of the largest block.
    #[must_use]
    pub fn largest_block(&self) -> usize {
        self.placed.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).map(<[_]>::len).max().unwrap_or(0)
    }

    /// Wave, block and name of every service, wave by wave. A block is named by the first of its names: its rank.
    pub fn services(&self) -> impl Iterator<Item = (u32, u32, &str)> {
        self.placed.iter().map(|(wave, block, rank)| (*wave, *block, self.snapshot.0.order.name(*rank)))
    }
}

impl Snapshot {
    /// The order in which every service of the graph starts: callees before callers over hard and unknown calls; a
    /// block's wave is the longest path below it. Linear in services and edges.
    #[must_use]
    pub fn start_order(&self) -> StartOrder<'_> {
        let mut walk = Walk::new(&self.0);
        for rank in self.0.ranks() {
            walk.from(rank);
        }
        let mut placed: Vec<(u32, u32, u32)> = self.0.ranks().filter_map(|rank| walk.place(rank)).collect();
        placed.sort_unstable();
        StartOrder { snapshot: self, placed }
    }
}

/// Not visited.
const NEW: u32 = u32::MAX;

/// Tarjan's components over hard calls, with the wave of each as it is completed: everything below it is done then.
struct Walk<'a> {
    index: &'a Index,
    /// By rank: when it was met, and the earliest that it reaches; [`NEW`] before.
    met: Vec<u32>,
    low: Vec<u32>,
    /// By rank: wave and block, once its component is complete.
    wave: Vec<u32>,
    block: Vec<u32>,
    clock: u32,
    /// Met and in no complete component.
    open: Vec<u32>,
    /// The path that is walked: a rank and how many of its calls were followed.
    path: Vec<(u32, u32)>,
}

impl<'a> Walk<'a> {
    fn new(index: &'a Index) -> Walk<'a> {
        let count = index.order.names.len();
        let fresh = || vec![NEW; count];
        let (met, low, wave, block) = (fresh(), fresh(), fresh(), fresh());
        Walk { index, met, low, wave, block, clock: 0, open: Vec::new(), path: Vec::new() }
    }

    fn from(&mut self, rank: u32) {
        if at(&self.met, rank) != NEW {
            return;
        }
        self.enter(rank);
        while let Some((rank, followed)) = self.path.pop() {
            let next = self.index.nth_call(rank, followed);
            let Some(call) = next else {
                self.leave(rank);
                continue;
            };
            self.path.push((rank, followed + 1));
            if !call.is_hard {
                continue;
            }
            let callee = call.callee;
            if at(&self.met, callee) == NEW {
                self.enter(callee);
            } else if at(&self.block, callee) == NEW {
                let low = at(&self.low, rank).min(at(&self.met, callee));
                set(&mut self.low, rank, low);
            }
        }
    }

    fn enter(&mut self, rank: u32) {
        set(&mut self.met, rank, self.clock);
        set(&mut self.low, rank, self.clock);
        self.clock += 1;
        self.open.push(rank);
        self.path.push((rank, 0));
    }

    fn leave(&mut self, rank: u32) {
        let low = at(&self.low, rank);
        if let Some((above, _)) = self.path.last() {
            let least = at(&self.low, *above).min(low);
            set(&mut self.low, *above, least);
        }
        if low != at(&self.met, rank) {
            return;
        }
        let from = self.open.iter().rposition(|open| *open == rank).unwrap_or(0);
        let members = self.open.split_off(from);
        let block = members.iter().copied().min().unwrap_or(rank);
        members.iter().for_each(|member| set(&mut self.block, *member, block));
        let mut wave = 0;
        for (_, call) in members.iter().flat_map(|member| self.index.calls_of(*member)) {
            if call.is_hard && at(&self.block, call.callee) != block {
                wave = wave.max(at(&self.wave, call.callee) + 1);
            }
        }
        members.iter().for_each(|member| set(&mut self.wave, *member, wave));
    }

    fn place(&self, rank: u32) -> Option<(u32, u32, u32)> {
        let (wave, block) = (at(&self.wave, rank), at(&self.block, rank));
        (wave != NEW).then_some((wave, block, rank))
    }
}

fn at(values: &[u32], rank: u32) -> u32 {
    values.get(rank as usize).copied().unwrap_or(NEW)
}

fn set(values: &mut [u32], rank: u32, value: u32) {
    if let Some(place) = values.get_mut(rank as usize) {
        *place = value;
    }
}
