//! Every command, as somebody runs it who has only the binary and its help.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use rustix::process::Signal;
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use support::{Running, Server, http, processes_of, program, stanch, wait_for, wait_until_nothing_is_left};

/// Names under `Commands:` of a help text.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let named = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = named.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_help_of_every_command_shows_an_example() {
    let mut open: Vec<Vec<String>> = vec![Vec::new()];
    let mut leaves = 0;
    while let Some(words) = open.pop() {
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        let ran = stanch(&arguments);
        assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{words:?}");
        let below = commands(&ran.out);
        assert!(ran.out.contains("Example"), "{words:?} shows no example:\n{}", ran.out);
        leaves += usize::from(below.is_empty());
        open.extend(below.into_iter().map(|name| [words.clone(), vec![name]].concat()));
    }
    assert!(leaves >= 16, "{leaves} commands");
}

#[test]
fn completions_name_the_commands_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = stanch(&["completions", shell]);
        assert!(ran.exit == 0 && ran.out.contains("recover") && ran.out.contains("lying-observer"), "{shell}");
    }
}

#[test]
fn what_cannot_be_meant_is_exit_2_with_a_way_on() {
    for arguments in [
        &["recoverr"][..],
        &["recover"],
        &["recover", "a", "--resume", "b"],
        &["group", "a", "--format", "jaeger"],
        &[],
    ] {
        let ran = stanch(arguments);
        assert_eq!((ran.exit, ran.out.as_str()), (2, ""), "{arguments:?}: {ran:?}");
        assert!(ran.err.contains("recover") || ran.err.contains("--traces"), "{arguments:?}: {ran:?}");
    }
    let nobody = stanch(&["recover", "checkout", "--server", "http://127.0.0.1:1"]);
    assert!(nobody.exit == 1 && nobody.err.contains("try: stanch"), "{nobody:?}");
}

#[test]
fn config_show_says_where_every_value_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let data = text(dir.path());
    std::fs::write(dir.path().join("config.toml"), "[server]\nport = 9\n").unwrap();
    let shown = program(&["config", "show", "--data", data]).env("STANCH__EXECUTOR__START", "false").output().unwrap();
    let shown = support::Ran::from(shown);
    let line = |key: &str| shown.out.lines().find(|line| line.contains(key)).unwrap_or_default();
    assert_eq!(shown.exit, 0, "{shown:?}");
    assert!(line("server.bind").contains("127.0.0.1") && line("server.bind").contains("default"), "{shown:?}");
    assert!(line("server.port").contains('9') && line("server.port").contains("config.toml"), "{shown:?}");
    assert!(line("executor.start").contains("false") && line("executor.start").contains("environment"), "{shown:?}");
    let told = stanch(&["config", "show", "--json", "--data", data]).json();
    assert_eq!((&told["settings"]["server"]["port"], &told["data"]), (&json!(9), &json!(data)));
    std::fs::write(dir.path().join("config.toml"), "[server]\nprot = 9\n").unwrap();
    let wrong = stanch(&["config", "show", "--data", data]);
    assert!(wrong.exit == 2 && wrong.err.contains("prot") && wrong.err.contains("config.toml"), "{wrong:?}");
}

#[test]
fn init_makes_private_keys_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("fresh/data");
    let init = || stanch(&["init", "--data", text(&data), "--json"]).json();
    let files = || -> Vec<(PathBuf, Vec<u8>)> {
        let inside =
            |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        let mut paths = [inside(&data), inside(&data.join("keys"))].concat();
        paths.retain(|path| path.is_file());
        paths.sort();
        paths.into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
    };
    let made = init();
    assert_eq!(made["made"], true);
    let before = files();
    let pems: Vec<_> = before.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "pem")).collect();
    assert!(pems.len() >= 7, "{pems:?}");
    for (path, _) in pems {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
    }
    assert!(
        Path::new(made["trust"].as_str().unwrap()).is_file() && Path::new(made["policy"].as_str().unwrap()).is_file()
    );
    assert_eq!(init()["made"], false);
    assert!(files() == before, "a second `init` changed something");
}

#[test]
fn a_promise_outlives_the_server_however_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let promise = |state: &str| json!({ "id": "order-1", "state": state, "value": { "data": "ZG9uZQ==" } });
    let server = Server::start(dir.path(), &[]);
    let far = 9_000_000_000_000_u64;
    let create = json!({ "id": "order-1", "timeoutAt": far, "param": { "data": "aW4=" }, "tags": {} });
    let (status, made) = server.ask("promise.create", &create);
    assert_eq!((status, &made["promise"]["state"]), (200, &json!("pending")));
    assert_eq!(server.ask("promise.get", &json!({ "id": "order-2" })).0, 404);
    let reserved = json!({ "id": "inc/x", "timeoutAt": far, "param": {}, "tags": {} });
    assert_eq!(server.ask("promise.create", &reserved).0, 403);
    // Its store is its own for as long as it runs.
    let second = stanch(&["serve", "--port", "0", "--data", text(dir.path())]);
    assert!(second.exit == 1 && !second.err.is_empty(), "{second:?}");
    let doctor = stanch(&["doctor", "--json", "--data", text(dir.path())]);
    let (found, beside) = (doctor.json(), json!(true));
    assert!(doctor.exit == 0 && found["ok"] == beside && found["in_use"] == beside, "{doctor:?}");
    let mut killed = server.process;
    killed.signal(Signal::KILL);
    assert_eq!(killed.ended(), None);

    let server = Server::start(dir.path(), &[]);
    let (status, found) = server.ask("promise.get", &json!({ "id": "order-1" }));
    assert_eq!((status, &found["promise"]), (200, &made["promise"]));
    let (status, settled) = server.ask("promise.settle", &promise("resolved"));
    assert_eq!((status, &settled["promise"]["state"]), (200, &json!("resolved")));
    let (_, again) = server.ask("promise.settle", &promise("rejected"));
    assert_eq!(again["promise"], settled["promise"], "a promise settles once");
    server.end();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.ask("promise.get", &json!({ "id": "order-1" })).1["promise"], settled["promise"]);
    server.end();
}

#[test]
fn a_taken_port_is_said_with_a_way_on() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ran = stanch(&["serve", "--port", &port, "--data", text(dir.path())]);
    assert!(ran.exit == 1 && ran.err.contains(&port) && ran.err.contains("--port 0"), "{ran:?}");
}

/// Replaces the last place of some bytes in a file; nothing when they are not there.
fn replace(path: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(from.len()).rposition(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn doctor_finds_a_sound_store_sound_and_every_damage() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let doctor = || stanch(&["doctor", "--json", "--data", text(&data)]);
    assert_eq!(stanch(&["init", "--data", text(&data)]).exit, 0);
    assert_eq!(doctor().exit, 2, "there is no store yet");
    let server = Server::start(&data, &[]);
    let tags = json!({ "resonate:target": "poll://any@nobody" });
    let create = json!({ "id": "job", "timeoutAt": 9_000_000_000_000_u64, "param": {}, "tags": tags });
    assert_eq!(server.ask("promise.create", &create).0, 200);
    assert_eq!(server.ask("promise.settle", &json!({ "id": "job", "state": "resolved", "value": {} })).0, 200);
    server.end();
    let sound = doctor();
    assert_eq!((sound.exit, &sound.json()["ok"], &sound.json()["violations"]), (0, &json!(true), &json!([])));
    assert!(sound.json()["log_entries"].as_u64().unwrap() >= 1);

    let file = data.join("stanch.db");
    let whole = std::fs::read(&file).unwrap();
    // A settled promise whose task still waits; a record of the log that is not what was logged.
    for (from, to, expected) in [
        (&b"fulfilled"[..], &b"suspended"[..], "task_disagrees_with_promise"),
        (b"payloadType", b"payloadTypf", "evidence_altered"),
    ] {
        replace(&file, from, to);
        let ran = doctor();
        assert!(ran.exit == 3 && ran.json()["violations"].to_string().contains(expected), "{ran:?}");
        std::fs::write(&file, &whole).unwrap();
    }
    let foreign = [b"SQLity", &whole[6..]].concat();
    for damaged in [&whole[..whole.len() / 2], &foreign, b"not a database at all"] {
        std::fs::write(&file, damaged).unwrap();
        let ran = doctor();
        assert!(ran.exit == 3 && ran.err.contains("error"), "{ran:?}");
        assert_eq!(std::fs::read(&file).unwrap(), damaged, "a damaged file stays as it is");
    }
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(doctor().exit, 0);
}

fn sample(name: &str) -> String {
    format!("{}/../recovery/testdata/{name}", env!("CARGO_MANIFEST_DIR"))
}

const COMPOSE: &str = "deathstarbench/socialnetwork-compose-20traces.jaeger.json.gz";

#[test]
fn group_answers_from_the_samples_with_their_counts() {
    let (boutique, train) = (
        sample("nezha/onlineboutique-2022-08-23-faultfree.spans.csv.gz"),
        sample("nezha/trainticket-2023-01-29-faultfree.spans.csv.gz"),
    );
    let cases = [
        ("frontend", &boutique, "nezha", 0, "10 services, 13 edges from 22,969 spans of 502 requests"),
        ("ts-order-service", &train, "nezha", 3, "25 services, 42 edges from 4,890 spans of 71 requests"),
        ("compose-post-service", &sample(COMPOSE), "jaeger", 3, "12 services, 11 edges from 660 spans of 20 requests"),
    ];
    for (service, traces, format, exit, counts) in cases {
        let ran = stanch(&["group", service, "--traces", traces, "--format", format]);
        assert_eq!(ran.exit, exit, "{service}: {ran:?}");
        for part in [
            "restart      ",
            "drain first  ",
            "order        ",
            "hard callers ",
            "blast        ",
            "unseen: at most ",
            counts,
        ] {
            assert!(ran.out.contains(part), "{service} says nothing of `{part}`:\n{}", ran.out);
        }
        assert_eq!(ran.err.contains("refused: "), exit == 3, "{service}: {ran:?}");
    }
    let frontend = stanch(&["group", "frontend", "--traces", &boutique, "--json"]).json();
    assert_eq!(
        (&frontend["level"], &frontend["trials"], &frontend["refused"]),
        (&json!("cautious"), &json!(502), &json!(null))
    );
    assert_eq!((&frontend["root_share_ppm"], &frontend["hard_callers"]), (&json!(1_000_000), &json!([])));
    assert!(frontend["order"].as_array().unwrap().iter().any(|line| line["first"] == "checkoutservice"), "{frontend}");
    let compose = stanch(&["group", "compose-post-service", "--traces", &sample(COMPOSE), "--json"]).json();
    assert_eq!(
        (&compose["hard_callers"], &compose["restart"]),
        (&json!(["nginx-web-server"]), &json!(["compose-post-service"]))
    );
    assert_eq!((&compose["level"], &compose["miss_in_ppm"]), (&json!("refused"), &json!(1_000_000)));
    let calls: Vec<_> = compose["order"].as_array().unwrap().iter().map(|line| line["calls"].as_u64()).collect();
    assert_eq!(calls, [Some(20); 7], "every callee was called once in each of 20 requests");
}

#[test]
fn group_evaluate_prints_every_holdout_with_intervals_and_says_what_it_cannot() {
    let train = sample("nezha/trainticket-2023-01-29-faultfree.spans.csv.gz");
    let ran = stanch(&["group", "evaluate", "--traces", &train, "--json"]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    let told = ran.json();
    assert_eq!((&told["services"], &told["edges"], &told["traces"]), (&json!(25), &json!(42), &json!(71)));
    for holdout in ["time", "sampling", "blackout"] {
        let found = &told["holdouts"][holdout];
        for level in ["edge_fn", "call_fn", "trace_fn", "decision_fn", "decision_raw", "full"] {
            let number = |part: &str| found[level][part].as_f64().unwrap();
            assert!(
                number("low") <= number("point") && number("point") <= number("high"),
                "{holdout} {level}: {found}"
            );
            assert!(number("n") > 0.0, "{holdout} {level}");
        }
        // One minute is too little for full permission, so nothing is claimed.
        assert_eq!((&found["covered"], &found["bound"]), (&json!("not_claimed"), &json!(null)), "{holdout}");
        assert_eq!(found["decision_fn"]["k"], json!(0), "{holdout}");
    }
    let fault = told["holdouts"]["fault"]["not_evaluable"].as_str().unwrap();
    assert!(fault.contains("--fault-free FILE"), "{fault}");
    let boutique = sample("nezha/onlineboutique-2022-08-23-faultfree.spans.csv.gz");
    let ran = stanch(&["group", "evaluate", "--traces", &boutique, "--holdout", "fault", "--fault-free", &train]);
    assert!(ran.exit == 0 && ran.out.contains("10 services, 13 edges from 22,969 spans"), "{ran:?}");
    assert!(
        ran.out.contains("13/13") && ran.out.contains("not_claimed"),
        "of another system nothing is known: {ran:?}"
    );
}

#[test]
fn the_graph_is_listed_exported_and_drawn() {
    let traces = sample(COMPOSE);
    let listed = stanch(&["group", "ls", "--traces", &traces]);
    assert!(listed.exit == 0 && listed.out.lines().count() == 13, "{listed:?}");
    let services = stanch(&["group", "ls", "--traces", &traces, "--json"]).json();
    let compose = services.as_array().unwrap().iter().find(|line| line["name"] == "compose-post-service").unwrap();
    assert_eq!((&compose["callers"], &compose["callees"], &compose["mature"]), (&json!(1), &json!(7), &json!(false)));
    let graph = stanch(&["graph", "export", "--traces", &traces]).json();
    assert_eq!((graph["services"].as_array().unwrap().len(), graph["edges"].as_array().unwrap().len()), (12, 11));
    let dot = stanch(&["graph", "export", "--traces", &traces, "--dot"]).out;
    assert!(dot.starts_with("digraph") && dot.matches(" -> ").count() == 11, "{dot}");
    let mermaid = stanch(&["group", "compose-post-service", "--traces", &traces, "--mermaid"]);
    assert!(mermaid.exit == 3 && mermaid.out.contains(":::restart"), "too few requests to act on: {mermaid:?}");
    let both = stanch(&["graph", "export", "--traces", &traces, "--dot", "--mermaid"]);
    assert_eq!(both.exit, 2, "{both:?}");
}

#[test]
fn a_declared_pair_is_a_group_of_two() {
    let dir = tempfile::tempdir().unwrap();
    let declared = dir.path().join("stanch.toml");
    let pair = "[service.compose-post-service]\ncoupled = [\"post-storage-service\"]\n[service.post-storage-service]\n";
    std::fs::write(&declared, pair).unwrap();
    let traces = sample(COMPOSE);
    let base = ["group", "post-storage-service", "--traces", &traces, "--declared", text(&declared)];
    let told = stanch(&[&base[..], &["--json"]].concat()).json();
    assert_eq!(told["restart"], json!(["compose-post-service", "post-storage-service"]), "coupling goes both ways");
    assert_eq!(
        told["waves"],
        json!([[["post-storage-service"]], [["compose-post-service"]]]),
        "the called one is up first"
    );
    let words = stanch(&base).out;
    assert!(words.contains("together, in 2 waves: post-storage-service, then compose-post-service"), "{words}");
    std::fs::write(&declared, "[service.compose-post-service]\ncoupled = [\"post\"]\n").unwrap();
    let wrong = stanch(&base);
    assert!(
        wrong.exit == 2 && wrong.err.contains("no service `post`") && wrong.err.contains("stanch.toml"),
        "{wrong:?}"
    );
    std::fs::write(&declared, "[service.a]\nreplicas = 3\n").unwrap();
    let wrong = stanch(&base);
    assert!(wrong.exit == 2 && wrong.err.contains("stanch.toml:2:"), "{wrong:?}");
}

#[test]
fn group_refuses_what_it_cannot_read_and_names_the_nearest_service() {
    let dir = tempfile::tempdir().unwrap();
    let traces = sample(COMPOSE);
    let unknown = stanch(&["group", "compose-post-servce", "--traces", &traces]);
    assert_eq!((unknown.exit, unknown.out.as_str()), (2, ""));
    assert!(unknown.err.contains("did you mean `compose-post-service`?"), "{unknown:?}");
    let wrong = stanch(&["group", "x", "--traces", &traces, "--format", "nezha"]);
    assert!(wrong.exit == 2 && wrong.err.contains("is Jaeger JSON"), "{wrong:?}");
    let missing = stanch(&["group", "x", "--traces", text(&dir.path().join("none"))]);
    assert!(missing.exit == 2 && missing.err.contains("none"), "{missing:?}");
    let broken = dir.path().join("broken.json");
    std::fs::write(&broken, "{\"data\": [\n  {\"traceID\": \"1\",\n   \"spans\": [}]}").unwrap();
    let broken = stanch(&["group", "x", "--traces", text(&broken)]);
    assert!(broken.exit == 2 && broken.err.contains("broken.json: line 3, column 14"), "{broken:?}");
}

/// Services that live until their standard input closes, under a supervisor and a server that watch them.
#[test]
fn an_incident_that_nobody_confirms_is_escalated_and_leaves_evidence_that_anyone_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();
    write("stanch.toml", "[service.front]\nrun = [\"cat\"]\n[service.back]\nrun = [\"cat\"]\n[edge.\"front->back\"]\n");
    let first = "[tier.bronze.windows]\nimpaired_for = \"200ms\"\n";
    write("policy.toml", &format!("{}\n{first}", governance::policy::DEFAULT_TEXT));
    let (topology, platform, data) = (at("stanch.toml"), at("platform"), at("data"));
    let mut supervisor = Running::start(dir.path(), &["supervise", text(&topology), "--data", text(&platform)]);
    wait_for("the supervised services", || {
        // Supervisor, proxy and two services.
        (processes_of(dir.path()).len() == 4).then_some(())
    });
    let policy = at("policy.toml");
    let arguments = ["--topology", text(&topology), "--platform", text(&platform), "--policy", text(&policy)];
    let server = Server::start(&data, &arguments);

    let stale = stanch(&["group", "back", "--server", &server.url]);
    assert!(stale.exit == 3 && stale.err.contains("no spans have arrived"), "{stale:?}");
    let unknown = stanch(&["recover", "bakc", "--server", &server.url]);
    assert!(unknown.exit == 2 && unknown.err.contains("did you mean `back`?"), "{unknown:?}");
    let bundle = at("incident.stanch");
    let recover = stanch(&["recover", "back", "--server", &server.url, "--json", "--evidence", text(&bundle)]);
    assert_eq!(recover.exit, 20, "{recover:?}");
    let view = recover.json();
    assert_eq!(
        (&view["outcome"], &view["exit"], &view["evidence"]["verified"]),
        (&json!("escalated"), &json!(20), &json!(true))
    );
    let incident = view["incident"].as_str().unwrap();
    let again = at("again.stanch");
    let resume = |server: &Server, id: &str| {
        stanch(&["recover", "--resume", id, "--server", &server.url, "--json", "--evidence", text(&again)])
    };
    let told = resume(&server, incident);
    assert_eq!((told.exit, &told.json()["outcome"]), (20, &view["outcome"]));
    let unknown = resume(&server, "none");
    assert!(unknown.exit == 2 && unknown.err.contains("no incident `none`"), "{unknown:?}");
    server.end();
    // A server that did not see it knows how it ended.
    let server = Server::start(&data, &arguments);
    let told = resume(&server, incident);
    assert_eq!((told.exit, &told.json()["outcome"]), (20, &view["outcome"]), "{told:?}");
    assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&bundle).unwrap());
    assert_eq!(http(&server.url, "GET", "/incidents/none", "").0, 404);
    server.end();
    supervisor.signal(Signal::TERM);
    assert_eq!(supervisor.ended(), Some(0));
    wait_until_nothing_is_left(dir.path());
    verified_by_anyone(&bundle, &data, incident);
}

fn verified_by_anyone(bundle: &Path, data: &Path, incident: &str) {
    let verify = |more: &[&str]| stanch(&[&["evidence", "verify", text(bundle)], more].concat());
    let plain = verify(&[]);
    assert!(plain.exit == 0 && plain.out.starts_with("VERIFIED") && plain.out.contains(incident), "{plain:?}");
    let trust = data.join("trust.keys");
    let pinned = verify(&["--json", "--trust", text(&trust)]).json();
    assert_eq!(
        (&pinned["verified"], &pinned["pinned"], &pinned["incident"]),
        (&json!(true), &json!(true), &json!(incident))
    );
    let other = tempfile::tempdir().unwrap();
    assert_eq!(stanch(&["init", "--data", text(other.path())]).exit, 0);
    let strangers = verify(&["--trust", text(&other.path().join("trust.keys"))]);
    assert!(strangers.exit == 50 && strangers.err.contains("NOT VERIFIED"), "{strangers:?}");
    let shown = stanch(&["evidence", "show", text(bundle)]);
    assert!(shown.exit == 0 && shown.out.contains("detection") && shown.out.contains("seal"), "{shown:?}");

    let mut flipped = std::fs::read(bundle).unwrap();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    std::fs::write(bundle, flipped).unwrap();
    let refused = verify(&["--json"]);
    assert_eq!((refused.exit, &refused.json()["verified"]), (50, &json!(false)));
}
