//! Why a task is given back instead of carried out.

use super::report::Lost;
use base::{EnvelopeError, canon};
use governance::record::OpenError;
use recovery::check::{Code, Rejection};
use recovery::kernel::JournalError;

/// Why an executor gives a task back. Nothing was done that is not on record; another executor may try.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    /// A kind of task that this version does not have: left to another executor.
    #[error("not a task this executor knows")]
    UnknownTask,
    /// A parameter of the task is not in the form that parameters have.
    #[error("{0} of the task cannot be read")]
    Parameter(&'static str),
    /// The decision's envelope is not in its one form.
    #[error("the decision is {0}")]
    Envelope(EnvelopeError),
    /// The decision is not a record that this executor's keyring accepts.
    #[error("the decision: {0}")]
    Unsigned(OpenError),
    /// A valid record, but not the decision to commit this plan.
    #[error("{0}")]
    Authority(&'static str),
    /// The kernel's check, made again here, does not pass.
    #[error("the kernel refuses the plan here: {}", codes(.0))]
    Refused(Vec<Rejection>),
    /// Material that the task names by digest is missing or not what its name says.
    #[error("blob {0} is missing or not what its name says")]
    Blob(String),
    /// Material that the task names by digest is there and not of its form.
    #[error("{0} cannot be read")]
    Material(&'static str),
    /// What the preview was true of is there and not of its form.
    #[error("what the preview bound cannot be read: {0}")]
    Bound(canon::Error),
    /// A setting or a program was changed after the preview.
    #[error("{0} was changed after the preview")]
    Drift(String),
    /// What controls a setting does not answer: whether it was changed is not known.
    #[error("{0} cannot be read: what controls it does not answer")]
    Unread(String),
    /// Neither severity nor its absence is known.
    #[error("nobody can say how bad things are: supervisor or record do not answer, or the record stopped")]
    Blind,
    /// A record of the journal is not in its one form.
    #[error("record {0} of the journal cannot be read")]
    JournalForm(usize),
    /// The journal is not one of this plan.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The server does not answer.
    #[error(transparent)]
    Server(#[from] client::Error),
    /// A report was not taken.
    #[error(transparent)]
    Lost(#[from] Lost),
}

impl JobError {
    /// The stable code: the kernel's where a rule of the kernel is behind it, else one of the executor's own.
    pub(super) fn code(&self) -> &'static str {
        match self {
            JobError::UnknownTask => "ST-1401",
            JobError::Parameter(_) => "ST-1402",
            JobError::Envelope(_) | JobError::Unsigned(_) | JobError::Authority(_) => Code::K408.word(),
            JobError::Refused(rejections) => rejections.first().map_or(Code::K408, |first| first.code).word(),
            JobError::Blob(_) | JobError::Material(_) | JobError::Bound(_) | JobError::Drift(_) => Code::K407.word(),
            JobError::Unread(_) | JobError::Blind => Code::K506.word(),
            JobError::JournalForm(_) | JobError::Journal(_) => "ST-1403",
            JobError::Server(_) => "ST-1404",
            JobError::Lost(Lost::Held) => Code::K401.word(),
            JobError::Lost(Lost::Fenced) => Code::K409.word(),
            JobError::Lost(Lost::Refused) => "ST-1405",
        }
    }

    /// Whether no other executor could do better: what was decided is not what this one may carry out.
    pub(super) fn is_final(&self) -> bool {
        match self {
            JobError::Parameter(_)
            | JobError::Envelope(_)
            | JobError::Unsigned(_)
            | JobError::Authority(_)
            | JobError::Refused(_)
            | JobError::Material(_)
            | JobError::Bound(_)
            | JobError::Drift(_) => true,
            JobError::UnknownTask
            | JobError::Blob(_)
            | JobError::Unread(_)
            | JobError::Blind
            | JobError::JournalForm(_)
            | JobError::Journal(_)
            | JobError::Server(_)
            | JobError::Lost(_) => false,
        }
    }
}

fn codes(rejections: &[Rejection]) -> String {
    let codes: Vec<&str> = rejections.iter().map(|rejection| rejection.code.word()).collect();
    codes.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_a_task_back_has_a_code_and_says_what_it_is_about() {
        let held = JobError::from(Lost::Held);
        assert_eq!((held.code(), held.to_string().as_str()), ("K401", "a hold covers the scope"));
        let refused = JobError::Refused(vec![Rejection::new(Code::K207, "cart"), Rejection::new(Code::K506, "cart")]);
        assert_eq!(
            (refused.code(), refused.to_string().as_str()),
            ("K207", "the kernel refuses the plan here: K207, K506")
        );
        let unsigned = JobError::Unsigned(OpenError::Identity);
        assert!(unsigned.code() == "K408" && unsigned.to_string().starts_with("the decision: signed by a key"));
        let drift = JobError::Drift("limit gateway->checkout".to_owned());
        assert_eq!(
            (drift.code(), drift.to_string().as_str()),
            ("K407", "limit gateway->checkout was changed after the preview")
        );
    }
}
