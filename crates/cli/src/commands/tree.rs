//! `stanch tree`: what a call called, by ids and lineage tags.

use super::records::{Session, about, promise_json, span, taken};
use super::show::table;
use crate::args::TreeArgs;
use crate::failure::Failure;
use base::Timestamp;
use protocol::{PARENT, Promise, PromiseSearch};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// LIMIT: promises of one tree that are shown.
const TREE_MAX: usize = 10_000;
/// What a child's id has between its parent's and its own part; both are in use.
const SEPARATORS: [char; 2] = [':', '.'];

/// A promise and what stands below it, in the order of creation.
#[derive(Debug)]
struct Node {
    promise: Arc<Promise>,
    below: Vec<Node>,
}

pub(crate) async fn run(args: &TreeArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let failed = |error: client::Error| session.failed(&error, "stanch promise ls");
    let Some(root) = session.client.get(&args.id).await.map_err(failed)? else {
        return Err(session.missing(&args.id, "tree").await);
    };
    let (below, is_all) = descendants(&session, &args.id).await.map_err(failed)?;
    let tree = grow(Arc::new(root), below);
    if session.json {
        out!("{}", rendered(&tree, session.now));
    } else {
        let mut rows = Vec::new();
        draw(&tree, "", "", session.now, &mut rows);
        out!("{}", table(&["id", "state", "time", "what"], rows));
    }
    if !is_all {
        anstream::eprintln!("only the first {TREE_MAX} are shown: stanch promise ls --cursor ID shows the others");
    }
    Ok(0)
}

/// Everything whose id continues this one, up to [`TREE_MAX`]; and whether that is all.
///
/// Lineage is in the ids: a promise that names an ancestor in a tag has an id that continues the ancestor's.
async fn descendants(session: &Session, id: &str) -> Result<(Vec<Arc<Promise>>, bool), client::Error> {
    let mut found = Vec::new();
    for separator in SEPARATORS {
        let begin = format!("{id}{separator}");
        let search = PromiseSearch { cursor: Some(begin.clone()), limit: Some(1_000), ..PromiseSearch::default() };
        let mut pages = session.client.pages(search);
        while let Some(page) = pages.next().await? {
            let (read, before) = (page.len(), found.len());
            found.extend(page.into_iter().take_while(|promise| promise.id.starts_with(&begin)));
            let is_past = found.len() - before < read;
            if is_past || found.len() > TREE_MAX {
                break;
            }
        }
    }
    Ok(cut(found))
}

/// At most [`TREE_MAX`] of them, and whether that is all.
fn cut(mut found: Vec<Arc<Promise>>) -> (Vec<Arc<Promise>>, bool) {
    let is_all = found.len() <= TREE_MAX;
    found.truncate(TREE_MAX);
    (found, is_all)
}

/// Puts every promise below its nearest ancestor that is there.
fn grow(root: Arc<Promise>, below: Vec<Arc<Promise>>) -> Node {
    let ids: BTreeSet<String> = below.iter().map(|promise| promise.id.clone()).chain([root.id.clone()]).collect();
    let mut children: BTreeMap<String, Vec<Arc<Promise>>> = BTreeMap::new();
    for promise in below {
        let parent = parent(&promise, &ids).unwrap_or(&root.id).to_owned();
        children.entry(parent).or_default().push(promise);
    }
    for siblings in children.values_mut() {
        // Those of one millisecond in the order of their numbers, of which longer ones are greater.
        siblings.sort_by(|a, b| (a.created_at, a.id.len(), &a.id).cmp(&(b.created_at, b.id.len(), &b.id)));
    }
    node(root, &mut children)
}

fn node(promise: Arc<Promise>, children: &mut BTreeMap<String, Vec<Arc<Promise>>>) -> Node {
    let below = children.remove(&promise.id).unwrap_or_default();
    Node { promise, below: below.into_iter().map(|child| node(child, children)).collect() }
}

/// The parent that a promise names, or else the longest beginning of its id that is one.
fn parent<'a>(promise: &'a Promise, ids: &BTreeSet<String>) -> Option<&'a str> {
    let named = promise.tag(PARENT).filter(|parent| *parent != promise.id && promise.id.starts_with(parent));
    if let Some(named) = named.filter(|parent| ids.contains(*parent)) {
        return Some(named);
    }
    let mut begin = promise.id.as_str();
    while let Some(at) = begin.rfind(SEPARATORS) {
        begin = begin.get(..at)?;
        if ids.contains(begin) {
            return Some(begin);
        }
    }
    None
}

fn draw(node: &Node, own: &str, others: &str, now: Timestamp, rows: &mut Vec<Vec<String>>) {
    let promise = &node.promise;
    let time = span(taken(promise, now));
    let time = if promise.is_settled() { format!("took {time}") } else { format!("for {time}") };
    rows.push(vec![format!("{own}{}", promise.id), promise.state.name().to_owned(), time, about(promise)]);
    for (index, child) in node.below.iter().enumerate() {
        let (own, deeper) = if index + 1 == node.below.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        draw(child, &format!("{others}{own}"), &format!("{others}{deeper}"), now, rows);
    }
}

fn rendered(node: &Node, now: Timestamp) -> Json {
    let children: Vec<Json> = node.below.iter().map(|child| rendered(child, now)).collect();
    let time = taken(&node.promise, now).0;
    json!({ "promise": promise_json(&node.promise, false), "durationMs": time, "children": children })
}

#[cfg(test)]
mod tests;
