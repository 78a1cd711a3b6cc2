//! V7 to V12: what the records say about each other.

use super::{Bundle, Digest, Remade, Signed, VerifyError, fail};
use crate::Code;
use crate::admission::{Authority, Inputs, Outcome, Rules, SEMANTICS, decide};
use crate::policy::{Fidelity, Policy};
use crate::record::{
    Approval, Arm, Body, Check, Decision, Denial, Estimate, Exception, Gap, Intent, Journal, Pilot, PolicyChange,
    Proposal, Record, RecordKind, Seal,
};
use std::collections::{BTreeMap, BTreeSet};

/// The incident's records in log order.
struct Chain<'a> {
    bundle: &'a Bundle,
    records: Vec<&'a Signed<Record>>,
    by_digest: BTreeMap<Digest, &'a Signed<Record>>,
}

/// Verifies the incident; gives its outcome, the count of its records, and the notes.
pub(super) fn verify(
    bundle: &Bundle,
    incident: &str,
    remade: Remade,
) -> Result<(String, u64, Vec<String>), VerifyError> {
    let records = sequence(bundle, incident)?;
    let by_digest = records.iter().map(|record| (record.digest(), *record)).collect();
    let chain = Chain { bundle, records, by_digest };
    for record in &chain.records {
        chain.links(record)?;
    }
    chain.approvals()?;
    chain.estimates()?;
    for decision in chain.all::<Decision>() {
        chain.decision(decision.0, decision.1, remade)?;
    }
    let outcome = chain.seal()?;
    Ok((outcome, chain.records.len() as u64, chain.notes()))
}

/// V7: one incident, gapless, each record naming the one before.
fn sequence<'a>(bundle: &'a Bundle, incident: &str) -> Result<Vec<&'a Signed<Record>>, VerifyError> {
    let mut records = Vec::new();
    let mut previous = None;
    for (index, record) in &bundle.records {
        let name = format!("entries/{index:010}");
        let common = record.common();
        match common.incident.as_deref() {
            None => continue,
            Some(of) if of != incident => return fail(Code::V7, &name, format!("a record of the incident {of}")),
            Some(_) => {}
        }
        let expected = records.len() as u64;
        if common.seq != expected {
            return fail(Code::V7, &name, format!("record {} where record {expected} belongs", common.seq));
        }
        if common.prev != previous {
            return fail(Code::V7, &name, "does not name the record before it");
        }
        previous = Some(record.digest());
        records.push(record);
    }
    if records.is_empty() { fail(Code::V7, "entries", "no record of the incident") } else { Ok(records) }
}

fn member(record: &Signed<Record>) -> String {
    format!("entries/{:010}", record.index())
}

impl Chain<'_> {
    fn all<'a, T: Body + 'a>(&'a self) -> impl Iterator<Item = (&'a Signed<Record>, &'a T)> {
        self.records.iter().filter_map(|record| Some((*record, record.get::<T>()?)))
    }

    /// The record that `from` names, of the wanted kind and earlier in the log.
    fn named<T: Body>(&self, from: &Signed<Record>, digest: &Digest) -> Result<&T, VerifyError> {
        let found = self.by_digest.get(digest).filter(|record| record.index() < from.index());
        match found.and_then(|record| record.get::<T>()) {
            Some(body) => Ok(body),
            None => fail(
                Code::V8,
                &member(from),
                format!("names the {} {}, which is not before it", T::KIND, digest.short()),
            ),
        }
    }

    /// V8: every reference leads to what it claims to be.
    fn links(&self, record: &Signed<Record>) -> Result<(), VerifyError> {
        match record.value() {
            Record::Intent(intent) => {
                if let Some(parent) = &intent.parent {
                    self.named::<Intent>(record, parent)?;
                }
                for vote in &intent.observers.votes {
                    self.named::<crate::record::Vote>(record, vote)?;
                }
            }
            Record::Pilot(pilot) => {
                self.named::<Intent>(record, &pilot.intent)?;
                if !pilot.is_consistent() {
                    return fail(Code::V8, &member(record), "a preview that contradicts itself");
                }
            }
            Record::Decision(decision) => self.decision_links(record, decision)?,
            Record::Approval(Approval { decision, plan, .. }) | Record::Denial(Denial { decision, plan, .. }) => {
                let decided = self.named::<Decision>(record, decision)?;
                if decided.plan != Some(*plan) {
                    return fail(Code::V8, &member(record), "names another plan than the decision");
                }
            }
            Record::Arm(arm) => self.arm_links(record, arm)?,
            Record::Journal(Journal { plan, task, task_version, epoch, .. }) => {
                let arm = self.arm_before(record, plan)?;
                if arm.task != *task || *task_version < arm.task_version || *epoch < arm.epoch {
                    return fail(
                        Code::V8,
                        &member(record),
                        "written under another task, version or epoch than was armed",
                    );
                }
            }
            Record::Receipt(receipt) => drop(self.arm_before(record, &receipt.plan)?),
            Record::Compensation(compensation) => drop(self.arm_before(record, &compensation.plan)?),
            Record::Convergence(convergence) => drop(self.arm_before(record, &convergence.plan)?),
            _ => {}
        }
        Ok(())
    }

    fn decision_links(&self, record: &Signed<Record>, decision: &Decision) -> Result<(), VerifyError> {
        if let Some(intent) = &decision.intent {
            self.named::<Intent>(record, intent)?;
        }
        if let Some(check) = &decision.check {
            let check = self.named::<Check>(record, check)?;
            if Some(check.plan) != decision.plan || (decision.outcome == Outcome::Commit && !check.passed) {
                return fail(Code::V8, &member(record), "rests on a check of another plan, or on a rejection");
            }
        }
        for pilot in &decision.pilots {
            let pilot = self.named::<Pilot>(record, pilot)?;
            if Some(pilot.plan) != decision.plan || Some(pilot.intent) != decision.intent {
                return fail(Code::V8, &member(record), "rests on a preview of another plan or intent");
            }
        }
        for estimate in &decision.estimates {
            self.named::<Estimate>(record, estimate)?;
        }
        let signed = |digest: &Digest| {
            let before = self.bundle.records.values().filter(|policy| policy.index() < record.index());
            before.filter_map(|policy| policy.get::<PolicyChange>()).any(|policy| policy.digest == *digest)
        };
        match decision.policy {
            Some(digest) if signed(&digest) => Ok(()),
            _ => fail(Code::V8, &member(record), "names a policy that no signed record before it put in force"),
        }
    }

    fn arm_links(&self, record: &Signed<Record>, arm: &Arm) -> Result<(), VerifyError> {
        let decision = self.named::<Decision>(record, &arm.decision)?;
        if decision.outcome != Outcome::Commit || decision.plan != Some(arm.plan) {
            return fail(Code::V8, &member(record), "arms a plan that was not decided to commit");
        }
        if record.common().at > decision.valid_until {
            return fail(Code::V8, &member(record), "arms a decision that was no longer valid");
        }
        for pilot in &decision.pilots {
            if self.named::<Pilot>(record, pilot)?.bound.digest() != arm.bound.digest() {
                return fail(Code::V8, &member(record), "configuration, topology or versions are not those previewed");
            }
        }
        let may_act = matches!(decision.authority, Authority::Auto | Authority::Approve);
        if may_act { Ok(()) } else { fail(Code::V8, &member(record), "arms a decision that only observes or suggests") }
    }

    /// The latest arm of a plan before a record.
    fn arm_before(&self, record: &Signed<Record>, plan: &Digest) -> Result<&Arm, VerifyError> {
        let arms = self.all::<Arm>().filter(|(arm, body)| arm.index() < record.index() && body.plan == *plan);
        match arms.last() {
            Some((_, arm)) => Ok(arm),
            None => fail(Code::V8, &member(record), "acts on a plan that was not armed"),
        }
    }

    /// V9: what was armed had the approvals its decision asked for: in time, distinct, not the proposer's.
    fn approvals(&self) -> Result<(), VerifyError> {
        for (record, arm) in self.all::<Arm>() {
            let decision = self.named::<Decision>(record, &arm.decision)?;
            let at = record.common().at;
            let earlier = |of: &Signed<Record>| of.index() < record.index();
            if self.all::<Denial>().any(|(denial, body)| body.decision == arm.decision && earlier(denial)) {
                return fail(Code::V9, &member(record), "arms a decision that a person denied");
            }
            if self.all::<crate::record::Veto>().any(|(veto, body)| body.plan == arm.plan && earlier(veto)) {
                return fail(Code::V9, &member(record), "arms a plan that was vetoed");
            }
            let proposers: BTreeSet<&str> = self
                .all::<Proposal>()
                .filter(|(_, body)| body.plan == arm.plan)
                .map(|(of, _)| of.common().principal.as_str())
                .collect();
            let given = self.all::<Approval>().filter(|(approval, body)| {
                body.decision == arm.decision
                    && body.plan == arm.plan
                    && earlier(approval)
                    && at <= body.expires_at
                    && body.expires_at <= decision.valid_until
            });
            let people: BTreeSet<&str> = given.map(|(approval, _)| approval.common().principal.as_str()).collect();
            let distinct = people.difference(&proposers).count() as u64;
            if distinct < decision.approvals_needed {
                let why = format!("{distinct} valid approvals, needed {}", decision.approvals_needed);
                return fail(Code::V9, &member(record), why);
            }
        }
        Ok(())
    }

    /// V10: every estimate follows from its counts.
    fn estimates(&self) -> Result<(), VerifyError> {
        let wrong = self.all::<Estimate>().find(|(_, estimate)| estimate.recomputed() != Some(estimate.value));
        match wrong {
            Some((record, estimate)) => fail(Code::V10, &member(record), estimate.name.clone()),
            None => Ok(()),
        }
    }

    /// V11: the decision, made again from its inputs, is the same bytes; and the inputs are the records'.
    fn decision(&self, record: &Signed<Record>, decision: &Decision, remade: Remade) -> Result<(), VerifyError> {
        let name = format!("blobs/{}", decision.inputs);
        if remade == Remade::Same && decision.semantics != SEMANTICS {
            return fail(Code::V11, &member(record), "made by rules that this program does not have");
        }
        let Some(blob) = self.bundle.blob(&decision.inputs) else { return fail(Code::V11, &name, "missing") };
        let inputs = match Inputs::from_bytes(blob) {
            Ok(inputs) => inputs,
            Err(error) => return fail(Code::V11, &name, error.to_string()),
        };
        if remade == Remade::Same && decide(&inputs) != *decision {
            return fail(Code::V11, &member(record), "another decision follows from its inputs");
        }
        self.inputs_are_the_records(record, &inputs)
    }

    /// The facts in the inputs are those of the records they name.
    fn inputs_are_the_records(&self, record: &Signed<Record>, inputs: &Inputs) -> Result<(), VerifyError> {
        let wrong = |what: &str| fail(Code::V11, &member(record), format!("its inputs misquote {what}"));
        if !self.follows_policy(inputs) {
            return wrong("the policy");
        }
        if let Some(facts) = &inputs.intent {
            let intent = self.named::<Intent>(record, &facts.digest)?;
            let quoted = (facts.revision, facts.expires_at, facts.fault_ppm, &facts.claims);
            if quoted != (intent.revision, intent.expires_at, u64::from(intent.scope.fault.ppm()), &intent.claims) {
                return wrong("the intent");
            }
        }
        if let Some(facts) = &inputs.check {
            let check = self.named::<Check>(record, &facts.digest)?;
            if (facts.plan, facts.has_passed) != (check.plan, check.passed) {
                return wrong("the kernel's check");
            }
        }
        for facts in &inputs.reports {
            let pilot = self.named::<Pilot>(record, &facts.digest)?;
            let quoted =
                (facts.plan, facts.intent, facts.result, facts.taken_at, facts.runs, facts.bound, facts.touched);
            let bound = pilot.bound.digest();
            let found = (pilot.plan, pilot.intent, pilot.result, pilot.taken_at, pilot.runs, bound, pilot.touched);
            let escapes = pilot.escapes.as_ref().map_or(0, |escapes| escapes.len() as u64);
            let left = pilot.residue.unwrap_or(0).saturating_add(escapes);
            let same = facts.invariants == pilot.invariants && facts.divergences == pilot.divergences;
            let level = pilot.levels.values().min().copied().unwrap_or(Fidelity::F0);
            let is_deeper = facts.fidelity.is_some_and(|claimed| claimed > level);
            if quoted != found || !same || is_deeper || facts.escapes.is_some_and(|count| count < left) {
                return wrong("a preview");
            }
        }
        Ok(())
    }

    /// The rules are those of the policy they name; only the level may be lower, and requirements more.
    fn follows_policy(&self, inputs: &Inputs) -> bool {
        let Some(rules) = &inputs.rules else { return false };
        let policy = self.bundle.members.get(&format!("policy/{}", rules.policy));
        let policy = policy.and_then(|bytes| Policy::from_bytes(bytes).ok());
        let Some(effective) = policy.and_then(|policy| policy.effective(&rules.tier, &rules.class)) else {
            return false;
        };
        let said = Rules::of(&effective);
        let quoted = Rules {
            level: rules.level,
            approval_allowance: rules.approval_allowance,
            model_runs: rules.model_runs.max(said.model_runs),
            ..said.clone()
        };
        let named = |id: &String| inputs.invariants.iter().any(|required| required.id == *id);
        quoted == *rules && rules.level <= said.level && effective.class.invariants.iter().all(named)
    }

    /// V12: the seal is the last record and covers all others.
    fn seal(&self) -> Result<String, VerifyError> {
        let Some((last, covered)) = self.records.split_last() else { return fail(Code::V12, "entries", "no record") };
        let Some(seal) = last.get::<Seal>() else {
            return fail(Code::V12, &member(last), "the last record is not a seal");
        };
        let digests: Vec<Digest> = covered.iter().map(|record| record.digest()).collect();
        let range = (covered.first().map(|record| record.index()), covered.last().map(|record| record.index()));
        if seal.statements != digests || range != (Some(seal.first), Some(seal.last)) {
            return fail(Code::V12, &member(last), "does not cover the incident's records");
        }
        if covered.iter().any(|record| record.value().kind() == RecordKind::Seal) {
            return fail(Code::V12, &member(last), "the incident was sealed twice");
        }
        self.sealed_checkpoint(last, seal)?;
        Ok(seal.outcome.clone())
    }

    /// The checkpoint that the seal names covers the records and is a beginning of the log.
    fn sealed_checkpoint(&self, last: &Signed<Record>, seal: &Seal) -> Result<(), VerifyError> {
        let newest = &self.bundle.checkpoint;
        if seal.checkpoint_size <= seal.last {
            return fail(Code::V12, &member(last), "names a checkpoint that does not cover the records");
        }
        if (seal.checkpoint_size, seal.checkpoint_root) == (newest.size, newest.root) {
            return Ok(());
        }
        let name = format!("consistency/{:010}", seal.checkpoint_size);
        let proof = self.bundle.members.get(&name).and_then(|text| std::str::from_utf8(text).ok());
        let root = proof.and_then(super::super::export::read_consistency).map(|(root, _)| root);
        if root == Some(seal.checkpoint_root) {
            return Ok(());
        }
        fail(Code::V4, &name, "the checkpoint that the seal names is not shown to be a beginning of the log")
    }

    /// What a reader must know even when all is well.
    fn notes(&self) -> Vec<String> {
        let mut notes = self.bundle.notes.clone();
        for (record, exception) in self.all::<Exception>() {
            notes.push(format!("record {}: exception {}: {}", record.index(), exception.kind, exception.reason));
        }
        for (record, gap) in self.all::<Gap>() {
            notes.push(format!("record {}: gap from {} to {}: {}", record.index(), gap.from, gap.to, gap.cause));
        }
        for (record, decision) in self.all::<Decision>().filter(|(_, decision)| !decision.uncalibrated.is_empty()) {
            let checks: Vec<&str> = decision.uncalibrated.iter().map(|check| check.word()).collect();
            notes.push(format!("record {}: the decision is uncalibrated ({})", record.index(), checks.join(", ")));
        }
        notes
    }
}
