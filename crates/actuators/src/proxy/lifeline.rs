//! The end of the supervisor is the end of everything it started.

use crate::control::{INSTANCES_FILE, Instances};
use crate::procfs;
use rustix::process::{Pid, Signal, kill_process};
use std::io::Read as _;
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};

/// Returns when standard input ends; never without a lifeline.
pub(super) async fn ended(lifeline: bool) {
    if !lifeline {
        return std::future::pending().await;
    }
    let (over, end) = tokio::sync::oneshot::channel::<()>();
    // WHY: a thread of its own, because reading standard input cannot be canceled.
    std::thread::spawn(move || {
        let _over = over;
        let mut scrap = [0_u8; 64];
        while std::io::stdin().read(&mut scrap).is_ok_and(|read| read > 0) {}
    });
    let _ = end.await;
}

/// Returns on SIGTERM or SIGINT.
pub(super) async fn asked_to_end() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Kills every process of the supervisor's registry that is still the one it was; returns how many. A stopped
/// process cannot notice the end of its lifeline by itself.
pub(super) fn kill_what_is_left(dir: &Path) -> usize {
    let bytes = std::fs::read(dir.join(INSTANCES_FILE)).unwrap_or_default();
    let left: Instances = serde_json::from_slice(&bytes).unwrap_or_default();
    let own = std::process::id();
    let same = left.processes.iter().filter(|it| it.pid != own && procfs::is_same(it.pid, it.start_time));
    let numbers = same.filter_map(|it| i32::try_from(it.pid).ok().and_then(Pid::from_raw));
    numbers.filter(|pid| kill_process(*pid, Signal::KILL).is_ok()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Process;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command, Stdio};

    const BLOCK: &str = "STANCH_TEST_BLOCK";

    /// In the child that the other test starts: blocks until it is killed. Otherwise: nothing.
    #[test]
    fn blocks_in_a_child() {
        if std::env::var_os(BLOCK).is_some() {
            let _ = std::io::stdin().read(&mut [0_u8; 1]);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the test needs a process to kill")]
    fn child() -> Child {
        let mut command = Command::new(std::env::current_exe().expect("own path"));
        command.args(["--exact", "proxy::lifeline::tests::blocks_in_a_child"]).env(BLOCK, "1");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("child")
    }

    #[test]
    fn what_is_left_is_killed_even_stopped_and_nobody_else() {
        let (mut left, mut other) = (child(), child());
        let pid = Pid::from_child(&left);
        kill_process(pid, Signal::STOP).expect("stop");
        let process = |child: &Child, late: u64| Process {
            name: "till@0".into(),
            pid: child.id(),
            start_time: procfs::start_time(child.id()).expect("alive") + late,
        };
        let registry = Instances { processes: vec![process(&left, 0), process(&other, 1)] };
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join(INSTANCES_FILE), serde_json::to_vec(&registry).expect("json")).expect("write");
        assert_eq!(kill_what_is_left(dir.path()), 1);
        assert_eq!(left.wait().expect("ended").signal(), Some(9));
        assert_eq!(other.try_wait().expect("asked"), None, "its number was reused: not the one that was started");
        other.kill().expect("kill");
        other.wait().expect("ended");
    }
}
