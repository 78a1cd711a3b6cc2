use super::*;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn a_start_that_died_while_keys_were_made_is_made_good_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("deep/data");
    let half = data.join("keys.new");
    std::fs::create_dir_all(&half).unwrap();
    std::fs::write(half.join("root.pem"), "half a k").unwrap();
    std::fs::write(data.join("trust.keys.new"), "half").unwrap();
    assert!(init(&data).unwrap().made);
    let keys = load(&data).unwrap();
    assert!(!half.exists() && load_keyring(&data).unwrap() == keys.keyring);
    assert!(!init(&data).unwrap().made, "made once");
    assert_eq!(load(&data).unwrap().keyring, keys.keyring);
}

#[test]
fn two_first_starts_at_once_leave_one_set_of_keys() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let together = std::sync::Barrier::new(2);
        let start = || {
            together.wait();
            init(&data)
        };
        let both = std::thread::scope(|scope| {
            let other = scope.spawn(start);
            [start(), other.join().unwrap()]
        });
        let made = both.iter().filter(|one| one.as_ref().is_ok_and(|done| done.made)).count();
        assert_eq!(made, 1, "{both:?}");
        let refused = both.iter().filter_map(|one| one.as_ref().err());
        assert!(refused.into_iter().all(|error| matches!(error, InitError::InUse(_))), "{both:?}");
        let keys = load(&data).unwrap();
        assert_eq!(load_keyring(&data).unwrap(), keys.keyring);
        let trust = std::fs::read_to_string(data.join(TRUST_FILE)).unwrap();
        assert!(trust.contains(&keys.origin), "{trust}");
        assert!(!init(&data).unwrap().made);
    }
}

#[test]
fn a_full_disk_is_told_apart_from_a_file_in_the_way() {
    let full = unwritable(Path::new("/data/x"), std::io::Error::from_raw_os_error(28));
    assert!(matches!(&full, InitError::Unwritable { .. }) && full.to_string().contains("free space"), "{full}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let in_the_way = init(&file.join("data")).unwrap_err();
    assert!(matches!(&in_the_way, InitError::File { .. }) && in_the_way.to_string().contains("file"), "{in_the_way}");
}

#[test]
fn init_makes_private_keys_once_and_changes_nothing_later() {
    let dir = tempfile::tempdir().unwrap();
    assert!(init(dir.path()).unwrap().made);
    let before = load(dir.path()).unwrap();
    assert!(!init(dir.path()).unwrap().made);
    assert_eq!(load(dir.path()).unwrap().origin, before.origin);
    let mode = std::fs::metadata(key_path(dir.path(), Role::Executor)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(load_executor(dir.path()).unwrap().role, Role::Executor);
}

#[test]
fn a_damaged_key_or_policy_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path()).unwrap();
    std::fs::write(key_path(dir.path(), Role::Log), "nonsense").unwrap();
    assert!(load(dir.path()).unwrap_err().to_string().contains("log.pem"));
    let policy = dir.path().join("policy.toml");
    assert!(load_policy(&policy).is_ok());
    std::fs::write(&policy, "schema = 1\nnmae = \"x\"\n").unwrap();
    let error = load_policy(&policy).unwrap_err().to_string();
    assert!(error.contains("nmae") && error.contains("policy.toml:2:1"), "{error}");
    let padded = |bytes: u64| {
        let mut text = governance::policy::DEFAULT_TEXT.to_owned();
        text.extend(std::iter::repeat_n('\n', usize::try_from(bytes).unwrap() - text.len()));
        std::fs::write(&policy, text).unwrap();
        load_policy(&policy)
    };
    assert!(padded(POLICY_BYTES_MAX).is_ok());
    assert!(matches!(padded(POLICY_BYTES_MAX + 1), Err(InitError::Text(input::Error::TooLarge { .. }))));
}
