//! From the tree to the plan.

use super::tree::Tree;
use super::{JsonError, KIND};
use crate::check::Code;
use crate::isa::{
    Action, ActionKind, BreakerMode, DrainMode, EdgeName, Limited, Place, Rate, RestartStrategy, Restored, Revision,
    ScaleTo,
};
use crate::plan::{
    CHANGES_MAX, Cause, Change, FOOTPRINT_MAX, LIST_MAX, Object, OnFail, PREDICATES_MAX, Plan, Predicate,
    REVISIONS_MAX, STEPS_MAX, Step, is_incident, is_key, is_plan_name,
};
use base::{Digest, Timestamp};

type Read<T> = Result<T, JsonError>;

pub(super) fn plan(tree: Tree) -> Read<Plan> {
    let mut top = Node::new("", tree).object()?;
    top.need("kind")?.word(|word| (word == KIND).then_some(()), KIND)?;
    let plan = Plan {
        incident: top.need("incident")?.word(|word| is_incident(word).then(|| word.to_owned()), "an incident id")?,
        revision: top.need("revision")?.number(1, REVISIONS_MAX)?,
        parent: top.take("parent").map(Node::digest).transpose()?,
        cause: top.take("cause").map_or(Ok(Cause::First), |node| node.word(Cause::parse, "a cause"))?,
        changes: top.list("changes", CHANGES_MAX, change)?,
        class: top.need("class")?.name()?,
        topology: top.need("topology")?.digest()?,
        deadline_ms: Timestamp(i64::from_u64(top.need("deadline_ms")?)?),
        footprint: top.list("footprint", FOOTPRINT_MAX, Node::name)?,
        steps: top.list("steps", STEPS_MAX, step)?,
    };
    top.end()?;
    if plan.steps.is_empty() {
        return Err(fail(Code::K101, "steps", "a plan has at least one step"));
    }
    Ok(plan)
}

fn change(node: Node) -> Read<Change> {
    let mut object = node.object()?;
    let change = Change {
        path: object.need("path")?.text()?,
        from: object.take("from").map_or(Ok(String::new()), Node::text)?,
        to: object.need("to")?.text()?,
    };
    object.end()?;
    Ok(change)
}

fn step(node: Node) -> Read<Step> {
    let mut object = node.object()?;
    if let Some(par) = object.take("par") {
        return Err(par.fail(Code::K101, "`par` is not supported: write the steps in order"));
    }
    let key = object.need("key")?.word(|word| is_key(word).then(|| word.to_owned()), "a step key")?;
    let verb = object.need("action")?;
    let at = verb.at.clone();
    let verb = verb.text()?;
    let Some(kind) = ActionKind::parse(&verb) else {
        return Err(fail(Code::K103, &at, "not one of the seven actions"));
    };
    let mut target = object.need("target")?.object()?;
    let mut with = match object.take("with") {
        Some(node) => node.object()?,
        None => Fields { at: format!("{}.with", object.at), entries: Vec::new() },
    };
    let action = action(kind, &mut target, &mut with)?;
    target.end()?;
    with.end()?;
    let step = Step {
        key,
        action,
        pre: object.list("pre", PREDICATES_MAX, predicate)?,
        post: object.list("post", PREDICATES_MAX, predicate)?,
        on_fail: object.take("on_fail").map_or(Ok(OnFail::Undo), on_fail)?,
    };
    object.end()?;
    Ok(step)
}

fn action(kind: ActionKind, target: &mut Fields, with: &mut Fields) -> Read<Action> {
    Ok(match kind {
        ActionKind::Restart => Action::Restart {
            place: place(target)?,
            strategy: with.word_or("strategy", RestartStrategy::parse, RestartStrategy::Rolling)?,
            wave: with.number_or("wave", 1)?,
            surge: with.number_or("surge", 0)?,
            grace_ms: with.millis("grace_ms")?,
            jitter_ms: with.millis("jitter_ms")?,
        },
        ActionKind::Drain => Action::Drain {
            place: place(target)?,
            percent: with.number_or("percent", 100)?,
            mode: with.need("mode")?.word(DrainMode::parse, "`new` or `all`")?,
            timeout_ms: with.millis("timeout_ms")?,
            ttl_ms: with.need("ttl_ms")?.integer()?,
        },
        ActionKind::RestoreTraffic => Action::RestoreTraffic {
            of: restored(target)?,
            ramp: with
                .take("ramp")
                .map_or(Ok(vec![25, 50, 100]), |node| node.some(LIST_MAX, "has at least one stage", Node::count))?,
            ramp_ms: with.millis("ramp_ms")?,
        },
        ActionKind::CircuitBreak => Action::CircuitBreak {
            edge: edge(target.need("edge")?)?,
            mode: with.need("mode")?.word(BreakerMode::parse, "`open` or `half-open`")?,
            fallback: with.take("fallback").map(Node::name).transpose()?,
            ttl_ms: with.need("ttl_ms")?.integer()?,
        },
        ActionKind::RateLimit => Action::RateLimit {
            what: match target.take("edge") {
                Some(node) => Limited::Edge(edge(node)?),
                None => Limited::Place(place(target)?),
            },
            rate: match with.take("rate_percent") {
                Some(node) => Rate::Percent(node.count()?),
                None => Rate::PerSecond(with.need("rate_rps")?.count()?),
            },
            burst: with.take("burst").map(Node::count).transpose()?,
            priority: with.take("priority").map(Node::name).transpose()?,
            ttl_ms: with.need("ttl_ms")?.integer()?,
        },
        ActionKind::Scale => Action::Scale {
            service: target.need("service")?.name()?,
            to: match (with.take("more"), with.take("fewer")) {
                (Some(node), None) => ScaleTo::More(node.count()?),
                (None, Some(node)) => ScaleTo::Fewer(node.count()?),
                (None, None) => ScaleTo::Exactly(with.need("to")?.count()?),
                (Some(node), Some(_)) => return Err(node.fail(Code::K104, "either `more` or `fewer`")),
            },
            ttl_ms: with.need("ttl_ms")?.integer()?,
        },
        ActionKind::RollbackConfig => {
            let Object { kind, namespace, name } = object_name(target.need("object")?)?;
            Action::RollbackConfig { kind, namespace, name, to: revision(with.take("to"))? }
        }
    })
}

fn place(target: &mut Fields) -> Read<Place> {
    let service = target.need("service")?.name()?;
    if let Some(node) = target.take("instances") {
        return Ok(Place::Instances(service, node.some(LIST_MAX, "names at least one instance", Node::count)?));
    }
    if let Some(node) = target.take("zone") {
        return Ok(Place::Zone(service, node.name()?));
    }
    match target.take("shard") {
        Some(node) => Ok(Place::Shard(service, node.name()?)),
        None => Ok(Place::Service(service)),
    }
}

fn restored(target: &mut Fields) -> Read<Restored> {
    if let Some(node) = target.take("weights") {
        let weights = node.items(LIST_MAX, |item| {
            let mut object = item.object()?;
            let pair = (place(&mut object)?, object.need("weight")?.count()?);
            object.end()?;
            Ok(pair)
        })?;
        let one_service = weights.iter().zip(weights.iter().skip(1)).all(|(a, b)| a.0.service() == b.0.service());
        if weights.is_empty() || !one_service {
            return Err(fail(Code::K104, &target.at, "weights are over places of one service"));
        }
        return Ok(Restored::Weights(weights));
    }
    let of = target.need("of")?;
    if of.tree == Tree::Text("open".to_owned()) {
        return Ok(Restored::AllOpen);
    }
    let key = |item: Node| item.word(|word| is_key(word).then(|| word.to_owned()), "a step key");
    of.some(LIST_MAX, "names at least one step", key).map(Restored::Steps)
}

fn edge(node: Node) -> Read<EdgeName> {
    node.word(
        |word| {
            let (caller, callee) = word.split_once("->")?;
            let good = is_plan_name(caller) && is_plan_name(callee);
            good.then(|| EdgeName { caller: caller.to_owned(), callee: callee.to_owned() })
        },
        "an edge such as `A->S`",
    )
}

fn object_name(node: Node) -> Read<Object> {
    node.word(
        |word| {
            let parts: Vec<String> = word.split('/').map(str::to_owned).collect();
            let [kind, namespace, name] = <[String; 3]>::try_from(parts).ok()?;
            let good = [&kind, &namespace, &name].iter().all(|part| is_plan_name(part));
            good.then_some(Object { kind, namespace, name })
        },
        "an object such as `flag/ns/name`",
    )
}

fn revision(node: Option<Node>) -> Read<Revision> {
    let Some(node) = node else { return Ok(Revision::LastGood) };
    let read = |word: &str| match word {
        "last-good" => Some(Revision::LastGood),
        _ => word
            .split('@')
            .all(is_plan_name)
            .then_some(())
            .filter(|()| word.split('@').count() <= 2)
            .map(|()| Revision::Named(word.to_owned())),
    };
    node.word(read, "a revision, `last-good`, or a role's holder such as `S@0`")
}

fn predicate(node: Node) -> Read<Predicate> {
    let at = node.at.clone();
    crate::text::parse_predicate(&node.text()?).map_err(|error| JsonError {
        code: error.code,
        at,
        why: format!("column {}: {}", error.column, error.why),
    })
}

fn on_fail(node: Node) -> Read<OnFail> {
    node.word(
        |word| OnFail::parse(word).filter(|value| !matches!(value, OnFail::UndoTo(key) if !is_key(key))),
        "`undo`, `stop`, `retry` or `undo-to:KEY`",
    )
}

fn fail(code: Code, at: &str, why: &str) -> JsonError {
    let at = if at.is_empty() { "the plan" } else { at };
    JsonError { code, at: at.to_owned(), why: why.to_owned() }
}

trait FromU64: Sized {
    fn from_u64(node: Node) -> Read<Self>;
}

impl FromU64 for i64 {
    fn from_u64(node: Node) -> Read<i64> {
        let at = node.at.clone();
        i64::try_from(node.integer()?).map_err(|_| fail(Code::K104, &at, "a time beyond the end of time"))
    }
}

/// A value and its path.
struct Node {
    at: String,
    tree: Tree,
}

/// The fields of an object that were not taken yet.
struct Fields {
    at: String,
    entries: Vec<(String, Tree)>,
}

impl Node {
    fn new(at: &str, tree: Tree) -> Node {
        Node { at: at.to_owned(), tree }
    }

    fn fail(&self, code: Code, why: &str) -> JsonError {
        fail(code, &self.at, why)
    }

    fn object(self) -> Read<Fields> {
        match self.tree {
            Tree::Object(entries) => Ok(Fields { at: self.at, entries }),
            _ => Err(fail(Code::K101, &self.at, "expected an object")),
        }
    }

    fn items<T>(self, max: usize, read: impl Fn(Node) -> Read<T>) -> Read<Vec<T>> {
        let Tree::List(items) = self.tree else { return Err(fail(Code::K101, &self.at, "expected a list")) };
        if items.len() > max {
            return Err(fail(Code::K102, &self.at, &format!("at most {max} items")));
        }
        let one = |(index, tree)| read(Node { at: format!("{}[{index}]", self.at), tree });
        items.into_iter().enumerate().map(one).collect()
    }

    /// As [`Node::items`], of a list that may not be empty: the text form has no word for nothing.
    fn some<T>(self, max: usize, wanted: &str, read: impl Fn(Node) -> Read<T>) -> Read<Vec<T>> {
        let at = self.at.clone();
        let items = self.items(max, read)?;
        if items.is_empty() { Err(fail(Code::K104, &at, wanted)) } else { Ok(items) }
    }

    fn text(self) -> Read<String> {
        match self.tree {
            Tree::Text(text) => Ok(text),
            _ => Err(fail(Code::K101, &self.at, "expected text")),
        }
    }

    fn word<T>(self, read: impl Fn(&str) -> Option<T>, wanted: &str) -> Read<T> {
        let at = self.at.clone();
        read(&self.text()?).ok_or_else(|| fail(Code::K101, &at, &format!("expected {wanted}")))
    }

    fn name(self) -> Read<String> {
        self.word(|word| is_plan_name(word).then(|| word.to_owned()), "a name of letters, digits, `.`, `_` and `-`")
    }

    fn digest(self) -> Read<Digest> {
        self.word(Digest::parse, "64 lower-case hex digits")
    }

    fn integer(self) -> Read<u64> {
        match self.tree {
            Tree::Integer(number) => Ok(number),
            _ => Err(fail(Code::K101, &self.at, "expected a whole number")),
        }
    }

    fn count(self) -> Read<u32> {
        let at = self.at.clone();
        u32::try_from(self.integer()?).map_err(|_| fail(Code::K104, &at, "a number below 2^32"))
    }

    fn number(self, min: u32, max: u32) -> Read<u32> {
        let at = self.at.clone();
        let number = self.count()?;
        let why = || fail(Code::K104, &at, &format!("between {min} and {max}"));
        if (min..=max).contains(&number) { Ok(number) } else { Err(why()) }
    }
}

impl Fields {
    fn take(&mut self, name: &str) -> Option<Node> {
        let index = self.entries.iter().position(|(key, _)| key == name)?;
        let at = if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) };
        Some(Node { at, tree: self.entries.swap_remove(index).1 })
    }

    fn need(&mut self, name: &str) -> Read<Node> {
        let code = if self.at.is_empty() || self.at.ends_with(']') { Code::K101 } else { Code::K104 };
        self.take(name).ok_or_else(|| fail(code, &self.at, &format!("`{name}` is missing")))
    }

    fn list<T>(&mut self, name: &str, max: usize, read: impl Fn(Node) -> Read<T>) -> Read<Vec<T>> {
        self.take(name).map_or(Ok(Vec::new()), |node| node.items(max, read))
    }

    fn number_or(&mut self, name: &str, default: u32) -> Read<u32> {
        self.take(name).map_or(Ok(default), Node::count)
    }

    fn word_or<T>(&mut self, name: &str, read: impl Fn(&str) -> Option<T>, default: T) -> Read<T> {
        self.take(name).map_or(Ok(default), |node| node.word(read, "one of its words"))
    }

    fn millis(&mut self, name: &str) -> Read<Option<u64>> {
        self.take(name).map(Node::integer).transpose()
    }

    fn end(self) -> Read<()> {
        let Some((name, _)) = self.entries.first() else { return Ok(()) };
        Err(fail(Code::K101, &self.at, &format!("unknown field `{}`", name.escape_debug())))
    }
}
