//! The codes a plan is refused with, in the order they are listed, and what a refusal says.

use super::edit::Edit;

base::word_enum! {
    /// Why a plan is refused. Declared in the order of listing: the first is the binding one.
    pub enum Code {
        /// A hold covers a target.
        K401 = 401 "K401",
        /// The plan cannot be read.
        K101 = 101 "K101",
        /// A limit on the plan's size is exceeded.
        K102 = 102 "K102",
        /// Not one of the seven actions.
        K103 = 103 "K103",
        /// A parameter is absent, out of its domain, or does not fit the action.
        K104 = 104 "K104",
        /// A step key is repeated, dangling, or named before its step.
        K105 = 105 "K105",
        /// A condition is outside the vocabulary or cannot be resolved.
        K106 = 106 "K106",
        /// An opened step is not closed in time.
        K107 = 107 "K107",
        /// A step that is harder to undo comes too early.
        K108 = 108 "K108",
        /// What was before cannot be saved.
        K109 = 109 "K109",
        /// The plan's effect type is above the policy's bound.
        K110 = 110 "K110",
        /// Parallel branches touch each other.
        K111 = 111 "K111",
        /// The revision does not follow from the one before.
        K112 = 112 "K112",
        /// No actuator has this action on this target.
        K113 = 113 "K113",
        /// The intent is not signed by a role that may.
        K501 = 501 "K501",
        /// The intent, the plan or its deadline has ended.
        K502 = 502 "K502",
        /// The dependency graph is too old or another one.
        K503 = 503 "K503",
        /// The graph is not sure enough for this form of plan.
        K504 = 504 "K504",
        /// The graph does not know enough here.
        K505 = 505 "K505",
        /// A needed fact is absent or too old.
        K506 = 506 "K506",
        /// The proposer may not propose.
        K507 = 507 "K507",
        /// A veto stands against this plan.
        K508 = 508 "K508",
        /// Not the active policy, or not an action of the class.
        K509 = 509 "K509",
        /// A name is not in the graph.
        K201 = 201 "K201",
        /// A target is neither in the recovery group nor on an edge into it.
        K202 = 202 "K202",
        /// The plan's scope is too large for the fault's.
        K203 = 203 "K203",
        /// A target lies in another trust zone.
        K204 = 204 "K204",
        /// A coupled service is missing from the restart.
        K205 = 205 "K205",
        /// The recovery group is larger than the cap.
        K206 = 206 "K206",
        /// A restarted service is not in the recovery group.
        K207 = 207 "K207",
        /// Steps stand in the wrong order.
        K208 = 208 "K208",
        /// A restart needs a drain before it.
        K209 = 209 "K209",
        /// The stated footprint leaves out who is affected.
        K210 = 210 "K210",
        /// An edge is not in the graph.
        K211 = 211 "K211",
        /// A breaker on a hard edge has no fallback.
        K212 = 212 "K212",
        /// A caller would lose its last healthy path.
        K213 = 213 "K213",
        /// Load must be shed before a restart.
        K214 = 214 "K214",
        /// Too few instances would stay ready.
        K301 = 301 "K301",
        /// The quorum would be lost.
        K302 = 302 "K302",
        /// The remaining capacity is too small for the load.
        K303 = 303 "K303",
        /// The replica count is out of bounds.
        K304 = 304 "K304",
        /// The platform has no room.
        K305 = 305 "K305",
        /// The limit is below the floor.
        K306 = 306 "K306",
        /// More services or edges are affected than the tier allows.
        K307 = 307 "K307",
        /// The expected loss is too large.
        K308 = 308 "K308",
        /// The plan takes longer than the time left.
        K309 = 309 "K309",
        /// The service was restarted a moment ago.
        K310 = 310 "K310",
        /// The hour's actions are used up.
        K311 = 311 "K311",
        /// Too few instances are ready to take out more.
        K312 = 312 "K312",
        /// The revision was never known good.
        K313 = 313 "K313",
        /// Something newer depends on the object.
        K314 = 314 "K314",
        /// Starting instances would overload a shared callee.
        K315 = 315 "K315",
        /// Another incident holds the scope.
        K402 = 402 "K402",
        /// A running plan conflicts.
        K403 = 403 "K403",
        /// A step's condition does not hold.
        K404 = 404 "K404",
        /// Someone else controls the target.
        K405 = 405 "K405",
        /// The target has an unreconciled outcome.
        K406 = 406 "K406",
        /// Something changed since it was bound.
        K407 = 407 "K407",
        /// The authority is absent, expired or for another plan.
        K408 = 408 "K408",
        /// The task or the lease is no longer ours.
        K409 = 409 "K409",
    }
}

base::record! {
    /// One reason against a plan.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Rejection {
        /// Which rule.
        1 pub code: Code,
        /// The step it is about.
        2 pub step: Option<String>,
        /// The service, edge, object or parameter it is about.
        3 pub subject: String,
        /// What was found.
        4 pub observed: String,
        /// What the rule asks for.
        5 pub bound: String,
        /// It could not be evaluated: not knowing rejects.
        6 pub unknown: bool,
        /// The edit that would answer it.
        7 pub repair: Option<Edit>,
    }
}

impl Code {
    /// The rule's short name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Code::K401 => "hold",
            Code::K101 => "malformed",
            Code::K102 => "too-large",
            Code::K103 => "unknown-action",
            Code::K104 => "bad-parameter",
            Code::K105 => "bad-reference",
            Code::K106 => "unknown-predicate",
            Code::K107 => "unclosed",
            Code::K108 => "pivot-order",
            Code::K109 => "no-pre-image",
            Code::K110 => "type-exceeds",
            Code::K111 => "par-overlap",
            Code::K112 => "lineage",
            Code::K113 => "unsupported",
            Code::K501 => "intent",
            Code::K502 => "expired",
            Code::K503 => "stale-graph",
            Code::K504 => "immature",
            Code::K505 => "blind",
            Code::K506 => "stale-facts",
            Code::K507 => "proposer",
            Code::K508 => "vetoed",
            Code::K509 => "policy",
            Code::K201 => "unknown-target",
            Code::K202 => "out-of-scope",
            Code::K203 => "scope-ratio",
            Code::K204 => "cross-zone",
            Code::K205 => "group-missing",
            Code::K206 => "group-too-large",
            Code::K207 => "group-excess",
            Code::K208 => "order",
            Code::K209 => "drain-required",
            Code::K210 => "caller-missed",
            Code::K211 => "unknown-edge",
            Code::K212 => "hard-edge",
            Code::K213 => "last-path",
            Code::K214 => "shed-first",
            Code::K301 => "min-available",
            Code::K302 => "quorum",
            Code::K303 => "headroom",
            Code::K304 => "scale-bounds",
            Code::K305 => "quota",
            Code::K306 => "floor",
            Code::K307 => "footprint-budget",
            Code::K308 => "loss-budget",
            Code::K309 => "time-budget",
            Code::K310 => "cooldown",
            Code::K311 => "rate-cap",
            Code::K312 => "storm",
            Code::K313 => "not-known-good",
            Code::K314 => "revision-conflict",
            Code::K315 => "herd",
            Code::K402 => "lease",
            Code::K403 => "conflict",
            Code::K404 => "precondition",
            Code::K405 => "controller",
            Code::K406 => "unreconciled",
            Code::K407 => "drift",
            Code::K408 => "authority",
            Code::K409 => "fenced",
        }
    }

    /// One sentence without its subject.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Code::K401 => "a hold covers a target",
            Code::K101 => "the plan cannot be read",
            Code::K102 => "a limit on the plan's size is exceeded",
            Code::K103 => "not one of the seven actions",
            Code::K104 => "a parameter is absent, out of its domain, or does not fit the action",
            Code::K105 => "a step key is repeated, dangling, or named before its step",
            Code::K106 => "a condition is outside the vocabulary or cannot be resolved",
            Code::K107 => "an opened step is not closed in time",
            Code::K108 => "a step that is harder to undo comes too early",
            Code::K109 => "what was before cannot be saved",
            Code::K110 => "the plan's effect type is above the policy's bound",
            Code::K111 => "parallel branches touch each other",
            Code::K112 => "the revision does not follow from the one before",
            Code::K113 => "no actuator has this action on this target",
            Code::K501 => "the intent is not signed by a role that may",
            Code::K502 => "the intent, the plan or its deadline has ended",
            Code::K503 => "the dependency graph is too old or another one",
            Code::K504 => "the graph is not sure enough for this form of plan",
            Code::K505 => "the graph does not know enough here",
            Code::K506 => "a needed fact is absent or too old",
            Code::K507 => "the proposer may not propose",
            Code::K508 => "a veto stands against this plan",
            Code::K509 => "not the active policy, or not an action of the class",
            Code::K201 => "a name is not in the graph",
            Code::K202 => "a target is neither in the recovery group nor on an edge into it",
            Code::K203 => "the plan's scope is too large for the fault's",
            Code::K204 => "a target lies in another trust zone",
            Code::K205 => "a coupled service is missing from the restart",
            Code::K206 => "the recovery group is larger than the cap",
            Code::K207 => "a restarted service is not in the recovery group",
            Code::K208 => "steps stand in the wrong order",
            Code::K209 => "a restart needs a drain before it",
            Code::K210 => "the stated footprint leaves out who is affected",
            Code::K211 => "an edge is not in the graph",
            Code::K212 => "a breaker on a hard edge has no fallback",
            Code::K213 => "a caller would lose its last healthy path",
            Code::K214 => "load must be shed before a restart",
            Code::K301 => "too few instances would stay ready",
            Code::K302 => "the quorum would be lost",
            Code::K303 => "the remaining capacity is too small for the load",
            Code::K304 => "the replica count is out of bounds",
            Code::K305 => "the platform has no room",
            Code::K306 => "the limit is below the floor",
            Code::K307 => "more services or edges are affected than the tier allows",
            Code::K308 => "the expected loss is too large",
            Code::K309 => "the plan takes longer than the time left",
            Code::K310 => "the service was restarted a moment ago",
            Code::K311 => "the hour's actions are used up",
            Code::K312 => "too few instances are ready to take out more",
            Code::K313 => "the revision was never known good",
            Code::K314 => "something newer depends on the object",
            Code::K315 => "starting instances would overload a shared callee",
            Code::K402 => "another incident holds the scope",
            Code::K403 => "a running plan conflicts",
            Code::K404 => "a step's condition does not hold",
            Code::K405 => "someone else controls the target",
            Code::K406 => "the target has an unreconciled outcome",
            Code::K407 => "something changed since it was bound",
            Code::K408 => "the authority is absent, expired or for another plan",
            Code::K409 => "the task or the lease is no longer ours",
        }
    }

    /// Position in the order of listing.
    #[must_use]
    pub fn rank(self) -> usize {
        Code::ALL.iter().position(|code| *code == self).unwrap_or(usize::MAX)
    }
}

impl Rejection {
    /// A refusal about the whole plan.
    #[must_use]
    pub fn new(code: Code, subject: impl Into<String>) -> Rejection {
        Rejection {
            code,
            step: None,
            subject: subject.into(),
            observed: String::new(),
            bound: String::new(),
            unknown: false,
            repair: None,
        }
    }

    /// Names the step.
    #[must_use]
    pub fn at(mut self, step: &str) -> Rejection {
        self.step = Some(step.to_owned());
        self
    }

    /// Says what was found and what is asked for.
    #[must_use]
    pub fn found(mut self, observed: impl std::fmt::Display, bound: impl std::fmt::Display) -> Rejection {
        self.observed = observed.to_string();
        self.bound = bound.to_string();
        self
    }

    /// Marks it as not evaluable.
    #[must_use]
    pub fn unknown(mut self) -> Rejection {
        self.unknown = true;
        self
    }

    /// Offers an edit.
    #[must_use]
    pub fn repair(mut self, edit: Edit) -> Rejection {
        self.repair = Some(edit);
        self
    }

    /// The JSON rendering.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "code": self.code.word(),
            "name": self.code.name(),
            "step": self.step,
            "subject": self.subject,
            "observed": self.observed,
            "bound": self.bound,
            "unknown": self.unknown,
            "repair": self.repair.as_ref().map(ToString::to_string),
        })
    }

    /// Whether a hold is the reason: such a refusal ends with the exit code of a hold.
    #[must_use]
    pub fn is_hold(&self) -> bool {
        self.code == Code::K401
    }
}

impl std::fmt::Display for Rejection {
    /// One line: the code, the sentence, the numbers.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.code)?;
        match self.code {
            Code::K207 => write!(f, "{} is not in the recovery group", self.subject)?,
            code => write!(f, "{}: {}", self.subject, code.text())?,
        }
        if self.unknown {
            write!(f, " (not known: {})", self.observed)?;
        } else if self.code != Code::K207 && !self.observed.is_empty() {
            write!(f, " ({}, asked: {})", self.observed, self.bound)?;
        }
        self.step.as_ref().map_or(Ok(()), |step| write!(f, " [{step}]"))
    }
}
