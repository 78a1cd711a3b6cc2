//! The long-running processes: server, executor, supervisor, proxy.

use super::signals::Signals;
use super::{TOPOLOGY, data_dir};
use crate::args::{self, ExecutorArgs, LogArgs, ProxyArgs, ServeArgs, SuperviseArgs};
use crate::failure::Failure;
use base::Millis;
use rustix::fd::AsFd as _;
use server::config::{self, Flags, LogFormat, LogSettings, ProtocolProfile};
use server::keys::InitError;
use server::remediation::executor::{self, ExecutorError, ExecutorOptions};
use server::serve::{Ready, ServeError};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// `stanch serve`
pub(crate) async fn serve(args: ServeArgs) -> Result<u8, Failure> {
    let data = data_dir(args.data.data.clone(), "server")?;
    refuse_long_files_instead_of_dying();
    raise_descriptor_limit();
    let flags = Flags {
        bind: args.bind,
        port: args.port,
        topology: absolute(args.topology)?,
        platform: absolute(args.platform)?,
        policy: absolute(args.policy)?,
        protocol_profile: args.protocol_profile.map(profile),
        debug: args.debug,
        no_executor: args.no_executor,
        insecure: args.insecure,
        log: args.log.level.clone(),
        log_format: args.log.format.map(Into::into),
        otlp_grpc: args.otlp_grpc,
        otlp_http: args.otlp_http,
    };
    let (settings, _) = config::load(&data, &flags).map_err(|error| refused(ServeError::Config(error), &data))?;
    logs(&settings.log)?;
    let json = args.data.json;
    let announce = move |ready: &Ready| {
        if json {
            out!("{}", serde_json::to_string(ready).unwrap_or_default());
        } else {
            out!("listening on {}   policy {}   data {}", ready.url, ready.policy, ready.data);
            let (grpc, http) = (ready.otlp_grpc.as_deref(), ready.otlp_http.as_deref());
            out!("spans: OTLP over gRPC at {}, over HTTP at {}", grpc.unwrap_or("-"), http.unwrap_or(&ready.url));
        }
    };
    let stop = signalled();
    let ended = stop.clone();
    tokio::spawn(async move {
        abandoned(args.lifeline).await;
        ended.cancel();
    });
    match server::serve::serve(&data, &flags, stop, announce).await {
        Ok(()) => Ok(0),
        Err(error) => Err(refused(error, &data)),
    }
}

/// The setting that a flag's value stands for.
fn profile(named: args::ProtocolProfile) -> ProtocolProfile {
    match named {
        args::ProtocolProfile::Default => ProtocolProfile::Default,
        args::ProtocolProfile::Resonate20260401 => ProtocolProfile::Resonate20260401,
    }
}

/// Why a server did not start: a file of somebody's is theirs to correct, everything else is the machine's or ours.
fn refused(error: ServeError, data: &Path) -> Failure {
    let unusable = match &error {
        ServeError::Config(_) | ServeError::Topology(_) | ServeError::Public { .. } => true,
        ServeError::Init(error) => {
            use InitError::{InUse, Keyring, Random, Unwritable};
            !matches!(error, InUse(_) | Unwritable { .. } | Random(_) | Keyring(_))
        }
        _ => false,
    };
    let next = match &error {
        ServeError::Public { .. } => {
            "stanch serve --bind 127.0.0.1, with a proxy before it that knows who may ask; or --insecure where nobody \
             else can reach it"
                .to_owned()
        }
        ServeError::Listen { .. } => "stanch serve --port 0, which takes a free port and prints it".to_owned(),
        ServeError::Config(_) => {
            format!("correct {}, then stanch config show --data {}", data.join("config.toml").display(), data.display())
        }
        ServeError::Topology(_) | ServeError::Declare(_) => TOPOLOGY.to_owned(),
        ServeError::Init(InitError::Policy { .. } | InitError::PolicySyntax { .. } | InitError::Text(_)) => {
            "correct it, then stanch serve again; `stanch init --data NEW` writes a policy to start from".to_owned()
        }
        ServeError::Init(InitError::InUse(_)) => format!("stanch serve --data {}, once it is free", data.display()),
        ServeError::Init(_) => {
            "stanch init --data NEW, which makes keys of its own; or restore this one from a backup".to_owned()
        }
        _ => format!("stanch doctor --data {}", data.display()),
    };
    Failure { exit: if unusable { 2 } else { 1 }, ..Failure::refused(error) }.next(next)
}

/// `stanch executor`
pub(crate) async fn executor(args: ExecutorArgs) -> Result<u8, Failure> {
    logs(&told(&args.log))?;
    let missing = |what: &str| Failure::usage(format!("an executor needs --{what}")).next("stanch executor --help");
    let topology = args.topology.ok_or_else(|| missing("topology"))?;
    let options = ExecutorOptions {
        server: args.server,
        data: data_dir(args.data, "server")?,
        topology: super::topology(&topology)?,
        platform: args.platform.ok_or_else(|| missing("platform"))?,
        lease: Millis(args.lease_ms),
    };
    let next = format!("stanch init --data {}, or --data with the directory of `stanch serve`", options.data.display());
    tokio::select! {
        // Whoever started it is gone: so is it, at once. A successor finds in the journal how far it came.
        () = abandoned(args.lifeline) => Ok(0),
        ran = executor::run(options, signalled()) => {
            ran.map_err(|error| {
                let exit = if matches!(error, ExecutorError::Init(_)) { 2 } else { 1 };
                Failure { exit, ..Failure::refused(error) }.next(next)
            })?;
            Ok(0)
        }
    }
}

/// `stanch supervise`
pub(crate) async fn supervise(args: SuperviseArgs) -> Result<u8, Failure> {
    let log = told(&args.log);
    logs(&log)?;
    let file = absolute(Some(args.file))?.unwrap_or_default();
    let dir = absolute(Some(args.data))?.unwrap_or_default();
    let options = server::supervisor::Options {
        topology_file: file.clone(),
        dir,
        exe: std::env::current_exe()?,
        proxy_command: ["{self}", "proxy", "--data", "{data}", "--log", &log.level, "--log-format", log.format.name()]
            .map(str::to_owned)
            .into_iter()
            .chain([file.display().to_string()])
            .collect(),
        parent_lifeline: args.lifeline,
    };
    // Read before anything is made; the supervisor reads it again, as what it then is.
    super::topology(&file)?;
    let ran = server::supervisor::run(options).await;
    ran.map_err(|error| Failure::internal(format!("{:#}", anyhow::Error::from(error))))?;
    Ok(0)
}

/// `stanch proxy`
pub(crate) async fn proxy(args: ProxyArgs) -> Result<u8, Failure> {
    logs(&told(&args.log))?;
    let options =
        server::proxy::Options { dir: args.data.clone(), topology: super::topology(&args.file)?, lifeline: true };
    server::proxy::run(options).await.map_err(|error| Failure::internal(error.to_string()))?;
    Ok(0)
}

/// A write beyond the process's limit on file sizes ends it, unless the signal is caught: then the write fails as on a
/// full disk, which the store knows how to answer.
fn refuse_long_files_instead_of_dying() {
    use tokio::signal::unix::{SignalKind, signal};
    // Once caught it stays caught, whether anybody listens or not.
    let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
}

fn absolute(path: Option<PathBuf>) -> Result<Option<PathBuf>, Failure> {
    path.map(|path| std::path::absolute(&path).map_err(|error| Failure::usage(format!("{}: {error}", path.display()))))
        .transpose()
}

/// Each connection takes a descriptor: as many as this user may have, not as many as a shell grants by itself.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // What cannot be raised stays: connections beyond it are refused one by one.
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
}

impl From<args::LogFormat> for LogFormat {
    fn from(format: args::LogFormat) -> LogFormat {
        match format {
            args::LogFormat::Text => LogFormat::Text,
            args::LogFormat::Json => LogFormat::Json,
        }
    }
}

/// What a process without a configuration of its own was told to log.
fn told(args: &LogArgs) -> LogSettings {
    let settings = LogSettings::default();
    LogSettings {
        level: args.level.clone().unwrap_or(settings.level),
        format: args.format.map_or(settings.format, Into::into),
    }
}

/// Logs to stderr from now on.
fn logs(settings: &LogSettings) -> Result<(), Failure> {
    let wrong =
        |why: &str| Failure::usage(format!("log level `{}`: {why}", settings.level)).next("stanch serve --log info");
    // WHY: the library below takes any other word for the name of a target, and shows nothing.
    let is_level = |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
    if !settings.level.split(',').all(is_level) {
        return Err(wrong("error, warn, info, debug, trace, off, or a list of target=level"));
    }
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| wrong(&error.to_string()))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, in a test's process, changes nothing.
    let _ = match settings.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}

/// Cancelled by SIGINT or SIGTERM. Another one after it ends the process at once: what was answered is on disk.
fn signalled() -> CancellationToken {
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    tokio::spawn(async move {
        // Without handlers the signals end the process by themselves.
        let Ok(mut signals) = Signals::watch() else { return };
        signals.any().await;
        signalled.cancel();
        let failure = signals.any().await.failure("what was in flight was cut off");
        let exit = failure.exit;
        let _ = failure.report();
        std::process::exit(exit.into());
    });
    stop
}

/// Returns when standard input ends; never without a lifeline.
pub(crate) async fn abandoned(lifeline: bool) {
    if !lifeline {
        return std::future::pending().await;
    }
    let (over, end) = tokio::sync::oneshot::channel::<()>();
    // A thread, because standard input cannot be polled when it is a file.
    std::thread::spawn(move || {
        let _over = over;
        let mut buffer = [0_u8; 64];
        while rustix::io::read(std::io::stdin().as_fd(), &mut buffer).is_ok_and(|count| count > 0) {}
    });
    // The sender never sends: it is gone when standard input has ended.
    let _ = end.await;
}
