//! The rules of ids and addresses against formulations of their own: character by character, and by the two published
//! formats of ids.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use base::Timestamp;

use crate::address::{Address, Cast};
use crate::ids::{is_reserved, lineage_fault, same_origin};
use crate::limits::{ADDRESS_BYTES_MAX, ID_BYTES_MAX};
use crate::request::{Create, Request};
use crate::state::{Promise, PromiseState, Value};
use crate::tags::{BRANCH, ORIGIN, PARENT, PREFIX};
use crate::validate::validate;

/// Cases of each property.
const CASES: u32 = 4_000;

fn cases() -> ProptestConfig {
    ProptestConfig { cases: CASES, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() }
}

/// Ids that often continue one another.
fn id() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&["a", "b", "ab", ":", ".", "/", "é"][..]), 1..7)
        .prop_map(|parts| parts.concat())
}

fn promise(id: &str, origin: Option<&str>) -> Promise {
    Promise {
        id: id.to_owned(),
        state: PromiseState::Pending,
        param: Value::default(),
        value: Value::default(),
        tags: origin
            .map(|origin| (ORIGIN.to_owned(), origin.to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>()
            .into(),
        timeout_at: Timestamp(9),
        created_at: Timestamp(1),
        settled_at: None,
    }
}

/// The rule of ids with dots alone, as its servers have it.
fn dots_accept(id: &str, origin: &str, ancestors: [&str; 2]) -> bool {
    let continues = |ancestor: &str| id == ancestor || id.starts_with(&format!("{ancestor}."));
    !origin.contains('.') && continues(origin) && ancestors.into_iter().all(continues)
}

/// The rule of ids with a colon after the root and dots below it, as its servers have it.
fn colons_accept(id: &str, origin: &str, ancestors: [&str; 2]) -> bool {
    let continues = |ancestor: &str| {
        let separator = if ancestor.contains(':') { '.' } else { ':' };
        id == ancestor || id.starts_with(&format!("{ancestor}{separator}"))
    };
    !origin.contains(':')
        && (id == origin || id.starts_with(&format!("{origin}:")))
        && ancestors.into_iter().all(continues)
}

/// Byte for byte: the ancestor, and then nothing or a separator.
fn extends(id: &str, ancestor: &str) -> bool {
    let (id, ancestor) = (id.as_bytes(), ancestor.as_bytes());
    let same = ancestor.iter().enumerate().all(|(at, byte)| id.get(at) == Some(byte));
    same && matches!(id.get(ancestor.len()), None | Some(b':' | b'.'))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_either_format_accepts_is_accepted(root in id(), steps in prop::collection::vec("[.:][ab]{1,2}", 0..4), at in 0_usize..5, below in 0_usize..5) {
        // Ids as workers make them: each continues its parent.
        let chain: Vec<String> = (0..=steps.len()).map(|depth| format!("{root}{}", steps[..depth].concat())).collect();
        let (branch, parent) = (&chain[at % chain.len()], &chain[below % chain.len()]);
        let id = chain.last().unwrap();
        let tags = [(ORIGIN, &root), (BRANCH, branch), (PARENT, parent)];
        let tags = tags.map(|(name, tag)| (name.to_owned(), tag.clone())).into();
        if dots_accept(id, &root, [branch, parent]) || colons_accept(id, &root, [branch, parent]) {
            prop_assert_eq!(lineage_fault(id, &tags), None);
            let create = Create { id: id.clone(), timeout_at: Timestamp(9), param: Value::default(), tags };
            prop_assert_eq!(validate(&Request::PromiseCreate(create)), None);
        }
    }

    #[test]
    fn a_lineage_is_refused_exactly_if_an_ancestor_is_none_or_a_root_is_ambiguous(id in id(), tags in prop::collection::btree_map(prop::sample::select(&[ORIGIN, BRANCH, PARENT, PREFIX][..]), id(), 0..4)) {
        let ancestors = tags.iter().filter(|(name, _)| **name != PREFIX).all(|(_, tag)| extends(&id, tag));
        let roots = tags.iter().filter(|(name, _)| [ORIGIN, PREFIX].contains(name));
        let ambiguous = roots.into_iter().any(|(_, tag)| tag.bytes().any(|byte| byte == b':') && tag.bytes().any(|byte| byte == b'.'));
        let tags = tags.into_iter().map(|(name, tag)| (name.to_owned(), tag)).collect();
        prop_assert_eq!(lineage_fault(&id, &tags).is_none(), ancestors && !ambiguous, "{} {:?}", id, tags);
    }

    #[test]
    fn one_call_tree_is_an_equivalence_that_an_id_and_what_continues_it_share(a in id(), b in id(), c in id(), step in "[.:][a-z]{1,3}") {
        let same = |a: &str, b: &str| same_origin((a, None), (b, Some(&promise(b, None))));
        prop_assert!(same(&a, &a));
        prop_assert_eq!(same(&a, &b), same(&b, &a));
        prop_assert!(!(same(&a, &b) && same(&b, &c)) || same(&a, &c));
        // Once there is a colon, or none comes, a child is of the tree of its parent.
        if a.contains(':') || step.starts_with(':') && !a.contains('.') || !a.contains('.') && step.starts_with('.') {
            let child = format!("{a}{step}");
            prop_assert!(same(&a, &child), "{} {}", a, child);
        }
        // Tags of both decide, whatever the ids look like.
        for (x, y) in [("r", "r"), ("r", "s")] {
            let tagged = same_origin((&a, Some(&promise(&a, Some(x)))), (&b, Some(&promise(&b, Some(y)))));
            prop_assert_eq!(tagged, x == y);
        }
    }

    #[test]
    fn an_id_is_the_servers_exactly_if_it_begins_with_one_of_its_roots(id in prop::collection::vec(prop::sample::select(&["inc", "hold", "in", "c", "x", "/", ":", ".", "INC", "-"][..]), 0..5)) {
        let id = id.concat();
        let begins = |root: &str| id.starts_with(root) && id.chars().nth(root.len()).is_none_or(|next| "/:.".contains(next));
        prop_assert_eq!(is_reserved(&id), begins("inc") || begins("hold"), "{}", id);
    }

    #[test]
    fn an_address_is_taken_exactly_if_it_spells_one(text in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..7)) {
        let text = text.concat();
        prop_assert_eq!(Address::parse(&text).is_some(), spells(&text), "{:?}", text);
    }

    #[test]
    fn an_address_is_read_as_it_was_written(group in "[a-z@:._-]{1,9}", id in prop::option::of("[a-z/@:]{1,9}"), uni in any::<bool>(), host in "[a-z0-9.]{1,9}", path in "[a-z0-9/?#:@.]{0,9}") {
        let (user, cast) = if uni { ("uni", Cast::Uni) } else { ("any", Cast::Any) };
        let tail = id.as_ref().map(|id| format!("/{id}")).unwrap_or_default();
        let poll = format!("poll://{user}@{group}{tail}");
        prop_assert_eq!(Address::parse(&poll), Some(Address::Poll { cast, group: group.clone(), id }));
        let url = format!("https://{host}/{path}");
        prop_assert_eq!(Address::parse(&url), Some(Address::Http(url.clone())));
        let topic = Address::Topic { project: host.clone(), topic: format!("t{path}") };
        prop_assert_eq!(Address::parse(&format!("gcps://{host}/t{path}")), Some(topic));
    }
}

const PIECES: [&str; 24] = [
    "http://", "https://", "poll://", "gcps://", "bash://", "any@", "uni@", "all@", "any", "@", "/", ":", "g", "host",
    "?", "#", " ", "\n", "\u{7f}", "é", "HTTP://", "//", "80", "://",
];

/// Piece by piece from the left.
fn spells(text: &str) -> bool {
    let mut characters = text.chars();
    if characters.any(|c| c <= ' ' || ('\u{7f}'..='\u{9f}').contains(&c)) {
        return false;
    }
    let after = |begin: &str| text.strip_prefix(begin);
    let begins = |rest: &str, not: &[char]| rest.chars().next().is_some_and(|first| !not.contains(&first));
    if let Some(rest) = after("http://").or_else(|| after("https://")) {
        return begins(rest, &['/', '?', '#', ':']);
    }
    if let Some(rest) = after("poll://any@").or_else(|| after("poll://uni@")) {
        return begins(rest, &['/']);
    }
    if let Some(rest) = after("gcps://") {
        return begins(rest, &['/']) && rest.find('/').is_some_and(|at| at + 1 < rest.len());
    }
    after("bash://").is_some()
}

#[test]
fn the_longest_id_and_address_are_taken_and_no_longer_ones() {
    let get = |len: usize| validate(&Request::PromiseGet { id: "x".repeat(len) }).map(|refused| refused.status);
    assert_eq!((get(ID_BYTES_MAX), get(ID_BYTES_MAX + 1)), (None, Some(400)));
    let poll = |len: usize| Address::parse(&format!("poll://any@{}", "g".repeat(len - 11))).is_some();
    assert!(poll(ADDRESS_BYTES_MAX) && !poll(ADDRESS_BYTES_MAX + 1));
}
