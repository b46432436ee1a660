//! Layers that are computed with Winograd's transform, compared with libtorch's.

use super::*;

fn grown(kind: Kind, layout: Layout) -> Packing {
    Packing { kind, layout, may_grow: true }
}

fn by_winograd(conv: &ConvKernel) -> bool {
    matches!(conv.ways, Ways::F32(Way::Winograd(_)) | Ways::Bf16(Way::Winograd(_)))
}

/// Noise with a deviation of about 1, rounded to `kind`, so that errors are like those in a
/// network.
fn noise(shape: &[i64], kind: Kind, seed: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let index = Tensor::arange(count, (Kind::Double, Device::Cpu));
    let uniform = ((index * 12.9898 + seed).sin() * 43758.5453).frac().abs();
    ((uniform - 0.5) * 3.46).to_kind(kind).to_kind(Kind::Float).view(shape)
}

/// √(mean (got − expected)²) as a share of expected's.
fn off(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.size(), expected.size());
    let (got, expected) = (got.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    ((got - &expected).square().mean(Kind::Double) / expected.square().mean(Kind::Double))
        .sqrt()
        .double_value(&[])
}

/// Tolerances for results in f32. The direct method differs by 1e-6 in bf16, if weights and inputs
/// are bf16; the transform rounds both again.
const KINDS: [(Kind, f64); 2] = [(Kind::Float, 1e-6), (Kind::BFloat16, 4e-3)];

#[test]
fn convolutions_are_libtorchs() {
    on_every_instruction_set(|_| {
        // Even and odd extents, one pixel; channels and outputs that fill vectors, tiles and pairs and
        // that do not.
        for (channels, outputs, layout, [height, width]) in [
            (64, 64, Layout::Stride(1), [8, 8]),
            (64, 70, Layout::Stride(1), [5, 7]),
            (75, 96, Layout::Apart, [6, 9]),
            (130, 65, Layout::Stride(1), [3, 1]),
            (64, 192, Layout::Stride(1), [1, 1]),
            (96, 64, Layout::Apart, [2, 75]),
            (192, 80, Layout::Stride(1), [34, 33]),
        ] {
            for (kind, tolerance) in KINDS {
                let x = noise(&[3, channels, height, width], kind, 1.0);
                let weight = (noise(&[outputs, channels, 3, 3], kind, 2.0) * 0.0625)
                    .to_kind(kind)
                    .to_kind(Kind::Float);
                let bias = noise(&[outputs], Kind::Float, 3.0);
                let conv =
                    ConvKernel::new(grown(kind, layout), &[ConvPart::whole(&weight)], Some(&bias))
                        .unwrap();
                assert!(by_winograd(&conv));
                let given = channels_last(&x.to_kind(kind)).unwrap();
                let got = conv
                    .forward(&[(&given).into()], None, Shape { factor: 0.5, kind: Kind::Float })
                    .unwrap();
                let expected = x.conv2d(&weight, Some(&bias), [1, 1], [1, 1], [1, 1], 1) * 0.5;
                let off = off(&got, &expected);
                assert!(
                    off < tolerance,
                    "{channels} to {outputs}, {height}×{width}, {kind:?}: {off}"
                );
            }
        }
    });
}

#[test]
fn a_sum_of_convolutions_sees_every_source_and_the_residual() {
    on_every_instruction_set(|_| {
        for (kind, tolerance) in KINDS {
            for [height, width] in [[6, 4], [10, 14]] {
                let (x, skip) = (
                    noise(&[2, 18, height, width], kind, 1.0),
                    noise(&[2, 15, height, width], kind, 2.0),
                );
                let hidden = noise(&[2, 68, height, width], kind, 3.0);
                let weight =
                    (noise(&[68, 68, 3, 3], kind, 4.0) * 0.0625).to_kind(kind).to_kind(Kind::Float);
                let narrow =
                    (noise(&[68, 33, 1, 1], kind, 5.0) * 0.25).to_kind(kind).to_kind(Kind::Float);
                let parts = [
                    ConvPart::whole(&weight),
                    ConvPart { weight: &narrow, from: 0, channels: 18, factor: 1.0 },
                    ConvPart { weight: &narrow, from: 18, channels: 15, factor: 0.5 },
                ];
                let sum = ConvKernel::new(grown(kind, Layout::Apart), &parts, None).unwrap();
                assert!(by_winograd(&sum));
                let [given, given_x, given_skip] = [&hidden, &x, &skip]
                    .map(|tensor| channels_last(&tensor.to_kind(kind)).unwrap());
                let shape = Shape { factor: 1.0, kind: Kind::Float };
                let sources = [(&given).into(), (&given_x).into(), (&given_skip).into()];
                let got = sum.forward(&sources, Some((&given).into()), shape).unwrap();
                let joined = Tensor::cat(&[&x, &(&skip * 0.5)], 1);
                let window = hidden.conv2d(&weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
                let narrowed = joined.conv2d(&narrow, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1);
                assert!(off(&got, &(&window + narrowed + &hidden)) < tolerance, "{kind:?}");

                let half = |tensor: &Tensor| {
                    channels_last(&tensor.narrow(2, 0, height / 2).narrow(3, 0, width / 2)).unwrap()
                };
                let double =
                    |tensor: &Tensor| half(tensor).upsample_nearest2d([height, width], None, None);
                let [small, small_x, small_skip] = [&given, &given_x, &given_skip].map(half);
                let doubled = |tensor| Picture { tensor, doubled: true };
                let sources = [(&given).into(), doubled(&small_x), doubled(&small_skip)];
                let got = sum.forward(&sources, Some(doubled(&small)), shape).unwrap();
                let narrowed =
                    double(&joined).conv2d(&narrow, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1);
                assert!(
                    off(&got, &(window + narrowed + double(&hidden))) < tolerance,
                    "{kind:?} doubled"
                );
            }
        }
    });
}

#[test]
fn other_layers_are_computed_by_taps() {
    on_every_instruction_set(|_| {
        for (channels, outputs, kernel, layout) in [
            (63, 64, 3, Layout::Stride(1)),
            (64, 63, 3, Layout::Stride(1)),
            (64, 64, 3, Layout::Stride(2)),
            (64, 64, 3, Layout::Double),
            (64, 64, 1, Layout::Stride(1)),
            (64, 64, 5, Layout::Stride(1)),
        ] {
            let weight = noise(&[outputs, channels, kernel, kernel], Kind::Float, 1.0);
            let conv =
                ConvKernel::new(grown(Kind::Float, layout), &[ConvPart::whole(&weight)], None)
                    .unwrap();
            assert!(!by_winograd(&conv), "{channels} to {outputs}, {kernel}, {layout:?}");
        }
        let weight = noise(&[64, 64, 3, 3], Kind::Float, 1.0);
        let stays = taps(Kind::Float, Layout::Stride(1));
        assert!(!by_winograd(&ConvKernel::new(stays, &[ConvPart::whole(&weight)], None).unwrap()));
    });
}

#[test]
fn not_a_number_reaches_the_outputs_around_it_and_no_other_row() {
    on_every_instruction_set(|_| {
        for kind in [Kind::Float, Kind::BFloat16] {
            let x = noise(&[2, 64, 8, 8], kind, 1.0);
            let _ = x.narrow(0, 1, 1).narrow(2, 3, 1).narrow(3, 3, 1).fill_(f64::NAN);
            let weight = noise(&[64, 64, 3, 3], kind, 2.0);
            let conv =
                ConvKernel::new(grown(kind, Layout::Stride(1)), &[ConvPart::whole(&weight)], None)
                    .unwrap();
            let given = channels_last(&x.to_kind(kind)).unwrap();
            let got = conv
                .forward(&[(&given).into()], None, Shape { factor: 1.0, kind })
                .unwrap()
                .isnan();
            assert_eq!(got.get(0).any().int64_value(&[]), 0, "{kind:?}");
            assert_eq!(
                got.get(1).narrow(1, 2, 3).narrow(2, 2, 3).all().int64_value(&[]),
                1,
                "{kind:?}"
            );
        }
    });
}
