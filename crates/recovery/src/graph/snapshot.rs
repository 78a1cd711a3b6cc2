use super::config::Config;
use super::index::{Call, Index};
use super::views::{Blast, Closure, EdgeView, Evidence, Picture, Relation, RootView, ServiceView};
use base::canon::{Canon, Error, Value};
use base::{Digest, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An immutable picture of the graph, integers only: every answer recomputes bit for bit. A slice of it is a smaller
/// snapshot that gives the same answers about its seeds. Copies are cheap: they share everything.
#[derive(Clone, Debug)]
pub struct Snapshot(pub(super) Arc<Index>);

/// A self-contained part of a snapshot.
pub type Slice = Snapshot;

impl PartialEq for Snapshot {
    fn eq(&self, other: &Snapshot) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.picture() == other.0.picture()
    }
}

impl Eq for Snapshot {}

impl Canon for Snapshot {
    fn to_value(&self) -> Value {
        self.0.picture().to_value()
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        Picture::from_value(value).map(Snapshot::from)
    }
}

impl Snapshot {
    /// When it was built.
    #[must_use]
    pub fn taken_at(&self) -> Timestamp {
        self.0.taken_at
    }

    /// End of the newest span in it.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.0.newest
    }

    /// Structural epoch: of a whole snapshot the newest of all, of a slice the newest inside it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// The windows it was taken under.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The service names, ascending.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.0.ranks().map(|rank| self.0.order.name(rank))
    }

    /// Whether it knows the service.
    #[must_use]
    pub fn contains(&self, service: &str) -> bool {
        self.0.known_rank(service).is_some()
    }

    /// What is known of a service.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&ServiceView> {
        self.0.service(self.0.known_rank(name)?)
    }

    /// The edges, ordered by caller, then callee. All of them are put into words: of a large graph ask for those of
    /// one service, with [`Snapshot::edges_from`] and [`Snapshot::edges_into`].
    #[must_use]
    pub fn edges(&self) -> &[EdgeView] {
        self.0.all_edges()
    }

    /// How many edges there are.
    #[must_use]
    pub fn edge_count(&self) -> usize {
        self.0.calls.len()
    }

    /// The edges of one caller, by callee.
    pub fn edges_from(&self, caller: &str) -> impl Iterator<Item = &EdgeView> {
        let rank = self.0.order.find(caller).unwrap_or(u32::MAX);
        self.0.calls_of(rank).filter_map(|(number, _)| self.0.edge(number))
    }

    /// The edges of one callee, by caller.
    pub fn edges_into(&self, callee: &str) -> impl Iterator<Item = &EdgeView> {
        let rank = self.0.order.find(callee).unwrap_or(u32::MAX);
        self.0.calls_to(rank).filter_map(|(number, _)| self.0.edge(number))
    }

    /// One edge.
    #[must_use]
    pub fn edge(&self, caller: &str, callee: &str) -> Option<&EdgeView> {
        self.0.edge(self.0.call(caller, callee)?)
    }

    /// The root operations, with their traces.
    #[must_use]
    pub fn roots(&self) -> &BTreeMap<String, RootView> {
        self.0.all_roots()
    }

    /// Decayed rate of all root requests, milli-requests per second.
    #[must_use]
    pub fn root_rate_mrps(&self) -> u64 {
        self.0.ranks().map(|rank| self.0.root_rate(rank)).sum()
    }

    /// Mean rate of a service's requests in the baseline window before `since`, milli-requests per second.
    #[must_use]
    pub fn baseline_rate_mrps(&self, service: &str, since: Timestamp) -> Option<u64> {
        let seconds = &self.service(service)?.seconds;
        seconds.rate_mrps(since.minus(self.0.config.baseline), since)
    }

    /// Mean rate of an edge's calls in the baseline window before `since`, milli-requests per second.
    #[must_use]
    pub fn edge_baseline_rate_mrps(&self, caller: &str, callee: &str, since: Timestamp) -> Option<u64> {
        let seconds = &self.edge(caller, callee)?.seconds;
        seconds.rate_mrps(since.minus(self.0.config.baseline), since)
    }

    /// Calls per thousand executions on an edge between two instants (1 000 = no retries); `None` without calls.
    #[must_use]
    pub fn attempts_permille(&self, caller: &str, callee: &str, from: Timestamp, to: Timestamp) -> Option<u64> {
        let sum = self.edge(caller, callee)?.seconds.sum(from, to);
        (sum.marked > 0).then(|| sum.total * 1_000 / sum.marked)
    }

    /// What must restart with the set and is not in it: its closure under coupling, minus itself.
    #[must_use]
    pub fn missing_members(&self, set: &[&str]) -> Vec<String> {
        let given: BTreeSet<&str> = set.iter().copied().collect();
        self.coupled_closure(set).into_iter().filter(|name| !given.contains(name.as_str())).collect()
    }

    /// The least superset of the set that is closed under coupling.
    #[must_use]
    pub fn coupled_closure(&self, set: &[&str]) -> BTreeSet<String> {
        let mut closed: BTreeSet<u32> = set.iter().filter_map(|name| self.0.order.find(name)).collect();
        let mut open: Vec<u32> = closed.iter().copied().collect();
        while let Some(rank) = open.pop() {
            for other in self.0.coupled.get(&rank).into_iter().flatten() {
                if closed.insert(*other) {
                    open.push(*other);
                }
            }
        }
        let found = closed.into_iter().map(|rank| self.0.order.name(rank).to_owned());
        found.chain(set.iter().map(|name| (*name).to_owned())).collect()
    }

    /// Services that reach a member upstream over hard or unknown edges; at most `cap`, else `MoreThan`.
    #[must_use]
    pub fn hard_callers(&self, set: &[&str], cap: u32) -> Closure {
        let found = self.callers_up_to(set, cap as usize + 1);
        if found.len() > cap as usize {
            return Closure::MoreThan(cap);
        }
        let ranks: BTreeSet<u32> = found.into_iter().collect();
        Closure::Members(ranks.into_iter().map(|rank| self.0.order.name(rank).to_owned()).collect())
    }

    /// The services that one calls over hard or unknown edges, ascending.
    pub fn hard_callees(&self, caller: &str) -> impl Iterator<Item = &str> {
        let rank = self.0.order.find(caller).unwrap_or(u32::MAX);
        let hard = self.0.calls_of(rank).filter(|(_, call)| call.is_hard);
        hard.map(|(_, call)| self.0.order.name(call.callee))
    }

    /// Who is hurt when one instance of each member is out for the configured time.
    #[must_use]
    pub fn blast(&self, set: &[&str]) -> Blast {
        let members: BTreeSet<u32> = set.iter().filter_map(|name| self.0.known_rank(name)).collect();
        let names: Vec<&str> = members.iter().map(|rank| self.0.order.name(*rank)).collect();
        let (all, hit) = self.0.root_share(&members);
        let root_share_ppm = base::Ratio::up(hit, all).map_or(0, base::Ratio::ppm);
        let (mut loss_nano, mut inflight_milli) = (0_u128, 0_u64);
        for view in members.iter().filter_map(|rank| self.0.service(*rank)) {
            let replicas = u128::from(view.instance_count().max(1));
            let failing = u128::from(view.rate_mrps) * u128::from(view.cut_ppm);
            loss_nano += failing * u128::from(self.0.config.restart_out.0) / 1_000 / replicas;
            inflight_milli = inflight_milli.saturating_add(view.inflight_milli());
        }
        let loss_requests = u64::try_from(loss_nano.div_ceil(1_000_000_000)).unwrap_or(u64::MAX);
        let callers = self.hard_callers(&names, self.0.config.closure_max);
        Blast { root_share_ppm, root_share_exact: members.len() <= 1, callers, loss_requests, inflight_milli }
    }

    /// Everything that puts a service where it is: its edges both ways, start needs and couplings.
    #[must_use]
    pub fn why(&self, member: &str) -> Vec<Evidence> {
        let rank = self.0.order.find(member).unwrap_or(u32::MAX);
        let both = self.0.calls_of(rank).chain(self.0.calls_to(rank)).map(|(number, _)| number);
        let numbers: BTreeSet<u32> = both.collect();
        let mut evidence: Vec<Evidence> = numbers.into_iter().filter_map(|number| self.0.evidence(number)).collect();
        evidence.extend(self.declared_needs(member));
        evidence
    }

    /// What a service needs: its hard calls, its start needs, and what it is coupled with.
    #[must_use]
    pub fn needs(&self, member: &str) -> Vec<Evidence> {
        let rank = self.0.order.find(member).unwrap_or(u32::MAX);
        let hard = self.0.calls_of(rank).filter(|(_, call)| call.is_hard);
        let mut evidence: Vec<Evidence> = hard.filter_map(|(number, _)| self.0.evidence(number)).collect();
        evidence.extend(self.declared_needs(member));
        evidence
    }

    fn declared_needs(&self, member: &str) -> impl Iterator<Item = Evidence> {
        let view = self.service(member);
        let needs = view.into_iter().flat_map(|view| &view.start_needs).map(|other| (other, Relation::StartNeeds));
        let coupled = view.into_iter().flat_map(|view| &view.coupled).map(|other| (other, Relation::Coupled));
        needs.chain(coupled).map(move |(other, relation)| {
            let found = Evidence::declared(member, other, relation);
            let missed = self.edge(other, member).is_some_and(|edge| edge.missed && !edge.declared);
            if missed { Evidence { source: "missed once".to_owned(), ..found } } else { found }
        })
    }

    /// The part that answers every question about `seeds`: their closure, its hard and its direct callers, the
    /// direct callees of all these, and all edges among them.
    #[must_use]
    pub fn slice(&self, seeds: &[&str]) -> Slice {
        let index = &self.0;
        let closure = self.coupled_closure(seeds);
        let inner: Vec<&str> = closure.iter().map(String::as_str).filter(|name| self.contains(name)).collect();
        let ranks: Vec<u32> = closure.iter().filter_map(|name| index.order.find(name)).collect();
        let mut kept: BTreeSet<u32> = inner.iter().filter_map(|name| index.order.find(name)).collect();
        kept.extend(self.callers_up_to(&inner, index.config.closure_max as usize + 1));
        kept.extend(ranks.iter().flat_map(|rank| index.calls_to(*rank)).map(|(_, call)| call.caller));
        let callees: Vec<u32> =
            kept.iter().flat_map(|rank| index.calls_of(*rank)).map(|(_, call)| call.callee).collect();
        kept.extend(callees);
        let among = |(number, call): (u32, &Call)| kept.contains(&call.callee).then(|| index.edge(number).cloned());
        let edges: Vec<EdgeView> =
            kept.iter().flat_map(|rank| index.calls_of(*rank)).filter_map(among).flatten().collect();
        let named = |rank: &u32| Some((index.order.name(*rank).to_owned(), index.service(*rank)?.clone()));
        let services: BTreeMap<String, ServiceView> = kept.iter().filter_map(named).collect();
        let changes = services.values().map(|view| view.changed).chain(edges.iter().map(|edge| edge.changed));
        let epoch = changes.max().unwrap_or(0);
        let seeds = seeds.iter().map(|seed| (*seed).to_owned()).collect::<BTreeSet<_>>().into_iter().collect();
        let picture = Picture {
            taken_at: index.taken_at,
            newest: index.newest,
            joined_since: index.joined_since,
            epoch,
            config: Config::clone(&index.config),
            roots: index.roots_among(&kept),
            services,
            edges,
            seeds,
        };
        Snapshot::from(picture)
    }

    /// The structural digest: members, kinds, hardness as treated, coupling, order, generations and the
    /// permission about the seeds; no counts and no times.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest_at(self.seed_permission())
    }

    /// The structural digest as it compares with a slice pinned earlier: a permission that rose since then
    /// counts as the pinned one.
    #[must_use]
    pub fn digest_since(&self, pinned: &Slice) -> Digest {
        self.digest_at(self.seed_permission().min(pinned.seed_permission()))
    }

    /// The digest of everything, counts and times too: the identity of the stored bytes.
    #[must_use]
    pub fn content_digest(&self) -> Digest {
        Digest::of_object("slice", self)
    }

    fn seed_permission(&self) -> super::Level {
        let seeds: Vec<&str> = self.0.seeds.iter().map(String::as_str).collect();
        self.permission(&seeds, self.0.taken_at).level
    }

    fn digest_at(&self, level: super::Level) -> Digest {
        let picture = self.0.picture();
        let services = picture.services.iter().map(|(name, view)| {
            let fields = [
                Some(view.kind.to_value()),
                view.generation.to_field(),
                Some(view.coupled.to_value()),
                Some(view.start_needs.to_value()),
                Some(view.suspected.to_value()),
            ];
            (name.clone(), numbered(fields))
        });
        let edges = picture.edges.iter().map(|edge| {
            Value::List(vec![
                edge.caller.to_value(),
                edge.callee.to_value(),
                edge.kind.to_value(),
                edge.is_hard().to_value(),
            ])
        });
        let structure = numbered([
            Some(Value::Map(services.collect())),
            Some(Value::List(edges.collect())),
            Some(picture.seeds.to_value()),
            Some(level.to_value()),
        ]);
        Digest::of_object("topology", &structure)
    }

    /// Ranks of callers in breadth-first order, of one level by name, at most `limit`.
    pub(super) fn callers_up_to(&self, set: &[&str], limit: usize) -> Vec<u32> {
        let index = &self.0;
        let mut seen = vec![false; index.order.names.len()];
        let mut level: Vec<u32> = set.iter().filter_map(|name| index.order.find(name)).collect();
        for rank in &level {
            seen.get_mut(*rank as usize).into_iter().for_each(|seen| *seen = true);
        }
        let mut found: Vec<u32> = Vec::new();
        while !level.is_empty() {
            let mut callers: Vec<u32> = Vec::new();
            for (_, call) in level.iter().flat_map(|rank| index.calls_to(*rank)).filter(|(_, call)| call.is_hard) {
                if let Some(seen) = seen.get_mut(call.caller as usize).filter(|seen| !**seen) {
                    *seen = true;
                    callers.push(call.caller);
                }
            }
            callers.sort_unstable();
            callers.truncate(limit - found.len());
            found.extend(&callers);
            level = if found.len() < limit { callers } else { Vec::new() };
        }
        found
    }

    /// Changes what it says, for tests.
    #[cfg(test)]
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Picture)) {
        let mut picture = self.0.picture();
        change(&mut picture);
        *self = Snapshot::from(picture);
    }
}

impl Index {
    /// The root operations with their visits of some services.
    fn roots_among(&self, kept: &BTreeSet<u32>) -> BTreeMap<String, RootView> {
        let all = self.all_roots().iter().map(|(operation, root)| {
            let found = kept.iter().map(|rank| self.order.name(*rank));
            let visits = found.filter_map(|name| Some((name.to_owned(), *root.visits.get(name)?))).collect();
            (operation.clone(), RootView { traces: root.traces, visits })
        });
        all.collect()
    }
}

fn numbered<const N: usize>(fields: [Option<Value>; N]) -> Value {
    Value::Record((1..).zip(fields).filter_map(|(number, field)| field.map(|value| (number, value))).collect())
}
