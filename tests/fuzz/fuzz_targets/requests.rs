//! Any frame is a request or an error; a request encodes to bytes that decode to itself.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla::protocol::api::{Api, decode};
use ottla::protocol::header::RequestHeader;
use ottla::protocol::messages::*;
use ottla::protocol::wire::{Chunks, Wire};

fn round<M: Wire + PartialEq + std::fmt::Debug, A: Api>(frame: &Bytes, body: &[u8], version: i16) {
    let cx = A::encode(version);
    if let Ok(message) = decode::<M>(frame, body, version, cx.flexible) {
        let mut out = Chunks::default();
        message.encode(&mut out, cx);
        let again = out.concat().expect("no file ranges in memory");
        assert_eq!(again.len(), message.size(cx));
        assert_eq!(decode::<M>(&again, &again, version, cx.flexible).as_ref(), Ok(&message));
    }
}

macro_rules! each {
    ($key:expr, $version:expr, $frame:expr, $body:expr; $($api:ident)+) => {
        match $key {
            $($api::KEY if ($api::MIN_VERSION..=$api::MAX_VERSION).contains(&$version) => {
                round::<<$api as Api>::Request, $api>($frame, $body, $version);
                round::<<$api as Api>::Response, $api>($frame, $body, $version);
            })+
            _ => {}
        }
    };
}

fuzz_target!(|data: &[u8]| {
    let frame = Bytes::copy_from_slice(data);
    if let Ok((body, header)) = RequestHeader::decode(&frame) {
        let _ = RequestHeader::skip_tags(body);
        each!(header.api_key, header.api_version, &frame, body;
            Produce Fetch ListOffsets Metadata ApiVersions CreateTopics DeleteTopics DeleteRecords InitProducerId
            OffsetForLeaderEpoch DescribeConfigs AlterConfigs CreatePartitions IncrementalAlterConfigs
            DescribeCluster DescribeTopicPartitions);
    }
});
