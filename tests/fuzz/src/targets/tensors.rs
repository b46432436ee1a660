//! Tensors as they lie in storage between stages.

use darkroom_artifacts::tensor::FloatTensor;

use super::messages::Rough as _;
use crate::verdict::Verdict;

/// A tensor between stages.
pub(super) fn tensors(data: &[u8]) -> Verdict {
    let (tensor, metadata) = match FloatTensor::from_bytes(data) {
        Ok(read) => read,
        Err(error) => return Verdict::refused(error, data),
    };
    assert_eq!(tensor.shape.iter().product::<usize>(), tensor.data.len());
    let written = tensor.to_bytes(&metadata).expect("shape and data agree");
    let (again, same) = FloatTensor::from_bytes(&written).expect("our own");
    let bits =
        |tensor: &FloatTensor| tensor.data.iter().map(|one| one.to_bits()).collect::<Vec<_>>();
    assert_eq!(
        (again.shape.clone(), bits(&again), same),
        (tensor.shape.clone(), bits(&tensor), metadata)
    );
    Verdict::accepted(format_args!("{} {}", tensor.shape.len(), tensor.data.len().ilog2_or_zero()))
}
