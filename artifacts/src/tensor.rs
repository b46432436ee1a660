//! Float tensors as files: safetensors with one f32 tensor called `tensor` and a little metadata.
//!
//! Equal contents give equal bytes, so that content hashes match: the metadata is one sorted JSON
//! object under a single key.

use std::{borrow::Cow, collections::BTreeMap};

use darkroom_core::shown::shown;
use safetensors::{Dtype, SafeTensors, View, serialize};

/// File extension of tensors.
pub const EXTENSION: &str = "safetensors";

const NAME: &str = "tensor";
const METADATA: &str = "darkroom";

/// A dense f32 tensor in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatTensor {
    /// Extent of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// The values; as many as the product of `shape`.
    pub data: Vec<f32>,
}

/// Why bytes are not such a tensor, or a tensor cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("not a float tensor: {0}")]
pub struct Error(String);

struct F32View<'a>(&'a FloatTensor);

impl View for F32View<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.0.data.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        self.0.data.len() * 4
    }
}

impl FloatTensor {
    /// Whether this can be the embedding of a text: a row of finite values for each token.
    /// `tokens`: how many rows it must have, if that is known.
    #[must_use]
    pub fn is_embedding(&self, tokens: Option<usize>) -> bool {
        let [rows, width] = self.shape.as_slice() else { return false };
        let shaped = *rows > 0 && *width > 0 && tokens.is_none_or(|tokens| tokens == *rows);
        shaped && self.data.iter().all(|value| value.is_finite())
    }

    /// The tensor as a file.
    ///
    /// # Errors
    /// If `shape` and `data` disagree.
    pub fn to_bytes(&self, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, Error> {
        if self.shape.iter().product::<usize>() != self.data.len() {
            return Err(Error(format!("shape {:?}, but {} values", self.shape, self.data.len())));
        }
        let metadata = serde_json::to_string(metadata).map_err(|error| Error(error.to_string()))?;
        let metadata = [(METADATA.to_owned(), metadata)].into();
        serialize([(NAME, F32View(self))], Some(metadata)).map_err(|error| Error(error.to_string()))
    }

    /// Reads a tensor and its metadata back.
    ///
    /// # Errors
    /// If the bytes are truncated or not such a tensor.
    pub fn from_bytes(bytes: &[u8]) -> Result<(Self, BTreeMap<String, String>), Error> {
        let wrong = |error: &dyn std::fmt::Display| Error(shown(&error.to_string()).into_owned());
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| wrong(&error))?;
        let text = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA));
        let metadata = text.map_or(Ok(BTreeMap::new()), |text| serde_json::from_str(text));
        let file = SafeTensors::deserialize(bytes).map_err(|error| wrong(&error))?;
        let view = file.tensor(NAME).map_err(|error| wrong(&error))?;
        if view.dtype() != Dtype::F32 {
            return Err(Error(format!("its values are {:?}; accepted: F32", view.dtype())));
        }
        let values = view.data().as_chunks().0;
        let data = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
        Ok((Self { shape: view.shape().to_vec(), data }, metadata.map_err(|error| wrong(&error))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_and_its_metadata_come_back() {
        let tensor = FloatTensor {
            shape: vec![2, 3],
            data: vec![0.0, -1.0, 0.5, f32::MIN_POSITIVE, 1e30, -0.0],
        };
        let metadata: BTreeMap<_, _> =
            (0..20).map(|i| (format!("key {i}"), format!("wert „{i}“"))).collect();
        let bytes = tensor.to_bytes(&metadata).unwrap();
        assert_eq!(FloatTensor::from_bytes(&bytes).unwrap(), (tensor.clone(), metadata.clone()));
        assert_eq!(tensor.to_bytes(&metadata).unwrap(), bytes, "equal contents, equal bytes");
    }

    #[test]
    fn truncated_and_foreign_bytes_are_refused() {
        let tensor = FloatTensor { shape: vec![4], data: vec![1.0; 4] };
        let bytes = tensor.to_bytes(&BTreeMap::new()).unwrap();
        FloatTensor::from_bytes(&bytes[..bytes.len() - 1]).expect_err("truncated");
        FloatTensor::from_bytes(b"\x89PNG").expect_err("foreign");
        FloatTensor { shape: vec![5], data: vec![1.0; 4] }
            .to_bytes(&BTreeMap::new())
            .expect_err("shape");
    }
}
