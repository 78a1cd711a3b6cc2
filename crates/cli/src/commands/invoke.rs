//! `stanch invoke`: calls a function that a worker runs, as a client of the protocol in any language would.

use super::records::{Session, another, call, exit_of, show_promise, wait};
use crate::args::InvokeArgs;
use crate::failure::Failure;
use base::Timestamp;
use protocol::{BRANCH, DELAY, ORIGIN, PARENT, SCOPE, TARGET};
use std::collections::BTreeMap;

pub(crate) async fn run(args: InvokeArgs) -> Result<u8, Failure> {
    let session = Session::open(&args.server)?;
    let param = call(&args.func, &args.call)?;
    let tags = tags(&args, session.now);
    let created = session.client.create(&args.id, session.now.plus(args.timeout), param.clone(), tags).await;
    let promise = created.map_err(|error| session.failed(&error, "stanch invoke --help"))?;
    if promise.param != param {
        show_promise(&session, &promise, args.raw);
        return Err(another("promise", &args.id, "param"));
    }
    if promise.target() != Some(args.target.as_str()) {
        show_promise(&session, &promise, args.raw);
        return Err(another("promise", &args.id, "target"));
    }
    if !args.wait {
        show_promise(&session, &promise, args.raw);
        return Ok(0);
    }
    let settled = if promise.is_settled() { promise } else { wait(&session, &args.id, None).await? };
    show_promise(&session, &settled, args.raw);
    Ok(exit_of(&settled))
}

/// The tags of a call from outside: the root of a tree of its own.
fn tags(args: &InvokeArgs, now: Timestamp) -> BTreeMap<String, String> {
    let root = [ORIGIN, BRANCH, PARENT].map(|name| (name, args.id.clone()));
    let others = [(SCOPE, "global".to_owned()), (TARGET, args.target.clone())];
    let delay = args.delay.map(|delay| (DELAY, now.plus(delay).0.to_string()));
    root.into_iter().chain(others).chain(delay).map(|(name, value)| (name.to_owned(), value)).collect()
}
