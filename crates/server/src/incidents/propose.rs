//! Stages 3 to 5: agents are asked, the group is computed, the kernel checks; until a plan is decided.

use super::detect::{Detected, Intended, closure_words, list_or};
use super::run::{Run, Stop, blob_of};
use super::view::{RejectionView, RevisionView};
use crate::agents::{AGENTS, AgentChange, AgentEdge, AgentService, AgentView, Answer, BUILT_IN, Question};
use crate::platform::{Platform, Reading, suspect};
use crate::remediation::facts;
use base::canon::Canon as _;
use base::{Digest, Millis, Ratio, Timestamp};
use governance::policy::Effective;
use governance::record::{Check, Rejection as RejectionRecord};
use protocol::{PromiseState, Value};
use recovery::check::{Checked, Rejection, check, nearest};
use recovery::graph::{Closure, Level, Slice, Snapshot};
use recovery::groups::{Group, GroupPolicy, Instances, group, survey};
use recovery::plan::{Cause, Plan, REVISIONS_MAX, Step, lineage};
use recovery::world::{IntentFacts, World};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the loop over revisions ends with: a plan that was decided to be committed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decided {
    /// The revision.
    pub revision: u32,
    /// The plan.
    pub plan: Plan,
    /// Blob of the world it was checked against.
    pub world: Digest,
    /// The decision's statement.
    pub decision: Digest,
    /// What the preview was true of.
    pub bound: Digest,
    /// Milliseconds the commit is expected to take.
    pub forecast_ms: u64,
    /// Services the plan changes.
    pub writes: Vec<String>,
    /// Services that depend hard on them.
    pub callers: Vec<String>,
}

/// One revision on its way.
pub(super) struct Revision {
    pub(super) number: u32,
    pub(super) plan: Plan,
    pub(super) checked: Checked,
    pub(super) world: World,
    pub(super) world_digest: Digest,
    pub(super) check: Digest,
    pub(super) vetoed: bool,
    pub(super) reading: Reading,
}

/// What stage 4 settles with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Grouped {
    members: Vec<String>,
    callers: Vec<String>,
    slice: String,
}

/// What a check settles with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct CheckedValue {
    plan: String,
    source: String,
    world: String,
    statement: String,
    passed: bool,
}

/// What a plan says of itself before its steps.
struct Header {
    number: u32,
    class: String,
    /// Digest of the part of the graph that it is checked against.
    topology: Digest,
}

/// What one incident has proposed so far.
#[derive(Default)]
struct Story {
    previous: Option<Plan>,
    mutations: u32,
    rejections: Vec<String>,
    nearest: Option<String>,
    asked: usize,
    /// Who was refused last.
    refused: Option<String>,
}

impl Run {
    /// Stages 3 to 7, revision after revision.
    ///
    /// # Errors
    /// How it ended without a plan to commit.
    pub(crate) async fn plan_until_decided(
        &mut self,
        effective: &Effective,
        detected: &Detected,
        intended: &Intended,
    ) -> Result<Decided, Stop> {
        let snapshot = self.app.telemetry.snapshot();
        let group = self.group(effective, detected, &snapshot).await?;
        let mut story = Story::default();
        let mut ready: Option<(Plan, String)> = None;
        for number in 1..=REVISIONS_MAX {
            self.out_of_time(intended)?;
            let (plan, source) = match ready.take() {
                Some(mutated) => mutated,
                None => self.proposed(number, effective, detected, intended, &snapshot, &group, &mut story).await?,
            };
            let facts = self.world(effective, detected, intended, &snapshot, &group, &story).await?;
            let Some(mut revision) = self.check(number, plan, &source, facts, &group, &mut story).await? else {
                continue;
            };
            revision.vetoed = self.verified(&revision, &group).await?;
            let preview = self.preview(effective, detected, intended, &revision).await?;
            match self.decide(effective, detected, intended, &revision, &preview).await? {
                super::decide::Next::Commit(decided) => return Ok(*decided),
                super::decide::Next::Mutate(change) => {
                    let mutated =
                        lineage::mutate(&revision.plan, &change).map_err(|error| Stop::escalate(error.to_string()))?;
                    story.previous = Some(revision.plan);
                    story.mutations += 1;
                    ready = Some((mutated, "preview".to_owned()));
                }
            }
        }
        Err(Stop::escalate(format!("no plan was admitted in {REVISIONS_MAX} revisions")))
    }

    fn out_of_time(&self, intended: &Intended) -> Result<(), Stop> {
        if self.now() < Timestamp(intended.expires_at_ms) {
            return Ok(());
        }
        Err(Stop::end("out of time", 60, "G209 the time budget was spent before a plan was decided"))
    }

    /// Stage 4: pins the slice and computes the group.
    async fn group(&mut self, effective: &Effective, detected: &Detected, snapshot: &Snapshot) -> Result<Group, Stop> {
        self.spent(3);
        let targets = targets(detected, &self.brief.target);
        let names: Vec<&str> = targets.iter().map(String::as_str).collect();
        let platform = self.app.platform.clone();
        let now = self.now();
        let reading = match &platform {
            Some(platform) => platform.read(now, now).await,
            None => Reading::default(),
        };
        let policy = group_policy(effective, &reading, self.now());
        let group = group(snapshot, &names, &policy);
        let group = group.map_err(|error| Stop::escalate(format!("K505 no recovery group: {error}")))?;
        let (slice, blob) = blob_of("slice", &snapshot.slice(&names));
        let callers = match &group.blast.callers {
            Closure::Members(names) => names.clone(),
            Closure::MoreThan(_) => Vec::new(),
        };
        if self.recorded::<Grouped>("group.1").is_none() {
            let mut batch = self.batch();
            batch.blob(blob);
            let value = Grouped { members: group.members.clone(), callers, slice: slice.to_string() };
            self.settle("group.1", &value, batch).await?;
        }
        self.say(format!(
            "group          {}   what may restart together, in this order ({} of {} services)",
            group.waves.iter().flatten().flatten().cloned().collect::<Vec<_>>().join(" → "),
            group.members.len(),
            snapshot.services().count(),
        ));
        self.say(format!(
            "               {} of requests go through it · services outside that fail without it: {}",
            Ratio::clamped(u64::from(group.blast.root_share_ppm)),
            closure_words(&group.blast.callers),
        ));
        self.say(format!(
            "               permission to act: {} (traces {} joined; at most {} of requests unlike them)",
            group.permission.level,
            Ratio::clamped(u64::from(group.permission.coverage_ppm)),
            Ratio::clamped(u64::from(group.permission.miss_ppm)),
        ));
        self.spent(4);
        Ok(group)
    }

    /// Stage 3: the next plan, from the agents in order, at the end from the built-in one.
    #[expect(clippy::too_many_arguments, reason = "one stage reads what all stages before it found")]
    async fn proposed(
        &mut self,
        number: u32,
        effective: &Effective,
        detected: &Detected,
        intended: &Intended,
        snapshot: &Snapshot,
        group: &Group,
        story: &mut Story,
    ) -> Result<(Plan, String), Stop> {
        let view = self.agent_view(effective, detected, snapshot, group, story).await;
        if number == 1 {
            self.ask("diagnose.1", &Question::Diagnosis { view: view.clone() }, effective).await?;
        }
        loop {
            let agents = &self.app.settings.agent;
            let agent = agents.get(story.asked).map_or(BUILT_IN.to_owned(), |agent| agent.name.clone());
            let is_last = story.asked >= agents.len();
            story.asked += 1;
            let cause = if story.previous.is_none() { "first" } else { "kernel" };
            let question = Question::Planning {
                agent: agent.clone(),
                revision: number.into(),
                cause: cause.into(),
                view: view.clone(),
            };
            let name = format!("propose.{number}.{}", story.asked);
            let answer = self.ask(&name, &question, effective).await?;
            self.spent(3);
            let text = match answer {
                Some(Answer::Planning { plan: Some(text), .. }) => text,
                Some(Answer::Planning { reason: Some(reason), .. }) if is_last => return Err(Stop::escalate(reason)),
                _ if is_last => return Err(Stop::escalate("no agent knows a plan for what it sees")),
                _ => continue,
            };
            match recovery::text::parse(&text) {
                Ok(steps) => {
                    let topology = slice(snapshot, detected, &self.brief.target, &group.members).digest();
                    let header = Header { number, class: detected.class.clone(), topology };
                    let plan = self.header(header, steps, intended, story);
                    return Ok((plan, agent));
                }
                Err(error) if is_last => return Err(Stop::escalate(format!("K101 the plan cannot be read: {error}"))),
                Err(error) => self.say(format!("plan           {agent}   not a plan: K101 {error}")),
            }
        }
    }

    /// Asks a durable question and waits for its answer; late or absent is `None`.
    async fn ask(&mut self, name: &str, question: &Question, effective: &Effective) -> Result<Option<Answer>, Stop> {
        let id = self.promise(name);
        if self.app.engine.promise(&id).is_none() {
            let data = serde_json::to_string(question).map_err(|error| Stop::Store(error.to_string()))?;
            let tags = BTreeMap::from([(protocol::TARGET.to_owned(), AGENTS.to_owned())]);
            let timeout = self.now().plus(Millis(effective.tier.windows.agent.call.0 * 2));
            let create = self.create(&id, Value::text(data), tags, timeout);
            let batch = self.batch();
            self.submit(vec![create], batch, Vec::new()).await?;
        }
        let settled = self.app.engine.wait_settled(&id).await;
        self.reload_chain();
        let settled = settled.filter(|promise| promise.state == PromiseState::Resolved);
        Ok(settled.and_then(|promise| serde_json::from_str(promise.value.data.as_deref()?).ok()))
    }

    fn header(&self, header: Header, steps: Vec<Step>, intended: &Intended, story: &Story) -> Plan {
        if let Some(previous) = &story.previous {
            return lineage::revise(previous, Cause::Kernel, steps);
        }
        Plan {
            incident: self.id.clone(),
            revision: header.number,
            parent: None,
            cause: Cause::First,
            changes: Vec::new(),
            class: header.class,
            topology: header.topology,
            deadline_ms: Timestamp(intended.expires_at_ms),
            footprint: Vec::new(),
            steps,
        }
        .normalize()
    }

    async fn agent_view(
        &self,
        effective: &Effective,
        detected: &Detected,
        snapshot: &Snapshot,
        group: &Group,
        story: &Story,
    ) -> AgentView {
        let now = self.now();
        let reading = match &self.app.platform {
            Some(platform) => platform.read(now, now).await,
            None => Reading::default(),
        };
        let mut names: Vec<String> =
            detected.impaired.iter().chain(&detected.suspects).chain(&group.members).cloned().collect();
        names.sort();
        names.dedup();
        let onset = Timestamp(detected.onset_ms);
        AgentView {
            incident: self.id.clone(),
            target: self.brief.target.clone(),
            impaired: detected.impaired.clone(),
            suspects: detected.suspects.clone(),
            group: group.members.clone(),
            cautious: group.permission.level != Level::Full,
            services: names
                .iter()
                .map(|name| (name.clone(), self.agent_service(name, &reading, snapshot, effective, onset)))
                .collect(),
            edges: agent_edges(&names, snapshot, &reading),
            refused: story.refused.clone(),
            rejections: story.rejections.clone(),
            nearest: story.nearest.clone(),
            untrusted: BTreeMap::new(),
        }
    }

    fn agent_service(
        &self,
        name: &str,
        reading: &Reading,
        snapshot: &Snapshot,
        effective: &Effective,
        onset: Timestamp,
    ) -> AgentService {
        let all = reading.status.iter().flat_map(|status| &status.instances);
        let mine: Vec<_> = all.filter(|instance| instance.service == name).collect();
        let replicas = |ready: bool| mine.iter().filter(|i| i.ready == ready).map(|i| i.replica).collect();
        let declared = self.app.topology.service.get(name);
        let memory = mine.iter().filter_map(|i| Some((i.replica, i.memory_kib?)));
        AgentService {
            ready: replicas(true),
            unready: replicas(false),
            failing: reading.failing(name),
            memory_kib: memory.collect(),
            change: self.agent_change(name, reading, effective, onset),
            load_mrps: reading.service_mrps(name, reading.at.minus(Millis(2_000)), reading.at),
            baseline_mrps: reading.service_mrps(name, onset.minus(snapshot.config().baseline), onset),
            capacity_mrps: declared.and_then(|service| service.capacity_rps).map(|rps| u64::from(rps) * 1_000),
            metastable: snapshot.metastable(name),
            together: together(snapshot, name, self.now()),
            follows: follows(snapshot, name),
        }
    }

    /// The change of configuration that is suspected, with the revision that the kernel would return to.
    fn agent_change(
        &self,
        name: &str,
        reading: &Reading,
        effective: &Effective,
        onset: Timestamp,
    ) -> Option<AgentChange> {
        let found = suspect(reading, &self.app.topology, name, onset)?;
        let configs = self.app.platform.as_ref()?.configs();
        let needed = effective.tier.windows.known_good_for;
        let stored = reading.objects.get(&found.object)?.revisions.iter().rev();
        let mut older = stored.filter(|revision| **revision < found.revision);
        let known_good = older.find(|revision| configs.healthy_for(&found.object, **revision) >= needed).copied();
        Some(AgentChange {
            object: found.object,
            revision: found.revision,
            changed_at_ms: found.changed_at.0,
            known_good,
            needed_ms: needed.0,
        })
    }

    /// The world as it is now.
    async fn world(
        &self,
        effective: &Effective,
        detected: &Detected,
        intended: &Intended,
        snapshot: &Snapshot,
        group: &Group,
        story: &Story,
    ) -> Result<(World, Reading), Stop> {
        let platform: &Platform =
            self.app.platform.as_ref().ok_or_else(|| Stop::escalate("nothing is supervised here"))?;
        let now = self.now();
        let reading = platform.read(now, now.minus(Millis(30_000))).await;
        let question = facts::Question {
            slice: slice(snapshot, detected, &self.brief.target, &group.members),
            impaired: detected.impaired.clone(),
            suspects: detected.suspects.clone(),
            target: self.brief.target.clone(),
            onset: Timestamp(detected.onset_ms),
            intent: IntentFacts {
                incident: self.id.clone(),
                signed: true,
                expires_at: Timestamp(intended.expires_at_ms),
                class: detected.class.clone(),
                tier: intended.tier.clone(),
                policy: effective.policy,
                budget_left: Timestamp(intended.expires_at_ms).since(now),
                trust_zones: Vec::new(),
            },
            proposals_left: 5_u32.saturating_sub(u32::try_from(story.asked).unwrap_or(5)) + 1,
            holds: self.app.engine.holds().0.iter().map(facts::hold).collect(),
            vetoes: Vec::new(),
            previous: story.previous.clone(),
            mutations: story.mutations,
            capabilities: platform.capabilities(),
            configs: platform.configs().clone(),
        };
        let world = facts::world(&question, &reading, &self.app.topology, effective);
        Ok((world, reading))
    }

    /// Stage 5: the kernel's verdict. `None`: refused, and the story goes on.
    async fn check(
        &mut self,
        number: u32,
        plan: Plan,
        source: &str,
        facts: (World, Reading),
        group: &Group,
        story: &mut Story,
    ) -> Result<Option<Revision>, Stop> {
        let (fresh, reading) = facts;
        let name = format!("check.{number}");
        // A pass before this one may have checked already: the same plan against the same world.
        let (plan, world, statement) = match self.checked_before(&name) {
            Some(before) => before,
            None => {
                let statement = self.record_check(&name, &plan, source, &fresh, group).await?;
                (plan, fresh, statement)
            }
        };
        let verdict = check(&plan, &world);
        let rejections = verdict.as_ref().err().cloned().unwrap_or_default();
        let world_digest = blob_of("world", &world).0;
        self.say_plan(number, &plan, source, &rejections);
        self.spent(5);
        match verdict {
            Ok(checked) => Ok(Some(Revision {
                number,
                plan: checked.plan().clone(),
                checked,
                world,
                world_digest,
                check: statement,
                vetoed: false,
                reading,
            })),
            Err(rejections) => {
                self.unheld(&rejections, source, group)?;
                // The built-in agent may revise its plan once: what it would answer to the same again is known.
                let near = nearest(&plan, &world).map(|(plan, _)| recovery::text::steps(&plan.steps));
                let can_revise = near.is_some() && story.refused.as_deref() != Some(BUILT_IN);
                if source == BUILT_IN && !can_revise || source == "preview" {
                    let first = rejections.first().map(rejection_text).unwrap_or_default();
                    // Nobody is left to propose anything else, and the trouble lasts.
                    return Err(Stop::escalate(format!("no plan passes the kernel's check: {first}")));
                }
                story.refused = Some(source.to_owned());
                story.nearest = near;
                story.rejections = rejections.iter().map(rejection_text).collect();
                story.previous = Some(plan);
                Ok(None)
            }
        }
    }

    /// Ends the incident as held if no plan could get past the hold: it covers what must restart, or the last plan.
    fn unheld(&self, rejections: &[Rejection], source: &str, group: &Group) -> Result<(), Stop> {
        let Some(held) = rejections.iter().find(|rejection| rejection.is_hold()) else { return Ok(()) };
        let mut scope = group.members.clone();
        if source == BUILT_IN || source == "preview" {
            scope.push(held.subject.clone());
        }
        self.not_held(&scope)
    }

    fn checked_before(&self, name: &str) -> Option<(Plan, World, Digest)> {
        let done: CheckedValue = self.recorded(name)?;
        let blob = |digest: &str| self.app.engine.blob(&Digest::parse(digest)?).ok()?;
        let (plan, world) = (read_plan(&blob(&done.plan)?)?, read_world(&blob(&done.world)?)?);
        Some((plan, world, Digest::parse(&done.statement)?))
    }

    async fn record_check(
        &mut self,
        name: &str,
        plan: &Plan,
        source: &str,
        world: &World,
        group: &Group,
    ) -> Result<Digest, Stop> {
        let rejections = check(plan, world).err().unwrap_or_default();
        let (world_digest, world_blob) = blob_of("world", world);
        let (plan_digest, plan_blob) = blob_of("plan", &plan.normalize());
        let mut batch = self.batch();
        batch.blob(world_blob);
        batch.blob(plan_blob);
        let statement = batch.record(
            &self.app.keys.evaluator,
            Check {
                plan: plan_digest,
                world: world_digest,
                topology: plan.topology,
                group: group.members.clone(),
                passed: rejections.is_empty(),
                rejections: rejections.iter().map(RejectionRecord::of).collect(),
                kernel: env!("CARGO_PKG_VERSION").to_owned(),
            },
        )?;
        let value = CheckedValue {
            plan: plan_digest.to_string(),
            source: source.to_owned(),
            world: world_digest.to_string(),
            statement: statement.to_string(),
            passed: rejections.is_empty(),
        };
        self.settle(name, &value, batch).await?;
        Ok(statement)
    }

    pub(super) fn say_plan(&self, number: u32, plan: &Plan, source: &str, rejections: &[Rejection]) {
        let text = recovery::text::steps(&plan.steps);
        let verdict = if rejections.is_empty() { "" } else { "   REFUSED" };
        let shown = text.replace("->", "→").replace(" ; ", " · ");
        self.say(format!("plan r{number}        {source:<16} {shown}{verdict}"));
        if let Some(first) = rejections.first() {
            self.say(format!("               rule {}", rejection_text(first)));
        }
        self.show(|view| {
            view.revisions.push(RevisionView {
                n: number,
                digest: plan.digest().to_string(),
                source: source.to_owned(),
                plan: text,
                rejections: rejections.iter().map(rejection_view).collect(),
            });
        });
    }

    /// The verifier: it can only object.
    async fn verified(&mut self, revision: &Revision, group: &Group) -> Result<bool, Stop> {
        let callers = match &group.blast.callers {
            Closure::Members(names) => names.clone(),
            Closure::MoreThan(_) => Vec::new(),
        };
        let question = Question::Verification {
            plan: revision.checked.digest().to_string(),
            group: group.members.clone(),
            callers,
        };
        let policy = self.app.policy.clone();
        let Some(effective) = policy.effective(&revision.world.intent.tier, &revision.world.intent.class) else {
            return Ok(true);
        };
        let answer = self.ask(&format!("verify.{}", revision.number), &question, &effective).await?;
        self.spent(3);
        match answer {
            Some(Answer::Verification { reasons }) if !reasons.is_empty() => {
                self.say(format!("verifier       objects: {}", list_or(&reasons, "")));
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// What the group closes over: impaired services, suspects and the asked target.
fn targets(detected: &Detected, target: &str) -> Vec<String> {
    let mut names: Vec<String> = detected.impaired.iter().chain(&detected.suspects).cloned().collect();
    names.push(target.to_owned());
    names.sort();
    names.dedup();
    names
}

/// The part of the graph that a plan is pinned to and checked against: one and the same, or every plan is refused.
fn slice(snapshot: &Snapshot, detected: &Detected, target: &str, members: &[String]) -> Slice {
    let mut names = targets(detected, target);
    names.extend(members.iter().cloned());
    snapshot.slice(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn group_policy(effective: &Effective, reading: &Reading, now: Timestamp) -> GroupPolicy {
    let mut instances: BTreeMap<String, Instances> = BTreeMap::new();
    for instance in reading.status.iter().flat_map(|status| &status.instances) {
        let count = instances.entry(instance.service.clone()).or_default();
        count.total += 1;
        count.ready += u32::from(instance.ready);
    }
    GroupPolicy { drain_inflight: effective.tier.kernel.drain_inflight, instances, ..GroupPolicy::at(now) }
}

/// What restarts when this service restarts, in start order.
fn together(snapshot: &Snapshot, name: &str, now: Timestamp) -> Vec<String> {
    let waves = survey(snapshot, &[name], &GroupPolicy::at(now)).map(|group| group.waves).unwrap_or_default();
    waves.into_iter().flatten().flatten().collect()
}

/// Whose restart broke this service when no answer had named it.
fn follows(snapshot: &Snapshot, name: &str) -> Vec<String> {
    let missed = snapshot.edges().iter().filter(|edge| edge.missed && edge.caller == name);
    missed.map(|edge| edge.callee.clone()).collect()
}

fn agent_edges(names: &[String], snapshot: &Snapshot, reading: &Reading) -> Vec<AgentEdge> {
    // What was missed and never called carries no load that could be shed.
    let calls = |edge: &&recovery::graph::EdgeView| edge.calls > 0 || !edge.missed;
    let near = snapshot.edges().iter().filter(|edge| names.contains(&edge.callee)).filter(calls);
    let shown = |edge: &recovery::graph::EdgeView| AgentEdge {
        caller: edge.caller.clone(),
        callee: edge.callee.clone(),
        hard: edge.is_hard(),
        attempts_permille: attempts(reading, &format!("{}->{}", edge.caller, edge.callee)),
    };
    near.map(shown).collect()
}

/// Attempts per request over the last three seconds of an edge, in permille.
fn attempts(reading: &Reading, edge: &str) -> u64 {
    let series = reading.proxy.as_ref().and_then(|proxy| proxy.counters.edges.get(edge));
    let from = reading.at.minus(Millis(3_000));
    let recent = series.into_iter().flat_map(|series| &series.seconds).filter(|second| second.at_ms >= from.0);
    let (calls, retries) =
        recent.fold((0, 0), |(calls, retries), second| (calls + second.counts.calls, retries + second.counts.retries));
    (calls * 1_000).checked_div(calls.saturating_sub(retries)).unwrap_or(1_000)
}

fn rejection_text(rejection: &Rejection) -> String {
    let unknown = if rejection.unknown { " (not known, so refused)" } else { "" };
    let found = match (rejection.observed.as_str(), rejection.bound.as_str()) {
        ("", "") => String::new(),
        (observed, "") => format!(" ({observed})"),
        (observed, bound) => format!(" ({observed}; allowed: {bound})"),
    };
    format!("{} {}: {}{found}{unknown}", rejection.code, rejection.subject, rejection.code.text())
}

fn rejection_view(rejection: &Rejection) -> RejectionView {
    RejectionView { code: rejection.code.to_string(), step: rejection.step.clone(), text: rejection_text(rejection) }
}

/// Reads a world blob back.
#[must_use]
pub fn read_world(bytes: &[u8]) -> Option<World> {
    World::from_value(base::canon::parse_object("world", bytes).ok()?).ok()
}

/// Reads a plan blob back.
#[must_use]
pub fn read_plan(bytes: &[u8]) -> Option<Plan> {
    Plan::from_value(base::canon::parse_object("plan", bytes).ok()?).ok()
}

#[cfg(test)]
mod tests;
