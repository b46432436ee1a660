//! The answers of the scripts, as types.

use redis::{FromRedisValue, ParsingError, Value, from_redis_value};

/// An entry of a stream.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) fields: Vec<Vec<u8>>,
}

impl FromRedisValue for Entry {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (id, fields): (String, Option<Vec<Vec<u8>>>) = from_redis_value(value)?;
        Ok(Self { id, fields: fields.unwrap_or_default() })
    }
}

/// What the reaper found.
#[derive(Debug)]
pub(super) struct Reaped {
    pub(super) run_id: String,
    /// Holder, and the entry, whose id is the lease's.
    pub(super) expired: Vec<(String, Entry)>,
}

impl FromRedisValue for Reaped {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let mut answer = from_redis_value::<Vec<Value>>(value)?.into_iter();
        let run_id = from_redis_value(answer.next().unwrap_or_default())?;
        let expired = answer.map(|one| {
            let (id, holder, fields): (String, Vec<u8>, Vec<Vec<u8>>) = from_redis_value(one)?;
            // Whoever reaches Redis can lease by any name.
            Ok((String::from_utf8_lossy(&holder).into_owned(), Entry { id, fields }))
        });
        Ok(Self { run_id, expired: expired.collect::<Result<_, ParsingError>>()? })
    }
}
