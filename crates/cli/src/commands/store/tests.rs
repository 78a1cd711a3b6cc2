use super::*;
use server::engine::{self, Engine, Env};

fn args(data: &std::path::Path) -> DataArgs {
    DataArgs { data: Some(data.to_owned()), json: true }
}

#[tokio::test]
async fn doctor_wants_a_store_and_finds_a_fresh_one_sound() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = doctor(&args(dir.path())).unwrap_err();
    assert!(nothing.exit == 2 && nothing.next.is_some(), "{nothing:?}");
    let engine = Engine::open(dir.path(), engine::Config::default(), Env::manual(base::Timestamp(1))).unwrap();
    assert_eq!(doctor(&args(dir.path())).unwrap(), 0, "beside the one who uses it");
    drop(engine);
    assert_eq!(doctor(&args(dir.path())).unwrap(), 0);
}

#[test]
fn init_makes_what_serve_needs_and_does_so_once() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(init(&args(dir.path())).unwrap(), 0);
    let made = std::fs::read(dir.path().join("trust.keys")).unwrap();
    assert_eq!(init(&args(dir.path())).unwrap(), 0);
    assert_eq!(std::fs::read(dir.path().join("trust.keys")).unwrap(), made);
    assert!(dir.path().join("policy.toml").exists());
}

#[test]
fn a_damaged_configuration_is_a_usage_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(config(&args(dir.path())).unwrap(), 0);
    std::fs::write(dir.path().join("config.toml"), "[server]\nprot = 1\n").unwrap();
    let failure = config(&args(dir.path())).unwrap_err();
    assert_eq!(failure.exit, 2);
    assert!(failure.message.contains("prot") && failure.message.contains("config.toml"));
}
