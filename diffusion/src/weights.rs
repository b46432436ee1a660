//! Reads weights from safetensors files, one tensor at a time, and checks that none is missing,
//! infinite, unused or has a wrong shape.
//!
//! A folder has either one file or shards with an `index.json`. When the network asks for a tensor,
//! its bytes are read, checked, and copied to the device in the number format of the network, piece
//! by piece, through memory for one piece. So loading never holds a second copy of the model, or of
//! its largest tensor. Files are never mapped: a file that is cut short meanwhile fails to load and
//! harms nothing else. [`Weights::finish`] checks that every tensor of the files was used.
//!
//! A [`Weights::survey`] answers the same calls from the files' headers alone, with tensors that
//! hold almost nothing. So the code that loads a network also reports what its configuration
//! requires, whatever the size.

mod disturb;
mod file;
mod lying;
mod survey;
mod variants;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use tch::{Device, Kind, Tensor};

use crate::device::{Placement, give_freed_memory_back};
use crate::error::LoadError;

pub use file::scan;
use file::{File, Piece};
pub use survey::WeightsSurvey;
pub(crate) use survey::nowhere;
use variants::Variant;

/// Bytes read, checked and copied at once.
const PIECE: usize = 16 << 20;

/// Before reading a tensor of at least this many bytes, freed memory is given back: what an earlier
/// tensor left may be too small for it, or lie between weights.
const LARGE: usize = 16 << 20;

/// Weights with this many bytes keep their size when they are packed.
const MAY_GROW: usize = 2 << 30;
/// 3 × 3 convolutions with at least this many channels in and out are packed with 16 numbers
/// instead of 9. With 64 channels a layer in bf16 takes 1/1.5 of the time, with 192 1/1.8, with 768
/// half. With 32 it would gain little, and inputs would be rounded once more.
pub(crate) const WIDE: usize = 64;

/// The tensors of one model folder.
pub(crate) struct Weights {
    source: PathBuf,
    files: Vec<File>,
    /// Where pieces of the files are read to.
    piece: RefCell<Piece>,
    /// Which file has each tensor.
    places: BTreeMap<String, usize>,
    /// Numbers in all tensors, used or not.
    numbers: usize,
    taken: RefCell<BTreeSet<String>>,
    counts: RefCell<Counts>,
    placement: Placement,
    /// The variant of these weights, then the other variants beside it; only in a survey.
    surveyed: Option<Vec<String>>,
}

/// Whether the weights of a network with this many numbers may grow.
fn may_grow(numbers: usize, kind: Kind) -> bool {
    numbers * kind.elt_size_in_bytes() <= MAY_GROW
}

/// The numbers taken so far.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    parameters: usize,
    /// How many of these stay in f32, whatever format the network has.
    always_f32: usize,
    /// How many of these belong to convolutions that may be packed, which needs more numbers.
    may_grow: usize,
}

/// A tensor in its file.
struct Found<'a> {
    file: &'a File,
    info: &'a TensorInfo,
    stored: Kind,
}

/// The memory layout of a tensor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Plain,
    ChannelsLast,
}

impl Weights {
    /// Opens the preferred variant of a folder: the plain one, or else `fp16`, or else `bf16`, or
    /// else any other.
    pub(crate) fn open(folder: &Path, stem: &str, placement: Placement) -> Result<Self, LoadError> {
        Self::open_variant(&Variant::choose(folder, stem, None)?, placement)
    }

    /// The same for a named variant, from headers alone.
    pub(crate) fn survey(
        folder: &Path,
        stem: &str,
        variant: Option<&str>,
    ) -> Result<Self, LoadError> {
        let chosen = Variant::choose(folder, stem, variant)?;
        let mut labels: Vec<_> =
            Variant::all(folder, stem)?.iter().map(|variant| variant.label().to_owned()).collect();
        labels.retain(|label| label != chosen.label());
        labels.insert(0, chosen.label().to_owned());
        Ok(Self { surveyed: Some(labels), ..Self::open_variant(&chosen, nowhere())? })
    }

    fn open_variant(variant: &Variant, placement: Placement) -> Result<Self, LoadError> {
        let source = variant.file.clone();
        if !variant.sharded {
            let files = vec![File::open(&source)?];
            return Ok(Self::from_files(source, files, placement));
        }
        let map = variants::shard_map(&source)?;
        let folder = source.parent().unwrap_or(Path::new("")).to_owned();
        let names: BTreeSet<&String> = map.values().collect();
        let files =
            names.iter().map(|name| File::open(&folder.join(name))).collect::<Result<_, _>>()?;
        let weights = Self::from_files(source.clone(), files, placement);
        let place = |(tensor, file): (&String, &String)| {
            let found = weights.places.get(tensor)?;
            (weights.files[*found].path == folder.join(file)).then_some(())
        };
        match map.iter().find(|entry| place(*entry).is_none()) {
            Some((tensor, file)) => {
                Err(LoadError::Missing { path: folder.join(file), tensor: tensor.clone() })
            }
            None => Ok(weights),
        }
    }

    fn from_files(source: PathBuf, files: Vec<File>, placement: Placement) -> Self {
        let (mut places, mut numbers) = (BTreeMap::new(), 0);
        for (position, file) in files.iter().enumerate() {
            for (name, info) in file.header.tensors() {
                places.insert(name, position);
                numbers += info.shape.iter().product::<usize>();
            }
        }
        Self {
            source,
            files,
            piece: RefCell::default(),
            places,
            numbers,
            taken: RefCell::default(),
            counts: RefCell::default(),
            placement,
            surveyed: None,
        }
    }

    /// The parameters taken so far.
    pub(crate) fn parameters(&self) -> usize {
        self.counts.borrow().parameters
    }

    /// The device and format of the tensors.
    pub(crate) fn placement(&self) -> Placement {
        self.placement
    }

    /// Whether weights may take up to 16/9 of their memory if that makes a layer faster. Not if a
    /// network's weights take gibibytes anyway. It depends only on the files and the number format,
    /// because it changes the bits of pictures.
    pub(crate) fn may_grow(&self) -> bool {
        may_grow(self.numbers, self.placement.kind)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// A tensor of the given shape, on the model's device and in its number format.
    pub(crate) fn take(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        self.take_as(name, shape, self.placement.kind, Layout::Plain)
    }

    /// A tensor that stays in f32, whatever format the network has.
    pub(crate) fn take_f32(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        if !self.taken.borrow().contains(name) {
            self.counts.borrow_mut().always_f32 += shape.iter().product::<usize>();
        }
        self.take_as(name, shape, Kind::Float, Layout::Plain)
    }

    /// A convolution's weight, `[outputs, inputs, height, width]`, whose memory is channels-last.
    pub(crate) fn take_channels_last(
        &self,
        name: &str,
        shape: &[usize; 4],
    ) -> Result<Tensor, LoadError> {
        let [outputs, inputs, window @ ..] = *shape;
        if window == [3, 3] && outputs.min(inputs) >= WIDE && !self.taken.borrow().contains(name) {
            self.counts.borrow_mut().may_grow += shape.iter().product::<usize>();
        }
        self.take_as(name, shape, self.placement.kind, Layout::ChannelsLast)
    }

    /// Several matrices of one shape, joined by rows, read into one piece of memory.
    pub(crate) fn take_stacked(
        &self,
        names: &[String],
        shape: [usize; 2],
    ) -> Result<Tensor, LoadError> {
        let [rows, columns] = shape;
        let (kind, whole) = (self.placement.kind, [rows * names.len(), columns]);
        let stacked = match self.surveyed {
            Some(_) => survey::stand_in(&whole, kind)?,
            None => self.empty(&whole, kind, Layout::Plain)?,
        };
        for (position, name) in names.iter().enumerate() {
            let found = self.find(name, &shape)?;
            if self.surveyed.is_none() {
                let place = stacked.f_narrow(0, (position * rows) as i64, rows as i64)?;
                self.fill(&place, name, &found)?;
            }
        }
        Ok(stacked)
    }

    fn take_as(
        &self,
        name: &str,
        shape: &[usize],
        kind: Kind,
        layout: Layout,
    ) -> Result<Tensor, LoadError> {
        let found = self.find(name, shape)?;
        if self.surveyed.is_some() {
            return Ok(survey::stand_in(shape, kind)?);
        }
        let tensor = self.empty(shape, kind, layout)?;
        self.fill(&tensor, name, &found)?;
        Ok(tensor)
    }

    /// Where a tensor is, if it exists with this shape and in a supported format. It then counts as
    /// used.
    fn find(&self, name: &str, shape: &[usize]) -> Result<Found<'_>, LoadError> {
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
        let stored = match info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            other => return Err(LoadError::Dtype { path, tensor, dtype: format!("{other:?}") }),
        };
        if self.taken.borrow_mut().insert(name.to_owned()) {
            self.counts.borrow_mut().parameters += shape.iter().product::<usize>();
        }
        Ok(Found { file, info, stored })
    }

    fn empty(&self, shape: &[usize], kind: Kind, layout: Layout) -> Result<Tensor, LoadError> {
        let extents: Vec<i64> = shape.iter().map(|extent| *extent as i64).collect();
        let options = (kind, self.placement.device());
        if shape.iter().product::<usize>() * kind.elt_size_in_bytes() >= LARGE {
            give_freed_memory_back();
        }
        let tensor = match (layout, extents.as_slice()) {
            (Layout::ChannelsLast, &[outputs, inputs, height, width]) => {
                Tensor::f_empty([outputs, height, width, inputs], options)
                    .and_then(|memory| memory.f_permute([0, 3, 1, 2]))
            }
            _ => Tensor::f_empty(&extents, options),
        };
        tensor.map_err(|error| LoadError::torch(&self.source, error))
    }

    /// Copies a tensor from its file piece by piece; each piece is a run of whole rows of the first
    /// dimension.
    fn fill(&self, tensor: &Tensor, name: &str, found: &Found<'_>) -> Result<(), LoadError> {
        let Found { file, info, stored } = found;
        let failed = |error| LoadError::torch(&file.path, error);
        let bytes = info.data_offsets.1 - info.data_offsets.0;
        let rows = info.shape.first().copied().unwrap_or(1);
        if bytes == 0 {
            return Ok(());
        }
        let row = bytes / rows;
        let rows_at_once = (PIECE / row).clamp(1, rows);
        let mut memory = self.piece.borrow_mut();
        for first in (0..rows).step_by(rows_at_once) {
            let count = rows_at_once.min(rows - first);
            let begin = info.data_offsets.0 + first * row;
            let piece = file.read(begin, begin + count * row, &mut memory)?;
            if !file::all_finite(info.dtype, piece) {
                return Err(LoadError::NonFinite {
                    path: file.path.clone(),
                    tensor: name.to_owned(),
                });
            }
            let mut shape: Vec<i64> = info.shape.iter().map(|extent| *extent as i64).collect();
            let mut place = match shape.first_mut() {
                Some(extent) => {
                    *extent = count as i64;
                    tensor.f_narrow(0, first as i64, count as i64).map_err(failed)?
                }
                None => tensor.shallow_clone(),
            };
            file::copy_into(&mut place, piece, &shape, *stored).map_err(failed)?;
            if let Some(seed) = self.placement.disturbed {
                disturb::last_bits(&mut place, seed ^ begin as u64).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Fails if the files have a tensor that was not used and that `expected_extra` does not
    /// accept.
    pub(crate) fn finish(self, expected_extra: impl Fn(&str) -> bool) -> Result<(), LoadError> {
        let taken = self.taken.borrow();
        let left: Vec<&String> = self
            .places
            .keys()
            .filter(|name| !taken.contains(*name) && !expected_extra(name))
            .collect();
        match left.first() {
            None => Ok(()),
            Some(first) => {
                let path = self.files[self.places[*first]].path.clone();
                Err(LoadError::Unexpected { path, count: left.len(), tensor: (*first).clone() })
            }
        }
    }
}

/// A small file, read completely; for traces.
pub(crate) struct Contents {
    /// f32 or i64, on the host.
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Reads every tensor of a file, and its metadata.
pub(crate) fn read_all(path: &Path) -> Result<Contents, LoadError> {
    let file = File::open(path)?;
    let (mut tensors, mut memory) = (BTreeMap::new(), Piece::default());
    for (name, info) in file.header.tensors() {
        let bytes = file.read(info.data_offsets.0, info.data_offsets.1, &mut memory)?;
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
        tensors.insert(
            name,
            Tensor::f_from_data_size(bytes, &extents, kind)?.f_to_device(Device::Cpu)?,
        );
    }
    let metadata = file.header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(Contents { tensors, metadata })
}

#[cfg(test)]
mod tests;
