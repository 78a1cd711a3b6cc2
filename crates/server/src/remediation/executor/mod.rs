//! The executor: a worker over the wire that performs the steps of commits, proves convergence and signs seals.
//! Any number may run and any may die; a successor replays the journal, looks first and repeats nothing.

mod arm;
mod commit;
mod converge;
mod error;
mod holds;
mod report;
#[cfg(test)]
mod rig;

use super::wire::{GivenBack, SealParam, TaskParam};
use crate::engine::Env;
use crate::keys;
use crate::platform::Platform;
use actuators::Actuator;
use actuators::process::ProcessActuator;
use base::{Digest, Keyring, Millis};
use client::{Client, Job, Outcome, Worker};
use error::JobError;
use governance::record::{Seal, Signer};
use recovery::topology::Topology;
use report::Reporter;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The pause before a task is given back: what stands in the way does not go away at once.
const GIVE_BACK_AFTER: Millis = Millis(500);

/// What an executor is started with.
#[derive(Clone, Debug)]
pub struct ExecutorOptions {
    /// The server.
    pub server: String,
    /// The directory with its key and the keyring.
    pub data: PathBuf,
    /// The topology file's contents.
    pub topology: Topology,
    /// The supervisor's directory.
    pub platform: PathBuf,
    /// The lease of its tasks.
    pub lease: Millis,
}

/// Why an executor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// Its key or the keyring.
    #[error(transparent)]
    Init(#[from] keys::InitError),
    /// The server's address.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The supervisor's directory.
    #[error("the supervisor's directory cannot be used: {0}")]
    Platform(#[from] std::io::Error),
}

/// What one executor is made of.
pub struct Parts {
    /// Time.
    pub env: Env,
    /// The server.
    pub client: Client,
    /// Its own key.
    pub signer: Signer,
    /// Who may sign what it is told.
    pub keyring: Keyring,
    /// What it sees.
    pub platform: Platform,
    /// What it acts with.
    pub actuator: Arc<dyn Actuator>,
    /// Its name, which no other executor may bear.
    pub pid: String,
    /// The lease of its tasks.
    pub lease: Millis,
    /// When cancelled, it takes no more tasks and ends with those at hand; what a hold freezes is left to others.
    pub stop: CancellationToken,
}

/// What every job of one executor needs.
type Shared = Parts;

/// Works until `stop` is cancelled.
///
/// # Errors
/// It cannot start.
pub async fn run(options: ExecutorOptions, stop: CancellationToken) -> Result<(), ExecutorError> {
    let parts = Parts {
        env: Env::real(),
        client: Client::new(&options.server)?,
        signer: keys::load_executor(&options.data)?,
        keyring: keys::load_keyring(&options.data)?,
        platform: Platform::new(&options.platform, Arc::new(options.topology)),
        actuator: Arc::new(ProcessActuator::open(&options.platform)?),
        pid: format!("executor-{}", std::process::id()),
        lease: options.lease,
        stop,
    };
    work(parts).await;
    Ok(())
}

/// Works with these parts until their `stop` is cancelled.
pub async fn work(parts: Parts) {
    let shared = Arc::new(parts);
    let stop = shared.stop.clone();
    let worker = Worker::new(shared.client.clone(), "executor", shared.pid.clone(), shared.lease);
    worker
        .run(stop, move |job: Job| {
            let shared = Arc::clone(&shared);
            async move { perform(&shared, job).await }
        })
        .await;
}

/// Says why a task is given back, and gives it back after a pause: whoever takes it next finds the same world.
async fn give_back(shared: &Shared, job: &Job, why: &JobError) -> Outcome {
    let lease = job.lease.task();
    let told = GivenBack {
        task: lease.id.clone(),
        version: lease.version,
        code: why.code().to_owned(),
        why: why.to_string(),
        is_final: why.is_final(),
    };
    let answer = match serde_json::to_vec(&told) {
        Ok(body) => shared.client.post_bytes("/given-back", body).await,
        Err(error) => Err(error.into()),
    };
    if matches!(answer, Ok((200, _))) {
        return Outcome::Settled;
    }
    tokio::select! {
        biased;
        () = job.lease.lost() => {}
        () = shared.env.sleep_until(shared.env.now().plus(GIVE_BACK_AFTER)) => {}
    }
    Outcome::Release
}

async fn perform(shared: &Arc<Shared>, job: Job) -> Outcome {
    let param = job.promise.param.data.as_deref().and_then(|data| serde_json::from_str(data).ok());
    let done = match param {
        Some(TaskParam::Commit(param)) => commit::run(shared, &job, &param).await,
        Some(TaskParam::Converge(param)) => converge::run(shared, &job, &param).await.map(|()| Outcome::Settled),
        Some(TaskParam::Seal(param)) => seal(shared, &job, &param).await.map(|()| Outcome::Settled),
        None => Err(JobError::UnknownTask),
    };
    match done {
        Ok(outcome) => outcome,
        Err(why) => {
            tracing::warn!(task = job.promise.id, code = why.code(), %why, "a task was given back");
            give_back(shared, &job, &why).await
        }
    }
}

/// Signs what an incident's evidence is. A digest that cannot be read is signed by nobody.
async fn seal(shared: &Arc<Shared>, job: &Job, param: &SealParam) -> Result<(), JobError> {
    let statements: Option<Vec<Digest>> = param.statements.iter().map(|text| Digest::parse(text)).collect();
    let record = Seal {
        first: param.first,
        last: param.last,
        statements: statements.ok_or(JobError::Parameter("a statement's digest"))?,
        checkpoint_size: param.checkpoint_size,
        checkpoint_root: Digest::parse(&param.checkpoint_root).ok_or(JobError::Parameter("the checkpoint's root"))?,
        grew: param.grew,
        forecast_ms: param.forecast_ms,
        measured_ms: param.measured_ms,
        outcome: param.outcome.clone(),
    };
    let mut reporter = Reporter::new(shared, job, &param.incident, None);
    Ok(reporter.send(vec![record.into()]).await?)
}
