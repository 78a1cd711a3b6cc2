//! What people feel of a server, beyond its rates.

use super::caller::{Caller, Offer, Worker};
use super::process::{self, Own};
use super::report::{Effect, Spread};
use super::{Options, Target, Workload, clock, drive, requests, target};
use anyhow::{Context as _, Result, bail, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Connections of the load beside which [`Workload::Execute`] is measured.
const BESIDE: usize = 32;
/// Connections over which a server is filled.
const FILLING: usize = 256;
/// Offers in a backlog, for each millisecond of the window.
const BACKLOG_PER_MS: u64 = 20;
/// Steps of the long workflow, and where their cost is looked at.
const STEPS: u64 = 10_000;
const LOOKED_AT: [u64; 4] = [1, 100, 1_000, 10_000];
/// Steps around such a place whose median is taken.
const AROUND: u64 = 25;
/// How often joining is measured, and a takeover.
const JOINS: usize = 20;
const TAKEOVERS: usize = 5;
/// The lease that lapses, in milliseconds.
const LEASE_MS: u64 = 2_000;
/// The lease of a worker whose connection drops: not the one that ends its hold.
const LONG_LEASE_MS: u64 = 600_000;

/// Measures one effect.
pub(super) fn measure(options: &Options, workload: Workload, say: &mut dyn FnMut(&str)) -> Result<Vec<Effect>> {
    if workload == Workload::Memory {
        return memory(options, say);
    }
    let target = target(options)?;
    let run = format!("{}-{}", options.run, workload.name().replace('_', "-"));
    match workload {
        Workload::Execute => execute(options, &target, &run),
        Workload::Backlog => backlog(options, &target, &run),
        Workload::Join => join(options, &target, &run),
        Workload::LongWorkflow => long_workflow(options, &target, &run),
        _ => takeover(options, &target, &run),
    }
}

/// A number of repetitions, fewer in a short run.
fn scaled(options: &Options, full: usize) -> usize {
    if options.window >= Duration::from_secs(1) { full } else { 1 }
}

fn execute(options: &Options, target: &Target, run: &str) -> Result<Vec<Effect>> {
    let worker = Worker::connect(&target.address, run, "w1")?;
    let mut caller = Caller::connect(&target.address)?;
    let alone = offered(options, &worker, &mut caller, &format!("{run}-alone"), run)?;
    let over = AtomicBool::new(false);
    let (beside, load) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut script = super::workload::Script::new(Workload::CreateSettle, &format!("{run}-load"), BESIDE);
            drive::all(&target.address, BESIDE, &mut |connection, n, body| {
                script.body(connection, n, body);
                !over.load(Ordering::Relaxed)
            })
        });
        let beside = offered(options, &worker, &mut caller, &format!("{run}-beside"), run);
        over.store(true, Ordering::Relaxed);
        (beside, load.join())
    });
    let Ok(load) = load else { bail!("the load broke off") };
    let load = load?;
    if let Some((count, first)) = load.wrong {
        bail!("{count} wrong answers beside it; the first: {first}");
    }
    let rate = load.latencies.len() as f64 / load.elapsed.as_secs_f64();
    Ok(vec![
        Effect::spread("execute, alone", "ms", &alone),
        Effect::spread("execute, beside load", "ms", &beside?)
            .with(format!("beside {rate:.0} requests/s on {BESIDE} connections")),
    ])
}

/// From asking for the creation until the worker is told, in milliseconds.
fn offered(options: &Options, worker: &Worker, caller: &mut Caller, run: &str, group: &str) -> Result<Spread> {
    let mut spread = Spread::default();
    let begin = clock();
    let mut n = 0_u64;
    while n == 0 || begin.elapsed() < options.window {
        let id = format!("{run}.{n}");
        n += 1;
        let asked = clock();
        caller.ask(|out| requests::create_targeted(&id, group, out))?;
        let offer = offer_of(worker, &id)?;
        spread.add(offer.at.duration_since(asked));
        caller.ask(|out| requests::settle(&id, out))?;
    }
    Ok(spread)
}

/// The offer of this task; others are passed over.
fn offer_of(worker: &Worker, id: &str) -> Result<Offer> {
    loop {
        let offer = worker.next()?;
        if offer.id == id {
            return Ok(offer);
        }
    }
}

fn backlog(options: &Options, target: &Target, run: &str) -> Result<Vec<Effect>> {
    let millis = u64::try_from(options.window.as_millis()).unwrap_or(u64::MAX).min(5_000);
    let count = (millis * BACKLOG_PER_MS).max(100);
    fill(target, count, &mut |id, body| requests::create_targeted(id, run, body), run)?;
    let worker = Worker::connect(&target.address, run, "w1")?;
    let mut seen = std::collections::HashSet::new();
    let mut last = worker.since;
    while (seen.len() as u64) < count {
        let offer = worker.next().with_context(|| format!("after {} of {count} offers", seen.len()))?;
        last = offer.at;
        seen.insert(offer.id);
    }
    let rate = count as f64 / last.duration_since(worker.since).as_secs_f64();
    Ok(vec![Effect::one("backlog", "executes/s", rate).with(format!("{count} waiting, one worker joins"))])
}

/// Asks for `count` promises named `run.connection.n`; over many connections, since nothing but their being there counts.
fn fill(target: &Target, count: u64, body: &mut dyn FnMut(&str, &mut Vec<u8>), run: &str) -> Result<()> {
    let mut made = 0_u64;
    let outcome = drive::all(&target.address, FILLING, &mut |connection, n, out| {
        if made == count {
            return false;
        }
        made += 1;
        body(&format!("{run}.{connection}.{n}"), out);
        true
    })?;
    if let Some((wrong, first)) = outcome.wrong {
        bail!("{wrong} wrong answers; the first: {first}");
    }
    Ok(())
}

fn join(options: &Options, target: &Target, run: &str) -> Result<Vec<Effect>> {
    let mut caller = Caller::connect(&target.address)?;
    let mut spread = Spread::default();
    for n in 0..scaled(options, JOINS) {
        let (id, group) = (format!("{run}.{n}"), format!("{run}-{n}"));
        caller.ask(|out| requests::create_targeted(&id, &group, out))?;
        let worker = Worker::connect(&target.address, &group, "w1")?;
        let offer = offer_of(&worker, &id)?;
        spread.add(offer.at.duration_since(worker.since));
        caller.ask(|out| requests::settle(&id, out))?;
    }
    Ok(vec![Effect::spread("join", "ms", &spread)])
}

fn long_workflow(options: &Options, target: &Target, run: &str) -> Result<Vec<Effect>> {
    let steps = if options.window >= Duration::from_secs(1) { STEPS } else { 100 };
    let mut caller = Caller::connect(&target.address)?;
    let root = format!("{run}.w");
    caller.ask(|out| requests::task_create(&root, "bench", "bench", out))?;
    let (mut made, mut effects) = (0, Vec::new());
    for at in LOOKED_AT.into_iter().filter(|at| *at <= steps) {
        let end = at.max(AROUND);
        grow(target, &root, made, end - AROUND)?;
        let mut took: Vec<(f64, usize)> = Vec::new();
        for n in end - AROUND..end {
            let child = format!("{root}.{n}");
            let began = clock();
            let first = caller.ask(|out| requests::fence_create(&root, &child, Some(&root), out))?;
            let second = caller.ask(|out| requests::fence_settle(&root, &child, out))?;
            took.push((began.elapsed().as_secs_f64() * 1e3, first.max(second)));
        }
        made = end;
        took.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (median, bytes) = took.get(took.len() / 2).copied().unwrap_or_default();
        let note = format!("two requests, one after the other; answers of {bytes} bytes");
        effects.push(Effect::one(&format!("step {at} of one workflow"), "ms", median).with(note));
    }
    Ok(effects)
}

/// Takes so many steps of a workflow, many at a time: only how long it has become matters.
fn grow(target: &Target, root: &str, from: u64, to: u64) -> Result<()> {
    let mut next = from;
    let mut current = vec![String::new(); BESIDE];
    let outcome = drive::all(&target.address, BESIDE, &mut |connection, n, out| {
        let Some(child) = current.get_mut(connection) else { return false };
        if !n.is_multiple_of(2) {
            requests::fence_settle(root, child, out);
            return true;
        }
        if next == to {
            return false;
        }
        *child = format!("{root}.{next}");
        next += 1;
        requests::fence_create(root, child, Some(root), out);
        true
    })?;
    match outcome.wrong {
        Some((wrong, first)) => bail!("{wrong} wrong answers; the first: {first}"),
        None => Ok(()),
    }
}

fn takeover(options: &Options, target: &Target, run: &str) -> Result<Vec<Effect>> {
    let (mut dropped, mut lapsed) = (Spread::default(), Spread::default());
    let mut caller = Caller::connect(&target.address)?;
    for n in 0..scaled(options, TAKEOVERS) {
        dropped.add(succeeded(target, &mut caller, &format!("{run}-dropped-{n}"), LONG_LEASE_MS, true)?);
        lapsed.add(succeeded(target, &mut caller, &format!("{run}-lapsed-{n}"), LEASE_MS, false)?);
    }
    Ok(vec![
        Effect::spread("takeover, connection dropped", "ms", &dropped),
        Effect::spread("takeover, lease lapsed", "ms", &lapsed).with(format!("with a lease of {LEASE_MS} ms")),
    ])
}

/// From the last sign of a worker that holds a task until another one is offered it.
fn succeeded(target: &Target, caller: &mut Caller, group: &str, lease: u64, is_dropped: bool) -> Result<Duration> {
    let id = format!("{group}.t");
    let first = Worker::connect(&target.address, group, "w1")?;
    caller.ask(|out| requests::create_targeted(&id, group, out))?;
    let offer = offer_of(&first, &id)?;
    let asked = clock();
    caller.ask(|out| requests::task_acquire(&id, offer.version, "w1", lease, out))?;
    let second = Worker::connect(&target.address, group, "w2")?;
    let since = if is_dropped {
        drop(first);
        clock()
    } else {
        // Its connection stays: nothing but the lease says that it is gone. Either may be offered the task.
        let first_again = std::thread::spawn(move || first.next().map(|offer| offer.at));
        let at = match second.within(Duration::from_millis(lease * 3))? {
            Some(offer) => offer.at,
            None => match first_again.join() {
                Ok(at) => at?,
                Err(_) => bail!("the first worker's stream broke off"),
            },
        };
        caller.ask(|out| requests::settle(&id, out))?;
        return Ok(at.duration_since(asked));
    };
    let offer = offer_of(&second, &id)?;
    caller.ask(|out| requests::settle(&id, out))?;
    Ok(offer.at.duration_since(since))
}

fn memory(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Vec<Effect>> {
    ensure!(options.url.is_none(), "`memory` restarts its server, so it runs only on one of its own");
    let own = Own::start(&options.program, &options.directory)?;
    let (pid, address) = (own.pid(), own.address.clone());
    let empty = process::memory_of(pid)?;
    let target = Target { address, pid: Some(pid), own: None };
    let (run, count) = (format!("{}-memory", options.run), options.promises);
    let mut made = 0_u64;
    fill(
        &target,
        count,
        &mut |id, body| {
            made += 1;
            if made.is_multiple_of(250_000) {
                say(&format!("  {made} promises"));
            }
            requests::create(id, body);
        },
        &run,
    )?;
    let filled = process::memory_of(pid)?;
    let own = Own::start_on(&options.program, own.kill())?;
    let (ready, again) = (own.ready_after, process::memory_of(own.pid())?);
    let target = Target { address: own.address.clone(), pid: Some(own.pid()), own: None };
    let mut caller = Caller::connect(&target.address)?;
    caller.ask(|out| requests::get(&format!("{run}.0.0"), out)).context("a promise is gone after a kill")?;
    own.end();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let named = format!("{count} pending promises");
    Ok(vec![
        Effect::one("memory, filled", "MiB", mib(filled)).with(format!("{named}; empty {:.0} MiB", mib(empty))),
        Effect::one("memory, after restart", "MiB", mib(again)).with(named.clone()),
        Effect::one("restart to ready", "ms", ready.as_secs_f64() * 1e3).with(format!("{named}, after a kill")),
    ])
}
