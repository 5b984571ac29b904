//! The codec of the write stream: a request is encoded once, however often it is sent.
//!
//! Protobuf lets a message be continued by appending fields, so the one field that changes from sending
//! to sending, `acked_below`, is written behind the encoded rest.

use bytes::{BufMut, Bytes};
use kotoba_db_cluster_proto::v1;
use prost::{Message as _, encoding};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Tag of `ClientRequest.acked_below`.
const ACKED_BELOW_TAG: u32 = 4;

/// A request on its way.
#[derive(Clone, Debug)]
pub(super) struct EncodedRequest {
    /// The `ClientRequest` without `acked_below`.
    pub(super) message: Bytes,
    pub(super) acked_below: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StreamCodec;

impl Codec for StreamCodec {
    type Encode = EncodedRequest;
    type Decode = v1::ClientResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for StreamCodec {
    type Item = EncodedRequest;
    type Error = Status;

    fn encode(&mut self, item: EncodedRequest, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        write(&item, buffer);
        Ok(())
    }
}

fn write(item: &EncodedRequest, buffer: &mut impl BufMut) {
    buffer.put_slice(&item.message);
    if item.acked_below > 0 {
        encoding::uint64::encode(ACKED_BELOW_TAG, &item.acked_below, buffer);
    }
}

impl Decoder for StreamCodec {
    type Item = v1::ClientResponse;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<v1::ClientResponse>, Status> {
        v1::ClientResponse::decode(buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_appended_field_reads_back_as_part_of_the_request() {
        let mut request = v1::ClientRequest {
            client_id: "c".into(),
            request_id: 7,
            partition: Some(0),
            ..Default::default()
        };
        let message = Bytes::from(request.encode_to_vec());
        for acked_below in [0, 1, u64::MAX] {
            let mut bytes = Vec::new();
            write(&EncodedRequest { message: message.clone(), acked_below }, &mut bytes);
            request.acked_below = acked_below;
            assert_eq!(v1::ClientRequest::decode(bytes.as_slice()), Ok(request.clone()));
        }
    }
}
