//! The stable codes of governance: G of the decision, V of the verifier, L of the policy file.

macro_rules! codes {
    ($($(#[$meta:meta])* $code:ident = $number:literal $word:literal, $title:literal, $remedy:literal;)*) => {
        words! {
            /// A stable code with a page under `docs/errors/`.
            pub enum Code { $($(#[$meta])* $code = $number $word),* }
        }
        impl Code {
            /// One line that says what happened.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Code::$code => $title),* }
            }
            /// One line that says what to do about it.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(Code::$code => $remedy),* }
            }
        }
    };
}

codes! {
    /// A1.
    G101 = 101 "G101", "a hold covers this scope", "ask who placed it; when its reason is gone and it is lifted, start a new recovery";
    /// A2.
    G102 = 102 "G102", "a record is missing or not validly signed", "show the record with `stanch evidence show`; check the keyring's roles and positions";
    /// A3.
    G103 = 103 "G103", "the records do not belong together", "preview the very plan that is to be decided, under the same intent";
    /// A4.
    G104 = 104 "G104", "the intent or the request has expired", "start a new recovery; an expired intent is never extended";
    /// A5.
    G105 = 105 "G105", "a required number is missing or impossible", "see which input is named; shares lie between 0% and 100%";
    /// A6.
    G106 = 106 "G106", "the policy does not permit this action here", "narrow the plan, or change the policy's actions, trust zones or scope_ratio_max";
    /// A7.
    G107 = 107 "G107", "the kernel has not accepted the plan", "read its rejections in the output of `stanch recover`, and ask for a plan without them";
    /// A8.
    G108 = 108 "G108", "a required invariant is violated", "read the witness beside the invariant; the plan must not proceed while it stands";
    /// A9.
    G109 = 109 "G109", "quorum intersection does not hold in every phase", "change membership one member at a time, or supply the quorum signals";
    /// E1.
    G201 = 201 "G201", "the risk is above the limit", "a person decides; more previews and drills narrow the risk";
    /// E2.
    G202 = 202 "G202", "no sufficient preview", "run the preview again; it must complete with enough runs";
    /// E3.
    G203 = 203 "G203", "the preview is stale", "preview again: time passed or the system changed since";
    /// E4.
    G204 = 204 "G204", "a required invariant cannot be evaluated", "supply the missing signal, or measure it by hand and sign the measurement";
    /// E5.
    G205 = 205 "G205", "the preview's fidelity is below the minimum", "preview at the level that the class asks for in this tier";
    /// E6.
    G206 = 206 "G206", "the preview's error is unknown or above the limit", "collect calibration pairs, or accept with a person's signature";
    /// E7.
    G207 = 207 "G207", "it could make things worse more often than allowed", "choose a smaller or slower plan";
    /// E8.
    G208 = 208 "G208", "the observers do not agree enough", "look at the votes; repair or wait for the missing observers";
    /// E9.
    G209 = 209 "G209", "over budget and nothing left to change", "choose another plan, or raise the budget in the policy";
    /// E10.
    G210 = 210 "G210", "not enough evidence to act without a person", "do it by hand; the reasons name what is missing before stanch may act alone";
    /// E11.
    G211 = 211 "G211", "the preview behaved in an unexplained way", "read the divergence before anything runs";
    /// M1.
    G301 = 301 "G301", "load, retries or backlog would exceed the budget", "the named parameter is changed and previewed again";
    /// M2.
    G302 = 302 "G302", "it would take longer than allowed", "the named parameter is changed and previewed again";
    /// M3.
    G303 = 303 "G303", "it would converge after its deadline", "the named parameter is changed and previewed again";
    /// M4.
    G304 = 304 "G304", "it could make things worse more often than allowed; a smaller change may not", "the named parameter is changed and previewed again";

    /// Container.
    V0 = 400 "V0", "the container is not in its one form", "ask for the bundle again; bytes were changed, added or cut";
    /// Manifest.
    V1 = 401 "V1", "a member does not match the manifest", "ask for the bundle again; the named member was changed";
    /// Checkpoint.
    V2 = 402 "V2", "the checkpoint is not validly signed", "compare the log key with the one you pinned";
    /// Inclusion.
    V3 = 403 "V3", "an entry is not in the log", "the entry or its proof was changed";
    /// Consistency.
    V4 = 404 "V4", "the log's checkpoints contradict each other", "the log was forked or rolled back; keep both files";
    /// Keys and roles.
    V5 = 405 "V5", "a key, role or signature does not hold", "the record names the key; compare the keyring with the one you pinned";
    /// Canonical bytes.
    V6 = 406 "V6", "a record is not in its one form", "the entry is not a record of this format";
    /// Chain.
    V7 = 407 "V7", "the incident's records have a gap", "a record was left out, repeated or reordered";
    /// Links.
    V8 = 408 "V8", "a record refers to something else than it claims", "the named record was exchanged";
    /// Approvals.
    V9 = 409 "V9", "the approvals are not sufficient", "the decision asked for more, other or earlier approvals";
    /// Estimates.
    V10 = 410 "V10", "an estimate does not follow from its counts", "the named estimate was computed wrongly or changed";
    /// Decisions.
    V11 = 411 "V11", "a decision does not follow from its inputs", "the decision was changed, or made by other rules";
    /// Seal.
    V12 = 412 "V12", "the seal does not cover the incident", "the incident is still open, or records were left out";

    /// Malformed value.
    L001 = 501 "L001", "a value is not what the key takes", "write it as the message says";
    /// Unknown name.
    L002 = 502 "L002", "a name that is defined nowhere", "define it, or correct the spelling";
    /// Contradiction.
    L003 = 503 "L003", "the file contradicts itself", "see the message";
    /// Class without invariant.
    L010 = 510 "L010", "a class without an invariant", "name at least one invariant";
    /// Class without owner.
    L011 = 511 "L011", "a class without owner or failure assumptions", "name who answers for it and what it assumes";
    /// Bypass without reasons.
    L012 = 512 "L012", "a bypass without reasons", "name the reasons for which it may be used";
    /// Auto without drill.
    L013 = 513 "L013", "level auto without a drill", "set drill_every, or a lower level";
    /// F1 only.
    L014 = 514 "L014", "F1 as the only preview of a mandatory class", "ask for F0, F2 or F3";
    /// Mutable without safe end.
    L015 = 515 "L015", "a mutable parameter without a usable range", "give min <= max, step >= 1 and safer = \"up\" or \"down\"";
    /// Weights.
    L020 = 520 "L020", "weights that do not sum to 100%", "correct the weights";
    /// Ceiling.
    L021 = 521 "L021", "a ceiling that the preview cannot resolve", "raise a_ceiling to at least 0.6%";
    /// Ceiling not explicit.
    L022 = 522 "L022", "a critical tier without its own a_ceiling", "write envelope.a_ceiling for this tier";
    /// Loosened above bronze.
    L023 = 523 "L023", "a loosening that this tier may not have", "remove it, or lower the tier's kind";
    /// One signer.
    L024 = 524 "L024", "one signer for a tier above bronze", "set policy_signers = 2";
    /// Star.
    L025 = 525 "L025", "only the lowest tier may name all services", "list the tier's services";
}

impl Code {
    /// `G101 a hold covers this scope: lift it with …`, for the command line.
    #[must_use]
    pub fn sentence(self) -> String {
        format!("{self} {}: {}", self.title(), self.remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_title_and_a_remedy_of_its_own() {
        let mut sentences: Vec<String> = Code::ALL.iter().map(|code| code.sentence()).collect();
        assert!(sentences.iter().all(|sentence| sentence.len() > 20));
        sentences.sort();
        sentences.dedup();
        assert_eq!(sentences.len(), Code::ALL.len());
        assert_eq!(Code::parse("G109"), Some(Code::G109));
    }
}
