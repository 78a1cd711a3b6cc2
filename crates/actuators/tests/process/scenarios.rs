//! The scenarios.

use crate::rig::{World, action, command, flag, kill, logged, until};
use crate::roles::{now, restart, runtime};
use crate::{Outcome, Scenario};
use actuators::contract::Rig as _;
use actuators::contract::{self, Clause};
use actuators::process::config;
use actuators::process::ledger::{self, Outcome as Line};
use actuators::{Actuator as _, Error, Selector, procfs};
use base::Millis;
use recovery::call::{self, Call, Fence, Key, Reconciled, Versions};
use recovery::isa::ActionKind;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::process::{Child, Stdio};

pub(crate) const ALL: &[Scenario] = &[
    ("the_process_actuator_keeps_the_contract", contract_is_kept),
    ("a_killed_executor_leaves_applied_but_unrecorded", killed_after_the_effect),
    ("a_killed_executor_leaves_begun_and_the_environment_decides", killed_after_begun),
    ("half_a_restart_is_unknown_and_is_finished_by_the_same_key", half_a_restart),
    ("a_restart_in_waves_never_takes_the_next_before_the_last_is_ready", waves),
    ("a_stopped_process_is_killed_at_once", stopped_is_killed_at_once),
    ("a_crashed_process_stays_dead", crashed_stays_dead),
    ("a_killed_supervisor_leaves_nothing_behind", killed_supervisor),
    ("an_ended_supervisor_leaves_nothing_behind", ended_supervisor),
    ("what_a_dead_process_started_ends_with_it", child_of_a_dead_process),
    ("a_second_supervisor_is_refused", second_supervisor),
    ("a_restart_that_cannot_start_again_is_not_called_absent", cannot_start_again),
    ("without_a_supervisor_nothing_is_claimed", no_supervisor),
    ("with_a_dead_control_plane_every_limit_ends_by_itself", ends_by_itself),
    ("a_new_supervisor_does_not_forget_old_fences", new_supervisor),
];

fn contract_is_kept() -> Outcome {
    let world = World::start();
    for revision in [1, 2] {
        let content = BTreeMap::from([("value".to_owned(), revision.to_string().into_bytes())]);
        config::publish(world.dir.path(), &flag(), revision, &content).map_err(|error| error.to_string())?;
    }
    runtime().block_on(async {
        world.ready().await?;
        let report = contract::run(&world).await;
        let breaches: Vec<String> = report.breaches.iter().map(ToString::to_string).collect();
        expect(breaches.is_empty(), &breaches.join("\n    "))?;
        println!("{}", report.table());
        // A configuration is switched in the file system: no target behind the actuator, and no link to it.
        expect(report.kept.len() == 7 * 13 + 6 * 4 + 4 * 3, &format!("{} clauses", report.kept.len()))?;
        expect(report.kept.len() + report.without.len() == 7 * Clause::ALL.len(), "clauses that were not run")?;
        // Ledger and start log agree.
        let applied = ledger::read(world.dir.path(), "b").map_err(|error| error.to_string())?;
        let applied = applied.iter().filter(|it| it.action == "Restart" && it.outcome == Line::Applied);
        for entry in applied {
            let started = (world.starts_under(&entry.key), logged(&world, "started", &entry.key));
            expect(started == (1, 1), &format!("{} started {started:?} times", entry.key))?;
        }
        Ok(())
    })
}

fn killed_after_the_effect() -> Outcome {
    let world = World::start();
    runtime().block_on(async {
        world.ready().await?;
        world.close_gate();
        let mut executor = executor(&world, "0", "k/s1", 1);
        let applied = async || lines(&world, "k/s1").contains(&Line::Applied);
        until("the restart is applied", applied).await?;
        expect(executor.is_running(), "the executor answered too early")?;
        drop(executor);
        let successor = restart("b", &[0], 2, "k/s1", 2);
        let reconciled = world.actuator().reconcile(&successor).await;
        expect(matches!(reconciled, Ok(Reconciled::Applied(_))), &format!("{reconciled:?}"))?;
        world.open_gate();
        let receipt = world.actuator().perform(&successor).await.map_err(|error| error.to_string())?;
        expect(world.instance("b", 0).await.ready, "answered before it was ready")?;
        expect(receipt.fence.version == 1, "the receipt is not the first one's")?;
        expect(world.starts_under("k/s1") == 1, "started twice")
    })
}

/// The executor dies once `begun` is on disk, and once the supervisor has started something.
fn killed_after_begun() -> Outcome {
    let world = World::start();
    runtime().block_on(async {
        world.ready().await?;
        for replica in [0, 1] {
            let key = format!("k/s{replica}");
            let is_started = async || replica == 0 || logged(&world, "started", &key) == 1;
            let fence = u64::from(replica) * 2 + 1;
            let executor = executor(&world, &replica.to_string(), &key, fence);
            until("the restart is begun", async || lines(&world, &key).contains(&Line::Begun)).await?;
            until("the restart is as far as wanted", is_started).await?;
            drop(executor);
            let successor = restart("b", &[replica], 2, &key, fence + 1);
            let reconciled = world.actuator().reconcile(&successor).await.map_err(|error| error.to_string())?;
            let started = logged(&world, "started", &key);
            match reconciled {
                Reconciled::Applied(_) => expect(started == 1, &format!("told applied, started {started} times"))?,
                Reconciled::Absent => expect(started == 0, &format!("told absent, started {started} times"))?,
                Reconciled::Unknown => return Err("told unknown".into()),
            }
            world.actuator().perform(&successor).await.map_err(|error| error.to_string())?;
            expect(logged(&world, "started", &key) == 1, "started twice")?;
        }
        Ok(())
    })
}

fn half_a_restart() -> Outcome {
    let world = World::start();
    runtime().block_on(async {
        world.ready().await?;
        world.close_gate();
        let executor = executor(&world, "0,1", "k/s1", 1);
        until("the first is started", async || logged(&world, "started", "k/s1") == 1).await?;
        drop(executor);
        let successor = restart("b", &[0, 1], 2, "k/s1", 2);
        let reconciled = world.actuator().reconcile(&successor).await;
        expect(reconciled == Ok(Reconciled::Unknown), &format!("{reconciled:?}"))?;
        world.open_gate();
        world.actuator().perform(&successor).await.map_err(|error| error.to_string())?;
        expect(world.starts_under("k/s1") == 2, "not each of the two once")?;
        let reconciled = world.actuator().reconcile(&successor).await;
        expect(matches!(reconciled, Ok(Reconciled::Applied(_))), &format!("{reconciled:?}"))
    })
}

fn waves() -> Outcome {
    let world = World::start();
    runtime().block_on(async {
        world.ready().await?;
        world.close_gate();
        let (actuator, call) = (world.actuator(), restart("b", &[0, 1], 2, "k/s1", 1));
        let gate = async {
            until("the first is started", async || logged(&world, "started", "k/s1") == 1).await?;
            let second = world.instance("b", 1).await;
            world.open_gate();
            expect(second.generation == 1 && second.alive, "the second went while the first served nobody")
        };
        let (receipt, waited) = tokio::join!(actuator.perform(&call), gate);
        waited?;
        let receipt = receipt.map_err(|error| error.to_string())?;
        expect(receipt.after == call.desired, &format!("{receipt:?}"))?;
        let (first, second) = (world.instance("b", 0).await, world.instance("b", 1).await);
        expect(first.ready && second.ready, "answered before both were ready")?;
        expect(first.ready_since_ms <= second.started_at_ms, "the second went before the first was ready")?;
        expect(first.zone.as_deref() == Some("z1") && second.zone.as_deref() == Some("z2"), "zones")?;
        let registered = world.proxy.state().await.map_err(|error| error.to_string())?.targets;
        let addresses: Vec<_> = registered.get("b").into_iter().flatten().map(|it| it.address.clone()).collect();
        expect(addresses == [first.address, second.address].map(Option::unwrap_or_default), "the proxy's targets")
    })
}

fn stopped_is_killed_at_once() -> Outcome {
    let world = World::start();
    runtime().block_on(async {
        world.ready().await?;
        let hung = world.instance("b", 0).await;
        kill(hung.pid, Signal::STOP);
        until("it counts as not ready", async || !world.instance("a", 0).await.ready || stopped(&hung)).await?;
        let began = now();
        let call = Call { bound: Versions::new(), ..restart("b", &[0], 2, "k/s1", 1) };
        world.actuator().perform(&call).await.map_err(|error| error.to_string())?;
        expect(now().since(began) < Millis(4_000), "it was given a grace it could not hear")?;
        expect(!procfs::is_same(hung.pid, hung.start_time), "the stopped process is still there")
    })
}

fn stopped(instance: &actuators::control::Instance) -> bool {
    procfs::state(instance.pid) == Some('T')
}

fn crashed_stays_dead() -> Outcome {
    let world = World::start();
    runtime().block_on(async {
        world.ready().await?;
        let before = world.instance("a", 1).await;
        kill(before.pid, Signal::KILL);
        until("the end is seen", async || !world.instance("a", 1).await.alive).await?;
        let seen = world.instance("a", 1).await;
        expect(!seen.ready && seen.generation == 1, &format!("{seen:?}"))?;
        let fields = [call::generation("a", 1)].into();
        let observed = world.actuator().observe(&Selector { fields }).await.map_err(|error| error.to_string())?;
        expect(observed.state.values().eq(&[0]), &format!("{observed:?}"))?;
        let starts = world.starts().iter().filter(|line| line.starts_with("a@1 ")).count();
        expect(starts == 1, "it was started again by nobody's order")
    })
}

fn killed_supervisor() -> Outcome {
    let world = World::start();
    let all = runtime().block_on(async {
        world.ready().await?;
        let all = world.processes().await;
        // Neither a stopped service nor one that only watches its lifeline may stay.
        kill(world.instance("b", 1).await.pid, Signal::STOP);
        kill(world.child.id(), Signal::KILL);
        Ok::<_, String>(all)
    })?;
    runtime().block_on(until("everything has ended", async || all.iter().all(|(pid, start)| gone(*pid, *start))))
}

fn ended_supervisor() -> Outcome {
    let mut world = World::start();
    runtime().block_on(async {
        world.ready().await?;
        let all = world.processes().await;
        kill(world.instance("a", 0).await.pid, Signal::STOP);
        drop(world.lifeline.take());
        until("everything has ended", async || all.iter().all(|(pid, start)| gone(*pid, *start))).await?;
        let left = ["supervisor.sock", "proxy.json", "instances.json"].map(|name| world.path(name).exists());
        expect(left == [false; 3], &format!("files are left: {left:?}"))
    })
}

fn child_of_a_dead_process() -> Outcome {
    let world = World::start();
    runtime().block_on(async {
        world.ready().await?;
        let child = async || std::fs::read_to_string(world.path("child")).ok()?.parse::<u32>().ok();
        until("the child was started", async || child().await.is_some()).await?;
        let child = child().await.expect("its number");
        let started = procfs::start_time(child).expect("running");
        let parent = world.status().await.companions.first().map(|companion| companion.pid).expect("companion");
        kill(parent, Signal::KILL);
        until("the child has ended", async || gone(child, started)).await?;
        expect(world.status().await.instances.iter().all(|instance| instance.alive), "and nobody else")
    })
}

fn second_supervisor() -> Outcome {
    let world = World::start();
    runtime().block_on(world.ready())?;
    let output = command("role-supervise").arg(world.dir.path()).stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    expect(!output.status.success() && said.contains("already runs"), &said)?;
    runtime().block_on(world.ready())
}

fn cannot_start_again() -> Outcome {
    let world = World::start();
    runtime().block_on(async {
        world.ready().await?;
        let log = world.path("logs/b@0.log");
        std::fs::remove_file(&log).and_then(|()| std::fs::create_dir(&log)).map_err(|error| error.to_string())?;
        let call = restart("b", &[0], 2, "k/s1", 1);
        let answer = world.actuator().perform(&call).await;
        expect(answer == Err(Error::TimedOut), &format!("{answer:?}"))?;
        expect(!world.instance("b", 0).await.alive, "the old process still runs")?;
        let reconciled = world.actuator().reconcile(&call).await;
        expect(reconciled == Ok(Reconciled::Unknown), &format!("{reconciled:?}"))?;
        std::fs::remove_dir(&log).map_err(|error| error.to_string())?;
        world.actuator().perform(&call).await.map_err(|error| error.to_string())?;
        expect(world.starts_under("k/s1") == 1, "not started once")
    })
}

fn no_supervisor() -> Outcome {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let actuator = actuators::process::ProcessActuator::open(dir.path()).map_err(|error| error.to_string())?;
    runtime().block_on(async {
        let call = restart("b", &[0], 2, "k/s1", 1);
        let answer = actuator.perform(&call).await;
        expect(answer == Err(Error::Unavailable), &format!("{answer:?}"))?;
        let drain = Call {
            key: Key("k/s2".into()),
            fence: Fence { epoch: 1, version: 1 },
            action: action(ActionKind::Drain),
            desired: [(call::weight("b", 0), 0)].into(),
            expires_at: Some(now().plus(Millis(60_000))),
            ..call
        };
        let rehearsed = actuator.dry_run(&drain).await;
        expect(rehearsed == Ok(actuators::DryRun::NotEvaluable), &format!("{rehearsed:?}"))
    })
}

/// Executor gone, supervisor stopped: drain, breaker and limit end at the proxy.
fn ends_by_itself() -> Outcome {
    let world = World::start();
    runtime().block_on(async {
        world.ready().await?;
        let settings = async || world.proxy.state().await.map(|state| state.settings).unwrap_or_default();
        let before = settings().await;
        let mut expires_at = now();
        let kinds = [ActionKind::Drain, ActionKind::CircuitBreak, ActionKind::RateLimit];
        let mut closed = Vec::new();
        for (number, kind) in (1..).zip(kinds) {
            let sample = world.sample(kind).await.ok_or("no sample")?;
            expires_at = now().plus(Millis(3_000));
            let call = Call {
                key: Key(format!("k/s{number}")),
                action: sample.action,
                desired: sample.desired,
                expires_at: Some(expires_at),
                ..restart("b", &[0], 2, "k/s0", 1)
            };
            world.actuator().perform(&call).await.map_err(|error| error.to_string())?;
            closed.extend(call.desired);
        }
        let proxy = world.status().await.proxy_pid;
        kill(world.child.id(), Signal::STOP);
        expect(procfs::state(proxy).is_some(), "the proxy ended with its supervisor's stop")?;
        let seen = settings().await;
        // On a slow machine the first may have ended by now.
        let last = closed.last().is_some_and(|(name, value)| seen.get(name) == Some(value));
        expect(last || now() >= expires_at, &format!("not closed: {seen:?}"))?;
        until("all is as before", async || settings().await == before).await?;
        let late = now().since(expires_at);
        kill(world.child.id(), Signal::CONT);
        expect(now() >= expires_at, "it ended before its time")?;
        println!("    drain, breaker and limit had ended {late} after their time, the supervisor stopped");
        Ok(())
    })
}

fn new_supervisor() -> Outcome {
    let mut world = World::start();
    runtime().block_on(async {
        world.ready().await?;
        let first = restart("b", &[0], 2, "k/s1", 5);
        world.actuator().perform(&first).await.map_err(|error| error.to_string())?;
        world.again();
        world.ready().await?;
        let stale = restart("b", &[0], 9, "k/s2", 4);
        let answer = world.actuator().perform(&stale).await;
        expect(matches!(answer, Err(Error::Fenced { seen }) if seen.version == 5), &format!("{answer:?}"))?;
        let repeated = world.actuator().perform(&first).await.map_err(|error| error.to_string())?;
        expect(repeated.fence.version == 5 && world.starts_under("k/s1") == 1, "the same key was performed again")
    })
}

/// An executor in a process of its own; killed at the latest when it is dropped.
struct Executor(Child);

impl Executor {
    fn is_running(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|ended| ended.is_none())
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn executor(world: &World, replicas: &str, key: &str, fence: u64) -> Executor {
    let mut command = command("role-restart");
    command.arg(world.dir.path()).args(["b", replicas, key, &fence.to_string()]);
    Executor(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("executor"))
}

fn lines(world: &World, key: &str) -> Vec<Line> {
    let entries = ledger::read(world.dir.path(), "b").unwrap_or_default();
    entries.into_iter().filter(|entry| entry.key == key).map(|entry| entry.outcome).collect()
}

fn gone(pid: u32, start_time: u64) -> bool {
    !procfs::is_same(pid, start_time)
}

fn expect(kept: bool, what: &str) -> Outcome {
    if kept { Ok(()) } else { Err(what.to_owned()) }
}
