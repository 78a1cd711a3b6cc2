//! A shop whose server and agent run under the test, as they would under a service manager: what is killed is
//! started again. Supervisor and proxy are what is recovered; nobody starts those again.

use crate::script::{Blow, Script, Victim};
use crate::support::{MARK, processes_of, program, stanch, try_http, wait_for, wait_until_nothing_is_left, wait_up_to};
use rustix::process::{Pid, Signal, kill_process};
use sandbox::prepare::{Options, Prepared, prepare};
use serde_json::Value;
use server::control::{ProxyFile, ProxyState, Status};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long the undisturbed shop is watched before it is broken: one baseline of its policy and a margin.
const BASELINE: Duration = Duration::from_millis(7_000);
/// How long a new shop may take to serve.
const START_MAX: Duration = Duration::from_secs(40);
/// LIMIT: shops started in a row that do not serve.
const STARTS_MAX: u32 = 5;
/// How sure the graph must be: more than the policy wants, for it forgets while the incident lasts.
const MISS_PPM_MAX: u64 = 35_000;
/// The service that is broken; it has two replicas.
const BROKEN: &str = "payments";

/// A running shop.
pub(crate) struct Shop {
    /// Kept by a failing test, removed by any other.
    temporary: Option<tempfile::TempDir>,
    pub(crate) dir: PathBuf,
    prepared: Prepared,
    url: String,
    supervisor: Child,
    server: Child,
    /// The agent that replaced the supervisor's own.
    agent: Option<Child>,
    incidents: u32,
    /// Where its ledgers and start logs ended before the incident.
    pub(crate) known: crate::audit::Applied,
}

/// One incident, as it ended.
pub(crate) struct Incident {
    pub(crate) view: Value,
    pub(crate) outcome: String,
    pub(crate) bundle: PathBuf,
    /// The process that was broken.
    pub(crate) broken: u32,
    /// Settings of the proxy before.
    pub(crate) settings: recovery::call::State,
    /// The kills that met the commit.
    pub(crate) struck: Vec<Blow>,
    /// And those that did not.
    pub(crate) missed: u32,
    /// Whether something was killed that nobody starts again, or what was broken still is.
    pub(crate) is_ruined: bool,
    /// Keys that took effect.
    pub(crate) keys: Cell<usize>,
    took: Duration,
}

impl std::fmt::Display for Incident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (outcome, keys, struck) = (&self.outcome, self.keys.get(), self.struck.len());
        let took = self.took.as_secs_f64();
        let lines = self.view["lines"].as_array().unwrap();
        let why = lines.iter().filter_map(|line| line.as_str()).find(|line| line.starts_with("outcome"));
        let why = why.and_then(|why| why.split_once(": ")).map_or("", |(_, why)| why);
        write!(f, "{outcome} after {took:.1} s, {struck} kills in its commit, {keys} keys took effect: {why}")
    }
}

impl Shop {
    /// Starts everything. On a busy machine a shop can start into a retry storm that it never leaves: such a one is
    /// ended, and another one started.
    pub(crate) fn start() -> Shop {
        for _ in 0..STARTS_MAX {
            let shop = Shop::open();
            if wait_up_to(START_MAX, || shop.serves()).is_some() {
                return shop;
            }
            eprintln!("the shop did not serve within {START_MAX:?}; another one is started");
            shop.end();
        }
        panic!("no shop serves here");
    }

    fn open() -> Shop {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().to_owned();
        // A server that is started again needs the port it had.
        let port = sandbox::ports::free_port().unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let prepared = prepare(&dir, &Options::new(&url)).unwrap();
        let policy = std::fs::read_to_string(&prepared.policy).unwrap();
        // Nobody is there to place a hold.
        std::fs::write(&prepared.policy, policy.replace("countdown = \"2s\"", "countdown = \"100ms\"")).unwrap();
        let agent =
            format!("[[agent]]\nname = \"agent/acme\"\nrole = \"planning\"\nurl = \"{}\"\n", prepared.agent_url);
        std::fs::create_dir_all(dir.join("server")).unwrap();
        std::fs::write(dir.join("server/config.toml"), agent).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let supervise = ["supervise", &text(&prepared.topology), "--data", &text(&dir), "--lifeline"];
        let supervisor = spawn(&dir, "supervisor", &supervise);
        let server = serve(&dir, &prepared, &url);
        let known = crate::audit::Applied::default();
        let temporary = Some(temporary);
        Shop { temporary, dir, prepared, url, supervisor, server, agent: None, incidents: 0, known }
    }

    /// Breaks a replica, has it recovered, and kills as the script says.
    pub(crate) fn suffer(&mut self, script: &Script) -> Incident {
        self.mature();
        self.known = crate::audit::Applied::read(&self.dir);
        self.incidents += 1;
        let settings = wait_for("the proxy's settings", || Some(self.proxy()?.settings));
        let seed = script.seed.to_string();
        let data = self.dir.to_str().unwrap().to_owned();
        let fault = ["sandbox", "fault", "hang", "--service", BROKEN, "--seed", &seed, "--json", "--data", &data];
        let broken = stanch(&fault).json()["pid"].as_u64().unwrap();
        let bundle = self.dir.join(format!("incident-{}.stanch", self.incidents));
        let answer = self.dir.join(format!("recover-{}.out", self.incidents));
        let before = self.ids();
        let recover = ["recover", "checkout", "--server", &self.url, "--json", "--evidence", bundle.to_str().unwrap()];
        let mut recover = spawn(&self.dir, &format!("recover-{}", self.incidents), &recover);
        let began = Instant::now();
        let ended = |recover: &mut Child| recover.try_wait().unwrap().is_some();
        let acts = wait_for("the first record of a commit", || {
            if ended(&mut recover) { Some(false) } else { self.acts(&before).then_some(true) }
        });
        let first = Instant::now();
        let mut done = Vec::new();
        for blow in script.blows.iter().filter(|_| acts) {
            while first.elapsed() < blow.after && !ended(&mut recover) {
                std::thread::park_timeout(Duration::from_millis(1).min(blow.after.saturating_sub(first.elapsed())));
            }
            if ended(&mut recover) {
                break;
            }
            done.push((*blow, self.kill(blow.victim)));
        }
        wait_for("the end of an incident", || ended(&mut recover).then_some(()));
        let took = began.elapsed();
        let text = std::fs::read_to_string(&answer).unwrap();
        let view: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: no answer: {text}"));
        assert_eq!(recover.wait().unwrap().code(), view["exit"].as_i64().and_then(|exit| i32::try_from(exit).ok()));
        let outcome = view["outcome"].as_str().unwrap().to_owned();
        let is_ruined = outcome != "committed" || done.iter().any(|(blow, _)| blow.victim.is_irreplaceable());
        let (struck, missed) = crate::audit::within_the_commit(&bundle, script, done);
        let keys = Cell::new(0);
        let broken = u32::try_from(broken).unwrap();
        Incident { view, outcome, bundle, broken, settings, struck, missed, is_ruined, keys, took }
    }

    fn serves(&self) -> Option<()> {
        let status = self.status()?;
        let all = !status.instances.is_empty() && status.instances.iter().all(|instance| instance.ready);
        let seconds = self.seconds(3);
        (all && seconds.len() == 3 && seconds.iter().all(is_good)).then_some(())
    }

    /// Waits until everything serves and the graph is sure.
    fn mature(&mut self) {
        wait_for("a shop that serves", || self.serves());
        let began = Instant::now();
        wait_for("a graph that is sure", || {
            let path = format!("/topology/permission?services=gateway,checkout,{BROKEN}");
            let (status, body) = ask(&self.url, &path)?;
            let sure: Value = serde_json::from_str(&body).ok().filter(|_| status == 200)?;
            let is_sure = sure["level"] == "full" && sure["miss_ppm"].as_u64()? <= MISS_PPM_MAX;
            (is_sure && began.elapsed() >= BASELINE).then_some(())
        });
    }

    /// Whether an incident that is not among `before` has a record of its commit.
    fn acts(&self, before: &[String]) -> bool {
        let new = self.ids().into_iter().find(|id| !before.contains(id));
        let view = new.and_then(|id| ask(&self.url, &format!("/incidents/{id}")));
        let view: Option<Value> = view.and_then(|(_, body)| serde_json::from_str(&body).ok());
        view.is_some_and(|view| view["commit"]["executors"].as_array().is_some_and(|all| !all.is_empty()))
    }

    fn ids(&self) -> Vec<String> {
        ask(&self.url, "/incidents").and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or_default()
    }

    /// SIGKILL, at once; answers when. Then what a service manager would do.
    fn kill(&mut self, victim: Victim) -> i64 {
        let pid = match victim {
            Victim::Server => self.server.id(),
            Victim::Executor => wait_for("an executor", || self.executor()),
            Victim::Agent => self.agent.as_ref().map_or_else(|| self.companion("agent"), Child::id),
            Victim::Proxy => self.status().unwrap().proxy_pid,
            Victim::Supervisor => self.supervisor.id(),
        };
        let at = server::engine::Env::real().now().0;
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        match victim {
            Victim::Server => {
                self.server.wait().unwrap();
                self.server = serve(&self.dir, &self.prepared, &self.url);
            }
            Victim::Agent => {
                self.agent.take().map(|mut agent| agent.wait().unwrap());
                let listen = self.prepared.agent_url.trim_start_matches("http://").to_owned();
                let agent = ["sandbox", "agent", "--listen", &listen, "--lifeline"];
                self.agent = Some(spawn(&self.dir, "agent", &agent));
            }
            Victim::Supervisor => drop(self.supervisor.wait().unwrap()),
            Victim::Executor | Victim::Proxy => {}
        }
        at
    }

    /// The running executor, if one runs now.
    fn executor(&self) -> Option<u32> {
        let pid: u32 = std::fs::read_to_string(self.dir.join("server/executor.pid")).ok()?.trim().parse().ok()?;
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        line.contains("\0executor\0").then_some(pid)
    }

    fn companion(&self, name: &str) -> u32 {
        let status = self.status().unwrap();
        status.companions.iter().find(|companion| companion.name == name).unwrap().pid
    }

    /// What the supervisor says, if there is one.
    pub(crate) fn status(&self) -> Option<Status> {
        let ran = stanch(&["sandbox", "status", "--json", "--data", self.dir.to_str().unwrap()]);
        (ran.exit == 0).then(|| serde_json::from_str(&ran.out).unwrap())
    }

    /// What the proxy says, if there is one.
    pub(crate) fn proxy(&self) -> Option<ProxyState> {
        let file: ProxyFile = serde_json::from_slice(&std::fs::read(self.dir.join("proxy.json")).ok()?).ok()?;
        let (_, body) = ask(&format!("http://{}", file.control), "/state")?;
        serde_json::from_str(&body).ok()
    }

    /// The last settled seconds of the client's record.
    pub(crate) fn seconds(&self, count: usize) -> Vec<Value> {
        let answer = ask(&self.prepared.load_url, "/record?since_ms=0");
        let all: Vec<Value> = answer.and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or_default();
        // The newest fills up, and requests of the one before may still be answered.
        let settled = all.len().saturating_sub(2);
        all[settled.saturating_sub(count)..settled].to_vec()
    }

    /// Ends the server as an init system would and looks at what it stored; then asks a new one how the incident ended.
    pub(crate) fn check_store(&mut self, incident: &Incident) {
        terminate(&mut self.server);
        let doctor = stanch(&["doctor", "--data", self.dir.join("server").to_str().unwrap()]);
        assert_eq!(doctor.exit, 0, "{doctor:?}");
        self.server = serve(&self.dir, &self.prepared, &self.url);
        wait_for("the server", || ask(&self.url, "/incidents"));
        let id = incident.view["incident"].as_str().unwrap();
        let again = self.dir.join("again.stanch");
        let resume =
            ["recover", "--resume", id, "--server", &self.url, "--evidence", again.to_str().unwrap(), "--json"];
        let told = stanch(&resume);
        let same =
            (&told.json()["outcome"], &told.json()["exit"]) == (&incident.view["outcome"], &incident.view["exit"]);
        assert!(same && Some(told.exit.into()) == incident.view["exit"].as_i64(), "{told:?}");
        assert_eq!(std::fs::read(again).unwrap(), std::fs::read(&incident.bundle).unwrap(), "the same bundle");
    }

    /// Ends what still runs; nothing may be left.
    pub(crate) fn end(mut self) -> Option<Shop> {
        terminate(&mut self.supervisor);
        if let Some(mut agent) = self.agent.take() {
            terminate(&mut agent);
        }
        terminate(&mut self.server);
        wait_until_nothing_is_left(&self.dir);
        None
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        for child in [Some(&mut self.server), Some(&mut self.supervisor), self.agent.as_mut()].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for (pid, _) in processes_of(&self.dir) {
                let _ = i32::try_from(pid).ok().and_then(Pid::from_raw).map(|pid| kill_process(pid, Signal::KILL));
            }
            let kept = self.temporary.take().map(tempfile::TempDir::keep);
            eprintln!("the shop's directory is kept: {}", kept.unwrap_or_default().display());
        }
    }
}

/// Whether a second of the client's record is a good one.
pub(crate) fn is_good(second: &Value) -> bool {
    let count = |name: &str| second[name].as_u64().unwrap();
    count("sent") > 0 && (count("failed") + count("late") + count("shed")) * 100 <= count("sent")
}

fn serve(dir: &Path, prepared: &Prepared, url: &str) -> Child {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (data, port) = (text(&dir.join("server")), url.rsplit(':').next().unwrap());
    let (topology, policy) = (text(&prepared.topology), text(&prepared.policy));
    let arguments = ["serve", "--json", "--lifeline", "--data", &data, "--port", port, "--topology", &topology];
    let more = ["--platform", &text(dir), "--policy", &policy];
    spawn(dir, "server", &[&arguments[..], &more[..]].concat())
}

/// Starts a process that ends with the test, however that ends; its output goes to files in `dir`.
fn spawn(dir: &Path, name: &str, arguments: &[&str]) -> Child {
    let file = |kind: &str| {
        let path = dir.join(format!("{name}.{kind}"));
        std::fs::File::options().create(true).append(true).open(path).unwrap()
    };
    program(arguments).env(MARK, dir).stdin(Stdio::piped()).stdout(file("out")).stderr(file("err")).spawn().unwrap()
}

fn terminate(child: &mut Child) {
    if child.try_wait().unwrap().is_none() {
        kill_process(Pid::from_child(child), Signal::TERM).unwrap();
    }
    wait_for("the end of a process", || child.try_wait().unwrap());
}

/// A GET; nothing when nobody answers.
fn ask(url: &str, path: &str) -> Option<(u16, String)> {
    try_http(url, "GET", path, "").ok()
}
