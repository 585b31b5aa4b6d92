//! The notation in which messages are declared: the source is the protocol reference.
//!
//! ```text
//! api! {
//!     /// What it is for. KIP-1.
//!     Name { key: 2, versions: 1..=11, flexible: 6.. }        // or `flexible: none`
//!
//!     request NameRequest {
//!         field: Type [versions] = default,
//!     } + tagged {
//!         0 => field: Type [versions] = default,
//!     }
//!     struct Part { … }
//!     response NameResponse { … }
//! }
//! ```
//! A row without brackets is in all versions; `[4..]`, `[0..=12]` say where it exists; `[4.., null 7..]` or `[null 1..]`
//! say from where on an `Option` may be null (before, null is sent as the empty value and refused when read). Without `=`
//! the default is zero, empty or null. `message!` declares a struct alone, for the records of internal topics.

use bytes::Bytes;

use super::wire::{Decode, DecodeError, Encode, Wire};

/// An API: its number, its versions, its two messages. Implemented by the marker types that `api!` makes.
pub trait Api: 'static {
    /// The API key.
    const KEY: i16;
    /// Kafka's name of the API.
    const NAME: &'static str;
    /// First version that can be decoded.
    const MIN_VERSION: i16;
    /// Last version, inclusive.
    const MAX_VERSION: i16;
    /// First flexible version; `i16::MAX` if none is.
    const FIRST_FLEXIBLE: i16;
    /// What a client sends.
    type Request: Wire + Default;
    /// What it gets.
    type Response: Wire + Default + Send + 'static;

    /// Whether `version` has compact lengths and tagged fields. KIP-482.
    fn is_flexible(version: i16) -> bool {
        version >= Self::FIRST_FLEXIBLE
    }

    /// How to write messages of `version`.
    fn encode(version: i16) -> Encode {
        Encode { version, flexible: Self::is_flexible(version) }
    }
}

/// Decodes a whole message from `body`, a slice of `frame`. Bytes after the message are ignored, as Kafka does.
///
/// # Errors
/// Where and why the bytes are not a message of that version.
pub fn decode<M: Wire>(frame: &Bytes, body: &[u8], version: i16, flexible: bool) -> Result<M, DecodeError> {
    let budget = std::cell::Cell::new(super::wire::ARRAY_BUDGET_BYTES);
    let cx = Decode { frame, version, flexible, budget: &budget };
    match M::decode(body, cx) {
        Ok((_rest, message)) => Ok(message),
        Err(nom::Err::Error(error) | nom::Err::Failure(error)) => Err(error),
        Err(nom::Err::Incomplete(_)) => unreachable!("only complete parsers are used"),
    }
}

/// Declares an API: see the module's page.
macro_rules! api {
    (
        $(#[$meta:meta])*
        $api:ident { key: $key:literal, versions: $min:literal ..= $max:literal, flexible: $($flexible:tt)+ }

        $(#[$request_meta:meta])*
        request $request:ident { $($request_rows:tt)* } $(+ tagged { $($request_tagged:tt)* })?
        $(
            $(#[$before_meta:meta])*
            struct $before:ident { $($before_rows:tt)* } $(+ tagged { $($before_tagged:tt)* })?
        )*
        $(#[$response_meta:meta])*
        response $response:ident { $($response_rows:tt)* } $(+ tagged { $($response_tagged:tt)* })?
        $(
            $(#[$after_meta:meta])*
            struct $after:ident { $($after_rows:tt)* } $(+ tagged { $($after_tagged:tt)* })?
        )*
    ) => {
        $(#[$meta])*
        pub struct $api;

        impl $crate::protocol::api::Api for $api {
            const KEY: i16 = $key;
            const NAME: &'static str = stringify!($api);
            const MIN_VERSION: i16 = $min;
            const MAX_VERSION: i16 = $max;
            const FIRST_FLEXIBLE: i16 = $crate::protocol::api::first_flexible!($($flexible)+);
            type Request = $request;
            type Response = $response;
        }

        $crate::protocol::api::message! {
            $(#[$request_meta])* $request { $($request_rows)* } $(+ tagged { $($request_tagged)* })?
        }
        $($crate::protocol::api::message! {
            $(#[$before_meta])* $before { $($before_rows)* } $(+ tagged { $($before_tagged)* })?
        })*
        $crate::protocol::api::message! {
            $(#[$response_meta])* $response { $($response_rows)* } $(+ tagged { $($response_tagged)* })?
        }
        $($crate::protocol::api::message! {
            $(#[$after_meta])* $after { $($after_rows)* } $(+ tagged { $($after_tagged)* })?
        })*
    };
}

/// Declares one struct: its fields, defaults, decoder and encoder.
macro_rules! message {
    (
        $(#[$meta:meta])*
        $name:ident {
            $( $(#[$row_meta:meta])* $row:ident : $type:ty $([ $($when:tt)+ ])? $(= $default:expr)? ),* $(,)?
        }
        $(+ tagged {
            $( $(#[$tag_meta:meta])* $tag:literal => $tagged:ident : $tagged_type:ty $([ $($tagged_when:tt)+ ])? $(= $tagged_default:expr)? ),* $(,)?
        })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)] // Kafka's field names are the documentation; rows that need more have it.
        pub struct $name {
            $( $(#[$row_meta])* pub $row: $type, )*
            $($( $(#[$tag_meta])* pub $tagged: $tagged_type, )*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $row: $crate::protocol::api::default_of!($($default)?), )*
                    $($( $tagged: $crate::protocol::api::default_of!($($tagged_default)?), )*)?
                }
            }
        }

        impl $crate::protocol::wire::Wire for $name {
            fn decode<'i>(
                input: &'i [u8],
                cx: $crate::protocol::wire::Decode<'i>,
            ) -> $crate::protocol::wire::Decoded<'i, Self> {
                $(
                    let (input, $row) = if $crate::protocol::api::exists!(cx.version; $($($when)+)?) {
                        $crate::protocol::api::decode_row!(
                            input, cx, concat!(stringify!($name), ".", stringify!($row)); $($($when)+)?
                        )?
                    } else {
                        (input, $crate::protocol::api::default_of!($($default)?))
                    };
                )*
                #[allow(unused_mut)] // Only messages with tagged fields change it.
                let mut message = Self {
                    $( $row, )*
                    $($( $tagged: $crate::protocol::api::default_of!($($tagged_default)?), )*)?
                };
                if !cx.flexible {
                    return Ok((input, message));
                }
                let place = concat!(stringify!($name), ".tagged fields");
                let (input, ()) = $crate::protocol::wire::tagged_fields(input, place, |_tag, _data| {
                    match _tag {
                        $($(
                            $tag if $crate::protocol::api::exists!(cx.version; $($($tagged_when)+)?) => {
                                let place = concat!(stringify!($name), ".", stringify!($tagged));
                                message.$tagged = $crate::protocol::wire::field(_data, cx, place)?.1;
                            }
                        )*)?
                        // A field of a later version: KIP-482 lets readers pass over it.
                        _ => {}
                    }
                    Ok(())
                })?;
                Ok((input, message))
            }

            #[allow(unused_mut, unused_variables, clippy::redundant_closure_call)]
            fn encode<S: $crate::protocol::wire::Sink>(&self, out: &mut S, cx: $crate::protocol::wire::Encode) {
                $(
                    if $crate::protocol::api::exists!(cx.version; $($($when)+)?) {
                        $crate::protocol::api::encode_row!(&self.$row, out, cx; $($($when)+)?);
                    }
                )*
                if cx.flexible {
                    let mut count = 0;
                    $($(
                        let default: $tagged_type = $crate::protocol::api::default_of!($($tagged_default)?);
                        let $tagged = $crate::protocol::api::exists!(cx.version; $($($tagged_when)+)?)
                            && self.$tagged != default;
                        count += u32::from($tagged);
                    )*)?
                    out.uvarint(count);
                    $($(
                        if $tagged {
                            out.uvarint($tag);
                            out.uvarint($crate::protocol::wire::Wire::size(&self.$tagged, cx) as u32);
                            $crate::protocol::wire::Wire::encode(&self.$tagged, out, cx);
                        }
                    )*)?
                }
            }

            fn errors(&self, _seen: &mut impl FnMut(i16)) {
                $( $crate::protocol::api::errors_in!($row, &self.$row, _seen); )*
                $($( $crate::protocol::api::errors_in!($tagged, &self.$tagged, _seen); )*)?
            }
        }

        impl $crate::protocol::wire::Nullable for $name {}
    };
}

/// Whether a row exists in a version: the part of its brackets before `, null`.
macro_rules! exists {
    ($version:expr;) => {
        true
    };
    ($version:expr; null $($rest:tt)+) => {
        true
    };
    ($version:expr; $from:literal .. $(, null $($rest:tt)+)?) => {
        $version >= $from
    };
    ($version:expr; $from:literal ..= $to:literal $(, null $($rest:tt)+)?) => {
        ($from..=$to).contains(&$version)
    };
}

/// Whether a row may be null in a version: the part of its brackets after `null`.
macro_rules! null_allowed {
    ($version:expr; null $from:literal ..) => {
        $version >= $from
    };
    ($version:expr; $a:literal .. , null $from:literal ..) => {
        $version >= $from
    };
    ($version:expr; $a:literal ..= $b:literal , null $from:literal ..) => {
        $version >= $from
    };
}

macro_rules! decode_row {
    ($input:expr, $cx:expr, $place:expr; null $($rest:tt)+) => {
        $crate::protocol::wire::field_nullable($input, $cx, $place, $crate::protocol::api::null_allowed!($cx.version; null $($rest)+))
    };
    ($input:expr, $cx:expr, $place:expr; $from:literal .. , null $($rest:tt)+) => {
        $crate::protocol::api::decode_row!($input, $cx, $place; null $($rest)+)
    };
    ($input:expr, $cx:expr, $place:expr; $from:literal ..= $to:literal , null $($rest:tt)+) => {
        $crate::protocol::api::decode_row!($input, $cx, $place; null $($rest)+)
    };
    ($input:expr, $cx:expr, $place:expr; $($when:tt)*) => {
        $crate::protocol::wire::field($input, $cx, $place)
    };
}

macro_rules! encode_row {
    ($value:expr, $out:expr, $cx:expr; null $($rest:tt)+) => {
        match $value {
            None if !$crate::protocol::api::null_allowed!($cx.version; null $($rest)+) => {
                let empty = Some(Default::default());
                // The assignment gives `empty` the row's own type.
                let row = [$value, &empty][1];
                $crate::protocol::wire::Wire::encode(row, $out, $cx);
            }
            value => $crate::protocol::wire::Wire::encode(value, $out, $cx),
        }
    };
    ($value:expr, $out:expr, $cx:expr; $from:literal .. , null $($rest:tt)+) => {
        $crate::protocol::api::encode_row!($value, $out, $cx; null $($rest)+)
    };
    ($value:expr, $out:expr, $cx:expr; $from:literal ..= $to:literal , null $($rest:tt)+) => {
        $crate::protocol::api::encode_row!($value, $out, $cx; null $($rest)+)
    };
    ($value:expr, $out:expr, $cx:expr; $($when:tt)*) => {
        $crate::protocol::wire::Wire::encode($value, $out, $cx)
    };
}

macro_rules! errors_in {
    (error_code, $value:expr, $seen:expr) => {
        $seen(*$value)
    };
    ($row:ident, $value:expr, $seen:expr) => {
        $crate::protocol::wire::Wire::errors($value, $seen)
    };
}

macro_rules! default_of {
    () => {
        Default::default()
    };
    ($default:expr) => {
        $default
    };
}

macro_rules! first_flexible {
    (none) => {
        i16::MAX
    };
    ($from:literal ..) => {
        $from
    };
}

pub(crate) use {
    api, decode_row, default_of, encode_row, errors_in, exists, first_flexible, message, null_allowed,
};
