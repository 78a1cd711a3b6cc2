use super::*;
use crate::Code;

fn load(text: &str) -> Result<Policy, LoadError> {
    toml::from_str::<PolicyFile>(text).unwrap().load()
}

fn codes(text: &str) -> Vec<Code> {
    load(text).map_or_else(|LoadError(findings)| findings.iter().map(|finding| finding.code).collect(), |_| Vec::new())
}

/// A policy of three tiers, like the one in the documentation.
const GOLD: &str = r#"
schema = 1
name = "gold"
policy_signers = 2
tiers = ["bronze", "gold"]
trust_zones = { core = ["checkout", "payments"], card = ["ledger"] }
weights = { inv = "30%", prov = "20%", trust = "20%", econ = "15%", conv = "15%" }

[windows]
baseline = "30s"
guard = { grace = "4s", window = "20s" }

[tier.bronze]
kind = "other"
services = ["*"]
limits = { t_budget = "600s", pilot_max = "30s", max_delay = "300s", preview_ttl = "60s", wait_max = "100ms", max_risk = "5%" }
approvals = { n = 1, of = ["oncall"] }
observers = { k = 2, n = 3, disagreement_max = "34%" }

[tier.gold]
kind = "financial"
services = ["checkout", "payments", "ledger"]
limits = { t_budget = "120s", pilot_max = "30s", max_delay = "90s", preview_ttl = "60s", wait_max = "100ms", max_risk = "5%" }
envelope = { a_ceiling = "2.5%", epsilon_max = "10%", interference_max = "3%", scope_ratio_max = 4, runs = 3, sources_min = 2, g_rec_min = "90%" }
approvals = { n = 1, of = ["oncall", "sre-lead"] }
observers = { k = 2, n = 3, disagreement_max = "34%" }
anchors = { witnesses_min = 0, checkpoint_age_max = "10m" }
cost = { base = 50_000, amplification = 400_000, misdiagnosis = 80_000, per_second = 90 }
kernel = { type_max = "service restartable", headroom = "120%", rate_floor = "10%", cooldown = "300s", services = 8, edges = 64, actions_per_hour = 6, loss_max = 500, removed_max = "34%", drain_inflight = 1 }
economics = { retry_amplification_max = "200%", drain_max = "60s", backlog_max = 20_000, oscillations_max = 2 }
[tier.gold.windows]
guard = { grace = "6s" }

[class.restart-orchestration]
owner = "team-platform"
runbook = "runbooks/restart.md"
failure_assumptions = ["one zone", "no data corruption"]
actions = ["Restart", "Drain", "RestoreTraffic", "RateLimit", "CircuitBreak"]
preview = { mode = "mandatory", fidelity = { gold = "F2" } }
invariants = ["capacity-floor", "progress", "lease-unique", "lag-bounded"]
on_not_evaluable = "escalate"
horizon = ["retry", "lease", "health_check"]
variance = ["heartbeat", "metrics"]
auto_type = "instance reversible ttl"
converge = { checks = ["slo", "backlog", "epochs"], deadline = "300s" }
level = { gold = "approve" }
drill_every = "7d"
disagreement_max = "0%"
bypass = { reasons = ["total-loss-of-region"], humans = 2, max = "15m", per_quarter = 1, review = "48h" }
[class.restart-orchestration.mutable]
"RateLimit.rate" = { min = "10%", max = "90%", step = "5%", safer = "down" }
"Restart.wave" = { min = 1, max = 8, step = 1, safer = "down" }

[[invariant]]
id = "lag-bounded"
signal = { name = "lag_bytes", unit = "bytes", max_age = "5s", sources_min = 2 }
holds = { op = "<=", bound = 1_048_576 }
"#;

#[test]
fn the_first_policy_observes_and_touches_nothing() {
    let policy = load(DEFAULT_TEXT).unwrap();
    assert_eq!(policy.lint(), []);
    assert_eq!(policy.classes.len(), 10);
    for class in policy.classes.keys() {
        let effective = policy.effective("bronze", class).unwrap();
        assert_eq!(effective.level, Level::Observe, "{class}");
        assert_eq!(effective.tier.uncalibrated, Uncalibrated::Refuse);
    }
    assert_eq!(Windows::default(), policy.windows);
    assert_eq!(policy.windows.lease.step, Millis(10_000));
}

#[test]
fn the_documented_policy_loads_with_its_values() {
    let policy = load(GOLD).unwrap();
    assert_eq!(Policy::from_bytes(&policy.to_bytes()), Ok(policy.clone()));
    assert_eq!((policy.tier_of("payments"), policy.tier_of("cart")), (Some("gold"), Some("bronze")));
    assert_eq!(policy.tier_of_all(["cart", "payments"]), Some("gold"));
    let gold = policy.effective("gold", "restart-orchestration").unwrap();
    assert_eq!((gold.level, gold.fidelity), (Level::Approve, Fidelity::F2));
    assert_eq!(gold.disagreement_max, Ratio::ZERO);
    assert_eq!(gold.tier.envelope.a_ceiling.ppm(), 25_000);
    assert_eq!(gold.tier.economics.retry_amplification_max_ppm, 2_000_000);
    assert_eq!(gold.auto_type.to_string(), "instance reversible ttl");
    assert_eq!(gold.tier.kernel.type_max.to_string(), "service restartable none");
    assert_eq!(gold.rules.len(), 1);
    let rate = &gold.class.mutable["RateLimit.rate"];
    assert_eq!((rate.unit, rate.min, rate.max, rate.step, rate.safer_up), (ParamUnit::Percent, 10, 90, 5, false));
    // Windows: default, then the file's, then the tier's, key by key.
    assert_eq!((gold.tier.windows.baseline, gold.tier.windows.ready_for), (Millis(30_000), Millis(10_000)));
    assert_eq!((gold.tier.windows.guard.grace, gold.tier.windows.guard.window), (Millis(6_000), Millis(20_000)));
    assert_eq!(policy.effective("bronze", "restart-orchestration").unwrap().tier.windows.guard.grace, Millis(4_000));
    assert_eq!((policy.effective("iron", "failover"), policy.effective("gold", "nothing")), (None, None));
}

#[test]
fn any_change_changes_the_digest() {
    let policy = load(GOLD).unwrap();
    for (from, to) in [
        ("\"2.5%\"", "\"2.6%\""),
        ("grace = \"6s\"", "grace = \"7s\""),
        ("name = \"gold\"", "name = \"gild\""),
        ("1_048_576", "1_048_577"),
    ] {
        assert_ne!(load(&GOLD.replace(from, to)).unwrap().digest(), policy.digest(), "{from}");
    }
}

#[test]
fn each_rule_has_a_file_that_breaks_it() {
    let edit = |from: &str, to: &str| {
        let text = GOLD.replace(from, to);
        assert_ne!(text, GOLD, "{from}");
        codes(&text)
    };
    assert_eq!(codes(GOLD), []);
    assert_eq!(edit("schema = 1", "schema = 2"), [Code::L001]);
    assert_eq!(edit("\"<=\"", "\"=<\""), [Code::L001]);
    assert_eq!(edit("\"lag-bounded\"]", "\"lag-bound\"]"), [Code::L002]);
    assert_eq!(edit("level = { gold", "level = { golden"), [Code::L002]);
    assert_eq!(edit("[\"bronze\", \"gold\"]", "[\"bronze\"]"), [Code::L002]);
    assert_eq!(edit("k = 2", "k = 4"), [Code::L003, Code::L003]);
    assert_eq!(edit("id = \"lag-bounded\"", "id = \"progress\"")[0], Code::L003);
    assert_eq!(
        edit("invariants = [\"capacity-floor\", \"progress\", \"lease-unique\", \"lag-bounded\"]", "invariants = []"),
        [Code::L010]
    );
    assert_eq!(edit("\"team-platform\"", "\"\""), [Code::L011]);
    assert_eq!(edit("[\"total-loss-of-region\"]", "[]"), [Code::L012]);
    assert_eq!(
        edit("level = { gold = \"approve\" }\ndrill_every = \"7d\"", "level = { gold = \"auto\" }"),
        [Code::L013]
    );
    assert_eq!(edit("gold = \"F2\"", "gold = \"F1\""), [Code::L014]);
    assert_eq!(edit("max = 8, step = 1, safer = \"down\"", "max = 8, step = 1"), [Code::L015]);
    assert_eq!(edit("max = 8", "max = \"8%\""), [Code::L015]);
    assert_eq!(edit("inv = \"30%\"", "inv = \"31%\""), [Code::L020]);
    assert_eq!(edit("a_ceiling = \"2.5%\"", "a_ceiling = \"0.5%\""), [Code::L021]);
    assert_eq!(edit("a_ceiling = \"2.5%\", ", ""), [Code::L022]);
    assert_eq!(edit("[\"checkout\", \"payments\", \"ledger\"]\nlimits", "[\"*\"]\nlimits"), [Code::L025]);
}

#[test]
fn loosening_above_bronze_is_a_load_error() {
    let gold = |from: &str, to: &str| codes(&GOLD.replace(from, to));
    assert_eq!(gold("kind = \"financial\"", "kind = \"financial\"\nuncalibrated = \"allow\""), [Code::L023]);
    assert_eq!(gold("kind = \"financial\"", "kind = \"other\"\nuncalibrated = \"allow\""), [Code::L023]);
    assert_eq!(gold("sources_min = 2, g_rec", "sources_min = 1, g_rec"), [Code::L023]);
    assert_eq!(gold("guard = { grace = \"6s\" }", "graph = { miss_max = \"1.1%\" }"), [Code::L023]);
    assert_eq!(gold("kind = \"other\"", "kind = \"other\"\nuncalibrated = \"allow\""), []);
    assert_eq!(
        gold("kind = \"other\"", "kind = \"identity\"\nuncalibrated = \"allow\"\nenvelope = { a_ceiling = \"5%\" }"),
        [Code::L023]
    );
    assert_eq!(gold("policy_signers = 2", "uncalibrated = \"allow\""), [Code::L023]);
    let lone = load(&GOLD.replace("policy_signers = 2", "")).unwrap();
    assert_eq!(lone.lint().iter().map(|finding| finding.code).collect::<Vec<_>>(), [Code::L024]);
}

#[test]
fn unknown_keys_floats_and_unitless_values_are_refused_by_the_parser() {
    for (from, to) in [
        ("schema = 1", "schema = 1\nextra = 1"),
        ("grace = \"6s\"", "grase = \"6s\""),
        ("\"2.5%\"", "2.5"),
        ("\"2.5%\"", "\"NaN%\""),
        ("\"2.5%\"", "\"-1%\""),
        ("\"2.5%\"", "\"100.0001%\""),
        ("\"120s\"", "\"120\""),
        ("\"120s\"", "120"),
        ("\"Restart\"", "\"Reboot\""),
        ("\"instance reversible ttl\"", "\"reversible\""),
        ("max = 8", "max = 8.0"),
        ("backlog_max = 20_000", "backlog_max = -1"),
    ] {
        let text = GOLD.replace(from, to);
        assert!(text != GOLD && toml::from_str::<PolicyFile>(&text).is_err(), "{to}");
    }
}

#[test]
fn effect_types_compare_in_every_respect() {
    let of = |text: &str| EffectType::parse(text).unwrap();
    assert!(of("instance reversible ttl").is_within(of("service restartable")));
    assert!(!of("group reversible ttl").is_within(of("service restartable none")));
    assert!(!of("instance reversible none").is_within(of("group restartable ttl")));
    assert_eq!(of("edge restartable ttl").join(of("instance reversible none")), of("edge restartable none"));
    assert_eq!((EffectType::parse("group restartable none x"), EffectType::parse("")), (None, None));
    assert!(of("group restartable none").is_within(EffectType::MAX));
}
