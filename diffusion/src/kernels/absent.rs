//! Replaces the kernels where they cannot be compiled: types without values.

use tch::{Kind, Tensor};

use crate::layers::{Steer, Torch};

#[derive(Clone, Copy)]
pub(crate) struct Picture<'a> {
    pub(crate) tensor: &'a Tensor,
    pub(crate) doubled: bool,
}

impl<'a> From<&'a Tensor> for Picture<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self { tensor, doubled: false }
    }
}

pub(crate) struct ConvPart<'a> {
    pub(crate) weight: &'a Tensor,
    pub(crate) from: usize,
    pub(crate) channels: usize,
    pub(crate) factor: f64,
}

impl<'a> ConvPart<'a> {
    pub(crate) fn whole(weight: &'a Tensor) -> Self {
        Self { weight, from: 0, channels: 0, factor: 1.0 }
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Layout {
    Stride(usize),
    Apart,
    Double,
}

#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) factor: f64,
    pub(crate) kind: Kind,
}

fn absent<T>() -> Torch<T> {
    Err(tch::TchError::Torch("this crate has no kernels for this CPU".to_owned()))
}

#[derive(Clone, Copy)]
pub(crate) struct Packing {
    pub(crate) kind: Kind,
    pub(crate) layout: Layout,
    pub(crate) may_grow: bool,
}

pub(crate) enum ConvKernel {}

impl ConvKernel {
    pub(crate) fn new(_: Packing, _: &[ConvPart<'_>], _: Option<&Tensor>) -> Torch<Self> {
        absent()
    }

    pub(crate) fn forward(
        &self,
        _: &[Picture<'_>],
        _: Option<Picture<'_>>,
        _: Shape,
    ) -> Torch<Tensor> {
        match *self {}
    }
}

pub(crate) enum NormKernel {}

impl NormKernel {
    pub(crate) fn new(_: &Tensor, _: &Tensor, _: usize, _: f64) -> Torch<Self> {
        absent()
    }

    pub(crate) fn forward(&self, _: &[(&Tensor, f64)], _: Steer<'_>) -> Torch<Tensor> {
        match *self {}
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Heads<'a> {
    pub(crate) head_dim: i64,
    pub(crate) scale: f64,
    pub(crate) bias: Option<&'a Tensor>,
    pub(crate) seen: Option<&'a [i64]>,
}

pub(crate) fn attend(_: &Tensor, _: &[[&Tensor; 2]], _: Heads<'_>) -> Torch<Tensor> {
    absent()
}

pub(crate) fn halve(_: &Tensor) -> Torch<Tensor> {
    absent()
}

pub(crate) fn beside(_: &Tensor, _: &Tensor, _: Kind) -> Torch<Tensor> {
    absent()
}

pub(crate) fn blend(_: &[(&Tensor, f64)], _: Option<f64>) -> Torch<Tensor> {
    absent()
}
