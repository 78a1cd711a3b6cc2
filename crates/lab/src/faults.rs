//! Every fault of the shop, each with several seeds: is each of them recovered, and rightly?

mod cell;
mod oracle;
mod results;
mod table;

pub use cell::{Cell, run};
pub use oracle::{Client, Told, Truth, Verdict, judge};
pub use results::{Results, Row};
pub use table::{Machine, text};

/// LIMIT: the largest number of seeds of one fault.
pub const SEEDS_MAX: u64 = 1_000;

/// Reads `1-5` or `3` as seeds.
///
/// # Errors
/// What is wrong with it.
pub fn seeds(text: &str) -> Result<Vec<u64>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("`{text}` is not a number"));
    let (first, last) = (number(first)?, number(last)?);
    if first > last || last - first >= SEEDS_MAX {
        return Err(format!("`{first}-{last}`: from the smaller to the larger, at most {SEEDS_MAX} seeds"));
    }
    Ok((first..=last).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_one_number_or_a_range() {
        assert_eq!(seeds("3"), Ok(vec![3]));
        assert_eq!(seeds("1-5"), Ok(vec![1, 2, 3, 4, 5]));
        assert_eq!(seeds(&format!("1-{SEEDS_MAX}")).map(|seeds| seeds.len() as u64), Ok(SEEDS_MAX));
        let many = format!("0-{SEEDS_MAX}");
        for wrong in ["", "a", "5-1", "1-2-3", &many] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
    }
}
