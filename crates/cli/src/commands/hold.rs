//! `stanch hold` and `stanch resume`: a person's word, signed here. It goes to the server, or, when no server answers,
//! into its store directly.

use super::data_dir;
use super::show::table;
use crate::args::{HoldArgs, ResumeArgs, WordArgs};
use crate::failure::Failure;
use client::Client;
use governance::record::{Hold, Link, Record, Resume, Signer};
use server::engine::Env;
use server::holds::{self, Holds, InForce, Offline, Posted};
use server::serve::{Ready, SERVER_FILE};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a server listens when nobody says otherwise.
const SERVER: &str = "http://127.0.0.1:8001";
/// Time for a server's answer before its store is written directly.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// LIMIT: times a word is signed again because another one came first.
const SIGN_MAX: u32 = 5;

/// Who keeps the hold state.
enum Keeper {
    Server { client: Client, url: String },
    Store(Box<Offline>),
}

/// The answer to a word.
enum Answer {
    Taken(Holds),
    Stale,
    Already(String),
    Refused(Failure),
}

/// What came of a word.
#[derive(Debug)]
struct Said {
    /// Why nothing was changed.
    already: Option<String>,
    /// The hold state after it.
    holds: Holds,
}

pub(crate) async fn hold(args: &HoldArgs) -> Result<u8, Failure> {
    if args.list {
        let (_, found, _) = find(&args.word).await?;
        list(&found, args.word.json)?;
        return Ok(0);
    }
    let word = |version| {
        Record::Hold(Hold {
            scope: args.scope.clone(),
            version,
            reason: args.word.reason.clone(),
            undo: args.undo,
            by: args.word.name(),
        })
    };
    let said = say(&args.word, word).await?;
    let held = format!("{} is held: nothing new begins there. `stanch resume {}` lifts it", args.scope, args.scope);
    report(&args.scope, &said, &held, args.word.json)
}

pub(crate) async fn resume(args: &ResumeArgs) -> Result<u8, Failure> {
    let word = |version| {
        Record::Resume(Resume {
            scope: args.scope.clone(),
            version,
            reason: args.word.reason.clone(),
            by: args.word.name(),
        })
    };
    let said = say(&args.word, word).await?;
    report(&args.scope, &said, &format!("the hold on {} is lifted", args.scope), args.word.json)
}

/// Signs a word for the hold state as it is, until it is taken or refused.
async fn say(word: &WordArgs, record: impl Fn(u64) -> Record) -> Result<Said, Failure> {
    let (keeper, mut found, data) = find(word).await?;
    let signer = server::keys::load_human(&data).map_err(|error| {
        Failure::usage(format!("no key to sign with: {error}"))
            .next("the same command with --data DIR, the data directory of the server, as a user who may read its keys")
    })?;
    persist(&keeper, &signer, &mut found, record).await
}

/// Signs and posts a word, again whenever another one came first.
async fn persist(
    keeper: &Keeper,
    signer: &Signer,
    found: &mut Holds,
    record: impl Fn(u64) -> Record,
) -> Result<Said, Failure> {
    for _ in 0..SIGN_MAX {
        let link = Link { at: Env::real().now(), ..Link::default() };
        let envelope = signer.sign(&link, record(found.version + 1)).map_err(anyhow::Error::from)?;
        match keeper.post(&envelope.to_json()).await? {
            Answer::Taken(holds) => return Ok(Said { already: None, holds }),
            Answer::Already(how) => {
                return Ok(Said { already: Some(how), holds: keeper.state().await? });
            }
            Answer::Refused(failure) => {
                let known: Vec<&str> = found.holds.iter().map(|hold| hold.scope.as_str()).collect();
                return Err(match known.as_slice() {
                    [] => failure,
                    known => failure.next(format!("stanch hold --list; held now: {}", known.join(", "))),
                });
            }
            Answer::Stale => *found = keeper.state().await?,
        }
    }
    Err(Failure::internal("others place and lift holds all the time; nothing was changed")
        .next("the same command again"))
}

fn report(scope: &str, said: &Said, done: &str, json: bool) -> Result<u8, Failure> {
    let Said { already, holds } = said;
    if json {
        let answer = serde_json::json!({
            "scope": scope, "changed": already.is_none(), "version": holds.version, "holds": holds.holds, "said": already,
            "data": holds.data,
        });
        out!("{answer}");
    } else {
        match already {
            // Where there are several servers, it is seen which one it was.
            None => out!("{done} (data directory {})", holds.data),
            Some(already) => out!("nothing was changed: {already} (data directory {})", holds.data),
        }
    }
    Ok(0)
}

fn list(found: &Holds, json: bool) -> Result<(), Failure> {
    if json {
        out!("{}", serde_json::to_string(&found).map_err(anyhow::Error::from)?);
    } else if found.holds.is_empty() {
        out!("no hold is in force");
    } else {
        let now = Env::real().now();
        out!("{}", table(&["scope", "by", "for", "open steps", "reason"], rows(&found.holds, now)));
    }
    Ok(())
}

fn rows(holds: &[InForce], now: base::Timestamp) -> Vec<Vec<String>> {
    let row = |hold: &InForce| {
        let since = now.since(base::Timestamp(hold.since_ms)).0 / 1_000;
        let open = if hold.undo { "undone" } else { "left" };
        vec![hold.scope.clone(), hold.by.clone(), format!("{since} s"), open.to_owned(), hold.reason.clone()]
    };
    holds.iter().map(row).collect()
}

/// Who keeps the hold state, the state, and the directory with the key.
async fn find(word: &WordArgs) -> Result<(Keeper, Holds, PathBuf), Failure> {
    let named = word.data.clone().map(|dir| data_dir(Some(dir), "server")).transpose()?;
    let url = word.server.clone().or_else(|| listening(named.as_deref()?));
    if named.is_none() || url.is_some() {
        let url = url.unwrap_or_else(|| SERVER.to_owned());
        let client = Client::new(&url).map_err(|error| Failure::usage(error.to_string()))?;
        let keeper = Keeper::Server { client, url: url.clone() };
        match (keeper.state().await, &named) {
            (Ok(found), _) => {
                let data = named.unwrap_or_else(|| PathBuf::from(&found.data));
                return Ok((keeper, found, data));
            }
            // A store that nobody named may be another server's: its word would hold nothing.
            (Err(failure), None) => return Err(failure),
            (Err(_), Some(_)) => {}
        }
    }
    let data = data_dir(named, "server")?;
    let keeper = offline(&data)?;
    let found = keeper.state().await?;
    Ok((keeper, found, data))
}

fn listening(data: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data.join(SERVER_FILE)).ok()?;
    Some(serde_json::from_str::<Ready>(&text).ok()?.url)
}

/// The store of a server that does not run.
fn offline(data: &Path) -> Result<Keeper, Failure> {
    if !data.join("keys").exists() {
        let text = format!("no server answers, and {} is no data directory of one", data.display());
        return Err(Failure::usage(text).next("stanch hold --data DIR, or --server URL"));
    }
    match Offline::open(data) {
        Ok(store) => Ok(Keeper::Store(Box::new(store))),
        Err(error) => Err(Failure::internal(format!(
            "no server answers, and its store cannot be written: {:#}",
            anyhow::Error::from(error)
        ))
        .next("the same command again; while no server answers, nothing new begins")),
    }
}

impl Keeper {
    async fn state(&self) -> Result<Holds, Failure> {
        match self {
            Keeper::Server { client, url } => {
                let silent = || {
                    Failure::internal(format!("no answer from {url}")).next(
                        "the same command with --server URL; or, if that server is down, with --data DIR, its data directory",
                    )
                };
                let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.get_json::<Holds>("/holds")).await;
                match answer {
                    Ok(Ok((200, holds))) => Ok(holds),
                    Ok(Ok(_)) | Ok(Err(_)) | Err(_) => Err(silent()),
                }
            }
            Keeper::Store(store) => Ok(store.state()),
        }
    }

    async fn post(&self, record: &str) -> Result<Answer, Failure> {
        match self {
            Keeper::Server { client, url } => {
                let body = serde_json::to_vec(&Posted { record: record.to_owned() }).map_err(anyhow::Error::from)?;
                let answer = client.post_bytes("/holds", body).await;
                let (status, bytes) = answer.map_err(|error| {
                    Failure::internal(format!("no answer from {url}, so nobody knows whether it took it: {error}"))
                        .next("stanch hold --list, then the same command again: it is harmless")
                })?;
                let text = || String::from_utf8_lossy(&bytes).into_owned();
                Ok(match status {
                    200 => Answer::Taken(serde_json::from_slice(&bytes).map_err(anyhow::Error::from)?),
                    412 => Answer::Stale,
                    409 => Answer::Already(text()),
                    503 => Answer::Refused(Failure::internal(text())),
                    _ => Answer::Refused(Failure::usage(text())),
                })
            }
            Keeper::Store(store) => Ok(match store.post(record).await {
                Ok(holds) => Answer::Taken(holds),
                Err(holds::HoldError::Stale(_)) => Answer::Stale,
                Err(error @ (holds::HoldError::Already(_) | holds::HoldError::NotHeld(_))) => {
                    Answer::Already(error.to_string())
                }
                Err(error @ holds::HoldError::Store(_)) => Answer::Refused(Failure::internal(error.to_string())),
                Err(error) => Answer::Refused(Failure::usage(error.to_string())),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
