use super::*;
use protocol::{PromiseState, Value};

fn promise(id: &str, parent: Option<&str>, created_at: i64, settled_at: Option<i64>) -> Arc<Promise> {
    let tags: BTreeMap<_, _> = parent.map(|parent| (PARENT.to_owned(), parent.to_owned())).into_iter().collect();
    let state = if settled_at.is_some() { PromiseState::Resolved } else { PromiseState::Pending };
    Arc::new(Promise {
        id: id.to_owned(),
        state,
        param: Value::default(),
        value: Value::default(),
        tags: tags.into(),
        timeout_at: Timestamp(9_000_000),
        created_at: Timestamp(created_at),
        settled_at: settled_at.map(Timestamp),
    })
}

fn drawn(below: Vec<Arc<Promise>>) -> Vec<String> {
    let mut rows = Vec::new();
    draw(&grow(promise("a", None, 0, None), below), "", "", Timestamp(1_500), &mut rows);
    rows.into_iter().map(|row| format!("{} {} {}", row[0], row[1], row[2])).collect()
}

#[test]
fn every_promise_stands_below_its_nearest_ancestor_in_both_formats_of_ids() {
    let below = vec![
        promise("a:10", Some("a"), 5, None),
        promise("a:2", Some("a"), 5, Some(505)),
        promise("a:2.1", Some("a:2"), 6, Some(1_206)),
        // Its parent was removed or was never stored; the tag names itself; there is no tag.
        promise("a:3.1", Some("a:3"), 7, None),
        promise("a.b", Some("a.b"), 1, None),
        promise("a.b.c", None, 2, None),
    ];
    assert_eq!(
        drawn(below),
        [
            "a pending for 1.5 s",
            "├─ a.b pending for 1.4 s",
            "│  └─ a.b.c pending for 1.4 s",
            "├─ a:2 resolved took 500 ms",
            "│  └─ a:2.1 resolved took 1.2 s",
            "├─ a:10 pending for 1.4 s",
            "└─ a:3.1 pending for 1.4 s",
        ]
    );
}

#[test]
fn a_tree_is_shown_up_to_its_limit() {
    let many = |count| (0..count).map(|number| promise(&format!("a:{number}"), None, 0, None)).collect::<Vec<_>>();
    let (kept, is_all) = cut(many(TREE_MAX));
    assert_eq!((kept.len(), is_all), (TREE_MAX, true));
    let (kept, is_all) = cut(many(TREE_MAX + 1));
    assert_eq!((kept.len(), is_all), (TREE_MAX, false));
}
