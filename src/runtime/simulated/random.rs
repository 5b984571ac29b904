//! Randomness that is a function of the run's seed.

use super::host::host;

/// There is always randomness here.
pub(crate) type Error = std::convert::Infallible;

/// Fills `bytes` with random ones.
#[expect(clippy::unnecessary_wraps, reason = "a system may have none")]
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    host().random(bytes);
    Ok(())
}

/// A random number.
pub(crate) fn u32() -> Result<u32, Error> {
    let mut bytes = [0; 4];
    fill(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}
