//! Between the wire's values and operations and the graph's.
#![expect(
    clippy::disallowed_types,
    reason = "protobuf maps and the specification's properties are hash maps"
)]

use std::collections::HashMap;

use kotoba_db_cluster_proto::v1::{self, operation, value};

use crate::{
    error::{ClusterError, ErrorCode},
    graph::{
        Cid, Generation, GraphOperation, Operation, OperationDetails, OperationError, Properties, Value,
        ValueError,
    },
    limits::VALUE_DEPTH_MAX,
};

/// The CID that a text of a request stands for.
pub(crate) fn cid(text: &str) -> Result<Cid, ClusterError> {
    text.parse().map_err(|error| {
        // A hostile text may be long.
        let shown: String = text.chars().take(80).collect();
        ClusterError::new(ErrorCode::MalformedCid, format!("{shown:?} is no CID: {error}"))
    })
}

/// A number of a request as what it stands for, where this version knows it.
pub(crate) fn known<T: TryFrom<i32>>(number: i32, field: &str) -> Result<T, ClusterError> {
    T::try_from(number).map_err(|_| {
        super::errors::malformed(format!("the request's {field} is {number}, which means nothing"))
    })
}

/// The canonical operation that a request stands for. The generation of an edge's target is still
/// to be filled in.
pub(crate) fn operation_from_wire(operation: v1::Operation) -> Result<GraphOperation, ClusterError> {
    let kind = operation.kind.ok_or_else(|| super::errors::malformed("the request's operation is empty"))?;
    let mut details = OperationDetails::default();
    let operation = match kind {
        operation::Kind::CreateNode(create) => {
            details.key = (!create.key.is_empty()).then_some(create.key);
            Operation::CreateNode { properties: properties(create.properties)? }
        }
        operation::Kind::UpdateNode(update) => {
            details.unset = update.unset;
            Operation::UpdateNode { cid: cid(&update.cid)?, properties: properties(update.properties)? }
        }
        operation::Kind::DeleteNode(delete) => Operation::DeleteNode { cid: cid(&delete.cid)? },
        operation::Kind::CreateEdge(create) => Operation::CreateEdge {
            source_cid: cid(&create.source_cid)?,
            target_cid: cid(&create.target_cid)?,
            label: create.label,
            properties: properties(create.properties)?,
        },
        operation::Kind::UpdateEdge(update) => {
            details.unset = update.unset;
            Operation::UpdateEdge { cid: cid(&update.cid)?, properties: properties(update.properties)? }
        }
        operation::Kind::DeleteEdge(delete) => Operation::DeleteEdge { cid: cid(&delete.cid)? },
    };
    canonical(operation, details)
}

/// The canonical form of an operation. The generation of an edge's target is still to be filled in.
pub(crate) fn canonical(
    operation: Operation,
    mut details: OperationDetails,
) -> Result<GraphOperation, ClusterError> {
    let of_edge = matches!(
        operation,
        Operation::CreateEdge { .. } | Operation::UpdateEdge { .. } | Operation::DeleteEdge { .. }
    );
    if of_edge {
        details.target_generation = Some(Generation::NONE);
    }
    GraphOperation::new(operation, details).map_err(|error| of_operation(&error))
}

fn of_operation(error: &OperationError) -> ClusterError {
    let code = match error {
        OperationError::Value(value) => return of_value(*value),
        OperationError::TooLarge(_)
        | OperationError::LabelTooLong(_)
        | OperationError::KeyTooLong(_)
        | OperationError::ClientIdTooLong(_) => ErrorCode::TooLarge,
        OperationError::LabelEmpty
        | OperationError::SetAndUnset(_)
        | OperationError::Detail(_)
        | OperationError::TargetUnknown => ErrorCode::MalformedValue,
    };
    ClusterError::new(code, format!("the operation cannot be stored: {error}"))
}

fn of_value(error: ValueError) -> ClusterError {
    let code = match error {
        ValueError::NotFinite => ErrorCode::NotANumber,
        ValueError::TooDeep => ErrorCode::TooLarge,
        ValueError::ReservedName => ErrorCode::MalformedValue,
    };
    ClusterError::new(code, format!("a property cannot be stored: {error}"))
}

fn properties(wire: HashMap<String, v1::Value>) -> Result<HashMap<String, Value>, ClusterError> {
    let entry = |(name, value): (String, v1::Value)| match value_from_wire(value, VALUE_DEPTH_MAX) {
        Ok(value) => Ok((name, value)),
        Err(error) => Err(in_property(&name, &error)),
    };
    wire.into_iter().map(entry).collect()
}

fn in_property(name: &str, error: &ClusterError) -> ClusterError {
    // A hostile name may be long.
    let shown: String = name.chars().take(80).collect();
    ClusterError::new(error.code(), format!("{}, in the property {shown:?}", error.what()))
}

/// Refuses an operation with a value that no node would read, before it is sent.
pub(crate) fn check_depth(operation: &v1::Operation) -> Result<(), ClusterError> {
    let properties = match &operation.kind {
        Some(operation::Kind::CreateNode(create)) => &create.properties,
        Some(operation::Kind::UpdateNode(update)) => &update.properties,
        Some(operation::Kind::CreateEdge(create)) => &create.properties,
        Some(operation::Kind::UpdateEdge(update)) => &update.properties,
        Some(operation::Kind::DeleteNode(_) | operation::Kind::DeleteEdge(_)) | None => return Ok(()),
    };
    match properties.iter().find(|(_, value)| !is_nested_within(value, VALUE_DEPTH_MAX)) {
        Some((name, _)) => Err(in_property(name, &of_value(ValueError::TooDeep))),
        None => Ok(()),
    }
}

/// The same for one value.
pub(crate) fn check_value_depth(value: &v1::Value) -> Result<(), ClusterError> {
    let fits = is_nested_within(value, VALUE_DEPTH_MAX);
    if fits { Ok(()) } else { Err(of_value(ValueError::TooDeep)) }
}

fn is_nested_within(value: &v1::Value, depth: usize) -> bool {
    match &value.kind {
        Some(value::Kind::ArrayValue(array)) => {
            depth > 0 && array.items.iter().all(|item| is_nested_within(item, depth - 1))
        }
        Some(value::Kind::MapValue(map)) => {
            depth > 0 && map.entries.values().all(|item| is_nested_within(item, depth - 1))
        }
        Some(
            value::Kind::StringValue(_)
            | value::Kind::IntValue(_)
            | value::Kind::FloatValue(_)
            | value::Kind::BoolValue(_)
            | value::Kind::BytesValue(_)
            | value::Kind::LinkValue(_)
            | value::Kind::NullValue(_),
        )
        | None => true,
    }
}

/// The value that a wire value stands for.
pub(crate) fn property_from_wire(wire: v1::Value) -> Result<Value, ClusterError> {
    value_from_wire(wire, VALUE_DEPTH_MAX)
}

fn value_from_wire(wire: v1::Value, depth: usize) -> Result<Value, ClusterError> {
    let Some(kind) = wire.kind else {
        return Err(super::errors::malformed("a property of the request has no value"));
    };
    let deeper = || depth.checked_sub(1).ok_or_else(|| of_value(ValueError::TooDeep));
    Ok(match kind {
        value::Kind::StringValue(text) => Value::String(text),
        value::Kind::IntValue(number) => Value::Int(number),
        value::Kind::FloatValue(number) => Value::Float(number),
        value::Kind::BoolValue(truth) => Value::Bool(truth),
        value::Kind::BytesValue(bytes) => Value::Bytes(bytes.into()),
        value::Kind::LinkValue(text) => Value::Link(cid(&text)?),
        value::Kind::NullValue(_) => Value::Null,
        value::Kind::ArrayValue(array) => {
            let depth = deeper()?;
            Value::Array(
                array.items.into_iter().map(|item| value_from_wire(item, depth)).collect::<Result<_, _>>()?,
            )
        }
        value::Kind::MapValue(map) => {
            let depth = deeper()?;
            let entries =
                map.entries.into_iter().map(|(name, item)| Ok((name, value_from_wire(item, depth)?)));
            Value::Map(entries.collect::<Result<_, ClusterError>>()?)
        }
    })
}

/// A value for the wire.
pub(crate) fn value_to_wire(value: Value) -> v1::Value {
    let kind = match value {
        Value::String(text) => value::Kind::StringValue(text),
        Value::Int(number) => value::Kind::IntValue(number),
        Value::Float(number) => value::Kind::FloatValue(number),
        Value::Bool(truth) => value::Kind::BoolValue(truth),
        Value::Bytes(bytes) => value::Kind::BytesValue(bytes.into()),
        Value::Link(cid) => value::Kind::LinkValue(cid.to_string()),
        Value::Null => value::Kind::NullValue(0),
        Value::Array(items) => {
            value::Kind::ArrayValue(v1::ArrayValue { items: items.into_iter().map(value_to_wire).collect() })
        }
        Value::Map(entries) => value::Kind::MapValue(v1::MapValue { entries: properties_to_wire(entries) }),
    };
    v1::Value { kind: Some(kind) }
}

/// Properties for the wire.
pub(crate) fn properties_to_wire(properties: Properties) -> HashMap<String, v1::Value> {
    properties.into_iter().map(|(name, value)| (name, value_to_wire(value))).collect()
}

/// Properties from the wire of another node.
pub(crate) fn properties_from_wire(wire: HashMap<String, v1::Value>) -> Result<Properties, ClusterError> {
    wire.into_iter().map(|(name, value)| Ok((name, property_from_wire(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            ".*".prop_map(Value::String),
            any::<i64>().prop_map(Value::Int),
            (-1e300..1e300).prop_map(Value::Float),
            any::<bool>().prop_map(Value::Bool),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
            any::<[u8; 32]>().prop_map(|digest| Value::Link(Cid::from_digest(digest))),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                prop::collection::btree_map(".*", inner, 0..5).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_survive_the_wire(value in values()) {
            prop_assert_eq!(property_from_wire(value_to_wire(value.clone())), Ok(value));
        }
    }

    /// Maps within maps: of all values the ones that take most of a decoder's depth.
    fn nested(depth: usize) -> v1::Value {
        (0..depth).fold(v1::Value { kind: Some(value::Kind::IntValue(0)) }, |inner, _| {
            let map = v1::MapValue { entries: HashMap::from([("m".to_owned(), inner)]) };
            v1::Value { kind: Some(value::Kind::MapValue(map)) }
        })
    }

    fn creation(value: v1::Value) -> v1::Operation {
        let properties = HashMap::from([("p".to_owned(), value)]);
        let create = v1::CreateNode { properties, key: String::new() };
        v1::Operation { kind: Some(operation::Kind::CreateNode(create)) }
    }

    #[test]
    fn the_deepest_value_can_be_read_from_every_message_that_may_carry_it() {
        fn read_back<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M) {
            let read = M::decode(message.encode_to_vec().as_slice());
            assert!(read.is_ok_and(|read| read == *message), "{message:?}");
        }
        let deepest = nested(VALUE_DEPTH_MAX);
        let properties = HashMap::from([("p".to_owned(), deepest.clone())]);
        let operation = Some(creation(deepest.clone()));
        let entity = v1::Entity { properties: properties.clone(), ..Default::default() };
        let entry = v1::LogEntry { operation: operation.clone(), ..Default::default() };
        let wanted = v1::PropertyEquals { name: "p".into(), value: Some(deepest) };
        read_back(&v1::ClientRequest { operation, ..Default::default() });
        read_back(&v1::AppendEntriesRequest { entries: vec![entry], ..Default::default() });
        read_back(&v1::GetEntityResponse { entity: Some(entity.clone()), ..Default::default() });
        read_back(&v1::ScanResponse { entities: vec![entity.clone()], ..Default::default() });
        read_back(&v1::QueryResponse { entities: vec![entity], ..Default::default() });
        read_back(&v1::HistoryResponse {
            versions: vec![v1::Version { properties, ..Default::default() }],
            ..Default::default()
        });
        let query = Some(v1::query_request::Query::ByProperty(wanted));
        read_back(&v1::QueryRequest { query, ..Default::default() });
    }

    #[test]
    fn a_value_that_is_too_deep_is_found_before_it_is_sent() {
        assert_eq!(check_depth(&creation(nested(VALUE_DEPTH_MAX))), Ok(()));
        let error = check_depth(&creation(nested(VALUE_DEPTH_MAX + 1))).expect_err("it is too deep");
        assert_eq!(error.code(), ErrorCode::TooLarge);
        assert!(error.what().contains("\"p\""), "it says where: {error}");
        assert!(operation_from_wire(creation(nested(VALUE_DEPTH_MAX))).is_ok());
        assert_eq!(operation_from_wire(creation(nested(VALUE_DEPTH_MAX + 1))), Err(error));
    }

    #[test]
    fn what_cannot_be_stored_is_refused_with_its_own_code() {
        let create = |kind: Option<value::Kind>| operation_from_wire(creation(v1::Value { kind }));
        let cases = [
            (None, ErrorCode::MalformedValue),
            (Some(value::Kind::FloatValue(f64::NAN)), ErrorCode::NotANumber),
            (Some(value::Kind::LinkValue("bafy".into())), ErrorCode::MalformedCid),
            (nested(VALUE_DEPTH_MAX + 1).kind, ErrorCode::TooLarge),
        ];
        for (value, code) in cases {
            assert_eq!(create(value.clone()).map_err(|error| error.code()), Err(code), "{value:?}");
        }
        assert!(create(Some(value::Kind::IntValue(1))).is_ok());
    }

    #[test]
    fn equal_properties_in_any_order_make_the_same_operation() {
        let names = ["b", "a", "c"];
        let make = |order: [usize; 3]| {
            let properties = order
                .iter()
                .map(|&place| (names[place].to_owned(), Value::Map(BTreeMap::new())))
                .collect::<HashMap<_, _>>();
            canonical(Operation::CreateNode { properties }, OperationDetails::default())
        };
        assert_eq!(make([0, 1, 2]), make([2, 0, 1]));
    }

    #[test]
    fn an_operation_without_a_kind_is_refused() {
        let error = operation_from_wire(v1::Operation { kind: None }).expect_err("there is no operation");
        assert_eq!(error.code(), ErrorCode::MalformedValue);
    }
}
