//! Canonical DAG-CBOR, written and read strictly.
//!
//! A block has exactly one encoding (ipld.io, DAG-CBOR specification): shortest integers, 64-bit floats,
//! definite lengths, text keys sorted by length and then by bytes, links as tag 42. The reader refuses
//! everything else, so bytes that it accepts can be hashed as they are. Written by hand because the
//! check must run over every operation on every replica without building the values it checks.

use std::collections::BTreeMap;

use crate::{
    graph::{
        Cid, Value,
        value::{RESERVED_NAME, ValueError},
    },
    limits::VALUE_DEPTH_MAX,
};

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;
const TAG_LINK: u64 = 42;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;
const FLOAT_64: u8 = 0xfb;

/// Why bytes are no canonical DAG-CBOR of this data model. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not canonical DAG-CBOR at byte {at}: {fault}")]
pub struct DagCborError {
    /// Offset of the offending item.
    pub at: usize,
    /// What is wrong there.
    pub fault: DagCborFault,
}

/// What is wrong with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DagCborFault {
    /// The bytes end inside the item.
    #[error("the bytes end too early")]
    Truncated,
    /// Something follows the item.
    #[error("bytes follow the end")]
    Trailing,
    /// A length or number is not in its shortest form, or has no definite length.
    #[error("a number is not in its shortest form")]
    NotShortest,
    /// An integer outside the 64-bit signed range.
    #[error("an integer is outside the 64-bit range")]
    IntegerRange,
    /// NaN, an infinity, or a float that is not 64 bits wide.
    #[error("a float is not finite or not 64 bits wide")]
    Float,
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Text,
    /// Map keys out of order or repeated.
    #[error("map keys are not sorted, or repeat")]
    KeyOrder,
    /// The name `/`, which has no JSON form.
    #[error("a map entry has the reserved name")]
    ReservedName,
    /// A tag or simple value outside the data model.
    #[error("an item is outside the data model")]
    Unsupported,
    /// A link that is no CID of this database.
    #[error("a link is no CIDv1 of dag-cbor and blake3-256")]
    Link,
    /// Nesting beyond the limit.
    #[error("arrays and maps are nested too deeply")]
    TooDeep,
    /// Another kind of item was expected.
    #[error("another kind of item was expected")]
    Unexpected,
}

/// Appends items to a block.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn head(&mut self, major: u8, number: u64) {
        let major = major << 5;
        match number {
            0..=23 => self.bytes.push(major | number as u8),
            24..=0xff => self.bytes.extend_from_slice(&[major | 24, number as u8]),
            0x100..=0xffff => {
                self.bytes.push(major | 25);
                self.bytes.extend_from_slice(&(number as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.bytes.push(major | 26);
                self.bytes.extend_from_slice(&(number as u32).to_be_bytes());
            }
            _ => {
                self.bytes.push(major | 27);
                self.bytes.extend_from_slice(&number.to_be_bytes());
            }
        }
    }

    pub(crate) fn map(&mut self, entries: usize) {
        self.head(MAP, entries as u64);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn unsigned(&mut self, number: u64) {
        self.head(UNSIGNED, number);
    }

    pub(crate) fn boolean(&mut self, truth: bool) {
        self.bytes.push(if truth { TRUE } else { FALSE });
    }

    pub(crate) fn link(&mut self, cid: Cid) {
        self.head(TAG, TAG_LINK);
        self.head(BYTES, Cid::BYTES as u64 + 1);
        // The multibase prefix of "binary, as it is".
        self.bytes.push(0);
        self.bytes.extend_from_slice(&cid.to_bytes());
    }

    #[cfg(test)]
    pub(crate) fn value(&mut self, value: &Value) -> Result<(), ValueError> {
        self.value_within(value, VALUE_DEPTH_MAX)
    }

    fn value_within(&mut self, value: &Value, depth: usize) -> Result<(), ValueError> {
        match value {
            Value::Null => self.bytes.push(NULL),
            Value::Bool(truth) => self.boolean(*truth),
            Value::Int(number) if *number < 0 => self.head(NEGATIVE, !(*number) as u64),
            Value::Int(number) => self.head(UNSIGNED, *number as u64),
            Value::Float(number) if !number.is_finite() => return Err(ValueError::NotFinite),
            Value::Float(number) => {
                self.bytes.push(FLOAT_64);
                self.bytes.extend_from_slice(&number.to_be_bytes());
            }
            Value::String(text) => self.text(text),
            Value::Bytes(bytes) => {
                self.head(BYTES, bytes.len() as u64);
                self.bytes.extend_from_slice(bytes);
            }
            Value::Link(cid) => self.link(*cid),
            Value::Array(_) | Value::Map(_) if depth == 0 => return Err(ValueError::TooDeep),
            Value::Array(items) => {
                self.head(ARRAY, items.len() as u64);
                items.iter().try_for_each(|item| self.value_within(item, depth - 1))?;
            }
            Value::Map(entries) => self.entries(entries, depth - 1)?,
        }
        Ok(())
    }

    pub(crate) fn properties(&mut self, entries: &BTreeMap<String, Value>) -> Result<(), ValueError> {
        self.entries(entries, VALUE_DEPTH_MAX)
    }

    fn entries(&mut self, entries: &BTreeMap<String, Value>, depth: usize) -> Result<(), ValueError> {
        self.map(entries.len());
        let mut sorted: Vec<(&String, &Value)> = entries.iter().collect();
        // The map is sorted by bytes already; a stable sort by length completes the canonical order.
        sorted.sort_by_key(|(name, _)| name.len());
        for (name, value) in sorted {
            self.text(name);
            self.value_within(value, depth)?;
        }
        Ok(())
    }
}

/// Reads items of a block, refusing whatever is not canonical.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn fault<T>(&self, fault: DagCborFault) -> Result<T, DagCborError> {
        Err(DagCborError { at: self.at, fault })
    }

    pub(crate) fn end(&self) -> Result<(), DagCborError> {
        if self.at == self.bytes.len() { Ok(()) } else { self.fault(DagCborFault::Trailing) }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], DagCborError> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(count).ok().and_then(|count| rest.get(..count)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => self.fault(DagCborFault::Truncated),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DagCborError> {
        let taken = self.take(N as u64)?;
        taken.try_into().or_else(|_| self.fault(DagCborFault::Truncated))
    }

    fn peek(&self) -> Result<u8, DagCborError> {
        match self.bytes.get(self.at) {
            Some(byte) => Ok(*byte),
            None => self.fault(DagCborFault::Truncated),
        }
    }

    /// Major type and number of an item that is not a simple value.
    fn head(&mut self) -> Result<(u8, u64), DagCborError> {
        let [first] = self.array::<1>()?;
        let (number, shortest) = match first & 31 {
            small @ 0..=23 => (u64::from(small), true),
            24 => {
                let number = u64::from(u8::from_be_bytes(self.array()?));
                (number, number > 23)
            }
            25 => {
                let number = u64::from(u16::from_be_bytes(self.array()?));
                (number, number > 0xff)
            }
            26 => {
                let number = u64::from(u32::from_be_bytes(self.array()?));
                (number, number > 0xffff)
            }
            27 => {
                let number = u64::from_be_bytes(self.array()?);
                (number, number > 0xffff_ffff)
            }
            _ => (0, false),
        };
        if shortest { Ok((first >> 5, number)) } else { self.fault(DagCborFault::NotShortest) }
    }

    fn expect(&mut self, major: u8) -> Result<u64, DagCborError> {
        if self.peek()? >> 5 != major {
            return self.fault(DagCborFault::Unexpected);
        }
        Ok(self.head()?.1)
    }

    /// Number of entries of a map that begins here.
    pub(crate) fn map(&mut self) -> Result<u64, DagCborError> {
        self.expect(MAP)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DagCborError> {
        let length = self.expect(TEXT)?;
        self.text_of(length)
    }

    fn text_of(&mut self, length: u64) -> Result<&'a str, DagCborError> {
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).or_else(|_| self.fault(DagCborFault::Text))
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, DagCborError> {
        self.expect(UNSIGNED)
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, DagCborError> {
        let truth = match self.peek()? {
            TRUE => true,
            FALSE => false,
            _ => return self.fault(DagCborFault::Unexpected),
        };
        self.at += 1;
        Ok(truth)
    }

    pub(crate) fn link(&mut self) -> Result<Cid, DagCborError> {
        let tag = self.expect(TAG)?;
        self.link_of(tag)
    }

    fn link_of(&mut self, tag: u64) -> Result<Cid, DagCborError> {
        if tag != TAG_LINK {
            return self.fault(DagCborFault::Unsupported);
        }
        let length = self.expect(BYTES)?;
        match self.take(length)? {
            [0, cid @ ..] => Cid::from_bytes(cid).or_else(|_| self.fault(DagCborFault::Link)),
            _ => self.fault(DagCborFault::Link),
        }
    }

    /// Expects this key next.
    pub(crate) fn key(&mut self, name: &str) -> Result<(), DagCborError> {
        let at = self.at;
        if self.text()? == name { Ok(()) } else { Err(DagCborError { at, fault: DagCborFault::Unexpected }) }
    }

    pub(crate) fn properties(&mut self) -> Result<BTreeMap<String, Value>, DagCborError> {
        let count = self.map()?;
        self.entries(count, VALUE_DEPTH_MAX)
    }

    /// Checks properties without building them.
    pub(crate) fn check_properties(&mut self) -> Result<(), DagCborError> {
        let count = self.map()?;
        self.check_entries(count, VALUE_DEPTH_MAX)
    }

    fn entry_key(&mut self, last: Option<&'a str>) -> Result<&'a str, DagCborError> {
        let name = self.text()?;
        if name == RESERVED_NAME {
            return self.fault(DagCborFault::ReservedName);
        }
        match last {
            Some(last) if (last.len(), last) >= (name.len(), name) => self.fault(DagCborFault::KeyOrder),
            _ => Ok(name),
        }
    }

    fn entries(&mut self, count: u64, depth: usize) -> Result<BTreeMap<String, Value>, DagCborError> {
        let mut entries = BTreeMap::new();
        let mut last = None;
        for _ in 0..count {
            let name = self.entry_key(last)?;
            last = Some(name);
            entries.insert(name.to_owned(), self.value_within(depth)?);
        }
        Ok(entries)
    }

    fn check_entries(&mut self, count: u64, depth: usize) -> Result<(), DagCborError> {
        let mut last = None;
        for _ in 0..count {
            last = Some(self.entry_key(last)?);
            self.check_within(depth)?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn value(&mut self) -> Result<Value, DagCborError> {
        self.value_within(VALUE_DEPTH_MAX)
    }

    fn value_within(&mut self, depth: usize) -> Result<Value, DagCborError> {
        if self.peek()? >> 5 == SIMPLE {
            return self.simple();
        }
        let (major, number) = self.head()?;
        match major {
            UNSIGNED | NEGATIVE => self.integer(major, number),
            BYTES => Ok(Value::Bytes(self.take(number)?.to_vec())),
            TEXT => Ok(Value::String(self.text_of(number)?.to_owned())),
            TAG => self.link_of(number).map(Value::Link),
            _ if depth == 0 => self.fault(DagCborFault::TooDeep),
            ARRAY => {
                // No capacity from a number that a remote chose: the items must really be there.
                let mut items = Vec::new();
                for _ in 0..number {
                    items.push(self.value_within(depth - 1)?);
                }
                Ok(Value::Array(items))
            }
            _ => self.entries(number, depth - 1).map(Value::Map),
        }
    }

    fn check_within(&mut self, depth: usize) -> Result<(), DagCborError> {
        if self.peek()? >> 5 == SIMPLE {
            return self.simple().map(drop);
        }
        let (major, number) = self.head()?;
        match major {
            UNSIGNED | NEGATIVE => self.integer(major, number).map(drop),
            BYTES => self.take(number).map(drop),
            TEXT => self.text_of(number).map(drop),
            TAG => self.link_of(number).map(drop),
            _ if depth == 0 => self.fault(DagCborFault::TooDeep),
            ARRAY => (0..number).try_for_each(|_| self.check_within(depth - 1)),
            _ => self.check_entries(number, depth - 1),
        }
    }

    fn integer(&self, major: u8, number: u64) -> Result<Value, DagCborError> {
        match i64::try_from(number) {
            Ok(number) if major == UNSIGNED => Ok(Value::Int(number)),
            Ok(number) => Ok(Value::Int(!number)),
            Err(_) => self.fault(DagCborFault::IntegerRange),
        }
    }

    fn simple(&mut self) -> Result<Value, DagCborError> {
        let [first] = self.array::<1>()?;
        match first {
            FALSE => Ok(Value::Bool(false)),
            TRUE => Ok(Value::Bool(true)),
            NULL => Ok(Value::Null),
            FLOAT_64 => {
                let number = f64::from_be_bytes(self.array()?);
                if number.is_finite() { Ok(Value::Float(number)) } else { self.fault(DagCborFault::Float) }
            }
            0xf9 | 0xfa => self.fault(DagCborFault::Float),
            _ => self.fault(DagCborFault::Unsupported),
        }
    }
}
