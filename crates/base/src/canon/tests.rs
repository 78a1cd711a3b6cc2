use super::*;
use crate::Digest;
use proptest::prelude::*;

crate::record! {
    #[derive(Clone, Debug, PartialEq)]
    struct Sample { 1 name: String, 2 count: Option<u64>, 5 tags: BTreeMap<String, bool> }
}

fn sample() -> Sample {
    Sample { name: "a".into(), count: Some(7), tags: [("x".to_owned(), true)].into() }
}

#[test]
fn golden_vector_of_a_record() {
    let bytes = object("sample", &sample().to_value());
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = concat!(
        "7374616e63682f73616d706c652f763100", // stanch/sample/v1 NUL
        "0800000003",                         // a record of three fields
        "0001060000000161",                   // 1: "a"
        "0002010000000000000007",             // 2: 7
        "000509000000010000000178",           // 5: a map of one, key "x"
        "03"                                  // true
    );
    assert_eq!(hex, expected);
    assert_eq!(Digest::of(&bytes), Digest::of_object("sample", &sample()));
    assert_eq!(Sample::from_value(parse_object("sample", &bytes).unwrap()), Ok(sample()));
}

#[test]
fn every_other_encoding_is_refused() {
    let good = object("sample", &sample().to_value());
    for end in 0..good.len() {
        assert!(parse_object("sample", &good[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(parse_object("sample", &[good.clone(), vec![0]].concat()), Err(Error::Trailing));
    assert_eq!(parse_object("other", &good), Err(Error::Kind));
    let head = b"stanch/k/v1\0";
    for (body, error) in [
        (&[0_u8][..], Error::UnknownTag),
        (&[8, 0, 0, 0, 2, 0, 1, 3, 0, 1, 3], Error::Order),
        (&[9, 0, 0, 0, 2, 0, 0, 0, 1, b'b', 3, 0, 0, 0, 1, b'a', 3], Error::Order),
        (&[6, 0, 0, 0, 1, 0xff], Error::NotUtf8),
        (&[7, 0xff, 0xff, 0xff, 0xff], Error::Truncated),
    ] {
        assert_eq!(parse_object("k", &[&head[..], body].concat()), Err(error));
    }
    let nested = |depth: u32| [&head[..], &[7, 0, 0, 0, 1].repeat(depth as usize), &[3]].concat();
    assert!(parse_object("k", &nested(DEPTH_MAX)).is_ok_and(|value| object("k", &value) == nested(DEPTH_MAX)));
    assert_eq!(parse_object("k", &nested(DEPTH_MAX + 1)), Err(Error::Depth));
    assert_eq!(parse_object("k", &nested(100_000)), Err(Error::Depth));
}

#[test]
fn unknown_and_missing_fields_are_refused() {
    let extra = Value::Record(vec![(1, Value::Text("a".into())), (9, Value::Bool(true))]);
    assert_eq!(Sample::from_value(extra), Err(Error::Missing(5)));
    let mut value = sample().to_value();
    if let Value::Record(fields) = &mut value {
        fields.push((9, Value::Bool(true)));
    }
    assert_eq!(Sample::from_value(value), Err(Error::UnknownField(9)));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<u64>().prop_map(Value::Unsigned),
        any::<i64>().prop_map(Value::Signed),
        any::<bool>().prop_map(Value::Bool),
        proptest::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
        ".{0,8}".prop_map(Value::Text),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            proptest::collection::btree_map(any::<u16>(), inner.clone(), 0..6)
                .prop_map(|fields| Value::Record(fields.into_iter().collect())),
            proptest::collection::btree_map(".{0,5}", inner, 0..6).prop_map(Value::Map),
        ]
    })
}

proptest! {
    #[test]
    fn values_round_trip(value in any_value()) {
        prop_assert_eq!(parse_object("k", &object("k", &value)), Ok(value));
    }

    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        let bytes = [&b"stanch/k/v1\0"[..], &body].concat();
        if let Ok(value) = parse_object("k", &bytes) {
            prop_assert_eq!(object("k", &value), bytes);
        }
    }
}
