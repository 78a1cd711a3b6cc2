//! The checks A1 to M4, each of them monotone: a worse input never unfires one.

use super::decision::{Authority, MutatedParam, Numbers, Reason, Unit, authority};
use super::{Check, Fix, Forecast, Inputs, MUTATIONS_MAX, Measure, ReportFacts, Rules, SEMANTICS};
use crate::invariants::Holding;
use crate::policy::{Fidelity, Uncalibrated};
use crate::record::{Divergence, PilotResult, Touched};

const ONE: u64 = 1_000_000;

/// What the checks found.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) reasons: Vec<Reason>,
    pub(super) mutation: Vec<MutatedParam>,
    pub(super) uncalibrated: Vec<Check>,
    pub(super) waived: Vec<Check>,
    pub(super) numbers: Numbers,
    pub(super) is_budget_spent: bool,
}

struct Run<'a> {
    inputs: &'a Inputs,
    facts: Facts,
}

/// Runs every check in order. Without rules there is nothing to compare with: A5 fires and the rest of
/// the bands that need them is moot, because an abort is already the severest outcome.
pub(super) fn run(inputs: &Inputs) -> Facts {
    let mut run = Run { inputs, facts: Facts::default() };
    run.numbers();
    run.aborts();
    if let Some(rules) = &inputs.rules {
        run.permissions(rules);
        run.violations();
        run.risks(rules);
        run.previews(rules);
        run.errors(rules);
        run.amplification(rules);
        run.observers(rules);
        run.budgets(rules);
        run.autonomy(rules);
        run.behavior();
    }
    run.facts.reasons.sort_by_key(|reason| reason.check);
    run.facts
}

impl Run<'_> {
    /// Notes a fired check, or that an exception waives it.
    fn fire(&mut self, check: Check, what: impl Into<String>) {
        self.fire_number(check, what, None, Unit::Plain);
    }

    fn fire_number(&mut self, check: Check, what: impl Into<String>, number: Option<(u64, u64)>, unit: Unit) {
        if self.is_waived(check) {
            if !self.facts.waived.contains(&check) {
                self.facts.waived.push(check);
            }
            return;
        }
        let (observed, bound) = number.unzip();
        self.facts.reasons.push(Reason { check, code: check.code(), what: what.into(), observed, bound, unit });
    }

    fn is_waived(&self, check: Check) -> bool {
        let Some(exception) = self.inputs.exception.as_ref().filter(|exception| exception.is_valid) else {
            return false;
        };
        let named = exception.codes.iter().any(|code| code == check.code().word());
        if exception.is_bypass { check.is_bypassable() } else { named && check.is_acceptable() }
    }

    /// Fires unless the only fault is too little data and the policy permits that.
    fn fire_short(&mut self, check: Check, is_short: bool, what: &str, number: Option<(u64, u64)>) {
        let allows = self.inputs.rules.as_ref().is_some_and(|rules| rules.uncalibrated == Uncalibrated::Allow);
        if !(is_short && allows) {
            self.fire_number(check, what, number, Unit::Share);
        } else if !self.facts.uncalibrated.contains(&check) {
            self.facts.uncalibrated.push(check);
        }
    }

    /// The worst of a number over all previews.
    fn worst(&self, of: impl Fn(&ReportFacts) -> Option<u64>) -> Option<u64> {
        self.inputs.reports.iter().filter_map(of).max()
    }

    fn numbers(&mut self) {
        let value = |forecast: &Option<Forecast>| forecast.as_ref().map(|forecast| forecast.value);
        let inputs = self.inputs;
        let claims = inputs.intent.as_ref().map(|intent| &intent.claims);
        let time = inputs.time.as_ref();
        let history = inputs.history.as_ref();
        let rules = inputs.rules.as_ref();
        let growth =
            inputs.reports.iter().filter_map(|report| report.growth.as_ref()).max_by_key(|growth| growth.upper_ppm);
        let path = self.worst(|report| report.epsilon_path.as_ref().and_then(|path| path.ppm));
        let interference = self.worst(|report| report.epsilon_interference_ppm);
        let observe = self.worst(|report| report.epsilon_observe_ppm);
        let known = [path, interference, observe];
        let claimed = |claim: Option<u64>, computed: Option<u64>| computed.map(|value| value.max(claim.unwrap_or(0)));
        self.facts.numbers = Numbers {
            is_quorum_safe: inputs.quorum_safe == Some(true)
                && claims.and_then(|claims| claims.quorum_safe) != Some(false),
            pilot_risk_ppm: claimed(
                claims.and_then(|claims| claims.pilot_risk_ppm),
                history.and_then(|history| history.pilot_risk.ppm),
            ),
            contention_risk_ppm: claimed(
                claims.and_then(|claims| claims.contention_risk_ppm),
                self.worst(|report| report.contention_ppm),
            ),
            estimated_delay_ms: claimed(
                claims.and_then(|claims| claims.estimated_delay_ms),
                self.worst(|report| value(&report.delay)),
            ),
            max_delay_ms: rules.zip(time).map(|(rules, time)| max_delay(rules, time.elapsed.0)),
            growth_k: growth.map(|growth| growth.k),
            growth_n: growth.map(|growth| growth.n),
            amplification_ppm: growth.map(|growth| growth.upper_ppm),
            a_ceiling_ppm: rules.map(|rules| u64::from(rules.a_ceiling.ppm())),
            historic_ppm: history.and_then(|history| history.amplification.ppm),
            epsilon_path_ppm: path,
            epsilon_interference_ppm: interference,
            epsilon_observe_ppm: observe,
            epsilon_ppm: (!inputs.reports.is_empty())
                .then(|| known.into_iter().flatten().fold(0, u64::saturating_add).min(ONE)),
            retries_ppm: self.worst(|report| value(&report.retries)),
            backlog: self.worst(|report| value(&report.backlog)),
            drain_ms: self.worst(|report| value(&report.drain)),
            oscillations: self.worst(|report| value(&report.oscillations)),
            convergence_ms: self.worst(|report| value(&report.convergence)),
            detect_ms: time.map(|time| time.detect.0),
            preview_ms: time.map(|time| time.preview.0),
            elapsed_ms: time.map(|time| time.elapsed.0),
            t_budget_ms: rules.map(|rules| rules.t_budget.0),
            pairs: history.map(|history| history.pairs),
        };
    }

    /// A1 to A5 and A7.
    fn aborts(&mut self) {
        let inputs = self.inputs;
        if let Some(scope) = inputs.hold.as_ref().and_then(|hold| hold.scope.as_ref()) {
            self.fire(Check::A1, scope.clone());
        }
        if !inputs.intent.as_ref().is_some_and(|intent| intent.is_sound) {
            self.fire(Check::A2, "the intent");
        }
        if inputs.check.as_ref().is_some_and(|check| !check.is_sound) {
            self.fire(Check::A2, "the kernel's check");
        }
        if inputs.reports.iter().any(|report| !report.is_sound) {
            self.fire(Check::A2, "a preview report");
        }
        let plan = inputs.plan.as_ref().map(|plan| plan.digest);
        let intent = inputs.intent.as_ref().map(|intent| intent.digest);
        if inputs.intent.as_ref().is_some_and(|intent| !intent.is_chained) {
            self.fire(Check::A3, "the intent does not follow its predecessor");
        }
        if inputs.check.as_ref().is_some_and(|check| Some(check.plan) != plan) {
            self.fire(Check::A3, "the kernel checked another plan");
        }
        if inputs.reports.iter().any(|report| Some(report.plan) != plan || Some(report.intent) != intent) {
            self.fire(Check::A3, "a preview report of another plan or intent");
        }
        if inputs.intent.as_ref().is_some_and(|intent| inputs.now > intent.expires_at) {
            self.fire(Check::A4, "the intent");
        }
        self.missing();
        self.impossible();
        match &inputs.check {
            None => self.fire(Check::A7, "the kernel has not checked it"),
            Some(check) if !check.has_passed => self.fire(Check::A7, "the kernel rejected it"),
            Some(_) => {}
        }
    }

    /// A5: what is required and missing.
    fn missing(&mut self) {
        let inputs = self.inputs;
        let present = [
            ("rules", inputs.rules.is_some()),
            ("hold", inputs.hold.is_some()),
            ("plan", inputs.plan.is_some()),
            ("bound state", inputs.bound_now.is_some()),
            ("time", inputs.time.is_some()),
            ("history", inputs.history.is_some()),
            ("mutations", inputs.mutations.is_some()),
            ("semantics", inputs.semantics == SEMANTICS),
            ("invariants", !inputs.invariants.is_empty()),
        ];
        for (what, _) in present.into_iter().filter(|(_, is_present)| !is_present) {
            self.fire(Check::A5, what);
        }
        // Whoever touched something says what is left of it, even when it did not complete.
        if inputs.reports.iter().any(|report| report.touched != Touched::Nothing && report.escapes.is_none()) {
            self.fire(Check::A5, "the preview's escapes");
        }
        for report in inputs.reports.iter().filter(|report| report.result == PilotResult::Completed) {
            let present = [
                ("fidelity", report.fidelity.is_some()),
                ("contention risk", report.contention_ppm.is_some()),
                ("growth", report.growth.is_some()),
                ("retries", report.retries.is_some()),
                ("backlog", report.backlog.is_some()),
                ("drain", report.drain.is_some()),
                ("oscillations", report.oscillations.is_some()),
                ("delay", report.delay.is_some()),
                ("convergence", report.convergence.is_some()),
            ];
            for (what, _) in present.into_iter().filter(|(_, is_present)| !is_present) {
                self.fire(Check::A5, format!("the preview's {what}"));
            }
        }
    }

    /// A5: shares above one, and counts that contradict each other.
    fn impossible(&mut self) {
        let inputs = self.inputs;
        let claims = inputs.intent.as_ref().map(|intent| &intent.claims);
        let mut shares = vec![
            ("the claimed pilot risk", claims.and_then(|claims| claims.pilot_risk_ppm)),
            ("the claimed contention risk", claims.and_then(|claims| claims.contention_risk_ppm)),
            ("the fault scope", inputs.intent.as_ref().map(|intent| intent.fault_ppm)),
            ("the action scope", inputs.plan.as_ref().map(|plan| plan.action_ppm)),
            ("the disagreement", inputs.observers.as_ref().map(|observers| observers.disagreement_ppm)),
            ("the pilot risk", inputs.history.as_ref().and_then(|history| history.pilot_risk.ppm)),
            ("the historic amplification", inputs.history.as_ref().and_then(|history| history.amplification.ppm)),
        ];
        for report in &inputs.reports {
            shares.push(("the contention risk", report.contention_ppm));
            shares.push(("the growth", report.growth.as_ref().map(|growth| growth.upper_ppm)));
            shares.push(("the path error", report.epsilon_path.as_ref().and_then(|path| path.ppm)));
            shares.push(("the interference", report.epsilon_interference_ppm));
            shares.push(("the observation error", report.epsilon_observe_ppm));
            if report.growth.as_ref().is_some_and(|growth| !growth.is_possible()) {
                self.fire(Check::A5, "the growth counts");
            }
            // Who touches nothing has no escapes or interference to measure, and saw no more than a model shows.
            let measured = report.escapes.is_some() || report.epsilon_interference_ppm.is_some();
            let is_deep = report.fidelity.is_some_and(|level| level > Fidelity::F1);
            if report.touched == Touched::Nothing && (measured || is_deep) {
                self.fire(Check::A5, "a preview that touched nothing and says what it did to it");
            }
        }
        if inputs.observers.as_ref().is_some_and(|observers| observers.impaired > observers.n) {
            self.fire(Check::A5, "more observers that say impaired than were asked");
        }
        for (what, share) in shares {
            if let Some(ppm) = share.filter(|ppm| *ppm > ONE) {
                self.fire_number(Check::A5, what, Some((ppm, ONE)), Unit::Share);
            }
        }
    }

    /// A6.
    fn permissions(&mut self, rules: &Rules) {
        let inputs = self.inputs;
        let Some(plan) = &inputs.plan else { return };
        for action in plan.actions.iter().filter(|action| !rules.actions.contains(action)) {
            self.fire(Check::A6, format!("the class {} has no {action}", rules.class));
        }
        if plan.actions.is_empty() {
            self.fire(Check::A6, "a plan without actions");
        }
        if let Some(zone) = plan.crossings.first() {
            self.fire(Check::A6, format!("it would cross into the trust zone {zone}"));
        }
        if plan.is_vetoed {
            self.fire(Check::A6, "an agent vetoed it");
        }
        // A fault that is unknown or impossible permits no action at all.
        let fault = inputs.intent.as_ref().map(|intent| intent.fault_ppm).filter(|ppm| *ppm <= ONE).unwrap_or(0);
        let cap = fault.saturating_mul(rules.scope_ratio_max);
        if plan.action_ppm > cap {
            self.fire_number(Check::A6, "scope of the action", Some((plan.action_ppm, cap)), Unit::Share);
        }
    }

    /// A8, A9 and E4.
    fn violations(&mut self) {
        let inputs = self.inputs;
        for required in &inputs.invariants {
            let evaluation = required.live.as_ref().filter(|live| live.id == required.id);
            match evaluation.map(|live| live.outcome) {
                Some(Holding::Holds) => {}
                Some(Holding::Violated) => {
                    self.fire(Check::A8, evaluation.map_or_else(String::new, |live| live.sentence()))
                }
                Some(Holding::NotEvaluable) | None => {
                    let why = evaluation.and_then(|live| live.why.clone());
                    self.fire(
                        Check::E4,
                        format!("{}: {}", required.id, why.as_deref().unwrap_or("it was not evaluated")),
                    );
                }
            }
        }
        for evaluation in inputs.reports.iter().flat_map(|report| &report.invariants) {
            let is_required = inputs.invariants.iter().any(|required| required.id == evaluation.id);
            match evaluation.outcome {
                Holding::Violated => self.fire(Check::A8, format!("in a preview: {}", evaluation.sentence())),
                Holding::NotEvaluable if is_required => {
                    self.fire(Check::E4, format!("in a preview: {}", evaluation.sentence()))
                }
                Holding::Holds | Holding::NotEvaluable => {}
            }
        }
        if inputs.reports.iter().any(|report| report.escapes.is_some_and(|count| count > 0)) {
            self.fire(Check::A8, "a preview left something behind");
        }
        if !self.facts.numbers.is_quorum_safe {
            self.fire(Check::A9, "two quorums might not meet");
        }
    }

    /// E1.
    fn risks(&mut self, rules: &Rules) {
        let limit = u64::from(rules.max_risk.ppm());
        let measure = self.inputs.history.as_ref().map(|history| history.pilot_risk.clone()).unwrap_or_default();
        let claim = self.inputs.intent.as_ref().and_then(|intent| intent.claims.pilot_risk_ppm);
        if claim.is_some_and(|claim| claim > limit) {
            self.fire_number(Check::E1, "pilot risk, as claimed,", claim.map(|claim| (claim, limit)), Unit::Share);
        }
        match measure.ppm {
            Some(ppm) if ppm > limit => self.fire_short(Check::E1, measure.is_short, "pilot risk", Some((ppm, limit))),
            Some(_) => {}
            None => self.fire_short(Check::E1, measure.is_short, "the pilot risk is unknown", None),
        }
        if let Some(ppm) = self.facts.numbers.contention_risk_ppm.filter(|ppm| *ppm > limit) {
            self.fire_number(Check::E1, "contention risk", Some((ppm, limit)), Unit::Share);
        } else if let Some(claim) = self.contention_claim().filter(|claim| *claim > limit) {
            self.fire_number(Check::E1, "contention risk, as claimed,", Some((claim, limit)), Unit::Share);
        }
    }

    fn contention_claim(&self) -> Option<u64> {
        self.inputs.intent.as_ref().and_then(|intent| intent.claims.contention_risk_ppm)
    }

    /// E2, E3, E5.
    fn previews(&mut self, rules: &Rules) {
        let inputs = self.inputs;
        if inputs.reports.is_empty() {
            self.fire(Check::E2, "the plan was not previewed");
        }
        for report in &inputs.reports {
            if report.result != PilotResult::Completed {
                self.fire(Check::E2, format!("the preview was {}", report.result));
            }
            let needed =
                if report.fidelity.is_none_or(|level| level == Fidelity::F0) { rules.model_runs } else { rules.runs };
            if report.runs < needed {
                // Too few runs reads downward: the bound is a minimum.
                self.fire(Check::E2, format!("{} runs, needed {needed}", report.runs));
            }
            let age = inputs.now.since(report.taken_at);
            if age > rules.preview_ttl {
                self.fire_number(Check::E3, "age of the preview", Some((age.0, rules.preview_ttl.0)), Unit::Time);
            }
            if report.taken_at > inputs.now {
                self.fire(Check::E3, "the preview is from the future");
            }
            if inputs.bound_now.is_some_and(|now| now != report.bound) {
                self.fire(Check::E3, "configuration, topology or versions changed since the preview");
            }
            if let Some(level) = report.fidelity.filter(|level| *level < rules.fidelity) {
                self.fire(Check::E5, format!("{level}, needed {}", rules.fidelity));
            }
        }
    }

    /// E6.
    fn errors(&mut self, rules: &Rules) {
        let limit = u64::from(rules.epsilon_max.ppm());
        for report in &self.inputs.reports {
            let path: Measure = report.epsilon_path.clone().unwrap_or_default();
            if path.ppm.is_none() {
                self.fire_short(Check::E6, path.is_short, "the path error is unknown", None);
            }
            let touches = report.touched != Touched::Nothing;
            if (touches && report.epsilon_interference_ppm.is_none()) || report.epsilon_observe_ppm.is_none() {
                self.fire(Check::E6, "the error of interference or observation is unknown");
            }
        }
        if let Some(epsilon) = self.facts.numbers.epsilon_ppm.filter(|epsilon| *epsilon > limit) {
            let rest = [self.facts.numbers.epsilon_interference_ppm, self.facts.numbers.epsilon_observe_ppm];
            let rest = rest.into_iter().flatten().fold(0, u64::saturating_add);
            // Above the limit through the path term alone, and that only for want of pairs: still uncalibrated.
            let shorts = self.inputs.reports.iter().filter_map(|report| report.epsilon_path.as_ref());
            let is_short = rest <= limit && shorts.into_iter().all(|path| path.is_short);
            self.fire_short(Check::E6, is_short, "error of the preview", Some((epsilon, limit)));
        }
    }

    /// E7 and M4.
    fn amplification(&mut self, rules: &Rules) {
        let limit = u64::from(rules.a_ceiling.ppm());
        for report in &self.inputs.reports {
            let Some(growth) = report.growth.as_ref().filter(|growth| growth.upper_ppm > limit) else { continue };
            let number = Some((growth.upper_ppm, limit));
            let fixes = self.usable(growth.fix.as_ref(), rules);
            self.over(Check::M4, Check::E7, "could make it worse", number, Unit::Share, fixes);
        }
    }

    /// E8.
    fn observers(&mut self, rules: &Rules) {
        let Some(observers) = self.inputs.observers.clone() else {
            self.fire(Check::E8, "no observer was asked");
            return;
        };
        if observers.impaired < rules.votes_min {
            self.fire(Check::E8, format!("{} say impaired, needed {}", observers.impaired, rules.votes_min));
        }
        let limit = u64::from(rules.disagreement_max.ppm());
        if observers.disagreement_ppm > limit {
            self.fire_number(Check::E8, "disagreement", Some((observers.disagreement_ppm, limit)), Unit::Share);
        }
        if observers.is_mixed_unowned {
            self.fire(Check::E8, "a group is in mixed mode without an owner");
        }
    }

    /// E9, M1, M2, M3.
    fn budgets(&mut self, rules: &Rules) {
        let inputs = self.inputs;
        for report in &inputs.reports {
            let bounds = [
                (Check::M1, "retries", &report.retries, rules.retry_amplification_max_ppm, Unit::Factor),
                (Check::M1, "backlog", &report.backlog, rules.backlog_max, Unit::Plain),
                (Check::M1, "time to drain", &report.drain, rules.drain_max.0, Unit::Time),
                (Check::M1, "oscillations", &report.oscillations, rules.oscillations_max, Unit::Plain),
                (Check::M3, "time to converge", &report.convergence, rules.converge_deadline.0, Unit::Time),
            ];
            for (check, what, forecast, bound, unit) in bounds {
                let Some(forecast) = forecast.as_ref().filter(|forecast| forecast.value > bound) else { continue };
                let fixes = self.usable(forecast.fix.as_ref(), rules);
                self.over(check, Check::E9, what, Some((forecast.value, bound)), unit, fixes);
            }
        }
        let Some(elapsed) = inputs.time.as_ref().map(|time| time.elapsed.0) else { return };
        let left = max_delay(rules, elapsed);
        if left == 0 {
            // No change of a parameter gives time back: this is E9 alone, and M2 does not ask for a fix.
            self.facts.is_budget_spent = true;
            self.fire_number(Check::E9, "time spent", Some((elapsed, rules.t_budget.0)), Unit::Time);
            return;
        }
        let claim = inputs.intent.as_ref().and_then(|intent| intent.claims.estimated_delay_ms);
        let estimated = self.facts.numbers.estimated_delay_ms.max(claim);
        if let Some(delay) = estimated.filter(|delay| *delay > left) {
            let forecasts = inputs.reports.iter().filter_map(|report| report.delay.as_ref());
            // A fix was searched for the forecast: it cannot speak for a worse claim.
            let mut slow =
                forecasts.filter(|forecast| forecast.value == delay).filter_map(|forecast| forecast.fix.as_ref());
            let fixes = self.usable(slow.next(), rules);
            self.over(Check::M2, Check::E9, "time of the commit", Some((delay, left)), Unit::Time, fixes);
        }
    }

    /// Fires the M-check when there is a fix, else the E-check.
    fn over(
        &mut self,
        fixable: Check,
        hopeless: Check,
        what: &str,
        number: Option<(u64, u64)>,
        unit: Unit,
        fix: Option<Fix>,
    ) {
        let Some(Fix { parameter, step, from, to }) = fix else {
            self.fire_number(hopeless, what, number, unit);
            return;
        };
        self.fire_number(fixable, what, number, unit);
        if self.is_waived(fixable) {
            return;
        }
        let check = fixable;
        let rival = self.facts.mutation.iter_mut().find(|other| other.parameter == parameter && other.step == step);
        match rival {
            // Two breaches ask for the same parameter: the larger change keeps both bounds.
            Some(other) if to.abs_diff(from) > other.to.abs_diff(from) => {
                *other = MutatedParam { parameter, step, from, to, check }
            }
            Some(_) => {}
            None => self.facts.mutation.push(MutatedParam { parameter, step, from, to, check }),
        }
    }

    /// A fix counts when the parameter may change, the value is within bounds and toward the safe end, and
    /// mutations are left.
    fn usable(&self, fix: Option<&Fix>, rules: &Rules) -> Option<Fix> {
        let fix = fix?;
        let range = rules.mutable.get(&fix.parameter)?;
        let is_safer = if range.safer_up { fix.to > fix.from } else { fix.to < fix.from };
        let is_within = range.min <= fix.to && fix.to <= range.max;
        let is_left = self.inputs.mutations.is_some_and(|made| made < MUTATIONS_MAX);
        (is_safer && is_within && is_left).then(|| fix.clone())
    }

    /// E10.
    fn autonomy(&mut self, rules: &Rules) {
        if authority(self.inputs) != Authority::Auto {
            return;
        }
        if !rules.is_owned {
            self.fire(Check::E10, "the class declares no owner or no failure assumptions");
        }
        let Some(history) = self.inputs.history.clone() else { return };
        for control in &history.missing_controls {
            self.fire(Check::E10, format!("the control {control} is missing"));
        }
        for control in &history.young_controls {
            self.fire_short(Check::E10, true, &format!("the control {control} has too short a history"), None);
        }
        let ceiling = u64::from(rules.a_ceiling.ppm());
        match history.amplification.ppm {
            Some(ppm) if ppm > ceiling => {
                let is_short = history.amplification.is_short;
                self.fire_short(Check::E10, is_short, "made it worse historically", Some((ppm, ceiling)));
            }
            Some(_) => {}
            None => {
                let is_short = history.amplification.is_short;
                self.fire_short(Check::E10, is_short, "how often it made things worse is not measured", None);
            }
        }
        if history.pairs < rules.pairs_min {
            self.fire_short(Check::E10, true, &format!("{} pairs, needed {}", history.pairs, rules.pairs_min), None);
        }
        if history.is_stale {
            self.fire_short(Check::E10, true, "the calibration is stale", None);
        }
        if history.overdue > 0 {
            self.fire(Check::E10, format!("{} exceptions await their review", history.overdue));
        }
    }

    /// E11.
    fn behavior(&mut self) {
        for report in &self.inputs.reports {
            let hazards = [Divergence::MembershipChurn, Divergence::Unexplained];
            for divergence in report.divergences.iter().filter(|divergence| hazards.contains(divergence)) {
                self.fire(Check::E11, divergence.word());
            }
            if report.is_pilot_shy {
                self.fire(Check::E11, "contention avoided the preview");
            }
        }
    }
}

/// Milliseconds left for the commit.
pub(crate) fn max_delay(rules: &Rules, elapsed: u64) -> u64 {
    let left = rules.t_budget.0.saturating_sub(elapsed).saturating_sub(rules.approval_allowance.0);
    rules.max_delay.0.min(left)
}
