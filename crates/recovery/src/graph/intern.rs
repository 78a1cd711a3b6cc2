use super::Graph;
use super::table::{Flow, NONE, Operation, Place, Root, Service};
use crate::miss::Counter;
use crate::span::{SPAN_NAME_BYTES_MAX, bounded_name};
use base::Millis;
use std::sync::atomic::AtomicU8;

/// What snapshots ask of every flow, apart from the rest of it.
#[derive(Debug)]
pub(super) struct Hot {
    pub(super) caller: u32,
    pub(super) callee: u32,
    /// What was judged of it since it last changed; 0: nothing. See `build`.
    pub(super) judged: AtomicU8,
}

/// What snapshots ask of every service, apart from the rest of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    /// It has spans or is declared.
    pub(super) is_known: bool,
    pub(super) stores: bool,
    /// Its operation `*`; [`NONE`]: there is none.
    pub(super) star: u32,
}

impl Graph {
    /// The number of a service that is known.
    pub(super) fn known_service(&self, name: &str) -> Option<u32> {
        if name.len() <= SPAN_NAME_BYTES_MAX {
            return self.names.number(name);
        }
        self.names.number(&bounded_name(name))
    }

    /// The number of a service; `None` when there are too many.
    pub(super) fn service_id(&mut self, name: &str) -> Option<u32> {
        if let Some(known) = self.known_service(name) {
            return Some(known);
        }
        if self.names.len() >= self.config.services_max as usize {
            return None;
        }
        self.epoch += 1;
        let (inward, outward) = (self.counter(), self.counter());
        self.services.push(Service { changed: self.epoch, inward, outward, ..Service::default() });
        self.marks.push(Mark { star: NONE, ..Mark::default() });
        Some(self.names.add(&bounded_name(name)))
    }

    fn counter(&self) -> Counter {
        Counter::new(Millis(self.config.join.0.saturating_mul(2)))
    }

    /// Refreshes what snapshots ask of a service after a change of it.
    pub(super) fn mark(&mut self, service: u32) {
        let Some(found) = self.services.get(service) else { return };
        let (is_known, stores) = (found.has_spans || found.declared.is_some(), found.stores());
        if let Some(mark) = self.marks.get_mut(service as usize) {
            (mark.is_known, mark.stores) = (is_known, stores);
        }
    }

    /// The number of an operation; further ones of a service, and of all services, fold to `*`.
    pub(super) fn operation_id(&mut self, service: u32, name: &str) -> u32 {
        if let Some(known) = self.known_operation(service, name) {
            return known;
        }
        let own = self.services.get(service).map_or(0, |found| found.operations.len());
        let full = own >= self.config.ops_per_service_max as usize;
        let full = full || self.operations.len() >= self.config.edges_max as usize;
        if full && name != "*" {
            return self.star(service);
        }
        let counter = self.counter();
        let Some(found) = self.services.get_mut(service) else { return 0 };
        found.operations.push(counter);
        let id = u32::try_from(self.operations.len()).unwrap_or(NONE);
        let own = u32::try_from(own).unwrap_or(NONE);
        self.operations.push(Operation { name: name.into(), service, own, root: NONE });
        let (operations, seed) = (&self.operations, self.seed);
        let again = |id: &u32| {
            operations.get(*id as usize).map_or(0, |known: &Operation| hash(seed, known.service, &known.name))
        };
        self.operation_index.insert_unique(hash(seed, service, name), id, again);
        if let Some(mark) = self.marks.get_mut(service as usize).filter(|_| name == "*") {
            mark.star = id;
        }
        id
    }

    fn known_operation(&self, service: u32, name: &str) -> Option<u32> {
        let is = |id: &u32| {
            let known = self.operations.get(*id as usize);
            known.is_some_and(|known| known.service == service && known.name.as_ref() == name)
        };
        self.operation_index.find(hash(self.seed, service, name), is).copied()
    }

    /// The operation `*` of a service.
    pub(super) fn star(&mut self, service: u32) -> u32 {
        match self.known_star(service) {
            Some(known) => known,
            None => self.operation_id(service, "*"),
        }
    }

    pub(super) fn known_star(&self, service: u32) -> Option<u32> {
        self.marks.get(service as usize).map(|mark| mark.star).filter(|star| *star != NONE)
    }

    pub(super) fn service_of(&self, operation: u32) -> u32 {
        self.operations.get(operation as usize).map_or(0, |found| found.service)
    }

    /// The number of an operation as a root.
    pub(super) fn root_id(&mut self, operation: u32) -> u32 {
        let Some(found) = self.operations.get_mut(operation as usize) else { return NONE };
        if found.root == NONE {
            let name = format!("{}/{}", self.names.name(found.service), found.name).into();
            found.root = self.roots.push(Root { operation, name, traces: 0 });
        }
        found.root
    }

    /// The number of everything between two services.
    pub(super) fn flow_id(&mut self, caller: u32, callee: u32) -> u32 {
        if let Some(known) = self.flow_index.get(&(caller, callee)) {
            return *known;
        }
        let id = self.flows.push(Flow::default());
        self.hot.push(Hot { caller, callee, judged: AtomicU8::new(0) });
        self.flow_index.insert((caller, callee), id);
        id
    }

    /// A flow that is about to change.
    pub(super) fn flow_mut(&mut self, id: u32) -> Option<&mut Flow> {
        if let Some(hot) = self.hot.get_mut(id as usize) {
            *hot.judged.get_mut() = 0;
        }
        self.flows.get_mut(id)
    }

    pub(super) fn edge_mut(&mut self, id: u32) -> Option<&mut super::table::Edge> {
        let place = *self.edges.get(id as usize)?;
        self.flow_mut(place.flow)?.edges.get_mut(place.index as usize)
    }

    /// The number of an edge; above the limit, new callees fold to `*`.
    pub(super) fn edge_id(&mut self, caller: u32, callee: u32) -> u32 {
        if let Some(known) = self.edge_index.get(&(caller, callee)) {
            return *known;
        }
        let mut callee = callee;
        if self.edges_held >= self.config.edges_max as usize {
            callee = self.star(self.service_of(callee));
            if let Some(known) = self.edge_index.get(&(caller, callee)) {
                return *known;
            }
        }
        self.births += 1;
        let id = u32::try_from(self.edges.len()).unwrap_or(NONE);
        self.edge_index.insert((caller, callee), id);
        let flow = self.flow_id(self.service_of(caller), self.service_of(callee));
        let (births, epoch) = (self.births, self.epoch + 1);
        let Some(found) = self.flow_mut(flow) else { return id };
        let bare = found.is_bare();
        if bare {
            found.changed = epoch;
        }
        let index = u32::try_from(found.edges.len()).unwrap_or(NONE);
        found.edges.push(super::table::Edge { id, caller, callee, birth: births, ..Default::default() });
        self.epoch += u64::from(bare);
        self.edges.push(Place { callee, flow, index });
        self.edges_held += 1;
        id
    }
}

fn hash(seed: super::join::Seeded, service: u32, name: &str) -> u64 {
    use std::hash::BuildHasher as _;
    seed.hash_one((service, name))
}
