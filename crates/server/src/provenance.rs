//! Digests of the programs that run: what a record was true of.

use crate::engine::Env;
use base::Digest;
use governance::record::TargetDigest;
use recovery::topology::Topology;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Digests by program file; a file is read once.
static SEEN: OnceLock<Mutex<BTreeMap<PathBuf, Digest>>> = OnceLock::new();

/// The program of each of these services that a topology file declares.
pub(crate) async fn of(env: &Env, topology: &Topology, services: &[String]) -> Vec<TargetDigest> {
    let declared = services.iter().filter_map(|name| Some((name.clone(), topology.service.get(name)?)));
    let programs: Vec<(String, PathBuf)> = declared
        .filter_map(|(name, service)| {
            let program = service.run.first()?;
            let path = if program == "{self}" { std::env::current_exe().ok()? } else { PathBuf::from(program) };
            Some((name, path))
        })
        .collect();
    let read = env.compute(move || {
        let digest = |(target, path): (String, PathBuf)| {
            Some(TargetDigest { target, digest: digest_of(&path)?, attestation: None })
        };
        programs.into_iter().filter_map(digest).collect::<Vec<_>>()
    });
    read.await.unwrap_or_default()
}

fn digest_of(path: &PathBuf) -> Option<Digest> {
    let seen = SEEN.get_or_init(Mutex::default);
    if let Some(digest) = seen.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
        return Some(*digest);
    }
    let digest = Digest::of(&std::fs::read(path).ok()?);
    seen.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), digest);
    Some(digest)
}
