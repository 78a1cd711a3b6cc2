//! What the test binary does when it is started with a role.

use actuators::process::ProcessActuator;
use actuators::{Actuator as _, proxy, supervisor, topology};
use base::{Millis, Timestamp};
use recovery::call::{self, Call, Fence, Key, Versions};
use recovery::isa::{Action, Place, RestartStrategy};
use rustix::process::{Pid, Signal};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) fn play(arguments: &[String]) -> Option<ExitCode> {
    let parts: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match parts.as_slice() {
        ["role-service", listen, starts, gate] => service(listen, starts, Path::new(gate)),
        ["role-idle", ..] => until_stdin_ends(),
        ["role-parent", child, ..] => parent(Path::new(child)),
        ["role-proxy", dir, file] => {
            let topology = topology::load(Path::new(file)).expect("topology");
            let options = proxy::Options { dir: dir.into(), topology, lifeline: true };
            runtime().block_on(proxy::run(options)).expect("proxy");
        }
        ["role-supervise", dir] => {
            let dir = PathBuf::from(dir);
            let options = supervisor::Options {
                topology_file: dir.join("stanch.toml"),
                exe: std::env::current_exe().expect("own path"),
                proxy_command: ["{self}", "role-proxy", "{data}", "{data}/stanch.toml"].map(str::to_owned).to_vec(),
                parent_lifeline: true,
                dir,
            };
            if let Err(error) = runtime().block_on(supervisor::run(options)) {
                println!("{error}: {:?}", std::error::Error::source(&error));
                return Some(ExitCode::FAILURE);
            }
        }
        ["role-restart", dir, service, replicas, key, fence] => {
            let replicas: Vec<u32> = replicas.split(',').map(|it| it.parse().expect("replica")).collect();
            let generation = 2;
            let call = restart(service, &replicas, generation, key, fence.parse().expect("fence"));
            let actuator = ProcessActuator::open(Path::new(dir)).expect("open");
            let receipt = runtime().block_on(actuator.perform(&call));
            println!("{receipt:?}");
        }
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

/// The call that `role-restart` performs and its successor reconciles.
pub(crate) fn restart(service: &str, replicas: &[u32], generation: i64, key: &str, version: u64) -> Call {
    Call {
        key: Key(key.to_owned()),
        fence: Fence { epoch: 1, version },
        action: Action::Restart {
            place: Place::Instances(service.to_owned(), replicas.to_vec()),
            strategy: RestartStrategy::Rolling,
            wave: 1,
            surge: 0,
            grace_ms: Some(5_000),
            jitter_ms: Some(0),
        },
        desired: replicas.iter().map(|replica| (call::generation(service, *replica), generation)).collect(),
        bound: Versions::new(),
        deadline: now().plus(Millis(30_000)),
        expires_at: None,
    }
}

#[expect(clippy::disallowed_methods, reason = "deadlines are instants of the host's clock")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp(i64::try_from(since.as_millis()).expect("before the end of time"))
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

/// Answers every request with 200, once there is no gate; ends with its lifeline. Its own start log is the witness
/// beside the ledger.
fn service(listen: &str, starts: &str, gate: &Path) {
    let own = |name: &str| actuators::procfs::variable(std::process::id(), name).expect("environment");
    let line = format!(
        "{}@{} {} {}\n",
        own("STANCH_SERVICE"),
        own("STANCH_REPLICA"),
        own("STANCH_GENERATION"),
        own("STANCH_KEY")
    );
    let mut log = std::fs::File::options().create(true).append(true).open(starts).expect("start log");
    log.write_all(line.as_bytes()).expect("start log");
    let (listen, gate) = (listen.to_owned(), gate.to_owned());
    std::thread::spawn(move || {
        while gate.exists() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let listener = TcpListener::bind(&listen).expect("listen");
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    until_stdin_ends();
}

fn answer(mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut chunk = [0_u8; 1024];
    while let Ok(length) = stream.read(&mut chunk) {
        if length == 0 {
            return;
        }
        request.extend_from_slice(&chunk[..length]);
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }
}

/// Has a child that is stopped, and writes its number down.
#[expect(clippy::disallowed_methods, reason = "what a service starts is no business of ours")]
fn parent(file: &Path) {
    let mut command = std::process::Command::new(std::env::current_exe().expect("own path"));
    let mut child = command.arg("role-idle").stdin(std::process::Stdio::piped()).spawn().expect("child");
    rustix::process::kill_process(Pid::from_child(&child), Signal::STOP).expect("stop");
    std::fs::write(file, child.id().to_string()).expect("number");
    until_stdin_ends();
    child.kill().expect("kill");
    child.wait().expect("ended");
}

fn until_stdin_ends() {
    let mut scrap = [0_u8; 64];
    while std::io::stdin().read(&mut scrap).is_ok_and(|length| length > 0) {}
}
