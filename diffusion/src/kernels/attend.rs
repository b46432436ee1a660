//! Attention by libtorch, one row and one head at a time, so that no other row reaches its bits.

#![expect(unsafe_code, reason = "handles of tensors are read from several threads")]

use std::sync::{Mutex, PoisonError};

use tch::{TchError, Tensor};

use super::{pool, threads};
use crate::layers::{Torch, attention};

/// A tensor that several threads look at.
struct Shared<'a>(&'a Tensor);

// SAFETY: a handle counts its references atomically; the memory behind it is only read, or, for the output, written in
// parts that no two pieces share.
unsafe impl Sync for Shared<'_> {}

/// softmax(q kᵀ / √d) v of `[rows, heads, length, head_dim]`, as `[rows, length, heads · head_dim]`.
pub(crate) fn attend(query: &Tensor, key: &Tensor, value: &Tensor) -> Torch<Tensor> {
    let (rows, heads, length, head_dim) = query.size4()?;
    let out = Tensor::f_empty([rows, length, heads, head_dim], (query.kind(), query.device()))?;
    let failure: Mutex<Option<TchError>> = Mutex::new(None);
    let shared = [query, key, value, &out].map(Shared);
    let shared = &shared;
    let one = |piece: usize| -> Torch<()> {
        let (row, head) = (piece as i64 / heads, piece as i64 % heads);
        let [query, key, value, out] = shared;
        let part = |tensor: &Shared<'_>| tensor.0.f_narrow(0, row, 1)?.f_narrow(1, head, 1);
        let mixed = attention(&part(query)?, &part(key)?, &part(value)?)?;
        let mut place = out.0.f_narrow(0, row, 1)?.f_narrow(2, head, 1)?;
        place.f_copy_(&mixed.f_transpose(1, 2)?)
    };
    pool::run(threads::count(), (rows * heads) as usize, &|piece| {
        if let Err(error) = one(piece) {
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => out.f_view([rows, length, heads * head_dim]),
    }
}
