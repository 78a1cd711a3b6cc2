//! The truth table: every input in every state, alone, in pairs and in threes, in every context of permissions and
//! modes. `expected` reads the table of `aspects` and the design's rules on what shadows what.

use super::aspects::{Aspect, State, aspects};
use super::*;
use std::collections::BTreeSet;

/// What `cargo xtask truth-table` runs and the gate does not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Short,
    /// Every pair in every context, and all sets of fired checks.
    Long,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiver {
    None,
    Invalid,
    AcceptsNothing,
    Bypass,
    AcceptsAll,
}

/// Permissions and modes: what the policy and people allow.
#[derive(Clone, Copy, Debug)]
struct Context {
    level: Level,
    is_above_auto: bool,
    allows_short: bool,
    aborts_unknown: bool,
    is_optional: bool,
    is_spent: bool,
    waiver: Waiver,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    outcome: Outcome,
    binding: Option<&'static str>,
    fired: BTreeSet<&'static str>,
    uncalibrated: BTreeSet<&'static str>,
    waived: BTreeSet<&'static str>,
    authority: Authority,
    approvals: u64,
    exit: i32,
}

const STRICT: Context = Context {
    level: Level::Auto,
    is_above_auto: false,
    allows_short: false,
    aborts_unknown: false,
    is_optional: false,
    is_spent: false,
    waiver: Waiver::None,
};

fn contexts() -> Vec<Context> {
    let mut all = Vec::new();
    for waiver in [Waiver::None, Waiver::Invalid, Waiver::AcceptsNothing, Waiver::Bypass, Waiver::AcceptsAll] {
        for level in [Level::Observe, Level::Suggest, Level::Approve, Level::Auto] {
            for bits in 0..32_u32 {
                let bit = |at: u32| bits >> at & 1 == 1;
                all.push(Context {
                    level,
                    is_above_auto: bit(0),
                    allows_short: bit(1),
                    aborts_unknown: bit(2),
                    is_optional: bit(3),
                    is_spent: bit(4),
                    waiver,
                });
            }
        }
    }
    all
}

fn build(context: &Context, states: &[&State]) -> Inputs {
    let mut inputs = good();
    let rules = inputs.rules.as_mut().unwrap();
    rules.level = context.level;
    rules.uncalibrated = if context.allows_short { Uncalibrated::Allow } else { Uncalibrated::Refuse };
    rules.on_not_evaluable = if context.aborts_unknown { OnNotEvaluable::Abort } else { OnNotEvaluable::Escalate };
    rules.preview = if context.is_optional { PreviewMode::Optional } else { PreviewMode::Mandatory };
    inputs.plan.as_mut().unwrap().is_above_auto = context.is_above_auto;
    inputs.mutations = Some(if context.is_spent { 4 } else { 3 });
    let codes = if context.waiver == Waiver::AcceptsNothing { &[][..] } else { Code::ALL };
    inputs.exception = (context.waiver != Waiver::None).then(|| ExceptionFacts {
        digest: digest("exception"),
        is_bypass: context.waiver == Waiver::Bypass,
        is_valid: context.waiver != Waiver::Invalid,
        codes: codes.iter().map(|code| code.word().to_owned()).collect(),
    });
    // What removes an input comes last: the others need it to be there.
    for state in states.iter().filter(|state| state.removes.is_none()) {
        (state.set)(&mut inputs);
    }
    for state in states.iter().filter(|state| state.removes.is_some()) {
        (state.set)(&mut inputs);
    }
    inputs
}

/// The conditions under which a code that is written with `?` fires: something else is there to contradict.
fn applies(removed: Option<&str>, code: &str, lacks: impl Fn(&str) -> bool) -> bool {
    match (removed, code) {
        (Some("intent"), "G103?") => !lacks("report"),
        (_, "G106?") => !lacks("plan"),
        (Some("plan"), "G103?") => !lacks("report") || !lacks("check"),
        _ => true,
    }
}

fn is_waived(waiver: Waiver, code: &str) -> bool {
    match waiver {
        Waiver::None | Waiver::Invalid | Waiver::AcceptsNothing => false,
        Waiver::Bypass => ["G201", "G202", "G205", "G206", "G207", "G211", "G303", "G304"].contains(&code),
        Waiver::AcceptsAll => code.starts_with("G2") && code != "G204",
    }
}

fn expected(context: &Context, states: &[&State]) -> Row {
    let lacks = |what: &str| states.iter().any(|state| state.removes == Some(what));
    let is_completed = !states.iter().any(|state| ["inconclusive", "void"].contains(&state.name));
    let no_fix = context.is_spent || lacks("mutations");
    let authority = match context.level {
        _ if lacks("rules") => Authority::Observe,
        Level::Observe => Authority::Observe,
        Level::Suggest => Authority::Suggest,
        Level::Auto if !context.is_above_auto && !lacks("plan") => Authority::Auto,
        Level::Approve | Level::Auto => Authority::Approve,
    };
    let (mut fired, mut uncalibrated, mut waived) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for state in states.iter().filter(|state| !state.of.iter().any(|of| lacks(of))) {
        if state.is_number && !is_completed {
            continue;
        }
        for fires in state.fires.iter().filter(|fires| applies(state.removes, fires.code, lacks)) {
            let code = fires.hopeless.filter(|_| no_fix).unwrap_or(fires.code).trim_end_matches('?');
            let needs_rules = !["G101", "G102", "G103", "G104", "G105", "G107"].contains(&code);
            if (needs_rules && lacks("rules")) || (fires.auto && authority != Authority::Auto) {
                continue;
            }
            let into = match () {
                () if fires.short && context.allows_short => &mut uncalibrated,
                () if is_waived(context.waiver, code) => &mut waived,
                () => &mut fired,
            };
            into.insert(code);
        }
    }
    let severity = |code: &str| match code.as_bytes() {
        [b'G', b'1', ..] => 3,
        b"G204" if context.aborts_unknown => 3,
        [b'G', b'2', ..] => 2,
        _ => 1,
    };
    let worst = fired.iter().map(|code| severity(code)).max().unwrap_or(0);
    let binding = fired.iter().copied().find(|code| severity(code) == worst);
    let is_spent = states.iter().any(|state| state.name == "time spent");
    let (outcome, exit) = match (worst, binding) {
        (0, _) => (Outcome::Commit, 0),
        (1, _) => (Outcome::MutateParameters, 10),
        (2, Some("G209")) if is_spent => (Outcome::Escalate, 60),
        (2, _) => (Outcome::Escalate, 20),
        (_, Some("G101")) => (Outcome::Abort, 70),
        _ => (Outcome::Abort, 30),
    };
    let approvals = u64::from(authority == Authority::Approve);
    Row { outcome, binding, fired, uncalibrated, waived, authority, approvals, exit }
}

fn found(inputs: &Inputs) -> Row {
    let decision = decide(inputs);
    assert_eq!(decision.mutation.is_empty(), decision.outcome != Outcome::MutateParameters);
    Row {
        outcome: decision.outcome,
        binding: decision.binding.as_ref().map(|reason| reason.code.word()),
        fired: decision.reasons.iter().map(|reason| reason.code.word()).collect(),
        uncalibrated: decision.uncalibrated.iter().map(|check| check.code().word()).collect(),
        waived: decision.waived.iter().map(|check| check.code().word()).collect(),
        authority: decision.authority,
        approvals: decision.approvals_needed,
        exit: decision.exit(),
    }
}

fn compare(context: &Context, states: &[&State]) -> Outcome {
    let found = found(&build(context, states));
    let names: Vec<&str> = states.iter().map(|state| state.name).collect();
    assert_eq!(found, expected(context, states), "{names:?} in {context:?}");
    found.outcome
}

fn pairs(aspects: &[Aspect]) -> impl Iterator<Item = (&State, &State)> {
    let later = |at: usize| aspects.iter().skip(at + 1).flatten();
    aspects
        .iter()
        .enumerate()
        .flat_map(move |(at, one)| one.iter().flat_map(move |first| later(at).map(move |second| (first, second))))
}

#[test]
fn every_state_alone_and_in_pairs_is_decided_as_the_table_says() {
    alone_and_in_pairs(Form::Short);
}

#[cfg(feature = "long")]
#[test]
fn every_state_alone_and_in_pairs_in_every_context_is_decided_as_the_table_says() {
    alone_and_in_pairs(Form::Long);
}

fn alone_and_in_pairs(form: Form) {
    let (aspects, contexts) = (aspects(), contexts());
    let (mut rows, mut tally) = (0_u64, [0_u64; 4]);
    for (at, context) in contexts.iter().enumerate() {
        assert_eq!(compare(context, &[]), Outcome::Commit, "{context:?}");
        for state in aspects.iter().flatten() {
            tally[compare(context, &[state]) as usize - 1] += 1;
            rows += 1;
        }
        // A stride that is prime to every dimension of the contexts meets every value of each.
        if form == Form::Long || at % 41 == 0 {
            for (first, second) in pairs(&aspects) {
                tally[compare(context, &[first, second]) as usize - 1] += 1;
                rows += 1;
            }
        }
    }
    let states = aspects.iter().flatten().count();
    println!("{} inputs in {states} states, {} contexts, {rows} rows: {tally:?}", aspects.len(), contexts.len());
    assert!(tally.iter().all(|count| *count > 0) && rows >= (states * contexts.len()) as u64);
}

#[test]
fn every_three_states_are_decided_as_the_table_says() {
    let aspects = aspects();
    let mut rows = 0_u64;
    for (at, third) in aspects.iter().enumerate() {
        for third in third {
            for (first, second) in pairs(&aspects[..at]) {
                compare(&STRICT, &[first, second, third]);
                rows += 1;
            }
        }
    }
    println!("{rows} rows of three states");
    assert!(rows > 50_000);
}

/// What is missing, stale, from the future, unsigned, of something else, impossible or over a limit never commits.
#[test]
fn no_state_but_the_good_one_commits_where_data_are_required() {
    for context in contexts() {
        let strict = !context.allows_short && matches!(context.waiver, Waiver::None | Waiver::Invalid);
        for state in aspects().iter().flatten().filter(|_| strict) {
            let acts = context.level == Level::Auto && !context.is_above_auto;
            // Evidence for acting alone is asked for only where stanch would.
            if acts || !state.fires.iter().all(|fires| fires.auto) {
                assert_ne!(decide(&build(&context, &[state])).outcome, Outcome::Commit, "{}", state.name);
            }
        }
    }
}

/// Making one input worse never lowers the outcome, whatever state one other input is in.
#[test]
fn one_input_worse_is_never_a_milder_outcome() {
    worse_is_never_milder(Form::Short);
}

#[cfg(feature = "long")]
#[test]
fn one_input_worse_is_never_a_milder_outcome_in_every_context() {
    worse_is_never_milder(Form::Long);
}

fn worse_is_never_milder(form: Form) {
    let aspects = aspects();
    let judged = |context: &Context, states: &[&State]| decide(&build(context, states)).outcome;
    let unwaived = contexts().into_iter().filter(|context| context.waiver == Waiver::None);
    let mut steps = 0_u64;
    for context in unwaived.step_by(if form == Form::Long { 1 } else { 13 }) {
        for other in std::iter::once(None).chain(aspects.iter().flatten().map(Some)) {
            for aspect in aspects.iter().filter(|aspect| !other.is_some_and(|other| among(aspect, other))) {
                let mut before = judged(&context, &other.into_iter().collect::<Vec<_>>());
                // Without its input the other state is none: nothing to compare.
                let is_kept = |state: &&State| {
                    let number =
                        other.is_some_and(|other| other.is_number) && state.fires.iter().any(|f| f.code == "G202");
                    let gone = state.removes.is_some_and(|gone| other.is_some_and(|other| other.of.contains(&gone)));
                    !number && !gone
                };
                for state in aspect.iter().filter(is_kept) {
                    let states: Vec<&State> = other.into_iter().chain([state]).collect();
                    let after = judged(&context, &states);
                    assert!(after >= before, "{} after {:?} in {context:?}", state.name, other.map(|other| other.name));
                    before = after;
                    steps += 1;
                }
            }
        }
    }
    println!("{steps} steps for the worse");
    assert!(steps > 10_000);
}

fn among(aspect: &Aspect, state: &State) -> bool {
    aspect.iter().any(|of| std::ptr::eq(of, state))
}

/// A waiver never makes an outcome more severe, and an invalid one or one that names nothing changes none.
#[test]
fn a_waiver_only_lowers_and_only_when_it_is_valid() {
    for state in aspects().iter().flatten() {
        for context in contexts() {
            let with = decide(&build(&context, &[state])).outcome;
            let without = decide(&build(&Context { waiver: Waiver::None, ..context }, &[state])).outcome;
            let waives = matches!(context.waiver, Waiver::Bypass | Waiver::AcceptsAll);
            assert!(if waives { with <= without } else { with == without }, "{} {context:?}", state.name);
        }
    }
}

/// One way to fire each check that disturbs no other, in the order of the table.
fn singles() -> [Worse; 24] {
    use Check::*;
    [
        (A1, |x| x.hold.as_mut().unwrap().scope = Some("payments".into())),
        (A2, |x| x.check.as_mut().unwrap().is_sound = false),
        (A3, |x| x.intent.as_mut().unwrap().is_chained = false),
        (A4, |x| x.intent.as_mut().unwrap().expires_at = NOW.minus(Millis(1))),
        (A5, |x| x.semantics = 0),
        (A6, |x| x.plan.as_mut().unwrap().is_vetoed = true),
        (A7, |x| x.check.as_mut().unwrap().has_passed = false),
        (A8, |x| r(x).invariants = vec![holding(Holding::Violated)]),
        (A9, |x| x.quorum_safe = None),
        (E1, |x| r(x).contention_ppm = Some(50_001)),
        (E2, |x| r(x).runs = 2),
        (E3, |x| r(x).taken_at = NOW.plus(Millis(1))),
        (E4, |x| x.invariants[0].live = None),
        (E5, |x| r(x).fidelity = Some(Fidelity::F1)),
        (E6, |x| r(x).epsilon_observe_ppm = None),
        (E7, |x| set_growth(x, None)),
        (E8, |x| x.observers.as_mut().unwrap().impaired = 1),
        (E9, |x| r(x).backlog = forecast(20_001)),
        (E10, |x| h(x).overdue = 1),
        (E11, |x| r(x).is_pilot_shy = true),
        (M1, |x| r(x).retries = Some(Forecast { value: NEVER, fix: fix() })),
        (M2, |x| r(x).delay = Some(Forecast { value: NEVER, fix: fix() })),
        (M3, |x| r(x).convergence = Some(Forecast { value: NEVER, fix: fix() })),
        // One report's growth has a fix or none: the other one comes from a second report.
        (M4, |x| {
            let growth = Some(Growth { k: 4, n: 490, upper_ppm: 25_001, fix: fix() });
            x.reports.push(ReportFacts { digest: digest("second"), growth, ..report() });
        }),
    ]
}

#[test]
fn every_set_of_few_or_nearly_all_fired_checks_binds_by_severity_then_order() {
    fired_checks_bind(Form::Short);
}

#[cfg(feature = "long")]
#[test]
fn every_set_of_fired_checks_binds_by_severity_then_order() {
    fired_checks_bind(Form::Long);
}

fn fired_checks_bind(form: Form) {
    let singles = singles();
    let mut rows = 0_u64;
    for set in 0..1_u32 << singles.len() {
        let few = set.count_ones() <= 3 || set.count_zeros() <= 32 - 22;
        if !few && form == Form::Short {
            continue;
        }
        let mut inputs = good();
        let fired = || singles.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1).map(|(_, single)| single);
        fired().for_each(|(_, worsen)| worsen(&mut inputs));
        let decision = decide(&inputs);
        let found: Vec<Check> = decision.reasons.iter().map(|reason| reason.check).collect();
        assert_eq!(found, fired().map(|(check, _)| *check).collect::<Vec<_>>());
        let [abort, escalate] = [0x1ff, 0xf_fe00].map(|band| set & band);
        let (outcome, band) = match (abort, escalate) {
            _ if set == 0 => (Outcome::Commit, 0),
            (0, 0) => (Outcome::MutateParameters, set),
            (0, _) => (Outcome::Escalate, escalate),
            _ => (Outcome::Abort, abort),
        };
        let binding = singles.get(band.trailing_zeros() as usize).map(|(check, _)| *check);
        assert_eq!((decision.outcome, decision.binding.map(|reason| reason.check)), (outcome, binding), "{set:b}");
        rows += 1;
    }
    println!("{rows} sets of fired checks");
    assert_eq!(rows, if form == Form::Long { 1 << 24 } else { 1 + 24 + 276 + 2_024 + 276 + 24 + 1 });
}
