//! From spans to a dependency graph to recovery groups, the seven-action ISA, the plan checker, the
//! transactional kernel and the queueing model. Pure: time, seeds and facts are arguments.
//!
//! It decides and never acts. Read first: [`isa::Action`], `kernel::check`, `groups::group`.

pub mod call;
pub mod isa;
pub mod topology;
