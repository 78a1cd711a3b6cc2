//! The design's table as data: what a decision reads, the states each input can be in, and the codes that each
//! state fires while all else is well. Nothing here calls the code under test.

use super::*;

/// What is fired, and on which condition.
#[derive(Clone, Copy)]
pub(super) struct Fires {
    pub(super) code: &'static str,
    /// Only where stanch would act alone.
    pub(super) auto: bool,
    /// For want of data only: the policy may allow it.
    pub(super) short: bool,
    /// Fired instead when no change of a parameter is left.
    pub(super) hopeless: Option<&'static str>,
}

/// A state of one input.
pub(super) struct State {
    pub(super) name: &'static str,
    pub(super) fires: Vec<Fires>,
    /// Without these inputs the state cannot be.
    pub(super) of: &'static [&'static str],
    /// The input that is missing in this state.
    pub(super) removes: Option<&'static str>,
    /// A number that only a completed preview must have.
    pub(super) is_number: bool,
    pub(super) set: fn(&mut Inputs),
}

/// One input; its states stand in rising badness, and the good one is not listed.
pub(super) type Aspect = Vec<State>;

fn state(name: &'static str, codes: &[&'static str], set: fn(&mut Inputs)) -> State {
    let fires = codes.iter().map(|code| Fires { code, auto: false, short: false, hopeless: None }).collect();
    State { name, fires, of: &[], removes: None, is_number: false, set }
}

impl State {
    fn of(self, of: &'static [&'static str]) -> State {
        State { of, ..self }
    }

    fn missing(self, what: &'static str) -> State {
        State { removes: Some(what), ..self }
    }

    fn short(mut self) -> State {
        self.fires.iter_mut().for_each(|fires| fires.short = true);
        self
    }

    fn auto(mut self) -> State {
        self.fires.iter_mut().filter(|fires| fires.code == "G210").for_each(|fires| fires.auto = true);
        self
    }

    fn or(mut self, hopeless: &'static str) -> State {
        self.fires.iter_mut().for_each(|fires| fires.hopeless = Some(hopeless));
        self
    }

    fn number(self) -> State {
        State { is_number: true, ..self }
    }
}

const REPORT: &[&str] = &["report"];
const INTENT: &[&str] = &["intent"];
const HISTORY: &[&str] = &["history"];

fn i(inputs: &mut Inputs) -> &mut IntentFacts {
    inputs.intent.as_mut().unwrap()
}

fn p(inputs: &mut Inputs) -> &mut PlanFacts {
    inputs.plan.as_mut().unwrap()
}

fn c(inputs: &mut Inputs) -> &mut CheckFacts {
    inputs.check.as_mut().unwrap()
}

fn o(inputs: &mut Inputs) -> &mut ObserverFacts {
    inputs.observers.as_mut().unwrap()
}

fn over(value: u64, fix: Option<Fix>) -> Option<Forecast> {
    Some(Forecast { value, fix })
}

fn measure(ppm: Option<u64>, is_short: bool) -> Measure {
    Measure { ppm, is_short, cases: 9 }
}

/// Every input in every state.
pub(super) fn aspects() -> Vec<Aspect> {
    [authority_aspects(), record_aspects(), report_aspects(), forecast_aspects(), history_aspects()]
        .into_iter()
        .flatten()
        .collect()
}

fn authority_aspects() -> Vec<Aspect> {
    vec![
        vec![state("no rules", &["G105"], |x| x.rules = None).missing("rules")],
        vec![state("no owner", &["G210"], |x| x.rules.as_mut().unwrap().is_owned = false).of(&["rules"]).auto()],
        vec![
            state("held", &["G101"], |x| x.hold.as_mut().unwrap().scope = Some("payments".into())),
            state("hold not looked up", &["G105"], |x| x.hold = None),
        ],
        vec![
            state("semantics of before", &["G105"], |x| x.semantics = SEMANTICS - 1),
            state("semantics to come", &["G105"], |x| x.semantics = SEMANTICS + 1),
        ],
        vec![state("mutations not counted", &["G105"], |x| x.mutations = None).missing("mutations")],
        vec![
            state("quorum not evaluable", &["G109"], |x| x.quorum_safe = None),
            state("quorum broken", &["G109"], |x| x.quorum_safe = Some(false)),
            state("quorum claimed broken", &["G109"], |x| i(x).claims.quorum_safe = Some(false)).of(INTENT),
        ],
        vec![
            state("a vote too few", &["G208"], |x| o(x).impaired = 1),
            state("disagreement", &["G208"], |x| o(x).disagreement_ppm = 340_001),
            state("mixed mode", &["G208"], |x| o(x).is_mixed_unowned = true),
            state("nobody asked", &["G208"], |x| x.observers = None),
            state("more votes than observers", &["G105"], |x| o(x).impaired = 4),
            state("impossible disagreement", &["G105", "G208"], |x| o(x).disagreement_ppm = 1_000_001),
        ],
        vec![
            state("invariant not evaluated", &["G204"], |x| x.invariants[0].live = None),
            state("invariant not evaluable", &["G204"], |x| {
                x.invariants[0].live = Some(holding(Holding::NotEvaluable))
            }),
            state("another invariant evaluated", &["G204"], |x| x.invariants[0].id = "progress".into())
                .missing("invariant"),
            state("invariant violated", &["G108"], |x| x.invariants[0].live = Some(holding(Holding::Violated))),
            state("no invariants", &["G105"], |x| x.invariants.clear()).missing("invariant"),
        ],
    ]
}

fn record_aspects() -> Vec<Aspect> {
    vec![
        vec![
            state("intent unsigned", &["G102"], |x| i(x).is_sound = false),
            state("orphan intent", &["G103"], |x| i(x).is_chained = false),
            state("intent expired", &["G104"], |x| i(x).expires_at = NOW.minus(Millis(1))),
            state("impossible fault scope", &["G105", "G106?"], |x| i(x).fault_ppm = 1_000_001),
            // No report is one of it, and no action is proportionate to no fault.
            state("no intent", &["G102", "G103?", "G106?"], |x| x.intent = None).missing("intent"),
        ],
        vec![
            state("action of another class", &["G106"], |x| p(x).actions.push(ActionKind::Scale)),
            state("no actions", &["G106"], |x| p(x).actions.clear()),
            state("too wide", &["G106"], |x| p(x).action_ppm = 400_001),
            state("crossing", &["G106"], |x| p(x).crossings.push("card".into())),
            state("vetoed", &["G106"], |x| p(x).is_vetoed = true),
            state("wider than everything", &["G105", "G106"], |x| p(x).action_ppm = 1_000_001),
            // No check and no report is one of it.
            state("no plan", &["G105", "G103?"], |x| x.plan = None).missing("plan"),
        ],
        vec![
            state("check unsigned", &["G102"], |x| c(x).is_sound = false),
            state("another plan checked", &["G103"], |x| c(x).plan = digest("other")),
            state("rejected", &["G107"], |x| c(x).has_passed = false),
            state("not checked", &["G107"], |x| x.check = None).missing("check"),
        ],
        vec![
            state("changed since", &["G203"], |x| x.bound_now = Some(digest("changed"))).of(REPORT),
            state("present state unknown", &["G105"], |x| x.bound_now = None),
        ],
        vec![state("risk claimed", &["G201"], |x| i(x).claims.pilot_risk_ppm = Some(50_001)).of(INTENT)],
        vec![
            state("contention claimed", &["G201"], |x| i(x).claims.contention_risk_ppm = Some(50_001)).of(INTENT),
            state("impossible claim", &["G105", "G201"], |x| i(x).claims.contention_risk_ppm = Some(1_000_001))
                .of(INTENT),
        ],
    ]
}

fn report_aspects() -> Vec<Aspect> {
    vec![
        vec![state("not previewed", &["G202"], |x| x.reports.clear()).missing("report")],
        vec![
            state("inconclusive", &["G202"], |x| r(x).result = PilotResult::Inconclusive).of(REPORT),
            state("void", &["G202"], |x| r(x).result = PilotResult::Void).of(REPORT),
        ],
        vec![
            state("report unsigned", &["G102"], |x| r(x).is_sound = false).of(REPORT),
            state("report of another plan", &["G103"], |x| r(x).plan = digest("other")).of(REPORT),
            state("report of another intent", &["G103"], |x| r(x).intent = digest("other")).of(REPORT),
        ],
        vec![
            state("a run too few", &["G202"], |x| r(x).runs = 2).of(REPORT),
            state("no runs", &["G202"], |x| r(x).runs = 0).of(REPORT),
        ],
        vec![
            state("too old", &["G203"], |x| r(x).taken_at = NOW.minus(Millis(60_001))).of(REPORT),
            state("from the future", &["G203"], |x| r(x).taken_at = NOW.plus(Millis(1))).of(REPORT),
        ],
        vec![
            state("dry run", &["G205"], |x| r(x).fidelity = Some(Fidelity::F1)).of(REPORT),
            state("model", &["G205"], |x| r(x).fidelity = Some(Fidelity::F0)).of(REPORT),
            state("no fidelity", &["G105"], |x| r(x).fidelity = None).of(REPORT).number(),
        ],
        vec![
            state("escape", &["G108"], |x| r(x).escapes = Some(1)).of(REPORT),
            state("escapes not counted", &["G105"], |x| r(x).escapes = None).of(REPORT),
        ],
        vec![
            state("invariant unknown in preview", &["G204"], |x| {
                r(x).invariants = vec![holding(Holding::NotEvaluable)]
            })
            .of(&["report", "invariant"]),
            state("invariant violated in preview", &["G108"], |x| r(x).invariants = vec![holding(Holding::Violated)])
                .of(REPORT),
        ],
        vec![
            state("churn", &["G211"], |x| r(x).divergences.push(Divergence::MembershipChurn)).of(REPORT),
            state("unexplained", &["G211"], |x| r(x).divergences.push(Divergence::Unexplained)).of(REPORT),
            state("pilot-shy", &["G211"], |x| r(x).is_pilot_shy = true).of(REPORT),
        ],
        vec![
            state("contention", &["G201"], |x| r(x).contention_ppm = Some(50_001)).of(REPORT),
            state("contention unknown", &["G105"], |x| r(x).contention_ppm = None).of(REPORT).number(),
            state("impossible contention", &["G105", "G201"], |x| r(x).contention_ppm = Some(1_000_001)).of(REPORT),
        ],
        vec![
            state("path young", &["G206"], |x| r(x).epsilon_path = Some(measure(None, true))).of(REPORT).short(),
            state("path wrong but young", &["G206"], |x| r(x).epsilon_path = Some(measure(Some(40_001), true)))
                .of(REPORT)
                .short(),
            state("path wrong", &["G206"], |x| r(x).epsilon_path = Some(measure(Some(40_001), false))).of(REPORT),
            state("path unknown", &["G206"], |x| r(x).epsilon_path = None).of(REPORT),
            state("observation poor", &["G206"], |x| r(x).epsilon_observe_ppm = Some(30_001)).of(REPORT),
            state("observation unknown", &["G206"], |x| r(x).epsilon_observe_ppm = None).of(REPORT),
            state("interference unknown", &["G206"], |x| r(x).epsilon_interference_ppm = None).of(REPORT),
            state("measured on nothing", &["G105"], |x| r(x).touched = Touched::Nothing).of(REPORT),
        ],
    ]
}

fn forecast_aspects() -> Vec<Aspect> {
    vec![
        vec![
            state("growth, with a fix", &["G304"], |x| set_growth(x, fix())).of(REPORT).or("G207"),
            state("growth", &["G207"], |x| set_growth(x, None)).of(REPORT),
            state("growth unknown", &["G105"], |x| r(x).growth = None).of(REPORT).number(),
            state("more growths than runs", &["G105"], |x| r(x).growth.as_mut().unwrap().k = 491).of(REPORT),
            state("growth bound below growth", &["G105"], |x| r(x).growth.as_mut().unwrap().upper_ppm = 8_000)
                .of(REPORT),
        ],
        vec![
            state("retries, with a fix", &["G301"], |x| r(x).retries = over(2_000_001, fix())).of(REPORT).or("G209"),
            state("retries", &["G209"], |x| r(x).retries = over(2_000_001, None)).of(REPORT),
            state("endless retries", &["G209"], |x| r(x).retries = over(NEVER, None)).of(REPORT),
            state("retries unknown", &["G105"], |x| r(x).retries = None).of(REPORT).number(),
        ],
        vec![
            state("backlog, with a fix", &["G301"], |x| r(x).backlog = over(20_001, fix())).of(REPORT).or("G209"),
            state("backlog", &["G209"], |x| r(x).backlog = over(20_001, None)).of(REPORT),
            state("backlog unknown", &["G105"], |x| r(x).backlog = None).of(REPORT).number(),
        ],
        vec![
            state("slow drain, with a fix", &["G301"], |x| r(x).drain = over(30_001, fix())).of(REPORT).or("G209"),
            state("never drained", &["G209"], |x| r(x).drain = over(NEVER, None)).of(REPORT),
            state("drain unknown", &["G105"], |x| r(x).drain = None).of(REPORT).number(),
        ],
        vec![
            state("oscillations", &["G209"], |x| r(x).oscillations = over(3, None)).of(REPORT),
            state("oscillations unknown", &["G105"], |x| r(x).oscillations = None).of(REPORT).number(),
        ],
        vec![
            state("late convergence, with a fix", &["G303"], |x| r(x).convergence = over(30_001, fix()))
                .of(REPORT)
                .or("G209"),
            state("no convergence", &["G209"], |x| r(x).convergence = over(NEVER, None)).of(REPORT),
            state("convergence unknown", &["G105"], |x| r(x).convergence = None).of(REPORT).number(),
        ],
        vec![
            state("delay, with a fix", &["G302"], |x| r(x).delay = over(90_001, fix())).of(REPORT).or("G209"),
            state("little time left", &["G302"], |x| x.time.as_mut().unwrap().elapsed = Millis(30_001))
                .of(REPORT)
                .or("G209"),
            state("delay", &["G209"], |x| r(x).delay = over(90_001, None)).of(REPORT),
            state("delay claimed", &["G209"], |x| i(x).claims.estimated_delay_ms = Some(90_001)).of(INTENT),
            state("time spent", &["G209"], |x| x.time.as_mut().unwrap().elapsed = Millis(120_000)),
            state("delay unknown", &["G105"], |x| r(x).delay = None).of(REPORT).number(),
            state("time unknown", &["G105"], |x| x.time = None),
        ],
    ]
}

fn history_aspects() -> Vec<Aspect> {
    vec![
        vec![
            state("risk unknown yet", &["G201"], |x| h(x).pilot_risk = measure(None, true)).of(HISTORY).short(),
            state("risk high yet", &["G201"], |x| h(x).pilot_risk = measure(Some(950_000), true)).of(HISTORY).short(),
            state("risk unknown", &["G201"], |x| h(x).pilot_risk = measure(None, false)).of(HISTORY),
            state("risk", &["G201"], |x| h(x).pilot_risk = measure(Some(50_001), false)).of(HISTORY),
            state("impossible risk", &["G105", "G201"], |x| h(x).pilot_risk = measure(Some(1_000_001), false))
                .of(HISTORY),
        ],
        vec![
            state("never measured yet", &["G210"], |x| h(x).amplification = measure(None, true))
                .of(HISTORY)
                .auto()
                .short(),
            state("high yet", &["G210"], |x| h(x).amplification = measure(Some(95_000), true))
                .of(HISTORY)
                .auto()
                .short(),
            state("never measured", &["G210"], |x| h(x).amplification = measure(None, false)).of(HISTORY).auto(),
            state("made it worse", &["G210"], |x| h(x).amplification = measure(Some(25_001), false)).of(HISTORY).auto(),
            state("impossible history", &["G105", "G210"], |x| {
                h(x).amplification = measure(Some(1_000_001), false);
            })
            .of(HISTORY)
            .auto(),
        ],
        vec![
            state("young control", &["G210"], |x| h(x).young_controls.push("convergence".into()))
                .of(HISTORY)
                .auto()
                .short(),
            state("missing control", &["G210"], |x| h(x).missing_controls.push("provenance".into())).of(HISTORY).auto(),
        ],
        vec![state("few pairs", &["G210"], |x| h(x).pairs = 29).of(HISTORY).auto().short()],
        vec![state("stale calibration", &["G210"], |x| h(x).is_stale = true).of(HISTORY).auto().short()],
        vec![state("overdue review", &["G210"], |x| h(x).overdue = 1).of(HISTORY).auto()],
        vec![state("no history", &["G105", "G201"], |x| x.history = None).missing("history")],
    ]
}
