//! `docs/limits.md` lists every limit of the engine with its value, and nothing else.

use std::collections::BTreeMap;

const SOURCES: [&str; 2] = [include_str!("../src/limits.rs"), include_str!("../src/placement/mod.rs")];
const PAGE: &str = include_str!("../docs/limits.md");

/// The value of a constant as the sources write it: a number, a shifted number, or seconds.
fn value(expression: &str) -> String {
    let number = |text: &str| -> u64 {
        text.replace('_', "").parse().unwrap_or_else(|_| panic!("{expression} is written in a new way"))
    };
    if let Some(seconds) = expression.strip_prefix("Duration::from_secs(") {
        return format!("{} s", number(seconds.trim_end_matches(')')));
    }
    let value = match expression.split_once(" << ") {
        Some((base, shift)) => number(base) << number(shift),
        None => number(expression),
    };
    let digits = value.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn constants() -> BTreeMap<String, String> {
    let lines = SOURCES.iter().flat_map(|source| source.lines());
    let constant = |line: &str| {
        let (name, rest) = line.strip_prefix("pub const ")?.split_once(": ")?;
        let (_, expression) = rest.strip_suffix(';')?.split_once(" = ")?;
        Some((name.to_owned(), value(expression)))
    };
    lines.filter_map(constant).collect()
}

fn rows() -> BTreeMap<String, String> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.to_owned()))
    };
    PAGE.lines().filter_map(row).collect()
}

#[test]
fn the_page_and_the_sources_name_the_same_limits_with_the_same_values() {
    let constants = constants();
    assert!(constants.len() > 20, "the constants were found");
    assert_eq!(rows(), constants);
}

#[test]
fn every_public_constant_of_the_sources_is_understood() {
    let public =
        SOURCES.iter().flat_map(|source| source.lines()).filter(|line| line.starts_with("pub const "));
    assert_eq!(public.count(), constants().len());
}
