//! Reading the field names that [`recovery::call`] builds.

use recovery::call;
use recovery::isa::EdgeName;
use recovery::topology::is_name;

/// A field, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// `generation/S@n`.
    Generation(String, u32),
    /// `weight/S@n`.
    Weight(String, u32),
    /// `limit/S`.
    ServiceLimit(String),
    /// `limit/A->S`.
    EdgeLimit(EdgeName),
    /// `breaker/A->S`.
    Breaker(EdgeName),
    /// `replicas/S`.
    Replicas(String),
    /// `config/KIND/NS/NAME`.
    Config {
        /// KIND.
        kind: String,
        /// NS.
        namespace: String,
        /// NAME.
        name: String,
    },
}

impl Field {
    /// Takes a field name apart; `None` for anything that [`recovery::call`] would not have built from
    /// proper names, so that no name reaches a path or a process unchecked.
    #[must_use]
    pub fn parse(text: &str) -> Option<Field> {
        let (family, rest) = text.split_once('/')?;
        let field = match family {
            "generation" => instance(rest).map(|(service, n)| Field::Generation(service, n)),
            "weight" => instance(rest).map(|(service, n)| Field::Weight(service, n)),
            "limit" if rest.contains("->") => edge(rest).map(Field::EdgeLimit),
            "limit" => name(rest).map(Field::ServiceLimit),
            "breaker" => edge(rest).map(Field::Breaker),
            "replicas" => name(rest).map(Field::Replicas),
            "config" => object(rest),
            _ => None,
        }?;
        // One spelling per field: `weight/a@01` is not `weight/a@1`.
        (field.to_string() == text).then_some(field)
    }

    /// The service whose ledger keeps the field; `None` for a configuration object.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        match self {
            Field::Generation(service, _)
            | Field::Weight(service, _)
            | Field::ServiceLimit(service)
            | Field::Replicas(service) => Some(service),
            Field::EdgeLimit(edge) | Field::Breaker(edge) => Some(&edge.callee),
            Field::Config { .. } => None,
        }
    }

    /// The values the field can have at all.
    #[must_use]
    pub fn range(&self) -> std::ops::RangeInclusive<i64> {
        match self {
            Field::Generation(..) | Field::Replicas(_) | Field::Config { .. } => 1..=i64::from(u32::MAX),
            Field::Weight(..) => 0..=1_000,
            Field::ServiceLimit(_) | Field::EdgeLimit(_) => -1..=1_000_000_000,
            Field::Breaker(_) => 0..=2,
        }
    }

    /// Whether the traffic proxy holds the field.
    #[must_use]
    pub fn is_traffic(&self) -> bool {
        matches!(self, Field::Weight(..) | Field::ServiceLimit(_) | Field::EdgeLimit(_) | Field::Breaker(_))
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&match self {
            Field::Generation(service, replica) => call::generation(service, *replica),
            Field::Weight(service, replica) => call::weight(service, *replica),
            Field::ServiceLimit(service) => call::service_limit(service),
            Field::EdgeLimit(edge) => call::edge_limit(edge),
            Field::Breaker(edge) => call::breaker(edge),
            Field::Replicas(service) => call::replicas(service),
            Field::Config { kind, namespace, name } => call::config(kind, namespace, name),
        })
    }
}

fn name(text: &str) -> Option<String> {
    is_name(text).then(|| text.to_owned())
}

fn instance(text: &str) -> Option<(String, u32)> {
    let (service, replica) = text.split_once('@')?;
    Some((name(service)?, replica.parse().ok()?))
}

fn edge(text: &str) -> Option<EdgeName> {
    let (caller, callee) = text.split_once("->")?;
    Some(EdgeName { caller: name(caller)?, callee: name(callee)? })
}

fn object(text: &str) -> Option<Field> {
    let parts: Vec<&str> = text.split('/').collect();
    let [kind, namespace, name] = <[&str; 3]>::try_from(parts).ok()?;
    let safe = |part: &str| is_name(part).then(|| part.to_owned());
    Some(Field::Config { kind: safe(kind)?, namespace: safe(namespace)?, name: safe(name)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_back_and_hostile_ones_do_not() {
        for text in [
            "generation/payments@0",
            "weight/a-b@12",
            "limit/a",
            "limit/a->b",
            "breaker/a->b",
            "replicas/a",
            "config/flag/default/new-cart",
        ] {
            assert_eq!(Field::parse(text).map(|field| field.to_string()).as_deref(), Some(text));
        }
        for text in [
            "generation/../etc@0",
            "weight/a@01",
            "weight/a@-1",
            "limit/",
            "limit/a->b->c",
            "breaker/a",
            "replicas/A",
            "config/flag/../x",
            "config/flag/default",
            "config/flag/default/x/y",
            "config/flag/default/a b",
            "shell/rm",
            "",
        ] {
            assert_eq!(Field::parse(text), None, "{text}");
        }
    }
}
