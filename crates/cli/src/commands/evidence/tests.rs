use super::*;

#[test]
fn a_file_that_is_no_bundle_is_never_sound() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("inc.stanch");
    let missing = verify(&file, None, false).unwrap_err();
    let next = "stanch evidence export INCIDENT, which saves an incident's bundle";
    assert_eq!((missing.exit, missing.next.as_deref()), (2, Some(next)));
    for bytes in [&b""[..], b"not a bundle", &[0; 1_024]] {
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(verify(&file, None, true).unwrap_err().exit, 50);
    }
    std::fs::write(&file, b"not a bundle").unwrap();
    assert_eq!(show(&file, false).unwrap_err().exit, 50);
}

#[test]
fn a_list_of_keys_that_is_none_is_a_usage_error_and_not_a_missing_pin() {
    let dir = tempfile::tempdir().unwrap();
    let (file, trust) = (dir.path().join("inc.stanch"), dir.path().join("trust.keys"));
    std::fs::write(&file, b"not a bundle").unwrap();
    assert_eq!(verify(&file, Some(&trust), false).unwrap_err().exit, 2);
    std::fs::write(&trust, b"# pinned\nnonsense\n").unwrap();
    let failure = verify(&file, Some(&trust), false).unwrap_err();
    assert!(failure.exit == 2 && failure.message.contains("trust.keys: line 2"), "{failure:?}");
    let comment = |bytes: u64| std::fs::write(&trust, vec![b'#'; usize::try_from(bytes).unwrap()]).unwrap();
    for (bytes, why) in [(TRUST_BYTES_MAX, "no verifier key in it"), (TRUST_BYTES_MAX + 1, "more than")] {
        comment(bytes);
        let failure = verify(&file, Some(&trust), false).unwrap_err();
        assert!(failure.exit == 2 && failure.message.contains(why), "{failure:?}");
    }
}
