mod replayed;

use super::export::manifest;
use super::*;
use crate::Code;
use crate::admission::{self, *};
use crate::estimate;
use crate::invariants::{Evaluation, Holding};
use crate::keys::{KeySet, origin};
use crate::log::{Checkpoint, Tree, leaf_hash};
use crate::policy::{Fidelity, Policy, PolicyFile};
use crate::record::{
    Answer, Approval, Arm, Bound, Check, Claims, Convergence, ConvergenceOutcome, Decision, Detection, GuardMode,
    Intent, IntentReason, Journal, Link, Observers, Opaque, Pilot, PilotResult, PolicyChange, Proposal, Receipt,
    Record, Scope, Seal, Vote,
};
use crate::record::{ENTRY_BYTES_MAX, Touched};
use base::{Digest, Millis, Ratio, Role, Timestamp};
use recovery::call::CallOutcome;
use recovery::isa::ActionKind;
use std::collections::BTreeMap;

const INCIDENT: &str = "abcdefgh";

fn keys() -> KeySet {
    KeySet::from_seeds(&std::array::from_fn(|at| [u8::try_from(at).unwrap() + 1; 32]))
}

fn policy(level: &str) -> Policy {
    let text = crate::policy::DEFAULT_TEXT
        .replace("level = \"observe\"", &format!("level = \"{level}\"\nuncalibrated = \"allow\""));
    toml::from_str::<PolicyFile>(&text).unwrap().load().unwrap()
}

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// A change of one record before it is signed: what a thief of that record's key could write.
type Tamper<'a> = &'a dyn Fn(&mut Record);

/// One incident, written and signed step by step.
struct Writer<'a> {
    keys: KeySet,
    entries: Vec<Vec<u8>>,
    chain: Vec<Digest>,
    tamper: Tamper<'a>,
}

impl Writer<'_> {
    fn write(&mut self, role: Role, record: impl Into<Record>) -> Digest {
        let mut record = record.into();
        (self.tamper)(&mut record);
        let is_global = matches!(record, Record::Keyring(_) | Record::PolicyChange(_));
        let at = Timestamp(1_000 + i64::try_from(self.entries.len()).unwrap());
        let link = Link {
            incident: (!is_global).then(|| INCIDENT.to_owned()),
            seq: if is_global { 0 } else { self.chain.len() as u64 },
            prev: if is_global { None } else { self.chain.last().copied() },
            at,
        };
        let envelope = self.keys.signer(role).sign(&link, record).unwrap();
        self.entries.push(envelope.to_json().into_bytes());
        let digest = Digest::of(&envelope.payload);
        if !is_global {
            self.chain.push(digest);
        }
        digest
    }
}

struct Made {
    bytes: Vec<u8>,
    entries: usize,
}

fn bound() -> Bound {
    Bound {
        config: vec![],
        topology: digest("topology"),
        provenance: vec![],
        topology_epoch: 4,
        versions: BTreeMap::new(),
    }
}

fn intent() -> Intent {
    Intent {
        id: format!("int/{INCIDENT}/1"),
        revision: 1,
        parent: None,
        reason: IntentReason::Detect,
        class: "traffic-shed".into(),
        tier: "bronze".into(),
        scope: Scope {
            services: vec!["payments".into()],
            shards: vec![],
            tenants: vec![],
            zones: vec!["z1".into()],
            fault: Ratio::clamped(180_000),
            action: Ratio::clamped(180_000),
        },
        parameters: BTreeMap::new(),
        mutable: vec![],
        claims: Claims::default(),
        observers: Observers { votes: vec![], k: 2, n: 3, disagreement: Ratio::clamped(333_334) },
        bound: bound(),
        evidence: vec![],
        t_budget: Millis(600_000),
        started_at: Timestamp(1_000),
        expires_at: Timestamp(601_000),
    }
}

fn pilot(intent: Digest) -> Pilot {
    Pilot {
        result: PilotResult::Completed,
        causes: vec![],
        intent,
        plan: digest("plan"),
        levels: [("s1".to_owned(), Fidelity::F0)].into(),
        tree: digest("tree"),
        path: digest("path"),
        report: digest("report"),
        suppressed: BTreeMap::new(),
        refusals: vec![],
        escapes: None,
        divergences: vec![],
        invariants: vec![],
        signals_seen: vec![],
        signals_lacking: vec![],
        quiet: None,
        residue: None,
        interference: None,
        runs: 500,
        seed: 1,
        nonce: 1,
        not_modeled: vec!["caches".into()],
        bound: bound(),
        taken_at: Timestamp(1_007),
        took: Millis(500),
        touched: Touched::Nothing,
    }
}

fn report_facts(report: Digest, intent: Digest) -> ReportFacts {
    let forecast = |value| Some(Forecast { value, fix: None });
    ReportFacts {
        digest: report,
        is_sound: true,
        plan: digest("plan"),
        intent,
        result: PilotResult::Completed,
        taken_at: Timestamp(1_007),
        bound: bound().digest(),
        fidelity: Some(Fidelity::F0),
        runs: 500,
        escapes: None,
        divergences: vec![],
        is_pilot_shy: false,
        invariants: vec![],
        contention_ppm: Some(0),
        growth: estimate::growth(4, 490),
        epsilon_path: Some(Measure { ppm: None, is_short: true, cases: 0 }),
        epsilon_interference_ppm: None,
        epsilon_observe_ppm: Some(0),
        retries: forecast(1_600_000),
        backlog: forecast(0),
        drain: forecast(0),
        oscillations: forecast(0),
        delay: forecast(38_000),
        convergence: forecast(9_000),
        touched: Touched::Nothing,
    }
}

fn inputs(policy: &Policy, intent: Digest, check: Digest, report: Digest, estimate: Digest) -> Inputs {
    Inputs {
        semantics: SEMANTICS,
        now: Timestamp(1_010),
        rules: Some(Rules::of(&policy.effective("bronze", "traffic-shed").unwrap())),
        hold: Some(HoldFacts { version: 1, scope: None }),
        intent: Some(IntentFacts {
            digest: intent,
            is_sound: true,
            is_chained: true,
            revision: 1,
            expires_at: Timestamp(601_000),
            fault_ppm: 180_000,
            claims: Claims::default(),
        }),
        plan: Some(PlanFacts {
            digest: digest("plan"),
            actions: vec![ActionKind::RateLimit],
            action_ppm: 180_000,
            crossings: vec![],
            is_above_auto: false,
            is_vetoed: false,
        }),
        check: Some(CheckFacts { digest: check, is_sound: true, plan: digest("plan"), has_passed: true }),
        reports: vec![report_facts(report, intent)],
        bound_now: Some(bound().digest()),
        invariants: vec![LiveInvariant {
            id: "capacity-floor".into(),
            live: Some(Evaluation { outcome: Holding::Holds, ..Evaluation::not_evaluable("capacity-floor", "") }),
        }],
        quorum_safe: Some(true),
        observers: Some(ObserverFacts { impaired: 2, n: 3, disagreement_ppm: 333_334, is_mixed_unowned: false }),
        time: Some(TimeFacts { detect: Millis(2), preview: Millis(5), elapsed: Millis(10) }),
        history: Some(HistoryFacts {
            pilot_risk: estimate::pilot_risk(0, 0, 30),
            amplification: estimate::historic_amplification(0, 0, Ratio::clamped(50_000)),
            pairs: 0,
            is_stale: false,
            missing_controls: vec![],
            young_controls: vec![],
            overdue: 0,
        }),
        mutations: Some(0),
        exception: None,
        estimates: vec![estimate],
    }
}

/// The records up to the decision; gives the decision's statement and the inputs' blob.
fn decided(writer: &mut Writer<'_>, policy: &Policy, keyring: &base::Keyring) -> (Digest, Vec<u8>) {
    writer.write(Role::Root, keyring.clone());
    let change = PolicyChange { name: "p".into(), digest: policy.digest(), text: digest("text"), previous: None };
    writer.write(Role::Root, change);
    let vote = Vote {
        observer: "o1".into(),
        domain: "z1".into(),
        scope: vec!["payments".into()],
        answer: Answer::Impaired,
        sampled_at: Timestamp(1_000),
        signals: vec![],
        note: String::new(),
    };
    let vote = writer.write(Role::Detector, vote);
    let detection = Detection {
        fingerprint: digest("alert"),
        window_start: Timestamp(0),
        n: 0,
        votes: vec![vote],
        domains: vec!["z1".into()],
        scope: vec!["payments".into()],
        fault: Ratio::clamped(180_000),
        alerts: vec![],
        snapshot: digest("snapshot"),
        since: Timestamp(900),
    };
    writer.write(Role::Detector, detection);
    let mut asked = intent();
    asked.observers.votes = vec![vote];
    let asked = writer.write(Role::Detector, asked);
    let proposal = Proposal {
        plan: digest("plan"),
        revision: 1,
        parent: None,
        cause: "detect".into(),
        opinion: None,
        transcript: None,
        text: "ratelimit gateway->checkout 45% 120s".into(),
        took: Millis(3),
    };
    writer.write(Role::Agent, proposal);
    let check = Check {
        plan: digest("plan"),
        world: digest("world"),
        topology: digest("topology"),
        group: vec!["payments".into()],
        passed: true,
        rejections: vec![],
        kernel: "1".into(),
    };
    let check = writer.write(Role::Evaluator, check);
    let report = writer.write(Role::Runner, pilot(asked));
    let growth = estimate::Estimate::of("amplification", estimate::Rule::Upper, 4, 490).unwrap();
    let growth = writer.write(Role::Evaluator, growth);
    let inputs = inputs(policy, asked, check, report, growth);
    let decision = admission::decide(&inputs);
    (writer.write(Role::Evaluator, decision), inputs.to_bytes())
}

fn acted(writer: &mut Writer<'_>, decision: Digest, approvals: usize) {
    let plan = digest("plan");
    for _ in 0..approvals {
        let approval = Approval {
            decision,
            plan,
            method: "key".into(),
            evidence: None,
            reason: "looks right".into(),
            expires_at: Timestamp(30_000),
        };
        writer.write(Role::Human, approval);
    }
    let task = format!("inc/{INCIDENT}:commit.1");
    let (hold_version, epoch, task_version) = (1, 9, 1);
    let arm = Arm {
        decision,
        plan,
        bound: bound(),
        hold_version,
        lease: "payments".into(),
        epoch,
        task: task.clone(),
        task_version,
        guard: GuardMode::Coarse,
    };
    writer.write(Role::Executor, arm);
    let journal = Journal {
        plan,
        line: 0,
        event: "Intend".into(),
        step: Some("s1".into()),
        entry: Opaque(vec![1, 2]),
        task,
        task_version,
        epoch,
    };
    writer.write(Role::Executor, journal);
    let receipt = Receipt {
        plan,
        step: "s1".into(),
        pre_image: digest("before"),
        key: "k/s1".into(),
        task_version,
        actuator: "process".into(),
        outcome: CallOutcome::Applied,
        audit_id: None,
        guard: "coarse".into(),
    };
    writer.write(Role::Executor, receipt);
    let convergence = Convergence {
        plan,
        checks: vec![],
        scope_after: vec![],
        harm: 0,
        outcome: ConvergenceOutcome::Converged,
        took: Millis(9),
    };
    writer.write(Role::Executor, convergence);
}

/// Writes a whole incident and its bundle.
fn incident(level: &str, approvals: usize, tamper: Tamper<'_>) -> Made {
    let (keys, policy) = (keys(), policy(level));
    let keyring = keys.bootstrap_keyring();
    let mut writer = Writer { keys, entries: vec![], chain: vec![], tamper };
    let (decision, inputs) = decided(&mut writer, &policy, &keyring);
    acted(&mut writer, decision, approvals);
    let tree = Tree::of_leaves(writer.entries.iter().map(|entry| leaf_hash(entry)));
    let (sealed_size, sealed_root) = (tree.size(), tree.root());
    let seal = Seal {
        first: 2,
        last: tree.size() - 1,
        statements: writer.chain.clone(),
        checkpoint_size: sealed_size,
        checkpoint_root: sealed_root,
        grew: false,
        forecast_ms: 38_000,
        measured_ms: 30_000,
        outcome: "committed".into(),
    };
    writer.write(Role::Executor, seal);
    bundle(&writer, &inputs, &policy, sealed_size)
}

fn bundle(writer: &Writer<'_>, inputs: &[u8], policy: &Policy, sealed_size: u64) -> Made {
    let log = writer.keys.key(Role::Log);
    let mut tree = Tree::of_leaves(writer.entries.iter().map(|entry| leaf_hash(entry)));
    // Somebody else's entry after ours: the newest checkpoint is larger than the incident.
    tree.push(leaf_hash(b"other"));
    let checkpoint = Checkpoint { origin: origin(&log.public()), size: tree.size(), root: tree.root() }.sign(log);
    let entries: Vec<(u64, Vec<u8>)> = (0..).zip(writer.entries.iter().cloned()).collect();
    let keyring = entries[0].1.clone();
    let input = Input {
        incident: INCIDENT,
        entries: &entries,
        tree: &tree,
        checkpoint: &checkpoint,
        earlier: &[sealed_size],
        blobs: &[inputs.to_vec()],
        keyrings: &[keyring],
        policies: &[policy.to_bytes()],
    };
    Made { bytes: export(&input).unwrap(), entries: entries.len() }
}

fn good() -> Made {
    incident("auto", 0, &|_| ())
}

fn failed(bytes: &[u8]) -> (Code, String) {
    let error = verify(bytes, None).expect_err("it must not verify");
    (error.code, error.member)
}

/// Rebuilds container and manifest around changed members: what someone without any key can do.
fn rebuilt(bytes: &[u8], change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Vec<u8> {
    let mut members = tar::read(bytes).unwrap();
    change(&mut members);
    let checkpoint = Checkpoint::peek(std::str::from_utf8(&members["checkpoint"]).unwrap()).unwrap();
    let text = manifest(INCIDENT, &checkpoint.origin, &members);
    members.insert("bundle.json".into(), text);
    tar::write(&members)
}

fn entry(index: u64) -> String {
    format!("entries/{index:010}")
}

#[test]
fn a_sound_bundle_verifies_and_says_what_a_reader_must_know() {
    let made = good();
    let verified = verify(&made.bytes, None).unwrap();
    assert_eq!((verified.incident.as_str(), verified.outcome.as_str()), (INCIDENT, "committed"));
    assert_eq!((verified.entries, verified.records), (made.entries as u64, made.entries as u64 - 2));
    assert_eq!(verified.notes, ["record 9: the decision is uncalibrated (E1, E6, E10)"]);
    assert!(verified.first_line("k").starts_with("VERIFIED against the keys inside the file"));
    assert_eq!(good().bytes, made.bytes);
}

#[test]
fn pinned_keys_must_be_the_ones_that_signed() {
    let (made, keys) = (good(), keys());
    let origin = origin(&keys.key(Role::Log).public());
    let trust = Trust::parse(&format!("# pinned\n{}", keys.trust_text(&origin))).unwrap();
    let verified = verify(&made.bytes, Some(&trust)).unwrap();
    assert_eq!(verified.first_line("keys.txt"), "VERIFIED against keys.txt");
    let others = KeySet::from_seeds(&std::array::from_fn(|at| [u8::try_from(at).unwrap() + 50; 32]));
    let foreign = Trust::parse(&others.trust_text(&origin)).unwrap();
    assert_eq!(verify(&made.bytes, Some(&foreign)).map_err(|error| error.code), Err(Code::V2));
    let half = keys.trust_text(&origin).lines().next().unwrap().to_owned()
        + "\n"
        + others.trust_text(&origin).lines().nth(1).unwrap();
    assert_eq!(verify(&made.bytes, Trust::parse(&half).as_ref().ok()).map_err(|error| error.code), Err(Code::V5));
    assert_eq!(Trust::parse("# nothing\n"), Err(TrustError::Empty));
    assert_eq!(Trust::parse(&format!("{half}\nx+y+z")), Err(TrustError::Line(half.lines().count() + 1)));
}

#[test]
fn every_flipped_byte_is_found() {
    let made = good();
    let flip = |range: std::ops::Range<usize>| {
        let mut bytes = made.bytes.clone();
        for at in range {
            let mask = 1_u8 << (at % 8);
            bytes[at] ^= mask;
            assert!(verify(&bytes, None).is_err(), "byte {at}");
            bytes[at] ^= mask;
        }
    };
    let half = made.bytes.len() / 2;
    std::thread::scope(|scope| {
        scope.spawn(|| flip(0..half));
        flip(half..made.bytes.len());
    });
}

#[test]
fn every_truncation_and_any_appended_byte_is_found() {
    let made = good();
    for end in (0..made.bytes.len()).step_by(97).chain(made.bytes.len() - 1_100..made.bytes.len()) {
        assert_eq!(failed(&made.bytes[..end]).0, Code::V0, "{end}");
    }
    for extra in [&[0_u8][..], &[1], &[0; 512]] {
        assert_eq!(failed(&[&made.bytes, extra].concat()).0, Code::V0);
    }
}

/// Without any key: each kind of change, and the step that finds it.
#[test]
fn changes_behind_a_rebuilt_manifest_are_found_by_their_own_step() {
    type Change = fn(&mut BTreeMap<String, Vec<u8>>);
    let swap = |members: &mut BTreeMap<String, Vec<u8>>, a: &str, b: &str| {
        let (x, y) = (members.remove(a).unwrap(), members.remove(b).unwrap());
        members.extend([(a.to_owned(), y), (b.to_owned(), x)]);
    };
    let changes: [(Code, Change); 12] = [
        (Code::V1, |members| drop(members.insert("README.txt".into(), b"hello".to_vec()))),
        (Code::V1, |members| drop(members.insert("extra.txt".into(), b"hello".to_vec()))),
        (Code::V1, |members| {
            let name = members.keys().find(|name| name.starts_with("blobs/")).unwrap().clone();
            members.insert(name, b"other".to_vec());
        }),
        (Code::V2, |members| {
            let note = String::from_utf8(members["checkpoint"].clone()).unwrap();
            let size: u64 = note.lines().nth(1).unwrap().parse().unwrap();
            members.insert(
                "checkpoint".into(),
                note.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size - 1), 1).into_bytes(),
            );
        }),
        (Code::V3, |members| drop(members.remove("proofs/0000000003.tlog-proof"))),
        (Code::V3, |members| drop(members.remove("entries/0000000003"))),
        (Code::V3, |members| {
            let entry = members["entries/0000000003"].clone();
            members.insert("entries/0000000004".into(), entry);
        }),
        (Code::V4, |members| {
            let name = members.keys().find(|name| name.starts_with("consistency/")).unwrap().clone();
            let text = String::from_utf8(members[&name].clone()).unwrap();
            let first = text.lines().next().unwrap().to_owned();
            members.insert(name, text.replacen(&first, text.lines().nth(1).unwrap(), 1).into_bytes());
        }),
        (Code::V4, |members| {
            let name = members.keys().find(|name| name.starts_with("consistency/")).unwrap().clone();
            members.remove(&name);
        }),
        (Code::V5, |members| members.retain(|name, _| !name.starts_with("keyring/"))),
        (Code::V7, |members| {
            members.remove("entries/0000000003");
            members.remove("proofs/0000000003.tlog-proof");
        }),
        (Code::V11, |members| members.retain(|name, _| !name.starts_with("blobs/"))),
    ];
    let made = good();
    for (at, (code, change)) in changes.into_iter().enumerate() {
        assert_eq!(failed(&rebuilt(&made.bytes, change)).0, code, "change {at}");
    }
    let swapped = rebuilt(&made.bytes, |members| swap(members, &entry(5), &entry(6)));
    assert_eq!(failed(&swapped), (Code::V3, entry(5)));
    let unsealed = rebuilt(&made.bytes, |members| {
        let last = made.entries as u64 - 1;
        members.remove(&entry(last));
        members.remove(&format!("proofs/{last:010}.tlog-proof"));
    });
    assert_eq!(failed(&unsealed).0, Code::V12);
    let policyless = rebuilt(&made.bytes, |members| members.retain(|name, _| !name.starts_with("policy/")));
    assert_eq!(failed(&policyless).0, Code::V11);
}

/// With one stolen key: what its holder writes is contradicted by the records of the others.
#[test]
fn a_stolen_key_is_contradicted_by_the_other_records() {
    let found = |level, approvals, tamper: Tamper<'_>| failed(&incident(level, approvals, tamper).bytes).0;
    let decision = |change: fn(&mut Decision)| {
        move |record: &mut Record| {
            if let Record::Decision(decision) = record {
                change(decision)
            }
        }
    };
    let arm = |change: fn(&mut Arm)| {
        move |record: &mut Record| {
            if let Record::Arm(arm) = record {
                change(arm)
            }
        }
    };
    let journal = |change: fn(&mut Journal)| {
        move |record: &mut Record| {
            if let Record::Journal(line) = record {
                change(line)
            }
        }
    };
    let seal = |change: fn(&mut Seal)| {
        move |record: &mut Record| {
            if let Record::Seal(seal) = record {
                change(seal)
            }
        }
    };
    assert_eq!(found("auto", 0, &decision(|decision| decision.numbers.retries_ppm = Some(1))), Code::V11);
    assert_eq!(found("auto", 0, &decision(|decision| decision.inputs = digest("other"))), Code::V11);
    assert_eq!(found("auto", 0, &decision(|decision| decision.semantics = 2)), Code::V11);
    assert_eq!(found("auto", 0, &decision(|decision| decision.pilots.push(digest("none")))), Code::V8);
    assert_eq!(found("auto", 0, &decision(|decision| decision.policy = Some(digest("none")))), Code::V8);
    assert_eq!(found("auto", 0, &decision(|decision| decision.plan = Some(digest("swapped")))), Code::V8);
    assert_eq!(found("auto", 0, &decision(|decision| decision.outcome = Outcome::Escalate)), Code::V8);
    assert_eq!(found("auto", 0, &arm(|arm| arm.plan = digest("other"))), Code::V8);
    assert_eq!(found("auto", 0, &arm(|arm| arm.decision = digest("other"))), Code::V8);
    assert_eq!(found("auto", 0, &arm(|arm| arm.bound.topology = digest("other"))), Code::V8);
    assert_eq!(found("auto", 0, &arm(|arm| arm.task_version = 2)), Code::V8);
    assert_eq!(found("auto", 0, &journal(|line| line.plan = digest("other"))), Code::V8);
    assert_eq!(found("auto", 0, &journal(|line| line.task = "other".into())), Code::V8);
    assert_eq!(found("auto", 0, &journal(|line| line.epoch = 8)), Code::V8);
    assert_eq!(found("auto", 0, &seal(|seal| seal.statements.truncate(3))), Code::V12);
    assert_eq!(found("auto", 0, &seal(|seal| seal.first = 3)), Code::V12);
    assert_eq!(found("auto", 0, &seal(|seal| seal.checkpoint_size = 4)), Code::V12);
    assert_eq!(found("auto", 0, &seal(|seal| seal.checkpoint_root = digest("fork"))), Code::V4);
    assert_eq!(found("observe", 0, &|_| ()), Code::V8);
    let estimate = |record: &mut Record| {
        if let Record::Estimate(estimate) = record {
            estimate.k = 0
        }
    };
    assert_eq!(found("auto", 0, &estimate), Code::V10);
    let rejected = |record: &mut Record| {
        if let Record::Check(check) = record {
            check.passed = false
        }
    };
    assert_eq!(found("auto", 0, &rejected), Code::V8);
}

#[test]
fn a_preview_is_not_misquoted_and_does_not_contradict_itself() {
    let found = |tamper: Tamper<'_>| failed(&incident("auto", 0, tamper).bytes).0;
    let pilot = |change: fn(&mut Pilot)| {
        move |record: &mut Record| {
            if let Record::Pilot(pilot) = record {
                change(pilot)
            }
        }
    };
    assert_eq!(found(&pilot(|pilot| pilot.runs = 499)), Code::V11);
    let cloned = |pilot: &mut Pilot| {
        (pilot.touched, pilot.quiet, pilot.residue, pilot.escapes) =
            (Touched::Clone, Some(true), Some(0), Some(vec![]));
    };
    assert_eq!(found(&pilot(cloned)), Code::V11);
    // A model has nothing to measure, a completed run on a clone has to, and nobody completes without signals.
    assert_eq!(found(&pilot(|pilot| pilot.residue = Some(0))), Code::V8);
    assert_eq!(found(&pilot(|pilot| pilot.quiet = Some(true))), Code::V8);
    assert_eq!(found(&pilot(|pilot| pilot.interference = Some(Ratio::ZERO))), Code::V8);
    assert_eq!(found(&pilot(|pilot| pilot.levels = [("s1".into(), Fidelity::F2)].into())), Code::V8);
    assert_eq!(found(&pilot(|pilot| pilot.touched = Touched::Live)), Code::V8);
    assert_eq!(found(&pilot(|pilot| pilot.signals_lacking.push("spans".into()))), Code::V8);
}

#[test]
fn approvals_are_in_time_and_sufficient() {
    assert!(verify(&incident("approve", 1, &|_| ()).bytes, None).is_ok());
    let found = |approvals, tamper: Tamper<'_>| failed(&incident("approve", approvals, tamper).bytes).0;
    assert_eq!(found(0, &|_| ()), Code::V9);
    let expired = |record: &mut Record| {
        if let Record::Approval(approval) = record {
            approval.expires_at = Timestamp(1_000)
        }
    };
    assert_eq!(found(1, &expired), Code::V9);
    let endless = |record: &mut Record| {
        if let Record::Approval(approval) = record {
            approval.expires_at = Timestamp(i64::MAX)
        }
    };
    assert_eq!(found(1, &endless), Code::V9);
    let replayed = |record: &mut Record| {
        if let Record::Approval(approval) = record {
            approval.decision = digest("earlier")
        }
    };
    assert_eq!(found(1, &replayed), Code::V8);
}

#[test]
fn a_bundle_is_not_written_from_parts_that_do_not_belong_together() {
    let key = keys().key(Role::Log).clone();
    let tree = Tree::of_leaves([leaf_hash(b"a"), leaf_hash(b"b")]);
    let note = |size, root| Checkpoint { origin: "o".into(), size, root }.sign(&key);
    let entries = [(1, b"b".to_vec())];
    let checkpoint = note(2, tree.root());
    let input = Input {
        incident: INCIDENT,
        entries: &entries,
        tree: &tree,
        checkpoint: &checkpoint,
        earlier: &[],
        blobs: &[],
        keyrings: &[],
        policies: &[],
    };
    assert!(export(&input).is_ok());
    assert_eq!(export(&Input { incident: "\"", ..input.clone() }), Err(ExportError::Name("\"".into())));
    assert_eq!(export(&Input { checkpoint: "?", ..input.clone() }), Err(ExportError::Checkpoint));
    let forked = note(2, digest("fork"));
    assert_eq!(export(&Input { checkpoint: &forked, ..input.clone() }), Err(ExportError::Tree));
    assert_eq!(export(&Input { entries: &[(0, b"b".to_vec())], ..input.clone() }), Err(ExportError::Tree));
    assert_eq!(export(&Input { entries: &[(2, b"c".to_vec())], ..input }), Err(ExportError::Uncovered(2)));
}

#[test]
fn names_and_bundles_have_a_greatest_length() {
    let name = |bytes: usize| format!("blobs/{}", "a".repeat(bytes - 6));
    assert!(tar::is_name(&name(tar::NAME_MAX)) && !tar::is_name(&name(tar::NAME_MAX + 1)));
    // Zeros that nobody touches: neither length costs memory.
    let refused = |bytes: usize| verify(&vec![0; bytes], None).map_err(|error| (error.code, error.why)).unwrap_err();
    assert_eq!(refused(BUNDLE_BYTES_MAX), (Code::V0, "bytes that no member accounts for".into()));
    let why = format!("{} bytes, at most {BUNDLE_BYTES_MAX} are read", BUNDLE_BYTES_MAX + 1);
    assert_eq!(refused(BUNDLE_BYTES_MAX + 1), (Code::V0, why));
    assert!(records(&vec![0; BUNDLE_BYTES_MAX + 1]).is_err());
}

#[test]
fn an_entry_beyond_its_limit_does_not_verify() {
    let bundle = |letters: usize| {
        let tamper = |record: &mut Record| {
            if let Record::Proposal(proposal) = record {
                proposal.text = "x".repeat(letters);
            }
        };
        let bytes = incident("auto", 0, &tamper).bytes;
        let longest = |(name, content): (&String, &Vec<u8>)| name.starts_with("entries/").then_some(content.len());
        let longest = tar::read(&bytes).unwrap().iter().filter_map(longest).max().unwrap();
        (longest, verify(&bytes, None).map_err(|error| (error.code, error.why)))
    };
    // Three bytes of text are four of an entry.
    let start = 30_000;
    let fits = start + (ENTRY_BYTES_MAX - bundle(start).0) / 4 * 3;
    let (longest, verified) = bundle(fits);
    assert!((ENTRY_BYTES_MAX - 3..=ENTRY_BYTES_MAX).contains(&longest) && verified.is_ok(), "{longest}: {verified:?}");
    let (longer, refused) = bundle(fits + 3);
    assert_eq!((longer, refused.err()), (longest + 4, Some((Code::V6, "longer than an entry may be".into()))));
}

/// What the command line's tests and the fuzzer begin with: who holds no key cannot make a bundle.
const KEPT: [(&str, &[u8]); 3] = [
    ("../../fuzz/corpus/bundle/sound", include_bytes!("../../../../fuzz/corpus/bundle/sound")),
    ("../../fuzz/corpus/record/sound", include_bytes!("../../../../fuzz/corpus/record/sound")),
    ("testdata/another-decision.stanch", include_bytes!("../../testdata/another-decision.stanch")),
];

fn kept() -> [Vec<u8>; 3] {
    let sound = good().bytes;
    let record = tar::read(&sound).unwrap()[&entry(2)].clone();
    [sound, record, replayed::another_decision()]
}

#[test]
fn what_other_tests_begin_with_is_what_is_made_now() {
    for ((path, kept), made) in KEPT.iter().zip(kept()) {
        assert!(*kept == made.as_slice(), "{path} is of another form; write it anew: cargo xtask keep");
    }
}

/// For when the form of a record changed on purpose: `cargo xtask keep` writes what this prints.
#[cfg(feature = "keep")]
#[test]
fn kept_files_are_printed() {
    for ((path, _), made) in KEPT.iter().zip(kept()) {
        let hex: String = made.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("KEPT {path} {hex}");
    }
}
