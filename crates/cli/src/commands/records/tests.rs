use super::*;

#[test]
fn times_are_said_in_two_units_at_most() {
    for (ms, said) in [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_250, "1.2 s"),
        (60_000, "1 m"),
        (61_000, "1 m 1 s"),
        (3_599_995, "1 h"),
        (3_660_000, "1 h 1 m"),
        (172_799_000, "2 d"),
        (u64::MAX, "213503982334 d 14 h"),
        (86_400_000, "1 d"),
        (90_000_000, "1 d 1 h"),
    ] {
        assert_eq!(span(Millis(ms)), said);
    }
    assert_eq!(seen(Timestamp(5_000), Timestamp(8_000)), "3.0 s ago");
    assert_eq!(seen(Timestamp(68_000), Timestamp(8_000)), "in 1 m");
}

#[test]
fn what_is_typed_is_json_or_else_text_and_reads_back_as_it_was() {
    for (typed, read) in
        [("7", json!(7)), ("true", json!(true)), ("a b", json!("a b")), ("\"7\"", json!("7")), ("{", json!("{"))]
    {
        assert_eq!(decoded(&payload(Some(typed), None)), Some(read), "{typed}");
    }
    assert_eq!(payload(None, Some("as it is")), Value::text("as it is"));
    assert_eq!(shown(&Value::text("no base64"), false), "no base64");
    // Base64 of what is no JSON stays as it is.
    assert_eq!(shown(&Value::text("/w=="), false), "/w==");
    let value = payload(Some("x"), None);
    assert_eq!((shown(&value, false).as_str(), shown(&value, true).as_str()), ("\"x\"", "Ingi"));
    assert!(payload(None, None).is_empty());
}

#[test]
fn a_call_is_what_the_clients_of_the_protocol_send() {
    let args = |json_args, arg: &[&str]| CallArgs {
        arg: arg.iter().map(|arg| (*arg).to_owned()).collect(),
        json_args,
        func_version: 2,
    };
    let value = call("add", &args(true, &["1", "[2]"])).unwrap();
    assert_eq!(decoded(&value), Some(json!({ "func": "add", "args": [1, [2]], "version": 2 })));
    let value = call("add", &args(false, &["1", "x"])).unwrap();
    assert_eq!(decoded(&value).unwrap()["args"], json!(["1", "x"]));
    let refused = call("add", &args(true, &["x"])).unwrap_err();
    assert!(refused.exit == 2 && refused.message.contains("--arg x"), "{refused:?}");
}

#[test]
fn an_id_is_a_part_of_an_address_whatever_it_holds() {
    assert_eq!(escaped("a-1.b:2/ü&"), "a-1.b%3A2%2F%C3%BC%26");
}

#[test]
fn a_cell_is_cut_between_characters_and_stays_on_its_line() {
    assert_eq!(cell("a\nb"), "a b");
    assert_eq!(cell(&"ü".repeat(CELL)).chars().count(), CELL);
    assert_eq!(cell(&"ü".repeat(CELL + 1)), format!("{}…", "ü".repeat(CELL)));
}
