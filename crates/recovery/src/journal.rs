//! What the kernel writes down: intent first, then what became of it. The records are the incident's
//! evidence, and the kernel's state is their fold: nothing else survives a crash, nothing else is needed.

use crate::call::{Fence, Key, Receipt, State, Versions};
use base::Timestamp;
use base::canon::{Canon, Error, Value};

/// LIMIT: records of one plan.
pub const JOURNAL_RECORDS_MAX: u64 = 1_024;

base::word_enum! {
    /// Why a step failed, or a plan was undone or stopped.
    pub enum Cause {
        /// A condition before the step does not hold, or cannot be known (K404).
        Precondition = 1 "precondition",
        /// What the step binds was changed by somebody else (K407).
        Drift = 2 "drift",
        /// The checks before the step, or the actuator, refused.
        Refused = 3 "refused",
        /// No actuator does this.
        Unsupported = 4 "unsupported",
        /// It certainly did not take effect, as often as it was tried.
        Absent = 5 "absent",
        /// Nobody can say whether it took effect.
        Unknown = 6 "unknown",
        /// The step did what nobody announced.
        Deviation = 7 "deviation",
        /// It was not done, or its condition did not hold, in time.
        Deadline = 8 "deadline",
        /// Something became worse, or nobody can say whether it did.
        Regression = 9 "regression",
        /// A person asked.
        Requested = 10 "requested",
        /// A hold that asks for compensation.
        Held = 11 "held",
    }
}

/// How a plan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every step is done.
    Committed,
    /// What could be undone is undone.
    Undone(Cause),
    /// These keys could neither be done nor undone.
    Stuck(Vec<Key>),
    /// What is done stays done; the rest does not happen.
    Stopped(Cause),
}

base::record! {
    /// A call is about to be made.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Intend {
        /// Its key.
        1 pub key: Key,
        /// The step.
        2 pub step: String,
        /// Under which it will be made first.
        3 pub fence: Fence,
        /// The fields before.
        4 pub pre_image: State,
        /// The fields as they shall be.
        5 pub desired: State,
        /// The versions that are expected.
        6 pub versions: Versions,
        /// When the data plane itself restores what was before.
        7 pub expires_at: Option<Timestamp>,
        /// When the step began; its deadline counts from here.
        8 pub at: Timestamp,
    }
}

base::record! {
    /// What the target says about a call nobody knew the outcome of.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Settled {
        /// The call's key.
        1 pub key: Key,
        /// Its receipt; absent if it certainly did not take effect.
        2 pub receipt: Option<Receipt>,
    }
}

base::record! {
    /// A step or its compensation failed.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Failure {
        /// The call's key.
        1 pub key: Key,
        /// Why.
        2 pub cause: Cause,
    }
}

base::record! {
    /// The undo begins.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct UndoBegin {
        /// Why.
        1 pub cause: Cause,
        /// The savepoint before this step; absent: the start.
        2 pub to: Option<String>,
    }
}

base::record! {
    /// A compensation is about to be made.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct UndoIntend {
        /// Its key: that of the call with `!undo`.
        1 pub key: Key,
        /// The step.
        2 pub step: String,
        /// Under which it will be made first.
        3 pub fence: Fence,
        /// The fields as they shall be again.
        4 pub restore: State,
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A call is about to be made.
    Intend(Intend),
    /// It took effect.
    Did(Receipt),
    /// Nobody can say yet whether it did.
    Unknown(Key),
    /// Now somebody can.
    Reconciled(Settled),
    /// It was refused and certainly took no effect.
    Refused(Failure),
    /// The step is done and its guard has closed.
    Done(Key),
    /// The step failed after it took effect, or without anybody knowing.
    Failed(Failure),
    /// The step is tried again, deliberately, under this key.
    Repeat(Key),
    /// The undo begins.
    UndoBegin(UndoBegin),
    /// A compensation is about to be made.
    UndoIntend(UndoIntend),
    /// It took effect.
    UndoDid(Receipt),
    /// It could not be made; the step is stuck.
    UndoFailed(Failure),
    /// The data plane itself restored what was before a call; its receipt has the versions since.
    Expired(Receipt),
    /// The plan ended.
    Finish(Outcome),
}

impl Record {
    /// The word for displays.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Record::Intend(_) => "intend",
            Record::Did(_) => "did",
            Record::Unknown(_) => "unknown",
            Record::Reconciled(_) => "reconciled",
            Record::Refused(_) => "refused",
            Record::Done(_) => "done",
            Record::Failed(_) => "failed",
            Record::Repeat(_) => "repeat",
            Record::UndoBegin(_) => "undo-begin",
            Record::UndoIntend(_) => "undo-intend",
            Record::UndoDid(_) => "undo-did",
            Record::UndoFailed(_) => "undo-failed",
            Record::Expired(_) => "expired",
            Record::Finish(_) => "finish",
        }
    }

    /// The key of the call it is about; none for records about the whole plan.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        match self {
            Record::Intend(intend) => Some(&intend.key),
            Record::Did(receipt) | Record::UndoDid(receipt) | Record::Expired(receipt) => Some(&receipt.key),
            Record::Unknown(key) | Record::Done(key) | Record::Repeat(key) => Some(key),
            Record::Reconciled(settled) => Some(&settled.key),
            Record::Refused(failure) | Record::Failed(failure) | Record::UndoFailed(failure) => Some(&failure.key),
            Record::UndoIntend(undo) => Some(&undo.key),
            Record::UndoBegin(_) | Record::Finish(_) => None,
        }
    }

    /// Whether it announces an effect: a hold refuses these and accepts all others.
    #[must_use]
    pub fn announces(&self) -> bool {
        matches!(self, Record::Intend(_) | Record::UndoIntend(_))
    }
}

impl Canon for Record {
    fn to_value(&self) -> Value {
        let (tag, content): (u64, Value) = match self {
            Record::Intend(intend) => (1, intend.to_value()),
            Record::Did(receipt) => (2, receipt.to_value()),
            Record::Unknown(key) => (3, key.to_value()),
            Record::Reconciled(settled) => (4, settled.to_value()),
            Record::Refused(failure) => (5, failure.to_value()),
            Record::Done(key) => (6, key.to_value()),
            Record::Failed(failure) => (7, failure.to_value()),
            Record::Repeat(key) => (8, key.to_value()),
            Record::UndoBegin(begin) => (9, begin.to_value()),
            Record::UndoIntend(undo) => (10, undo.to_value()),
            Record::UndoDid(receipt) => (11, receipt.to_value()),
            Record::UndoFailed(failure) => (12, failure.to_value()),
            Record::Expired(receipt) => (13, receipt.to_value()),
            Record::Finish(outcome) => (14, outcome.to_value()),
        };
        (tag, content).to_value()
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        let (tag, content) = <(u64, Value)>::from_value(value)?;
        match tag {
            1 => Intend::from_value(content).map(Record::Intend),
            2 => Receipt::from_value(content).map(Record::Did),
            3 => Key::from_value(content).map(Record::Unknown),
            4 => Settled::from_value(content).map(Record::Reconciled),
            5 => Failure::from_value(content).map(Record::Refused),
            6 => Key::from_value(content).map(Record::Done),
            7 => Failure::from_value(content).map(Record::Failed),
            8 => Key::from_value(content).map(Record::Repeat),
            9 => UndoBegin::from_value(content).map(Record::UndoBegin),
            10 => UndoIntend::from_value(content).map(Record::UndoIntend),
            11 => Receipt::from_value(content).map(Record::UndoDid),
            12 => Failure::from_value(content).map(Record::UndoFailed),
            13 => Receipt::from_value(content).map(Record::Expired),
            14 => Outcome::from_value(content).map(Record::Finish),
            _ => Err(Error::OutOfRange),
        }
    }
}

impl Canon for Outcome {
    fn to_value(&self) -> Value {
        let (tag, content): (u64, Value) = match self {
            Outcome::Committed => (1, Value::Bool(true)),
            Outcome::Undone(cause) => (2, cause.to_value()),
            Outcome::Stuck(keys) => (3, keys.to_value()),
            Outcome::Stopped(cause) => (4, cause.to_value()),
        };
        (tag, content).to_value()
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        match <(u64, Value)>::from_value(value)? {
            (1, Value::Bool(true)) => Ok(Outcome::Committed),
            (2, content) => Cause::from_value(content).map(Outcome::Undone),
            (3, content) => Vec::from_value(content).map(Outcome::Stuck),
            (4, content) => Cause::from_value(content).map(Outcome::Stopped),
            _ => Err(Error::OutOfRange),
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Committed => f.write_str("committed"),
            Outcome::Undone(cause) => write!(f, "undone ({cause})"),
            Outcome::Stuck(keys) => {
                let keys: Vec<String> = keys.iter().map(Key::to_string).collect();
                write!(f, "stuck: {}", keys.join(", "))
            }
            Outcome::Stopped(cause) => write!(f, "stopped ({cause})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::CallOutcome;
    use base::Millis;

    fn key() -> Key {
        Key("0123456789abcdef/s1".into())
    }

    pub(crate) fn receipt() -> Receipt {
        Receipt {
            key: key(),
            fence: Fence { epoch: 3, version: 1 },
            outcome: CallOutcome::Applied,
            before: [("limit/a->b".into(), -1)].into(),
            after: [("limit/a->b".into(), 45_000)].into(),
            versions: [("limit/a->b".into(), 7)].into(),
            native_id: None,
            took: Millis(12),
        }
    }

    #[test]
    fn every_record_reads_back_and_nothing_else_does() {
        let failure = Failure { key: key(), cause: Cause::Drift };
        let intend = Intend {
            key: key(),
            step: "s1".into(),
            fence: Fence { epoch: 3, version: 1 },
            pre_image: receipt().before,
            desired: receipt().after,
            versions: Versions::new(),
            expires_at: Some(Timestamp(9)),
            at: Timestamp(5),
        };
        let undo = UndoIntend { key: key().undo(), step: "s1".into(), fence: intend.fence, restore: receipt().before };
        let records = [
            Record::Intend(intend),
            Record::Did(receipt()),
            Record::Unknown(key()),
            Record::Reconciled(Settled { key: key(), receipt: Some(receipt()) }),
            Record::Reconciled(Settled { key: key(), receipt: None }),
            Record::Refused(failure.clone()),
            Record::Done(key()),
            Record::Failed(failure.clone()),
            Record::Repeat(key().repeat(1)),
            Record::UndoBegin(UndoBegin { cause: Cause::Regression, to: Some("s1".into()) }),
            Record::UndoIntend(undo),
            Record::UndoDid(receipt()),
            Record::UndoFailed(failure),
            Record::Expired(receipt()),
            Record::Finish(Outcome::Committed),
            Record::Finish(Outcome::Undone(Cause::Requested)),
            Record::Finish(Outcome::Stuck(vec![key()])),
            Record::Finish(Outcome::Stopped(Cause::Absent)),
        ];
        for record in records {
            let bytes = base::canon::object("journal", &record.to_value());
            let value = base::canon::parse_object("journal", &bytes).unwrap();
            assert_eq!(Record::from_value(value), Ok(record));
        }
        assert!(Record::from_value((15_u64, true).to_value()).is_err());
        assert!(Record::from_value((6_u64, true).to_value()).is_err());
    }
}
