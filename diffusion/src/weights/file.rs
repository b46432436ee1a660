//! One safetensors file: its header, and its tensors' bytes.
//!
//! Bytes are read, never mapped. A mapped file that somebody cuts short ends the process with a bus
//! error, and one that is rewritten changes under the checks; a read one fails to load.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use darkroom_core::shown::shown;
use half::{bf16, f16};
use memmap2::MmapMut;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensorError, SafeTensors};
use tch::{Device, Kind, Tensor};

use crate::error::LoadError;
use crate::foreign;
use crate::layers::Torch;

/// How many of its first bytes are read to recognise a foreign file.
const HEAD: usize = 4096;
/// Bytes of the number before a header, which is the header's length.
const LENGTH: usize = 8;
/// Longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// A file: its header, and the offset of its tensors' bytes.
pub(crate) struct File {
    pub(super) path: PathBuf,
    file: std::fs::File,
    data_start: usize,
    pub(super) header: Metadata,
}

/// Memory into which pieces of files are read. It lies outside the heap, where it would leave a
/// hole between the weights; it grows to the largest piece.
#[derive(Default)]
pub(super) struct Piece(Option<MmapMut>);

impl Piece {
    fn of(&mut self, length: usize) -> std::io::Result<&mut [u8]> {
        let memory = match self.0.take() {
            Some(memory) if memory.len() >= length => memory,
            _ => MmapMut::map_anon(length.max(super::PIECE))?,
        };
        Ok(&mut self.0.insert(memory)[..length])
    }
}

impl File {
    pub(super) fn open(path: &Path) -> Result<Self, LoadError> {
        let unreadable = |source| LoadError::read(path, source);
        let corrupt = |message: String| LoadError::Corrupt {
            path: path.to_owned(),
            message: shown(&message).into_owned(),
        };
        let irregular = || corrupt("it is not a regular file".to_owned());
        // Checked before it is opened, because opening a device can have side effects.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(irregular());
        }
        if let Some(beside) = foreign::control_file(path) {
            return Err(LoadError::Unfinished { path: path.to_owned(), beside });
        }
        // Opening a pipe that took its place must not wait for the pipe's writer.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?;
        if !found.is_file() {
            return Err(irregular());
        }
        let length = found.len();
        let first = |most: u64| {
            let mut bytes = vec![0; usize::try_from(length.min(most)).unwrap_or(HEAD)];
            read(&file, path, &mut bytes, 0).map(|()| bytes)
        };
        let head = first(HEAD as u64)?;
        let header_length = head
            .first_chunk::<LENGTH>()
            .map(|bytes| u64::from_le_bytes(*bytes))
            .filter(|header_length| *header_length <= MAX_HEADER);
        // Without a possible header, the parser says why.
        let bytes = match header_length {
            Some(header_length) => first(LENGTH as u64 + header_length)?,
            None => head.clone(),
        };
        match parse(&bytes, header_length.unwrap_or(0), length) {
            Ok(header) => Ok(Self { path: path.to_owned(), file, data_start: bytes.len(), header }),
            Err(error) => Err(corrupt(describe(&error, &head, length))),
        }
    }

    /// Reads bytes of the file's tensors, counted from their offset.
    ///
    /// # Errors
    /// [`LoadError::Corrupt`] if the file has been cut short since it was opened.
    pub(super) fn read<'a>(
        &self,
        begin: usize,
        end: usize,
        piece: &'a mut Piece,
    ) -> Result<&'a [u8], LoadError> {
        let bytes = piece.of(end - begin).map_err(|source| LoadError::read(&self.path, source))?;
        read(&self.file, &self.path, bytes, (self.data_start + begin) as u64)?;
        Ok(bytes)
    }
}

/// The header in a file's first bytes. The library wants the whole file for that. Of the header
/// alone it checks everything, and then misses the tensors' bytes.
fn parse(bytes: &[u8], header_length: u64, length: u64) -> Result<Metadata, SafeTensorError> {
    match SafeTensors::read_metadata(bytes) {
        Ok((_, header)) if length == bytes.len() as u64 => return Ok(header),
        Ok(_) | Err(SafeTensorError::MetadataIncompleteBuffer) => {}
        Err(error) => return Err(error),
    }
    let header: Metadata = serde_json::from_slice(&bytes[LENGTH..])
        .map_err(SafeTensorError::InvalidHeaderDeserialization)?;
    let end = header.tensors().values().map(|info| info.data_offsets.1).max().unwrap_or(0);
    if (LENGTH as u64 + header_length).checked_add(end as u64) == Some(length) {
        Ok(header)
    } else {
        Err(SafeTensorError::MetadataIncompleteBuffer)
    }
}

fn read(file: &std::fs::File, path: &Path, bytes: &mut [u8], at: u64) -> Result<(), LoadError> {
    file.read_exact_at(bytes, at).map_err(|source| match source.kind() {
        ErrorKind::UnexpectedEof => LoadError::Corrupt {
            path: path.to_owned(),
            message: "it was cut short while it was read; fetch it again".to_owned(),
        },
        _ => LoadError::read(path, source),
    })
}

/// Copies bytes into a tensor on any device, and converts them. `shape` and `kind` describe the
/// bytes. On the CPU there is no intermediate copy, because freeing those copies would fragment the
/// heap between the weights.
pub(super) fn copy_into(place: &mut Tensor, bytes: &[u8], shape: &[i64], kind: Kind) -> Torch<()> {
    let is_aligned = (bytes.as_ptr() as usize).is_multiple_of(kind.elt_size_in_bytes());
    if is_aligned && place.device() == Device::Cpu {
        blob::copy(bytes, place, shape, kind)
    } else {
        place.f_copy_(&Tensor::f_from_data_size(bytes, shape, kind)?)
    }
}

/// Reads a weights file once from end to end, and passes every piece of it to `on_bytes` (to hash
/// it).
///
/// # Errors
/// [`LoadError::Corrupt`] for a truncated or foreign file, [`LoadError::NonFinite`] for a tensor
/// with NaN or infinities.
pub fn scan(path: &Path, on_bytes: &mut dyn FnMut(&[u8])) -> Result<(), LoadError> {
    let file = File::open(path)?;
    let mut head = vec![0; file.data_start];
    read(&file.file, path, &mut head, 0)?;
    on_bytes(&head);
    let mut piece = Piece::default();
    let mut tensors: Vec<_> = file.header.tensors().into_iter().collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    for (name, info) in tensors {
        let (begin, end) = info.data_offsets;
        for first in (begin..end).step_by(super::PIECE) {
            let bytes = file.read(first, end.min(first + super::PIECE), &mut piece)?;
            on_bytes(bytes);
            if !all_finite(info.dtype, bytes) {
                let tensor = shown(&name).into_owned();
                return Err(LoadError::NonFinite { path: path.to_owned(), tensor });
            }
        }
    }
    Ok(())
}

fn describe(error: &SafeTensorError, head: &[u8], length: u64) -> String {
    if let Some(what) = foreign::describe(head) {
        return what;
    }
    match error {
        SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => {
            format!("it ends within its header, after {length} bytes; fetch it again")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            format!(
                "its {length} bytes do not hold the tensors that its header lists; fetch it again"
            )
        }
        SafeTensorError::HeaderTooLarge if head.starts_with(b"{") => {
            "it is a JSON text, perhaps what a server answered".to_owned()
        }
        SafeTensorError::HeaderTooLarge => "its first bytes are not a header's length".to_owned(),
        other => other.to_string(),
    }
}

/// Whether all numbers are finite; true for formats that have only finite numbers.
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
    // Without an early exit the loop can use vector instructions, and almost every tensor is
    // finite.
    rest.is_empty()
        && words
            .chunks(4096)
            .all(|part| part.iter().fold(true, |finite, word| finite & is_finite(*word)))
}

#[expect(unsafe_code, reason = "a tensor over borrowed bytes has no lifetime")]
mod blob {
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
        // SAFETY: shape and strides stay within `bytes`, which live longer than the tensor; it is
        // only read.
        let seen =
            unsafe { Tensor::f_from_blob(bytes.as_ptr(), shape, &strides, kind, Device::Cpu)? };
        place.f_copy_(&seen)
    }
}
