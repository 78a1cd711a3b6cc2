//! Reading the topology file, and filling the placeholders of its argument lists.

use crate::input;
use recovery::isa::EdgeName;
use recovery::topology::{Topology, TopologyError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// LIMIT: bytes of a topology file.
pub const TOPOLOGY_BYTES_MAX: u64 = 4 << 20;

/// Why a topology file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read, or is no text.
    #[error(transparent)]
    Read(#[from] input::Error),
    /// Not TOML, or a key or value that has no place in it.
    #[error("{}:{line}:{column}: {why}", file.display())]
    Syntax {
        /// Which.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong there.
        why: String,
    },
    /// It contradicts itself.
    #[error("{}: {error}", file.display())]
    Contradiction {
        /// Which.
        file: PathBuf,
        /// Where and why.
        error: TopologyError,
    },
}

/// Loads and validates a topology file.
///
/// # Errors
/// As [`LoadError`] says; errors of syntax name file, line and column.
pub fn load(file: &Path) -> Result<Topology, LoadError> {
    parse(file, &input::text(file, TOPOLOGY_BYTES_MAX)?)
}

/// As [`load`], of a text that was read before.
///
/// # Errors
/// As [`LoadError`] says.
pub fn parse(file: &Path, text: &str) -> Result<Topology, LoadError> {
    let topology: Topology = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let (line, column) = input::position(text, offset);
        LoadError::Syntax { file: file.to_owned(), line, column, why: error.message().to_owned() }
    })?;
    let contradiction = |error| LoadError::Contradiction { file: file.to_owned(), error };
    topology.validate().map_err(contradiction)?;
    check_placeholders(&topology).map_err(contradiction)?;
    Ok(topology)
}

/// Every edge that an argument list asks for by `{edge:CALLEE}`, sorted.
#[must_use]
pub fn edges(topology: &Topology) -> BTreeSet<EdgeName> {
    let lists = lists(topology);
    let calls = lists.flat_map(|(_, caller, run)| {
        let callees = run.iter().flat_map(|argument| placeholders(argument)).filter_map(|it| it.strip_prefix("edge:"));
        callees.map(move |callee| EdgeName { caller: caller.to_owned(), callee: callee.to_owned() })
    });
    calls.collect()
}

/// What the placeholders of one argument list stand for, by name without braces.
pub(crate) type Values = BTreeMap<String, String>;

/// Replaces each `{name}`; `Err` names a placeholder that stands for nothing here.
pub(crate) fn fill(run: &[String], values: &Values) -> Result<Vec<String>, String> {
    run.iter().map(|argument| fill_one(argument, values)).collect()
}

fn fill_one(argument: &str, values: &Values) -> Result<String, String> {
    let mut out = argument.to_owned();
    for name in placeholders(argument) {
        let value = values.get(name).ok_or_else(|| name.to_owned())?;
        out = out.replace(&format!("{{{name}}}"), value);
    }
    Ok(out)
}

/// The text between each `{` and the next `}`.
fn placeholders(argument: &str) -> Vec<&str> {
    let pieces = argument.split('{').skip(1);
    pieces.filter_map(|piece| piece.split_once('}').map(|(name, _)| name)).collect()
}

fn lists(topology: &Topology) -> impl Iterator<Item = (&'static str, &str, &[String])> {
    let services = topology.service.iter().map(|(name, service)| ("service", name.as_str(), service.run.as_slice()));
    let companions = topology.process.iter().map(|(name, process)| ("process", name.as_str(), process.run.as_slice()));
    services.chain(companions)
}

fn check_placeholders(topology: &Topology) -> Result<(), TopologyError> {
    for (table, name, run) in lists(topology) {
        for placeholder in run.iter().flat_map(|argument| placeholders(argument)) {
            let fail = |why: String| Err(TopologyError { at: format!("{table}.{name}.run"), why });
            match placeholder.strip_prefix("edge:") {
                Some(callee) if !topology.service.contains_key(callee) => {
                    return fail(format!("no service `{callee}` in this file"));
                }
                Some(_) => {}
                None if matches!(placeholder, "self" | "data") => {}
                None if table == "service" && matches!(placeholder, "listen" | "replica" | "service" | "zone") => {}
                None => return fail(format!("no placeholder `{{{placeholder}}}`")),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
[service.a]
run = ["{self}", "--listen", "{listen}", "--peer={edge:b}"]
[service.b]
run = ["{self}"]
[process.load]
run = ["{self}", "{edge:a}"]
"#;

    #[test]
    fn edges_are_what_argument_lists_ask_for() {
        let topology = parse(Path::new("t.toml"), SMALL).expect("valid");
        let names: Vec<String> = edges(&topology).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a->b", "load->a"]);
    }

    #[test]
    fn placeholders_are_filled_inside_one_argument_and_never_split_it() {
        let values = Values::from([("listen".into(), "127.0.0.1:1 ; rm".into()), ("edge:b".into(), "x:2".into())]);
        let run = ["--at={listen}".to_owned(), "{edge:b}".to_owned()];
        assert_eq!(fill(&run, &values), Ok(vec!["--at=127.0.0.1:1 ; rm".into(), "x:2".into()]));
        assert_eq!(fill(&["{zone}".to_owned()], &values), Err("zone".into()));
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("stanch.toml");
        let padded = |bytes: u64| {
            let blank = usize::try_from(bytes).expect("small") - SMALL.len();
            std::fs::write(&file, format!("{SMALL}{}", "\n".repeat(blank))).expect("write");
            load(&file)
        };
        assert!(padded(TOPOLOGY_BYTES_MAX).is_ok());
        let over = padded(TOPOLOGY_BYTES_MAX + 1);
        assert!(matches!(over, Err(LoadError::Read(input::Error::TooLarge { .. }))), "{over:?}");
    }

    #[test]
    fn errors_say_where() {
        let why = |text: &str| parse(Path::new("t.toml"), text).expect_err("invalid").to_string();
        assert!(why("[service.a]\nrun = [\"x\"]\nrnu = 1\n").starts_with("t.toml:3:1: unknown field `rnu`"));
        assert!(why("[service.a]\nrun = [").starts_with("t.toml:2:"));
        assert!(why("[service.a]\ncoupled = [\"b\"]").contains("service.a.coupled: no service `b`"));
        assert!(why("[service.a]\nrun = [\"{edge:b}\"]").contains("no service `b`"));
        assert!(why("[process.p]\nrun = [\"{listen}\"]").contains("no placeholder `{listen}`"));
    }
}
