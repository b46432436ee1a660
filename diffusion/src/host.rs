//! Data that enters or leaves this crate: plain row-major f32 on the host. Callers never handle
//! libtorch's tensors.

use tch::{Kind, TchError, Tensor};

use crate::error::RenderError;

/// A dense, row-major, contiguous f32 array on the host.
///
/// Pictures are `[3, height, width]` with values in −1…1; text is `[length, dimension]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Extent of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// The values; as many as the product of `shape`.
    pub data: Vec<f32>,
}

impl HostTensor {
    /// Whether `data` has as many values as `shape` requires.
    pub fn is_consistent(&self) -> bool {
        self.shape.iter().product::<usize>() == self.data.len()
    }

    /// Whether every value is finite.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|value| value.is_finite())
    }

    pub(crate) fn expect(&self, field: &'static str, shape: &[usize]) -> Result<(), RenderError> {
        if self.shape == shape && self.is_consistent() {
            return Ok(());
        }
        Err(RenderError::invalid(
            field,
            format!("shape {:?} with {} values; expected {shape:?}", self.shape, self.data.len()),
        ))
    }

    /// Refuses values below `least` or above `most`, and values that are not finite.
    pub(crate) fn expect_within(
        &self,
        field: &'static str,
        least: f32,
        most: f32,
    ) -> Result<(), RenderError> {
        match self.data.iter().find(|value| !(least..=most).contains(*value)) {
            None => Ok(()),
            Some(value) => Err(RenderError::invalid(
                field,
                format!("holds {value}; accepted: values from {least} to {most}"),
            )),
        }
    }

    pub(crate) fn to_tensor(&self) -> Result<Tensor, TchError> {
        let shape: Vec<i64> = self.shape.iter().map(|extent| *extent as i64).collect();
        Tensor::f_from_slice(&self.data)?.f_reshape(shape)
    }

    /// Copies a tensor of any device, type and layout.
    pub(crate) fn from_tensor(tensor: &Tensor) -> Result<Self, TchError> {
        let tensor =
            tensor.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let shape: Vec<usize> = tensor.size().iter().map(|extent| *extent as usize).collect();
        let count = shape.iter().product();
        let mut data = vec![0.0; count];
        if count > 0 {
            tensor.f_copy_data(&mut data, count)?;
        }
        Ok(Self { shape, data })
    }
}
