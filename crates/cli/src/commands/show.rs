//! Tables.

/// A plain table that fits a terminal.
pub(crate) fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(head.iter().copied());
    table.add_rows(rows);
    table.to_string()
}

/// Parts per million as a percentage.
pub(crate) fn percent(ppm: u32) -> String {
    base::Ratio::clamped(u64::from(ppm)).to_string()
}
