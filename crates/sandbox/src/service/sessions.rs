//! Sessions that one service holds with another through files on a volume that both mount: a dependency that no call
//! shows and no declaration names. Without the volume there are none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The volume's directory in the shop's.
pub(crate) const VOLUME: &str = "sessions";
/// Whose processes grant sessions.
pub(crate) const GRANTS: &str = "payments";
/// Whose processes hold one with each of those.
pub(crate) const HOLDS: &str = "inventory";
/// How often a holder looks at the volume.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The sessions of one replica.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// Where they lie; absent for a replica that holds none.
    volume: Option<PathBuf>,
    /// The session first seen of each replica that grants one: it lives as long as that replica's process.
    held: Mutex<BTreeMap<String, Session>>,
}

#[derive(Debug)]
struct Session {
    token: String,
    /// Its process is no more. There is no way to another session but a new start of the holder.
    is_lost: bool,
}

impl Sessions {
    /// Grants the session of this process, or takes those there are, if the volume is there.
    ///
    /// # Errors
    /// A session that cannot be written.
    pub(super) fn open(data: &Path, service: &str, replica: u32) -> std::io::Result<Sessions> {
        let volume = data.join(VOLUME);
        if service == GRANTS && volume.is_dir() {
            grant(&volume, replica)?;
        }
        let held = (service == HOLDS && volume.is_dir()).then_some(volume);
        let sessions = Sessions { volume: held, ..Sessions::default() };
        sessions.look();
        Ok(sessions)
    }

    /// Whether a request needs a session that is lost; each belongs to one of those held.
    pub(super) fn fail(&self, request: &[u8]) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let sum: usize = request.iter().map(|byte| usize::from(*byte)).sum();
        let session = sum.checked_rem(held.len()).and_then(|at| held.values().nth(at));
        session.is_some_and(|session| session.is_lost)
    }

    /// Looks again and again until it is aborted.
    pub(super) async fn follow(&self) {
        while self.volume.is_some() {
            tokio::time::sleep(LOOK_EVERY).await;
            self.look();
        }
    }

    fn look(&self) {
        let Some(entries) = self.volume.as_ref().and_then(|volume| std::fs::read_dir(volume).ok()) else { return };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Ok(token) = std::fs::read_to_string(entry.path()) else { continue };
            if name.starts_with('.') {
                continue;
            }
            let known = held.entry(name).or_insert_with(|| Session { token: token.clone(), is_lost: false });
            known.is_lost |= known.token != token;
        }
    }
}

/// Writes the session of this process; readers see it whole.
fn grant(volume: &Path, replica: u32) -> std::io::Result<()> {
    let pid = std::process::id();
    let session = format!("{pid}-{}", crate::starts::start_time(pid).unwrap_or(0));
    let aside = volume.join(format!(".{GRANTS}-{replica}"));
    std::fs::write(&aside, session)?;
    std::fs::rename(aside, volume.join(format!("{GRANTS}-{replica}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a hundred orders.
    fn failing(sessions: &Sessions) -> usize {
        (100..200).filter(|number| sessions.fail(format!(r#"{{"order":"7-{number}"}}"#).as_bytes())).count()
    }

    #[test]
    fn a_session_lives_as_long_as_the_process_that_granted_it() {
        let dir = tempfile::tempdir().expect("dir");
        let volume = dir.path().join(VOLUME);
        std::fs::create_dir(&volume).expect("volume");
        let holder = Sessions::open(dir.path(), HOLDS, 0).expect("opened");
        Sessions::open(dir.path(), GRANTS, 0).expect("granted");
        Sessions::open(dir.path(), GRANTS, 1).expect("granted");
        holder.look();
        assert_eq!(failing(&holder), 0, "it started before them");
        std::fs::write(volume.join("payments-1"), "another process").expect("written");
        holder.look();
        assert_eq!(failing(&holder), 50, "every second request is of the session that is lost");
        std::fs::write(volume.join("payments-1"), "a third").expect("written");
        holder.look();
        assert_eq!(failing(&holder), 50, "for the life of its own process");
        assert_eq!(failing(&Sessions::open(dir.path(), HOLDS, 0).expect("started anew")), 0);
    }

    #[test]
    fn without_the_volume_nobody_holds_anything() {
        let dir = tempfile::tempdir().expect("dir");
        for service in [GRANTS, HOLDS] {
            assert_eq!(failing(&Sessions::open(dir.path(), service, 0).expect("opened")), 0);
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 0, "and nothing is written");
    }
}
