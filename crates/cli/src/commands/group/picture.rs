//! A graph as a picture, in Graphviz's and in Mermaid's language.

use recovery::listing::{EdgeLine, Listing};
use std::collections::{BTreeMap, BTreeSet};

/// What is drawn, and how.
pub(super) struct Picture<'a> {
    listing: &'a Listing,
    /// What restarts.
    restart: BTreeSet<&'a str>,
    /// What is drawn.
    shown: BTreeSet<&'a str>,
}

impl<'a> Picture<'a> {
    /// Everything.
    pub(super) fn whole(listing: &'a Listing) -> Picture<'a> {
        let shown = listing.services.iter().map(|service| service.name.as_str()).collect();
        Picture { listing, restart: BTreeSet::new(), shown }
    }

    /// What restarts, whom it calls, and who fails with it.
    pub(super) fn around(listing: &'a Listing, restart: &'a [String], callers: &'a [String]) -> Picture<'a> {
        let restart: BTreeSet<&str> = restart.iter().map(String::as_str).collect();
        let called = listing.edges.iter().filter(|edge| restart.contains(edge.caller.as_str()));
        let called = called.map(|edge| edge.callee.as_str());
        let shown = restart.iter().copied().chain(callers.iter().map(String::as_str)).chain(called).collect();
        Picture { listing, restart, shown }
    }

    pub(super) fn dot(&self) -> String {
        let mut lines = vec!["digraph stanch {".to_owned(), "  node [shape=box];".to_owned()];
        for name in &self.shown {
            let style = if self.restart.contains(name) { " [style=bold, color=red]" } else { "" };
            lines.push(format!("  {}{style};", quoted(name)));
        }
        for (from, to) in self.coupled() {
            lines.push(format!("  {} -> {} [dir=both, style=bold, label=\"coupled\"];", quoted(from), quoted(to)));
        }
        for edge in self.edges() {
            let style = if edge.treated_as_hard { "" } else { ", style=dashed" };
            let ends = (quoted(&edge.caller), quoted(&edge.callee));
            lines.push(format!("  {} -> {} [label={}{style}];", ends.0, ends.1, quoted(&label(edge))));
        }
        lines.push("}".to_owned());
        lines.join("\n")
    }

    pub(super) fn mermaid(&self) -> String {
        let numbers: BTreeMap<&str, usize> = self.shown.iter().enumerate().map(|(at, name)| (*name, at)).collect();
        let node = |name: &str| format!("n{}", numbers.get(name).copied().unwrap_or(0));
        let mut lines = vec!["flowchart LR".to_owned()];
        for name in &self.shown {
            let class = if self.restart.contains(name) { ":::restart" } else { "" };
            lines.push(format!("  {}[\"{}\"]{class}", node(name), entities(name)));
        }
        lines.extend(self.coupled().map(|(from, to)| format!("  {} <==>|coupled| {}", node(from), node(to))));
        for edge in self.edges() {
            let arrow = if edge.treated_as_hard { "-->" } else { "-.->" };
            lines.push(format!("  {} {arrow}|{}| {}", node(&edge.caller), entities(&label(edge)), node(&edge.callee)));
        }
        lines.push("  classDef restart stroke:#c00,stroke-width:3px".to_owned());
        lines.join("\n")
    }

    fn edges(&self) -> impl Iterator<Item = &'a EdgeLine> {
        let drawn =
            |edge: &&EdgeLine| self.shown.contains(edge.caller.as_str()) && self.shown.contains(edge.callee.as_str());
        self.listing.edges.iter().filter(drawn)
    }

    /// Pairs that restart together, each once.
    fn coupled(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let lines = self.listing.services.iter().filter(|line| self.shown.contains(line.name.as_str()));
        let pairs = lines.flat_map(|line| line.coupled.iter().map(|other| (line.name.as_str(), other.as_str())));
        let pairs = pairs.map(|(one, other)| (one.min(other), one.max(other)));
        pairs.filter(|(_, other)| self.shown.contains(other)).collect::<BTreeSet<_>>().into_iter()
    }
}

fn label(edge: &EdgeLine) -> String {
    if edge.calls == 0 { edge.kind.clone() } else { super::text::count(edge.calls, &format!("{} call", edge.kind)) }
}

/// A quoted text of Graphviz's language.
fn quoted(text: &str) -> String {
    let escaped = super::text::plain(text).replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

/// A text in which Mermaid finds nothing to obey.
fn entities(text: &str) -> String {
    let plain = super::text::plain(text);
    let safe = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | ',' | '/' | '*');
    plain.chars().map(|c| if safe(c) { c.to_string() } else { format!("#{};", u32::from(c)) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use recovery::listing::ServiceLine;

    fn listing(names: &[&str]) -> Listing {
        let service = |name: &&str| ServiceLine {
            name: (*name).to_owned(),
            kind: "service".into(),
            callers: 0,
            callees: 0,
            coupled: Vec::new(),
            trials: 0,
            mature: false,
            miss_in_ppm: 0,
            miss_out_ppm: 0,
            permission: "refused".into(),
            reasons: Vec::new(),
        };
        let edge = |pair: &[&str]| EdgeLine {
            caller: pair[0].to_owned(),
            callee: pair[1].to_owned(),
            kind: "sync".into(),
            hardness: "unknown".into(),
            treated_as_hard: true,
            declared: false,
            calls: 2,
            first_seen_ms: None,
            last_seen_ms: None,
        };
        Listing {
            at_ms: 0,
            newest_ms: None,
            epoch: 0,
            digest: String::new(),
            services: names.iter().map(service).collect(),
            edges: names.windows(2).map(edge).collect(),
        }
    }

    #[test]
    fn a_picture_shows_what_restarts_and_its_neighbours_alone() {
        let mut listing = listing(&["far", "front", "back", "store", "beyond"]);
        listing.services[2].coupled = vec!["front".into()];
        let (restart, callers) = (["back".to_owned()], ["front".to_owned()]);
        let dot = Picture::around(&listing, &restart, &callers).dot();
        assert_eq!(
            dot,
            "digraph stanch {\n  node [shape=box];\n  \"back\" [style=bold, color=red];\n  \"front\";\n  \"store\";\n  \
             \"back\" -> \"front\" [dir=both, style=bold, label=\"coupled\"];\n  \
             \"front\" -> \"back\" [label=\"2 sync calls\"];\n  \"back\" -> \"store\" [label=\"2 sync calls\"];\n}"
        );
        let mermaid = Picture::around(&listing, &restart, &callers).mermaid();
        assert!(mermaid.starts_with("flowchart LR\n  n0[\"back\"]:::restart\n  n1[\"front\"]\n"), "{mermaid}");
        assert!(mermaid.contains("n1 -->|2 sync calls| n0"), "{mermaid}");
        assert!(Picture::whole(&listing).mermaid().contains("beyond"));
    }

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let listing = listing(&["a\"]; x [\\", "b|\n\u{1b}]"]);
        let dot = Picture::whole(&listing).dot();
        assert!(dot.contains("\"a\\\"]; x [\\\\\"") && !dot.contains('\u{1b}'), "{dot}");
        let mermaid = Picture::whole(&listing).mermaid();
        assert!(mermaid.contains("a#34;#93;#59; x #91;#92;") && !mermaid.contains("b|"), "{mermaid}");
    }
}
