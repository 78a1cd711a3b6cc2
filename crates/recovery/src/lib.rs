//! From spans to a dependency graph to recovery groups, the seven-action ISA, the plan checker, the
//! transactional kernel and the queueing model. Pure: time, seeds and facts are arguments.
//!
//! It decides and never acts. Read first: [`isa::Action`], `kernel::check`, `groups::group`.

pub mod call;
pub mod check;
pub mod falsify;
pub mod graph;
pub mod groups;
pub mod holdout;
pub mod import;
pub mod isa;
pub mod journal;
pub mod kernel;
pub mod listing;
pub mod miss;
pub mod model;
pub mod plan;
pub mod replay;
pub mod span;
pub mod stats;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod text;
pub mod topology;
pub mod world;
