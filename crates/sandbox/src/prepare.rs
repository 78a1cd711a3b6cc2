//! Makes a directory out of which the supervisor can run the shop.

use crate::ports::free_port;
use crate::rollout;
use crate::service::sessions;
use crate::topology::{self, TopologyOptions};
use crate::{POLICY_FILE, RATE, TOPOLOGY_FILE};
use anyhow::Context as _;
use std::path::{Path, PathBuf};

/// The shop's policy file.
pub const POLICY: &str = include_str!("../sandbox.policy.toml");

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// Base address of the server that takes the spans.
    pub server: String,
    /// Root requests a second.
    pub rate: u32,
    /// Of everything random.
    pub seed: u64,
    /// Whether one service fails once another is restarted, in a way that nothing declares and no call shows.
    pub hidden_coupling: bool,
}

/// A directory that is ready.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The topology file.
    pub topology: PathBuf,
    /// The policy file.
    pub policy: PathBuf,
    /// Base address of the load generator's record.
    pub load_url: String,
    /// Base address of the scripted agent.
    pub agent_url: String,
}

impl Options {
    /// The usual shop, sending its spans to `server`.
    #[must_use]
    pub fn new(server: &str) -> Options {
        Options { server: server.to_owned(), rate: RATE, seed: 1, hidden_coupling: false }
    }
}

/// Writes the topology file, the policy file and the first configuration of the services into `dir`.
///
/// # Errors
/// A directory that cannot be written, or no free port.
pub fn prepare(dir: &Path, options: &Options) -> anyhow::Result<Prepared> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let load = format!("127.0.0.1:{}", free_port()?);
    let agent = format!("127.0.0.1:{}", free_port()?);
    let Options { server, rate, seed, hidden_coupling } = options.clone();
    let text = topology::text(&TopologyOptions { otlp: server, load: load.clone(), agent: agent.clone(), rate, seed });
    let prepared = Prepared {
        topology: dir.join(TOPOLOGY_FILE),
        policy: dir.join(POLICY_FILE),
        load_url: format!("http://{load}"),
        agent_url: format!("http://{agent}"),
    };
    for (path, text) in [(&prepared.topology, text.as_str()), (&prepared.policy, POLICY)] {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    // What earlier processes left there is nobody's any more.
    let volume = dir.join(sessions::VOLUME);
    if volume.is_dir() {
        std::fs::remove_dir_all(&volume)?;
    }
    if hidden_coupling {
        std::fs::create_dir(&volume)?;
    }
    // A shop that ended with a bad configuration begins with a good one: it could not open otherwise.
    let good = rollout::payments(rollout::KEY);
    if !rollout::is_current(dir, rollout::PAYMENTS, &good) {
        rollout::roll_out(dir, rollout::PAYMENTS, &good)?;
    }
    Ok(prepared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Millis;
    use governance::policy::{EffectType, Fidelity, Level, PolicyFile};

    /// Short windows, but nothing that the loader or the lint of policies would complain about.
    #[test]
    fn the_policy_of_short_windows_loads() {
        let policy = toml::from_str::<PolicyFile>(POLICY).expect("read").load().expect("loaded");
        assert_eq!(policy.lint(), []);
        let tier = policy.tier_of("payments").expect("a tier");
        let restart = policy.effective(tier, "restart-orchestration").expect("a class");
        assert_eq!((restart.level, restart.fidelity), (Level::Auto, Fidelity::F0));
        assert_eq!(restart.auto_type, EffectType::MAX);
        assert_eq!(restart.class.converge_deadline, Millis(30_000));
        let windows = &restart.tier.windows;
        assert_eq!((windows.lease.step, windows.lease.reconnect_grace), (Millis(2_000), Millis(200)));
        let [baseline, countdown, limited_for] = [6_000, 2_000, 500].map(Millis);
        assert_eq!((windows.baseline, windows.countdown, windows.limited_for), (baseline, countdown, limited_for));
        assert_eq!(windows.reconcile.backoff, [100, 200, 400, 800].map(Millis));
    }

    #[test]
    fn a_prepared_directory_says_where_everything_is() {
        let dir = tempfile::tempdir().expect("dir");
        let prepared = prepare(&dir.path().join("new"), &Options::new("http://127.0.0.1:8001")).expect("prepared");
        let topology = std::fs::read_to_string(&prepared.topology).expect("topology");
        assert!(topology.contains(&format!("url = \"{}/record\"", prepared.load_url)));
        assert!(topology.contains(prepared.agent_url.trim_start_matches("http://")));
        assert_ne!(prepared.load_url, prepared.agent_url);
        let policy = std::fs::read_to_string(&prepared.policy).expect("policy");
        assert!(policy.contains("name = \"sandbox\""));
        let home = dir.path().join("new");
        assert_eq!(rollout::current(&home, rollout::PAYMENTS).expect("read"), Some(1));
        prepare(&home, &Options::new("http://127.0.0.1:8001")).expect("prepared again");
        assert_eq!(rollout::current(&home, rollout::PAYMENTS).expect("read"), Some(1), "nothing new to roll out");
        assert!(!home.join(sessions::VOLUME).exists());
        let coupled = Options { hidden_coupling: true, ..Options::new("http://127.0.0.1:8001") };
        let hidden = prepare(&home, &coupled).expect("prepared with a volume");
        assert!(home.join(sessions::VOLUME).is_dir());
        let declared = std::fs::read_to_string(&hidden.topology).expect("topology");
        assert!(!declared.contains("session"), "nothing declares it");
        prepare(&home, &Options::new("http://127.0.0.1:8001")).expect("prepared without");
        assert!(!home.join(sessions::VOLUME).exists());
        rollout::roll_out(&home, rollout::PAYMENTS, &rollout::payments("2026-12")).expect("rolled out");
        prepare(&home, &Options::new("http://127.0.0.1:8001")).expect("prepared again");
        assert_eq!(rollout::current(&home, rollout::PAYMENTS).expect("read"), Some(3), "it opens with what works");
    }
}
