//! Style and architecture rules that no lint knows: arrows between crates, purity, file lengths, leftover
//! marks, limits that no test trips, the word that may not occur in the product, codes without pages.

use crate::limits::{self, Source};
use anyhow::{Context as _, Result};
use cargo_metadata::MetadataCommand;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest source file, in lines.
const FILE_LINES_MAX: usize = 800;

/// Which crates of ours a crate may import; anything else is an architecture change.
const ARROWS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("protocol", &["base"]),
    ("recovery", &["base"]),
    ("governance", &["base", "recovery"]),
    ("store", &["base", "protocol", "recovery", "governance"]),
    ("client", &["base", "protocol"]),
    ("actuators", &["base", "recovery"]),
    ("pilot", &["base"]),
    ("phantom", &["base"]),
    ("server", &["base", "protocol", "recovery", "governance", "store", "client", "actuators", "phantom", "pilot"]),
    ("sandbox", &["base", "pilot", "client"]),
    ("sim", &["base", "protocol", "recovery", "governance", "store", "client", "actuators", "server"]),
    ("lab", &["base", "recovery", "server", "sim", "sandbox"]),
    ("cli", &["base", "protocol", "recovery", "governance", "client", "server", "sandbox", "lab"]),
    ("xtask", &[]),
];

/// Crates that decide and never do: nothing asynchronous, no server, no database below them.
const PURE: &[&str] = &["base", "protocol", "recovery", "governance"];
const IMPURE_DEPENDENCIES: &[&str] = &["tokio", "axum", "hyper", "rusqlite", "rand", "getrandom"];

/// The crates in which the sample shop's name may occur.
const SHOP_CRATES: &[&str] = &["cli", "sandbox", "lab"];

/// Runs every rule over the workspace at `root`; one line per finding.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut findings = arrows(root)?;
    let mut texts = BTreeMap::new();
    let mut read = Vec::new();
    for path in sources(root)? {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        findings.extend(source_findings(&shown, &text));
        texts.insert(shown.clone(), text.clone());
        read.push(Source { path: shown, text });
    }
    findings.extend(crate::pages::check(root, &texts)?);
    findings.extend(limits::findings(&read));
    Ok(findings)
}

fn arrows(root: &Path) -> Result<Vec<String>> {
    let metadata =
        MetadataCommand::new().manifest_path(root.join("Cargo.toml")).other_options(["--offline".into()]).exec();
    let metadata = match metadata {
        Ok(metadata) => metadata,
        Err(_) => MetadataCommand::new().manifest_path(root.join("Cargo.toml")).exec()?,
    };
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut findings = Vec::new();
    let names: BTreeMap<String, String> = metadata
        .workspace_packages()
        .iter()
        .map(|package| (package.name.to_string(), short(package.name.as_ref())))
        .collect();
    for package in metadata.workspace_packages() {
        let from = short(package.name.as_ref());
        let Some(targets) = allowed.get(from.as_str()) else {
            findings.push(format!("{from}: no arrows declared in xtask/src/tidy.rs"));
            continue;
        };
        for dependency in &package.dependencies {
            let Some(to) = names.get(&dependency.name) else { continue };
            let development = dependency.kind == cargo_metadata::DependencyKind::Development;
            if !development && !targets.contains(&to.as_str()) {
                findings.push(format!("{from} -> {to}: an arrow that ARCHITECTURE.md does not have"));
            }
        }
    }
    findings.extend(impurities(&metadata));
    Ok(findings)
}

/// Walks the resolved normal dependencies of each pure crate.
fn impurities(metadata: &cargo_metadata::Metadata) -> Vec<String> {
    let Some(resolve) = &metadata.resolve else { return vec!["cargo metadata resolved nothing".into()] };
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (node.id.clone(), node)).collect();
    let name_of: BTreeMap<_, _> =
        metadata.packages.iter().map(|package| (package.id.clone(), package.name.to_string())).collect();
    let mut findings = Vec::new();
    for package in metadata.workspace_packages() {
        let from = short(package.name.as_ref());
        if !PURE.contains(&from.as_str()) {
            continue;
        }
        let mut seen = BTreeSet::new();
        let mut open = vec![package.id.clone()];
        while let Some(id) = open.pop() {
            let Some(node) = nodes.get(&id).filter(|_| seen.insert(id.clone())) else { continue };
            let normal = |dependency: &&cargo_metadata::NodeDep| {
                dependency.dep_kinds.iter().any(|kind| kind.kind == cargo_metadata::DependencyKind::Normal)
            };
            open.extend(node.deps.iter().filter(normal).map(|dependency| dependency.pkg.clone()));
        }
        let bad =
            seen.iter().filter_map(|id| name_of.get(id)).filter(|name| IMPURE_DEPENDENCIES.contains(&name.as_str()));
        findings.extend(bad.map(|name| format!("{from}: a pure crate that depends on {name}")));
    }
    findings
}

fn short(package: &str) -> String {
    match package {
        "stanch" => "cli".to_owned(),
        other => other.strip_prefix("stanch-").unwrap_or(other).to_owned(),
    }
}

fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![root.join("crates"), root.join("sim"), root.join("xtask")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("testdata") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn source_findings(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        findings.push(format!("{path}: {lines} lines; the limit is {FILE_LINES_MAX}"));
    }
    // Written in parts so that this file does not find itself.
    let marks =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK"), concat!("to", "do!(")];
    let krate = path.strip_prefix("crates/").unwrap_or(path).split('/').next().unwrap_or_default();
    let shop_word = concat!("sand", "box");
    for (number, line) in text.lines().enumerate() {
        let at = format!("{path}:{}", number + 1);
        if marks.iter().any(|mark| line.contains(mark)) {
            findings.push(format!("{at}: a leftover mark"));
        }
        if krate != "xtask" && !SHOP_CRATES.contains(&krate) && line.to_lowercase().contains(shop_word) {
            findings.push(format!("{at}: the product knows no {shop_word}"));
        }
        if line.contains(concat!("#[ign", "ore")) {
            findings.push(format!("{at}: an ignored test"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let findings = check(root).unwrap();
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }

    #[test]
    fn each_rule_finds_its_breach() {
        let long = "\n".repeat(FILE_LINES_MAX + 1);
        assert_eq!(source_findings("crates/base/src/a.rs", &long).len(), 1);
        let mark = format!("// {}: later", concat!("TO", "DO"));
        assert_eq!(source_findings("crates/base/src/a.rs", &mark).len(), 1);
        let word = format!("let a = {:?};", concat!("Sand", "box"));
        assert_eq!(source_findings("crates/server/src/a.rs", &word).len(), 1);
        assert!(source_findings("crates/cli/src/a.rs", &word).is_empty());
    }
}
