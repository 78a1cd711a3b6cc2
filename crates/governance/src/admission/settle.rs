use super::Outcome;
use crate::Code;

words! {
    /// The checks in their order.
    pub enum Check {
        /// A hold covers the scope.
        A1 = 1 "A1",
        /// Signatures, roles, forms.
        A2 = 2 "A2",
        /// Digests chain.
        A3 = 3 "A3",
        /// Expiry.
        A4 = 4 "A4",
        /// Numbers present and possible.
        A5 = 5 "A5",
        /// Permitted by class, tier, trust zone, scope ratio.
        A6 = 6 "A6",
        /// Accepted by the kernel.
        A7 = 7 "A7",
        /// Invariants not violated; nothing escaped.
        A8 = 8 "A8",
        /// Quorum-safe.
        A9 = 9 "A9",
        /// Risk.
        E1 = 11 "E1",
        /// A sufficient preview.
        E2 = 12 "E2",
        /// A fresh preview.
        E3 = 13 "E3",
        /// Invariants evaluable.
        E4 = 14 "E4",
        /// Fidelity.
        E5 = 15 "E5",
        /// Error of the preview.
        E6 = 16 "E6",
        /// Amplification.
        E7 = 17 "E7",
        /// Observers.
        E8 = 18 "E8",
        /// Over budget without a fix.
        E9 = 19 "E9",
        /// Evidence for auto.
        E10 = 20 "E10",
        /// Unexplained behavior.
        E11 = 21 "E11",
        /// Economics, fixable.
        M1 = 31 "M1",
        /// Delay, fixable.
        M2 = 32 "M2",
        /// Convergence, fixable.
        M3 = 33 "M3",
        /// Amplification, fixable.
        M4 = 34 "M4",
    }
}

impl Check {
    /// The outcome it leads to.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self as u64 {
            1..=9 => Outcome::Abort,
            11..=21 => Outcome::Escalate,
            _ => Outcome::MutateParameters,
        }
    }

    /// Its code.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Check::A1 => Code::G101,
            Check::A2 => Code::G102,
            Check::A3 => Code::G103,
            Check::A4 => Code::G104,
            Check::A5 => Code::G105,
            Check::A6 => Code::G106,
            Check::A7 => Code::G107,
            Check::A8 => Code::G108,
            Check::A9 => Code::G109,
            Check::E1 => Code::G201,
            Check::E2 => Code::G202,
            Check::E3 => Code::G203,
            Check::E4 => Code::G204,
            Check::E5 => Code::G205,
            Check::E6 => Code::G206,
            Check::E7 => Code::G207,
            Check::E8 => Code::G208,
            Check::E9 => Code::G209,
            Check::E10 => Code::G210,
            Check::E11 => Code::G211,
            Check::M1 => Code::G301,
            Check::M2 => Code::G302,
            Check::M3 => Code::G303,
            Check::M4 => Code::G304,
        }
    }

    /// Whether a bypass skips it: what only a preview can tell.
    #[must_use]
    pub fn is_bypassable(self) -> bool {
        use Check::{E1, E2, E5, E6, E7, E11, M3, M4};
        matches!(self, E1 | E2 | E5 | E6 | E7 | E11 | M3 | M4)
    }

    /// Whether people may accept it: never an A-check, nor E4, whose way out is a signed measurement.
    #[must_use]
    pub fn is_acceptable(self) -> bool {
        self.outcome() == Outcome::Escalate && self != Check::E4
    }
}

/// The outcome of a set of fired checks, and the one that binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The severest outcome.
    pub outcome: Outcome,
    /// The first fired check of that severity.
    pub binding: Option<Check>,
}

/// Settles fired checks: a maximum, so that no mild check can shadow a severe one. `severity` gives the
/// outcome of a check (a class may make E4 an abort).
#[must_use]
pub fn settle(fired: impl IntoIterator<Item = Check>, severity: impl Fn(Check) -> Outcome) -> Settled {
    fired.into_iter().fold(Settled::NOTHING, |settled, check| settled.with(check, severity(check)))
}

impl Settled {
    /// No check fired.
    pub const NOTHING: Settled = Settled { outcome: Outcome::Commit, binding: None };

    /// The same with one more fired check.
    #[must_use]
    pub fn with(self, check: Check, outcome: Outcome) -> Settled {
        let is_first = self.binding.is_none_or(|binding| check < binding);
        if outcome > self.outcome || (outcome == self.outcome && is_first) {
            return Settled { outcome, binding: Some(check) };
        }
        self
    }
}
