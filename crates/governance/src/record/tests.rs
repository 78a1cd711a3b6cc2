use super::*;
use crate::keys::KeySet;
use base::{Digest, Envelope, Millis, Role, SigningKey, Timestamp};
use expect_test::expect;

fn keys() -> KeySet {
    KeySet::from_seeds(&std::array::from_fn(|at| [u8::try_from(at).unwrap() + 1; 32]))
}

fn hold() -> Hold {
    Hold { scope: "payments".into(), version: 7, reason: "drill".into(), undo: true, by: None }
}

fn link() -> Link {
    Link { incident: Some("abc".into()), seq: 3, prev: Some(Digest::of(b"before")), at: Timestamp(5) }
}

#[test]
fn a_record_opens_as_it_was_signed() {
    let keys = keys();
    let envelope = keys.signer(Role::Human).sign(&link(), hold()).unwrap();
    let signed = open(&envelope, &keys.bootstrap_keyring(), 9).unwrap();
    assert_eq!(signed.get::<Hold>(), Some(&hold()));
    assert_eq!((signed.index(), signed.common().seq, signed.is_suspect()), (9, 3, false));
    assert_eq!(signed.digest(), Digest::of(&envelope.payload));
    assert_eq!(signed.narrow::<Hold>().map(|hold| hold.digest()), Some(signed.digest()));
    assert_eq!(signed.get::<Seal>(), None);
}

#[test]
fn the_canonical_bytes_do_not_change() {
    let envelope = keys().signer(Role::Human).sign(&link(), hold()).unwrap();
    expect!["9d33"].assert_eq(&Digest::of(&envelope.payload).to_string()[..4]);
    let rendered = Statement::from_bytes(&envelope.payload).unwrap().render();
    assert_eq!(rendered["predicateType"], "urn:stanch:hold:v1");
    assert_eq!(rendered["subject"][0]["name"], "scope/payments");
    assert_eq!(rendered["predicate"]["hold"]["reason"], "drill");
    assert_eq!(rendered["predicate"]["role"], "human");
}

#[test]
fn only_the_listed_roles_may_sign() {
    let keys = keys();
    for role in Role::ALL {
        let allowed = RecordKind::Hold.roles().contains(role);
        assert_eq!(keys.signer(*role).sign(&link(), hold()).is_ok(), allowed, "{role}");
        // A signer that lies about its role signs, and is found out.
        let lying = Signer { role: Role::Human, ..keys.signer(*role) };
        let opened = open(&lying.sign(&link(), hold()).unwrap(), &keys.bootstrap_keyring(), 0);
        assert_eq!(opened.is_ok(), *role == Role::Human, "{role}");
    }
}

#[test]
fn no_role_may_both_decide_and_act() {
    for kind in RecordKind::ALL {
        let roles = kind.roles();
        assert!(!roles.is_empty());
        let automated = |role: &Role| {
            matches!(role, Role::Detector | Role::Agent | Role::Runner | Role::Evaluator | Role::Executor)
        };
        if [RecordKind::Decision, RecordKind::Check, RecordKind::Estimate].contains(kind) {
            assert_eq!(roles, [Role::Evaluator]);
        }
        if [RecordKind::Approval, RecordKind::Denial, RecordKind::Exception].contains(kind) {
            assert_eq!(roles, [Role::Human]);
        }
        assert!(roles.contains(&Role::Human) || roles.contains(&Role::Root) || roles.iter().all(automated));
    }
}

#[test]
fn identity_position_suspicion_and_bytes_are_checked() {
    let keys = keys();
    let human = keys.signer(Role::Human);
    let mut ring = keys.bootstrap_keyring();
    let envelope = human.sign(&link(), hold()).unwrap();
    let other = Signer { principal: "somebody".into(), ..human.clone() }.sign(&link(), hold()).unwrap();
    assert_eq!(open(&other, &ring, 0), Err(OpenError::Identity));
    let mut altered = envelope.clone();
    *altered.payload.last_mut().unwrap() ^= 7;
    assert!(open(&altered, &ring, 0).is_err());
    let retyped = Envelope { payload_type: "text/plain".into(), ..envelope.clone() };
    assert_eq!(open(&retyped, &ring, 0), Err(OpenError::Kind));
    let stranger = Signer { key: SigningKey::from_seed(&[99; 32]), ..human }.sign(&link(), hold()).unwrap();
    assert_eq!(open(&stranger, &ring, 0).unwrap_err().step(), crate::Code::V5);
    for entry in &mut ring.keys {
        (entry.not_before_index, entry.revoked_at_index, entry.suspect_from_index) = (2, Some(8), Some(6));
    }
    let at = |index| open(&envelope, &ring, index).map(|signed| signed.is_suspect());
    assert!(at(1).is_err() && at(8).is_err());
    assert_eq!((at(2), at(5), at(6), at(7)), (Ok(false), Ok(false), Ok(true), Ok(true)));
}

#[test]
fn a_subject_that_is_not_what_the_record_is_about_is_refused() {
    let keys = keys();
    let envelope = keys.signer(Role::Human).sign(&link(), hold()).unwrap();
    let at = envelope.payload.windows(14).position(|window| window == b"scope/payments").unwrap();
    let mut payload = envelope.payload.clone();
    payload[at + 6] = b'b';
    let forged = Envelope::sign(base::STATEMENT_TYPE, payload, keys.key(Role::Human));
    assert_eq!(open(&forged, &keys.bootstrap_keyring(), 0), Err(OpenError::Subject));
    // Every truncation and every flipped byte of a statement is another statement or none.
    for end in 0..envelope.payload.len() {
        assert!(Statement::from_bytes(&envelope.payload[..end]).is_err());
    }
    for at in 0..envelope.payload.len() {
        let mut payload = envelope.payload.clone();
        payload[at] ^= 1;
        let reread = Statement::from_bytes(&payload).map(|statement| statement.to_bytes());
        assert!(reread.is_err() || reread == Ok(payload), "{at}");
    }
}

#[test]
fn two_detectors_of_one_fault_name_one_incident() {
    let round = Millis(600_000);
    let start = window_start(Timestamp(1_234_567_890), round);
    assert_eq!(start, Timestamp(1_234_200_000));
    assert_eq!(window_start(Timestamp(-1), round), Timestamp(-600_000));
    let id = incident_id(Digest::of(b"checkout p99"), start, 0);
    assert_eq!(id.len(), 26);
    assert!(id.bytes().all(|byte| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte)));
    assert_eq!(id, incident_id(Digest::of(b"checkout p99"), start, 0));
    assert_ne!(id, incident_id(Digest::of(b"checkout p99"), start, 1));
}
