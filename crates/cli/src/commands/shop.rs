//! `stanch sandbox`: the sample shop, started as one topology file under the general supervisor.

use super::data_dir;
use super::show::table;
use super::signals::Signals;
use crate::args::{Fault as FaultArg, FaultArgs, ShopArgs, UpArgs};
use crate::failure::Failure;
use recovery::graph::ReasonKind;
use sandbox::fault::{self, Broken, Fault};
use sandbox::ports::free_port;
use sandbox::prepare::{Options, prepare};
use serde::Deserialize;
use server::control::Supervisor;
use server::serve::{Ready, SERVER_FILE};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

/// Directory of the server's own data inside the shop's.
pub(crate) const SERVER_DIR: &str = "server";
/// How long the shop may take to start.
const START_MAX: Duration = Duration::from_secs(30);
/// How long it may take to end.
const END_MAX: Duration = Duration::from_secs(10);
/// How long the undisturbed shop is watched: one baseline of `sandbox.policy.toml` and a margin.
const BASELINE: Duration = Duration::from_millis(7_000);
/// How long the graph may take to become sure, and the shop to serve its client well.
const MATURE_MAX: Duration = Duration::from_secs(60);
/// The newest seconds of the client's record are still filling up.
const UNSETTLED: usize = 2;
/// So many settled seconds before the fault are looked at, and so many of them must be good, the newest among them: what
/// is not well before it is broken shows nothing.
const LOOKED_AT: usize = 7;
const GOOD_MIN: usize = 6;
/// How often files and sockets are looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A shop: not started, running, or ended.
pub(crate) struct Shop {
    pub(crate) dir: PathBuf,
    pub(crate) url: String,
    /// Where the client's record is read.
    pub(crate) record_url: String,
    /// The supervisor, while this process holds its lifeline.
    child: Option<tokio::process::Child>,
}

/// The server is one more process under the supervisor.
fn add_server(topology: &Path, port: u16) -> Result<(), Failure> {
    let mut text = std::fs::read_to_string(topology)?;
    let arguments = [
        "{self}",
        "serve",
        "--lifeline",
        "--json",
        "--data",
        "{data}/server",
        "--port",
        &port.to_string(),
        // The shop's services know the server's own address.
        "--otlp-grpc",
        "off",
        "--otlp-http",
        "off",
        "--topology",
        "{data}/stanch.toml",
        "--platform",
        "{data}",
        "--policy",
        "{data}/sandbox.policy.toml",
    ];
    text.push_str(&format!("\n[process.server]\nrun = {arguments:?}\n"));
    std::fs::write(topology, text)?;
    Ok(())
}

/// The supervisor ends when this process ends, however it ends, unless it was let go before.
#[expect(clippy::disallowed_methods, reason = "the command line starts the supervisor, which is this same program")]
fn spawn_supervisor(dir: &Path, topology: &Path) -> Result<tokio::process::Child, Failure> {
    let log = std::fs::File::create(dir.join("supervisor.log"))?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg("supervise").arg(topology).arg("--data").arg(dir).arg("--lifeline");
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut command = tokio::process::Command::from(command);
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log)).spawn()?)
}

/// The port, if nobody else has it.
fn usable(port: u16) -> Result<u16, Failure> {
    let bound = std::net::TcpListener::bind(("127.0.0.1", port));
    bound.map(|_| port).map_err(|error| {
        Failure::usage(format!("port {port} of 127.0.0.1 cannot be used: {error}"))
            .next("stanch sandbox up --port 0, which takes a free port and prints it")
    })
}

impl Shop {
    /// The shop that runs, ran or will run on a directory.
    pub(crate) fn at(dir: &Path) -> Shop {
        Shop { dir: dir.to_owned(), url: String::new(), record_url: String::new(), child: None }
    }

    /// Starts shop, server and executor. They end when this process ends, however it ends, or when [`Shop::end`] is
    /// called, also after a failure or in the middle of this.
    pub(crate) async fn start(&mut self, port: u16, seed: u64, hidden_coupling: bool) -> Result<(), Failure> {
        let dir = self.dir.clone();
        if Supervisor::new(&dir).status().await.is_ok() {
            let text = format!("a shop already runs on {}", dir.display());
            return Err(Failure::usage(text).next(format!("stanch sandbox down{}", given(&dir))));
        }
        let port = if port == 0 { free_port()? } else { usable(port)? };
        self.url = format!("http://127.0.0.1:{port}");
        let _ = std::fs::remove_file(dir.join(SERVER_DIR).join(SERVER_FILE));
        let prepared = prepare(&dir, &Options { seed, hidden_coupling, ..Options::new(&self.url) })?;
        add_server(&prepared.topology, port)?;
        let agent =
            format!("[[agent]]\nname = \"agent/acme\"\nrole = \"planning\"\nurl = \"{}\"\n", prepared.agent_url);
        std::fs::create_dir_all(dir.join(SERVER_DIR))?;
        std::fs::write(dir.join(SERVER_DIR).join("config.toml"), agent)?;
        self.record_url = format!("{}/record", prepared.load_url);
        self.child = Some(spawn_supervisor(&dir, &prepared.topology)?);
        self.wait_ready(START_MAX).await
    }

    /// Whether this process started it and has not let it go.
    pub(crate) fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// From now on it outlives this process.
    async fn let_go(&mut self) -> Result<(), Failure> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let Some(mut lifeline) = child.stdin.take() else { return Ok(()) };
        Ok(lifeline.write_all(server::supervisor::STAY).await?)
    }

    async fn wait_ready(&mut self, within: Duration) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                let log = std::fs::read_to_string(self.dir.join("supervisor.log")).unwrap_or_default();
                return Err(Failure::internal(format!("the shop's supervisor ended with {status}: {}", log.trim())));
            }
            if let Some(name) = self.is_lost().await {
                let log = self.dir.join("logs").join(format!("{name}.log"));
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let text = format!("the shop's {name} ended before the shop was ready: {}", said.trim());
                return Err(Failure::internal(text).next(format!("see {}", log.display())));
            }
            if self.is_ready().await {
                return Ok(());
            }
            if began.elapsed() > within {
                return Err(Failure::internal(format!(
                    "the shop was not ready after {} s; its logs are in {}",
                    within.as_secs(),
                    self.dir.join("logs").display()
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the graph is sure about these services and a whole baseline has passed: what breaks before that cannot
    /// be previewed.
    pub(crate) async fn mature(&self, services: &[&str], began: Instant) -> Result<Sure, Failure> {
        self.mature_within(MATURE_MAX, services, began).await
    }

    async fn mature_within(&self, within: Duration, services: &[&str], began: Instant) -> Result<Sure, Failure> {
        let client = super::follow::connect(&self.url)?;
        let path = format!("/topology/permission?services={}", services.join(","));
        let ready = Instant::now();
        loop {
            let reasons = match client.get_json::<Sure>(&path).await {
                Ok((200, sure)) if sure.is_enough() && ready.elapsed() >= BASELINE => {
                    if self.is_well().await {
                        return Ok(sure);
                    }
                    "the shop's client is not served well, perhaps because this machine is too busy".to_owned()
                }
                Ok((_, sure)) => sure.reasons.join(", "),
                Err(error) => error.to_string(),
            };
            if began.elapsed() > within {
                let took = began.elapsed().as_secs();
                return Err(Failure::internal(format!("not ready to be broken after {took} s: {reasons}")));
            }
            tokio::time::sleep(2 * LOOK_EVERY).await;
        }
    }

    /// A process beside the services that has ended: nobody starts it again.
    async fn is_lost(&self) -> Option<String> {
        let status = Supervisor::new(&self.dir).status().await.ok()?;
        status.companions.into_iter().find(|companion| !companion.alive).map(|companion| companion.name)
    }

    /// Whether its client has been served well for long enough, and is now.
    async fn is_well(&self) -> bool {
        let Ok(record) = server::platform::read_record(&self.record_url, base::Timestamp(0)).await else {
            return false;
        };
        let settled = record.iter().rev().skip(UNSETTLED).take(LOOKED_AT);
        let good: Vec<bool> =
            settled.map(|second| second.sent > 0 && (second.failed + second.late) * 100 < second.sent).collect();
        good.first() == Some(&true) && good.iter().filter(|good| **good).count() >= GOOD_MIN
    }

    async fn is_ready(&self) -> bool {
        let Ok(status) = Supervisor::new(&self.dir).status().await else { return false };
        let all = !status.instances.is_empty() && status.instances.iter().all(|instance| instance.ready);
        if !all || server_url(&self.dir).as_deref() != Some(&self.url) {
            return false;
        }
        let since = base::Timestamp(0);
        let record = server::platform::read_record(&self.record_url, since).await;
        record.is_ok_and(|seconds| seconds.iter().any(|second| second.ok > 0))
    }

    /// Ends everything and waits until it has ended; answers whether it has. What a supervisor that was killed could
    /// not end is killed.
    pub(crate) async fn end(&mut self) -> bool {
        // An answer may be lost with the supervisor; what counts is that it is gone.
        let _ = Supervisor::new(&self.dir).shutdown().await;
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            if tokio::time::timeout(END_MAX, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
        let ended = gone(&self.dir, END_MAX).await;
        if ended {
            server::supervisor::end_left_over(&self.dir);
        }
        ended
    }
}

async fn gone(dir: &Path, within: Duration) -> bool {
    let began = Instant::now();
    while Supervisor::new(dir).status().await.is_ok() {
        if began.elapsed() > within {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    true
}

/// Where the shop's server listens.
pub(crate) fn server_url(dir: &Path) -> Option<String> {
    let text = std::fs::read(dir.join(SERVER_DIR).join(SERVER_FILE)).ok()?;
    let ready: Ready = serde_json::from_slice(&text).ok()?;
    Some(ready.url)
}

/// The services of which one replica may break.
fn breakable() -> Vec<&'static str> {
    sandbox::profile::PROFILES.iter().filter(|profile| profile.replicas > 1).map(|profile| profile.name).collect()
}

/// Refuses a service that cannot break in this way.
pub(crate) fn check_breakable(service: &str, fault: FaultArg) -> Result<(), Failure> {
    let known = breakable();
    if !known.contains(&service) {
        return Err(Failure::usage(format!("`{service}` cannot be broken; these can: {}", known.join(", "))));
    }
    let is_configured = sandbox::profile::named(service).is_some_and(|profile| profile.config.is_some());
    if kind(fault) == Fault::BadConfig && !is_configured {
        let why = format!("`{service}` reads no configuration; payments does");
        return Err(Failure::usage(why).next("stanch sandbox fault bad-config --service payments"));
    }
    Ok(())
}

/// Refuses a service that the shop does not have.
pub(crate) fn check_known(service: &str) -> Result<(), Failure> {
    let names: Vec<&str> = sandbox::profile::PROFILES.iter().map(|profile| profile.name).collect();
    if names.contains(&service) {
        return Ok(());
    }
    Err(Failure::usage(format!("the shop has no service `{service}`; it has: {}", names.join(", "))))
}

/// The shop's own name of a fault.
pub(crate) fn kind(fault: FaultArg) -> Fault {
    match fault {
        FaultArg::Hang => Fault::Hang,
        FaultArg::Crash => Fault::Crash,
        FaultArg::Slow => Fault::Slow,
        FaultArg::Errors => Fault::Errors,
        FaultArg::Leak => Fault::Leak,
        FaultArg::BadConfig => Fault::BadConfig,
    }
}

/// Breaks one replica, or what all of them read.
pub(crate) async fn inject(dir: &Path, service: &str, kind: FaultArg, seed: u64) -> Result<Broken, Failure> {
    check_breakable(service, kind)?;
    let broken = fault::inject(dir, service, self::kind(kind), seed).await;
    broken.map_err(|error| Failure::usage(format!("{error:#}")).next("stanch sandbox up"))
}

pub(crate) async fn up(args: UpArgs) -> Result<u8, Failure> {
    let dir = data_dir(args.shop.data, "sandbox")?;
    super::make_dir(&dir)?;
    let mut signals = Signals::watch()?;
    let mut shop = Shop::at(&dir);
    let began = Instant::now();
    let started = async {
        shop.start(args.port, args.seed, args.hidden_coupling).await?;
        shop.mature(&breakable(), began).await
    };
    let started = tokio::select! {
        started = started => started,
        came = signals.any() => Err(came.failure(&format!("the shop has ended; its data is in {}", dir.display()))),
    };
    let sure = match started {
        Ok(sure) => sure.after(began.elapsed()),
        Err(failure) => {
            // Whoever runs there already keeps running.
            if shop.is_started() {
                shop.end().await;
            }
            return Err(failure);
        }
    };
    shop.let_go().await?;
    if args.shop.json {
        out!("{}", serde_json::json!({ "url": shop.url, "data": shop.dir, "policy": sandbox::POLICY_FILE }));
    } else {
        out!("policy      {} (what stanch may do here by itself)", sandbox::POLICY_FILE);
        out!("graph       {sure}");
        out!("server      {}", shop.url);
        out!("data        {}", shop.dir.display());
        out!("break it    stanch sandbox fault hang --service payments{}", given(&shop.dir));
        out!(
            "recover it  stanch recover checkout{}",
            if args.port == 8001 { String::new() } else { format!(" --server {}", shop.url) }
        );
        out!("end it      stanch sandbox down{}", given(&shop.dir));
    }
    Ok(0)
}

/// ` --data DIR` where it is not the usual one.
fn given(dir: &Path) -> String {
    let usual = data_dir(None, "sandbox").ok();
    if usual.as_deref() == Some(dir) { String::new() } else { format!(" --data {}", dir.display()) }
}

pub(crate) async fn down(args: ShopArgs) -> Result<u8, Failure> {
    let dir = data_dir(args.data, "sandbox")?;
    let ran = Supervisor::new(&dir).status().await.is_ok();
    if !Shop::at(&dir).end().await {
        let text = format!("the shop on {} does not end", dir.display());
        return Err(Failure::internal(text).next("the same command again"));
    }
    if args.json {
        out!("{}", serde_json::json!({ "ended": ran }));
    } else {
        out!("{}", if ran { "the shop has ended" } else { "no shop ran" });
    }
    Ok(0)
}

pub(crate) async fn fault(args: FaultArgs) -> Result<u8, Failure> {
    let dir = data_dir(args.shop.data, "sandbox")?;
    let broken = inject(&dir, &args.service, args.fault, args.seed).await?;
    if args.shop.json {
        out!("{}", serde_json::to_string(&broken).map_err(anyhow::Error::from)?);
    } else {
        out!("{} · {broken}", kind(args.fault).word());
    }
    Ok(0)
}

pub(crate) async fn status(args: ShopArgs) -> Result<u8, Failure> {
    let dir = data_dir(args.data, "sandbox")?;
    let status = Supervisor::new(&dir).status().await;
    let status = status.map_err(|_| Failure {
        exit: 3,
        message: format!("no shop runs on {}", dir.display()),
        next: Some("stanch sandbox up".into()),
    })?;
    if args.json {
        out!("{}", serde_json::to_string(&status).map_err(anyhow::Error::from)?);
        return Ok(0);
    }
    let rows = status.instances.iter().map(|instance| {
        let state = if instance.ready {
            "ready"
        } else if instance.alive {
            "not ready"
        } else {
            "gone"
        };
        vec![
            instance.name(),
            state.to_owned(),
            instance.pid.to_string(),
            instance.generation.to_string(),
            instance.zone.clone().unwrap_or_default(),
        ]
    });
    out!("{}", table(&["instance", "state", "process", "generation", "zone"], rows.collect()));
    Ok(0)
}

/// One process of the shop, as the topology file spells it.
pub(crate) async fn process(name: &str, arguments: &[String]) -> Result<u8, Failure> {
    sandbox::entry::run(name, arguments).await?;
    Ok(0)
}

/// How sure the server's graph is about some services.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Sure {
    pub(crate) level: String,
    pub(crate) miss_ppm: u32,
    pub(crate) reasons: Vec<String>,
}

impl Sure {
    /// Full, or as sure as it will be: what was missed once hangs over it until a person decides, however long it is watched.
    fn is_enough(&self) -> bool {
        let is_known = |reason: &String| reason.ends_with(&format!(": {}", ReasonKind::Suspected));
        self.level == "full" || self.level == "cautious" && self.reasons.iter().all(is_known)
    }

    /// In words, after so long a watch.
    pub(crate) fn after(&self, watched: Duration) -> String {
        let missed = super::show::percent(self.miss_ppm);
        format!(
            "sure enough ({}) after {:.1} s: at most {missed} of requests unlike what was seen",
            self.level,
            watched.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests;
