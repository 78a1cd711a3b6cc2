//! Runs every scenario against one server: `sdk-smoke URL [SCENARIO]...`.
//!
//! One JSON line a scenario; exit code 3 if one failed. `sdk-smoke work URL GROUP TTL_MS` is a worker, a process of
//! its own.

mod functions;
mod scenario;

use functions::{client, now_ms, steps};
use scenario::{Failure, Scenario, TTL_MS, equal};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const SCENARIOS: [&str; 11] =
    ["steps", "remote", "fan_out", "nested", "sleep", "external", "reject", "crash", "late", "two_long", "schedule"];

/// What a scenario measured.
type Figures = Result<Value, Failure>;

async fn run_steps(s: &mut Scenario) -> Figures {
    let here = client(&s.url, &s.group("w"), TTL_MS)?;
    let result: String = here.run(&s.id, steps, s.id.clone()).timeout(Duration::from_secs(120)).await?;
    here.stop().await?;
    equal("result", result, "one-two-three")?;
    Ok(json!({}))
}

async fn remote(s: &mut Scenario) -> Figures {
    s.worker("w", TTL_MS)?;
    s.worker("there", TTL_MS)?;
    equal("result", s.rpc("", "remote", json!([s.id, s.group("there")])).await??, "before-there-after")?;
    let pid = |step: &str| s.found("begin", step).first().map(|line| line.pid);
    equal("another process", pid("there") != pid("before"), true)?;
    Ok(json!({}))
}

async fn fan_out(s: &mut Scenario) -> Figures {
    s.worker("w", TTL_MS)?;
    s.worker("there", TTL_MS)?;
    equal("result", s.rpc("", "fan_out", json!([s.id, s.group("there")])).await??, 16)?;
    Ok(json!({}))
}

async fn nested(s: &mut Scenario) -> Figures {
    s.worker("w", TTL_MS)?;
    s.worker("there", TTL_MS)?;
    equal("result", s.rpc("", "nested", json!([s.id, s.group("there")])).await??, "inner-deep")?;
    s.seen("end", "detached", 1).await;
    Ok(json!({}))
}

async fn sleep(s: &mut Scenario) -> Figures {
    s.worker("w", TTL_MS)?;
    equal("result", s.rpc("", "nap", json!([s.id, 1000])).await??, "before-after")?;
    let slept = s.seen("begin", "after", 1).await.at - s.seen("begin", "before", 1).await.at;
    equal("slept long enough", slept >= 1000.0, true)?;
    Ok(json!({ "slept_ms": slept }))
}

async fn external(s: &mut Scenario) -> Figures {
    s.worker("w", TTL_MS)?;
    let asked = s.rpc("", "external", json!(s.id));
    let waits = s.seen("waits", "promise ", 1).await.step;
    s.task_is("suspended").await?;
    let settled = now_ms();
    let promise = waits.trim_start_matches("promise ");
    // Base64 of the JSON text "from outside".
    let value = json!({ "data": "ImZyb20gb3V0c2lkZSI=" });
    s.ask("promise.settle", &json!({ "id": promise, "state": "resolved", "value": value }))?;
    equal("result", asked.await??, "from outside")?;
    Ok(json!({ "woke_ms": s.seen("begin", "after", 1).await.at - settled }))
}

async fn reject(s: &mut Scenario) -> Figures {
    s.worker("w", TTL_MS)?;
    let reason = s.rpc("", "reject", json!(s.id)).await?.err().ok_or("it was not rejected")?.to_string();
    equal("reason", reason.contains("because: broken on purpose"), true).map_err(|_| reason)?;
    equal("state", &s.ask("promise.get", &json!({ "id": s.id }))?["promise"]["state"], &json!("rejected"))?;
    Ok(json!({}))
}

async fn crash(s: &mut Scenario) -> Figures {
    s.worker("w", TTL_MS)?;
    s.worker("w", TTL_MS)?;
    let asked = s.rpc("", "crash", json!([s.id, 1500]));
    let victim = s.seen("begin", "two", 1).await.pid;
    s.kill(victim)?;
    let killed = now_ms();
    equal("result", asked.await??, "one-two-three")?;
    let again = s.seen("begin", "two", 2).await;
    equal("another worker", again.pid != victim, true)?;
    Ok(json!({ "takeover_ms": again.at - killed, "lease_ms": TTL_MS }))
}

async fn late(s: &mut Scenario) -> Figures {
    let asked = s.rpc("", "steps", json!(s.id));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    equal("lines of the ledger before a worker joined", s.lines().len(), 0)?;
    s.worker("w", TTL_MS)?;
    equal("result", asked.await??, "one-two-three")?;
    let joined = s.seen("joins", "worker", 1).await.at;
    Ok(json!({ "started_ms": s.seen("begin", "one", 1).await.at - joined }))
}

async fn two_long(s: &mut Scenario) -> Figures {
    s.worker("w", 1000)?;
    let first = s.rpc("-first", "long", json!([s.id, "first", 3500]));
    let second = s.rpc("-second", "long", json!([s.id, "second", 3500]));
    equal("results", (first.await??, second.await??), (json!("first"), json!("second")))?;
    let apart = s.seen("begin", "first", 1).await.at - s.seen("begin", "second", 1).await.at;
    equal("both were held at the same time", apart.abs() < 3500.0, true)?;
    Ok(json!({ "lease_ms": 1000, "step_ms": 3500 }))
}

async fn schedule(s: &mut Scenario) -> Figures {
    s.worker("w", TTL_MS)?;
    let (caller, group) = (client(&s.url, &s.group("caller"), TTL_MS)?, s.group("w"));
    let every = caller.schedule(&s.id, "* * * * * *", "fired", s.id.clone());
    let made = every.target(&group).timeout(Duration::from_secs(60)).await?;
    s.seen("end", &s.id, 3).await;
    made.delete().await?;
    caller.stop().await?;
    let firings: BTreeSet<String> = s.found("end", &s.id).into_iter().map(|line| line.step).collect();
    for firing in &firings {
        let promise = s.settled(firing).await?;
        equal("its schedule", &promise["tags"]["resonate:schedule"], &json!(s.id))?;
    }
    Ok(json!({ "firings": firings }))
}

async fn scenario(s: &mut Scenario, name: &str) -> Figures {
    match name {
        "steps" => run_steps(s).await,
        "remote" => remote(s).await,
        "fan_out" => fan_out(s).await,
        "nested" => nested(s).await,
        "sleep" => sleep(s).await,
        "external" => external(s).await,
        "reject" => reject(s).await,
        "crash" => crash(s).await,
        "late" => late(s).await,
        "two_long" => two_long(s).await,
        "schedule" => schedule(s).await,
        other => Err(format!("no scenario is called {other}").into()),
    }
}

/// Runs one scenario within its bound; what it says is never only that it ended.
async fn judged(url: &str, name: &str) -> Value {
    let mut s = Scenario::new(url, name);
    let began = Instant::now();
    let figures = tokio::time::timeout(PATIENCE, scenario(&mut s, name)).await;
    let figures = figures.unwrap_or_else(|_| Err("it took too long".into()));
    s.end().await;
    let mut verdict =
        json!({ "name": name, "id": s.id, "ok": figures.is_ok(), "ms": began.elapsed().as_millis(), "ran": s.ran() });
    match figures {
        Ok(figures) => verdict["figures"] = figures,
        Err(why) => verdict["why"] = why.to_string().into(),
    }
    verdict
}

/// A worker: it ends when it is killed, or with the program that started it.
async fn work(url: &str, group: &str, ttl_ms: u64) -> Result<(), Failure> {
    functions::write(&std::env::var("SDK_RUN")?, "worker", "joins");
    let _worker = client(url, group, ttl_ms)?;
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (url, names) = match arguments.as_slice() {
        ["work", url, group, ttl_ms] => {
            work(url, group, ttl_ms.parse()?).await?;
            return Ok(ExitCode::SUCCESS);
        }
        // The ledger's path is in the environment, for workers too.
        [url, names @ ..] => (*url, names),
        [] => return Err("usage: sdk-smoke URL [SCENARIO]...".into()),
    };
    let mut failed = false;
    for name in if names.is_empty() { &SCENARIOS[..] } else { names } {
        let verdict = judged(url, name).await;
        failed |= verdict["ok"] != true;
        println!("{verdict}");
    }
    Ok(ExitCode::from(if failed { 3 } else { 0 }))
}
