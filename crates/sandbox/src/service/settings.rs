//! The configuration of a replica: read at its start, and again whenever its operators point to another revision.

use crate::rollout;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often a replica looks whether another revision is in use.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a replica was told; absent for services without configuration.
#[derive(Debug, Default)]
pub(super) struct Settings {
    home: Option<PathBuf>,
    loaded: Mutex<Loaded>,
}

#[derive(Debug, Default)]
struct Loaded {
    from: PathBuf,
    /// The key that signs; `None`: there is none by that name.
    key: Option<String>,
}

#[derive(Deserialize)]
struct Chosen {
    key: String,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

impl Settings {
    /// Reads the revision in use. A replica without a rolled-out configuration signs nothing and needs no key.
    pub(super) fn open(data: &Path, object: Option<&str>) -> Settings {
        let home = object.map(|object| rollout::home(data, object)).filter(|home| home.is_dir());
        let settings = Settings { home, loaded: Mutex::default() };
        settings.look();
        settings
    }

    /// Whether the replica can do its work with what it was told.
    pub(super) fn are_good(&self) -> bool {
        self.home.is_none() || self.loaded.lock().unwrap_or_else(PoisonError::into_inner).key.is_some()
    }

    /// Looks again and again until it is aborted.
    pub(super) async fn follow(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.look();
        }
    }

    fn look(&self) {
        let Some(home) = &self.home else { return };
        let Ok(from) = std::fs::read_link(home.join("current")) else { return };
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.from != from {
            *loaded = Loaded { key: key(&home.join(&from)), from };
        }
    }
}

/// The chosen key, if there is one by that name.
fn key(revision: &Path) -> Option<String> {
    let chosen: Chosen = serde_json::from_slice(&std::fs::read(revision.join("settings.json")).ok()?).ok()?;
    let keys: Keys = serde_json::from_slice(&std::fs::read(revision.join("keys.json")).ok()?).ok()?;
    keys.keys.contains(&chosen.key).then_some(chosen.key)
}
