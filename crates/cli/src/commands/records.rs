//! What the commands for promises, tasks and schedules share: the server, its refusals, and how records are shown.

use crate::args::{CallArgs, ParamArgs, ServerArgs};
use crate::failure::Failure;
use base::{Millis, Timestamp};
use base64ct::{Base64, Encoding as _};
use client::{Client, Error};
use protocol::{Promise, PromiseState, TARGET, TIMER, Value};
use serde_json::{Value as Json, json};
use server::engine::Env;

/// Characters of a payload in a table; `get` shows all of it.
const CELL: usize = 60;

/// A server, and how its answers are shown.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) json: bool,
    /// When the command began.
    pub(crate) now: Timestamp,
}

/// What `GET /inspect` answers about an id that does not exist.
#[derive(serde::Deserialize)]
struct Missing {
    nearest: Option<String>,
}

impl Session {
    pub(crate) fn open(args: &ServerArgs) -> Result<Session, Failure> {
        let client = super::follow::connect(&args.server)?;
        Ok(Session { client, url: args.server.clone(), json: args.json, now: Env::real().now() })
    }

    /// What went wrong with a request; `next` is for a refusal of what was typed.
    pub(crate) fn failed(&self, error: &Error, next: &str) -> Failure {
        let url = &self.url;
        match error {
            Error::Refused { status, message } if *status < 500 => Failure::usage(message.clone()).next(next),
            Error::Refused { message, .. } => {
                Failure::internal(message.clone()).next("the same command again, once that is mended")
            }
            error if !error.may_have_acted() => Failure::internal(format!("no server at {url}: {error}"))
                .next("stanch serve, or the same command with --server URL"),
            error => Failure::internal(format!("whether it was done is not known: {error}"))
                .next("the same command again: it does nothing twice"),
        }
    }

    /// There is no promise of this id; `command` is the command that would have been meant.
    pub(crate) async fn missing(&self, id: &str, command: &str) -> Failure {
        let told = Failure::usage(format!("there is no promise `{id}` on {}", self.url));
        // Another server of the protocol may not answer this; then nothing is proposed.
        let answer = self.client.get_json::<Missing>(&format!("/inspect?id={}", escaped(id))).await;
        match answer {
            Ok((404, Missing { nearest: Some(nearest) })) => told.next(format!("stanch {command} {nearest}")),
            _ => told.next("stanch promise ls"),
        }
    }
}

/// A text as a part of an address.
pub(crate) fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// What is sent for a value as it was typed.
pub(crate) fn payload(value: Option<&str>, raw: Option<&str>) -> Value {
    match (value, raw) {
        (_, Some(raw)) => Value::text(raw),
        (Some(value), None) => encoded(&as_json(value)),
        (None, None) => Value::default(),
    }
}

/// What a promise is passed as it was typed.
pub(crate) fn param(args: &ParamArgs) -> Value {
    payload(args.param.as_deref(), args.raw_param.as_deref())
}

/// What a worker is passed that is to run a function.
pub(crate) fn call(func: &str, args: &CallArgs) -> Result<Value, Failure> {
    let read = |text: &String| {
        if !args.json_args {
            return Ok(Json::from(text.as_str()));
        }
        serde_json::from_str(text).map_err(|error| {
            Failure::usage(format!("--arg {text} is no JSON: {error}"))
                .next("--arg '\"text\"' for a text, or the same command without --json-args")
        })
    };
    let values = args.arg.iter().map(read).collect::<Result<Vec<Json>, Failure>>()?;
    Ok(encoded(&json!({ "func": func, "args": values, "version": args.func_version })))
}

fn as_json(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_| Json::from(text))
}

fn encoded(value: &Json) -> Value {
    Value::text(Base64::encode_string(value.to_string().as_bytes()))
}

/// The JSON that a payload is the base64 of, if it is.
pub(crate) fn decoded(value: &Value) -> Option<Json> {
    let bytes = Base64::decode_vec(value.data.as_deref().filter(|data| !data.is_empty())?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// A payload for people; empty if there is none.
pub(crate) fn shown(value: &Value, raw: bool) -> String {
    let data = value.data.clone().unwrap_or_default();
    if raw { data } else { decoded(value).map_or(data, |json| json.to_string()) }
}

/// A text that fits a table.
pub(crate) fn cell(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(CELL) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line,
    }
}

/// A promise as JSON: as on the wire, and what its payloads say beside them.
pub(crate) fn promise_json(promise: &Promise, raw: bool) -> Json {
    let mut shown = protocol::wire::promise_json(promise);
    for (name, value) in [("param", &promise.param), ("value", &promise.value)] {
        if let (false, Some(decoded), Some(fields)) =
            (raw, decoded(value), shown.get_mut(name).and_then(Json::as_object_mut))
        {
            fields.insert("decoded".to_owned(), decoded);
        }
    }
    shown
}

/// What a promise is about, in a few words: the call, or else its kind.
pub(crate) fn about(promise: &Promise) -> String {
    if let Some(call) = decoded(&promise.param).as_ref().and_then(called) {
        return cell(&call);
    }
    match promise.tag(TARGET) {
        _ if promise.tag(TIMER) == Some("true") => "timer".to_owned(),
        Some(target) => format!("→ {target}"),
        None if promise.is_awaitable() => "settled from outside".to_owned(),
        None => String::new(),
    }
}

/// `func(args)` of what a worker is passed.
fn called(param: &Json) -> Option<String> {
    let func = param.get("func")?.as_str()?;
    let args = param.get("args").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    Some(format!("{func}({})", args.join(", ")))
}

/// A length of time for people: two units at most.
pub(crate) fn span(time: Millis) -> String {
    // To the nearest of the smaller unit, so that two days that began a moment ago are two days.
    let small = match time.0 {
        0..60_000 => 1,
        60_000..3_600_000 => 1_000,
        3_600_000..86_400_000 => 60_000,
        _ => 3_600_000,
    };
    let ms = time.0.saturating_add(small / 2) / small * small;
    let two = |whole: u64, unit: &str, part: u64, small: &str| match part {
        0 => format!("{whole} {unit}"),
        part => format!("{whole} {unit} {part} {small}"),
    };
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => two(ms / 60_000, "m", ms % 60_000 / 1_000, "s"),
        3_600_000..86_400_000 => two(ms / 3_600_000, "h", ms % 3_600_000 / 60_000, "m"),
        _ => two(ms / 86_400_000, "d", ms % 86_400_000 / 3_600_000, "h"),
    }
}

/// An instant as seen from now.
pub(crate) fn seen(at: Timestamp, now: Timestamp) -> String {
    if at <= now { format!("{} ago", span(now.since(at))) } else { format!("in {}", span(at.since(now))) }
}

/// How long a promise has taken or takes already; after its deadline nothing more happens.
pub(crate) fn taken(promise: &Promise, now: Timestamp) -> Millis {
    let end = promise.settled_at.unwrap_or(now);
    end.since(promise.created_at)
}

/// The rows that say everything about a promise.
pub(crate) fn promise_rows(promise: &Promise, raw: bool, now: Timestamp) -> Vec<Vec<String>> {
    let mut rows = vec![
        vec!["promise".to_owned(), promise.id.clone()],
        vec!["state".to_owned(), promise.state.name().to_owned()],
        vec!["created".to_owned(), seen(promise.created_at, now)],
    ];
    match promise.settled_at {
        Some(at) => {
            rows.push(vec!["settled".to_owned(), format!("{}, took {}", seen(at, now), span(taken(promise, now)))])
        }
        None => rows.push(vec!["times out".to_owned(), seen(promise.timeout_at, now)]),
    }
    for (name, value) in [("param", &promise.param), ("value", &promise.value)] {
        if !value.is_empty() {
            rows.push(vec![name.to_owned(), shown(value, raw)]);
        }
        let headers = value.headers.iter().flatten();
        rows.extend(headers.map(|(key, text)| vec![format!("{name} header"), format!("{key}: {text}")]));
    }
    rows.extend(tag_rows(promise.tags.iter()));
    rows
}

/// One row a tag.
pub(crate) fn tag_rows<'a>(tags: impl Iterator<Item = (&'a str, &'a str)>) -> impl Iterator<Item = Vec<String>> {
    tags.map(|(key, value)| vec!["tag".to_owned(), format!("{key}={value}")])
}

/// Names and what they are, one a line.
pub(crate) fn pairs(rows: &[Vec<String>]) -> String {
    let wide = rows.iter().filter_map(|row| Some(row.first()?.chars().count())).max().unwrap_or(0);
    let line = |row: &Vec<String>| {
        let [name, what] = row.as_slice() else { return String::new() };
        format!("{name:<wide$}  {what}")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Shows a promise.
pub(crate) fn show_promise(session: &Session, promise: &Promise, raw: bool) {
    if session.json {
        out!("{}", promise_json(promise, raw));
    } else {
        // The server's clock may be ahead of ours: what it has just done was not before it began.
        let now = promise.settled_at.unwrap_or(promise.created_at).max(session.now);
        out!("{}", pairs(&promise_rows(promise, raw, now)));
    }
}

/// The exit code of somebody who waited: 0 if the promise resolved, 3 if not.
pub(crate) fn exit_of(promise: &Promise) -> u8 {
    if promise.state == PromiseState::Resolved { 0 } else { 3 }
}

/// Exit 3: there is one already, and it is another.
pub(crate) fn another(what: &str, id: &str, differs: &str) -> Failure {
    Failure {
        exit: 3,
        ..Failure::usage(format!("there was a {what} `{id}` already, with another {differs}; nothing was changed"))
    }
    .next(format!("stanch {what} get {id}, or another id"))
}

/// Waits until a promise settles.
pub(crate) async fn wait(session: &Session, id: &str, most: Option<Millis>) -> Result<Promise, Failure> {
    let settled = session.client.await_promise(id);
    let settled = match most {
        None => settled.await,
        Some(most) => {
            let bound = std::time::Duration::from_millis(most.0);
            tokio::time::timeout(bound, settled).await.map_err(|_| {
                let told = format!("`{id}` has not settled within {}", span(most));
                Failure { exit: 60, ..Failure::usage(told) }.next(format!("stanch tree {id}, or stanch task show {id}"))
            })?
        }
    };
    match settled {
        Ok(promise) => Ok(promise),
        Err(Error::Refused { status: 404, .. }) => Err(session.missing(id, "promise watch").await),
        Err(error) => Err(session.failed(&error, &format!("stanch promise get {id}"))),
    }
}

#[cfg(test)]
mod tests;
