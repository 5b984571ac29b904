//! Properties on the command line: `name=text`, `age:=30`; and values as JSON.
#![expect(clippy::disallowed_types, reason = "protobuf maps are hash maps")]

use std::collections::HashMap;

use serde_json::Value as Json;

use crate::{
    client::v1,
    error::{ClusterError, ErrorCode},
    graph::{Properties, json},
    node::service::convert,
};

/// Reads `K=V` and `K:=JSON` arguments. The first `=` ends the name, so that values may hold more.
pub(super) fn parse(arguments: &[String]) -> Result<Properties, ClusterError> {
    let mut properties = Properties::new();
    for argument in arguments {
        let Some((name, text)) = argument.split_once('=') else {
            let what = format!("{argument:?} is neither NAME=TEXT nor NAME:=JSON");
            return Err(ClusterError::new(ErrorCode::Usage, what));
        };
        let (name, value) = match name.strip_suffix(':') {
            Some(name) => (name, json::parse(text).map_err(|error| in_argument(argument, error.into()))?),
            None => (name, text.into()),
        };
        if name.is_empty() {
            return Err(ClusterError::new(
                ErrorCode::Usage,
                format!("{argument:?} has no name before the ="),
            ));
        }
        if properties.insert(name.to_owned(), value).is_some() {
            return Err(ClusterError::new(ErrorCode::Usage, format!("the property {name:?} is given twice")));
        }
    }
    Ok(properties)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn in_argument(argument: &str, error: ClusterError) -> ClusterError {
    ClusterError::new(error.code(), format!("{}, in {argument:?}", error.what()))
}

pub(super) fn to_wire(properties: Properties) -> HashMap<String, v1::Value> {
    convert::properties_to_wire(properties)
}

/// Properties as a node sent them, as DAG-JSON.
pub(super) fn wire_to_json(properties: HashMap<String, v1::Value>) -> Result<Json, ClusterError> {
    Ok(json::properties_to_json(&convert::properties_from_wire(properties)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Value;

    fn parsed(arguments: &[&str]) -> Result<Properties, ClusterError> {
        parse(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn text_and_json_are_told_apart() {
        let properties =
            parsed(&["name=Alice", "age:=30", "score:=1.0", "eq=a=b:=c", "n:=null", "empty="]).unwrap();
        let expected: Properties = [
            ("name", Value::String("Alice".into())),
            ("age", Value::Int(30)),
            ("score", Value::Float(1.0)),
            ("eq", Value::String("a=b:=c".into())),
            ("n", Value::Null),
            ("empty", Value::String(String::new())),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        assert_eq!(properties, expected);
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_code() {
        for (argument, code) in [
            ("name", ErrorCode::Usage),
            ("=x", ErrorCode::Usage),
            (":=1", ErrorCode::Usage),
            ("a:=", ErrorCode::MalformedValue),
            ("a:={\"/\":1}", ErrorCode::MalformedValue),
            ("a:=9223372036854775808", ErrorCode::MalformedValue),
            ("a:={\"/\":\"bogus\"}", ErrorCode::MalformedCid),
        ] {
            let error = parsed(&[argument]).unwrap_err();
            assert_eq!(error.code(), code, "{argument}: {error}");
        }
        assert_eq!(parsed(&["a=1", "a:=2"]).unwrap_err().code(), ErrorCode::Usage);
    }
}
