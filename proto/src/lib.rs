//! The wire format of KotobaDB Cluster: protobuf messages and gRPC services,
//! generated from `proto/kotoba/cluster/v1/cluster.proto`.
//!
//! This is the only crate that knows code generation. Byte fields decode into
//! [`bytes::Bytes`](prost::bytes::Bytes) that share the received frame.

/// Version 1 of the wire format.
pub mod v1 {
    #![allow(missing_docs, clippy::all, reason = "generated code")]
    tonic::include_proto!("kotoba.cluster.v1");
}

/// The encoded `FileDescriptorSet` of everything in this crate, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
