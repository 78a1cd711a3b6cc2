//! A disk that fails in the middle of an incident: it waits, goes on, and its evidence is whole.

use crate::disk::Recorder;
use crate::kill::asked;
use crate::support::{Running, Server, http, processes_of, program, stanch, wait_for, wait_until_nothing_is_left};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// The short form lets syncs fail from this one on, counted from the asking; the long form tries as many places.
const SPARED: u64 = 11;

/// Two services that live until their standard input closes, under a supervisor that watches them.
struct Platform {
    dir: tempfile::TempDir,
    supervisor: Running,
}

impl Platform {
    fn start() -> Platform {
        let dir = tempfile::tempdir().unwrap();
        let text = "[service.front]\nrun = [\"cat\"]\n[service.back]\nrun = [\"cat\"]\n[edge.\"front->back\"]\n";
        std::fs::write(dir.path().join("stanch.toml"), text).unwrap();
        let soon = "[tier.bronze.windows]\nimpaired_for = \"200ms\"\n";
        let policy = format!("{}\n{soon}", governance::policy::DEFAULT_TEXT);
        std::fs::write(dir.path().join("policy.toml"), policy).unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let supervisor = Running::start(dir.path(), &["supervise", &at("stanch.toml"), "--data", &at("platform")]);
        wait_for("the supervised services", || (processes_of(dir.path()).len() == 4).then_some(()));
        Platform { dir, supervisor }
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// A server that watches it.
    fn serve(&self, data: &Path, environment: &[(&str, PathBuf)]) -> Server {
        let (topology, platform, policy) = (self.at("stanch.toml"), self.at("platform"), self.at("policy.toml"));
        let more = ["--topology", &topology, "--platform", &platform, "--policy", &policy];
        Server::start_with(data, &more, environment)
    }

    fn recover(&self, server: &Server, what: &[&str]) -> Child {
        let bundle = self.at("incident.stanch");
        let arguments = ["--server", &server.url, "--json", "--evidence", &bundle];
        program(&[&["recover"], what, &arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn end(mut self) {
        self.supervisor.signal(Signal::TERM);
        assert_eq!(self.supervisor.ended(), Some(0));
        wait_until_nothing_is_left(self.dir.path());
    }
}

#[test]
fn an_incident_waits_for_a_failing_disk_and_its_evidence_is_whole() {
    let platform = Platform::start();
    let places = asked("PLACES", 1);
    for place in 0..places {
        let spared = if places == 1 { SPARED } else { place };
        let found = one(&platform, spared);
        println!("syncs fail from the {}th on, for a while: {found}", spared + 1);
    }
    platform.end();
}

/// One incident on a server whose syncs fail after so many; says how far it had come when they did.
fn one(platform: &Platform, spared: u64) -> String {
    let recorder = Recorder::build();
    let server = platform.serve(&recorder.data(), &recorder.failing_only());
    recorder.fail("sync", Errno::IO, spared);
    let mut recover = platform.recover(&server, &["back"]);
    let refuses = || http(&server.url, "GET", "/ready", "").0 == 503;
    // An incident that needs fewer syncs is over before any fails.
    let failed =
        wait_for(
            "a sync that fails",
            || {
                if refuses() { Some(true) } else { recover.try_wait().unwrap().map(|_| false) }
            },
        );
    let records = incident(&server).map_or_else(|| "before it was opened".to_owned(), |view| stages(&view));
    recorder.heal();
    wait_for("a store that takes writes again", || (!refuses()).then_some(()));
    let ended = crate::support::Ran::from(recover.wait_with_output().unwrap());
    if failed && ended.exit == 1 {
        // It was told that it may not have been opened; the store knows by now.
        assert!(ended.err.contains("I/O error") && ended.err.contains("not known"), "{ended:?}");
        let opened = incident(&server).map(|view| view["incident"].as_str().unwrap().to_owned());
        let more = opened.as_ref().map_or_else(|| vec!["back"], |id| vec!["--resume", id]);
        whole(platform, &platform.recover(&server, &more).wait_with_output().unwrap().into());
    } else {
        whole(platform, &ended);
    }
    server.end();
    let doctor = stanch(&["doctor", "--json", "--data", recorder.data().to_str().unwrap()]);
    assert_eq!(doctor.exit, 0, "{doctor:?}");
    if failed { records } else { "over before".to_owned() }
}

/// It ended as it does without a fault, and anyone can verify how.
fn whole(platform: &Platform, ended: &crate::support::Ran) {
    assert_eq!(ended.exit, 20, "{ended:?}");
    let view = ended.json();
    assert_eq!((&view["outcome"], &view["evidence"]["verified"]), (&json!("escalated"), &json!(true)), "{view}");
    let told = view["lines"].to_string();
    assert!(told.contains("(exit 20)") && !told.contains("internal:") && !told.contains("not sealed"), "{told}");
    assert_eq!(stanch(&["evidence", "verify", &platform.at("incident.stanch")]).exit, 0);
}

/// The server's only incident, if it has one.
fn incident(server: &Server) -> Option<Value> {
    let ids: Vec<String> = serde_json::from_str(&http(&server.url, "GET", "/incidents", "").1).unwrap();
    let (status, view) = http(&server.url, "GET", &format!("/incidents/{}", ids.first()?), "");
    (status == 200).then(|| serde_json::from_str(&view).unwrap())
}

fn stages(view: &Value) -> String {
    let spent = |stage: &&Value| stage["ms"].as_u64().unwrap_or(0) > 0;
    let last = view["stages"].as_array().into_iter().flatten().rfind(spent);
    last.map_or_else(|| "before the first stage".to_owned(), |stage| format!("after {}", stage["name"]))
}
