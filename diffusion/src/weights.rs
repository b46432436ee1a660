//! Weights from safetensors files, one tensor at a time, with nothing missing, misshapen, infinite or left over.
//!
//! A folder holds either one file or shards with an `index.json`. Files are memory-mapped: a tensor's bytes are read
//! when the network asks for it, checked, and copied to the device in the number format it runs in, so that loading
//! never holds a second copy of the model. [`Weights::finish`] accounts for every tensor of the files.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensorError, SafeTensors};
use tch::{Device, Kind, Tensor};

use crate::device::Placement;
use crate::error::LoadError;

/// The tensors of one model folder.
pub(crate) struct Weights {
    source: PathBuf,
    files: Vec<File>,
    /// Which file holds each tensor.
    places: BTreeMap<String, usize>,
    taken: RefCell<BTreeSet<String>>,
    parameters: RefCell<usize>,
    placement: Placement,
}

/// One mapped file: its header, and where its tensors' bytes begin.
struct File {
    path: PathBuf,
    map: Mmap,
    data_start: usize,
    header: Metadata,
}

impl Weights {
    /// Opens `{stem}.safetensors` or `{stem}.safetensors.index.json` of a folder; if neither is there, the same with
    /// the variants `fp16` and `bf16` that checkpoints are published in.
    pub(crate) fn open(folder: &Path, stem: &str, placement: Placement) -> Result<Self, LoadError> {
        for variant in ["", "fp16", "bf16"] {
            let dotted = if variant.is_empty() { String::new() } else { format!(".{variant}") };
            let single = folder.join(format!("{stem}{dotted}.safetensors"));
            if single.is_file() {
                return Self::from_files(single.clone(), vec![File::open(&single)?], placement);
            }
            let index = folder.join(format!("{stem}.safetensors.index{dotted}.json"));
            if index.is_file() {
                return Self::from_index(folder, index, placement);
            }
        }
        let absent = std::io::Error::new(std::io::ErrorKind::NotFound, "no weights there");
        Err(LoadError::read(&folder.join(format!("{stem}.safetensors")), absent))
    }

    fn from_index(folder: &Path, index: PathBuf, placement: Placement) -> Result<Self, LoadError> {
        let invalid = |message: String| LoadError::Config { path: index.clone(), message };
        let text = std::fs::read(&index).map_err(|source| LoadError::read(&index, source))?;
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        let map =
            value["weight_map"].as_object().ok_or_else(|| invalid("`weight_map` is missing".to_owned()))?;
        let mut names = BTreeSet::new();
        for name in map.values() {
            let name =
                name.as_str().ok_or_else(|| invalid("`weight_map` holds something not a text".to_owned()))?;
            if name.contains(['/', '\\']) || name.starts_with('.') {
                return Err(invalid(format!(
                    "`weight_map` names {name}, which is not a file of this folder"
                )));
            }
            names.insert(name);
        }
        let files = names.iter().map(|name| File::open(&folder.join(name))).collect::<Result<_, _>>()?;
        let weights = Self::from_files(index.clone(), files, placement)?;
        match map.keys().find(|name| !weights.places.contains_key(*name)) {
            Some(name) => Err(LoadError::Missing { path: index, tensor: name.clone() }),
            None => Ok(weights),
        }
    }

    fn from_files(source: PathBuf, files: Vec<File>, placement: Placement) -> Result<Self, LoadError> {
        let mut places = BTreeMap::new();
        for (position, file) in files.iter().enumerate() {
            for name in file.header.tensors().into_keys() {
                places.insert(name, position);
            }
        }
        Ok(Self {
            source,
            files,
            places,
            taken: RefCell::default(),
            parameters: RefCell::default(),
            placement,
        })
    }

    /// The parameters taken so far.
    pub(crate) fn parameters(&self) -> usize {
        *self.parameters.borrow()
    }

    /// Where the tensors go, and as what.
    pub(crate) fn placement(&self) -> Placement {
        self.placement
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// A tensor of the given shape on the model's device, in its number format.
    pub(crate) fn take(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        self.take_as(name, shape, self.placement.kind)
    }

    /// A tensor that stays in f32 whatever the network runs in.
    pub(crate) fn take_f32(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        self.take_as(name, shape, Kind::Float)
    }

    fn take_as(&self, name: &str, shape: &[usize], kind: Kind) -> Result<Tensor, LoadError> {
        let missing = || LoadError::Missing { path: self.source.clone(), tensor: name.to_owned() };
        let file = &self.files[*self.places.get(name).ok_or_else(missing)?];
        let info = file.header.info(name).ok_or_else(missing)?;
        let (path, tensor) = (file.path.clone(), name.to_owned());
        if info.shape != shape {
            return Err(LoadError::Shape {
                path,
                tensor,
                found: info.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        let bytes = &file.map[file.data_start + info.data_offsets.0..file.data_start + info.data_offsets.1];
        let (stored, finite) = match info.dtype {
            Dtype::F32 => (Kind::Float, all_finite::<4>(bytes, |word| f32::from_le_bytes(word).is_finite())),
            Dtype::F16 => (Kind::Half, all_finite::<2>(bytes, |word| f16::from_le_bytes(word).is_finite())),
            Dtype::BF16 => {
                (Kind::BFloat16, all_finite::<2>(bytes, |word| bf16::from_le_bytes(word).is_finite()))
            }
            other => return Err(LoadError::Dtype { path, tensor, dtype: format!("{other:?}") }),
        };
        if !finite {
            return Err(LoadError::NonFinite { path, tensor });
        }
        let extents: Vec<i64> = shape.iter().map(|extent| *extent as i64).collect();
        let failed = |error| LoadError::torch(&file.path, error);
        let tensor = Tensor::f_from_data_size(bytes, &extents, stored).map_err(failed)?;
        let tensor =
            tensor.f_to_kind(kind).map_err(failed)?.f_to_device(self.placement.device).map_err(failed)?;
        if self.taken.borrow_mut().insert(name.to_owned()) {
            *self.parameters.borrow_mut() += shape.iter().product::<usize>();
        }
        Ok(tensor)
    }

    /// Fails if the files hold a tensor that was not taken and that `expected_extra` does not know.
    pub(crate) fn finish(self, expected_extra: impl Fn(&str) -> bool) -> Result<(), LoadError> {
        let taken = self.taken.borrow();
        let left: Vec<&String> =
            self.places.keys().filter(|name| !taken.contains(*name) && !expected_extra(name)).collect();
        match left.first() {
            None => Ok(()),
            Some(first) => {
                let path = self.files[self.places[*first]].path.clone();
                Err(LoadError::Unexpected { path, count: left.len(), tensor: (*first).clone() })
            }
        }
    }
}

impl File {
    fn open(path: &Path) -> Result<Self, LoadError> {
        let map = mapping::map(path).map_err(|source| LoadError::read(path, source))?;
        let corrupt = |error: SafeTensorError| LoadError::Corrupt {
            path: path.to_owned(),
            message: describe(&error, map.len()),
        };
        let (header_length, header) = SafeTensors::read_metadata(&map).map_err(corrupt)?;
        Ok(Self { path: path.to_owned(), data_start: 8 + header_length, header, map })
    }
}

fn describe(error: &SafeTensorError, length: usize) -> String {
    match error {
        SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => {
            format!("it ends within its header, after {length} bytes")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("its {length} bytes do not hold the tensors that its header lists")
        }
        SafeTensorError::HeaderTooLarge => "its first bytes are not a header's length".to_owned(),
        other => other.to_string(),
    }
}

fn all_finite<const WIDTH: usize>(bytes: &[u8], is_finite: impl Fn([u8; WIDTH]) -> bool) -> bool {
    let (words, rest) = bytes.as_chunks::<WIDTH>();
    // Folding without an early exit lets the loop use vector instructions; almost every tensor is finite.
    rest.is_empty()
        && words.chunks(4096).all(|part| part.iter().fold(true, |finite, word| finite & is_finite(*word)))
}

/// A small file, read whole; for traces.
pub(crate) struct Contents {
    /// f32 or i64, on the host.
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Reads every tensor of a file, and its metadata.
pub(crate) fn read_all(path: &Path) -> Result<Contents, LoadError> {
    let file = File::open(path)?;
    let mut tensors = BTreeMap::new();
    for (name, info) in file.header.tensors() {
        let bytes = &file.map[file.data_start + info.data_offsets.0..file.data_start + info.data_offsets.1];
        let kind = match info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::I64 => Kind::Int64,
            other => {
                return Err(LoadError::Dtype {
                    path: path.to_owned(),
                    tensor: name,
                    dtype: format!("{other:?}"),
                });
            }
        };
        let extents: Vec<i64> = info.shape.iter().map(|extent| *extent as i64).collect();
        tensors.insert(name, Tensor::f_from_data_size(bytes, &extents, kind)?.f_to_device(Device::Cpu)?);
    }
    let metadata = file.header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(Contents { tensors, metadata })
}

#[expect(unsafe_code, reason = "mapping a file is unsafe because another process may truncate it meanwhile")]
mod mapping {
    use std::fs::File;
    use std::path::Path;

    use memmap2::Mmap;

    pub(super) fn map(path: &Path) -> std::io::Result<Mmap> {
        let file = File::open(path)?;
        // SAFETY: the map is private and read-only. Model folders are content-hashed and never written in place; a
        // file truncated under us would end the process with a bus error, not give wrong values.
        unsafe { Mmap::map(&file) }
    }
}

#[cfg(test)]
mod tests;
