//! Values as DAG-JSON (ipld.io, DAG-JSON specification), the form people and files use.
//!
//! `{"/":"b…"}` is a link, `{"/":{"bytes":"…"}}` bytes in base64 without padding; `1` is an Int and `1.0` a
//! Float. Where a text could be read in two ways, it is refused: integers outside 64 bits, other keys
//! beside `/`.

#![allow(
    clippy::disallowed_types,
    reason = "the specification gives properties as a HashMap; they are sorted at once"
)]

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use data_encoding::BASE64_NOPAD;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value as Json, json};

use crate::{
    graph::{CidError, Properties, Value, ValueError},
    limits::VALUE_DEPTH_MAX,
};

/// Why JSON is no value. Nothing was changed; repeating it will not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Not JSON at all.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// An object names a member twice: which one was meant is not known.
    #[error("the member {0:?} is given twice in one object")]
    Duplicate(String),
    /// Properties must be a JSON object.
    #[error("properties are a JSON object")]
    NotAnObject,
    /// An integer outside the 64-bit signed range.
    #[error("the integer {0} is outside the 64-bit range; write it as text, or as a float with `.0`")]
    IntegerRange(String),
    /// A number too large for a float.
    #[error("a number is too large: {0}")]
    FloatRange(String),
    /// A `/` object that is neither a link nor bytes.
    #[error("an object with the key \"/\" must be {{\"/\":\"CID\"}} or {{\"/\":{{\"bytes\":\"BASE64\"}}}}")]
    Reserved,
    /// A link that is no CID.
    #[error("a link is no CID: {0}")]
    Link(#[from] CidError),
    /// Bytes that are not base64.
    #[error("bytes are not base64 without padding")]
    Base64,
    /// A value that cannot be stored.
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// Reads JSON text, refusing integers that [`from_json`] could no longer tell from floats: read every text
/// that holds values with this.
///
/// # Errors
/// Where the text is not JSON, or names an integer outside the 64-bit range.
pub fn parse_document(text: &str) -> Result<Json, JsonError> {
    // serde_json bounds the nesting that it reads by 128 itself.
    let mut duplicate = None;
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Unique { duplicate: &mut duplicate }.deserialize(&mut reader);
    let json = read.and_then(|json| reader.end().map(|()| json));
    if let Some(name) = duplicate {
        return Err(JsonError::Duplicate(name));
    }
    let json = json.map_err(|error| syntax(&error))?;
    check_integers(text)?;
    Ok(json)
}

/// Reads JSON whose objects name each member once; the first one that is named twice ends the reading.
struct Unique<'a> {
    duplicate: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Json, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Json, E> {
        Ok(Json::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Unique { duplicate: &mut *self.duplicate })? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                *self.duplicate = Some(name);
                return Err(A::Error::custom("a member is given twice"));
            }
            let value = members.next_value_seed(Unique { duplicate: &mut *self.duplicate })?;
            object.insert(name, value);
        }
        Ok(Json::Object(object))
    }
}

/// Reads one value from text.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse(text: &str) -> Result<Value, JsonError> {
    from_json(parse_document(text)?)
}

/// Finds integers outside the 64-bit range in valid JSON: serde_json reads them as floats.
fn check_integers(text: &str) -> Result<(), JsonError> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'"' => {
                while let Some(&byte) = bytes.get(at).filter(|byte| **byte != b'"') {
                    at += if byte == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                while matches!(bytes.get(at), Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
                    at += 1;
                }
                let number = &text[start..at];
                let whole = !number.contains(['.', 'e', 'E']);
                if whole && number.parse::<i64>().is_err() {
                    return Err(JsonError::IntegerRange(number.to_owned()));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn syntax(error: &serde_json::Error) -> JsonError {
    let text = error.to_string();
    if text.contains("recursion limit exceeded") {
        ValueError::TooDeep.into()
    } else if text.contains("number out of range") {
        JsonError::FloatRange(text)
    } else {
        JsonError::Syntax(text)
    }
}

/// Reads properties from a JSON object.
///
/// # Errors
/// Says what is wrong with it.
pub fn properties_from_json(json: Json) -> Result<HashMap<String, Value>, JsonError> {
    let Json::Object(entries) = json else {
        return Err(JsonError::NotAnObject);
    };
    if entries.contains_key("/") {
        return Err(JsonError::Reserved);
    }
    let entry = |(name, value)| Ok((name, read(value, VALUE_DEPTH_MAX)?));
    entries.into_iter().map(entry).collect()
}

/// Reads one value.
///
/// # Errors
/// Says what is wrong with it.
pub fn from_json(json: Json) -> Result<Value, JsonError> {
    read(json, VALUE_DEPTH_MAX)
}

fn read(json: Json, depth: usize) -> Result<Value, JsonError> {
    match json {
        Json::Null => Ok(Value::Null),
        Json::Bool(truth) => Ok(Value::Bool(truth)),
        Json::Number(number) => read_number(&number),
        Json::String(text) => Ok(Value::String(text)),
        Json::Object(entries) if entries.contains_key("/") => read_reserved(&entries),
        Json::Array(_) | Json::Object(_) if depth == 0 => Err(ValueError::TooDeep.into()),
        Json::Array(items) => {
            items.into_iter().map(|item| read(item, depth - 1)).collect::<Result<_, _>>().map(Value::Array)
        }
        Json::Object(entries) => {
            let entry = |(name, value)| Ok((name, read(value, depth - 1)?));
            entries.into_iter().map(entry).collect::<Result<BTreeMap<_, _>, JsonError>>().map(Value::Map)
        }
    }
}

fn read_number(number: &Number) -> Result<Value, JsonError> {
    if let Some(number) = number.as_i64() {
        return Ok(Value::Int(number));
    }
    match number.as_f64() {
        Some(_) if number.is_u64() => Err(JsonError::IntegerRange(number.to_string())),
        Some(float) if float.is_finite() => Ok(Value::Float(float)),
        Some(_) | None => Err(JsonError::FloatRange(number.to_string())),
    }
}

fn read_reserved(entries: &Map<String, Json>) -> Result<Value, JsonError> {
    if entries.len() != 1 {
        return Err(JsonError::Reserved);
    }
    match entries.get("/") {
        Some(Json::String(cid)) => Ok(Value::Link(cid.parse()?)),
        Some(Json::Object(inner)) if inner.len() == 1 => match inner.get("bytes") {
            Some(Json::String(text)) => {
                let bytes = BASE64_NOPAD.decode(text.as_bytes()).map_err(|_| JsonError::Base64)?;
                Ok(Value::Bytes(bytes))
            }
            Some(_) | None => Err(JsonError::Reserved),
        },
        Some(_) | None => Err(JsonError::Reserved),
    }
}

/// A value as DAG-JSON. A stored value always has one.
#[must_use]
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Int(number) => Json::from(*number),
        // `None` for NaN and infinities, which no stored value is.
        Value::Float(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
        Value::String(text) => Json::from(text.as_str()),
        Value::Bytes(bytes) => json!({"/": {"bytes": BASE64_NOPAD.encode(bytes)}}),
        Value::Link(cid) => json!({"/": cid.to_string()}),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Map(entries) => properties_to_json(entries),
    }
}

/// Properties as a JSON object.
#[must_use]
pub fn properties_to_json(properties: &Properties) -> Json {
    Json::Object(properties.iter().map(|(name, value)| (name.clone(), to_json(value))).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::{Cid, tests::any_value};

    #[test]
    fn numbers_keep_their_kind() {
        assert_eq!(parse("1"), Ok(Value::Int(1)));
        assert_eq!(parse("1.0"), Ok(Value::Float(1.0)));
        assert_eq!(parse("1e2"), Ok(Value::Float(100.0)));
        assert_eq!(parse("-9223372036854775808"), Ok(Value::Int(i64::MIN)));
        assert_eq!(to_json(&Value::Float(1.0)).to_string(), "1.0");
        assert_eq!(to_json(&Value::Int(1)).to_string(), "1");
        let beyond = ["9223372036854775808", "18446744073709551616", "-9223372036854775809"];
        for number in beyond {
            let text = format!(r#"{{"a\"5": ["x", {number}]}}"#);
            assert_eq!(parse(&text), Err(JsonError::IntegerRange(number.to_string())));
        }
        assert_eq!(parse(r#""99999999999999999999""#), Ok(Value::from("99999999999999999999")));
        assert!(matches!(parse("1e999"), Err(JsonError::FloatRange(_))));
    }

    #[test]
    fn links_and_bytes_have_their_own_form() {
        let cid = Cid::of(b"x");
        assert_eq!(parse(&format!(r#"{{"/":"{cid}"}}"#)), Ok(Value::Link(cid)));
        assert_eq!(parse(r#"{"/":{"bytes":"AAE"}}"#), Ok(Value::Bytes(vec![0, 1])));
        assert_eq!(parse(r#"{"/":{"bytes":"AAE="}}"#), Err(JsonError::Base64));
        assert_eq!(parse(r#"{"/":{"bytes":"AAE"},"b":1}"#), Err(JsonError::Reserved));
        assert_eq!(parse(r#"{"/":1}"#), Err(JsonError::Reserved));
        assert_eq!(parse(r#"{"/":"zzz"}"#), Err(JsonError::Link(CidError::NotBase32)));
        assert!(matches!(parse("{"), Err(JsonError::Syntax(_))));
    }

    #[test]
    fn a_member_that_is_given_twice_is_refused_at_any_depth() {
        for text in [r#"{"x":1,"x":2}"#, r#"[{"a":{"x":1,"y":2,"\u0078":1}}]"#] {
            assert_eq!(parse(text), Err(JsonError::Duplicate("x".to_owned())), "{text}");
        }
        assert!(parse(r#"{"x":{"x":1},"y":[{"x":1},{"x":2}]}"#).is_ok());
    }

    #[test]
    fn deep_nesting_is_refused() {
        let nested = |depth: usize| format!("{}null{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(VALUE_DEPTH_MAX)).is_ok());
        assert_eq!(parse(&nested(VALUE_DEPTH_MAX + 1)), Err(JsonError::Value(ValueError::TooDeep)));
        assert_eq!(parse(&nested(100_000)), Err(JsonError::Value(ValueError::TooDeep)));
    }

    proptest! {
        #[test]
        fn every_value_survives_json(value in any_value()) {
            let text = to_json(&value).to_string();
            prop_assert_eq!(parse(&text), Ok(value));
        }
    }
}
