//! A server for unit tests: real keys, store and policy in a temporary directory, under a clock that stands still.

use crate::app::App;
use crate::config::{
    ExecutorSettings, LogSettings, PlatformSettings, ProtocolSettings, PushSettings, ServerSettings, Settings,
    StorageSettings, TaskSettings, TelemetrySettings,
};
use crate::engine::{self, Engine, Env, Writing};
use crate::keys;
use crate::serve::{Open, Outside, assemble};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use base::Timestamp;
use governance::record::Signer;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use store::{Directory, Sqlite, Store};
use tempfile::TempDir;

/// When the clock of every fixture stands.
pub(crate) const START: Timestamp = Timestamp(1_700_000_000_500);

/// What is declared: one caller and two services below it.
const TOPOLOGY: &str = r#"
[service.gateway]
replicas = { min = 1, start = 1, max = 1 }
[service.checkout]
replicas = { min = 1, start = 2, max = 3 }
[service.payments]
replicas = { min = 1, start = 2, max = 4 }
critical = true
capacity_rps = 80
[edge."gateway->checkout"]
[edge."checkout->payments"]
"#;

/// A server and its directory; the server ends first.
pub(crate) struct Fixture {
    pub(crate) app: App,
    pub(crate) dir: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        Fixture::written_by(Writing::Thread)
    }

    /// With a writer that is a task of the test, nothing becomes durable while the test does not wait.
    pub(crate) fn written_by(writing: Writing) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        keys::init(dir.path()).unwrap();
        let topology = dir.path().join("stanch.toml");
        std::fs::write(&topology, TOPOLOGY).unwrap();
        let (directory, policy) = (String::new(), String::new());
        let settings = Settings {
            server: ServerSettings { port: 0, ..ServerSettings::default() },
            platform: PlatformSettings { topology: topology.display().to_string(), directory, policy },
            protocol: ProtocolSettings::default(),
            storage: StorageSettings::default(),
            executor: ExecutorSettings { start: false },
            log: LogSettings::default(),
            tasks: TaskSettings::default(),
            push: PushSettings::default(),
            telemetry: TelemetrySettings::default(),
            agent: Vec::new(),
        };
        let directory = Directory::take(dir.path()).unwrap();
        let opener: engine::Opener = Box::new(move || {
            let store = Sqlite::open(&directory)?;
            let readers = engine::Readers::of(&store)?;
            Ok((Box::new(store) as Box<dyn Store>, readers))
        });
        let open: Open = Box::new(move |config, env| Engine::open_with(opener, writing, config, env));
        let outside = Outside { open, platform: None, way: Arc::new(crate::agents::Http) };
        let app = assemble(dir.path(), settings, Env::manual(START), outside).unwrap();
        Fixture { app, dir }
    }

    pub(crate) fn executor(&self) -> Signer {
        keys::load_executor(self.dir.path()).unwrap()
    }
}

/// Asks a router without a socket in between.
pub(crate) async fn ask(router: &Router, request: Request<Body>) -> (StatusCode, Vec<u8>) {
    let answer = TowerToHyperService::new(router.clone()).call(request).await.unwrap();
    let status = answer.status();
    (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
}
