mod attend;
mod winograd;

use tch::{Device, Kind, Tensor};

use super::*;
use crate::kernels::instructions::on_every_instruction_set;
use crate::layers::Activation;

/// Made-up values, rounded to `kind`; f32.
fn values(shape: &[i64], kind: Kind, seed: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let index = Tensor::arange(count, (Kind::Float, Device::Cpu));
    ((index * 0.37 + seed).sin() * 1.7).to_kind(kind).to_kind(Kind::Float).view(shape)
}

fn worst(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.size(), expected.size());
    (got.to_kind(Kind::Double) - expected.to_kind(Kind::Double)).abs().max().double_value(&[])
}

fn taps(kind: Kind, layout: Layout) -> Packing {
    Packing { kind, layout, may_grow: false }
}

const KINDS: [(Kind, f64); 2] = [(Kind::Float, 2e-5), (Kind::BFloat16, 0.03)];

#[test]
fn convolutions_are_libtorchs() {
    on_every_instruction_set(|_| {
        // Widths that fill vectors and tiles and that do not; odd channels; borders wider than the
        // picture; few outputs, so that neighbours are computed together, even when the last cell of a
        // line is not full.
        for (channels, outputs, kernel, layout, [height, width]) in [
            (16, 16, 3, Layout::Stride(1), [8, 8]),
            (6, 8, 3, Layout::Stride(1), [5, 7]),
            (6, 8, 3, Layout::Stride(2), [7, 37]),
            (3, 33, 3, Layout::Stride(1), [9, 4]),
            (40, 96, 3, Layout::Stride(2), [8, 6]),
            (24, 70, 1, Layout::Stride(1), [3, 11]),
            (16, 3, 3, Layout::Stride(1), [5, 70]),
            (16, 3, 3, Layout::Stride(1), [3, 45]),
            (9, 5, 1, Layout::Stride(1), [3, 5]),
            (16, 3, 3, Layout::Apart, [5, 9]),
            (32, 16, 3, Layout::Double, [4, 3]),
            (18, 40, 3, Layout::Double, [5, 21]),
            (16, 8, 3, Layout::Double, [6, 35]),
            (7, 3, 3, Layout::Double, [3, 19]),
            (4, 1, 1, Layout::Double, [2, 3]),
            (3, 2, 5, Layout::Double, [4, 9]),
            (5, 6, 7, Layout::Stride(1), [2, 2]),
        ] {
            for (kind, tolerance) in KINDS {
                let x = values(&[2, channels, height, width], kind, 1.0);
                let weight = values(&[outputs, channels, kernel, kernel], kind, 2.0) * 0.1;
                let weight = weight.to_kind(kind).to_kind(Kind::Float);
                let bias = values(&[outputs], Kind::Float, 3.0);
                let conv =
                    ConvKernel::new(taps(kind, layout), &[ConvPart::whole(&weight)], Some(&bias))
                        .unwrap();
                let given = channels_last(&x.to_kind(kind)).unwrap();
                let shape = Shape { factor: 0.5, kind: Kind::Float };
                let got = conv.forward(&[(&given).into()], None, shape).unwrap();
                let (seen, stride) = match layout {
                    Layout::Double => {
                        (x.upsample_nearest2d([2 * height, 2 * width], None, None), 1)
                    }
                    Layout::Stride(stride) => (x, stride as i64),
                    Layout::Apart => (x, 1),
                };
                let (stride, padding) = ([stride; 2], [(kernel - 1) / 2; 2]);
                let expected = seen.conv2d(&weight, Some(&bias), stride, padding, [1, 1], 1) * 0.5;
                let off = worst(&got, &expected);
                assert!(
                    off < tolerance,
                    "{channels} to {outputs}, {kernel}, {layout:?}, {height}×{width}, {kind:?}: {off}"
                );
            }
        }
    });
}

#[test]
fn a_row_has_the_same_bits_alone_and_by_any_number_of_threads() {
    let before = tch::get_num_threads();
    on_every_instruction_set(|set| {
        // Lines that end within a tile, few outputs that are computed with their neighbours', and
        // more pixels than a piece of work.
        for (channels, outputs, layout, [height, width]) in [
            (18, 40, Layout::Stride(1), [5, 13]),
            (16, 3, Layout::Stride(1), [7, 21]),
            (16, 24, Layout::Double, [9, 7]),
            (40, 64, Layout::Stride(2), [6, 10]),
            (8, 100, Layout::Apart, [1, 3]),
        ] {
            for (kind, _) in KINDS {
                let weight = values(&[outputs, channels, 3, 3], kind, 2.0) * 0.1;
                let conv =
                    ConvKernel::new(taps(kind, layout), &[ConvPart::whole(&weight)], None).unwrap();
                let line = values(&[channels], Kind::Float, 4.0);
                let norm = NormKernel::new(&line, &line, 2, 1e-5).unwrap();
                let compute = |x: &Tensor| {
                    let silu = Steer { activation: Some(Activation::Silu), ..Steer::default() };
                    let normed = norm.forward(&[(x, 1.0)], silu).unwrap();
                    conv.forward(&[(&normed).into()], None, Shape { factor: 1.0, kind }).unwrap()
                };
                let x = values(&[4, channels, height, width], kind, 1.0).to_kind(kind);
                let x = channels_last(&x).unwrap();
                tch::set_num_threads(1);
                let together = compute(&x);
                for threads in [1, 2, 7] {
                    tch::set_num_threads(threads);
                    let case =
                        format!("{channels} to {outputs}, {threads} threads, {set:?} {kind:?}");
                    assert_eq!(compute(&x), together, "{case}");
                    for row in 0..4 {
                        let alone = compute(&x.narrow(0, row, 1));
                        assert_eq!(alone, together.narrow(0, row, 1), "row {row}, {case}");
                    }
                }
            }
        }
    });
    tch::set_num_threads(before);
}

#[test]
fn a_sum_of_convolutions_sees_every_source_and_the_residual() {
    on_every_instruction_set(|_| {
        for (kind, tolerance) in KINDS {
            let (x, skip) = (values(&[2, 18, 6, 4], kind, 1.0), values(&[2, 14, 6, 4], kind, 2.0));
            let hidden = values(&[2, 20, 6, 4], kind, 3.0);
            let weight =
                (values(&[20, 20, 3, 3], kind, 4.0) * 0.125).to_kind(kind).to_kind(Kind::Float);
            let narrow =
                (values(&[20, 32, 1, 1], kind, 5.0) * 0.125).to_kind(kind).to_kind(Kind::Float);
            let parts = [
                ConvPart::whole(&weight),
                ConvPart { weight: &narrow, from: 0, channels: 18, factor: 1.0 },
                ConvPart { weight: &narrow, from: 18, channels: 14, factor: 0.5 },
            ];
            let sum = ConvKernel::new(taps(kind, Layout::Apart), &parts, None).unwrap();
            let [given, given_x, given_skip] =
                [&hidden, &x, &skip].map(|tensor| channels_last(&tensor.to_kind(kind)).unwrap());
            let shape = Shape { factor: 1.0, kind: Kind::Float };
            let sources = [(&given).into(), (&given_x).into(), (&given_skip).into()];
            let got = sum.forward(&sources, Some((&given).into()), shape).unwrap();
            let joined = Tensor::cat(&[&x, &(&skip * 0.5)], 1);
            let expected = hidden.conv2d(&weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1)
                + joined.conv2d(&narrow, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1)
                + &hidden;
            assert!(worst(&got, &expected) < tolerance, "{kind:?}");
            let half = Picture { tensor: &given.narrow(2, 0, 3).narrow(3, 0, 2), doubled: true };
            let got = sum.forward(&sources, Some(half), shape).unwrap();
            let half =
                hidden.narrow(2, 0, 3).narrow(3, 0, 2).upsample_nearest2d([6, 4], None, None);
            assert!(worst(&got, &(expected - hidden + half)) < tolerance, "{kind:?} doubled");
        }
    });
}

#[test]
fn few_outputs_may_have_half_as_large_a_picture_added() {
    on_every_instruction_set(|_| {
        for (kind, tolerance) in KINDS {
            let x = values(&[1, 4, 6, 10], kind, 1.0);
            let half = values(&[1, 4, 3, 5], kind, 2.0);
            let weight =
                (values(&[4, 4, 3, 3], kind, 3.0) * 0.125).to_kind(kind).to_kind(Kind::Float);
            let conv =
                ConvKernel::new(taps(kind, Layout::Apart), &[ConvPart::whole(&weight)], None)
                    .unwrap();
            let [given, given_half] =
                [&x, &half].map(|tensor| channels_last(&tensor.to_kind(kind)).unwrap());
            let added = Picture { tensor: &given_half, doubled: true };
            let shape = Shape { factor: 1.0, kind: Kind::Float };
            let got = conv.forward(&[(&given).into()], Some(added), shape).unwrap();
            let expected = x.conv2d(&weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1)
                + half.upsample_nearest2d([6, 10], None, None);
            assert!(worst(&got, &expected) < tolerance, "{kind:?}");
        }
    });
}

#[test]
fn normalisations_are_libtorchs_with_every_activation() {
    on_every_instruction_set(|_| {
        let activations = [
            None,
            Some(Activation::Silu),
            Some(Activation::Gelu),
            Some(Activation::Relu),
            Some(Activation::Mish),
        ];
        for (kind, tolerance) in KINDS {
            for (channels, behind, groups, [height, width]) in [
                (16, 0, 8, [4, 4]),
                (24, 12, 4, [23, 30]),
                (6, 10, 2, [3, 1]),
                (192, 0, 8, [8, 8]),
                (8, 8, 4, [23, 31]),
                (4, 0, 2, [7, 9]),
                (2, 30, 4, [17, 1]),
            ] {
                for activation in activations {
                    let x = values(&[2, channels, height, width], kind, 1.0) * 3.0 + 1.0;
                    let x = x.to_kind(kind).to_kind(Kind::Float);
                    let skip = values(&[2, behind, height, width], kind, 2.0);
                    let all = channels + behind;
                    let (weight, bias) =
                        (values(&[all], Kind::Float, 4.0), values(&[all], Kind::Float, 5.0));
                    let (steering, added) = (
                        values(&[2, 2 * all], Kind::Float, 6.0),
                        values(&[2, all], Kind::Float, 7.0),
                    );
                    let norm = NormKernel::new(&weight, &bias, groups as usize, 1e-5).unwrap();
                    let [given, given_skip] =
                        [&x, &skip].map(|tensor| channels_last(&tensor.to_kind(kind)).unwrap());
                    let sources = [(&given, 1.0), (&given_skip, 0.5)];
                    let sources = if behind > 0 { &sources[..] } else { &sources[..1] };
                    let got = norm
                        .forward(
                            sources,
                            Steer { scale_shift: Some(&steering), added: Some(&added), activation },
                        )
                        .unwrap();
                    let wide = |values: &Tensor| values.unsqueeze(-1).unsqueeze(-1);
                    let joined = Tensor::cat(&[&x, &(&skip * 0.5)], 1) + wide(&added);
                    let normed = joined.group_norm(groups, Some(&weight), Some(&bias), 1e-5, true);
                    let line = normed * wide(&steering.narrow(1, 0, all))
                        + wide(&steering.narrow(1, all, all));
                    let expected =
                        activation.map_or(line.shallow_clone(), |one| one.of(&line).unwrap());
                    let off = worst(&got, &expected);
                    assert!(
                        off < tolerance,
                        "{channels} + {behind}, {activation:?}, {kind:?}: {off}"
                    );
                }
            }
        }
    });
}

#[test]
fn halves_are_means() {
    on_every_instruction_set(|_| {
        for (kind, tolerance) in KINDS {
            let x = values(&[2, 20, 6, 10], kind, 1.0);
            let got = halve(&channels_last(&x.to_kind(kind)).unwrap()).unwrap();
            let expected = x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None);
            assert!(worst(&got, &expected) < tolerance);
        }
    });
}

#[test]
fn blends_are_weighted_sums_within_their_limit() {
    on_every_instruction_set(|_| {
        // More than one piece, and not a whole number of vectors.
        let shape = [2, 3, 71, 83];
        let [x, y, z] =
            [1.0, 2.0, 3.0].map(|seed| channels_last(&values(&shape, Kind::Float, seed)).unwrap());
        let sum = &x * 0.75 - &y * 1.5 + &z * 2.0;
        let terms = [(&x, 0.75), (&y, -1.5), (&z, 2.0)];
        assert!(worst(&blend(&terms, None).unwrap(), &sum) < 2e-6);
        assert!(worst(&blend(&terms, Some(0.5)).unwrap(), &sum.clamp(-0.5, 0.5)) < 2e-6);
        assert_eq!(blend(&[(&x, 1.0)], None).unwrap(), x, "a single picture stays itself");
        let x = x * f64::NAN;
        assert_eq!(
            blend(&[(&x, 1.0), (&y, 1.0)], Some(1.0)).unwrap().isnan().all(),
            Tensor::from(true)
        );
    });
}

#[test]
fn pictures_side_by_side_are_joined_channels() {
    on_every_instruction_set(|_| {
        for kind in [Kind::Float, Kind::BFloat16] {
            for [height, width] in [[1, 1], [3, 7], [130, 131]] {
                let [x, y] =
                    [1.0, 2.0].map(|seed| values(&[2, 3, height, width], Kind::Float, seed));
                let got = beside(&channels_last(&x).unwrap(), &y, kind).unwrap();
                assert_eq!(
                    got,
                    Tensor::cat(&[&x, &y], 1).to_kind(kind),
                    "{height}×{width} {kind:?}"
                );
            }
        }
    });
}

#[test]
fn not_a_number_goes_through_every_kernel() {
    on_every_instruction_set(|_| {
        let all = |x: &Tensor| x.isnan().all().int64_value(&[]) == 1;
        let x = Tensor::full([1, 16, 8, 8], f64::NAN, (Kind::Float, Device::Cpu));
        let weight = Tensor::ones([16, 16, 3, 3], (Kind::Float, Device::Cpu));
        let line = Tensor::ones([16], (Kind::Float, Device::Cpu));
        let shape = Shape { factor: 1.0, kind: Kind::Float };
        for kind in [Kind::Float, Kind::BFloat16] {
            let x = channels_last(&x.to_kind(kind)).unwrap();
            let conv =
                ConvKernel::new(taps(kind, Layout::Stride(1)), &[ConvPart::whole(&weight)], None)
                    .unwrap();
            assert!(all(&conv.forward(&[(&x).into()], None, shape).unwrap()));
            assert!(all(&halve(&x).unwrap()));
            let norm = NormKernel::new(&line, &line, 4, 1e-5).unwrap();
            for activation in
                [Activation::Silu, Activation::Gelu, Activation::Relu, Activation::Mish]
            {
                assert!(
                    all(&norm
                        .forward(
                            &[(&x, 1.0)],
                            Steer { activation: Some(activation), ..Steer::default() }
                        )
                        .unwrap()),
                    "{activation:?}"
                );
            }
        }
    });
}
