//! `stanch recover`: one incident, end to end.

use super::follow::{self, Ask};
use super::shop::{self, Shop};
use super::signals::Signals;
use crate::args::RecoverArgs;
use crate::failure::Failure;
use governance::bundle::verify;
use rustix::process::{Pid, Signal, kill_process};
use sandbox::fault::Broken;
use serde::Serialize;
use server::incidents::view::{EvidenceView, View};
use server::process::ledger;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// The service a person asks to recover in the shop.
const SHOP_TARGET: &str = "checkout";
/// LIMIT: columns of a line, where words allow.
const COLUMNS_MAX: usize = 100;
/// Columns of a row's label.
const LABEL_COLUMNS: usize = 15;
/// How often ledgers are looked at for the moment to kill the executor.
const LEDGER_EVERY: Duration = Duration::from_millis(5);

/// What the run did besides following: killed an executor, compared logs.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    killed_at_ms: Option<i64>,
    repeated: u32,
}

/// What was done to the shop, and when.
#[derive(Clone, Debug, Serialize)]
struct Story {
    broken: Broken,
    broken_at_ms: i64,
    over_at_ms: i64,
    watched_until_ms: i64,
}

/// The one JSON object on stdout.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    view: &'a View,
    #[serde(skip_serializing_if = "Option::is_none")]
    shop: Option<&'a Story>,
}

pub(crate) async fn run(args: RecoverArgs) -> Result<u8, Failure> {
    if args.sandbox {
        return Box::pin(in_the_shop(args)).await;
    }
    let incident = match (&args.resume, args.target.clone().or(args.service.clone())) {
        (Some(incident), _) => incident.clone(),
        (None, Some(target)) => {
            let ask = Ask { target, preview: args.preview, lying_observer: args.lying_observer.clone() };
            follow::open(&args.server, &ask).await?
        }
        (None, None) => {
            return Err(Failure::usage("which service?").next("stanch recover checkout, or stanch recover --sandbox"));
        }
    };
    let mut signals = Signals::watch()?;
    let mut view = tokio::select! {
        view = follow::follow(&args.server, &incident, |line| say(args.json, line)) => view?,
        came = signals.any() => {
            let resume = format!("stanch recover --resume {incident} --server {}", args.server);
            return Err(came.failure("the incident goes on without this command").next(resume));
        }
    };
    let path = args.evidence.clone().unwrap_or_else(|| PathBuf::from(format!("inc-{incident}.stanch")));
    if view.evidence.is_some() {
        match save_and_verify(&args.server, &mut view, &path, args.json, false).await {
            Err(unsaved) if unsaved.exit != 50 => {
                // What the recovery came to is known all the same, and the server keeps the evidence.
                let next = format!("stanch evidence export {incident} --server {} --out FILE", args.server);
                eprintln!("the evidence was not saved: {}\n  try: {next}", unsaved.message);
            }
            saved => saved?,
        }
    }
    finish(&view, args.json, None)
}

/// Up, broken, recovered, ended: one command.
async fn in_the_shop(args: RecoverArgs) -> Result<u8, Failure> {
    let began = Instant::now();
    shop::check_breakable(&args.fault_service, args.fault)?;
    let target = args.target.as_deref().or(args.service.as_deref()).unwrap_or(SHOP_TARGET);
    shop::check_known(target)?;
    // Before anything is started, so that no signal ends this process without its shop.
    let mut signals = Signals::watch()?;
    let (dir, is_ours) = match &args.data {
        Some(dir) => (std::path::absolute(dir)?, false),
        None => (fresh_dir()?, true),
    };
    super::make_dir(&dir)?;
    say(args.json, &format!("policy         {} (what stanch may do here by itself)", sandbox::POLICY_FILE));
    let mut shop = Shop::at(&dir);
    let ran = tokio::select! {
        ran = Box::pin(show(&args, &mut shop, began)) => Ok(ran),
        came = signals.any() => Err(came),
    };
    if !shop.is_started() {
        // Nothing of ours runs there, and somebody else's may.
        if is_ours {
            std::fs::remove_dir_all(&dir)?;
        }
        return ran.unwrap_or_else(|came| Err(came.failure("nothing had been started")));
    }
    // Whatever happened, nothing stays: the supervisor ends everything it started.
    let ended = if shop.end().await { "the shop has ended" } else { "the shop has not ended" };
    let keep = match &ran {
        _ if !is_ours => Keep::Everything,
        Ok(Ok(0)) => Keep::Evidence,
        Ok(_) => Keep::Everything,
        Err(_) => Keep::Nothing,
    };
    let kept = tidy(&dir, keep).unwrap_or_else(|error| format!("what is left in {}: {error}", dir.display()));
    match ran {
        Ok(ran) => {
            say(args.json, &format!("took           {} in all; {ended}; {kept}", seconds(began.elapsed())));
            ran
        }
        Err(came) => Err(came.failure(&format!("{ended}; {kept}"))),
    }
}

/// What stays of a shop that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// It may be of use to whoever looks for the reason, or was asked for.
    Everything,
    /// Bundle and keys to verify it with.
    Evidence,
    /// Nobody saw a result.
    Nothing,
}

/// Removes what does not stay; says where the rest is.
fn tidy(dir: &Path, keep: Keep) -> std::io::Result<String> {
    let shown = dir.display();
    if keep == Keep::Nothing {
        std::fs::remove_dir_all(dir)?;
        return Ok("its directory is removed".to_owned());
    }
    if keep == Keep::Everything {
        return Ok(format!("its data is in {shown}; remove it with: rm -r {shown}"));
    }
    let keys = dir.join(server::keys::TRUST_FILE);
    std::fs::copy(dir.join(shop::SERVER_DIR).join(server::keys::TRUST_FILE), &keys)?;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(&path)?;
        } else if path != keys && path.extension().is_none_or(|extension| extension != "stanch") {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(format!("the evidence stays in {shown} (--data DIR keeps the rest, too)"))
}

async fn show(args: &RecoverArgs, shop: &mut Shop, began: Instant) -> Result<u8, Failure> {
    shop.start(0, args.seed, args.hidden_coupling).await?;
    let (running, dir) = (&*shop, shop.dir.as_path());
    let target = args.target.clone().or(args.service.clone()).unwrap_or_else(|| SHOP_TARGET.to_owned());
    say(
        args.json,
        &format!("shop           up in {}: real processes, server {}", seconds(began.elapsed()), running.url),
    );
    let sure = running.mature(&["gateway", &target, &args.fault_service], began).await?;
    say(args.json, &format!("graph          {}", sure.after(began.elapsed())));
    let broken = shop::inject(dir, &args.fault_service, args.fault, args.seed).await?;
    let mut story = Story { broken, broken_at_ms: now_ms(), over_at_ms: 0, watched_until_ms: 0 };
    let fault = shop::kind(args.fault);
    say(args.json, &format!("fault          {} {}: broken on purpose", fault.word(), story.broken));
    // Where probes see nothing, theirs is the voice that is outvoted without being told to lie.
    let lying = args.lying_observer.clone().or_else(|| fault.fails_probes().then(|| "probe".to_owned()));
    let ask = Ask { target, preview: args.preview, lying_observer: lying };
    // A directory that was used before has calls of earlier incidents.
    let known = ledger::read(dir, &args.fault_service)?.len();
    let incident = follow::open(&running.url, &ask).await?;
    let killer = tokio::spawn(kill_after_effect(dir.to_owned(), args.fault_service.clone(), known));
    let json = args.json;
    let view = follow::follow(&running.url, &incident, |line| say(json, line)).await;
    killer.abort();
    let killed_at_ms = killer.await.ok().flatten();
    let mut view = view?;
    story.over_at_ms = now_ms();
    let shown = Shown { killed_at_ms, repeated: repeated(dir)? };
    complete(&mut view, shown, json);
    if view.evidence.is_some() {
        let path = args.evidence.clone().unwrap_or_else(|| dir.join(format!("inc-{incident}.stanch")));
        save_and_verify(&running.url, &mut view, &path, json, true).await?;
    }
    if args.linger > 0 {
        watch_on(running, args.linger, json).await?;
    }
    story.watched_until_ms = now_ms();
    finish(&view, json, Some(&story))
}

/// Lets the shop run on and says how its client was served meanwhile.
async fn watch_on(running: &Shop, seconds: u32, json: bool) -> Result<(), Failure> {
    let from = base::Timestamp(now_ms());
    tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
    let record = server::platform::read_record(&running.record_url, from).await;
    let record = record.map_err(|error| Failure::internal(error.to_string()))?;
    let to = base::Timestamp(record.last().map_or(from.0, |second| second.second_ms));
    let served = server::platform::summarize(&record, from, to);
    let (sent, bad, shed) = (served.sent, served.bad, served.shed);
    say(json, &format!("client         {sent} requests in the {} s since: {bad} bad, {shed} shed", served.seconds));
    Ok(())
}

/// Kills the executor with SIGKILL in the moment between an effect and its record: the ledger says *applied*, and the
/// executor is still waiting for readiness before it answers. The first `known` lines are of earlier incidents.
async fn kill_after_effect(dir: PathBuf, service: String, known: usize) -> Option<i64> {
    loop {
        let lines = ledger::read(&dir, &service).unwrap_or_default();
        let is_restarted = |line: &ledger::Entry| line.action == "Restart" && line.outcome == ledger::Outcome::Applied;
        if lines.iter().skip(known).any(is_restarted) {
            let pid = std::fs::read_to_string(dir.join(shop::SERVER_DIR).join(server::serve::EXECUTOR_FILE)).ok()?;
            let pid = Pid::from_raw(pid.trim().parse().ok()?)?;
            kill_process(pid, Signal::KILL).ok()?;
            return Some(now_ms());
        }
        tokio::time::sleep(LEDGER_EVERY).await;
    }
}

/// Keys that took effect more than once, by the ledgers and by the services' own start logs.
fn repeated(dir: &Path) -> Result<u32, Failure> {
    let mut applied: BTreeMap<String, u32> = BTreeMap::new();
    let mut started: BTreeMap<String, u32> = BTreeMap::new();
    let services = sandbox::profile::PROFILES.iter().map(|profile| profile.name);
    for owner in services.chain([ledger::CONFIG_OWNER]) {
        let lines = ledger::read(dir, owner)?;
        for line in lines.iter().filter(|line| line.outcome == ledger::Outcome::Applied) {
            *applied.entry(format!("{owner} {}", line.key)).or_default() += 1;
        }
    }
    for profile in &sandbox::profile::PROFILES {
        for start in sandbox::starts::read(dir, profile.name)?
            .iter()
            .filter(|start| !start.key.is_empty() && start.generation > 1)
        {
            *started.entry(format!("{}@{} {}", profile.name, start.replica, start.key)).or_default() += 1;
        }
    }
    let extra = |counts: &BTreeMap<String, u32>| counts.values().map(|count| count - 1).sum::<u32>();
    Ok(extra(&applied).max(extra(&started)))
}

fn complete(view: &mut View, shown: Shown, json: bool) {
    view.commit.repeated = shown.repeated;
    let Some(killed) = shown.killed_at_ms else { return };
    view.commit.executor_killed = true;
    let successor = view.commit.executors.iter().find(|(_, at)| *at > killed);
    view.commit.takeover_ms = successor.and_then(|(_, at)| u64::try_from(at - killed).ok());
    let took = view.commit.takeover_ms.map_or("not seen".to_owned(), |ms| seconds(Duration::from_millis(ms)));
    say(
        json,
        &format!(
            "killed         stanch's own executor, with SIGKILL, between an effect and its record; its successor went on after {took}; steps done twice: {}",
            shown.repeated
        ),
    );
}

/// Saves the bundle, verifies it offline, and, when asked, shows that a flipped byte is found.
async fn save_and_verify(server: &str, view: &mut View, path: &Path, json: bool, flip: bool) -> Result<(), Failure> {
    let bytes = follow::bundle(server, &view.incident).await?;
    std::fs::write(path, &bytes).map_err(|error| Failure::internal(format!("{}: {error}", path.display())))?;
    let verified = verify(&bytes, None);
    let shown = view.evidence.get_or_insert_with(EvidenceView::default);
    shown.file = path.display().to_string();
    shown.digest = base::Digest::of(&bytes).to_string();
    shown.verified = verified.is_ok();
    match verified {
        Ok(found) => say(
            json,
            &format!("verified       {} · {} records · {}", found.first_line(""), found.records, path.display()),
        ),
        Err(error) => {
            return Err(Failure { exit: 50, message: format!("the evidence does not verify: {error}"), next: None });
        }
    }
    if flip {
        let mut tampered = bytes;
        let at = tampered.len() / 2;
        if let Some(byte) = tampered.get_mut(at) {
            *byte ^= 1;
        }
        match verify(&tampered, None) {
            Err(error) => say(
                json,
                &format!(
                    "tampered       one bit flipped at byte {at} of a copy: refused, {} {}",
                    error.code,
                    error.code.title()
                ),
            ),
            Ok(_) => return Err(Failure { exit: 50, message: "a tampered copy was not refused".into(), next: None }),
        }
    }
    Ok(())
}

fn finish(view: &View, json: bool, shop: Option<&Story>) -> Result<u8, Failure> {
    if json {
        out!("{}", serde_json::to_string(&Answer { view, shop }).map_err(anyhow::Error::from)?);
    }
    Ok(view.exit.unwrap_or(1))
}

fn now_ms() -> i64 {
    server::engine::Env::real().now().0
}

fn fresh_dir() -> Result<PathBuf, Failure> {
    let now = now_ms();
    let dir = std::env::temp_dir().join(format!("stanch-{now}-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn seconds(time: Duration) -> String {
    format!("{}.{} s", time.as_secs(), time.subsec_millis() / 100)
}

/// Lines for people go to stdout, or to stderr when stdout carries JSON.
fn say(json: bool, line: &str) {
    for line in wrapped(line) {
        if json {
            eprintln!("{line}");
        } else {
            let _ = writeln!(anstream::stdout(), "{}", colored(&line));
        }
    }
}

/// A row in lines that fit; those after the first begin where the row's text begins. A word is never cut.
fn wrapped(row: &str) -> Vec<String> {
    let width = |text: &str| text.chars().count();
    let text = row.char_indices().nth(LABEL_COLUMNS).map_or(row.len(), |(at, _)| at);
    let (label, text) = row.split_at_checked(text).unwrap_or((row, ""));
    let mut lines = vec![label.to_owned()];
    let mut is_fresh = true;
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        if is_fresh {
            line.push_str(word);
        } else if width(line) + 1 + width(word) <= COLUMNS_MAX {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(format!("{:LABEL_COLUMNS$}{word}", ""));
        }
        is_fresh = false;
    }
    lines
}

fn colored(line: &str) -> String {
    let marks =
        [("REFUSED", "\u{1b}[31m"), ("✗", "\u{1b}[33m"), ("VERIFIED", "\u{1b}[32m"), ("converged", "\u{1b}[32m")];
    marks.iter().fold(line.to_owned(), |line, (word, color)| line.replace(word, &format!("{color}{word}\u{1b}[0m")))
}

#[cfg(test)]
mod tests;
