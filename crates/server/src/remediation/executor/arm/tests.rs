use super::*;
use crate::engine::Env;
use crate::platform::{Platform, RecordSecond, Sight};
use crate::remediation::executor::rig::{PAUSE, Way, job, parts, reporter, through_pauses};
use crate::remediation::records::tests::{Gate, plan};
use actuators::Fut;
use actuators::control::Status;
use actuators::process::ledger;
use client::Client;
use recovery::world::Capability;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How long a test's decision may be armed.
const VALID_FOR: Millis = Millis(60_000);

/// A platform on which all is well, and how often it was read.
#[derive(Debug, Default)]
struct Calm(AtomicU32);

impl Sight for Calm {
    fn read(&self, now: Timestamp, _since: Timestamp) -> Fut<'_, Reading> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let second = |ago: i64| RecordSecond { second_ms: now.0 - ago, sent: 100, ..RecordSecond::default() };
        let (status, record) = (Some(Status::default()), Some(vec![second(1_000), second(0)]));
        Box::pin(async move { Reading { at: now, status, record, ..Reading::default() } })
    }

    fn ledger(&self, _service: &str) -> Option<Vec<ledger::Entry>> {
        None
    }

    fn capabilities(&self) -> Vec<Capability> {
        Vec::new()
    }
}

/// A decided commit whose task an executor holds.
struct Rig {
    gate: Arc<Gate>,
    shared: Arc<Shared>,
    calm: Arc<Calm>,
    param: CommitParam,
}

impl Rig {
    async fn new() -> Rig {
        let gate = Arc::new(Gate::new().await);
        let calm = Arc::new(Calm::default());
        let client = Client::through(Way::new(&gate, &[]));
        let platform = Platform::other(calm.clone(), gate.app.topology.clone());
        let shared = Arc::new(Shared { platform, ..parts(&gate, client) });
        let param = gate.decided().await;
        Rig { gate, shared, calm, param }
    }

    fn env(&self) -> &Env {
        &self.shared.env
    }

    fn reads(&self) -> u32 {
        self.calm.0.load(Ordering::SeqCst)
    }

    fn is_armed(&self) -> bool {
        !self.gate.app.engine.children(&format!("inc/{}:arm.", self.gate.incident)).is_empty()
    }

    async fn arm(&self, valid_until: Timestamp) -> Result<Option<Severity>, JobError> {
        let writes = ["payments".to_owned()];
        let (shared, param, job) = (&self.shared, &self.param, job(&self.gate));
        let mut holds = HoldWatch::new(&shared.env, &shared.client, &writes);
        let arming = Arming { shared, job: &job, param, plan: plan(), writes: &writes, valid_until };
        arming.arm(&mut holds, &mut reporter(&self.gate, shared)).await
    }

    /// Lets time pass, in which it must not end.
    async fn waits<T: std::fmt::Debug>(&self, work: &mut Pin<&mut impl Future<Output = T>>) {
        let until = self.env().now().plus(Millis(5_000));
        let waited = async {
            tokio::select! {
                biased;
                done = work => panic!("it does not wait: {done:?}"),
                () = self.env().sleep_until(until) => {}
            }
        };
        through_pauses(self.env(), waited).await;
    }
}

#[tokio::test]
async fn what_is_armed_was_read_after_the_hold() {
    let rig = Rig::new().await;
    rig.gate.hold("payments").await;
    let mut arming = pin!(rig.arm(rig.env().now().plus(VALID_FOR)));
    rig.waits(&mut arming).await;
    assert_eq!((rig.reads(), rig.is_armed()), (0, false));
    rig.gate.resume("payments").await;
    rig.env().advance(PAUSE);
    assert!(arming.await.unwrap().is_some());
    assert_eq!((rig.reads(), rig.is_armed()), (1, true));
}

#[tokio::test]
async fn a_decision_that_was_valid_before_a_hold_and_is_not_after_it_is_not_armed() {
    let rig = Rig::new().await;
    rig.gate.hold("payments").await;
    let valid_until = rig.env().now().plus(VALID_FOR);
    let mut arming = pin!(rig.arm(valid_until));
    rig.waits(&mut arming).await;
    rig.env().advance(VALID_FOR);
    rig.gate.resume("payments").await;
    rig.env().advance(PAUSE);
    let refused = arming.await.unwrap_err();
    assert_eq!((refused.code(), refused.to_string().as_str()), ("K408", "the decision is no longer valid"));
    assert!(refused.is_final() && !rig.is_armed());
    assert!(rig.arm(rig.env().now()).await.unwrap().is_some(), "valid to its last moment");
}

#[tokio::test]
async fn an_executor_that_is_to_end_waits_for_no_hold() {
    let rig = Rig::new().await;
    rig.gate.hold("payments").await;
    let mut arming = pin!(rig.arm(rig.env().now().plus(VALID_FOR)));
    rig.waits(&mut arming).await;
    rig.shared.stop.cancel();
    assert!(arming.await.unwrap().is_none());
    rig.gate.resume("payments").await;
    let armed = rig.arm(rig.env().now().plus(VALID_FOR)).await;
    assert!(armed.unwrap().is_some(), "what no hold stops is carried out to its end");
}
