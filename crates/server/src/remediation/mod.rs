//! Remediation: facts about what is recovered, the gate that executors report to, and the executor itself.

pub mod executor;
pub mod facts;
mod given_back;
mod measure;
mod records;
mod records_base64;
pub mod wire;

use crate::app::App;
use actuators::process::ProcessActuator;
use actuators::{Actuator as _, Capabilities, TargetKind as Offered};
use axum::Router;
use recovery::world::{Capability, TargetKind};
use std::path::Path;

/// What executors report to.
pub fn routes(app: App) -> Router {
    records::routes(app.clone()).merge(given_back::routes(app))
}

/// What the process actuator offers, in the kernel's words. A directory that cannot be used offers nothing.
#[must_use]
pub fn view_capabilities(directory: &Path) -> Vec<Capability> {
    ProcessActuator::open(directory).map_or_else(|_| Vec::new(), |actuator| capabilities(actuator.capabilities()))
}

/// What an actuator offers, in the kernel's words.
#[must_use]
pub fn capabilities(of: &Capabilities) -> Vec<Capability> {
    let known = of.0.keys();
    let mut offered: Vec<Capability> = known
        .flat_map(|(action, target)| kinds(*target).iter().map(|kind| Capability { action: *action, target: *kind }))
        .collect();
    offered.sort_by_key(|capability| (capability.action, capability.target));
    offered.dedup();
    offered
}

fn kinds(offered: Offered) -> &'static [TargetKind] {
    match offered {
        Offered::Service => &[TargetKind::Service],
        Offered::Instances => &[TargetKind::Instances],
        Offered::Zone => &[TargetKind::Zone],
        Offered::Shard => &[TargetKind::Shard],
        Offered::Edge => &[TargetKind::Edge],
        Offered::Object | Offered::Role => &[TargetKind::Object],
        // Closing open steps touches whatever they opened.
        Offered::OpenSteps => &[TargetKind::Service, TargetKind::Instances, TargetKind::Edge],
    }
}
