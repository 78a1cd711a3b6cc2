//! From the plan to JSON.

use super::KIND;
use crate::isa::{Action, Limited, Place, Rate, Restored, Revision, ScaleTo};
use crate::plan::{Plan, Predicate, Step};
use serde_json::{Map, Value, json};

pub(super) fn plan(plan: &Plan) -> Value {
    let mut out = Map::new();
    out.insert("kind".into(), json!(KIND));
    out.insert("incident".into(), json!(plan.incident));
    out.insert("revision".into(), json!(plan.revision));
    if let Some(parent) = plan.parent {
        out.insert("parent".into(), json!(parent.to_string()));
    }
    out.insert("cause".into(), json!(plan.cause.word()));
    if !plan.changes.is_empty() {
        let one = |change: &crate::plan::Change| json!({"path": change.path, "from": change.from, "to": change.to});
        out.insert("changes".into(), plan.changes.iter().map(one).collect());
    }
    out.insert("class".into(), json!(plan.class));
    out.insert("topology".into(), json!(plan.topology.to_string()));
    out.insert("deadline_ms".into(), json!(plan.deadline_ms.0));
    if !plan.footprint.is_empty() {
        out.insert("footprint".into(), json!(plan.footprint));
    }
    out.insert("steps".into(), (1..).zip(&plan.steps).map(|(number, item)| step(number, item)).collect());
    Value::Object(out)
}

fn step(number: usize, step: &Step) -> Value {
    let (target, with) = parts(&step.action);
    let mut out = Map::new();
    let key = if step.key.is_empty() { format!("s{number}") } else { step.key.clone() };
    out.insert("key".into(), json!(key));
    out.insert("action".into(), json!(step.action.kind().word()));
    out.insert("target".into(), target);
    if !with.is_empty() {
        out.insert("with".into(), Value::Object(with));
    }
    for (name, list) in [("pre", &step.pre), ("post", &step.post)] {
        if !list.is_empty() {
            out.insert(name.into(), list.iter().map(Predicate::to_string).map(Value::String).collect());
        }
    }
    out.insert("on_fail".into(), json!(step.on_fail.to_string()));
    Value::Object(out)
}

/// Target and parameters.
fn parts(action: &Action) -> (Value, Map<String, Value>) {
    let mut with = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            with.insert(name.to_owned(), value);
        }
    };
    let target = match action {
        Action::Restart { place, strategy, wave, surge, grace_ms, jitter_ms } => {
            set("strategy", Some(json!(strategy.word())));
            set("wave", Some(json!(wave)));
            set("surge", Some(json!(surge)));
            set("grace_ms", grace_ms.map(Value::from));
            set("jitter_ms", jitter_ms.map(Value::from));
            self::place(place)
        }
        Action::Drain { place, percent, mode, timeout_ms, ttl_ms } => {
            set("percent", Some(json!(percent)));
            set("mode", Some(json!(mode.word())));
            set("timeout_ms", timeout_ms.map(Value::from));
            set("ttl_ms", Some(json!(ttl_ms)));
            self::place(place)
        }
        Action::RestoreTraffic { of, ramp, ramp_ms } => {
            set("ramp", Some(json!(ramp)));
            set("ramp_ms", ramp_ms.map(Value::from));
            restored(of)
        }
        Action::CircuitBreak { edge, mode, fallback, ttl_ms } => {
            set("mode", Some(json!(mode.word())));
            set("fallback", fallback.clone().map(Value::String));
            set("ttl_ms", Some(json!(ttl_ms)));
            json!({"edge": edge.to_string()})
        }
        Action::RateLimit { what, rate, burst, priority, ttl_ms } => {
            match rate {
                Rate::Percent(percent) => set("rate_percent", Some(json!(percent))),
                Rate::PerSecond(count) => set("rate_rps", Some(json!(count))),
            }
            set("burst", burst.map(Value::from));
            set("priority", priority.clone().map(Value::String));
            set("ttl_ms", Some(json!(ttl_ms)));
            match what {
                Limited::Place(place) => self::place(place),
                Limited::Edge(edge) => json!({"edge": edge.to_string()}),
            }
        }
        Action::Scale { service, to, ttl_ms } => {
            match to {
                ScaleTo::Exactly(count) => set("to", Some(json!(count))),
                ScaleTo::More(count) => set("more", Some(json!(count))),
                ScaleTo::Fewer(count) => set("fewer", Some(json!(count))),
            }
            set("ttl_ms", Some(json!(ttl_ms)));
            json!({"service": service})
        }
        Action::RollbackConfig { kind, namespace, name, to } => {
            let to = match to {
                Revision::LastGood => "last-good",
                Revision::Named(name) => name,
            };
            set("to", Some(json!(to)));
            json!({"object": format!("{kind}/{namespace}/{name}")})
        }
    };
    (target, with)
}

fn place(place: &Place) -> Value {
    match place {
        Place::Service(service) => json!({"service": service}),
        Place::Instances(service, numbers) => json!({"service": service, "instances": numbers}),
        Place::Zone(service, zone) => json!({"service": service, "zone": zone}),
        Place::Shard(service, shard) => json!({"service": service, "shard": shard}),
    }
}

fn restored(of: &Restored) -> Value {
    match of {
        Restored::AllOpen => json!({"of": "open"}),
        Restored::Steps(keys) => json!({"of": keys}),
        Restored::Weights(weights) => {
            let one = |(place, weight): &(Place, u32)| {
                let mut item = self::place(place);
                if let Some(map) = item.as_object_mut() {
                    map.insert("weight".into(), json!(weight));
                }
                item
            };
            json!({"weights": weights.iter().map(one).collect::<Vec<_>>()})
        }
    }
}
