//! Content identifiers: CIDv1 of a canonical DAG-CBOR block, hashed with BLAKE3-256.
//!
//! The binary form is 36 bytes: version `01`, codec `71` (dag-cbor), hash function `1e` (blake3),
//! digest length `20`, then the 32 bytes of the digest. People see it as multibase base32: the letter
//! `b` and 58 lower-case characters without padding (multiformats.io: CID, multihash, multibase).
//! Only this one kind of CID exists here, so a [`Cid`] holds nothing but the digest.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What stands before the digest in the binary form.
const PREFIX: [u8; 4] = [0x01, 0x71, 0x1e, 0x20];
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Characters after the multibase letter: 36 bytes of 8 bits in groups of 5 bits.
const TEXT_CHARACTERS: usize = 58;

/// The identifier of one block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cid([u8; 32]);

/// Why something is no CID of this database. Nothing was changed; repeating it will not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidError {
    /// The text does not begin with the multibase letter of lower-case base32.
    #[error("a CID begins with the letter `b` (lower-case base32)")]
    NotBase32,
    /// The text is too short or too long.
    #[error("a CID has 59 characters, not {0}")]
    TextLength(usize),
    /// A character outside `a-z` and `2-7`.
    #[error("the character {0:?} does not occur in a CID")]
    Character(char),
    /// The last character carries bits that belong to no byte.
    #[error("the last character of the CID is not one a CID can end with")]
    TrailingBits,
    /// The binary form is too short or too long.
    #[error("a binary CID has 36 bytes, not {0}")]
    BinaryLength(usize),
    /// A CID, but not version 1 of a DAG-CBOR block hashed with BLAKE3-256.
    #[error("only CIDs of version 1 with codec dag-cbor and hash blake3-256 name something here")]
    OtherKind,
}

impl Cid {
    /// Length of the binary form.
    pub const BYTES: usize = 36;

    /// The identifier of a block with these bytes.
    #[must_use]
    pub fn of(block: &[u8]) -> Self {
        Self(*blake3::hash(block).as_bytes())
    }

    /// The identifier with this BLAKE3-256 digest.
    #[must_use]
    pub const fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The BLAKE3-256 digest of the block.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.0
    }

    /// The binary form.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&PREFIX);
        bytes[4..].copy_from_slice(&self.0);
        bytes
    }

    /// Reads the binary form.
    ///
    /// # Errors
    /// Where it is not 36 bytes of the one kind used here.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CidError> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().map_err(|_| CidError::BinaryLength(bytes.len()))?;
        let Some((prefix, digest)) = bytes.split_first_chunk::<4>() else {
            return Err(CidError::BinaryLength(bytes.len()));
        };
        if *prefix != PREFIX {
            return Err(CidError::OtherKind);
        }
        let digest = digest.try_into().map_err(|_| CidError::BinaryLength(bytes.len()))?;
        Ok(Self(digest))
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(1 + TEXT_CHARACTERS);
        text.push('b');
        let (mut buffer, mut bits) = (0_u32, 0_u32);
        for byte in self.to_bytes() {
            buffer = (buffer << 8) | u32::from(byte);
            bits += 8;
            while bits >= 5 {
                bits -= 5;
                text.push(char::from(ALPHABET[(buffer >> bits) as usize & 31]));
            }
            buffer &= (1 << bits) - 1;
        }
        if bits > 0 {
            text.push(char::from(ALPHABET[(buffer << (5 - bits)) as usize & 31]));
        }
        f.pad(&text)
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Cid {
    type Err = CidError;

    fn from_str(text: &str) -> Result<Self, CidError> {
        let Some(characters) = text.strip_prefix('b') else {
            return Err(CidError::NotBase32);
        };
        if let Some(other) = characters.chars().find(|c| !matches!(c, 'a'..='z' | '2'..='7')) {
            return Err(CidError::Character(other));
        }
        if characters.len() != TEXT_CHARACTERS {
            return Err(CidError::TextLength(text.len()));
        }
        let mut bytes = [0; Self::BYTES];
        let mut at = 0;
        let (mut buffer, mut bits) = (0_u32, 0_u32);
        for character in characters.bytes() {
            let five = if character >= b'a' { character - b'a' } else { character - b'2' + 26 };
            buffer = (buffer << 5) | u32::from(five);
            bits += 5;
            if bits >= 8 {
                bits -= 8;
                bytes[at] = (buffer >> bits) as u8;
                at += 1;
                buffer &= (1 << bits) - 1;
            }
        }
        // One identifier, one text: leftover bits must be zero.
        if buffer != 0 {
            return Err(CidError::TrailingBits);
        }
        Self::from_bytes(&bytes)
    }
}

impl Serialize for Cid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Cid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(de::Error::custom)
        } else {
            Ok(Self(<[u8; 32]>::deserialize(deserializer)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_the_one_other_ipld_tools_print() {
        let hash = multihash::Multihash::<64>::wrap(0x1e, blake3::hash(b"kotoba").as_bytes()).unwrap();
        let other = ::cid::Cid::new_v1(0x71, hash);
        let ours = Cid::of(b"kotoba");
        assert_eq!(ours.to_string(), other.to_string());
        assert_eq!(ours.to_bytes().as_slice(), other.to_bytes());
        assert_eq!(ours.to_string().len(), 59);
        assert_eq!(ours.to_string().parse(), Ok(ours));
        assert_eq!(Cid::from_bytes(&ours.to_bytes()), Ok(ours));
    }

    #[test]
    fn malformed_text_is_refused_with_its_reason() {
        let good = Cid::of(b"x").to_string();
        let parse = |text: &str| text.parse::<Cid>().unwrap_err();
        assert_eq!(parse(""), CidError::NotBase32);
        assert_eq!(parse("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"), CidError::NotBase32);
        assert_eq!(parse(&good[..58]), CidError::TextLength(58));
        assert_eq!(parse(&format!("{good}a")), CidError::TextLength(60));
        assert_eq!(parse(&good.to_uppercase()), CidError::NotBase32);
        assert_eq!(parse(&format!("{}1", &good[..58])), CidError::Character('1'));
        assert_eq!(parse(&format!("{}é", &good[..58])), CidError::Character('é'));
        assert_eq!(parse(&format!("{}b", &good[..58])), CidError::TrailingBits);
        // The CID of a raw block hashed with SHA-256.
        let raw = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
        assert_eq!(parse(raw), CidError::OtherKind);
        assert_eq!(Cid::from_bytes(&[1, 2]), Err(CidError::BinaryLength(2)));
    }
}
