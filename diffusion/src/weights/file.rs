//! One mapped safetensors file: its header, and its tensors' bytes.

use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensorError, SafeTensors};
use tch::{Device, Kind, Tensor};

use crate::error::LoadError;
use crate::foreign;
use crate::layers::Torch;

/// Bytes by which a foreign file is told.
const HEAD: usize = 4096;

/// A file: its header, and where its tensors' bytes begin.
pub(crate) struct File {
    pub(super) path: PathBuf,
    map: Mmap,
    data_start: usize,
    pub(super) header: Metadata,
}

impl File {
    pub(super) fn open(path: &Path) -> Result<Self, LoadError> {
        let unreadable = |source| LoadError::read(path, source);
        // Asked before it is opened: to open a pipe waits for whoever writes into it.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            let message = "it is not a regular file".to_owned();
            return Err(LoadError::Corrupt { path: path.to_owned(), message });
        }
        if let Some(beside) = foreign::control_file(path) {
            return Err(LoadError::Unfinished { path: path.to_owned(), beside });
        }
        let map = mapping::map(path).map_err(unreadable)?;
        let corrupt = |error: SafeTensorError| LoadError::Corrupt {
            path: path.to_owned(),
            message: describe(&error, &map),
        };
        let (header_length, header) = SafeTensors::read_metadata(&map).map_err(corrupt)?;
        Ok(Self { path: path.to_owned(), data_start: 8 + header_length, header, map })
    }

    /// Bytes of the file's tensors, counted from where they begin.
    pub(super) fn bytes(&self, begin: usize, end: usize) -> &[u8] {
        &self.map[self.data_start + begin..self.data_start + end]
    }

    /// Copies bytes of a tensor, of this shape and kind, into one on whatever device, converting them on the way. From the
    /// map itself: a copy in between would leave holes of its size in the heap, between the weights.
    pub(super) fn copy_into(
        &self,
        place: &mut Tensor,
        (begin, end): (usize, usize),
        shape: &[i64],
        kind: Kind,
    ) -> Torch<()> {
        let bytes = self.bytes(begin, end);
        let is_aligned = (bytes.as_ptr() as usize).is_multiple_of(kind.elt_size_in_bytes());
        if is_aligned && place.device() == Device::Cpu {
            mapping::copy(bytes, place, shape, kind)
        } else {
            place.f_copy_(&Tensor::f_from_data_size(bytes, shape, kind)?)
        }
    }

    /// Says that these bytes are no longer needed in memory; reading them again reads the file again.
    pub(super) fn give_back(&self, begin: usize, end: usize) {
        mapping::give_back(&self.map, self.data_start + begin, end - begin);
    }
}

/// Reads a weights file from end to end, once, and shows every piece of it to `on_bytes` (to hash it).
///
/// # Errors
/// [`LoadError::Corrupt`] for a truncated or foreign file, [`LoadError::NonFinite`] for a tensor with NaN or infinities.
pub fn scan(path: &Path, on_bytes: &mut dyn FnMut(&[u8])) -> Result<(), LoadError> {
    let file = File::open(path)?;
    on_bytes(&file.map[..file.data_start]);
    let mut tensors: Vec<_> = file.header.tensors().into_iter().collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    for (name, info) in tensors {
        let (begin, end) = info.data_offsets;
        for first in (begin..end).step_by(super::PIECE) {
            let last = end.min(first + super::PIECE);
            let piece = file.bytes(first, last);
            on_bytes(piece);
            if !all_finite(info.dtype, piece) {
                return Err(LoadError::NonFinite { path: path.to_owned(), tensor: name });
            }
            file.give_back(first, last);
        }
    }
    Ok(())
}

fn describe(error: &SafeTensorError, bytes: &[u8]) -> String {
    let length = bytes.len();
    if let Some(what) = foreign::describe(&bytes[..length.min(HEAD)]) {
        return what;
    }
    match error {
        SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => {
            format!("it ends within its header, after {length} bytes; fetch it again")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("its {length} bytes do not hold the tensors that its header lists; fetch it again")
        }
        SafeTensorError::HeaderTooLarge if bytes.starts_with(b"{") => {
            "it is a JSON text, perhaps what a server answered".to_owned()
        }
        SafeTensorError::HeaderTooLarge => "its first bytes are not a header's length".to_owned(),
        other => other.to_string(),
    }
}

/// Whether all numbers are finite; true of formats that have no others.
pub(super) fn all_finite(dtype: Dtype, bytes: &[u8]) -> bool {
    match dtype {
        Dtype::F64 => all::<8>(bytes, |word| f64::from_le_bytes(word).is_finite()),
        Dtype::F32 => all::<4>(bytes, |word| f32::from_le_bytes(word).is_finite()),
        Dtype::F16 => all::<2>(bytes, |word| f16::from_le_bytes(word).is_finite()),
        Dtype::BF16 => all::<2>(bytes, |word| bf16::from_le_bytes(word).is_finite()),
        _ => true,
    }
}

fn all<const WIDTH: usize>(bytes: &[u8], is_finite: impl Fn([u8; WIDTH]) -> bool) -> bool {
    let (words, rest) = bytes.as_chunks::<WIDTH>();
    // Folding without an early exit lets the loop use vector instructions; almost every tensor is finite.
    rest.is_empty()
        && words.chunks(4096).all(|part| part.iter().fold(true, |finite, word| finite & is_finite(*word)))
}

#[expect(unsafe_code, reason = "mapping a file is unsafe because another process may truncate it meanwhile")]
mod mapping {
    use std::fs::File;
    use std::path::Path;

    use memmap2::{Mmap, UncheckedAdvice};
    use tch::{Device, Kind, Tensor};

    use crate::layers::Torch;

    /// Copies `bytes` as a dense tensor of this shape and kind.
    pub(super) fn copy(bytes: &[u8], place: &mut Tensor, shape: &[i64], kind: Kind) -> Torch<()> {
        let count = shape.iter().product::<i64>() as usize;
        assert_eq!(count * kind.elt_size_in_bytes(), bytes.len(), "the shape is that of the bytes");
        let mut strides = vec![1_i64; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        // SAFETY: shape and strides stay within `bytes`, which live longer than the tensor; it is only read.
        let seen = unsafe { Tensor::f_from_blob(bytes.as_ptr(), shape, &strides, kind, Device::Cpu)? };
        place.f_copy_(&seen)
    }

    pub(super) fn map(path: &Path) -> std::io::Result<Mmap> {
        let file = File::open(path)?;
        // SAFETY: the map is private and read-only. Model folders are content-hashed and never written in place; a
        // file truncated under us would end the process with a bus error, not give wrong values.
        unsafe { Mmap::map(&file) }
    }

    pub(super) fn give_back(map: &Mmap, offset: usize, length: usize) {
        // SAFETY: the map is of a file and never written to, so that pages given back are read from the file again.
        // That the system does not take the advice changes nothing.
        let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, length) };
    }
}
