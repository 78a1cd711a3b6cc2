use super::join::{Flags, Key, Node, Ref, State};
use super::resolve::At;
use super::table::{Generation, NONE};
use super::{DropReason, Graph, Observed};
use crate::span::{Kind, PeerKind, Span, bounded_name, operation_of};
use base::{Millis, Timestamp};
use std::borrow::Cow;

/// Instances known of one service at most; further ones are not told apart until older ones are forgotten.
pub(super) const INSTANCES_MAX: usize = 1_024;
/// Generations known of one service at most; older ones are forgotten.
pub(super) const GENERATIONS_MAX: usize = 64;
/// How far ahead of now a span may end.
pub(super) const SKEW_MAX: Millis = Millis(300_000);

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
        let hash = self.join.hash(key);
        if self.join.find(hash, key).is_some() {
            self.counts.duplicates += 1;
            return Observed::Duplicate;
        }
        let Some(service) = self.service_id(&span.service) else { return self.dropped(DropReason::TooManyServices) };
        if self.join.current.len() >= self.join.spans_max {
            self.rotate(now);
        }
        self.counts.observed += 1;
        let mut node = self.arrived(span, service, now);
        let linked = span.links.first().filter(|_| span.parent.is_none()).map(|link| (link.trace, link.id));
        let parent = span.parent.map(|parent| (span.trace, parent)).or(linked);
        let above = parent.and_then(|parent| self.join.find(self.join.hash(parent), parent));
        let blamed = above.and_then(|above| self.join.node(above)).is_some_and(|above| above.is(Flags::BLAMED));
        node.flags.set(Flags::ENTERED, parent.is_none() || node.enters());
        self.seen(span, &node, (parent.is_none(), blamed), now);
        let known_peer = self.known_peer(span);
        if let Some(peer) = span.peer.as_ref().filter(|_| span.leaves()) {
            node.peer = known_peer.or_else(|| self.known_service(&peer.name)).unwrap_or(NONE);
            node.peer_kind = peer.kind;
        }
        let calls = known_peer.filter(|_| span.kind == Kind::Client && node.peer_kind == PeerKind::Service);
        if let Some(callee) = calls {
            self.called(&mut node, (key, parent), callee);
        }
        let at = self.join.insert(hash, node);
        let name = operation_of(&span.name);
        let place = match (parent, above) {
            (None, _) => Some(At::Root),
            (Some(_), Some(above)) if self.join.node(above).is_some_and(Node::is_resolved) => Some(At::Under(above)),
            _ => None,
        };
        match (place, parent) {
            (Some(place), _) => {
                self.resolve(at, place, Some(&name), now);
                Observed::Joined
            }
            (None, Some(parent)) => {
                self.wait(at, parent, &name);
                Observed::Waiting
            }
            (None, None) => Observed::Waiting,
        }
    }

    /// Drops the older generation of the join: what still waits there has lost its parent, what still has no
    /// answer is unanswered. The shell calls it once per join window, and when it is told that time is up.
    pub fn rotate(&mut self, now: Timestamp) {
        // By key and not by arrival, so that the order of arrival changes nothing.
        let hanging = self.join.hanging();
        let mut open: Vec<(Key, Ref, bool)> = Vec::new();
        for (place, node) in self.join.older.nodes() {
            if !node.is_resolved() || (node.leaves() && !node.is(Flags::ANSWERED)) {
                open.push((node.key(), self.join.older_ref(place), hanging.contains(&place)));
            }
        }
        open.sort_unstable_by_key(|(key, ..)| *key);
        // What hangs under a span that waits itself is resolved with it, whichever has the smaller id; a second look
        // finds the rest: circles, and parents that stay.
        for first in [true, false] {
            for (_, at, hangs) in &open {
                if self.join.node(*at).is_some_and(|node| !node.is_resolved()) && !(first && *hangs) {
                    self.counts.lost_parents += 1;
                    self.resolve(*at, At::Lost, None, now);
                }
            }
        }
        // A span that had lost its parent may be the answer of another.
        for (_, at, _) in &open {
            self.unanswered(*at, now);
        }
        self.join.rotate();
        self.mature();
        self.forget_roots(now);
    }

    fn dropped(&mut self, reason: DropReason) -> Observed {
        self.counts.dropped += 1;
        Observed::Dropped(reason)
    }

    fn arrived(&mut self, span: &Span, service: u32, now: Timestamp) -> Node {
        let latest = u64::try_from(now.plus(SKEW_MAX).0).unwrap_or(0).saturating_mul(1_000);
        let mut node = Node::new((span.trace, span.id), service, span.kind);
        (node.start_us, node.end_us) = (span.start_us, span.end_us());
        if node.end_us > latest {
            self.counts.skewed += 1;
            let now_us = u64::try_from(now.0).unwrap_or(0).saturating_mul(1_000);
            (node.start_us, node.end_us) = (now_us.saturating_sub(span.duration_us), now_us);
        }
        node.flags.set(Flags::ERROR, span.is_error());
        node.flags.set(Flags::AUTHENTICATED, span.authenticated);
        node.flags.set(Flags::BY_LINK, span.parent.is_none() && !span.links.is_empty());
        node
    }

    /// Notes what a span says of its service, whatever its place, and counts what is known at arrival, so that
    /// health does not wait for the join.
    fn seen(&mut self, span: &Span, node: &Node, (root, blamed): (bool, bool), now: Timestamp) {
        let (service, end_us, error) = (node.service, node.end_us, node.is(Flags::ERROR));
        let end = millis(end_us);
        self.newest = Some(self.newest.map_or(end, |newest| newest.max(end)));
        self.began = Some(self.began.map_or(end, |began| began.min(end)));
        self.joined_since.get_or_insert(now);
        let (keep, half_life) = (self.keep, self.config.half_life);
        let epoch = self.epoch + 1;
        let window = self.config.coverage_window;
        let Some(known) = self.services.get_mut(service) else { return };
        // A failed call that was charged to this service already is not counted twice.
        if node.is(Flags::ENTERED) && !blamed {
            known.count_entry(end_us, error, Some(end_us - node.start_us), keep);
        }
        if root {
            known.root_history.count(end_us, error, false, None, keep);
            known.roots.count(end, half_life);
        }
        let mut changed = !known.has_spans;
        known.has_spans = true;
        if let Some(instance) = &span.instance {
            let instance = kept(instance);
            let found = known.instances.binary_search_by(|(name, _)| name.as_ref().cmp(&instance));
            if let Some((_, last)) = found.ok().and_then(|at| known.instances.get_mut(at)) {
                *last = now;
            } else {
                if known.instances.len() >= INSTANCES_MAX {
                    known.instances.retain(|(_, last)| now.since(*last) <= window);
                }
                if known.instances.len() < INSTANCES_MAX {
                    let at = known.instances.partition_point(|(name, _)| name.as_ref() < instance.as_ref());
                    known.instances.insert(at, (instance.as_ref().into(), now));
                }
            }
        }
        let generation = kept(span.generation.as_deref().unwrap_or_default());
        if span.authenticated && !known.generations.iter().rev().any(|old| old.name == generation) {
            changed = true;
            // Trials are drawn anew: what the old generation never did, the new one may.
            known.inward.reset();
            known.outward.reset();
            known.operations.iter_mut().for_each(crate::miss::Counter::reset);
            known.generations.push(Generation { name: generation.into_owned(), since: now, matured: false });
            let surplus = known.generations.len().saturating_sub(GENERATIONS_MAX);
            known.generations.drain(..surplus);
        }
        if changed {
            known.changed = epoch;
            self.epoch = epoch;
            self.mark(service);
        }
    }

    /// The service that an outgoing span names, if it is known already; it is after this.
    fn known_peer(&mut self, span: &Span) -> Option<u32> {
        let peer = span.peer.as_ref()?;
        let known = self.known_service(&peer.name);
        if known.is_none() && span.leaves() {
            self.service_id(&peer.name);
        }
        known
    }

    /// Counts a call to a known service when it arrives.
    fn called(&mut self, node: &mut Node, (key, parent): (Key, Option<Key>), callee: u32) {
        let (end_us, error) = (node.end_us, node.is(Flags::ERROR));
        let first = self.join.first(parent.unwrap_or(key), callee);
        self.count_call(node.service, callee, end_us, error, first);
        // A failed call counts against its callee at once; if the callee's own span still comes, it is not
        // counted a second time.
        let blamed = error && !self.join.is_awaited(key);
        if blamed {
            let keep = self.keep;
            self.services.get_mut(callee).into_iter().for_each(|found| found.count_entry(end_us, true, None, keep));
        }
        node.flags.set(Flags::FLOWED, true);
        node.flags.set(Flags::BLAMED, blamed);
    }

    pub(super) fn flag(&mut self, at: Ref, flag: u16, to: bool) {
        if let Some(node) = self.join.node_mut(at) {
            node.flags.set(flag, to);
        }
    }

    /// Lets a span wait for its parent. What surely enters its service has its operation at once.
    fn wait(&mut self, at: Ref, parent: Key, name: &str) {
        let Some(node) = self.join.node(at) else { return };
        let (service, named) = (node.service, node.enters());
        let operation = if named { self.operation_id(service, name) } else { self.join.spell(name) };
        if let Some(node) = self.join.node_mut(at) {
            (node.operation, node.state) = (operation, State::Waiting);
            node.flags.set(Flags::NAMED, named);
        }
        self.join.wait(parent, at);
    }

    pub(super) fn count_call(&mut self, caller: u32, callee: u32, end_us: u64, error: bool, first: bool) {
        if caller != callee {
            let (keep, flow) = (self.keep, self.flow_id(caller, callee));
            // The history says nothing of what the flow is: nothing of it need be judged again.
            let Some(flow) = self.flows.get_mut(flow) else { return };
            flow.history.count(end_us, error, first, None, keep);
        }
    }
}

fn kept(name: &str) -> Cow<'_, str> {
    if name.len() <= crate::span::SPAN_NAME_BYTES_MAX { Cow::Borrowed(name) } else { Cow::Owned(bounded_name(name)) }
}

pub(super) fn millis(us: u64) -> Timestamp {
    Timestamp(i64::try_from(us / 1_000).unwrap_or(i64::MAX))
}
