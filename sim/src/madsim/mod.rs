//! The engine that runs the whole program: driver loop, log writer, gRPC services and streams.
//!
//! Nodes and clients are those of the product, byte for byte: protobuf, HTTP/2, TLS. Only tokio's
//! tasks and timers are replaced, by `madsim`'s, and under the product's `runtime` module the
//! clocks, disks and network of `inside`. Such a build needs `--cfg madsim` for every crate, so it
//! is a program of its own (`kotoba-sim-madsim`) in a target directory of its own: [`launch`] has
//! cargo build it and starts it once for each seed, because what one run leaves behind in a process
//! would make the next one differ.

#[cfg(madsim)]
pub mod inside;
pub mod launch;
pub mod outcome;
