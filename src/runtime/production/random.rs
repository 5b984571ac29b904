//! The system's randomness.

pub(crate) use getrandom::Error;

/// Fills `bytes` with random ones.
#[expect(clippy::disallowed_methods, reason = "the one place where randomness enters a node")]
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes)
}

/// A random number.
pub(crate) fn u32() -> Result<u32, Error> {
    getrandom::u32()
}
