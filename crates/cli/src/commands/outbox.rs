//! `stanch outbox`: what is owed to workers and listeners, what was given up, and sending that again.

use super::follow::connect;
use super::show::table;
use crate::args::{OutboxListArgs, OutboxRetryArgs};
use crate::failure::Failure;
use base::Timestamp;
use server::engine::Env;
use server::outbox::{Letter, Outbox, Retried, Retry};

/// What to do when no server answers.
const NO_SERVER: &str = "stanch serve, or the same command with --server URL";

/// `stanch outbox ls`
pub(crate) async fn list(args: &OutboxListArgs) -> Result<u8, Failure> {
    let path = if args.dead { "/outbox?dead=true" } else { "/outbox" };
    let answer = connect(&args.server)?.get_bytes(path).await;
    let (status, bytes) = answer.map_err(|error| unreachable(&args.server, &error))?;
    if status != 200 {
        return Err(other(&args.server, status, &bytes));
    }
    let outbox: Outbox = serde_json::from_slice(&bytes).map_err(anyhow::Error::from)?;
    if args.json {
        out!("{}", serde_json::to_string(&outbox).map_err(anyhow::Error::from)?);
    } else {
        lines(&outbox, args.dead, Env::real().now()).iter().for_each(|line| out!("{line}"));
    }
    Ok(0)
}

/// `stanch outbox retry`
pub(crate) async fn retry(args: &OutboxRetryArgs) -> Result<u8, Failure> {
    let which = args.id.map_or(Retry::All(true), Retry::Id);
    let body = serde_json::to_vec(&which).map_err(anyhow::Error::from)?;
    let answer = connect(&args.server)?.post_bytes("/outbox/retry", body).await;
    let (status, bytes) = answer.map_err(|error| unreachable(&args.server, &error))?;
    match status {
        200 => {}
        404 if args.id.is_some() => {
            let told = String::from_utf8_lossy(&bytes).into_owned();
            return Err(Failure::usage(told).next("stanch outbox ls, which shows the id of every message"));
        }
        _ => return Err(other(&args.server, status, &bytes)),
    }
    let Retried { retried } = serde_json::from_slice(&bytes).map_err(anyhow::Error::from)?;
    match (args.json, retried) {
        (true, _) => out!("{}", String::from_utf8_lossy(&bytes)),
        (false, 0) => out!("there are no dead letters; nothing was sent"),
        (false, 1) => out!("1 message is sent again; `stanch outbox ls` shows what becomes of it"),
        (false, count) => out!("{count} messages are sent again; `stanch outbox ls` shows what becomes of them"),
    }
    Ok(0)
}

fn unreachable(server: &str, error: &client::Error) -> Failure {
    Failure::internal(format!("no server at {server}: {error}")).next(NO_SERVER)
}

fn other(server: &str, status: u16, bytes: &[u8]) -> Failure {
    let told = String::from_utf8_lossy(bytes);
    match status {
        404 | 405 => Failure::usage(format!("{server} is no server that keeps an outbox")).next(NO_SERVER),
        503 => Failure::internal(told.into_owned()).next("the same command again, once the server takes writes"),
        _ => Failure::internal(format!("{server} answered {status}: {told}")).next(NO_SERVER),
    }
}

fn lines(outbox: &Outbox, only_dead: bool, now: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    if outbox.messages.is_empty() {
        lines.push(if only_dead { "no dead letters" } else { "nothing is owed" }.to_owned());
    } else {
        let head = ["id", "state", "kind", "promise", "address", "attempts", "for", "last error"];
        lines.push(table(&head, outbox.messages.iter().map(|letter| row(letter, now)).collect()));
    }
    let Outbox { waiting, delivered, retried, dead, forgotten, connections, .. } = outbox;
    lines.push(format!("{waiting} waiting, {connections} workers connected"));
    lines.push(format!("since the server started: {delivered} delivered, {retried} sent once more, {dead} given up"));
    if *forgotten > 0 {
        lines.push(format!("{forgotten} dead letters were forgotten: newer ones took their place"));
    }
    lines
}

fn row(letter: &Letter, now: Timestamp) -> Vec<String> {
    let since = now.since(Timestamp(letter.since_ms)).0 / 1_000;
    vec![
        letter.id.to_string(),
        letter.state.clone(),
        letter.kind.clone(),
        letter.promise.clone(),
        letter.address.clone(),
        letter.attempts.to_string(),
        format!("{since} s"),
        letter.error.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(messages: Vec<Letter>, forgotten: u64) -> Outbox {
        Outbox { waiting: 3, sent: 9, delivered: 5, retried: 1, dead: 2, forgotten, connections: 4, messages }
    }

    #[test]
    fn a_person_sees_what_is_owed_and_why_it_did_not_arrive() {
        let letter = Letter {
            id: 7,
            state: "dead".to_owned(),
            kind: "unblock".to_owned(),
            promise: "order-1".to_owned(),
            address: "http://hook.example/".to_owned(),
            attempts: 24,
            error: Some("answered 503".to_owned()),
            since_ms: 1_000,
            dead_at_ms: Some(2_000),
        };
        let text = lines(&outbox(vec![letter], 6), true, Timestamp(9_500)).join("\n");
        for part in ["7", "dead", "unblock", "order-1", "http://hook.example/", "24", "8 s", "answered 503", "6 dead"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(lines(&outbox(Vec::new(), 0), true, Timestamp(0))[0], "no dead letters");
        let nothing = lines(&outbox(Vec::new(), 0), false, Timestamp(0));
        assert_eq!((nothing.len(), nothing[0].as_str()), (3, "nothing is owed"));
    }
}
