use super::*;

fn flag() -> Field {
    Field::Config { kind: "flag".into(), namespace: "default".into(), name: "x".into() }
}

fn files(value: &str) -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([("value".to_owned(), value.as_bytes().to_vec())])
}

#[test]
fn a_revision_is_switched_by_one_link_and_every_change_is_counted() {
    let dir = tempfile::tempdir().expect("temporary directory");
    assert!(read(dir.path(), &flag()).is_err(), "an object that is not there");
    publish(dir.path(), &flag(), 1, &files("on")).expect("published");
    publish(dir.path(), &flag(), 2, &files("off")).expect("published");
    assert_eq!(read(dir.path(), &flag()).expect("read"), (0, 0));
    switch(dir.path(), &flag(), 1).expect("switched");
    switch(dir.path(), &flag(), 1).expect("switched to the same");
    assert_eq!(read(dir.path(), &flag()).expect("read"), (1, 1));
    let home = dir.path().join("config/flag/default/x");
    assert_eq!(fs::read_to_string(home.join("current/value")).expect("followed"), "on");
    // Somebody else moves the link.
    files::point(&home.join("current"), Path::new("rev-2")).expect("moved");
    assert_eq!(read(dir.path(), &flag()).expect("read"), (2, 2));
    switch(dir.path(), &flag(), 1).expect("switched");
    assert_eq!(read(dir.path(), &flag()).expect("read"), (1, 3));
}

#[test]
fn a_survey_says_what_is_stored_what_is_in_use_and_since_when() {
    let dir = tempfile::tempdir().expect("temporary directory");
    assert!(survey(dir.path(), &flag()).is_err(), "an object that is not there");
    let began = crate::clock::now().0;
    for revision in [10, 2, 1] {
        publish(dir.path(), &flag(), revision, &files("on")).expect("published");
    }
    let unused = survey(dir.path(), &flag()).expect("surveyed");
    assert_eq!((unused.current, unused.changed_at_ms, unused.revisions), (0, 0, vec![1, 2, 10]), "sorted as numbers");
    switch(dir.path(), &flag(), 2).expect("switched");
    let used = survey(dir.path(), &flag()).expect("surveyed");
    assert_eq!((used.current, used.version), (2, 1));
    // A file's time has the clock's coarser tick.
    assert!(used.changed_at_ms >= began - 20 && used.changed_at_ms <= crate::clock::now().0, "{used:?}");
    for revision in 11..=120 {
        publish(dir.path(), &flag(), revision, &files("on")).expect("published");
    }
    let many = survey(dir.path(), &flag()).expect("surveyed");
    assert_eq!((many.revisions.len(), many.revisions.last()), (REVISIONS_MAX, Some(&120)), "the newest are kept");
}

#[test]
fn a_damaged_or_missing_revision_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    publish(dir.path(), &flag(), 1, &files("on")).expect("published");
    assert_eq!(check(dir.path(), &flag(), 1), Ok(()));
    assert!(check(dir.path(), &flag(), 2).is_err());
    fs::write(dir.path().join("config/flag/default/x/rev-1/value"), "off").expect("damaged");
    assert!(check(dir.path(), &flag(), 1).is_err());
}

#[test]
fn a_file_name_is_not_a_path() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for name in ["../x", ".hidden", "", "a/b"] {
        let content = BTreeMap::from([(name.to_owned(), Vec::new())]);
        assert!(publish(dir.path(), &flag(), 1, &content).is_err(), "{name}");
    }
}
