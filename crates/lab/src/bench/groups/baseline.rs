//! The algorithm of the paper that groups by cycles of calls: everything below the symptom, its strongly connected
//! components, their topological order, a drain where more than twenty call, and a cap of thirty.

/// LIMIT: members of one component that the algorithm restarts together.
pub(super) const COMPONENT_MAX: usize = 30;
/// More callers than this are drained first.
const DRAIN_FAN_IN: u32 = 20;
const NEW: u32 = u32::MAX;

/// The call graph, callees by caller.
pub(super) struct Baseline {
    begins: Vec<u32>,
    callees: Vec<u32>,
    fan_in: Vec<u32>,
}

/// What it answers for one symptom.
pub(super) struct Answer {
    /// Components, callees first.
    pub(super) order: Vec<Vec<u32>>,
    /// Members to drain first.
    pub(super) drained: usize,
    /// What restarts together with the symptom; `None` above the cap.
    pub(super) group: Option<Vec<u32>>,
}

impl Baseline {
    /// The graph of pairs of caller and callee, sorted.
    pub(super) fn new(services: u32, pairs: &[(u32, u32)]) -> Baseline {
        let mut begins = vec![0_u32; services as usize + 1];
        let mut fan_in = vec![0_u32; services as usize];
        for (caller, callee) in pairs {
            begins.get_mut(*caller as usize + 1).into_iter().for_each(|begin| *begin += 1);
            fan_in.get_mut(*callee as usize).into_iter().for_each(|count| *count += 1);
        }
        let mut sum = 0;
        for begin in &mut begins {
            sum += *begin;
            *begin = sum;
        }
        Baseline { begins, callees: pairs.iter().map(|(_, callee)| *callee).collect(), fan_in }
    }

    /// Downstream of the symptom: components in topological order. Tarjan's algorithm completes components callees
    /// first, which is the order in which they start.
    pub(super) fn answer(&self, symptom: u32) -> Answer {
        let mut walk = Walk::new(self);
        walk.run(symptom);
        let group = walk.order.iter().find(|members| members.contains(&symptom)).cloned();
        let fan_in = |member: &&u32| self.fan_in.get(**member as usize).is_some_and(|count| *count > DRAIN_FAN_IN);
        let drained = walk.order.iter().flatten().filter(fan_in).count();
        Answer { group: group.filter(|members| members.len() <= COMPONENT_MAX), drained, order: walk.order }
    }

    fn callee(&self, caller: u32, n: u32) -> Option<u32> {
        let begin = |index: u32| self.begins.get(index as usize).copied().unwrap_or(0);
        let number = begin(caller) + n;
        self.callees.get(number as usize).copied().filter(|_| number < begin(caller + 1))
    }
}

struct Walk<'a> {
    graph: &'a Baseline,
    met: Vec<u32>,
    low: Vec<u32>,
    done: Vec<bool>,
    clock: u32,
    open: Vec<u32>,
    path: Vec<(u32, u32)>,
    order: Vec<Vec<u32>>,
}

impl<'a> Walk<'a> {
    fn new(graph: &'a Baseline) -> Walk<'a> {
        let count = graph.fan_in.len();
        Walk {
            graph,
            met: vec![NEW; count],
            low: vec![NEW; count],
            done: vec![false; count],
            clock: 0,
            open: Vec::new(),
            path: Vec::new(),
            order: Vec::new(),
        }
    }

    fn enter(&mut self, service: u32) {
        self.met[service as usize] = self.clock;
        self.low[service as usize] = self.clock;
        self.clock += 1;
        self.open.push(service);
        self.path.push((service, 0));
    }

    fn run(&mut self, symptom: u32) {
        self.enter(symptom);
        while let Some((service, followed)) = self.path.pop() {
            let Some(callee) = self.graph.callee(service, followed) else {
                self.leave(service);
                continue;
            };
            self.path.push((service, followed + 1));
            if self.met[callee as usize] == NEW {
                self.enter(callee);
            } else if !self.done[callee as usize] {
                self.low[service as usize] = self.low[service as usize].min(self.met[callee as usize]);
            }
        }
    }

    fn leave(&mut self, service: u32) {
        let low = self.low[service as usize];
        if let Some((above, _)) = self.path.last() {
            self.low[*above as usize] = self.low[*above as usize].min(low);
        }
        if low == self.met[service as usize] {
            let from = self.open.iter().rposition(|open| *open == service).unwrap_or(0);
            let members = self.open.split_off(from);
            members.iter().for_each(|member| self.done[*member as usize] = true);
            self.order.push(members);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_come_callees_first_and_large_ones_have_no_group() {
        // 0 → 1 ⇄ 2 → 3, and 4 apart.
        let graph = Baseline::new(5, &[(0, 1), (1, 2), (2, 1), (2, 3)]);
        let answer = graph.answer(0);
        assert_eq!(answer.order.len(), 3);
        assert_eq!((answer.order[0].clone(), answer.order[2].clone()), (vec![3], vec![0]));
        let mut group = graph.answer(2).group.unwrap();
        group.sort_unstable();
        assert_eq!(group, [1, 2]);
        let ring = |length: u32| {
            let pairs: Vec<(u32, u32)> = (0..length).map(|at| (at, (at + 1) % length)).collect();
            Baseline::new(length, &pairs).answer(0).group.map(|group| group.len())
        };
        let most = u32::try_from(COMPONENT_MAX).unwrap();
        assert_eq!((ring(most), ring(most + 1)), (Some(COMPONENT_MAX), None));
    }

    #[test]
    fn what_many_call_is_drained() {
        let called = |callers: u32| {
            let mut pairs: Vec<(u32, u32)> = (1..=callers).map(|caller| (caller, 0)).collect();
            pairs.sort_unstable();
            Baseline::new(callers + 1, &pairs).answer(1).drained
        };
        assert_eq!((called(20), called(21)), (0, 1));
    }
}
