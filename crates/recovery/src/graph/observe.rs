use super::join::{Key, Node, Resolved};
use super::table::{Edge, Execution, Generation, Operation, Service};
use super::{DropReason, Graph, Observed};
use crate::miss::Counter;
use crate::span::{Kind, Peer, PeerKind, Span, bounded_name, operation_name};
use base::{Millis, Timestamp};

/// Instances known of one service at most; further ones are not told apart until older ones are forgotten.
pub(super) const INSTANCES_MAX: usize = 1_024;
/// Generations known of one service at most; older ones are forgotten.
pub(super) const GENERATIONS_MAX: usize = 64;
/// How far ahead of now a span may end.
pub(super) const SKEW_MAX: Millis = Millis(300_000);
/// Tolerance of "the child's interval lies inside the parent's".
const INSIDE_US: u64 = 1_000;

/// How a span's place became known.
#[derive(Clone, Copy, Debug)]
enum Place {
    Root,
    Lost,
    Under(Key),
}

/// One call, as it is counted on an edge.
struct Call {
    callee_error: bool,
    caller_error: bool,
    /// Duration, and whether inside the caller's interval.
    timed: Option<(u64, bool)>,
    is_async: bool,
    end_us: u64,
}

impl Graph {
    /// Takes one span at `now`.
    pub fn observe(&mut self, span: &Span, now: Timestamp) -> Observed {
        let key = (span.trace, span.id);
        if span.trace == 0 || span.id == 0 {
            return self.dropped(DropReason::ZeroId);
        }
        if span.service.is_empty() {
            return self.dropped(DropReason::NoService);
        }
        if self.join.nodes.contains(&key) {
            self.counts.duplicates += 1;
            return Observed::Duplicate;
        }
        let Some(service) = self.service_id(&span.service) else { return self.dropped(DropReason::TooManyServices) };
        if self.join.nodes.current.len() >= self.join.spans_max {
            self.rotate(now);
        }
        self.counts.observed += 1;
        let node = self.node(span, service, now);
        self.seen(span, service, node.end_us, now);
        let parent = node.parent;
        self.join.nodes.current.insert(key, node);
        self.count_early(key, parent);
        match parent {
            None => self.resolve(key, Place::Root, now),
            Some(parent) if self.join.nodes.get(&parent).is_some_and(|node| node.resolved.is_some()) => {
                self.resolve(key, Place::Under(parent), now)
            }
            Some(parent) => {
                self.join.waiting.entry(parent).or_default().push(key);
                Observed::Waiting
            }
        }
    }

    /// Drops the older generation of the join: what still waits there has lost its parent, what still has no
    /// answer is unanswered. The shell calls it once per join window, and when it is told that time is up.
    pub fn rotate(&mut self, now: Timestamp) {
        let mut keys: Vec<Key> = self.join.nodes.older.keys().copied().collect();
        keys.sort_unstable();
        for key in &keys {
            if self.join.nodes.get(key).is_some_and(|node| node.resolved.is_none()) {
                self.counts.lost_parents += 1;
                self.resolve(*key, Place::Lost, now);
            }
        }
        for key in &keys {
            self.unanswered(*key, now);
        }
        self.join.nodes.rotate();
        self.join.forget_waiters();
        self.join.touches.rotate();
        self.join.firsts.rotate();
        self.mature();
        self.forget_roots(now);
    }

    fn dropped(&mut self, reason: DropReason) -> Observed {
        self.counts.dropped += 1;
        Observed::Dropped(reason)
    }

    fn node(&mut self, span: &Span, service: u32, now: Timestamp) -> Node {
        let latest = u64::try_from(now.plus(SKEW_MAX).0).unwrap_or(0).saturating_mul(1_000);
        let (mut start_us, mut end_us) = (span.start_us, span.end_us());
        if end_us > latest {
            self.counts.skewed += 1;
            let now_us = u64::try_from(now.0).unwrap_or(0).saturating_mul(1_000);
            (start_us, end_us) = (now_us.saturating_sub(span.duration_us), now_us);
        }
        let linked = span.links.first().filter(|_| span.parent.is_none()).map(|link| (link.trace, link.id));
        Node {
            service,
            operation_name: operation_name(&span.name),
            kind: span.kind,
            start_us,
            end_us,
            error: span.is_error(),
            authenticated: span.authenticated,
            by_link: linked.is_some(),
            parent: span.parent.map(|parent| (span.trace, parent)).or(linked),
            peer: span.peer.clone(),
            answered: false,
            blamed: false,
            flowed: false,
            entered: false,
            resolved: None,
            execution: None,
        }
    }

    /// Notes what a span says of its service, whatever its place.
    fn seen(&mut self, span: &Span, service: u32, end_us: u64, now: Timestamp) {
        let end = Timestamp(i64::try_from(end_us / 1_000).unwrap_or(i64::MAX));
        self.newest = Some(self.newest.map_or(end, |newest| newest.max(end)));
        self.began = Some(self.began.map_or(end, |began| began.min(end)));
        self.joined_since.get_or_insert(now);
        let epoch = self.epoch + 1;
        let window = self.config.coverage_window;
        let Some(known) = self.services.get_mut(service as usize) else { return };
        let mut changed = !known.has_spans;
        known.has_spans = true;
        if let Some(instance) = &span.instance {
            let instance = bounded_name(instance);
            if known.instances.len() >= INSTANCES_MAX && !known.instances.contains_key(&instance) {
                known.instances.retain(|_, last| now.since(*last) <= window);
            }
            if known.instances.len() < INSTANCES_MAX || known.instances.contains_key(&instance) {
                known.instances.insert(instance, now);
            }
        }
        let generation = span.generation.as_deref().map(bounded_name).unwrap_or_default();
        if span.authenticated && !known.generations.iter().any(|old| old.name == generation) {
            changed = true;
            // Trials are drawn anew: what the old generation never did, the new one may.
            known.inward.reset();
            known.outward.reset();
            let operations: Vec<u32> = known.operations.values().copied().collect();
            known.generations.push(Generation { name: generation, since: now, matured: false });
            let surplus = known.generations.len().saturating_sub(GENERATIONS_MAX);
            known.generations.drain(..surplus);
            for operation in operations {
                self.operations.get_mut(operation as usize).into_iter().for_each(|found| found.outward.reset());
            }
        }
        if changed {
            self.epoch = epoch;
            self.services.get_mut(service as usize).into_iter().for_each(|found| found.changed = epoch);
        }
    }

    /// Counts what is known at arrival, so that health does not wait for the join.
    fn count_early(&mut self, key: Key, parent: Option<Key>) {
        let Some(node) = self.join.nodes.get(&key) else { return };
        let (service, kind, end_us, error) = (node.service, node.kind, node.end_us, node.error);
        let duration_us = node.end_us - node.start_us;
        let peer = node
            .peer
            .as_ref()
            .filter(|peer| peer.kind == PeerKind::Service)
            .and_then(|peer| self.index.get(&peer.name).copied());
        let root = parent.is_none();
        if root || matches!(kind, Kind::Server | Kind::Consumer) {
            // A failed call that was charged to this service already is not counted twice.
            let blamed = parent.and_then(|parent| self.join.nodes.get(&parent)).is_some_and(|parent| parent.blamed);
            if !blamed {
                self.count_entry(service, end_us, error, Some(duration_us));
            }
            self.join.nodes.get_mut(&key).into_iter().for_each(|node| node.entered = true);
        }
        if root {
            self.count_root(service, end_us, error);
        }
        if let (Kind::Client, Some(callee), Some((trace, span))) = (kind, peer, parent.or(Some(key))) {
            let first = self.join.firsts.current.get(&(trace, span, callee)).or(self
                .join
                .firsts
                .older
                .get(&(trace, span, callee)));
            let first = first.is_none();
            self.join.firsts.current.insert((trace, span, callee), ());
            self.count_call(service, callee, end_us, error, first);
            // A failed call counts against its callee at once; if the callee's own span still comes, it is not
            // counted a second time.
            let blamed = error && !self.join.waiting.contains_key(&key);
            if blamed {
                self.count_entry(callee, end_us, true, None);
            }
            if let Some(node) = self.join.nodes.get_mut(&key) {
                (node.flowed, node.blamed) = (true, blamed);
            }
        }
    }

    fn count_entry(&mut self, service: u32, end_us: u64, error: bool, duration_us: Option<u64>) {
        let keep = self.config.history();
        let Some(found) = self.services.get_mut(service as usize) else { return };
        let objective = found.declared.as_ref().and_then(|declared| declared.objective_p99);
        let slow = objective.zip(duration_us).is_some_and(|(limit, duration)| duration > limit.0.saturating_mul(1_000));
        found.history.count(end_us, error, slow, duration_us, keep);
    }

    fn count_root(&mut self, service: u32, end_us: u64, error: bool) {
        let (keep, half_life) = (self.config.history(), self.config.half_life);
        let Some(found) = self.services.get_mut(service as usize) else { return };
        found.root_history.count(end_us, error, false, None, keep);
        found.roots.count(millis(end_us), half_life);
    }

    fn count_call(&mut self, caller: u32, callee: u32, end_us: u64, error: bool, first: bool) {
        if caller != callee {
            let keep = self.config.history();
            self.flows.entry((caller, callee)).or_default().history.count(end_us, error, first, None, keep);
        }
    }

    /// Resolves a span and everything that waited for it.
    fn resolve(&mut self, key: Key, place: Place, now: Timestamp) -> Observed {
        let mut open = vec![(key, place)];
        while let Some((key, place)) = open.pop() {
            if self.join.nodes.get(&key).is_none_or(|node| node.resolved.is_some()) {
                continue;
            }
            self.resolve_one(key, place, now);
            let waiters = self.join.waiting.remove(&key).unwrap_or_default();
            open.extend(waiters.into_iter().map(|waiter| (waiter, Place::Under(key))));
        }
        Observed::Joined
    }

    fn resolve_one(&mut self, key: Key, place: Place, now: Timestamp) {
        let Some(node) = self.join.nodes.get(&key) else { return };
        let (service, by_link) = (node.service, node.by_link);
        let under = match place {
            Place::Under(parent) => {
                self.join.nodes.get(&parent).and_then(|node| Some((parent, node.service, node.resolved?)))
            }
            Place::Root | Place::Lost => None,
        };
        let lost = Resolved { owner: 0, entry: key, newest: 0, root: None, blocking: false, lost: true, depth: 0 };
        let owner = match under {
            Some((_, parent_service, above)) if !self.enters(key, parent_service, by_link) => {
                return self.place(key, Resolved { depth: above.depth + 1, ..above }, false, false, now);
            }
            _ => self.own_operation(key),
        };
        let (resolved, broken) = match (under, place) {
            (Some((parent, parent_service, above)), _) if above.depth < self.config.depth_max => {
                let mut resolved = Resolved { owner, entry: key, depth: above.depth + 1, ..above };
                if parent_service != service || by_link {
                    let (birth, is_async) = self.joined(parent, key, owner, now);
                    resolved.newest = above.newest.max(birth);
                    resolved.blocking = above.blocking && !is_async;
                }
                (resolved, false)
            }
            (None, Place::Root) => {
                self.roots.entry(owner).or_default().traces += 1;
                (Resolved { owner, root: Some(owner), blocking: true, lost: false, ..lost }, false)
            }
            // Too deep, or without its parent: the caller is unknown, never a root.
            _ => (Resolved { owner, ..lost }, true),
        };
        self.place(key, resolved, true, broken, now);
    }

    /// An outgoing span with a peer makes its edge at once: what is known is known before its calls are
    /// counted, when nobody answered in time.
    fn expect(&mut self, key: Key, owner: u32) {
        let Some(peer) = self.join.nodes.get(&key).and_then(|node| node.peer.clone()) else { return };
        if let Some(callee) = self.opaque(&peer) {
            self.edge_id(owner, callee);
        }
    }

    fn enters(&self, key: Key, parent_service: u32, by_link: bool) -> bool {
        self.join.nodes.get(&key).is_some_and(|node| {
            by_link || node.service != parent_service || matches!(node.kind, Kind::Server | Kind::Consumer)
        })
    }

    /// Writes the place down and counts what depends on it.
    fn place(&mut self, key: Key, resolved: Resolved, entry: bool, broken: bool, now: Timestamp) {
        let Some(node) = self.join.nodes.get_mut(&key) else { return };
        node.resolved = Some(resolved);
        let (service, authenticated, entered) = (node.service, node.authenticated, node.entered);
        let (end_us, duration_us, error) = (node.end_us, node.end_us - node.start_us, node.error);
        let leaves = matches!(node.kind, Kind::Client | Kind::Producer);
        let window = self.config.coverage_window;
        if let Some(found) = self.services.get_mut(service as usize) {
            found.coverage.count(now, window, u64::from(entry) + u64::from(leaves), u64::from(broken));
        }
        if leaves {
            self.expect(key, resolved.owner);
        }
        if entry {
            if !entered {
                self.count_entry(service, end_us, error, Some(duration_us));
            }
            self.begin(key, &resolved, authenticated, now);
            self.touch(key.0, service, &resolved, authenticated, now);
        }
    }

    /// Begins an execution: its trials, and the service's entry counts.
    fn begin(&mut self, key: Key, resolved: &Resolved, authenticated: bool, now: Timestamp) {
        let (births, half_life) = (self.births, self.config.half_life);
        let Some(node) = self.join.nodes.get_mut(&key) else { return };
        let mut execution = Execution::default();
        if let Some(found) = self.services.get_mut(node.service as usize) {
            found.entries.count(millis(node.end_us), half_life);
            found.entry_count += 1;
            found.duration_us += u128::from(node.end_us - node.start_us);
            execution.service = authenticated.then(|| found.outward.trial(births, now));
        }
        if let Some(operation) = self.operations.get_mut(resolved.owner as usize) {
            execution.operation = authenticated.then(|| operation.outward.trial(births, now));
        }
        node.execution = Some(Box::new(execution));
    }

    /// Counts a trace's way into a service: one trial, and one visit on a blocking path.
    fn touch(&mut self, trace: u128, service: u32, resolved: &Resolved, authenticated: bool, now: Timestamp) {
        let births = self.births;
        let Some(found) = self.services.get_mut(service as usize) else { return };
        if !self.join.touches.contains(&(trace, service)) {
            self.join.touches.current.insert((trace, service), super::join::Touch::default());
        }
        let Some(touch) = self.join.touches.get_mut(&(trace, service)) else { return };
        if authenticated && touch.trial.is_none() {
            touch.trial = Some(found.inward.trial(births, now));
        }
        if let Some(trial) = &mut touch.trial {
            found.inward.used(trial, resolved.newest, now);
            if resolved.lost {
                found.inward.surprise(trial, now);
            }
        }
        if let (Some(root), true, false) = (resolved.root, resolved.blocking, touch.blocking) {
            touch.blocking = true;
            *self.roots.entry(root).or_default().visits.entry(service).or_insert(0) += 1;
        }
    }

    /// Counts the call between a resolved parent and its child in another service; answers the newest birth
    /// number on it and whether nobody waits for it.
    fn joined(&mut self, parent: Key, child: Key, callee: u32, now: Timestamp) -> (u64, bool) {
        let (Some(above), Some(below)) = (self.join.nodes.get(&parent), self.join.nodes.get(&child)) else {
            return (0, false);
        };
        let Some(resolved) = above.resolved else { return (0, false) };
        let is_async = below.by_link || below.kind == Kind::Consumer || above.kind == Kind::Producer;
        // A child whose clock runs ahead of its parent's start is shifted, not judged.
        let shift = above.start_us.saturating_sub(below.start_us);
        let inside = below.end_us.saturating_add(shift) <= above.end_us.saturating_add(INSIDE_US);
        let call = Call {
            callee_error: below.error || (above.kind == Kind::Client && above.error),
            caller_error: self.join.nodes.get(&resolved.entry).map_or(above.error, |entry| entry.error),
            timed: Some((below.end_us - below.start_us, inside)),
            is_async,
            end_us: below.end_us,
        };
        let expected = above.peer.as_ref().and_then(|peer| self.index.get(&peer.name)).and_then(|peer| {
            let anything = self.services.get(*peer as usize)?.operations.get("*")?;
            self.edge_index.get(&(resolved.owner, *anything)).copied()
        });
        let queue = above.peer.clone().filter(|peer| peer.kind == PeerKind::Queue);
        let (flowed, caller_service, callee_service) = (above.flowed, above.service, below.service);
        let first = !flowed && self.first_call(resolved.entry, callee);
        if let Some(node) = self.join.nodes.get_mut(&parent) {
            node.answered = true;
        }
        if let Some(edge) = expected.and_then(|id| self.edges.get_mut(&id)) {
            edge.answered += 1;
        }
        if !flowed && queue.is_none() {
            self.count_call(caller_service, callee_service, call.end_us, call.callee_error, first);
        }
        let Some(queue) = queue.and_then(|peer| self.opaque(&peer)) else {
            return (self.bump(resolved.owner, callee, resolved.entry, &call, now), is_async);
        };
        let handed = self.bump(resolved.owner, queue, resolved.entry, &Call { timed: None, ..call }, now);
        let taken = self.bump(queue, callee, (0, 0), &call, now);
        (handed.max(taken), true)
    }

    fn first_call(&self, entry: Key, callee: u32) -> bool {
        let execution = self.join.nodes.get(&entry).and_then(|node| node.execution.as_ref());
        let edge = |edge: u32| self.edges.get(&edge).is_some_and(|edge| edge.callee == callee);
        !execution.is_some_and(|execution| execution.calls.iter().any(|call| edge(call.0)))
    }

    /// Counts one call on the edge between two operations; answers its birth number.
    fn bump(&mut self, caller: u32, callee: u32, execution: Key, call: &Call, now: Timestamp) -> u64 {
        let id = self.edge_id(caller, callee);
        let half_life = self.config.half_life;
        let Some(edge) = self.edges.get_mut(&id) else { return 0 };
        edge.calls += 1;
        edge.is_async |= call.is_async;
        if let Some((duration, inside)) = call.timed {
            edge.timed += 1;
            edge.inside += u64::from(inside);
            edge.duration_us += u128::from(duration);
        }
        let at = millis(call.end_us).min(now.plus(SKEW_MAX));
        edge.rate.count(at, half_life);
        edge.first_seen = Some(edge.first_seen.map_or(at, |first| first.min(at)));
        edge.last_seen = Some(edge.last_seen.map_or(at, |last| last.max(at)));
        let (birth, caller_error) = (edge.birth, usize::from(call.caller_error));
        let found = self.join.nodes.get_mut(&execution).and_then(|node| Some((node.service, node.execution.as_mut()?)));
        let Some((service, execution)) = found else {
            // Its execution is gone, or a queue has none: the call stands for itself.
            edge.executions += 1;
            edge.outcomes[usize::from(call.callee_error)][caller_error] += 1;
            return birth;
        };
        match execution.calls.iter_mut().find(|known| known.0 == id) {
            None => {
                execution.calls.push((id, 1, !call.callee_error));
                edge.executions += 1;
                edge.outcomes[usize::from(call.callee_error)][caller_error] += 1;
            }
            Some((_, count, any_ok)) => {
                *count = count.saturating_add(1);
                // An execution whose retry went well had a callee that works, in whichever order they arrive.
                if !call.callee_error && !*any_ok {
                    *any_ok = true;
                    edge.outcomes[1][caller_error] -= 1;
                    edge.outcomes[0][caller_error] += 1;
                }
            }
        }
        if let (Some(trial), Some(service)) = (&mut execution.service, self.services.get_mut(service as usize)) {
            service.outward.used(trial, birth, now);
        }
        if let (Some(trial), Some(operation)) = (&mut execution.operation, self.operations.get_mut(caller as usize)) {
            operation.outward.used(trial, birth, now);
        }
        birth
    }

    /// Judges a client or producer span whose generation ends: without a child it goes to its peer; without a
    /// peer nobody knows where it went.
    fn unanswered(&mut self, key: Key, now: Timestamp) {
        let Some(node) = self.join.nodes.get(&key).filter(|node| !node.answered) else { return };
        let Some(resolved) = node.resolved.filter(|_| matches!(node.kind, Kind::Client | Kind::Producer)) else {
            return;
        };
        let (service, flowed) = (node.service, node.flowed);
        let call = Call {
            callee_error: node.error,
            caller_error: self.join.nodes.get(&resolved.entry).map_or(node.error, |entry| entry.error),
            timed: None,
            is_async: node.kind == Kind::Producer,
            end_us: node.end_us,
        };
        let Some(peer) = node.peer.clone() else { return self.unmatched(service, resolved.entry, now) };
        let Some(callee) = self.known_callee(resolved.owner, &peer).or_else(|| self.opaque(&peer)) else {
            return self.unmatched(service, resolved.entry, now);
        };
        let first = !flowed && self.first_call(resolved.entry, callee);
        self.bump(resolved.owner, callee, resolved.entry, &call, now);
        let callee_service = self.operations.get(callee as usize).map(|operation| operation.service);
        if let Some(callee_service) = callee_service.filter(|_| !flowed) {
            self.count_call(service, callee_service, call.end_us, call.callee_error, first);
        }
    }

    fn unmatched(&mut self, service: u32, entry: Key, now: Timestamp) {
        self.counts.unmatched += 1;
        let window = self.config.coverage_window;
        let Some(found) = self.services.get_mut(service as usize) else { return };
        found.coverage.count(now, window, 0, 1);
        let Some(execution) = self.join.nodes.get_mut(&entry).and_then(|node| node.execution.as_mut()) else { return };
        if let Some(trial) = &mut execution.service {
            found.outward.surprise(trial, now);
        }
    }

    /// The busiest edge of the operation into the service that the peer names, if there is one.
    fn known_callee(&self, caller: u32, peer: &Peer) -> Option<u32> {
        let callee = self.index.get(&peer.name).filter(|_| peer.kind == PeerKind::Service)?;
        let service = self.operations.get(caller as usize)?.service;
        let edges = &self.flows.get(&(service, *callee))?.edges;
        let own =
            edges.iter().filter_map(|id| self.edges.get(id)).filter(|edge| edge.caller == caller && edge.calls > 0);
        own.max_by_key(|edge| (edge.calls, std::cmp::Reverse(edge.callee))).map(|edge| edge.callee)
    }

    /// The operation `*` of the service, store, queue or address that the peer names.
    fn opaque(&mut self, peer: &Peer) -> Option<u32> {
        let service = self.service_id(&peer.name)?;
        let found = self.services.get_mut(service as usize)?;
        found.is_store |= peer.kind == PeerKind::Store;
        found.is_queue |= peer.kind == PeerKind::Queue;
        Some(self.operation_id(service, "*"))
    }

    fn own_operation(&mut self, key: Key) -> u32 {
        let Some(node) = self.join.nodes.get(&key) else { return 0 };
        let (service, name) = (node.service, node.operation_name.clone());
        self.operation_id(service, &name)
    }

    /// The number of a service; `None` when there are too many.
    pub(super) fn service_id(&mut self, name: &str) -> Option<u32> {
        let name = bounded_name(name);
        if let Some(known) = self.index.get(&name) {
            return Some(*known);
        }
        let id = u32::try_from(self.services.len()).ok().filter(|id| *id < self.config.services_max)?;
        self.epoch += 1;
        let counter = || Counter::new(Millis(self.config.join.0.saturating_mul(2)));
        let (inward, outward) = (counter(), counter());
        self.services.push(Service { name: name.clone(), changed: self.epoch, inward, outward, ..Service::default() });
        self.index.insert(name, id);
        Some(id)
    }

    fn operation_id(&mut self, service: u32, name: &str) -> u32 {
        let Some(found) = self.services.get_mut(service as usize) else { return 0 };
        let full = found.operations.len() >= self.config.ops_per_service_max as usize;
        let name = if full && !found.operations.contains_key(name) { "*" } else { name };
        if let Some(known) = found.operations.get(name) {
            return *known;
        }
        let id = u32::try_from(self.operations.len()).unwrap_or(u32::MAX);
        found.operations.insert(name.to_owned(), id);
        let outward = Counter::new(Millis(self.config.join.0.saturating_mul(2)));
        self.operations.push(Operation { name: name.to_owned(), service, outward });
        id
    }

    fn edge_id(&mut self, caller: u32, callee: u32) -> u32 {
        let callee =
            if self.edges.len() < self.config.edges_max as usize || self.edge_index.contains_key(&(caller, callee)) {
                callee
            } else {
                let service = self.operations.get(callee as usize).map_or(0, |operation| operation.service);
                self.operation_id(service, "*")
            };
        if let Some(known) = self.edge_index.get(&(caller, callee)) {
            return *known;
        }
        self.births += 1;
        let id = self.next_edge;
        self.next_edge += 1;
        self.edge_index.insert((caller, callee), id);
        self.edges.insert(id, Edge { caller, callee, birth: self.births, ..Edge::default() });
        let service = |operation: u32| self.operations.get(operation as usize).map_or(0, |found| found.service);
        let pair = (service(caller), service(callee));
        let flow = self.flows.entry(pair).or_default();
        if flow.edges.is_empty() && flow.declared.is_none() && !flow.missed {
            self.epoch += 1;
            flow.changed = self.epoch;
        }
        flow.edges.insert(id);
        id
    }
}

fn millis(us: u64) -> Timestamp {
    Timestamp(i64::try_from(us / 1_000).unwrap_or(i64::MAX))
}
