//! Agents as durable tasks: a question is a promise with a task offered to `agents`; whoever acquires it asks the
//! agent and settles it with the answer and its record. A dead worker's task goes to the next one; a promise
//! that times out is answered by the built-in agent.

use super::{AgentProposal, AgentView, Diagnosis, ask, diagnose, propose};
use crate::app::App;
use crate::engine::Guard;
use crate::incidents::Chain;
use base::{Digest, Millis};
use governance::record::{Proposal, Veto};
use protocol::{Body, Message, Request, Resolution, Settle, TaskRef, Value};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where questions are offered.
pub const AGENTS: &str = "poll://any@agents";
/// The built-in planner's name.
pub const BUILT_IN: &str = "builtin/rules";

/// A question; the param of its promise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Question {
    /// What is wrong?
    Diagnosis {
        /// What the agent is shown.
        view: AgentView,
    },
    /// What to do?
    Planning {
        /// Who is asked.
        agent: String,
        /// The revision asked for.
        revision: u64,
        /// Why it is asked for.
        cause: String,
        /// What the agent is shown.
        view: AgentView,
    },
    /// What speaks against this plan?
    Verification {
        /// The plan.
        plan: String,
        /// Group members when the plan was checked.
        group: Vec<String>,
        /// Hard callers when the plan was checked.
        callers: Vec<String>,
    },
}

/// An answer; the value of its promise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Answer {
    /// What is wrong.
    Diagnosis {
        /// It.
        diagnosis: Diagnosis,
    },
    /// What to do.
    Planning {
        /// The steps in text form; absent = it does not know.
        plan: Option<String>,
        /// Who answered.
        agent: String,
        /// Why there is no plan.
        #[serde(default)]
        reason: Option<String>,
    },
    /// What speaks against the plan; nothing changes nothing.
    Verification {
        /// Reasons; empty = no objection.
        reasons: Vec<String>,
    },
}

/// Answers questions for as long as the server lives.
pub async fn work(app: App) {
    let Ok(mut connection) = app.engine.subscribe("agents", "agents") else { return };
    while let Some(message) = connection.next().await {
        let Message::Execute { task_id, version, .. } = message else { continue };
        let (env, app) = (app.env.clone(), app.clone());
        env.spawn(async move {
            // What is not answered is offered again when the lease lapses.
            let _ = answer(&app, &task_id, version).await;
        });
    }
}

async fn answer(app: &App, task_id: &str, version: u64) -> Option<()> {
    let call = app.policy.windows.agent.call;
    let ttl = Millis(call.0.saturating_mul(2).max(1_000));
    let acquire = Request::TaskAcquire { id: task_id.to_owned(), version, pid: "agents".into(), ttl };
    let taken = app.engine.submit(vec![acquire], Vec::new(), Vec::new(), Vec::new()).await.ok()?;
    let Body::Acquired { task, promise, .. } = &taken.responses.first()?.body else { return None };
    let question: Question = serde_json::from_str(promise.param.data.as_deref()?).ok()?;
    let task = TaskRef { id: task_id.to_owned(), version: task.version };
    let incident = task_id.strip_prefix("inc/")?.split(':').next()?.to_owned();
    match question {
        Question::Diagnosis { view } => {
            let answer = Answer::Diagnosis { diagnosis: diagnose(&view) };
            fulfill(app, &task, &answer, None).await
        }
        Question::Planning { agent, revision, cause, view } => {
            let asked = app.env.now();
            let (proposal, verbatim) = plan(app, &agent, &view, call).await;
            let took = app.env.now().since(asked);
            let record = proposal_record(&proposal, &verbatim, revision, cause, took);
            let (plan, reason) = proposal.map_or((None, None), |proposal| (proposal.plan, proposal.reason));
            let answer = Answer::Planning { plan, agent, reason };
            fulfill(app, &task, &answer, Some((incident, Recorded::Proposal(Box::new(record)), verbatim))).await
        }
        Question::Verification { plan, group, callers } => {
            let reasons = verify_now(app, &group, &callers);
            let veto = (!reasons.is_empty()).then(|| {
                let plan = Digest::parse(&plan).unwrap_or_default();
                (incident, Recorded::Veto(Veto { plan, reasons: reasons.clone(), evidence: Vec::new() }), Vec::new())
            });
            fulfill(app, &task, &Answer::Verification { reasons }, veto).await
        }
    }
}

enum Recorded {
    Proposal(Box<Proposal>),
    Veto(Veto),
}

async fn plan(app: &App, agent: &str, view: &AgentView, call: Millis) -> (Option<AgentProposal>, Vec<u8>) {
    let external = app.settings.agent.iter().find(|known| known.name == agent);
    if let Some(external) = external {
        return ask(app.way.as_ref(), &external.url, view, Duration::from_millis(call.0)).await;
    }
    let proposal = propose(view);
    let verbatim = serde_json::to_vec(&proposal).unwrap_or_default();
    (Some(proposal), verbatim)
}

fn proposal_record(
    proposal: &Option<AgentProposal>,
    verbatim: &[u8],
    revision: u64,
    cause: String,
    took: Millis,
) -> Proposal {
    let text = proposal.as_ref().and_then(|proposal| proposal.plan.clone()).unwrap_or_default();
    let opinion = proposal.as_ref().map(|proposal| Digest::of(proposal.opinion.to_string().as_bytes()));
    Proposal {
        // The plan's header is the orchestrator's: the agent's words are what this record binds.
        plan: Digest::of(text.as_bytes()),
        revision,
        parent: None,
        cause,
        opinion,
        transcript: Some(Digest::of(verbatim)),
        text,
        took,
    }
}

/// Derives the group's callers again from the newest snapshot.
fn verify_now(app: &App, group: &[String], callers: &[String]) -> Vec<String> {
    let snapshot = app.telemetry.snapshot();
    let names: Vec<&str> = group.iter().map(String::as_str).collect();
    let missing = snapshot.missing_members(&names);
    let mut again: Vec<String> = group.iter().chain(&missing).cloned().collect();
    again.sort();
    let callers_again = match snapshot.hard_callers(&names, snapshot.config().closure_max) {
        recovery::graph::Closure::Members(names) => names,
        recovery::graph::Closure::MoreThan(count) => vec![format!("more than {count}")],
    };
    super::verify(group, &again, callers, &callers_again)
}

async fn fulfill(
    app: &App,
    task: &TaskRef,
    answer: &Answer,
    record: Option<(String, Recorded, Vec<u8>)>,
) -> Option<()> {
    let mut guards = vec![Guard::Task { id: task.id.clone(), version: task.version }];
    let (mut entries, mut blobs) = (Vec::new(), Vec::new());
    if let Some((incident, record, verbatim)) = record {
        let mut batch = Chain::load(&app.engine, &incident).batch(app.env.now());
        match record {
            Recorded::Proposal(proposal) => batch.record(&app.keys.planning, *proposal).ok()?,
            Recorded::Veto(veto) => batch.record(&app.keys.verification, veto).ok()?,
        };
        batch.blob(verbatim);
        guards.push(Guard::Chain { incident, seq: batch.first_seq() });
        (_, entries, blobs) = batch.into_parts();
    }
    let value = Value::text(serde_json::to_string(answer).ok()?);
    let action = Settle { id: task.id.clone(), state: Resolution::Resolved, value };
    let request = Request::TaskFulfill { id: task.id.clone(), version: task.version, action };
    app.engine.submit(vec![request], entries, blobs, guards).await.ok()?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::{AgentChange, AgentService};
    use super::*;

    #[test]
    fn a_question_is_read_as_it_was_written_with_every_fact_in_it() {
        let service = AgentService {
            ready: vec![0, 1],
            failing: vec![1],
            memory_kib: vec![(0, 20_000), (1, 90_000)],
            change: Some(AgentChange { object: "config/shop/payments".into(), ..AgentChange::default() }),
            ..AgentService::default()
        };
        let view = AgentView { services: [("payments".to_owned(), service)].into(), ..AgentView::default() };
        let question = Question::Planning { agent: BUILT_IN.into(), revision: 1, cause: "first".into(), view };
        let text = serde_json::to_string(&question).unwrap();
        assert_eq!(serde_json::from_str::<Question>(&text).unwrap(), question);
    }
}
