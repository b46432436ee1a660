//! The codec of every call: checks an encoded message against its [limits](crate::bounds), then
//! decodes it with prost.
//!
//! prost has no limits of its own, and a request of 60 MiB can take 14 GB once it is decoded. So
//! the check comes first. Clients use the same codec for the farm's answers.

use std::marker::PhantomData;

use bytes::Buf;
use darkroom_core::error::{Code, UserError};
use prost::{Message, Name};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::{
    bounds::MAX_ELEMENTS,
    status::to_status,
    walk::{Refusal, Tables},
};

/// Encodes `T` with prost; checks a `U` against its limits, then decodes it.
#[derive(Clone, Copy, Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Decodes messages that are within their limits.
#[derive(Clone, Copy, Debug)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Name + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // tonic gathers a message in one piece.
        if source.chunk().len() == source.remaining() {
            check::<U>(source.chunk())?;
            return U::decode(source).map(Some).map_err(|error| malformed::<U>(&error.to_string()));
        }
        let whole = source.copy_to_bytes(source.remaining());
        decode(&whole).map(Some)
    }
}

/// Checks an encoded message and decodes it, as the codec does with those of a connection.
///
/// # Errors
/// The status that the peer would get.
pub fn decode<U: Message + Name + Default>(bytes: &[u8]) -> Result<U, Status> {
    check::<U>(bytes)?;
    U::decode(bytes).map_err(|error| malformed::<U>(&error.to_string()))
}

fn check<U: Name>(bytes: &[u8]) -> Result<(), Status> {
    let tables = Tables::get();
    let refusal = match tables.check(&U::full_name(), bytes) {
        Ok(()) => return Ok(()),
        Err(refusal) => refusal,
    };
    let (field, message) = match refusal {
        Refusal::Malformed(why) => return Err(malformed::<U>(why)),
        Refusal::TooMany { field, limit: 1, .. } => {
            let message = format!("{field} comes more than once; accepted: once");
            (Some(field), message)
        }
        Refusal::TooMany { field, limit, advice } => {
            let message = format!(
                "{field} has more than {limit} entries; accepted: at most {limit} a message{advice}"
            );
            (Some(field), message)
        }
        Refusal::TooManyInAll => {
            let message = format!(
                "the lists and maps of the message have more than {MAX_ELEMENTS} entries together; \
                 accepted: at most {MAX_ELEMENTS}, so send smaller messages"
            );
            (None, message)
        }
        Refusal::TooDeep => return Err(malformed::<U>("its messages are nested too deeply")),
    };
    let code =
        if tables.is_request(&U::full_name()) { Code::InvalidArgument } else { Code::Internal };
    Err(to_status(&UserError { field, ..UserError::new(code, "TOO_MANY", message) }))
}

/// The error for malformed bytes: the caller's fault in a request, the farm's in an answer.
fn malformed<U: Name>(why: &str) -> Status {
    let is_request = Tables::get().is_request(&U::full_name());
    let code = if is_request { Code::InvalidArgument } else { Code::Internal };
    let message = format!("the bytes are not a message of type {}: {why}", U::full_name());
    to_status(&UserError::new(code, "MALFORMED", message))
}
