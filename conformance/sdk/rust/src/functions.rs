//! The durable functions of the smoke program, and the ledger that every step is written to.
//!
//! A step appends a line when it begins and one when it ends, outside the protocol: a step that runs twice is seen.

use resonate_sdk::prelude::*;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}

/// Appends one line to the ledger; lines of several processes do not mix.
pub(crate) fn write(run: &str, name: &str, phase: &str) {
    let line =
        serde_json::json!({ "run": run, "step": name, "phase": phase, "pid": std::process::id(), "at": now_ms() });
    let path = std::env::var("SDK_LEDGER").expect("SDK_LEDGER names the ledger");
    let mut ledger = std::fs::OpenOptions::new().append(true).create(true).open(path).expect("the ledger opens");
    ledger.write_all(format!("{line}\n").as_bytes()).expect("the ledger takes a line");
}

#[resonate_sdk::function]
async fn step(run: String, name: String, ms: u64) -> Result<String> {
    write(&run, &name, "begin");
    tokio::time::sleep(Duration::from_millis(ms)).await;
    write(&run, &name, "end");
    Ok(name)
}

#[resonate_sdk::function]
async fn broken(run: String) -> Result<String> {
    write(&run, "broken", "begin");
    Err(Error::Application { message: "broken on purpose".into() })
}

fn named(run: &str, name: impl Into<String>, ms: u64) -> (String, String, u64) {
    (run.to_owned(), name.into(), ms)
}

#[resonate_sdk::function]
pub(crate) async fn steps(ctx: &Context, run: String) -> Result<String> {
    let one = ctx.run(step, named(&run, "one", 0)).await?;
    let two = ctx.run(step, named(&run, "two", 0)).await?;
    let three = ctx.run(step, named(&run, "three", 0)).await?;
    Ok(format!("{one}-{two}-{three}"))
}

#[resonate_sdk::function]
async fn remote(ctx: &Context, run: String, group: String) -> Result<String> {
    let before = ctx.run(step, named(&run, "before", 0)).await?;
    let there = ctx.rpc::<String>("step", named(&run, "there", 0)).target(&group).await?;
    let after = ctx.run(step, named(&run, "after", 0)).await?;
    Ok(format!("{before}-{there}-{after}"))
}

#[resonate_sdk::function]
async fn fan_out(ctx: &Context, run: String, group: String) -> Result<usize> {
    let (mut local, mut there) = (Vec::new(), Vec::new());
    for i in 0..8 {
        local.push(ctx.run(step, named(&run, format!("local{i}"), 20)).spawn()?);
    }
    for i in 0..8 {
        there.push(ctx.rpc::<String>("step", named(&run, format!("there{i}"), 20)).target(&group).spawn()?);
    }
    let mut names = std::collections::BTreeSet::new();
    for future in local {
        names.insert(future.await?);
    }
    for future in there {
        names.insert(future.await?);
    }
    Ok(names.len())
}

#[resonate_sdk::function]
async fn inner(ctx: &Context, run: String, group: String) -> Result<String> {
    let here = ctx.run(step, named(&run, "inner", 0)).await?;
    let there = ctx.rpc::<String>("step", named(&run, "deep", 0)).target(&group).await?;
    Ok(format!("{here}-{there}"))
}

#[resonate_sdk::function]
async fn nested(ctx: &Context, run: String, group: String) -> Result<String> {
    let both = ctx.run(inner, (run.clone(), group.clone())).await?;
    ctx.detached("step", named(&run, "detached", 0)).target(&group).spawn()?.id().await?;
    Ok(both)
}

#[resonate_sdk::function]
async fn nap(ctx: &Context, run: String, ms: u64) -> Result<String> {
    let before = ctx.run(step, named(&run, "before", 0)).await?;
    ctx.sleep(Duration::from_millis(ms)).await?;
    let after = ctx.run(step, named(&run, "after", 0)).await?;
    Ok(format!("{before}-{after}"))
}

#[resonate_sdk::function]
async fn external(ctx: &Context, run: String) -> Result<String> {
    let waiting = ctx.promise::<String>().timeout(Duration::from_secs(60)).create()?;
    write(&run, &format!("promise {}", waiting.id().await?), "waits");
    let word = waiting.await?;
    ctx.run(step, named(&run, "after", 0)).await?;
    Ok(word)
}

#[resonate_sdk::function]
async fn reject(ctx: &Context, run: String) -> Result<String> {
    match ctx.run(broken, run.clone()).await {
        Ok(_) => Ok("no error came".into()),
        // A suspension passes through the functions as an error of its own kind.
        Err(Error::Application { message }) => {
            ctx.run(step, named(&run, "caught", 0)).await?;
            Err(Error::Application { message: format!("because: {message}") })
        }
        Err(other) => Err(other),
    }
}

#[resonate_sdk::function]
async fn crash(ctx: &Context, run: String, ms: u64) -> Result<String> {
    let one = ctx.run(step, named(&run, "one", 0)).await?;
    let two = ctx.run(step, named(&run, "two", ms)).await?;
    let three = ctx.run(step, named(&run, "three", 0)).await?;
    Ok(format!("{one}-{two}-{three}"))
}

#[resonate_sdk::function]
async fn long(ctx: &Context, run: String, name: String, ms: u64) -> Result<String> {
    ctx.run(step, named(&run, name, ms)).await
}

#[resonate_sdk::function]
async fn fired(ctx: &Context, run: String) -> Result<String> {
    ctx.run(step, named(&run, ctx.id(), 0)).await
}

/// A process of the given group that knows every function.
pub(crate) fn client(url: &str, group: &str, ttl_ms: u64) -> Result<Resonate> {
    let (url, group) = (Some(url.to_owned()), Some(group.to_owned()));
    let resonate = Resonate::new(ResonateConfig { url, group, ttl: Some(ttl_ms), ..ResonateConfig::default() });
    resonate.register(step)?;
    resonate.register(steps)?;
    resonate.register(remote)?;
    resonate.register(fan_out)?;
    resonate.register(nested)?;
    resonate.register(nap)?;
    resonate.register(external)?;
    resonate.register(reject)?;
    resonate.register(crash)?;
    resonate.register(long)?;
    resonate.register(fired)?;
    Ok(resonate)
}
