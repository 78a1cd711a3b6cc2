use super::*;
use crate::check::Code;
use crate::check::fixture::{STORY, plan, plan_of};
use expect_test::expect;

fn story_json() -> String {
    json::render(&plan(STORY)).to_string()
}

fn refused(text: &str) -> String {
    json::parse(text).unwrap_err().to_string()
}

#[test]
fn json_and_text_of_one_plan_have_one_digest() {
    let from_json = json::parse(&story_json()).unwrap();
    assert_eq!(from_json.digest(), plan(STORY).digest());
    assert_eq!(from_json.normalize(), plan(STORY).normalize());
    let fixed = Plan { topology: Digest::of(b"topology"), ..plan(STORY) };
    // Golden: whoever changes one of these changes what was ever signed.
    expect![[r#"
        1ec822b294f5e929b936d5629c635196099125aa81f4ba1df2f0b32978555cb5
        {"cause":"first","class":"restart-orchestration","deadline_ms":1700000110000,"incident":"abcdefghijklmnopqrstuvwxyz","kind":"stanch.plan.v1","revision":1,"steps":[{"action":"RateLimit","key":"s1","on_fail":"undo","target":{"edge":"gateway->checkout"},"with":{"rate_percent":60,"ttl_ms":120000}},{"action":"Restart","key":"s2","on_fail":"undo","target":{"instances":[0],"service":"payments"},"with":{"strategy":"rolling","surge":0,"wave":1}},{"action":"RestoreTraffic","key":"s3","on_fail":"undo","target":{"of":"open"},"with":{"ramp":[25,50,100]}}],"topology":"e6e2b826e31fca5c36125c48f130dcb6f961e698ff8a8776a1f290cf0892e8e6"}"#]].assert_eq(&format!("{}\n{}", fixed.digest(), json::render(&fixed)));
}

#[test]
fn the_normal_form_is_idempotent_and_ignores_spelling() {
    let one = plan("restart payments@1,0,1 until ready(payments)>=2,ready(payments)>=2,error_ppm<=10");
    let other = plan("s1: restart payments@0,1 wave 1 until error_ppm(payments)<=10,ready>=2 else undo");
    assert_eq!(one.normalize(), one.normalize().normalize());
    assert_eq!(one.digest(), other.digest());
    let mut listed = other.clone();
    listed.footprint = vec!["b".into(), "a".into(), "b".into()];
    assert_eq!(listed.normalize().footprint, ["a", "b"]);
    assert_ne!(listed.digest(), other.digest());
}

#[test]
fn every_part_of_a_plan_is_in_its_digest() {
    let base = plan(STORY);
    let mut all = vec![base.digest()];
    let mut add = |change: &dyn Fn(&mut Plan)| {
        let mut next = base.clone();
        change(&mut next);
        all.push(next.digest());
    };
    add(&|plan| plan.incident = "b".repeat(26));
    add(&|plan| plan.revision = 2);
    add(&|plan| plan.parent = Some(Digest::of(b"x")));
    add(&|plan| plan.cause = Cause::Human);
    add(&|plan| plan.changes = vec![Change { path: "a".into(), from: "b".into(), to: "c".into() }]);
    add(&|plan| plan.class = "capacity".into());
    add(&|plan| plan.topology = Digest::of(b"y"));
    add(&|plan| plan.deadline_ms = Timestamp(1));
    add(&|plan| plan.footprint = vec!["a".into()]);
    add(&|plan| plan.steps[1].on_fail = OnFail::Stop);
    add(&|plan| plan.steps.swap(0, 1));
    add(&|plan| plan.steps[1].key = "x".into());
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn json_is_a_closed_form() {
    let good = story_json();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} in {good}");
        refused(&good.replacen(from, to, 1))
    };
    let all = [
        with("\"revision\":1", "\"revision\":1,\"revision\":1"),
        with("\"revision\":1", "\"revision\":1.0"),
        with("\"revision\":1", "\"revision\":-1"),
        with("\"revision\":1", "\"revision\":9"),
        with("\"revision\":1", "\"revision\":null"),
        with("\"revision\":1", "\"revision\":1,\"confidence\":99"),
        with("stanch.plan.v1", "stanch.plan.v2"),
        with("\"abcdefghijklmnopqrstuvwxyz\"", "\"short\""),
        with("\"Restart\"", "\"Exec\""),
        with("\"wave\":1", "\"wave\":1,\"command\":\"rm -rf /\""),
        with("\"instances\":[0]", "\"instances\":[\"0\"]"),
        with("\"service\":\"payments\"", "\"service\":\"pay ments\""),
        with("\"ttl_ms\":120000", "\"burst\":1"),
        with("\"on_fail\":\"undo\"", "\"on_fail\":\"undo-to:\""),
        with("\"key\":\"s1\"", "\"key\":\"restore\""),
        with("{\"of\":\"open\"}", "{\"of\":[]}"),
        with("{\"of\":\"open\"}", "{}"),
        with("\"instances\":[0]", "\"instances\":[]"),
        with("\"ramp\":[25,50,100]", "\"ramp\":[]"),
        refused("{\"kind\":"),
        refused("[]"),
        refused(&"[".repeat(300)),
        refused(&" ".repeat(PLAN_BYTES_MAX + 1)),
    ];
    expect![[r#"
        K101 at line 1, column 166: field `revision` stands twice
        K101 at line 1, column 155: invalid type: floating point `1.0`, expected text, an integer that is not negative, true, false, a list or an object
        K101 at line 1, column 154: invalid type: integer `-1`, expected text, an integer that is not negative, true, false, a list or an object
        K104 at revision: between 1 and 8
        K101 at line 1, column 156: invalid type: null, expected text, an integer that is not negative, true, false, a list or an object
        K101 at the plan: unknown field `confidence`
        K101 at kind: expected stanch.plan.v1
        K101 at incident: expected an incident id
        K103 at steps[1].action: not one of the seven actions
        K101 at steps[1].with: unknown field `command`
        K101 at steps[1].target.instances[0]: expected a whole number
        K101 at steps[1].target.service: expected a name of letters, digits, `.`, `_` and `-`
        K104 at steps[0].with: `ttl_ms` is missing
        K101 at steps[0].on_fail: expected `undo`, `stop`, `retry` or `undo-to:KEY`
        K101 at steps[0].key: expected a step key
        K104 at steps[2].target.of: names at least one step
        K104 at steps[2].target: `of` is missing
        K104 at steps[1].target.instances: names at least one instance
        K104 at steps[2].with.ramp: has at least one stage
        K101 at line 1, column 8: EOF while parsing a value
        K101 at the plan: expected an object
        K101 at line 1, column 128: recursion limit exceeded
        K102 at the plan: a plan has at most 65536 bytes"#]].assert_eq(&all.join("\n"));
}

#[test]
fn json_reads_every_form_of_target() {
    for text in [
        "drain S#7 new 60s",
        "drain S@zone=z 50% all 60s timeout 5s ; restore s1 ramp 50,100 every 2s",
        "restore S weights S@0:40,S@1:60",
        "break A->S half-open fallback f 60s",
        "ratelimit S 90rps burst 20 priority paid 60s",
        "scale S +1 60s ; scale S -1 60s ; scale S =3 60s",
        "rollback role/ns/lock to S@2 ; rollback flag/ns/F to r7",
        "rollback role/ns/lock to last-good@2 ; rollback flag/ns/F to last-good",
        "restart S group wave 3 surge 2 grace 1s jitter 10ms if queue<=4 until revision(flag/ns/F)=2 else undo-to s1",
    ] {
        let one = plan_of(crate::text::parse(text).unwrap());
        let back = json::parse(&json::render(&one).to_string()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(back.normalize(), one.normalize(), "{text}");
    }
}

#[test]
fn conditions_in_json_are_judged_by_the_same_grammar() {
    let text = story_json().replacen("\"on_fail\":\"undo\"", "\"on_fail\":\"undo\",\"post\":[\"happy>=1\"]", 1);
    assert_eq!(json::parse(&text).unwrap_err().code, Code::K106);
    let text =
        story_json().replacen("\"on_fail\":\"undo\"", "\"on_fail\":\"undo\",\"post\":[\"ready(payments)>=1\"]", 1);
    assert_eq!(json::parse(&text).unwrap().steps[0].post[0].to_string(), "ready(payments)>=1");
}

#[test]
fn revisions_name_their_parent_and_their_change() {
    let first = plan(STORY);
    let change = Change { path: "s1.rate".into(), from: "60%".into(), to: "45%".into() };
    let next = mutate(&first, &change).unwrap();
    assert_eq!((next.revision, next.cause, next.parent), (2, Cause::Mutation, Some(first.digest())));
    assert_eq!(next.changes, [change]);
    let third = revise(&next, Cause::Pilot, first.steps.clone());
    assert_eq!((third.revision, third.parent), (3, Some(next.digest())));
    assert_eq!(third.changes[0].from, "ratelimit gateway->checkout 45% 120s ; restart payments@0 ; restore");
}

#[test]
fn every_list_and_number_of_a_plan_has_its_limit() {
    let good: serde_json::Value = serde_json::from_str(&story_json()).unwrap();
    let with = |pointer: &str, value: serde_json::Value| {
        let mut plan = good.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        plan.pointer_mut(parent).unwrap()[key] = value;
        json::parse(&plan.to_string()).map_err(|error| error.code)
    };
    let repeated = |value: serde_json::Value, times: usize| serde_json::Value::Array(vec![value; times]);
    let change = serde_json::json!({ "path": "a", "from": "b", "to": "c" });
    let condition = serde_json::json!("ready(payments)>=1");
    let step = good["steps"][2].clone();
    let cases = [
        ("/steps", step, STEPS_MAX),
        ("/changes", change, CHANGES_MAX),
        ("/footprint", serde_json::json!("a"), FOOTPRINT_MAX),
        ("/steps/0/pre", condition.clone(), PREDICATES_MAX),
        ("/steps/0/post", condition, PREDICATES_MAX),
        ("/steps/1/target/instances", serde_json::json!(1), LIST_MAX),
        ("/steps/2/with/ramp", serde_json::json!(1), LIST_MAX),
        ("/steps/2/target/of", serde_json::json!("s1"), LIST_MAX),
    ];
    for (pointer, value, max) in cases {
        assert!(with(pointer, repeated(value.clone(), max)).is_ok(), "{pointer}");
        assert_eq!(with(pointer, repeated(value, max + 1)).err(), Some(Code::K102), "{pointer}");
    }
    assert!(with("/revision", REVISIONS_MAX.into()).is_ok());
    assert_eq!(with("/revision", (REVISIONS_MAX + 1).into()).err(), Some(Code::K104));
    assert!(with("/class", "c".repeat(NAME_BYTES_MAX).into()).is_ok());
    assert_eq!(with("/class", "c".repeat(NAME_BYTES_MAX + 1).into()).err(), Some(Code::K101));
}
