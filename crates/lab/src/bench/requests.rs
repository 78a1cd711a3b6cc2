//! Bodies of requests, written by hand: the generator is judged by what it costs.

use std::io::Write as _;

/// No deadline of a benchmark is met: the year 2100.
pub(super) const FAR: i64 = 4_102_444_800_000;
/// Sixty-four bytes, as a client's encoding of a small argument is.
pub(super) const PAYLOAD: &str = "eyJmdW5jIjoiY2hlY2tvdXQiLCJhcmdzIjpbIm9yZGVyLTEyMzQ1Njc4OTAxMiJd";
/// The lease of tasks that are held for the whole of a run.
const TTL: u32 = 3_600_000;

macro_rules! put {
    ($out:expr, $($part:tt)*) => {{
        // Writing to memory cannot fail.
        let _ = write!($out, $($part)*);
    }};
}

fn open(kind: &str, out: &mut Vec<u8>) {
    put!(out, r#"{{"kind":"{kind}","head":{{"corrId":"{}","version":"2026-04-01"}},"data":"#, corr_id());
}

/// Constant: what is echoed is not what is measured, and every connection has one request under way.
fn corr_id() -> &'static str {
    "b7c1f4f0a2"
}

/// The tags of a promise without a task.
fn plain_tags(id: &str, out: &mut Vec<u8>) {
    put!(out, r#"{{"resonate:origin":"{id}","resonate:scope":"global"}}"#);
}

/// The tags that clients give to a promise with a task.
fn task_tags(id: &str, group: &str, out: &mut Vec<u8>) {
    let origin = id.split('.').next().unwrap_or(id);
    put!(out, r#"{{"resonate:origin":"{origin}","resonate:branch":"{id}","resonate:parent":"{id}","#);
    put!(out, r#""resonate:scope":"global","resonate:target":"poll://any@{group}"}}"#);
}

fn create_data(id: &str, tags: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    put!(out, r#"{{"id":"{id}","timeoutAt":{FAR},"param":{{"data":"{PAYLOAD}"}},"tags":"#);
    tags(out);
    out.push(b'}');
}

fn settle_data(id: &str, out: &mut Vec<u8>) {
    put!(out, r#"{{"id":"{id}","state":"resolved","value":{{"data":"{PAYLOAD}"}}}}"#);
}

pub(super) fn create(id: &str, out: &mut Vec<u8>) {
    open("promise.create", out);
    create_data(id, |out| plain_tags(id, out), out);
    out.push(b'}');
}

/// Creates a promise whose task is offered to `group`.
pub(super) fn create_targeted(id: &str, group: &str, out: &mut Vec<u8>) {
    open("promise.create", out);
    create_data(id, |out| task_tags(id, group, out), out);
    out.push(b'}');
}

pub(super) fn get(id: &str, out: &mut Vec<u8>) {
    open("promise.get", out);
    put!(out, r#"{{"id":"{id}"}}}}"#);
}

pub(super) fn settle(id: &str, out: &mut Vec<u8>) {
    open("promise.settle", out);
    settle_data(id, out);
    out.push(b'}');
}

/// Creates a task that `pid` holds, at version 1.
pub(super) fn task_create(id: &str, pid: &str, group: &str, out: &mut Vec<u8>) {
    open("task.create", out);
    put!(out, r#"{{"pid":"{pid}","ttl":{TTL},"action":{{"kind":"promise.create","head":{{}},"data":"#);
    create_data(id, |out| task_tags(id, group, out), out);
    out.extend_from_slice(b"}}}");
}

pub(super) fn task_acquire(id: &str, version: u64, pid: &str, ttl: u64, out: &mut Vec<u8>) {
    open("task.acquire", out);
    put!(out, r#"{{"id":"{id}","version":{version},"pid":"{pid}","ttl":{ttl}}}}}"#);
}

pub(super) fn task_fulfill(id: &str, version: u64, out: &mut Vec<u8>) {
    open("task.fulfill", out);
    put!(out, r#"{{"id":"{id}","version":{version},"action":{{"kind":"promise.settle","head":{{}},"data":"#);
    settle_data(id, out);
    out.extend_from_slice(b"}}}");
}

/// The first half of a step: the step's promise is created under the task's fence. `branch` puts it among those that a
/// server may hand to the worker beforehand.
pub(super) fn fence_create(task: &str, child: &str, branch: Option<&str>, out: &mut Vec<u8>) {
    open("task.fence", out);
    put!(out, r#"{{"id":"{task}","version":1,"action":{{"kind":"promise.create","head":{{}},"data":"#);
    let tags = |out: &mut Vec<u8>| match branch {
        Some(branch) => {
            let origin = branch.split('.').next().unwrap_or(branch);
            put!(out, r#"{{"resonate:origin":"{origin}","resonate:branch":"{branch}","resonate:parent":"{task}","#);
            put!(out, r#""resonate:scope":"local"}}"#);
        }
        None => put!(out, r#"{{"resonate:parent":"{task}","resonate:scope":"local"}}"#),
    };
    create_data(child, tags, out);
    out.extend_from_slice(b"}}}");
}

/// The second half of a step.
pub(super) fn fence_settle(task: &str, child: &str, out: &mut Vec<u8>) {
    open("task.fence", out);
    put!(out, r#"{{"id":"{task}","version":1,"action":{{"kind":"promise.settle","head":{{}},"data":"#);
    settle_data(child, out);
    out.extend_from_slice(b"}}}");
}

pub(super) fn heartbeat<'a>(pid: &str, tasks: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    open("task.heartbeat", out);
    put!(out, r#"{{"pid":"{pid}","tasks":["#);
    for (number, id) in tasks.enumerate() {
        let comma = if number > 0 { "," } else { "" };
        put!(out, r#"{comma}{{"id":"{id}","version":1}}"#);
    }
    out.extend_from_slice(b"]}}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_is_a_request() {
        let mut bodies = Vec::new();
        let mut body = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            bodies.push(out);
        };
        body(&|out| create("r.1", out));
        body(&|out| create_targeted("r.1", "g", out));
        body(&|out| get("r.1", out));
        body(&|out| settle("r.1", out));
        body(&|out| task_create("r.1", "p", "g", out));
        body(&|out| task_acquire("r.1", 0, "p", 5, out));
        body(&|out| task_fulfill("r.1", 1, out));
        body(&|out| fence_create("r.1", "r.1.1", Some("r.1"), out));
        body(&|out| fence_create("r.1", "r.1.1", None, out));
        body(&|out| fence_settle("r.1", "r.1.1", out));
        body(&|out| heartbeat("p", ["r.1", "r.2"].into_iter(), out));
        for body in bodies {
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(json["kind"].is_string() && json["data"].is_object(), "{json}");
        }
        assert_eq!(PAYLOAD.len(), 64);
    }
}
