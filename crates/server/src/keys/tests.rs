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
