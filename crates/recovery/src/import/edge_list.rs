use super::{ImportError, Report, malformed};
use crate::topology::Edge;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io::BufRead;

/// LIMIT: edges of one list.
pub const LISTED_EDGES_MAX: usize = 1 << 18;

#[derive(Deserialize)]
struct Dependency {
    parent: String,
    child: String,
}

/// Edges as a topology file names them, `caller->callee`.
pub type ListedEdges = BTreeMap<String, Edge>;

pub(super) fn read(input: &mut dyn BufRead) -> Result<(ListedEdges, Report), ImportError> {
    let mut state = (ListedEdges::new(), Report::default());
    let mut deserializer = serde_json::Deserializer::from_reader(input);
    List(&mut state).deserialize(&mut deserializer).map_err(|error| malformed(&error))?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(state)
}

struct List<'r>(&'r mut (ListedEdges, Report));

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of dependencies")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let (edges, report) = self.0;
        while let Some(raw) = seq.next_element::<Box<RawValue>>()? {
            let Ok(found) = serde_json::from_str::<Dependency>(raw.get()) else {
                report.drop("malformed");
                continue;
            };
            let nameless = |name: &str| name.is_empty() || name.contains("->");
            if nameless(&found.parent) || nameless(&found.child) {
                report.drop("no service");
            } else if found.parent == found.child {
                report.drop("self");
            } else if edges.len() >= LISTED_EDGES_MAX {
                report.drop("too many edges");
            } else if edges.insert(format!("{}->{}", found.parent, found.child), Edge::default()).is_some() {
                report.duplicates += 1;
            } else {
                report.kept += 1;
            }
        }
        Ok(())
    }
}
