//! A missed dependency as a case of the recovery-failure corpus: `corpus/<id>/scenario.toml` in the data directory, with
//! what was seen. A person adds the state and the fault before it can be run.

use super::{Missed, Watched};
use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};

/// Directory of the cases in the data directory.
pub(super) const CORPUS: &str = "corpus";
/// Name of a case's file.
pub(super) const SCENARIO: &str = "scenario.toml";

#[derive(Serialize)]
struct Scenario {
    schema: u32,
    id: String,
    kind: &'static str,
    title: String,
    tier: &'static str,
    scale: u32,
    source: Source,
    state: State,
    intent: Intents,
}

#[derive(Serialize)]
struct Source {
    name: String,
    url: String,
    mark: &'static str,
    checked: String,
}

#[derive(Serialize)]
struct State {
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    program: &'static str,
}

#[derive(Serialize)]
struct Intents {
    historical: Intent,
    better: Intent,
}

#[derive(Serialize)]
struct Intent {
    class: String,
    plan: String,
    expect: Expect,
}

#[derive(Serialize)]
struct Expect {
    outcome: [&'static str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// Writes the case whole; answers its file.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write(data: &Path, watched: &Watched, missed: &Missed) -> io::Result<PathBuf> {
    let incident = missed.incident.get(..8).unwrap_or(&missed.incident);
    let id = format!("missed-{}-{}-{incident}", plain(&missed.caller), plain(&missed.callee));
    let dir = data.join(CORPUS).join(&id);
    std::fs::create_dir_all(&dir)?;
    let (file, aside) = (dir.join(SCENARIO), dir.join("scenario.toml.new"));
    let head = format!("# Written when it happened: {}.\n# The state and the fault are for a person to add.\n", {
        missed.sentence()
    });
    let text = toml::to_string(&scenario(id, watched, missed)).map_err(io::Error::other)?;
    std::fs::write(&aside, head + &text)?;
    std::fs::rename(aside, &file)?;
    Ok(file)
}

fn scenario(id: String, watched: &Watched, missed: &Missed) -> Scenario {
    let Missed { caller, callee, incident, .. } = missed;
    let node = |name: &String| Node { name: name.clone(), program: "model" };
    let intent = |plan: String, outcome, code| Intent {
        class: watched.class.clone(),
        plan,
        expect: Expect { outcome: [outcome], code },
    };
    Scenario {
        schema: 1,
        id,
        kind: "failure",
        title: format!("Restarting {callee} breaks {caller}, which no answer had named"),
        tier: "bronze",
        scale: 1,
        source: Source { name: format!("incident {incident}"), url: String::new(), mark: "R", checked: String::new() },
        state: State { nodes: [caller, callee].map(node).into() },
        intent: Intents {
            historical: intent(watched.plan.clone(), "Abort", Some("K205")),
            better: intent(format!("restart {callee} ; restart {caller}"), "Commit", None),
        },
    }
}

/// A name as part of a file name: whatever is no letter, digit or hyphen becomes one.
fn plain(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    name.chars().map(kept).take(64).collect()
}
