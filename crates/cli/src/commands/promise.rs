//! `stanch promise`: durable promises from the command line.

use super::records::{
    Session, about, another, cell, exit_of, param, payload, promise_json, seen, show_promise, shown, span, taken, wait,
};
use super::show::table;
use super::tree;
use crate::args::{PromiseCommand, PromiseCreateArgs, PromiseGetArgs, PromiseLsArgs, PromiseSettleArgs, WatchArgs};
use crate::failure::Failure;
use client::Error;
use protocol::{DELAY, Promise, PromiseSearch, TARGET};
use serde_json::json;
use std::sync::Arc;

pub(crate) async fn run(command: PromiseCommand) -> Result<u8, Failure> {
    match command {
        PromiseCommand::Create(args) => create(args).await,
        PromiseCommand::Settle(args) => settle(args).await,
        PromiseCommand::Get(args) => get(&args).await,
        PromiseCommand::Ls(args) => ls(args).await,
        PromiseCommand::Tree(args) => tree::run(&args).await,
        PromiseCommand::Watch(args) => watch(&args).await,
    }
}

async fn create(args: PromiseCreateArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let mut tags: std::collections::BTreeMap<_, _> = args.tags.tag.into_iter().collect();
    tags.extend(args.target.map(|target| (TARGET.to_owned(), target)));
    tags.extend(args.delay.map(|delay| (DELAY.to_owned(), session.now.plus(delay).0.to_string())));
    let param = param(&args.param);
    let created = session.client.create(&args.id, session.now.plus(args.timeout), param.clone(), tags.clone()).await;
    let promise = created.map_err(|error| session.failed(&error, "stanch promise create --help"))?;
    show_promise(&session, &promise, false);
    // The instant until which a task is held back differs whenever it is asked for again.
    let said = |promise: &Promise| {
        let mut tags = promise.tags.to_map();
        tags.remove(DELAY);
        tags
    };
    let wanted = said(&Promise { tags: tags.into(), ..promise.clone() });
    if promise.param != param {
        return Err(another("promise", &args.id, "param"));
    }
    if said(&promise) != wanted {
        return Err(another("promise", &args.id, "tag"));
    }
    Ok(0)
}

async fn settle(args: PromiseSettleArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let value = payload(args.value.as_deref(), args.raw_value.as_deref());
    let state = protocol::Resolution::from(args.state);
    let promise = match session.client.settle(&args.id, state, value.clone()).await {
        Ok(promise) => promise,
        Err(Error::Refused { status: 404, .. }) => return Err(session.missing(&args.id, "promise settle").await),
        Err(error) => return Err(session.failed(&error, &format!("stanch promise get {}", args.id))),
    };
    show_promise(&session, &promise, false);
    // The protocol answers 200 here, too: the first one to settle it has won.
    if promise.state != state.state() || promise.value != value {
        let told = format!("`{}` had settled before, otherwise; nothing was changed", args.id);
        return Err(Failure { exit: 3, ..Failure::usage(told) }.next(format!("stanch promise get {}", args.id)));
    }
    Ok(0)
}

async fn get(args: &PromiseGetArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let found = session.client.get(&args.id).await;
    let found = found.map_err(|error| session.failed(&error, "stanch promise ls"))?;
    let Some(promise) = found else { return Err(session.missing(&args.id, "promise get").await) };
    show_promise(&session, &promise, args.raw);
    Ok(0)
}

async fn ls(args: PromiseLsArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let search = PromiseSearch {
        state: args.state.map(Into::into),
        tags: args.tags.tag.into_iter().collect(),
        limit: Some(args.page.limit),
        cursor: args.page.cursor.clone(),
    };
    let show = |promises: &[Arc<Promise>]| -> Vec<serde_json::Value> {
        promises.iter().map(|promise| promise_json(promise, args.raw)).collect()
    };
    let row = |promise: &Arc<Promise>| {
        let value = shown(&promise.value, args.raw);
        let when = match promise.settled_at {
            Some(_) => format!("took {}", span(taken(promise, session.now))),
            None => format!("times out {}", seen(promise.timeout_at, session.now)),
        };
        let created = seen(promise.created_at, session.now);
        vec![promise.id.clone(), promise.state.name().to_owned(), created, when, about(promise), cell(&value)]
    };
    let head = ["id", "state", "created", "time", "what", "value"];
    list(&session, search, args.page.all, "promises", &head, show, row).await
}

async fn watch(args: &WatchArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let promise = wait(&session, &args.id, args.wait).await?;
    show_promise(&session, &promise, args.raw);
    Ok(exit_of(&promise))
}

/// Shows one page of a search, or all of them as they come.
pub(crate) async fn list<S: client::Search>(
    session: &Session,
    search: S,
    all: bool,
    name: &str,
    head: &[&str],
    show: impl Fn(&[S::Item]) -> Vec<serde_json::Value>,
    row: impl Fn(&S::Item) -> Vec<String>,
) -> Result<u8, Failure> {
    let failed = |error: Error| session.failed(&error, "the same command with --help");
    let (mut shown, mut rows) = (Vec::new(), Vec::new());
    let mut take = |items: Vec<S::Item>| {
        if session.json {
            shown.extend(show(&items));
        } else {
            rows.extend(items.iter().map(&row));
        }
    };
    let mut cursor = None;
    if all {
        let mut pages = session.client.pages(search);
        while let Some(page) = pages.next().await.map_err(failed)? {
            take(page);
        }
    } else {
        let page = session.client.search(&search).await.map_err(failed)?;
        take(page.items);
        cursor = page.cursor;
    }
    if session.json {
        let mut answer = json!({ name: shown });
        if let (Some(cursor), Some(fields)) = (cursor, answer.as_object_mut()) {
            fields.insert("cursor".to_owned(), cursor.into());
        }
        out!("{answer}");
        return Ok(0);
    }
    match rows.is_empty() && cursor.is_none() {
        true => out!("no {name}"),
        false => out!("{}", table(head, rows)),
    }
    if let Some(cursor) = cursor {
        anstream::eprintln!("there may be more: --all, or --cursor {cursor}");
    }
    Ok(0)
}
