//! Holds on the sample shop: before a recovery, and in the middle of its commit with executor and server killed.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::disallowed_methods, reason = "it compares the ledger's times with its own")]

mod support;

use governance::bundle::{records, verify};
use governance::record::RecordKind;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use server::process::ledger::{self, Outcome};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{
    Ran, Running, marked, output, processes_of, program, stanch, wait_for, wait_until_nothing_is_left, wait_up_to,
};

/// How long after its acknowledgment something may still begin.
const EFFECTIVE_MS: i64 = 1_000;
/// How long an executor that is asked to end may take: much less than a commit may.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// How many shops are tried until one comes to a commit.
const TRIES_MAX: u32 = 3;
/// How long it is watched that nothing does.
const WATCHED_MS: i64 = 2_500;

struct Shop {
    dir: PathBuf,
    data: String,
    url: String,
}

#[test]
fn a_hold_stops_what_would_begin_whoever_dies_and_a_person_lifts_it() {
    for tried in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let shop = Shop::up(dir.path());
        shop.holds_before();
        let found = shop.holds_the_commit();
        shop.holds_without_a_server();
        drop(shop);
        wait_until_nothing_is_left(dir.path());
        match found {
            Ok(()) => return,
            // What a machine that is busy with other things measures may admit no plan at all.
            Err(said) => assert!(tried < TRIES_MAX, "no commit began in {tried} shops: {said}"),
        }
    }
}

/// However the test ends.
impl Drop for Shop {
    fn drop(&mut self) {
        let _ = marked(&self.dir, &["sandbox", "down", "--data", text(&self.dir)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
}

impl Shop {
    fn up(dir: &Path) -> Shop {
        let up = marked(dir, &["sandbox", "up", "--port", "0", "--json", "--data", text(dir)]);
        assert_eq!(up.exit, 0, "{up:?}");
        let data = dir.join("server");
        let ready: Value = serde_json::from_slice(&std::fs::read(data.join("server.json")).unwrap()).unwrap();
        Shop { dir: dir.to_owned(), data: text(&data).to_owned(), url: ready["url"].as_str().unwrap().to_owned() }
    }

    fn say(&self, words: &[&str]) -> Ran {
        stanch(&[words, &["--json", "--data", &self.data]].concat())
    }

    /// Places a hold; answers when it was acknowledged.
    fn hold(&self, words: &[&str]) -> i64 {
        let held = self.say(&[&["hold"], words].concat());
        assert_eq!((held.exit, &held.json()["changed"]), (0, &json!(true)), "{held:?}");
        now_ms()
    }

    fn resume(&self, scope: &str) {
        let lifted = self.say(&["resume", scope]);
        assert_eq!((lifted.exit, &lifted.json()["changed"]), (0, &json!(true)), "{lifted:?}");
    }

    fn recover(&self, bundle: &str) -> Running {
        let file = self.dir.join(bundle);
        Running::start(&self.dir, &["recover", "checkout", "--server", &self.url, "--evidence", text(&file)])
    }

    /// When calls began, by the ledgers of everything that a plan changes.
    fn begun(&self) -> Vec<i64> {
        let lines = ["payments", "checkout"].iter().flat_map(|name| ledger::read(&self.dir, name).unwrap());
        lines.filter(|line| line.outcome == Outcome::Begun).map(|line| line.at_ms).collect()
    }

    fn any_begun(&self) -> Option<bool> {
        (!self.begun().is_empty()).then_some(true)
    }

    /// Nothing begins later than a second after the acknowledgment, for as long as it is watched.
    fn nothing_begins(&self, acknowledged: i64) {
        let until = now_ms().max(acknowledged + EFFECTIVE_MS) + WATCHED_MS;
        wait_for("the end of the watch", || {
            let late: Vec<i64> = self.begun().into_iter().filter(|at| *at > acknowledged + EFFECTIVE_MS).collect();
            assert_eq!(late, Vec::<i64>::new(), "begun under the hold of {acknowledged}");
            (now_ms() > until).then_some(())
        });
    }

    fn holds_before(&self) {
        self.hold(&["--reason", "failover of the database", "--as", "kim"]);
        let mut refused = self.recover("before.stanch");
        let lines = refused.rest();
        // Long rows are wrapped for reading.
        let row = lines.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(refused.ended(), Some(70), "{lines}");
        let why = "all is held by kim (failover of the database); `stanch resume all` lifts it";
        assert!(row.contains("outcome held (exit 70): G101") && row.contains(why), "{lines}");
        let again = self.say(&["hold"]);
        assert_eq!((again.exit, &again.json()["changed"]), (0, &json!(false)), "{again:?}");
        assert_eq!(again.json()["holds"][0]["scope"], json!("all"), "{again:?}");
        self.resume("all");
        let nothing = self.say(&["resume"]);
        assert!(nothing.exit == 0 && nothing.out.contains("no hold on all"), "{nothing:?}");
        let unknown = self.say(&["hold", "paymets"]);
        assert!(unknown.exit == 2 && unknown.err.contains("did you mean `payments`"), "{unknown:?}");
        assert!(self.begun().is_empty());
    }

    /// `Err`: no commit began.
    fn holds_the_commit(&self) -> Result<(), String> {
        let fault = stanch(&["sandbox", "fault", "hang", "--service", "payments", "--data", text(&self.dir)]);
        assert_eq!(fault.exit, 0, "{fault:?}");
        let mut run = self.recover("commit.stanch");
        let said = run.until("approval ")?;
        if !wait_for("the first step, or the end", || if run.is_over() { Some(false) } else { self.any_begun() }) {
            return Err(said + &run.rest());
        }
        let acknowledged = self.hold(&["--reason", "looks wrong", "--as", "kim"]);
        self.nothing_begins(acknowledged);
        let begun = self.begun().len();
        kill(wait_for("an executor", || self.executor()));
        self.nothing_begins(acknowledged);
        let server = processes_of(&self.dir).into_iter().find(|(_, line)| line.contains(" serve ")).unwrap().0;
        kill(server);
        let listed = self.say(&["hold", "--list"]);
        assert_eq!((listed.exit, &listed.json()["holds"][0]["by"]), (0, &json!("kim")), "{listed:?}");
        let mut again = self.serve();
        self.nothing_begins(acknowledged);
        self.asks_the_executor_to_end();
        self.nothing_begins(acknowledged);
        self.resume("all");
        let lines = run.rest();
        assert!(lines.contains("held           all is held by kim (looks wrong)"), "{lines}");
        // What it comes to depends on how fast this machine is; that it went on does not.
        assert!(matches!(run.ended(), Some(0 | 20 | 40)), "{lines}");
        assert!(self.begun().len() > begun, "it goes on where it was stopped: {lines}");
        let bundle = std::fs::read(self.dir.join("commit.stanch")).unwrap();
        assert!(verify(&bundle, None).is_ok());
        let kinds: Vec<RecordKind> =
            records(&bundle).unwrap().iter().map(|(_, statement)| statement.record.kind()).collect();
        for wanted in [RecordKind::Hold, RecordKind::Resume, RecordKind::Seal] {
            assert!(kinds.contains(&wanted), "{wanted}: {kinds:?}");
        }
        again.signal(Signal::TERM);
        assert_eq!(again.ended(), Some(0));
        Ok(())
    }

    fn executor(&self) -> Option<u32> {
        let pid = std::fs::read_to_string(Path::new(&self.data).join("executor.pid")).ok()?.trim().parse().ok()?;
        self.runs(pid).then_some(pid)
    }

    fn runs(&self, pid: u32) -> bool {
        processes_of(&self.dir).iter().any(|(running, _)| *running == pid)
    }

    /// Its commit is frozen for as long as nobody lifts the hold, and it ends all the same.
    fn asks_the_executor_to_end(&self) {
        let pid = wait_for("an executor", || self.executor());
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::TERM).unwrap();
        let ended = wait_up_to(ENDS_WITHIN, || (!self.runs(pid)).then_some(()));
        assert!(ended.is_some(), "the executor goes on under the hold");
    }

    /// The server once more, on the same directory and port.
    fn serve(&self) -> Running {
        let port = self.url.rsplit(':').next().unwrap();
        let file = |name: &str| text(&self.dir.join(name)).to_owned();
        let (topology, policy) = (file("stanch.toml"), file("sandbox.policy.toml"));
        let server = ["serve", "--json", "--data", &self.data, "--port", port];
        let platform = ["--platform", text(&self.dir), "--topology", &topology, "--policy", &policy];
        let mut again = Running::start(&self.dir, &[&server[..], &platform].concat());
        again.line();
        again
    }

    fn holds_without_a_server(&self) {
        let held = self.say(&["hold", "checkout"]);
        assert_eq!((held.exit, &held.json()["holds"][0]["scope"]), (0, &json!("checkout")), "{held:?}");
        assert_eq!(held.json()["data"], json!(self.data), "{held:?}");
        self.resume("checkout");
        // A server that is named and does not answer keeps nobody from freezing the store that is named, too.
        let mut named = program(&["hold", "checkout", "--json", "--data", &self.data]);
        let held = Ran::from(output({
            named.env("STANCH_SERVER", &self.url);
            named
        }));
        assert_eq!((held.exit, &held.json()["changed"]), (0, &json!(true)), "{held:?}");
        self.resume("checkout");
        let unnamed = stanch(&["hold", "--server", &self.url]);
        assert!(unnamed.exit == 1 && unnamed.err.contains("--data DIR"), "{unnamed:?}");
        let elsewhere = stanch(&["hold", "--data", text(&self.dir)]);
        assert!(elsewhere.exit == 2 && elsewhere.err.contains("no data directory of one"), "{elsewhere:?}");
    }
}
