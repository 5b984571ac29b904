//! Ranges of seeds as people write them.

use std::{ops::Range, str::FromStr};

/// Seeds from the first to the one before the last: `0..1000`, or one seed alone: `17`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(pub Range<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no range of seeds; write 0..1000, or a single number");
        let number = |text: &str| text.trim().replace('_', "").parse::<u64>().map_err(|_| wrong());
        let range = match text.split_once("..") {
            Some((from, to)) => number(from)?..number(to)?,
            None => {
                let seed = number(text)?;
                seed..seed.checked_add(1).ok_or_else(wrong)?
            }
        };
        if range.is_empty() { Err(wrong()) } else { Ok(Self(range)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_nonsense_is_refused() {
        for (text, expected) in [("0..10", 0..10), ("17", 17..18), ("1_000..2_000", 1_000..2_000)] {
            assert_eq!(text.parse(), Ok(Seeds(expected)));
        }
        for text in ["", "a..b", "5..5", "7..3", "1..", "18446744073709551615"] {
            assert!(text.parse::<Seeds>().is_err(), "{text:?}");
        }
    }
}
