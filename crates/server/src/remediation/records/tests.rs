use super::super::wire::{CommitParam, ConvergeParam, EXECUTOR, GivenBack, SealParam};
use super::*;
use crate::engine::Writing;
use crate::fixture::{Fixture, ask};
use crate::incidents::{self, Brief};
use axum::body::Body;
use axum::http::Request as HttpRequest;
use governance::record::{
    Arm, Bound, Converged, Convergence, ConvergenceOutcome, GuardMode, Link, Opaque, Seal, Signer, Veto,
};
use protocol::{Message, PromiseState, TaskState};
use recovery::call::{CallOutcome, Fence, Key, Receipt, State as Fields, Versions};
use recovery::journal::{Cause, Failure, Intend, Settled, UndoIntend};
use std::pin::pin;

const LEASE: Millis = Millis(2_000);
pub(in crate::remediation) const EDGE_LIMIT: &str = "limit/checkout->payments";

/// An incident whose commit a worker holds.
pub(in crate::remediation) struct Gate {
    pub(in crate::remediation) app: App,
    pub(in crate::remediation) incident: String,
    pub(in crate::remediation) task: String,
    pub(in crate::remediation) epoch: u64,
    pub(in crate::remediation) executor: Signer,
    pub(in crate::remediation) dir: tempfile::TempDir,
}

impl Gate {
    pub(in crate::remediation) async fn new() -> Gate {
        Gate::of(Fixture::new()).await
    }

    async fn of(fixture: Fixture) -> Gate {
        let executor = fixture.executor();
        let Fixture { app, dir } = fixture;
        let brief = Brief { target: "payments".into(), ..Brief::default() };
        let incident = incidents::open(&app, brief, None).await.unwrap();
        let epoch = app.engine.take_scope(&incident, &["payments".into()], &["checkout".into()]).await.unwrap();
        let task = format!("inc/{incident}:commit.1");
        let gate = Gate { app, incident, task, epoch, executor, dir };
        gate.offer(&gate.task, &TaskParam::Commit(gate.commit())).await;
        gate
    }

    fn commit(&self) -> CommitParam {
        CommitParam {
            incident: self.incident.clone(),
            revision: 1,
            decision_index: 0,
            decision: String::new(),
            world: String::new(),
            plan: plan().to_string(),
            bound: String::new(),
            epoch: self.epoch,
            backoff_ms: Vec::new(),
            regression_for_ms: 0,
            onset_ms: 0,
        }
    }

    /// Creates a task of this param, and takes it.
    async fn offer(&self, id: &str, param: &TaskParam) {
        let param = Value::text(serde_json::to_string(param).unwrap());
        let tags = BTreeMap::from([(protocol::TARGET.to_owned(), EXECUTOR.to_owned())]);
        let timeout_at = self.app.env.now().plus(STEP_MAX);
        let create = Request::PromiseCreate(Create { id: id.to_owned(), timeout_at, param, tags });
        let acquire = Request::TaskAcquire { id: id.to_owned(), version: 0, pid: "w1".into(), ttl: LEASE };
        self.write(vec![create, acquire]).await;
    }

    async fn write(&self, requests: Vec<Request>) {
        self.app.engine.submit(requests, Vec::new(), Vec::new(), Vec::new()).await.unwrap();
    }

    /// A commit of which everything that arming reads is there.
    pub(in crate::remediation) async fn decided(&self) -> CommitParam {
        let bound = base::canon::object("bound", &bound().to_value());
        let param = CommitParam {
            decision: self.posted(vec![self.line(&Line::Unknown(key("s1")))]).records.remove(0),
            bound: Digest::of(&bound).to_string(),
            regression_for_ms: 5_000,
            ..self.commit()
        };
        self.app.engine.submit(Vec::new(), Vec::new(), vec![bound], Vec::new()).await.unwrap();
        param
    }

    pub(in crate::remediation) async fn resume(&self, scope: &str) {
        let settle = Settle { id: format!("hold/{scope}"), state: Resolution::Resolved, value: Value::text("resumed") };
        self.write(vec![Request::PromiseSettle(settle)]).await;
    }

    pub(in crate::remediation) async fn hold(&self, scope: &str) {
        let timeout_at = self.app.env.now().plus(STEP_MAX);
        let id = format!("hold/{scope}");
        self.write(vec![Request::PromiseCreate(Create {
            id,
            timeout_at,
            param: Value::default(),
            tags: BTreeMap::new(),
        })])
        .await;
    }

    /// Records signed where the chain ends, as the task's holder posts them.
    fn posted(&self, records: Vec<Record>) -> Posted {
        let mut chain = Chain::load(&self.app.engine, &self.incident);
        let sign = |record| {
            let at = self.app.env.now();
            let link = Link { incident: Some(chain.incident.clone()), seq: chain.seq, prev: chain.prev, at };
            let envelope = self.executor.sign(&link, record).unwrap();
            chain.advance(Digest::of(&envelope.payload));
            envelope.to_json()
        };
        Posted {
            incident: self.incident.clone(),
            task: self.task.clone(),
            version: 1,
            epoch: Some(self.epoch),
            records: records.into_iter().map(sign).collect(),
            blobs: Vec::new(),
        }
    }

    pub(in crate::remediation) fn line(&self, line: &Line) -> Record {
        journal_record(&self.task, self.epoch, line)
    }

    /// A record that somebody else than the task's holder puts where the chain ends.
    pub(in crate::remediation) async fn append_other(&self) {
        let mut batch = Chain::load(&self.app.engine, &self.incident).batch(self.app.env.now());
        let veto = Veto { plan: plan(), reasons: vec!["a test".into()], evidence: Vec::new() };
        batch.record(&self.app.keys.verification, veto).unwrap();
        let (_, entries, blobs) = batch.into_parts();
        self.app.engine.submit(Vec::new(), entries, blobs, Vec::new()).await.unwrap();
    }

    async fn post(&self, lines: &[Line]) -> Result<Standing, NotTaken> {
        let records = lines.iter().map(|line| self.line(line)).collect();
        take(&self.app, &self.posted(records)).await
    }

    /// Posts what must be refused, and checks that nothing at all was written.
    async fn refuses(&self, posted: &Posted, why: Refusal) {
        let before = (self.app.engine.log_size(), self.app.engine.children("inc/"));
        let refused = take(&self.app, posted).await.unwrap_err();
        assert_eq!(refused.why, why, "{}", refused.text);
        assert_eq!((self.app.engine.log_size(), self.app.engine.children("inc/")), before);
    }

    fn state(&self, id: &str) -> Option<PromiseState> {
        self.app.engine.promise(id).map(|promise| promise.state)
    }

    fn value(&self, id: &str) -> String {
        self.app.engine.promise(id).unwrap().value.data.clone().unwrap_or_default()
    }
}

pub(in crate::remediation) fn plan() -> Digest {
    Digest::of(b"plan")
}

fn key(step: &str) -> Key {
    Key(format!("0123456789abcdef/{step}"))
}

pub(in crate::remediation) fn intend(step: &str, field: &str) -> Line {
    Line::Intend(Intend {
        key: key(step),
        step: step.to_owned(),
        fence: Fence { epoch: 1, version: 1 },
        pre_image: Fields::from([(field.to_owned(), -1)]),
        desired: Fields::from([(field.to_owned(), 45_000)]),
        versions: Versions::new(),
        expires_at: None,
        at: Timestamp(0),
    })
}

fn receipt(step: &str) -> Receipt {
    Receipt {
        key: key(step),
        fence: Fence { epoch: 1, version: 1 },
        outcome: CallOutcome::Applied,
        before: Fields::new(),
        after: Fields::new(),
        versions: Versions::new(),
        native_id: None,
        took: Millis(3),
    }
}

pub(in crate::remediation) fn journal_record(task: &str, epoch: u64, line: &Line) -> Record {
    let entry = Opaque(base::canon::object("journal", &line.to_value()));
    let (event, step) = (line.word().to_owned(), line.key().map(|key| step_of(&key.0).to_owned()));
    Journal { plan: plan(), line: 0, event, step, entry, task: task.to_owned(), task_version: 1, epoch }.into()
}

fn bound() -> Bound {
    Bound {
        config: Vec::new(),
        topology: Digest::default(),
        provenance: Vec::new(),
        topology_epoch: 0,
        versions: BTreeMap::new(),
    }
}

fn arm(gate: &Gate) -> Record {
    let (decision, lease, task) = (Digest::of(b"decision"), gate.incident.clone(), gate.task.clone());
    let (epoch, guard) = (gate.epoch, GuardMode::Coarse);
    Arm { decision, plan: plan(), bound: bound(), hold_version: 0, lease, epoch, task, task_version: 1, guard }.into()
}

fn convergence(outcome: ConvergenceOutcome) -> Record {
    let (at, met) = (Timestamp(0), outcome == ConvergenceOutcome::Converged);
    let check = Converged { name: "slo".into(), value: 4, bound: 10, unit: "ppm".into(), samples: 5, at, met };
    Convergence { plan: plan(), checks: vec![check], scope_after: Vec::new(), harm: 0, outcome, took: Millis(9) }.into()
}

#[tokio::test]
async fn a_step_is_created_with_its_intent_and_settled_with_its_end() {
    let gate = Gate::new().await;
    let step = format!("{}.s1", gate.task);
    take(&gate.app, &gate.posted(vec![arm(&gate)])).await.unwrap();
    let armed = format!("inc/{}:arm.1.1", gate.incident);
    assert_eq!(gate.state(&armed), Some(PromiseState::Resolved));
    let standing = gate.post(&[intend("s1", EDGE_LIMIT)]).await.unwrap();
    assert_eq!(standing.seq, 2);
    assert_eq!(gate.state(&step), Some(PromiseState::Pending));
    assert!(gate.app.engine.task(&step).is_some(), "a step is a task of its own");
    gate.post(&[Line::Did(receipt("s1")), Line::Done(key("s1"))]).await.unwrap();
    assert_eq!(gate.state(&step), Some(PromiseState::Resolved));
    gate.post(&[intend("s2", "generation/payments@0")]).await.unwrap();
    gate.post(&[Line::Failed(Failure { key: key("s2"), cause: Cause::Deadline })]).await.unwrap();
    assert_eq!(gate.state(&format!("{}.s2", gate.task)), Some(PromiseState::Rejected));
    let standing = gate.post(&[Line::Finish(Outcome::Undone(Cause::Deadline))]).await.unwrap();
    assert_eq!(gate.state(&gate.task), Some(PromiseState::Rejected));
    assert_eq!(gate.value(&gate.task), Outcome::Undone(Cause::Deadline).to_string());
    assert_eq!(gate.app.engine.task(&gate.task).unwrap().state, TaskState::Fulfilled);
    let chain = Chain::load(&gate.app.engine, &gate.incident);
    assert_eq!((standing.seq, standing.prev), (chain.seq, chain.prev.map(|digest| digest.to_string())));
    let after = gate.posted(vec![gate.line(&Line::Unknown(key("s2")))]);
    gate.refuses(&after, Refusal::Fenced).await;
}

#[tokio::test]
async fn a_commit_that_is_finished_is_resolved() {
    let gate = Gate::new().await;
    gate.post(&[Line::Finish(Outcome::Committed)]).await.unwrap();
    assert_eq!((gate.state(&gate.task), gate.value(&gate.task).as_str()), (Some(PromiseState::Resolved), "committed"));
}

#[tokio::test]
async fn only_the_holder_of_the_task_and_of_the_scope_is_heard() {
    let gate = Gate::new().await;
    let line = || vec![gate.line(&intend("s1", EDGE_LIMIT))];
    gate.refuses(&Posted { version: 2, ..gate.posted(line()) }, Refusal::Fenced).await;
    gate.refuses(&Posted { version: 0, ..gate.posted(line()) }, Refusal::Fenced).await;
    gate.refuses(&Posted { epoch: Some(gate.epoch + 1), ..gate.posted(line()) }, Refusal::Fenced).await;
    gate.refuses(&Posted { epoch: None, ..gate.posted(line()) }, Refusal::Fenced).await;
    gate.app.env.advance(LEASE);
    gate.refuses(&gate.posted(line()), Refusal::Fenced).await;
}

#[tokio::test]
async fn without_the_scope_lease_nothing_is_written() {
    let gate = Gate::new().await;
    gate.app.engine.release_scope(&gate.incident).await.unwrap();
    gate.refuses(&gate.posted(vec![gate.line(&intend("s1", EDGE_LIMIT))]), Refusal::Fenced).await;
    let epoch = gate.app.engine.take_scope(&gate.incident, &["payments".into()], &[]).await.unwrap();
    assert!(epoch > gate.epoch);
    gate.refuses(&gate.posted(vec![gate.line(&intend("s1", EDGE_LIMIT))]), Refusal::Fenced).await;
}

#[tokio::test]
async fn a_hold_stops_what_announces_an_effect_and_nothing_else() {
    for scope in ["payments", "all"] {
        let gate = Gate::new().await;
        gate.post(&[intend("s1", EDGE_LIMIT)]).await.unwrap();
        gate.hold(scope).await;
        gate.refuses(&gate.posted(vec![gate.line(&intend("s2", "generation/payments@0"))]), Refusal::Held).await;
        let restore = Fields::from([(EDGE_LIMIT.to_owned(), -1)]);
        let fence = Fence { epoch: 1, version: 1 };
        let undo = Line::UndoIntend(UndoIntend { key: key("s1").undo(), step: "s1".into(), fence, restore });
        gate.refuses(&gate.posted(vec![gate.line(&undo)]), Refusal::Held).await;
        // What happened is recorded also under a hold.
        gate.post(&[Line::Did(receipt("s1")), Line::Done(key("s1"))]).await.unwrap();
        gate.resume(scope).await;
        gate.post(&[intend("s2", "generation/payments@0")]).await.unwrap();
    }
    let gate = Gate::new().await;
    gate.hold("checkout").await;
    gate.post(&[intend("s1", EDGE_LIMIT)]).await.unwrap();
}

#[tokio::test]
async fn of_a_record_on_its_way_to_the_disk_it_is_not_said_that_a_hold_refuses_it() {
    let gate = Gate::of(Fixture::written_by(Writing::Task)).await;
    let posted = gate.posted(vec![gate.line(&intend("s1", EDGE_LIMIT))]);
    let mut first = pin!(take(&gate.app, &posted));
    let mut holding = pin!(gate.hold("payments"));
    tokio::select! {
        biased;
        taken = &mut first => panic!("{taken:?}"),
        () = &mut holding => panic!("a hold in front of what was before it"),
        () = std::future::ready(()) => {}
    }
    gate.refuses(&posted, Refusal::Chain).await;
    first.await.unwrap();
    holding.await;
    assert_eq!(take(&gate.app, &posted).await.unwrap().seq, 1, "taken before the hold, and known again");
    gate.refuses(&gate.posted(vec![gate.line(&intend("s2", EDGE_LIMIT))]), Refusal::Held).await;
}

#[tokio::test]
async fn a_record_stands_where_the_chain_ends_or_nowhere() {
    let gate = Gate::new().await;
    let stale = gate.posted(vec![gate.line(&intend("s2", EDGE_LIMIT))]);
    gate.post(&[intend("s1", EDGE_LIMIT)]).await.unwrap();
    gate.refuses(&stale, Refusal::Chain).await;
    let mut swapped = gate.posted(vec![gate.line(&Line::Unknown(key("s1"))), gate.line(&Line::Done(key("s1")))]);
    swapped.records.reverse();
    gate.refuses(&swapped, Refusal::Chain).await;
    let mut gap = gate.posted(vec![gate.line(&Line::Unknown(key("s1"))), gate.line(&Line::Done(key("s1")))]);
    gap.records.remove(0);
    gate.refuses(&gap, Refusal::Chain).await;
    let link =
        Link { incident: Some(gate.incident.clone()), seq: 1, prev: Some(Digest::of(b"other")), at: Timestamp(0) };
    let forged = gate.executor.sign(&link, gate.line(&Line::Done(key("s1")))).unwrap().to_json();
    gate.refuses(&Posted { records: vec![forged], ..gate.posted(Vec::new()) }, Refusal::Chain).await;
}

#[tokio::test]
async fn a_signature_of_another_role_or_none_is_refused() {
    let gate = Gate::new().await;
    let (own, keys) = (gate.executor.clone(), &gate.app.keys);
    let impostors = [
        Signer { key: keys.detector.key.clone(), ..own.clone() },
        Signer { key: base::SigningKey::from_seed(&[9; 32]), ..own.clone() },
        Signer { principal: "somebody".into(), ..own.clone() },
        Signer { trust_zone: "elsewhere".into(), ..own },
    ];
    let link = Link { incident: Some(gate.incident.clone()), seq: 0, prev: None, at: Timestamp(0) };
    let mut records: Vec<String> = impostors
        .iter()
        .map(|signer| signer.sign(&link, gate.line(&intend("s1", EDGE_LIMIT))).unwrap().to_json())
        .collect();
    let mut damaged = Envelope::from_json(&gate.posted(vec![gate.line(&intend("s1", EDGE_LIMIT))]).records[0]).unwrap();
    damaged.signature[5] ^= 1;
    records.extend([damaged.to_json(), "not an envelope".to_owned()]);
    for record in records {
        gate.refuses(&Posted { records: vec![record], ..gate.posted(Vec::new()) }, Refusal::Refused).await;
    }
}

#[tokio::test]
async fn only_an_executors_task_of_the_same_incident_takes_records() {
    let gate = Gate::new().await;
    let line = || gate.posted(vec![gate.line(&intend("s1", EDGE_LIMIT))]);
    gate.refuses(&Posted { task: "inc/none:commit.1".into(), ..line() }, Refusal::Refused).await;
    // The incident's own promise is the orchestrator's.
    gate.refuses(&Posted { task: format!("inc/{}", gate.incident), ..line() }, Refusal::Refused).await;
    let other = "inc/other:commit.1";
    gate.offer(other, &TaskParam::Commit(gate.commit())).await;
    gate.refuses(&Posted { task: other.into(), ..line() }, Refusal::Refused).await;
    let link = Link { incident: Some("other".into()), seq: 0, prev: None, at: Timestamp(0) };
    let foreign = gate.executor.sign(&link, gate.line(&intend("s1", EDGE_LIMIT))).unwrap().to_json();
    gate.refuses(&Posted { records: vec![foreign], ..line() }, Refusal::Refused).await;
}

#[tokio::test]
async fn each_task_takes_its_own_records_only_and_not_too_many() {
    let gate = Gate::new().await;
    gate.refuses(&gate.posted(Vec::new()), Refusal::Refused).await;
    let many = vec![gate.line(&Line::Unknown(key("s1"))); RECORDS_MAX + 1];
    gate.refuses(&gate.posted(many), Refusal::Refused).await;
    gate.refuses(&gate.posted(vec![convergence(ConvergenceOutcome::Converged)]), Refusal::Refused).await;
    let Record::Journal(mut garbled) = gate.line(&Line::Done(key("s1"))) else { panic!("no line of a journal") };
    garbled.entry = Opaque(b"not a line".to_vec());
    gate.refuses(&gate.posted(vec![garbled.into()]), Refusal::Refused).await;
    // The end of a step that never began settles nothing.
    gate.refuses(&gate.posted(vec![gate.line(&Line::Done(key("s9")))]), Refusal::Refused).await;
}

#[tokio::test]
async fn convergence_and_seal_settle_their_tasks() {
    let gate = Gate::new().await;
    let cases = [
        (ConvergenceOutcome::Converged, PromiseState::Resolved, "slo 4 ppm (limit 10) in 5 samples: ok"),
        (ConvergenceOutcome::Not, PromiseState::Rejected, "slo 4 ppm (limit 10) in 5 samples: NOT MET"),
    ];
    for (at, (outcome, state, words)) in cases.into_iter().enumerate() {
        let param = ConvergeParam {
            incident: gate.incident.clone(),
            plan: plan().to_string(),
            writes: Vec::new(),
            samples: 5,
            every_ms: 200,
            deadline_ms: 1_000,
            onset_ms: 0,
            baseline_ms: 0,
            commit_began_ms: 0,
        };
        let task = format!("inc/{}:converge.{at}", gate.incident);
        gate.offer(&task, &TaskParam::Converge(param)).await;
        let early = gate.posted(vec![gate.line(&Line::Done(key("s1")))]);
        gate.refuses(&Posted { task: task.clone(), ..early }, Refusal::Refused).await;
        let found = gate.posted(vec![convergence(outcome)]);
        take(&gate.app, &Posted { task: task.clone(), epoch: None, ..found }).await.unwrap();
        assert_eq!(gate.state(&task), Some(state));
        assert_eq!(serde_json::from_str::<Vec<String>>(&gate.value(&task)).unwrap(), [words]);
    }
    let task = format!("inc/{}:seal", gate.incident);
    let (grew, forecast_ms, measured_ms) = (false, 9_000, 8_000);
    let param = SealParam {
        incident: gate.incident.clone(),
        first: 0,
        last: 1,
        statements: Vec::new(),
        checkpoint_size: 2,
        checkpoint_root: Digest::default().to_string(),
        grew,
        forecast_ms,
        measured_ms,
        outcome: "committed".into(),
    };
    gate.offer(&task, &TaskParam::Seal(param)).await;
    let seal = Seal {
        first: 0,
        last: 1,
        statements: Vec::new(),
        checkpoint_size: 2,
        checkpoint_root: Digest::default(),
        grew,
        forecast_ms,
        measured_ms,
        outcome: "committed".into(),
    };
    let posted = gate.posted(vec![seal.into()]);
    let standing = take(&gate.app, &Posted { task: task.clone(), ..posted }).await.unwrap();
    assert_eq!(gate.state(&task), Some(PromiseState::Resolved));
    assert_eq!(Some(gate.value(&task)), standing.prev, "the seal is named by its digest");
}

#[tokio::test]
async fn over_http_the_same_and_the_journal_of_a_plan_is_read_back() {
    let gate = Gate::new().await;
    let router = routes(gate.app.clone());
    let send = async |posted: &Posted| {
        let body = Body::from(serde_json::to_vec(posted).unwrap());
        let request = HttpRequest::post("/records").header("content-type", "application/json").body(body).unwrap();
        ask(&router, request).await
    };
    let read = async |path: String| ask(&router, HttpRequest::get(path).body(Body::empty()).unwrap()).await;
    let lines = [intend("s1", EDGE_LIMIT), Line::Did(receipt("s1"))];
    let mut posted = gate.posted(lines.iter().map(|line| gate.line(line)).collect());
    posted.blobs = vec![records_base64::encode(b"words"), "not base64".into()];
    let (status, body) = send(&posted).await;
    assert_eq!((status, serde_json::from_slice::<Standing>(&body).unwrap().seq), (StatusCode::OK, 2));
    gate.post(&[Line::Done(key("s1"))]).await.unwrap();
    let (status, body) = send(&posted).await;
    assert_eq!((status, serde_json::from_slice::<Standing>(&body).unwrap().seq), (StatusCode::OK, 3), "known again");
    assert_eq!(gate.app.engine.next_seq(&gate.incident), 3, "sent twice, taken once");
    posted.records.remove(0);
    posted.records.push(posted.records[0].clone());
    let (status, body) = send(&posted).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        serde_json::from_slice::<NotTaken>(&body).unwrap().why,
        Refusal::Chain,
        "in another order, other records"
    );

    let (status, body) = read(format!("/incidents/{}/standing/{}", gate.incident, plan())).await;
    let standing: Standing = serde_json::from_slice(&body).unwrap();
    let journal: Vec<Line> = standing
        .journal
        .iter()
        .map(|text| base::canon::parse_object("journal", &records_base64::decode(text).unwrap()).unwrap())
        .map(|value| Line::from_value(value).unwrap())
        .collect();
    let lines = [lines.as_slice(), &[Line::Done(key("s1"))]].concat();
    assert_eq!((status, standing.seq, journal), (StatusCode::OK, 3, lines));
    let (_, body) = read(format!("/incidents/{}/standing/{}", gate.incident, Digest::of(b"another"))).await;
    assert!(serde_json::from_slice::<Standing>(&body).unwrap().journal.is_empty(), "another plan, another journal");

    assert_eq!(read(format!("/blobs/{}", Digest::of(b"words"))).await, (StatusCode::OK, b"words".to_vec()));
    assert_eq!(read(format!("/blobs/{}", Digest::of(b"none"))).await.0, StatusCode::NOT_FOUND);
    assert_eq!(read("/blobs/nonsense".into()).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn people_see_each_step_and_a_takeover() {
    let gate = Gate::new().await;
    gate.post(&[intend("s1", EDGE_LIMIT)]).await.unwrap();
    gate.app.env.advance(Millis(1_500));
    gate.post(&[Line::Did(receipt("s1")), Line::Done(key("s1"))]).await.unwrap();
    gate.post(&[intend("s2", "generation/payments@0")]).await.unwrap();
    // The worker dies; its lease lapses and another one takes the task.
    let mut successor = gate.app.engine.subscribe("executor", "w2").unwrap();
    gate.app.env.advance(LEASE);
    let Some(Message::Execute { task_id: id, version, .. }) = successor.next().await else {
        panic!("no task was offered")
    };
    assert_eq!(id, gate.task);
    gate.write(vec![Request::TaskAcquire { id, version, pid: "w2".into(), ttl: LEASE }]).await;
    let version = gate.app.engine.task(&gate.task).unwrap().version;
    let settled = Line::Reconciled(Settled { key: key("s2"), receipt: Some(receipt("s2")) });
    let mut line = gate.line(&settled);
    let stale = gate.posted(vec![line.clone()]);
    gate.refuses(&Posted { version, ..stale }, Refusal::Fenced).await;
    if let Record::Journal(line) = &mut line {
        line.task_version = version;
    }
    let posted = gate.posted(vec![line]);
    take(&gate.app, &Posted { version, ..posted }).await.unwrap();
    let view = gate.app.incidents.view(&gate.incident).unwrap();
    let steps: Vec<_> =
        view.commit.steps.iter().map(|step| (step.key.as_str(), step.state.as_str(), step.ms)).collect();
    assert_eq!(steps, [("s1", "done", 1_500), ("s2", "running", LEASE.0)]);
    assert_eq!(view.commit.executors.iter().map(|(pid, _)| pid.as_str()).collect::<Vec<_>>(), ["w1", "w2"]);
    let starts: Vec<_> = view.lines.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(starts, ["commit", "takeover", "reconcile"], "{:?}", view.lines);
}

#[test]
fn a_store_that_takes_no_writes_is_asked_again_and_everything_else_is_not() {
    assert_eq!(status(refusal(SubmitError::Unavailable).why), StatusCode::SERVICE_UNAVAILABLE);
    let long = SubmitError::RecordTooLong { index: 0, bytes: 60_001 };
    for error in [long, SubmitError::TooMuch, SubmitError::Guard(Guard::Chain { incident: "i".into(), seq: 1 })] {
        assert_eq!(status(refusal(error).why), StatusCode::CONFLICT);
    }
}

/// What the holder of the commit's task says when it gives it back, and the status it is answered with.
async fn give_back(gate: &Gate, version: u64, why: &str, is_final: bool) -> StatusCode {
    let (task, code, why) = (gate.task.clone(), "K407".to_owned(), why.to_owned());
    let told = serde_json::to_vec(&GivenBack { task, version, code, why, is_final }).unwrap();
    let request = HttpRequest::post("/given-back").header("content-type", "application/json");
    let router = super::super::given_back::routes(gate.app.clone());
    ask(&router, request.body(Body::from(told)).unwrap()).await.0
}

#[tokio::test]
async fn a_commit_that_nobody_can_carry_out_ends_with_the_reason_before_anything_was_done() {
    let gate = Gate::new().await;
    assert_eq!(give_back(&gate, 0, "a program was changed after the preview", true).await, StatusCode::CONFLICT);
    assert_eq!(gate.state(&gate.task), Some(PromiseState::Pending), "only the holder of the task ends it");
    assert_eq!(give_back(&gate, 1, "a program was changed after the preview", true).await, StatusCode::OK);
    assert_eq!(gate.state(&gate.task), Some(PromiseState::Rejected));
    assert_eq!(gate.value(&gate.task), "refused K407 a program was changed after the preview");
}

#[tokio::test]
async fn a_commit_that_was_armed_and_not_begun_ends_with_the_reason_too() {
    let gate = Gate::new().await;
    take(&gate.app, &gate.posted(vec![arm(&gate)])).await.unwrap();
    assert_eq!(give_back(&gate, 1, "a program was changed", false).await, StatusCode::ACCEPTED);
    assert_eq!(give_back(&gate, 1, "a program was changed", true).await, StatusCode::OK);
    assert_eq!(gate.value(&gate.task), "refused K407 a program was changed");
}

#[tokio::test]
async fn a_commit_that_was_begun_is_left_to_the_next_executor_and_the_reason_is_shown_until_one_goes_on() {
    let gate = Gate::new().await;
    take(&gate.app, &gate.posted(vec![arm(&gate)])).await.unwrap();
    gate.post(&[intend("s1", EDGE_LIMIT)]).await.unwrap();
    for is_final in [true, false] {
        assert_eq!(give_back(&gate, 1, "a program was changed", is_final).await, StatusCode::ACCEPTED);
        assert_eq!(gate.state(&gate.task), Some(PromiseState::Pending));
    }
    let view = || gate.app.incidents.view(&gate.incident).unwrap();
    assert_eq!(view().given_back.as_deref(), Some("K407 a program was changed"));
    assert_eq!(view().lines.iter().filter(|line| line.contains("K407")).count(), 1, "the same reason is said once");
    gate.post(&[Line::Did(receipt("s1"))]).await.unwrap();
    assert_eq!(view().given_back, None, "somebody goes on");
    for version in [0, 2] {
        assert_eq!(give_back(&gate, version, "somebody else owns it", false).await, StatusCode::CONFLICT);
    }
    gate.post(&[Line::Finish(Outcome::Committed)]).await.unwrap();
    assert_eq!(give_back(&gate, 1, "somebody else owns it", false).await, StatusCode::CONFLICT, "it is over");
    assert_eq!(view().given_back, None, "one that is fenced gives no reason");
    let long = "x".repeat(2_048);
    assert_eq!(give_back(&gate, 1, &long, false).await, StatusCode::PAYLOAD_TOO_LARGE);
}
