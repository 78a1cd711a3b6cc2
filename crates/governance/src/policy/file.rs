//! The policy file as written. The shell parses the text; unknown keys are errors.

use super::windows::{In, WindowsFile, Written};
use super::{EffectType, Fidelity, Level, OnNotEvaluable, PreviewMode, TierKind, Uncalibrated};
use base::{Millis, Ratio};
use recovery::isa::ActionKind;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A policy file, keys as in its documentation. [`PolicyFile::load`] makes the policy of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    pub(super) schema: u64,
    pub(super) name: String,
    pub(super) policy_signers: Option<u64>,
    pub(super) tiers: Vec<String>,
    pub(super) uncalibrated: Option<In<Uncalibrated>>,
    #[serde(default)]
    pub(super) trust_zones: BTreeMap<String, Vec<String>>,
    pub(super) weights: Option<BTreeMap<String, In<Ratio>>>,
    #[serde(default)]
    pub(super) crossings: Vec<CrossingFile>,
    #[serde(default)]
    pub(super) windows: WindowsFile,
    #[serde(default)]
    pub(super) tier: BTreeMap<String, TierFile>,
    #[serde(default)]
    pub(super) class: BTreeMap<String, ClassFile>,
    #[serde(default)]
    pub(super) invariant: Vec<InvariantFile>,
}

/// A permitted crossing between trust zones: not acted on yet, therefore refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CrossingFile {
    pub(super) from: String,
    pub(super) to: String,
    #[serde(rename = "operations")]
    _operations: Vec<String>,
    #[serde(rename = "onward")]
    _onward: Option<u64>,
}

/// One `[tier.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TierFile {
    pub(super) kind: In<TierKind>,
    pub(super) services: Vec<String>,
    pub(super) uncalibrated: Option<In<Uncalibrated>>,
    pub(super) limits: LimitsFile,
    #[serde(default)]
    pub(super) envelope: EnvelopeFile,
    pub(super) approvals: ApprovalsFile,
    pub(super) observers: ObserversFile,
    pub(super) anchors: Option<AnchorsFile>,
    pub(super) cost: Option<CostFile>,
    #[serde(default)]
    pub(super) kernel: KernelFile,
    #[serde(default)]
    pub(super) economics: EconomicsFile,
    pub(super) level: Option<In<Level>>,
    pub(super) fidelity: Option<In<Fidelity>>,
    pub(super) auto_type: Option<In<EffectType>>,
    #[serde(default)]
    pub(super) windows: WindowsFile,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsFile {
    pub(super) t_budget: In<Millis>,
    pub(super) pilot_max: In<Millis>,
    pub(super) max_delay: In<Millis>,
    pub(super) preview_ttl: In<Millis>,
    pub(super) wait_max: In<Millis>,
    pub(super) max_risk: In<Ratio>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EnvelopeFile {
    pub(super) a_ceiling: Option<In<Ratio>>,
    pub(super) epsilon_max: Option<In<Ratio>>,
    pub(super) interference_max: Option<In<Ratio>>,
    pub(super) scope_ratio_max: Option<u64>,
    pub(super) runs: Option<u64>,
    pub(super) sources_min: Option<u64>,
    pub(super) g_rec_min: Option<In<Ratio>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalsFile {
    pub(super) n: u64,
    pub(super) of: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObserversFile {
    pub(super) k: u64,
    pub(super) n: u64,
    pub(super) disagreement_max: In<Ratio>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnchorsFile {
    pub(super) witnesses_min: u64,
    pub(super) checkpoint_age_max: In<Millis>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CostFile {
    pub(super) base: u64,
    pub(super) amplification: u64,
    pub(super) misdiagnosis: u64,
    pub(super) per_second: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct KernelFile {
    pub(super) type_max: Option<In<EffectType>>,
    pub(super) headroom: Option<In<Percent>>,
    pub(super) rate_floor: Option<In<Ratio>>,
    pub(super) cooldown: Option<In<Millis>>,
    pub(super) services: Option<u64>,
    pub(super) edges: Option<u64>,
    pub(super) actions_per_hour: Option<u64>,
    pub(super) loss_max: Option<u64>,
    pub(super) removed_max: Option<In<Ratio>>,
    pub(super) drain_inflight: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EconomicsFile {
    pub(super) retry_amplification_max: Option<In<Percent>>,
    pub(super) drain_max: Option<In<Millis>>,
    pub(super) backlog_max: Option<u64>,
    pub(super) oscillations_max: Option<u64>,
}

/// One `[class.NAME]`: what differs from the shipped class of that name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClassFile {
    pub(super) owner: Option<String>,
    pub(super) runbook: Option<String>,
    pub(super) failure_assumptions: Option<Vec<String>>,
    pub(super) actions: Option<Vec<In<ActionKind>>>,
    pub(super) preview: Option<PreviewFile>,
    pub(super) invariants: Option<Vec<String>>,
    pub(super) on_not_evaluable: Option<In<OnNotEvaluable>>,
    pub(super) horizon: Option<Vec<String>>,
    pub(super) variance: Option<Vec<String>>,
    pub(super) auto_type: Option<In<EffectType>>,
    pub(super) converge: Option<ClassConvergeFile>,
    pub(super) level: BTreeMap<String, In<Level>>,
    pub(super) drill_every: Option<In<Millis>>,
    pub(super) mutable: BTreeMap<String, MutableFile>,
    pub(super) disagreement_max: Option<In<Ratio>>,
    pub(super) bypass: Option<ClassBypassFile>,
    pub(super) fallback: Option<In<OnNotEvaluable>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PreviewFile {
    pub(super) mode: In<PreviewMode>,
    #[serde(default)]
    pub(super) fidelity: BTreeMap<String, In<Fidelity>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClassConvergeFile {
    pub(super) checks: Vec<String>,
    pub(super) deadline: In<Millis>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MutableFile {
    pub(super) min: In<Quantity>,
    pub(super) max: In<Quantity>,
    pub(super) step: In<Quantity>,
    pub(super) safer: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClassBypassFile {
    #[serde(default)]
    pub(super) reasons: Vec<String>,
    pub(super) humans: Option<u64>,
    pub(super) max: Option<In<Millis>>,
    pub(super) per_quarter: Option<u64>,
    pub(super) review: Option<In<Millis>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InvariantFile {
    pub(super) id: String,
    pub(super) signal: SignalFile,
    pub(super) holds: HoldsFile,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignalFile {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) max_age: In<Millis>,
    pub(super) sources_min: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HoldsFile {
    pub(super) op: String,
    pub(super) bound: BoundFile,
}

/// A number, or the name of a second signal.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum BoundFile {
    /// A number.
    Number(i64),
    /// A signal.
    Signal(String),
}

/// A percentage that may exceed 100%, in parts per million.
#[derive(Clone, Copy, Debug)]
pub(super) struct Percent(pub(super) u64);

impl Written for Percent {
    type Raw = String;
    fn read(raw: String) -> Result<Self, String> {
        let ppm = raw.strip_suffix('%').and_then(base::parse_percent_ppm);
        ppm.map(Percent).ok_or_else(|| format!("`{raw}` is not a percentage such as \"120%\""))
    }
}

/// An integer, whole percent, or a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantity {
    /// A plain number.
    Count(i64),
    /// Whole percent.
    Percent(i64),
    /// Milliseconds.
    Time(i64),
}

/// A number or a text with a unit.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Raw {
    /// A plain number.
    Number(i64),
    /// With a unit.
    Text(String),
}

impl Written for Quantity {
    type Raw = Raw;
    fn read(raw: Raw) -> Result<Self, String> {
        let text = match raw {
            Raw::Number(number) => return Ok(Quantity::Count(number)),
            Raw::Text(text) => text,
        };
        let fail = || format!("`{text}` is not a whole number, a whole percentage or a duration");
        if let Some(number) = text.strip_suffix('%') {
            let plain = number.bytes().all(|b| b.is_ascii_digit());
            return number.parse().ok().filter(|_| plain).map(Quantity::Percent).ok_or_else(fail);
        }
        let time = Millis::parse(&text).ok().and_then(|time| i64::try_from(time.0).ok());
        time.map(Quantity::Time).ok_or_else(fail)
    }
}

impl Written for EffectType {
    type Raw = String;
    fn read(raw: String) -> Result<Self, String> {
        EffectType::parse(&raw).ok_or_else(|| {
            format!(
                "`{raw}` is not an effect type: write level, class and expiry, for example \"service restartable none\""
            )
        })
    }
}

macro_rules! written_word {
    ($($type:ty),* $(,)?) => {$(
        impl Written for $type {
            type Raw = String;
            fn read(raw: String) -> Result<Self, String> {
                <$type>::parse(&raw).ok_or_else(|| {
                    let words: Vec<&str> = <$type>::ALL.iter().map(|known| known.word()).collect();
                    format!("`{raw}` is none of {}", words.join(", "))
                })
            }
        }
    )*};
}
written_word!(Level, Fidelity, Uncalibrated, TierKind, PreviewMode, OnNotEvaluable, ActionKind);
