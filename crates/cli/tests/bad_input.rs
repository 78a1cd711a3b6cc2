//! Files that cannot be used: every command says which file, where in it, why, and what to do next; and changes nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::{Ran, stanch};

/// What a bad file is.
enum Bad {
    /// Not there.
    Missing,
    /// A directory.
    Directory,
    /// These bytes.
    Holds(Vec<u8>),
}

/// One file that a command is given, and what has to be said about it.
struct Case {
    name: &'static str,
    bad: Bad,
    /// Behind the file's name: the place, the field, or the reason.
    says: &'static str,
}

fn case(name: &'static str, bad: Bad, says: &'static str) -> Case {
    Case { name, bad, says }
}

fn holds(text: &str) -> Bad {
    Bad::Holds(text.as_bytes().to_vec())
}

/// What goes wrong with any file, whatever it should hold.
fn not_there() -> [Case; 2] {
    [case("missing", Bad::Missing, "No such file or directory"), case("directory", Bad::Directory, "Is a directory")]
}

/// Everything below a directory: paths and contents.
fn everything(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path.clone());
                found.insert(path, None);
            } else {
                found.insert(path.clone(), std::fs::read(&path).ok());
            }
        }
    }
    found
}

/// Runs a command on each bad file, at `at` below a fresh copy of `around`; `{}` stands for the file, `{dir}` for the
/// directory.
fn refused(command: &[&str], at: &str, around: &dyn Fn(&Path), exit: i32, cases: impl IntoIterator<Item = Case>) {
    let cases = not_there().into_iter().chain(cases);
    for Case { name, bad, says } in cases {
        let dir = tempfile::tempdir().unwrap();
        around(dir.path());
        let file = dir.path().join(at);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let is_there = !matches!(bad, Bad::Missing | Bad::Directory);
        let _ = std::fs::remove_file(&file);
        match bad {
            Bad::Missing => {}
            Bad::Directory => std::fs::create_dir(&file).unwrap(),
            Bad::Holds(bytes) => std::fs::write(&file, bytes).unwrap(),
        }
        let before = everything(dir.path());
        let (file, here) = (file.to_str().unwrap(), dir.path().to_str().unwrap());
        let arguments: Vec<String> =
            command.iter().map(|word| word.replace("{}", file).replace("{dir}", here)).collect();
        let ran: Ran = stanch(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let what = format!("{name}: {arguments:?}: {ran:?}");
        assert_eq!(ran.exit, if is_there { exit } else { 2 }, "{what}");
        assert!(ran.err.contains(file) && ran.err.contains(says), "which file, and where or why: `{says}`\n{what}");
        assert!(ran.err.contains("try: ") && ran.err.contains("stanch "), "a next command\n{what}");
        assert!(!ran.err.contains("panicked"), "{what}");
        assert!(everything(dir.path()) == before, "nothing is written or changed\n{what}");
    }
}

fn nothing(_: &Path) {}

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../recovery/testdata/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn trace_files() {
    let mut cut = sample("deathstarbench/socialnetwork-compose-20traces.jaeger.json.gz");
    cut.truncate(cut.len() / 2);
    let mut changed = sample("deathstarbench/socialnetwork-compose-20traces.jaeger.json.gz");
    let middle = changed.len() / 2;
    changed[middle] ^= 0x55;
    let cases = [
        case("empty", holds(""), "none of the known trace formats"),
        case("binary", Bad::Holds((0..=255).cycle().take(5_000).collect()), "none of the known trace formats"),
        case("cut gzip", Bad::Holds(cut), "damaged gzip"),
        case("changed gzip", Bad::Holds(changed), "damaged gzip"),
        case("cut JSON", holds("{\"data\": [\n  {\"traceID\": \"1\",\n   \"spans\": ["), "line 3, column 13: EOF"),
        case("wrong type", holds("{\"data\": [\n {\"spans\": 7}]}"), "line 2, column 13: invalid type: integer `7`"),
        case("no data", holds("{\"resourceSpans\": []}"), "no spans in it"),
        case("only bad spans", holds("{\"data\":[{\"spans\":[{},{\"traceID\":1}]}]}"), "2 dropped as malformed"),
        case("deep", Bad::Holds([&b"{\"data\":"[..], &[b'['; 100_000]].concat()), "line 1, column"),
        case(
            "another format",
            holds("TraceID,SpanID,ParentID,PodName,OperationName\n"),
            "Nezha raw CSV is not supported",
        ),
        case(
            "not UTF-8",
            Bad::Holds(b"{\"data\": [{\"spans\": [], \"processes\": {\"\xff\": 1}}]}".to_vec()),
            "line 1, column",
        ),
    ];
    refused(&["group", "cart", "--traces", "{}"], "traces", &nothing, 2, cases);
    let wrong = [case("wrong format", holds("{\"data\": []}"), "is Jaeger JSON")];
    refused(&["group", "cart", "--traces", "{}", "--format", "otlp-json"], "traces", &nothing, 2, wrong);
}

#[test]
fn the_dictionary_beside_a_table() {
    let table = |dir: &Path| {
        std::fs::write(dir.join("t.spans.csv"), "trace,span,parent,pod,op,start_us,dur_us\n0,0,,0,0,0,1\n").unwrap();
    };
    let command = ["group", "cart", "--traces", "{dir}/t.spans.csv"];
    let dir = tempfile::tempdir().unwrap();
    table(dir.path());
    let ran = stanch(&["group", "cart", "--traces", dir.path().join("t.spans.csv").to_str().unwrap()]);
    assert!(ran.exit == 2 && ran.err.contains("t.dict.json") && ran.err.contains("try: stanch"), "{ran:?}");
    for (text, says) in
        [("", "line 1, column 0: in the dictionary"), ("{\n \"label\": 7}", "line 2, column 11: in the dictionary")]
    {
        std::fs::write(dir.path().join("t.dict.json"), text).unwrap();
        let ran = stanch(&[command[0], command[1], command[2], dir.path().join("t.spans.csv").to_str().unwrap()]);
        assert!(ran.exit == 2 && ran.err.contains(says) && ran.err.contains("try: stanch"), "{ran:?}");
    }
}

fn topologies() -> Vec<Case> {
    vec![
        case("binary", Bad::Holds(b"[service.a]\nrun = [\"\xff\"]\n".to_vec()), ":2:9: not text"),
        case("cut", holds("[service.a]\nrun = ["), ":2:"),
        case("unknown key", holds("[service.a]\nrun = [\"x\"]\nrnu = 1\n"), ":3:1: unknown field `rnu`"),
        case(
            "wrong type",
            holds("[service.a]\nrun = \"x\"\n"),
            ":2:7: invalid type: string \"x\", expected a sequence",
        ),
        case("duplicate key", holds("[service.a]\nrun = []\nrun = []\n"), ":3:1: duplicate key"),
        case(
            "out of range",
            holds("[service.a]\nreplicas = { min = 0, start = 1, max = 1 }\n"),
            "service.a.replicas: needs",
        ),
        case("too many", holds("[service.a]\nreplicas = { min = 1, start = 9, max = 4294967295 }\n"), "max is at most"),
        case("too large", holds("[service.a]\nqueue_max = 4294967296\n"), ":2:13: invalid value: integer `4294967296`"),
        case("negative", holds("[service.a]\nworkers = -1\n"), ":2:11: invalid value: integer `-1`"),
        case("not a time", holds("[edge.\"a->b\"]\ntimeout = \"soon\"\n"), ":2:11: "),
        case("not finite", holds("[service.a]\nobjective = { errors = nan }\n"), ":2:24: invalid type: floating point"),
        case("no such service", holds("[service.a]\ncoupled = [\"b\"]\n"), "service.a.coupled: no service `b`"),
        case(
            "no such word",
            holds("[edge.\"a->b\"]\nkind = \"often\"\n"),
            "kind `often` is none of sync, async, store",
        ),
        case("deep", holds(&format!("[service.a]\nrun = {}", "[".repeat(10_000))), ":2:"),
        case(
            "no observer",
            holds("[observer.o]\nsource = \"stars\"\nzone = \"z\"\n"),
            "`stars` is none of spans, probe, record",
        ),
    ]
}

#[test]
fn topology_files() {
    let traces = |dir: &Path| {
        let spans = r#"{"data":[{"spans":[{"traceID":"1","spanID":"1","startTime":5,"duration":5,"process":{"serviceName":"cart"}}]}]}"#;
        std::fs::write(dir.join("traces.json"), spans).unwrap();
    };
    let group = ["group", "cart", "--traces", "{dir}/traces.json", "--declared", "{}"];
    refused(&group, "stanch.toml", &traces, 2, topologies());
    refused(&["supervise", "{}", "--data", "{dir}/platform"], "stanch.toml", &nothing, 2, topologies());
    let serve = ["serve", "--port", "0", "--topology", "{}", "--platform", "{dir}/platform", "--data", "{dir}/data"];
    refused(&serve, "stanch.toml", &nothing, 2, topologies());
    let executor = ["executor", "--topology", "{}", "--platform", "{dir}/platform", "--data", "{dir}/data"];
    refused(&executor, "stanch.toml", &nothing, 2, topologies());
}

#[test]
fn policy_files() {
    let good = include_str!("../../governance/src/policy/default.toml");
    let cases = [
        case("empty", holds(""), ":1:1: missing field `schema`"),
        case("binary", Bad::Holds(b"schema = 1\nname = \"\xfe\xff\"\n".to_vec()), ":2:9: not text"),
        case("cut", holds("schema = 1\nname = \"x"), ":2:"),
        case("unknown key", holds("schema = 1\nnmae = \"x\"\n"), ":2:1: unknown field `nmae`"),
        case("wrong type", holds("schema = \"one\"\n"), ":1:10: invalid type: string \"one\""),
        case("duplicate key", holds("schema = 1\nschema = 1\n"), ":2:1: duplicate key"),
        case("another schema", holds(&good.replace("schema = 1", "schema = 2")), "schema: this program reads schema 1"),
        case("out of range", holds(&good.replace("k = 2, n = 3", "k = 4, n = 3")), "observers"),
        case("not finite", holds(&format!("{good}\n[windows]\nbaseline = inf\n")), "invalid type: floating point"),
    ];
    let serve = ["serve", "--port", "0", "--policy", "{}", "--data", "{dir}/data"];
    refused(&serve, "p.toml", &nothing, 2, cases);
}

#[test]
fn configuration_files() {
    let cases = || {
        [
            case("binary", Bad::Holds(b"[server]\nbind = \"\xff\"\n".to_vec()), "config.toml:2:9: not text"),
            case("cut", holds("[server\n"), "line 1, column 8"),
            case("unknown key", holds("[server]\nprot = 1\n"), "prot"),
            case("wrong type", holds("[server]\nport = \"many\"\n"), "server.port"),
            case("out of range", holds("[server]\nport = 70000\n"), "server.port"),
            case("duplicate key", holds("[server]\nport = 1\nport = 2\n"), "line 3, column 1"),
        ]
    };
    for command in [&["config", "show", "--data", "{dir}/data"][..], &["serve", "--data", "{dir}/data"]] {
        for case in cases() {
            let dir = tempfile::tempdir().unwrap();
            let data = dir.path().join("data");
            std::fs::create_dir(&data).unwrap();
            let Bad::Holds(bytes) = case.bad else { panic!("the case holds nothing") };
            std::fs::write(data.join("config.toml"), bytes).unwrap();
            let before = everything(dir.path());
            let here = dir.path().to_str().unwrap();
            let arguments: Vec<String> = command.iter().map(|word| word.replace("{dir}", here)).collect();
            let ran = stanch(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
            let what = format!("{}: {ran:?}", case.name);
            assert_eq!(ran.exit, 2, "{what}");
            assert!(ran.err.contains("config.toml") && ran.err.contains(case.says), "{what}");
            assert!(ran.err.contains("stanch config show --data"), "{what}");
            assert!(everything(dir.path()) == before, "{what}");
        }
    }
}

#[test]
fn evidence_bundles_and_pinned_keys() {
    let cases = || {
        [
            case("empty", holds(""), "V0"),
            case("binary", Bad::Holds(vec![0xff; 2_000]), "V0"),
            case("zeros", Bad::Holds(vec![0; 1_024]), "V2"),
            case("text", holds("not a bundle\n"), "V0"),
        ]
    };
    refused(&["evidence", "verify", "{}"], "inc.stanch", &nothing, 50, cases());
    let listed = cases().into_iter().filter(|case| case.name != "zeros");
    refused(&["evidence", "show", "{}"], "inc.stanch", &nothing, 50, listed);
    let bundle = |dir: &Path| std::fs::write(dir.join("inc.stanch"), [0; 1_024]).unwrap();
    let keys = [
        case("empty", holds(""), "no verifier key in it"),
        case("binary", Bad::Holds(vec![0xff; 2_000]), "line 1: not a verifier key"),
        case("a second line that is none", holds("# mine\nx+y+z\n"), "line 2: not a verifier key"),
    ];
    refused(&["evidence", "verify", "{dir}/inc.stanch", "--trust", "{}"], "trust.keys", &bundle, 2, keys);
}

#[test]
fn key_files_of_a_data_directory() {
    let data = |dir: &Path| {
        let made = stanch(&["init", "--data", dir.join("data").to_str().unwrap()]);
        assert_eq!(made.exit, 0, "{made:?}");
    };
    let cases = || [case("empty", holds(""), "not a key file"), case("binary", Bad::Holds(vec![0xff; 100]), "pem")];
    refused(&["serve", "--port", "0", "--data", "{dir}/data"], "data/keys/log.pem", &data, 2, cases());
    let topology = |dir: &Path| {
        data(dir);
        std::fs::write(dir.join("stanch.toml"), "[service.a]\n").unwrap();
    };
    let executor =
        ["executor", "--topology", "{dir}/stanch.toml", "--platform", "{dir}/platform", "--data", "{dir}/data"];
    refused(&executor, "data/keys/executor.pem", &topology, 2, cases());
    let rings = [case("empty", holds(""), "not a key file"), case("text", holds("{}"), "not a key file")];
    refused(&executor, "data/keyring.json", &topology, 2, rings);
}

#[test]
fn a_data_directory_that_is_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    std::fs::write(&file, "mine").unwrap();
    let path = file.to_str().unwrap();
    for command in [
        &["init", "--data", path][..],
        &["serve", "--port", "0", "--data", path],
        &["doctor", "--data", path],
        &["sandbox", "up", "--port", "0", "--data", path],
        &["recover", "--sandbox", "--data", path],
    ] {
        let ran = stanch(command);
        assert!(ran.exit == 2 && ran.err.contains(path), "{command:?}: {ran:?}");
        assert!(ran.err.contains("try: ") && ran.err.contains("stanch "), "{command:?}: {ran:?}");
        assert_eq!(std::fs::read(&file).unwrap(), b"mine", "{command:?}");
    }
}
