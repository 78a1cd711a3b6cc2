use super::Graph;
use super::join::{Flags, Key, NOWHERE, Node, Ref, State};
use super::observe::{SKEW_MAX, millis};
use super::table::NONE;
use crate::span::{Kind, PeerKind};
use base::Timestamp;

/// Tolerance of "the child's interval lies inside the parent's".
const INSIDE_US: u64 = 1_000;

/// How a span's place became known.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    Root,
    Lost,
    Under(Ref),
}

/// Where a span stands in its trace.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// Operation of the execution it belongs to.
    owner: u32,
    /// Entry span of that execution.
    entry: Ref,
    /// Newest birth number on the path from the root.
    newest: u32,
    /// Number of the root; [`NONE`] without.
    root: u32,
    blocking: bool,
    lost: bool,
    depth: u16,
}

/// One call, as it is counted on an edge.
#[derive(Clone, Copy)]
struct Call {
    callee_error: bool,
    caller_error: bool,
    /// Duration, and whether inside the caller's interval.
    timed: Option<(u64, bool)>,
    is_async: bool,
    end_us: u64,
}

impl Standing {
    fn of(node: &Node) -> Standing {
        Standing {
            owner: node.operation,
            entry: node.entry,
            newest: node.newest,
            root: node.root,
            blocking: node.is(Flags::BLOCKING),
            lost: node.is(Flags::LOST),
            depth: node.depth,
        }
    }
}

impl Graph {
    /// Resolves a span and everything that waited for it. `name` is its operation; absent, it waited itself.
    pub(super) fn resolve(&mut self, at: Ref, place: At, name: Option<&str>, now: Timestamp) {
        self.resolve_one(at, place, name, now);
        let Some(key) = self.join.node(at).map(Node::key) else { return };
        if self.join.awaited() == 0 {
            return;
        }
        let mut open: Vec<(Ref, Ref)> = Vec::new();
        self.open(at, key, &mut open);
        while let Some((waiter, parent)) = open.pop() {
            let Some(key) = self.join.node(waiter).filter(|node| !node.is_resolved()).map(Node::key) else { continue };
            self.resolve_one(waiter, At::Under(parent), None, now);
            self.open(waiter, key, &mut open);
        }
    }

    fn open(&mut self, parent: Ref, key: Key, open: &mut Vec<(Ref, Ref)>) {
        let mut waiters = std::mem::take(&mut self.waiters);
        self.join.waiters(key, &mut waiters);
        open.extend(waiters.drain(..).map(|waiter| (waiter, parent)));
        self.waiters = waiters;
    }

    fn resolve_one(&mut self, at: Ref, place: At, name: Option<&str>, now: Timestamp) {
        let Some(node) = self.join.node(at) else { return };
        let (service, by_link, enters) = (node.service, node.is(Flags::BY_LINK), node.enters());
        let under = match place {
            At::Under(parent) => self.join.node(parent).filter(|node| node.is_resolved()).map(|node| (parent, node)),
            At::Root | At::Lost => None,
        };
        let under = under.map(|(parent, node)| (parent, node.service, Standing::of(node)));
        let inner = under.filter(|(_, parent_service, _)| !by_link && !enters && *parent_service == service);
        if let Some((_, _, above)) = inner {
            let depth = above.depth.saturating_add(1);
            return self.place(at, Standing { depth, ..above }, false, false, now);
        }
        let owner = self.own_operation(at, name);
        let lost = Standing { owner, entry: at, newest: 0, root: NONE, blocking: false, lost: true, depth: 0 };
        let (standing, broken) = match (under, place) {
            (Some((parent, parent_service, above)), _) if u32::from(above.depth) < self.config.depth_max => {
                let depth = above.depth.saturating_add(1);
                let mut standing = Standing { owner, entry: at, depth, ..above };
                if parent_service != service || by_link {
                    let (birth, is_async) = self.joined(parent, at, owner, now);
                    standing.newest = above.newest.max(birth);
                    standing.blocking = above.blocking && !is_async;
                }
                (standing, false)
            }
            (None, At::Root) => {
                let root = self.root_id(owner);
                self.roots.get_mut(root).into_iter().for_each(|root| root.traces += 1);
                (Standing { root, blocking: true, lost: false, ..lost }, false)
            }
            // Too deep, or without its parent: the caller is unknown, never a root.
            _ => (lost, true),
        };
        self.place(at, standing, true, broken, now);
    }

    fn own_operation(&mut self, at: Ref, name: Option<&str>) -> u32 {
        let Some(node) = self.join.node(at) else { return 0 };
        let (service, operation, named) = (node.service, node.operation, node.is(Flags::NAMED));
        match name {
            Some(name) => self.operation_id(service, name),
            None if named => operation,
            None => {
                let name = self.join.spelled(at, operation).to_owned();
                self.operation_id(service, &name)
            }
        }
    }

    /// Writes the place down and counts what depends on it.
    fn place(&mut self, at: Ref, standing: Standing, entry: bool, broken: bool, now: Timestamp) {
        let Some(node) = self.join.node_mut(at) else { return };
        (node.state, node.next) = (State::Resolved, NONE);
        (node.operation, node.entry, node.newest) = (standing.owner, standing.entry, standing.newest);
        (node.root, node.depth) = (standing.root, standing.depth);
        node.flags.set(Flags::BLOCKING, standing.blocking);
        node.flags.set(Flags::LOST, standing.lost);
        let (service, leaves) = (node.service, node.leaves());
        if leaves {
            self.expect(at, standing.owner);
        }
        if entry {
            return self.begin(at, &standing, broken, now);
        }
        let window = self.config.coverage_window;
        if let Some(found) = self.services.get_mut(service).filter(|_| leaves || broken) {
            found.coverage.count(now, window, u64::from(leaves), u64::from(broken));
        }
    }

    /// An outgoing span with a peer makes its edge at once: what is known is known before its calls are
    /// counted, when nobody answered in time.
    fn expect(&mut self, at: Ref, owner: u32) {
        let Some(node) = self.join.node(at).filter(|node| node.peer != NONE) else { return };
        let callee = self.opaque(node.peer, node.peer_kind);
        self.edge_id(owner, callee);
    }

    /// Begins an execution: its trials, the service's entry counts, and the trace's way into the service, which is
    /// one trial, and one visit on a blocking path.
    fn begin(&mut self, at: Ref, standing: &Standing, broken: bool, now: Timestamp) {
        let (births, half_life, window) = (self.births, self.config.half_life, self.config.coverage_window);
        let own = self.operations.get(standing.owner as usize).map_or(NONE, |operation| operation.own);
        let Some(node) = self.join.node_mut(at) else { return };
        let Some(found) = self.services.get_mut(node.service) else { return };
        found.coverage.count(now, window, 1 + u64::from(node.leaves()), u64::from(broken));
        let duration_us = node.end_us - node.start_us;
        if !node.is(Flags::ENTERED) {
            found.count_entry(node.end_us, node.is(Flags::ERROR), Some(duration_us), self.keep);
        }
        found.entries.count(millis(node.end_us), half_life);
        found.entry_count += 1;
        found.duration_us += u128::from(duration_us);
        let tried = node.is(Flags::AUTHENTICATED);
        node.flags.set(Flags::EXECUTES, true);
        node.flags.set(Flags::TRIED, tried);
        if tried {
            node.trial = found.outward.trial(births, now);
            if let Some(operation) = found.operations.get_mut(own as usize) {
                node.operation_trial = operation.trial(births, now);
            }
        }
        let (trace, service) = (node.trace(), node.service);
        let touch = self.join.touch(trace, service);
        if tried && touch.trial.is_none() {
            touch.trial = Some(found.inward.trial(births, now));
        }
        if let Some(trial) = &mut touch.trial {
            found.inward.used(trial, standing.newest.into(), now);
            if standing.lost {
                found.inward.surprise(trial, now);
            }
        }
        if standing.root != NONE && standing.blocking && !touch.blocking {
            touch.blocking = true;
            found.visit(standing.root);
        }
    }

    /// Counts the call between a resolved parent and its child in another service; answers the newest birth
    /// number on it and whether nobody waits for it.
    fn joined(&mut self, parent: Ref, child: Ref, callee: u32, now: Timestamp) -> (u32, bool) {
        let (Some(above), Some(below)) = (self.join.node(parent), self.join.node(child)) else {
            return (0, false);
        };
        let (owner, entry) = (above.operation, above.entry);
        let is_async = below.is(Flags::BY_LINK) || below.kind == Kind::Consumer || above.kind == Kind::Producer;
        // A child whose clock runs ahead of its parent's start is shifted, not judged.
        let shift = above.start_us.saturating_sub(below.start_us);
        let inside = below.end_us.saturating_add(shift) <= above.end_us.saturating_add(INSIDE_US);
        let above_failed = above.is(Flags::ERROR);
        let call = Call {
            callee_error: below.is(Flags::ERROR) || (above.kind == Kind::Client && above_failed),
            caller_error: self.join.node(entry).map_or(above_failed, |entry| entry.is(Flags::ERROR)),
            timed: Some((below.end_us - below.start_us, inside)),
            is_async,
            end_us: below.end_us,
        };
        let peer = (above.peer != NONE).then_some((above.peer, above.peer_kind));
        let expected = peer.and_then(|(peer, _)| self.known_star(peer));
        let expected = expected.and_then(|anything| self.edge_index.get(&(owner, anything)).copied());
        let queue = peer.filter(|(_, kind)| *kind == PeerKind::Queue);
        let (flowed, caller_service, callee_service) = (above.is(Flags::FLOWED), above.service, below.service);
        let first = !flowed && self.first_call(entry, callee);
        self.flag(parent, Flags::ANSWERED, true);
        if let Some(edge) = expected.and_then(|id| self.edge_mut(id)) {
            edge.answered += 1;
        }
        if !flowed && queue.is_none() {
            self.count_call(caller_service, callee_service, call.end_us, call.callee_error, first);
        }
        let Some((queue, kind)) = queue else {
            return (self.bump(owner, callee, entry, &call, now), is_async);
        };
        let queue = self.opaque(queue, kind);
        let handed = self.bump(owner, queue, entry, &Call { timed: None, ..call }, now);
        let taken = self.bump(queue, callee, NOWHERE, &call, now);
        (handed.max(taken), true)
    }

    fn first_call(&self, entry: Ref, callee: u32) -> bool {
        let is = |edge: u32| self.edges.get(edge as usize).is_some_and(|edge| edge.callee == callee);
        !self.join.calls(entry).any(|call| is(call.edge))
    }

    /// Counts one call on the edge between two operations; answers its birth number.
    fn bump(&mut self, caller: u32, callee: u32, execution: Ref, call: &Call, now: Timestamp) -> u32 {
        let id = self.edge_id(caller, callee);
        let half_life = self.config.half_life;
        let held = self.join.node(execution).is_some_and(|node| node.is(Flags::EXECUTES));
        // Of an execution that is gone, and of a queue, which has none, every call stands for itself.
        let before = if held { self.join.call_mut(execution, id) } else { None };
        let (again, turned) = match before {
            None => (false, false),
            // An execution whose retry went well had a callee that works, in whichever order they arrive.
            Some(known) => {
                let turned = !call.callee_error && !known.any_ok;
                known.any_ok |= turned;
                (true, turned)
            }
        };
        let Some(edge) = self.edge_mut(id) else { return 0 };
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
        if !again {
            edge.executions += 1;
            edge.outcomes[usize::from(call.callee_error)][caller_error] += 1;
        } else if turned {
            edge.outcomes[1][caller_error] -= 1;
            edge.outcomes[0][caller_error] += 1;
        }
        if held {
            if !again {
                self.join.add_call(execution, id, !call.callee_error);
            }
            self.used(execution, caller, birth, now);
        }
        u32::try_from(birth).unwrap_or(u32::MAX)
    }

    /// Tells the trials of an execution which edge it used.
    fn used(&mut self, execution: Ref, caller: u32, birth: u64, now: Timestamp) {
        let Some(node) = self.join.node_mut(execution).filter(|node| node.is(Flags::TRIED)) else { return };
        let Some(found) = self.services.get_mut(node.service) else { return };
        found.outward.used(&mut node.trial, birth, now);
        let own = self.operations.get(caller as usize).map_or(NONE, |operation| operation.own);
        if let Some(operation) = found.operations.get_mut(own as usize) {
            operation.used(&mut node.operation_trial, birth, now);
        }
    }

    /// Judges a client or producer span whose generation ends: without a child it goes to its peer; without a
    /// peer nobody knows where it went.
    pub(super) fn unanswered(&mut self, at: Ref, now: Timestamp) {
        let Some(node) = self.join.node(at) else { return };
        if !node.leaves() || !node.is_resolved() || node.is(Flags::ANSWERED) {
            return;
        }
        let (service, owner, entry) = (node.service, node.operation, node.entry);
        let (flowed, failed, peer, peer_kind) =
            (node.is(Flags::FLOWED), node.is(Flags::ERROR), node.peer, node.peer_kind);
        let call = Call {
            callee_error: failed,
            caller_error: self.join.node(entry).map_or(failed, |entry| entry.is(Flags::ERROR)),
            timed: None,
            is_async: node.kind == Kind::Producer,
            end_us: node.end_us,
        };
        if peer == NONE {
            return self.unmatched(service, entry, now);
        }
        let known = if peer_kind == PeerKind::Service { self.known_callee(owner, peer) } else { None };
        let callee = known.unwrap_or_else(|| self.opaque(peer, peer_kind));
        let first = !flowed && self.first_call(entry, callee);
        self.bump(owner, callee, entry, &call, now);
        if !flowed {
            self.count_call(service, self.service_of(callee), call.end_us, call.callee_error, first);
        }
    }

    fn unmatched(&mut self, service: u32, entry: Ref, now: Timestamp) {
        self.counts.unmatched += 1;
        let window = self.config.coverage_window;
        let Some(found) = self.services.get_mut(service) else { return };
        found.coverage.count(now, window, 0, 1);
        if let Some(node) = self.join.node_mut(entry).filter(|node| node.is(Flags::TRIED)) {
            found.outward.surprise(&mut node.trial, now);
        }
    }

    /// The busiest edge of the operation into a service, if there is one.
    fn known_callee(&self, caller: u32, callee: u32) -> Option<u32> {
        let flow = self.flow_index.get(&(self.service_of(caller), callee))?;
        let own = self.flows.get(*flow)?.edges.iter().filter(|edge| edge.caller == caller && edge.calls > 0);
        own.max_by_key(|edge| (edge.calls, std::cmp::Reverse(edge.callee))).map(|edge| edge.callee)
    }

    /// The operation `*` of the service, store, queue or address that a peer is.
    fn opaque(&mut self, peer: u32, kind: PeerKind) -> u32 {
        let (store, queue) = (kind == PeerKind::Store, kind == PeerKind::Queue);
        let fresh =
            self.services.get(peer).is_some_and(|found| (store && !found.is_store) || (queue && !found.is_queue));
        if fresh {
            if let Some(found) = self.services.get_mut(peer) {
                found.is_store |= store;
                found.is_queue |= queue;
            }
            self.mark(peer);
        }
        self.star(peer)
    }
}
