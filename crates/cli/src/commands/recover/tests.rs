use super::*;

#[test]
fn a_long_row_goes_on_below_its_text_and_loses_no_word() {
    let row = format!("outcome        {}", "why → ".repeat(60));
    let lines = wrapped(row.trim_end());
    assert!(lines.len() > 3 && lines.iter().all(|line| line.chars().count() <= COLUMNS_MAX), "{lines:#?}");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&lines.join(" ")), words(&row));
    for line in lines.iter().skip(1) {
        assert!(line.starts_with("               w") || line.starts_with("               →"), "{line}");
    }
}

#[test]
fn a_short_row_and_a_long_word_stay_whole() {
    let path = format!("verified       {}", "/a".repeat(80));
    for row in ["", "intent         signed", &path, &"x".repeat(150)] {
        assert_eq!(wrapped(row), [row]);
    }
    let long = format!("verified       {} and more", "/a".repeat(80));
    assert_eq!(wrapped(&long), [&path, "               and more"]);
    let behind = format!("verified       it is {}", "/a".repeat(80));
    assert_eq!(wrapped(&behind), ["verified       it is".to_owned(), format!("               {}", "/a".repeat(80))]);
}
