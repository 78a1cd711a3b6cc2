//! The processes of one simulated machine: server, executor and agent, killed and started again.

use crate::crash::{Hooks, Victim};
use crate::fleet::{Fleet, Hand, TOPOLOGY};
use crate::network::{Address, Agent};
use crate::storage::Watched;
use base::{Millis, Timestamp};
use server::App;
use server::config::{
    AgentSettings, ExecutorSettings, LogSettings, PlatformSettings, ProtocolSettings, PushSettings, ServerSettings,
    Settings, StorageSettings, TaskSettings, TelemetrySettings,
};
use server::engine::{Engine, Env, OpenError, Opener, Readers, Writing};
use server::keys::InitError;
use server::platform::Platform;
use server::remediation::executor;
use server::serve::{self, Outside, ServeError};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{Directory, Sqlite, Store};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// When the simulated clock starts: 14 November 2023.
const START: Timestamp = Timestamp(1_700_000_000_000);
/// How soon a service manager starts the server again.
const SERVER_AGAIN: Millis = Millis(300);
/// How soon the server starts another executor.
const EXECUTOR_AGAIN: Millis = Millis(50);
/// The lease of the executor's tasks.
const LEASE: Millis = Millis(2_000);
/// Draws that one process may take: the next one's counter starts so much higher.
const DRAWS: u64 = 1_000_000;
const POLICY: &str = include_str!("policy.toml");

/// One machine.
pub(crate) struct Machine {
    pub(crate) hooks: Hooks,
    pub(crate) fleet: Fleet,
    pub(crate) address: Address,
    agent: Agent,
    data: tempfile::TempDir,
    settings: Settings,
    began: Instant,
    living: Living,
    server: Option<(Env, App)>,
    starts: u64,
    server_due: Option<Timestamp>,
    executor_due: Option<Timestamp>,
}

/// What a kill can reach: the processes that run now. Cheap to clone.
#[derive(Clone, Default)]
struct Living(Arc<Mutex<Running>>);

#[derive(Default)]
struct Running {
    server: Option<Env>,
    executor: Option<Env>,
}

/// A machine that could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file.
    #[error("the simulated machine's files: {0}")]
    File(#[from] std::io::Error),
    /// Keys.
    #[error(transparent)]
    Keys(#[from] InitError),
    /// The server.
    #[error(transparent)]
    Serve(Box<ServeError>),
    /// The policy could not be recorded.
    #[error("the policy could not be recorded")]
    Policy,
}

impl From<ServeError> for BuildError {
    fn from(error: ServeError) -> BuildError {
        BuildError::Serve(Box::new(error))
    }
}

impl Machine {
    /// A machine with nothing running; its keys are those in `keys`.
    pub(crate) fn new(seed: u64, keys: &Path) -> Result<Machine, BuildError> {
        let data = memory_dir()?;
        copy(keys, data.path())?;
        let topology = data.path().join("topology.toml");
        std::fs::write(&topology, TOPOLOGY)?;
        std::fs::write(data.path().join("policy.toml"), POLICY)?;
        let agent = AgentSettings { name: "agent/acme".into(), role: "planning".into(), url: "http://agent".into() };
        let settings = Settings {
            server: ServerSettings { port: 0, ..ServerSettings::default() },
            platform: PlatformSettings {
                topology: topology.display().to_string(),
                directory: String::new(),
                policy: String::new(),
            },
            protocol: ProtocolSettings::default(),
            storage: StorageSettings::default(),
            executor: ExecutorSettings { start: false },
            log: LogSettings::default(),
            tasks: TaskSettings::default(),
            push: PushSettings::default(),
            telemetry: TelemetrySettings::default(),
            agent: vec![agent],
        };
        let hooks = Hooks::default();
        Ok(Machine {
            fleet: Fleet::new(seed, START, hooks.clone()),
            hooks,
            address: Address::default(),
            agent: Agent::default(),
            data,
            settings,
            began: Instant::now(),
            living: Living::default(),
            server: None,
            starts: 0,
            server_due: Some(START),
            executor_due: Some(START),
        })
    }

    /// The simulated time.
    pub(crate) fn now(&self) -> Timestamp {
        START.plus(Millis(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)))
    }

    /// The server that runs now.
    pub(crate) fn app(&self) -> Option<&App> {
        self.server.as_ref().filter(|(env, _)| !env.is_ended()).map(|(_, app)| app)
    }

    /// What kills a process of this machine.
    pub(crate) fn killer(&self) -> Box<dyn FnMut(Victim) + Send> {
        let (living, fleet, agent) = (self.living.clone(), self.fleet.clone(), self.agent.clone());
        Box::new(move |victim| match victim {
            Victim::Server => {
                living.lock().server.take().into_iter().for_each(|env| env.end());
                // It hangs on the server's lifeline.
                living.lock().executor.take().into_iter().for_each(|env| env.end());
            }
            Victim::Executor => living.lock().executor.take().into_iter().for_each(|env| env.end()),
            Victim::Agent => agent.kill(),
            Victim::Proxy | Victim::Supervisor => fleet.kill(victim),
        })
    }

    /// Does what a service manager does for the server, and the server for its executor.
    pub(crate) async fn tend(&mut self) -> Result<(), BuildError> {
        let now = self.now();
        if self.server.is_some() && self.living.lock().server.is_none() {
            self.bury_server().await;
            self.server_due = Some(now.plus(SERVER_AGAIN));
            self.executor_due = Some(now.plus(SERVER_AGAIN).plus(EXECUTOR_AGAIN));
        }
        if self.executor_due.is_none() && self.living.lock().executor.is_none() {
            self.executor_due = Some(now.plus(EXECUTOR_AGAIN));
        }
        if self.server_due.is_some_and(|due| due <= now) {
            self.server_due = None;
            self.start_server().await?;
        }
        if self.server.is_some() && self.executor_due.is_some_and(|due| due <= now) {
            self.executor_due = None;
            self.start_executor()?;
        }
        Ok(())
    }

    /// Ends everything.
    pub(crate) async fn shut_down(&mut self) {
        let Running { server, executor } = std::mem::take(&mut *self.living.lock());
        for env in [executor, server].into_iter().flatten() {
            env.end();
            env.ended().await;
        }
        self.bury_server().await;
    }

    /// Everything that a killed server still holds goes, its lock on the data directory at the end.
    async fn bury_server(&mut self) {
        self.address.close();
        if let Some((env, app)) = self.server.take() {
            env.ended().await;
            drop(app);
        }
    }

    async fn start_server(&mut self) -> Result<(), BuildError> {
        let env = self.new_env();
        let hooks = self.hooks.clone();
        let directory = self.data.path().to_owned();
        let open = move |config, env: Env| -> Result<Engine, OpenError> {
            let directory = Directory::take(&directory).map_err(store::Error::Directory)?;
            let watched = env.clone();
            let opener: Opener = Box::new(move || {
                let store = Sqlite::open(&directory)?;
                let readers = Readers::of(&store)?;
                Ok((Box::new(Watched::new(store, watched.clone(), hooks.clone())) as Box<dyn Store>, readers))
            });
            Engine::open_with(opener, Writing::Task, config, env)
        };
        let fleet = Arc::new(self.fleet.clone());
        let outside = Outside {
            open: Box::new(open),
            platform: Some(Box::new(move |topology| Platform::other(fleet, topology))),
            way: Arc::new(self.agent.clone()),
        };
        let app = serve::assemble(self.data.path(), self.settings.clone(), env.clone(), outside)?;
        // A kill ends the tasks of the process; what this task does for it ends with a failed write.
        self.living.lock().server = Some(env.clone());
        let recorded = server::record_policy(&app).await;
        if recorded.is_err() && !env.is_ended() {
            return Err(BuildError::Policy);
        }
        serve::start(&app);
        self.address.listen(env.clone(), serve::router(&app, "http://server"));
        self.server = Some((env, app));
        Ok(())
    }

    fn start_executor(&mut self) -> Result<(), BuildError> {
        let env = self.new_env();
        let Some((_, app)) = &self.server else { return Ok(()) };
        let parts = executor::Parts {
            env: env.clone(),
            client: client::Client::through(Arc::new(self.address.clone())),
            signer: server::keys::load_executor(self.data.path())?,
            keyring: server::keys::load_keyring(self.data.path())?,
            platform: Platform::other(Arc::new(self.fleet.clone()), app.topology.clone()),
            actuator: Arc::new(Hand::new(self.fleet.clone(), env.clone())),
            pid: format!("executor-{}", self.starts),
            lease: LEASE,
            stop: CancellationToken::new(),
        };
        env.spawn(executor::work(parts));
        self.living.lock().executor = Some(env);
        Ok(())
    }

    fn new_env(&mut self) -> Env {
        self.starts += 1;
        Env::of_runtime(self.now(), self.starts * DRAWS)
    }
}

impl Living {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory in memory where there is one: a sync costs nothing there.
pub(crate) fn memory_dir() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let made = tempfile::Builder::new().prefix("stanch-sim-").tempdir_in(memory);
    made.or_else(|_| tempfile::Builder::new().prefix("stanch-sim-").tempdir())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
