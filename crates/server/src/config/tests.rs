use super::*;

fn written(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.toml"), text).unwrap();
    dir
}

fn variables(pairs: &[(&str, &str)]) -> Option<config::Map<String, String>> {
    Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

fn origin(shown: &[Shown], key: &str) -> String {
    shown.iter().find(|value| value.key == key).unwrap().origin.clone()
}

#[test]
fn each_layer_wins_over_the_one_below_and_says_so() {
    let dir = written("[server]\nport = 9000\nbind = \"127.0.0.2\"\n[platform]\npolicy = \"p.toml\"\n");
    let flags = Flags { port: Some(0), ..Flags::default() };
    let environment = [("STANCH__SERVER__PORT", "9001"), ("STANCH__SERVER__BIND", "127.0.0.3"), ("STANCH_SERVER", "x")];
    let (settings, shown) = load_from(dir.path(), &flags, variables(&environment)).unwrap();
    assert_eq!((settings.server.port, settings.server.bind.as_str()), (0, "127.0.0.3"));
    assert_eq!((settings.platform.policy.as_str(), settings.executor.start), ("p.toml", true));
    assert_eq!(origin(&shown, "server.port"), "flag");
    assert_eq!(origin(&shown, "server.bind"), "the environment");
    assert!(origin(&shown, "platform.policy").ends_with("config.toml"), "{shown:?}");
    assert_eq!(
        (settings.protocol.profile, origin(&shown, "protocol.profile")),
        (ProtocolProfile::Default, "default".into())
    );
    assert_eq!(origin(&shown, "executor.start"), "default");
}

#[test]
fn every_flag_reaches_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let flags = Flags {
        bind: Some("::1".into()),
        port: Some(7),
        topology: Some("t.toml".into()),
        platform: Some("run".into()),
        policy: Some("p.toml".into()),
        protocol_profile: Some(ProtocolProfile::Resonate20260401),
        debug: true,
        no_executor: true,
        insecure: true,
        log: Some("debug".into()),
        log_format: Some(LogFormat::Json),
        otlp_grpc: Some("off".into()),
        otlp_http: Some("127.0.0.1:0".into()),
    };
    let (settings, shown) = load_from(dir.path(), &flags, variables(&[])).unwrap();
    let expected = Settings {
        server: ServerSettings { bind: "::1".into(), port: 7, insecure: true, ..ServerSettings::default() },
        platform: PlatformSettings { topology: "t.toml".into(), directory: "run".into(), policy: "p.toml".into() },
        protocol: ProtocolSettings {
            profile: ProtocolProfile::Resonate20260401,
            debug: true,
            ..ProtocolSettings::default()
        },
        storage: StorageSettings::default(),
        executor: ExecutorSettings { start: false },
        log: LogSettings { level: "debug".into(), format: LogFormat::Json },
        tasks: TaskSettings::default(),
        push: PushSettings::default(),
        telemetry: TelemetrySettings { otlp_grpc: "off".into(), otlp_http: "127.0.0.1:0".into() },
        agent: Vec::new(),
    };
    assert_eq!(settings, expected);
    let unflagged: Vec<_> = shown.iter().filter(|value| value.origin != "flag").map(|value| &value.key).collect();
    let ends = |key: &String| key.ends_with("_max") || key.ends_with("_ms");
    let limits = |key: &&String| {
        ends(key) || key.starts_with("storage.") || key.contains(".request") || key.starts_with("push.")
    };
    assert!(unflagged.iter().all(limits) && shown.len() > unflagged.len() + 8, "{unflagged:?}");
}

#[test]
fn each_profile_is_known_by_its_name_in_every_layer() {
    for profile in [ProtocolProfile::Default, ProtocolProfile::Resonate20260401] {
        let dir = written(&format!("[protocol]\nprofile = \"{}\"\n", profile.name()));
        let (settings, _) = load_from(dir.path(), &Flags::default(), variables(&[])).unwrap();
        assert_eq!(settings.protocol.profile, profile);
        let environment = variables(&[("STANCH__PROTOCOL__PROFILE", profile.name())]);
        let (settings, shown) = load_from(written("").path(), &Flags::default(), environment).unwrap();
        assert_eq!(settings.protocol.profile, profile);
        assert!(
            shown.iter().any(|value| value.key == "protocol.profile" && value.value == profile.name()),
            "{shown:?}"
        );
    }
}

#[test]
fn what_is_shown_as_default_is_what_the_program_takes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, shown) = load_from(dir.path(), &Flags::default(), variables(&[])).unwrap();
    assert_eq!((settings.server, settings.log), (ServerSettings::default(), LogSettings::default()));
    assert_eq!(settings.telemetry, TelemetrySettings::default());
    assert!(shown.iter().all(|value| value.origin == "default"), "{shown:?}");
    assert!(shown.iter().any(|value| value.key == "server.requests_in_flight_max"), "{shown:?}");
}

#[test]
fn agents_are_read_in_the_order_of_the_file() {
    let text = "[[agent]]\nname = \"agent/b\"\nrole = \"planning\"\nurl = \"http://127.0.0.1:1\"\n\
                [[agent]]\nname = \"agent/a\"\nrole = \"planning\"\nurl = \"http://127.0.0.1:2\"\n";
    let (settings, _) = load_from(written(text).path(), &Flags::default(), variables(&[])).unwrap();
    assert_eq!(settings.agent.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>(), ["agent/b", "agent/a"]);
}

#[test]
fn an_unknown_key_or_a_value_of_the_wrong_type_is_refused_by_name() {
    let cases = [
        ("[server]\nprot = 9000\n", "prot"),
        ("[server]\nport = \"many\"\n", "port"),
        ("[server]\nport = 70000\n", "port"),
        ("[[agent]]\nname = \"a\"\nrole = \"planning\"\n", "url"),
        ("[protocol]\nprofile = \"strict\"\n", "strict"),
        ("server = 1\n", "server"),
        ("[server\n", "config.toml"),
    ];
    for (text, named) in cases {
        let error = load_from(written(text).path(), &Flags::default(), variables(&[])).unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
    let environment = variables(&[("STANCH__SERVER__PROT", "1")]);
    let error = load_from(written("").path(), &Flags::default(), environment).unwrap_err().to_string();
    assert!(error.contains("prot"), "{error}");
}

#[test]
fn a_file_is_read_up_to_its_limit_and_only_as_text() {
    let load = |bytes: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), bytes).unwrap();
        load_from(dir.path(), &Flags::default(), variables(&[])).map_err(|error| error.to_string())
    };
    let blank = |bytes: u64| vec![b'\n'; usize::try_from(bytes).unwrap()];
    assert!(load(&blank(CONFIG_BYTES_MAX)).is_ok());
    assert!(load(&blank(CONFIG_BYTES_MAX + 1)).unwrap_err().contains("config.toml: more than"));
    assert!(load(b"[server]\nbind = \"\xff\"\n").unwrap_err().contains("config.toml:2:9: not text"));
}
