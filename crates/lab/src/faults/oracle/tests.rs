use super::*;
use sandbox::fault::Rollout;
use server::incidents::view::EvidenceView;

const BROKEN_AT: i64 = 10_300;
const OVER_AT: i64 = 30_200;
const UNTIL: i64 = 37_000;

fn second(n: i64, failed: u64) -> Second {
    Second { second_ms: n * 1_000, sent: 100, ok: 100 - failed, failed, p99_ms: 120, ..Second::default() }
}

/// Bad from the fault to second 25, well before and after.
fn truth() -> Truth {
    let seconds = (5..45).map(|n| second(n, if (10..=25).contains(&n) { 40 } else { 0 })).collect();
    let again = vec![("payments@1".to_owned(), "plan/s2".to_owned())];
    Truth { again, configs: [(rollout::PAYMENTS.to_owned(), 1)].into(), seconds }
}

fn told(outcome: &str, exit: u8) -> Told {
    let view = View {
        outcome: Some(outcome.to_owned()),
        exit: Some(exit),
        evidence: Some(EvidenceView { verified: true, ..EvidenceView::default() }),
        ..View::default()
    };
    let broken = Broken { service: "payments".into(), replica: Some(1), pid: Some(7), config: None };
    let shop = Shop { broken, broken_at_ms: BROKEN_AT, over_at_ms: OVER_AT, watched_until_ms: UNTIL };
    Told { view, shop }
}

fn misconfigured(outcome: &str, exit: u8) -> Told {
    let mut told = told(outcome, exit);
    let config = Rollout { object: rollout::PAYMENTS.to_owned(), before: 1, now: 2 };
    told.shop.broken = Broken { service: "payments".into(), replica: None, pid: None, config: Some(config) };
    told
}

/// The one thing that speaks against it.
fn objection(told: &Told, truth: &Truth) -> String {
    let verdict = judge(told, truth);
    assert!(!verdict.correct);
    assert_eq!(verdict.objections.len(), 1, "{:?}", verdict.objections);
    verdict.objections[0].clone()
}

#[test]
fn the_right_restart_and_a_client_that_is_served_again_is_correct() {
    let verdict = judge(&told("committed", 0), &truth());
    assert_eq!((verdict.correct, verdict.objections.as_slice()), (true, [].as_slice()));
    assert_eq!((verdict.client.seconds, verdict.client.sent, verdict.client.bad), (6, 600, 0), "31 to 36");
    assert_eq!(verdict.recovered_ms, Some(26_000 - 10_300), "the last bad second is 25");
}

#[test]
fn committed_is_wrong_when_the_client_or_the_start_logs_say_otherwise() {
    let mut unserved = truth();
    unserved.seconds[28] = second(33, 30);
    assert!(objection(&told("committed", 0), &unserved).contains("30 of 600 requests were bad"));
    let mut shedding = truth();
    shedding.seconds[28].shed = 1;
    assert!(objection(&told("committed", 0), &shedding).contains("1 shed"));
    let mut other = truth();
    other.again[0].0 = "payments@0".into();
    assert!(objection(&told("committed", 0), &other).contains("broken was [\"payments@1\"]"));
    let mut more = truth();
    more.again.push(("cart@0".into(), "plan/s3".into()));
    assert!(objection(&told("committed", 0), &more).contains("cart@0"));
    let mut nothing = truth();
    nothing.again.clear();
    assert!(objection(&told("committed", 0), &nothing).contains("restarted []"));
    let mut twice = truth();
    twice.again.push(twice.again[0].clone());
    let verdict = judge(&told("committed", 0), &twice);
    assert!(!verdict.correct && verdict.repeated == 1, "{verdict:?}");
    let mut short = truth();
    short.seconds.truncate(28);
    assert!(objection(&told("committed", 0), &short).contains("only 2 s"));
}

#[test]
fn a_rollback_must_have_returned_to_the_revision_before_and_restarted_nobody() {
    let mut rolled_back = truth();
    rolled_back.again.clear();
    assert!(judge(&misconfigured("committed", 0), &rolled_back).correct);
    assert!(objection(&misconfigured("committed", 0), &truth()).contains("restarted [\"payments@1\"]"));
    rolled_back.configs.insert(rollout::PAYMENTS.into(), 2);
    assert!(objection(&misconfigured("committed", 0), &rolled_back).contains("is at revision 2; good was 1"));
}

#[test]
fn a_hand_off_must_name_what_is_broken_and_leave_the_rest_alone() {
    let mut untouched = truth();
    untouched.again.clear();
    let line = "outcome        escalated (exit 20): config/shop/payments changed to revision 2; no older one is good";
    let mut escalated = misconfigured("escalated", 20);
    escalated.view.lines = vec![line.into()];
    assert!(judge(&escalated, &untouched).correct);
    escalated.view.lines = vec!["outcome        escalated (exit 20): no agent knows a plan for what it sees".into()];
    assert!(objection(&escalated, &untouched).contains("does not name config/shop/payments"));
    let mut hung = told("escalated", 20);
    hung.view.lines = vec!["outcome        escalated (exit 20): payments@1 did not come back".into()];
    assert!(judge(&hung, &truth()).correct, "the broken one was restarted in vain");
    hung.view.lines = vec!["outcome        escalated (exit 20): payments@0 (zone z1) did not come back".into()];
    assert!(objection(&hung, &truth()).contains("names payments@0"));
    hung.view.lines.clear();
    assert!(objection(&hung, &truth()).contains("gives no reason"));
    hung.view.lines = vec!["outcome        escalated (exit 20): payments did not come back".into()];
    let mut other = truth();
    other.again[0].0 = "cart@0".into();
    assert!(objection(&hung, &other).contains("restarted cart@0"));
}

#[test]
fn every_other_end_and_unverified_evidence_is_wrong() {
    for (outcome, exit) in [("aborted", 30), ("undone", 40), ("out of time", 60), ("committed", 20), ("escalated", 0)] {
        assert!(objection(&told(outcome, exit), &truth()).contains("it ended"), "{outcome}");
    }
    let mut unverified = told("committed", 0);
    unverified.view.evidence = None;
    assert!(objection(&unverified, &truth()).contains("evidence"));
}

#[test]
fn a_client_that_was_never_served_again_has_no_time_of_recovery() {
    let mut never = truth();
    never.seconds.iter_mut().filter(|second| second.second_ms >= 10_000).for_each(|second| second.failed = 90);
    assert_eq!(judge(&told("committed", 0), &never).recovered_ms, None);
}

#[test]
fn a_shops_directory_is_read_as_it_lies_there() {
    let dir = tempfile::tempdir().unwrap();
    rollout::roll_out(dir.path(), rollout::PAYMENTS, &rollout::payments(rollout::KEY)).unwrap();
    std::fs::create_dir_all(dir.path().join("starts")).unwrap();
    let start = |generation: u64, key: &str| {
        let start = starts::Start {
            generation,
            replica: 1,
            pid: 1,
            start_time: 1,
            started_ms: 1,
            key: key.into(),
            address: String::new(),
        };
        serde_json::to_string(&start).unwrap()
    };
    let log = format!("{}\n{}\n", start(1, ""), start(2, "plan/s2"));
    std::fs::write(dir.path().join("starts/payments.jsonl"), log).unwrap();
    let line = r#"{"second_ms":5000,"sent":3,"ok":3,"failed":0,"shed":0,"late":0,"p50_ms":1,"p99_ms":2,"in_flight":0,"requests":[[0,1,"ok"]]}"#;
    // The last line was being written when the shop ended.
    std::fs::write(dir.path().join("load.jsonl"), format!("{line}\n{{\"second_ms\":6000,\"se")).unwrap();
    let read = Truth::read(dir.path()).unwrap();
    assert_eq!(read.again, [("payments@1".to_owned(), "plan/s2".to_owned())]);
    assert_eq!((read.seconds.len(), read.seconds[0].sent), (1, 3));
    assert_eq!(read.configs, [(rollout::PAYMENTS.to_owned(), 1)].into());
}
