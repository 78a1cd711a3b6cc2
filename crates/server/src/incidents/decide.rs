//! Stages 7 and 8: one pure function decides; approval is by policy.

use super::chain::proven;
use super::detect::{Detected, Intended};
use super::preview::{Preview, times, waves_signal};
use super::propose::{Decided, Revision, read_plan};
use super::run::{Run, Stop};
use super::view::{DecisionView, InvariantView};
use base::{Digest, Millis, Ratio, Timestamp};
use governance::admission::{
    Authority, CheckFacts, Decision, HistoryFacts, HoldFacts, Inputs, IntentFacts, LiveInvariant, Measure,
    ObserverFacts, Outcome, PlanFacts, ReportFacts, Rules, SEMANTICS, TimeFacts, decide,
};
use governance::invariants::{
    EpochWrite, Evaluation, Holding, LeaseSpan, Needs, Reading, ReplayState, Signal, Signals, evaluate_all,
};
use governance::policy::{Effective, Fidelity};
use governance::record::{Claims, Touched};
use protocol::TaskState;
use recovery::model::FindingKind;
use recovery::plan::Change;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The exit code of a hold.
const HELD: u8 = 70;

/// What follows a decision.
pub(super) enum Next {
    /// Go on with this plan.
    Commit(Box<Decided>),
    /// Change this parameter, and preview again.
    Mutate(Change),
}

/// What stage 7 settles with.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct DecisionValue {
    statement: String,
    inputs: String,
}

/// What stage 8 settles with: all that the stages after it need.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Approved {
    revision: u32,
    plan: String,
    world: String,
    decision: String,
    bound: String,
    forecast_ms: u64,
    writes: Vec<String>,
    callers: Vec<String>,
}

impl Approved {
    fn of(decided: &Decided) -> Approved {
        Approved {
            revision: decided.revision,
            plan: decided.plan.digest().to_string(),
            world: decided.world.to_string(),
            decision: decided.decision.to_string(),
            bound: decided.bound.to_string(),
            forecast_ms: decided.forecast_ms,
            writes: decided.writes.clone(),
            callers: decided.callers.clone(),
        }
    }

    fn decided(self, run: &Run) -> Option<Decided> {
        let plan = run.app.engine.blob(&Digest::parse(&self.plan)?).ok()??;
        Some(Decided {
            revision: self.revision,
            plan: read_plan(&plan)?,
            world: Digest::parse(&self.world)?,
            decision: Digest::parse(&self.decision)?,
            bound: Digest::parse(&self.bound)?,
            forecast_ms: self.forecast_ms,
            writes: self.writes,
            callers: self.callers,
        })
    }
}

impl Run {
    /// Stage 7.
    pub(super) async fn decide(
        &mut self,
        effective: &Effective,
        detected: &Detected,
        intended: &Intended,
        revision: &Revision,
        preview: &Preview,
    ) -> Result<Next, Stop> {
        let name = format!("decision.{}", revision.number);
        let (decision, statement) = match self.decided_before(&name) {
            Some(before) => before,
            None => {
                let inputs = self.inputs(effective, detected, intended, revision, preview).await;
                let decision = decide(&inputs);
                let mut batch = self.batch();
                let blob = batch.blob(inputs.to_bytes());
                let statement = batch.record(&self.app.keys.evaluator, decision.clone())?;
                let value = DecisionValue { statement: statement.to_string(), inputs: blob.to_string() };
                self.settle(&name, &value, batch).await?;
                (decision, statement)
            }
        };
        self.say_decision(&decision, preview);
        self.spent(7);
        if decision.exit() == i32::from(HELD) {
            // The decision says that a hold covers the scope; whose it is stands with the hold.
            self.not_held(revision.checked.writes())?;
        }
        match decision.outcome {
            Outcome::Commit => Ok(Next::Commit(Box::new(Decided {
                revision: revision.number,
                plan: revision.plan.clone(),
                world: revision.world_digest,
                decision: statement,
                bound: preview.bound,
                forecast_ms: decision.numbers.estimated_delay_ms.unwrap_or(0),
                writes: revision.checked.writes().to_vec(),
                callers: members(revision.checked.hard_callers()),
            }))),
            Outcome::MutateParameters => mutation(&decision, revision).map(Next::Mutate),
            Outcome::Escalate => Err(self.ended("escalated", &decision)),
            Outcome::Abort => Err(self.ended("aborted", &decision)),
        }
    }

    /// The decision of a pass before, computed again from its recorded inputs: the same bytes.
    fn decided_before(&self, name: &str) -> Option<(Decision, Digest)> {
        let done: DecisionValue = self.recorded(name)?;
        let bytes = self.app.engine.blob(&Digest::parse(&done.inputs)?).ok()??;
        let inputs = Inputs::from_bytes(&bytes).ok()?;
        Some((decide(&inputs), Digest::parse(&done.statement)?))
    }

    fn ended(&self, outcome: &str, decision: &Decision) -> Stop {
        let exit = u8::try_from(decision.exit()).unwrap_or(20);
        let outcome = match exit {
            60 => "out of time",
            HELD => "held",
            _ => outcome,
        };
        Stop::end(outcome, exit, decision.sentence())
    }

    async fn inputs(
        &self,
        effective: &Effective,
        detected: &Detected,
        intended: &Intended,
        revision: &Revision,
        preview: &Preview,
    ) -> Inputs {
        let now = self.now();
        let (holds, hold_version) = self.app.engine.holds();
        let covering = holds.iter().find(|hold| hold.covers(revision.checked.writes()));
        let bound_now = Digest::of_object("bound", &self.bound(revision).await);
        let signals = self.signals(revision, preview);
        let live = evaluate_all(effective, &signals, &Needs::of(effective));
        let asked = Timestamp(intended.started_at_ms);
        // What was written is read again and its signatures verified: this process may have inherited the incident.
        let proven = proven(&self.app.engine, &self.app.keys.keyring, &self.id);
        let intent = Digest::parse(&intended.statement).unwrap_or_default();
        Inputs {
            semantics: SEMANTICS,
            now,
            rules: Some(Rules::of(effective)),
            hold: Some(HoldFacts { version: hold_version, scope: covering.map(|hold| hold.scope.clone()) }),
            intent: Some(IntentFacts {
                digest: intent,
                is_sound: proven.contains(&intent),
                is_chained: !proven.is_empty(),
                revision: 1,
                expires_at: Timestamp(intended.expires_at_ms),
                fault_ppm: u64::from(detected.fault_ppm),
                claims: Claims::default(),
            }),
            plan: Some(self.plan_facts(effective, revision)),
            check: Some(CheckFacts {
                digest: revision.check,
                is_sound: proven.contains(&revision.check),
                plan: revision.checked.digest(),
                has_passed: true,
            }),
            reports: vec![report_facts(intent, proven.contains(&preview.statement), revision, preview)],
            bound_now: Some(bound_now),
            invariants: live
                .into_iter()
                .map(|found| LiveInvariant { id: found.id.clone(), live: Some(found) })
                .collect(),
            quorum_safe: quorum_safe(revision, preview),
            observers: Some(ObserverFacts {
                impaired: detected.votes_impaired,
                n: detected.votes_asked,
                disagreement_ppm: u64::from(detected.disagreement_ppm),
                is_mixed_unowned: false,
            }),
            time: Some(TimeFacts {
                detect: asked.since(Timestamp(detected.onset_ms)),
                preview: preview.took,
                elapsed: now.since(asked),
            }),
            history: Some(no_history()),
            mutations: Some(u64::from(revision.world.mutations_used)),
            exception: None,
            estimates: Vec::new(),
        }
    }

    fn plan_facts(&self, effective: &Effective, revision: &Revision) -> PlanFacts {
        let checked = &revision.checked;
        let universe = revision.world.fault.weights.len() as u64;
        let share = Ratio::up(checked.writes().len() as u64, universe).unwrap_or(Ratio::ONE);
        let bound = recovery::isa::TypeBound::parse(&effective.auto_type.to_string());
        PlanFacts {
            digest: checked.digest(),
            actions: checked.steps().iter().map(|step| step.action.kind()).collect(),
            action_ppm: u64::from(share.ppm()),
            crossings: Vec::new(),
            is_above_auto: bound.is_ok_and(|bound| !checked.effect().bound.within(bound)),
            is_vetoed: revision.vetoed,
        }
    }

    /// The signals that the class's invariants read, from outside the processes being recovered.
    fn signals(&self, revision: &Revision, preview: &Preview) -> Signals {
        let mut signals = Signals::default();
        let mut insert = |name: &str, reading: Option<Reading>, source: &str| {
            if let Some(reading) = reading {
                let signal =
                    Signal { reading, unit: name.to_owned(), age: Millis(0), sources: vec![source.to_owned()] };
                signals.insert(name, signal);
            }
        };
        insert("leases", Some(self.leases()), "store");
        insert("writes", self.ledger_writes(revision), "ledger");
        insert("replay", self.replay(revision), "ledger");
        if let Some(report) = &preview.report {
            signals.insert("waves", waves_signal(report));
        }
        signals
    }

    /// Every task of every incident that is held now.
    fn leases(&self) -> Reading {
        let promises = self.app.engine.children("inc/");
        let tasks = promises.iter().filter_map(|promise| self.app.engine.task(&promise.id));
        let held = tasks.filter(|task| task.state == TaskState::Acquired);
        let spans = held.filter_map(|task| {
            Some(LeaseSpan {
                resource: task.id.clone(),
                holder: task.pid.clone()?,
                token: task.version,
                from: task.lease_at?.minus(task.ttl?),
                until: task.lease_at?,
            })
        });
        Reading::Leases(spans.collect())
    }

    fn ledgers(&self, revision: &Revision) -> Option<Vec<(String, Vec<actuators::process::ledger::Entry>)>> {
        let platform = self.app.platform.as_ref()?;
        let owners: BTreeSet<&str> =
            revision.checked.writes().iter().map(|write| actuators::process::ledger::owner(write)).collect();
        let read = |owner: &str| Some((owner.to_owned(), platform.ledger(owner)?));
        owners.into_iter().map(read).collect()
    }

    fn ledger_writes(&self, revision: &Revision) -> Option<Reading> {
        use actuators::process::ledger::Outcome as Line;
        let ledgers = self.ledgers(revision)?;
        let writes = ledgers.iter().flat_map(|(service, entries)| {
            let judged = entries.iter().filter(|entry| entry.outcome != Line::Begun);
            judged.map(move |entry| EpochWrite {
                node: service.clone(),
                actor: entry.key.clone(),
                epoch: entry.fence.epoch,
                version: entry.fence.version,
                accepted: entry.outcome == Line::Applied,
            })
        });
        Some(Reading::Writes(writes.collect()))
    }

    fn replay(&self, revision: &Revision) -> Option<Reading> {
        use actuators::process::ledger::Outcome as Line;
        let ledgers = self.ledgers(revision)?;
        let entries = self.app.engine.incident_entries(&self.id).ok()?;
        let mut applied: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for (service, lines) in &ledgers {
            for line in lines.iter().filter(|line| line.outcome == Line::Applied) {
                *applied.entry((service, &line.key)).or_default() += 1;
            }
        }
        let gap = ledgers.iter().find_map(|(service, lines)| {
            let broken = (1..).zip(lines).find(|(seq, line)| *seq != line.seq);
            broken.map(|(seq, _)| format!("{service} line {seq}"))
        });
        Some(Reading::Replay(ReplayState {
            entries: entries.len() as u64,
            bytes: entries.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
            took: Millis(0),
            gap,
            duplicate: applied
                .iter()
                .find(|(_, count)| **count > 1)
                .map(|((service, key), _)| format!("{service} {key}")),
        }))
    }

    fn say_decision(&self, decision: &Decision, preview: &Preview) {
        let invariants: Vec<InvariantView> = decision.invariants.iter().map(invariant_view).collect();
        let numbers = &decision.numbers;
        let small = |number: Option<u64>| u32::try_from(number.unwrap_or(1_000_000)).unwrap_or(u32::MAX);
        self.say(format!("decision       {}", decision.sentence()));
        self.say(format!("               {}", meaning(decision.outcome)));
        if !decision.uncalibrated.is_empty() {
            self.say("               uncalibrated: too few past recoveries to check the preview against");
        }
        for found in &invariants {
            let told = if found.outcome == "holds" { governance::invariants::meaning(&found.id) } else { &found.text };
            self.say(format!("               {} {}: {told}", found.id, found.outcome));
        }
        if decision.outcome == Outcome::Commit {
            if let Some(report) = &preview.report {
                self.say(format!(
                    "               retries {} in preview; {}",
                    times(report.amplification_permille),
                    decision.worse()
                ));
            }
            self.say(format!("time           {}", decision.time_line().trim_start_matches("time").trim()));
        }
        self.show(|view| {
            view.decision = Some(DecisionView {
                outcome: decision.outcome.to_string(),
                binding: decision.binding.as_ref().map(|reason| reason.code.to_string()).unwrap_or_default(),
                reasons: decision.reasons.iter().map(governance::admission::Reason::sentence).collect(),
                authority: decision.authority.to_string(),
                amplification_ppm: small(numbers.amplification_ppm),
                ceiling_ppm: small(numbers.a_ceiling_ppm),
                invariants,
                uncalibrated: decision.uncalibrated.iter().map(ToString::to_string).collect(),
            });
        });
    }

    /// What stage 8 approved, if a pass before this one came so far.
    pub(super) fn approved(&self) -> Option<Decided> {
        let decided = self.recorded::<Approved>("approve")?.decided(self)?;
        self.say_plan(decided.revision, &decided.plan, "as approved", &[]);
        Some(decided)
    }

    /// Stage 8: approval by policy. A tier that wants a person's approval escalates: there is no way to give one yet.
    ///
    /// # Errors
    /// Escalated, with what is missing.
    pub(super) async fn approve(&mut self, effective: &Effective, decided: &Decided) -> Result<(), Stop> {
        let authority = match effective.level {
            governance::policy::Level::Auto => Authority::Auto,
            governance::policy::Level::Approve => Authority::Approve,
            governance::policy::Level::Suggest => Authority::Suggest,
            governance::policy::Level::Observe => Authority::Observe,
        };
        if authority != Authority::Auto {
            return Err(Stop::escalate(format!(
                "the plan is admissible, but the policy lets stanch only {authority} here: raise `level` of class {} for tier {}, or do it by hand: {}",
                effective.class_name,
                effective.tier_name,
                recovery::text::steps(&decided.plan.steps)
            )));
        }
        let countdown = effective.tier.windows.countdown;
        self.say(format!("approval       by policy (auto); acting in {countdown} unless a hold is placed"));
        self.app.env.sleep_until(self.now().plus(countdown)).await;
        self.not_held(&decided.writes)?;
        let batch = self.batch();
        self.settle("approve", &Approved::of(decided), batch).await?;
        self.spent(8);
        Ok(())
    }
}

/// What a decision means for whoever reads its name for the first time.
fn meaning(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Commit => "the plan is carried out",
        Outcome::MutateParameters => "a number of the plan is changed, and it is previewed again",
        Outcome::Escalate => "a person has to decide",
        Outcome::Abort => "the plan is not carried out",
    }
}

fn report_facts(intent: Digest, is_sound: bool, revision: &Revision, preview: &Preview) -> ReportFacts {
    let report = preview.report.as_ref();
    let never = governance::admission::NEVER;
    let contended =
        report.map(|report| recovery::stats::cp_upper(u64::from(report.contended), u64::from(report.hostile), 50_000));
    ReportFacts {
        digest: preview.statement,
        is_sound,
        plan: revision.checked.digest(),
        intent,
        result: preview.result,
        taken_at: preview.taken_at,
        bound: preview.bound,
        fidelity: report.map(|_| Fidelity::F0),
        runs: report.map_or(0, |report| u64::from(report.runs)),
        escapes: None,
        divergences: super::preview::divergences(report),
        is_pilot_shy: false,
        invariants: preview.invariants.clone(),
        contention_ppm: contended.map(|share| u64::from(share.ppm())),
        growth: preview.growth(),
        epsilon_path: Some(Measure { ppm: None, is_short: true, cases: 0 }),
        epsilon_interference_ppm: None,
        // The share of signals it lacked: none, or it would be inconclusive. What only pairs of preview and outcome can
        // tell of it is too little data, as is the path's error.
        epsilon_observe_ppm: Some(0),
        retries: report.and_then(|r| preview.forecast(FindingKind::Amplification, r.amplification_permille * 1_000)),
        backlog: report.and_then(|r| preview.forecast(FindingKind::Backlog, r.backlog_peak)),
        drain: report.and_then(|r| preview.forecast(FindingKind::Drain, r.drain_p95_ms)),
        oscillations: report.and_then(|_| preview.forecast(FindingKind::Growth, 0)),
        delay: report.and_then(|r| preview.forecast(FindingKind::Delay, r.delay_p95_ms.unwrap_or(never))),
        convergence: report
            .and_then(|r| preview.forecast(FindingKind::Convergence, r.convergence_p95_ms.unwrap_or(never))),
        touched: Touched::Nothing,
    }
}

/// Nothing was ever committed and measured here: every number of history is missing because data are too few.
fn no_history() -> HistoryFacts {
    let short = || Measure { ppm: None, is_short: true, cases: 0 };
    HistoryFacts {
        pilot_risk: short(),
        amplification: short(),
        pairs: 0,
        is_stale: false,
        missing_controls: Vec::new(),
        young_controls: vec!["measured outcomes".into()],
        overdue: 0,
    }
}

/// A plan that touches no declared quorum set keeps every quorum; otherwise the preview says.
fn quorum_safe(revision: &Revision, preview: &Preview) -> Option<bool> {
    let services = &revision.world.services;
    // An object is in no quorum set; its readers are among the writes.
    let mut written =
        revision.checked.writes().iter().filter(|name| !revision.world.objects.contains_key(object(name)));
    let untouched = written.all(|name| services.get(name).is_some_and(|facts| facts.quorum_of.is_none()));
    if untouched { Some(true) } else { preview.report.as_ref().map(recovery::model::Report::is_quorum_safe) }
}

/// The object's name in a world; a service's name stays what it is.
fn object(written: &str) -> &str {
    written.strip_prefix("config/").unwrap_or(written)
}

fn members(closure: &recovery::graph::Closure) -> Vec<String> {
    match closure {
        recovery::graph::Closure::Members(names) => names.clone(),
        // More than can be named conflicts with everything: the kernel refuses before this is asked.
        recovery::graph::Closure::MoreThan(_) => Vec::new(),
    }
}

fn mutation(decision: &Decision, revision: &Revision) -> Result<Change, Stop> {
    let first = decision.mutation.first().ok_or_else(|| Stop::escalate("a mutation without a parameter"))?;
    // Several bounds may ask for the same parameter: the value farthest toward the safe end keeps them all.
    let same =
        decision.mutation.iter().filter(|change| (&change.step, &change.parameter) == (&first.step, &first.parameter));
    let change = same.max_by_key(|change| change.to.abs_diff(change.from)).unwrap_or(first);
    let parameter = change.parameter.split('.').nth(1).unwrap_or(&change.parameter);
    let step = revision.plan.step(&change.step).ok_or_else(|| Stop::escalate("a mutation of no step"))?;
    let from = recovery::plan::lineage::parameter_text(&step.action, parameter);
    let from = from.ok_or_else(|| Stop::escalate("a mutation of no parameter"))?;
    let to = if from.ends_with('%') {
        format!("{}%", change.to)
    } else if from.ends_with("rps") {
        format!("{}rps", change.to)
    } else {
        change.to.to_string()
    };
    Ok(Change { path: format!("{}.{parameter}", change.step), from, to })
}

fn invariant_view(found: &Evaluation) -> InvariantView {
    let text = match (&found.outcome, &found.why, found.value, found.bound) {
        (Holding::NotEvaluable, Some(why), ..) => why.clone(),
        (_, _, Some(value), Some(bound)) => {
            let witness = found.witness.as_ref().map(|witness| format!(": {witness}")).unwrap_or_default();
            format!("{value} {} (bound {bound}){witness}", found.unit)
        }
        _ => String::new(),
    };
    InvariantView { id: found.id.clone(), outcome: found.outcome.to_string(), text }
}
