//! Headers of requests and responses, ApiVersions' two exceptions to their rules, and the frames that messages travel in.

use bytes::Bytes;
use nom::number::complete as number;

use super::api::Api;
use super::wire::{
    Chunks, Count, Decode, DecodeError, Decoded, Encode, Nullable, Sink, Str, Wire, tagged_fields,
};

/// The key of ApiVersions, whose headers differ.
const API_VERSIONS: i16 = 18;

/// What stands before every request body.
#[derive(Clone, PartialEq, Debug)]
pub struct RequestHeader {
    /// Which API.
    pub api_key: i16,
    /// Which version of it.
    pub api_version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<Str>,
}

impl RequestHeader {
    /// Reads the fields that all header versions share: key, version, correlation id, client id. What follows in a
    /// flexible header is read by [`RequestHeader::skip_tags`], since only the API tells whether it is there.
    ///
    /// # Errors
    /// Truncation, or a client id that is not UTF-8.
    pub fn decode(frame: &Bytes) -> Result<(&[u8], Self), DecodeError> {
        // The client id keeps its classic length even in flexible headers, so that any broker can read it. KIP-482.
        let budget = std::cell::Cell::new(0);
        let (rest, header) =
            Self::parse(frame, Decode { frame, version: 1, flexible: false, budget: &budget })
                .map(|(rest, header)| (rest.len(), header))
                .map_err(|error| unwrap(error, "RequestHeader"))?;
        Ok((&frame[frame.len() - rest..], header))
    }

    fn parse<'i>(input: &'i [u8], cx: Decode<'i>) -> Decoded<'i, Self> {
        let (input, api_key) = number::be_i16(input)?;
        let (input, api_version) = number::be_i16(input)?;
        let (input, correlation_id) = number::be_i32(input)?;
        let (input, client_id) = Str::decode_option(input, cx)?;
        Ok((input, Self { api_key, api_version, correlation_id, client_id }))
    }

    /// Passes over the tagged fields of a flexible header (version 2).
    ///
    /// # Errors
    /// Truncation.
    pub fn skip_tags(input: &[u8]) -> Result<&[u8], DecodeError> {
        match tagged_fields(input, "RequestHeader.tagged fields", |_, _| Ok(())) {
            Ok((rest, ())) => Ok(rest),
            Err(error) => Err(unwrap(error, "RequestHeader.tagged fields")),
        }
    }

    /// Writes the header, as a client does.
    pub fn encode(&self, out: &mut impl Sink, flexible: bool) {
        out.put(&self.api_key.to_be_bytes());
        out.put(&self.api_version.to_be_bytes());
        out.put(&self.correlation_id.to_be_bytes());
        Str::encode_option(self.client_id.as_ref(), out, Encode { version: 1, flexible: false });
        if flexible {
            out.uvarint(0);
        }
    }
}

fn unwrap(error: nom::Err<DecodeError>, place: &'static str) -> DecodeError {
    match error {
        nom::Err::Error(error) | nom::Err::Failure(error) => {
            DecodeError { place: if error.place.is_empty() { place } else { error.place }, ..error }
        }
        nom::Err::Incomplete(_) => unreachable!("only complete parsers are used"),
    }
}

/// Bytes of a response header: the correlation id, and in flexible versions an empty tag section. ApiVersions answers
/// with the classic header at every version, so that a client can read it before it knows the broker. KIP-511.
pub fn response_header_size(api_key: i16, flexible: bool) -> usize {
    if flexible && api_key != API_VERSIONS { 5 } else { 4 }
}

/// Writes a response header: see [`response_header_size`].
pub fn encode_response_header(out: &mut impl Sink, api_key: i16, flexible: bool, correlation_id: i32) {
    out.put(&correlation_id.to_be_bytes());
    if response_header_size(api_key, flexible) == 5 {
        out.uvarint(0);
    }
}

/// Writes a request as it goes over a socket: size, header, body.
pub fn frame_request<A: Api>(
    out: &mut Chunks,
    version: i16,
    correlation_id: i32,
    client_id: &'static str,
    request: &A::Request,
) {
    let cx = A::encode(version);
    let client_id = Some(Str::from_static(client_id));
    let header = RequestHeader { api_key: A::KEY, api_version: version, correlation_id, client_id };
    let mut size = Count::default();
    header.encode(&mut size, cx.flexible);
    request.encode(&mut size, cx);
    out.put(&(size.0 as u32).to_be_bytes());
    header.encode(out, cx.flexible);
    request.encode(out, cx);
}

/// Writes a response as it goes over a socket, size, header, body, and gives the number of all these bytes.
pub fn frame_response<A: Api>(
    out: &mut Chunks,
    version: i16,
    correlation_id: i32,
    response: &A::Response,
) -> usize {
    let cx = A::encode(version);
    let size = response_header_size(A::KEY, cx.flexible) + response.size(cx);
    out.put(&(size as u32).to_be_bytes());
    encode_response_header(out, A::KEY, cx.flexible, correlation_id);
    response.encode(out, cx);
    size_of::<u32>() + size
}
