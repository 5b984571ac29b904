//! Property values: the IPLD data model with 64-bit integers.

#![allow(
    clippy::disallowed_types,
    reason = "the specification gives properties as a HashMap; they are sorted at once"
)]

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use crate::{graph::Cid, limits::VALUE_DEPTH_MAX};

/// One property of a node or an edge.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Text.
    String(String),
    /// A whole number.
    Int(i64),
    /// A finite number; `1.0` stays apart from `1`.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Bytes that are no text.
    Bytes(Vec<u8>),
    /// Another block.
    Link(Cid),
    /// A value like any other, not the absence of one.
    Null,
    /// Values in order.
    Array(Vec<Value>),
    /// Named values.
    Map(BTreeMap<String, Value>),
}

/// The properties of a node or an edge by name, in canonical order of iteration.
pub type Properties = BTreeMap<String, Value>;

/// Why a value cannot be stored. Nothing was changed; repeating it will not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// NaN or an infinity: no two tools agree on their bytes.
    #[error("NaN and infinities cannot be stored")]
    NotFinite,
    /// Arrays and maps nested too deeply.
    #[error("arrays and maps may be nested {VALUE_DEPTH_MAX} deep")]
    TooDeep,
    /// The name `/`, which DAG-JSON reserves for links and bytes: the value would have no JSON form.
    #[error("no property and no map entry may have the name \"/\"")]
    ReservedName,
}

/// The name that no property and no map entry may have.
pub(crate) const RESERVED_NAME: &str = "/";

impl Value {
    /// Checks what the type does not say: numbers are finite, nesting is bounded.
    ///
    /// # Errors
    /// Names the first thing that cannot be stored.
    pub fn check(&self) -> Result<(), ValueError> {
        self.check_within(VALUE_DEPTH_MAX)
    }

    /// Bytes that it takes in a block or a message, about.
    pub(crate) fn size(&self) -> usize {
        /// What the kind of a value takes, and a number, a truth or a CID at most.
        const SMALL: usize = 64;
        match self {
            Self::String(text) => SMALL + text.len(),
            Self::Bytes(bytes) => SMALL + bytes.len(),
            Self::Array(items) => SMALL + items.iter().map(Self::size).sum::<usize>(),
            Self::Map(entries) => {
                SMALL + entries.iter().map(|(name, value)| name.len() + value.size()).sum::<usize>()
            }
            Self::Int(_) | Self::Float(_) | Self::Bool(_) | Self::Link(_) | Self::Null => SMALL,
        }
    }

    fn check_within(&self, depth: usize) -> Result<(), ValueError> {
        match self {
            Self::Float(number) if !number.is_finite() => Err(ValueError::NotFinite),
            Self::Array(_) | Self::Map(_) if depth == 0 => Err(ValueError::TooDeep),
            Self::Array(items) => items.iter().try_for_each(|item| item.check_within(depth - 1)),
            Self::Map(entries) => check_entries(entries, depth - 1),
            Self::String(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::Bool(_)
            | Self::Bytes(_)
            | Self::Link(_)
            | Self::Null => Ok(()),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => write!(f, "{text:?}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Link(cid) => write!(f, "{cid}"),
            Self::Null => f.write_str("null"),
            Self::Array(items) => f.debug_list().entries(items).finish(),
            Self::Map(entries) => f.debug_map().entries(entries).finish(),
        }
    }
}

/// Sorts properties and checks each: what enters the log must be the same bytes on every node.
///
/// # Errors
/// Names the first value that cannot be stored.
pub fn canonical_properties(properties: HashMap<String, Value>) -> Result<Properties, ValueError> {
    let properties: Properties = properties.into_iter().collect();
    check_entries(&properties, VALUE_DEPTH_MAX)?;
    Ok(properties)
}

fn check_entries(entries: &BTreeMap<String, Value>, depth: usize) -> Result<(), ValueError> {
    if entries.contains_key(RESERVED_NAME) {
        return Err(ValueError::ReservedName);
    }
    entries.values().try_for_each(|value| value.check_within(depth))
}

macro_rules! from {
    ($($type:ty => $variant:ident),+ $(,)?) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        })+
    };
}

from!(String => String, &str => String, i64 => Int, f64 => Float, bool => Bool, Vec<u8> => Bytes, Cid => Link);

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Value {
        (0..depth).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
    }

    #[test]
    fn numbers_without_canonical_bytes_are_refused() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Value::Float(number).check(), Err(ValueError::NotFinite));
            let map = HashMap::from([("a".to_string(), Value::Array(vec![Value::Float(number)]))]);
            assert_eq!(canonical_properties(map), Err(ValueError::NotFinite));
        }
        assert_eq!(Value::Float(-0.0).check(), Ok(()));
    }

    #[test]
    fn the_reserved_name_is_refused() {
        let inner = Value::Map(BTreeMap::from([("/".to_string(), Value::Null)]));
        assert_eq!(inner.check(), Err(ValueError::ReservedName));
        let outer = HashMap::from([("/".to_string(), Value::Null)]);
        assert_eq!(canonical_properties(outer), Err(ValueError::ReservedName));
    }

    #[test]
    fn nesting_is_bounded() {
        assert_eq!(nested(VALUE_DEPTH_MAX).check(), Ok(()));
        assert_eq!(nested(VALUE_DEPTH_MAX + 1).check(), Err(ValueError::TooDeep));
    }
}
