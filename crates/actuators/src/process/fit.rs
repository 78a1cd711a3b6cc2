//! Whether the desired values are what the action says, no more and no less: a call never widens.

use crate::actuator::{Error, Reason};
use crate::field::Field;
use recovery::call::Call;
use recovery::isa::{Action, DrainMode, Limited, Place, Restored};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn check(call: &Call, fields: &BTreeMap<String, Field>) -> Result<(), Error> {
    if !is_supported(&call.action) {
        return Err(Error::Unsupported);
    }
    if call.action.ttl_ms().is_some() && call.expires_at.is_none() {
        return mismatch("it must expire");
    }
    let fields: Vec<&Field> = fields.values().collect();
    match &call.action {
        Action::Restart { place, .. } => {
            let instance = |field: &Field| match field {
                Field::Generation(service, replica) => Some((service.clone(), *replica)),
                _ => None,
            };
            instances_of(place, &fields, instance)
        }
        Action::Drain { place, .. } => instances_of(place, &fields, weight),
        Action::RestoreTraffic { of: Restored::Weights(weights), .. } => {
            let services: BTreeSet<&str> = weights.iter().map(|(place, _)| place.service()).collect();
            let fits = |field: &&Field| field.is_traffic() && field.owner().is_some_and(|it| services.contains(it));
            if fields.iter().all(fits) { Ok(()) } else { mismatch("traffic of another service") }
        }
        Action::RestoreTraffic { .. } => {
            if fields.iter().all(|field| field.is_traffic()) {
                Ok(())
            } else {
                mismatch("only traffic is restored")
            }
        }
        Action::CircuitBreak { edge, .. } => exactly(&fields, &Field::Breaker(edge.clone())),
        Action::RateLimit { what: Limited::Edge(edge), .. } => exactly(&fields, &Field::EdgeLimit(edge.clone())),
        Action::RateLimit { what: Limited::Place(place), .. } => {
            exactly(&fields, &Field::ServiceLimit(place.service().to_owned()))
        }
        Action::Scale { service, .. } => exactly(&fields, &Field::Replicas(service.clone())),
        Action::RollbackConfig { kind, namespace, name, .. } => {
            let (kind, namespace, name) = (kind.clone(), namespace.clone(), name.clone());
            exactly(&fields, &Field::Config { kind, namespace, name })
        }
    }
}

/// Parameters that neither the supervisor nor the proxy knows how to honor.
fn is_supported(action: &Action) -> bool {
    match action {
        Action::Restart { surge, .. } => *surge == 0,
        Action::Drain { mode, .. } => *mode == DrainMode::New,
        Action::RateLimit { burst, priority, .. } => burst.is_none() && priority.is_none(),
        Action::RestoreTraffic { .. }
        | Action::CircuitBreak { .. }
        | Action::Scale { .. }
        | Action::RollbackConfig { .. } => true,
    }
}

fn weight(field: &Field) -> Option<(String, u32)> {
    match field {
        Field::Weight(service, replica) => Some((service.clone(), *replica)),
        _ => None,
    }
}

fn instances_of(
    place: &Place,
    fields: &[&Field],
    instance: impl Fn(&Field) -> Option<(String, u32)>,
) -> Result<(), Error> {
    let mut replicas = BTreeSet::new();
    for field in fields {
        match instance(field) {
            Some((service, replica)) if service == place.service() => replicas.insert(replica),
            _ => return mismatch("a field that is not of the action's target"),
        };
    }
    match place {
        Place::Instances(_, listed) if listed.iter().copied().collect::<BTreeSet<_>>() != replicas => {
            mismatch("not the listed instances")
        }
        _ if replicas.is_empty() => mismatch("no instance"),
        _ => Ok(()),
    }
}

fn exactly(fields: &[&Field], expected: &Field) -> Result<(), Error> {
    match fields {
        [field] if *field == expected => Ok(()),
        _ => mismatch(&format!("expected {expected} and nothing else")),
    }
}

fn mismatch<T>(why: &str) -> Result<T, Error> {
    Err(Error::Refused { reason: Reason::Mismatch(why.to_owned()) })
}
