use super::*;

/// Calls a function with each instruction set that this CPU has.
macro_rules! each {
    ($call:ident) => {{
        $call::<Avx2>();
        $call::<Avx512<false>>();
        $call::<Avx512<true>>();
    }};
}

/// Applies an operation to many values.
fn map<S: Simd>(values: &[f32], operation: impl Fn(S::Vector) -> S::Vector) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (values, out) in values.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
        let mask = first::<S>(values.len());
        // SAFETY: the callers asked the CPU; the mask names the lanes that both chunks have.
        unsafe {
            S::run(
                #[inline(always)]
                || {
                    let value = S::load_some(mask, values.as_ptr());
                    S::store_some(out.as_mut_ptr(), mask, operation(value));
                },
            );
        }
    }
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// From −110 to 110, and beyond f32's exponents.
fn exponents() -> Vec<f32> {
    (-22_003..=22_003).map(|step| step as f32 * 0.005).chain([1e9, -1e9, -0.0]).collect()
}

#[test]
fn exponentials_are_within_two_units_and_the_same_on_every_set() {
    fn of<S: Simd>() -> Option<Vec<u32>> {
        if !S::runs_here() {
            return None;
        }
        // SAFETY: the CPU was asked.
        let got = map::<S>(&exponents(), |x| unsafe { exp::<S>(x) });
        for (x, got) in exponents().into_iter().zip(&got) {
            let exact = f64::from(x).exp();
            if exact > f64::from(f32::MAX) * 1.001 {
                assert_eq!(*got, f32::INFINITY, "exp({x})");
                continue;
            }
            // Below the smallest normal number, the unit is the smallest number.
            let unit = (exact * 2.0_f64.powi(-23)).max(2.0_f64.powi(-149));
            assert!((f64::from(*got) - exact).abs() <= 2.0 * unit, "exp({x}): {got:e}, {exact:e}");
        }
        Some(bits(&got))
    }
    let all: Vec<Vec<u32>> =
        [of::<Avx2>(), of::<Avx512<false>>(), of::<Avx512<true>>()].into_iter().flatten().collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn distributions_are_within_three_ten_millionths() {
    fn of<S: Simd>() {
        if !S::runs_here() {
            return;
        }
        let values: Vec<f32> = (-1200..=1200).map(|step| step as f32 * 0.005).collect();
        // SAFETY: the CPU was asked.
        let got = map::<S>(&values, |x| unsafe { normal_cdf::<S>(x) });
        for (x, got) in values.iter().zip(got) {
            let exact = 0.5 * libm::erfc(-f64::from(*x) / 2.0_f64.sqrt());
            assert!((f64::from(got) - exact).abs() < 3e-7, "Φ({x}): {got}, {exact}");
        }
    }
    each!(of);
}

#[test]
fn a_mask_guards_what_is_beyond_it() {
    fn of<S: Simd>() {
        if !S::runs_here() {
            return;
        }
        let values: Vec<f32> = (0..S::LANES).map(|lane| lane as f32 + 1.0).collect();
        let halves: Vec<Bf16> = values.iter().map(|value| Bf16::of(*value)).collect();
        for count in 0..=S::LANES + 1 {
            let mask = first::<S>(count);
            assert_eq!(mask.count_ones() as usize, count.min(S::LANES));
            let (mut kept, mut kept_halves) =
                (vec![-1.0; S::LANES], vec![Bf16::of(-1.0); S::LANES]);
            let (mut wide, mut narrow) = (vec![-1.0; S::LANES], vec![-1.0; S::LANES]);
            let mut picked = vec![-1.0; S::LANES];
            // SAFETY: the CPU was asked; all have as many lanes as a vector.
            unsafe {
                S::run(
                    #[inline(always)]
                    || {
                        let value = S::load(values.as_ptr());
                        S::store_some(kept.as_mut_ptr(), mask, value);
                        S::narrow_some(kept_halves.as_mut_ptr(), mask, value);
                        S::store(wide.as_mut_ptr(), S::load_some(mask, values.as_ptr()));
                        S::store(narrow.as_mut_ptr(), S::widen_some(mask, halves.as_ptr()));
                        S::store(picked.as_mut_ptr(), S::pick(mask, value, S::splat(-1.0)));
                    },
                );
            }
            let expected = |otherwise: f32| -> Vec<f32> {
                let lane =
                    |(lane, value): (usize, &f32)| if lane < count { *value } else { otherwise };
                values.iter().enumerate().map(lane).collect()
            };
            assert_eq!((&kept, &picked), (&expected(-1.0), &expected(-1.0)), "{count}");
            assert_eq!((&wide, &narrow), (&expected(0.0), &expected(0.0)), "{count}");
            let stored: Vec<Bf16> = expected(-1.0).into_iter().map(Bf16::of).collect();
            assert_eq!(kept_halves, stored, "{count}");
        }
    }
    each!(of);
}

#[test]
fn stored_halves_are_rounded_to_even_and_keep_what_is_not_finite() {
    fn of<S: Simd>() {
        if !S::runs_here() {
            return;
        }
        let mut values: Vec<f32> =
            (0..4096_u32).map(|step| f32::from_bits(0x3f80_0000 + step * 0x1001)).collect();
        values.extend(values.clone().iter().map(|value| -value * 1e-20));
        values.extend([0.0, -0.0, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, 1.003_906_3]);
        let mut got = vec![Bf16::ZERO; values.len()];
        Bf16::round::<S>(&values, &mut got);
        for (value, got) in values.iter().zip(&got) {
            assert_eq!(got.0, half::bf16::from_f32(*value).to_bits(), "{value:e}");
        }
        let mut got = vec![Bf16::ZERO; S::LANES];
        Bf16::round::<S>(&vec![f32::from_bits(0x7f80_0001); S::LANES], &mut got);
        assert!(got.iter().all(|got| half::bf16::from_bits(got.0).is_nan()));
    }
    each!(of);
}

#[test]
fn products_of_pairs_are_exact_in_f32() {
    fn of<S: Simd>() {
        if !S::runs_here() {
            return;
        }
        let values = |seed: f32| -> Vec<Bf16> {
            (0..2 * S::LANES).map(|at| Bf16::of((at as f32 * 0.7 + seed).sin())).collect()
        };
        let (inputs, weights) = (values(1.0), values(2.0));
        let wide = |value: &Bf16| half::bf16::from_bits(value.0).to_f64();
        let (mut all, mut same) = (vec![0.0_f32; S::LANES], vec![0.0_f32; S::LANES]);
        // SAFETY: the CPU was asked; there are two values for each lane.
        unsafe {
            S::run(
                #[inline(always)]
                || {
                    let (line, of) =
                        (S::load(inputs.as_ptr().cast()), S::load(weights.as_ptr().cast()));
                    S::store(all.as_mut_ptr(), S::multiply_pairs(S::splat(3.0), line, of));
                    let pair = S::splat_pair(inputs.as_ptr().add(2));
                    S::store(same.as_mut_ptr(), S::multiply_pairs(S::splat(0.0), pair, of));
                },
            );
        }
        for lane in 0..S::LANES {
            let sum = |from: usize| {
                wide(&inputs[from]) * wide(&weights[2 * lane])
                    + wide(&inputs[from + 1]) * wide(&weights[2 * lane + 1])
            };
            assert!((f64::from(all[lane]) - 3.0 - sum(2 * lane)).abs() < 1e-6, "{lane}");
            assert!((f64::from(same[lane]) - sum(2)).abs() < 1e-6, "{lane}");
        }
    }
    each!(of);
}

#[test]
fn folds_see_every_lane() {
    fn of<S: Simd>() {
        if !S::runs_here() {
            return;
        }
        for place in 0..S::LANES {
            let mut values = vec![-1.0_f32; S::LANES];
            values[place] = 100.0;
            // SAFETY: the CPU was asked.
            let found = unsafe {
                S::run(
                    #[inline(always)]
                    || {
                        let value = S::load(values.as_ptr());
                        (S::highest(value), S::sum(value))
                    },
                )
            };
            assert_eq!(found, (100.0, 101.0 - S::LANES as f32), "{place}");
            values[place] = f32::NAN;
            // SAFETY: the CPU was asked.
            let strange = unsafe {
                S::run(
                    #[inline(always)]
                    || S::strange(S::load(values.as_ptr())),
                )
            };
            assert_eq!(strange, 1 << place);
        }
    }
    each!(of);
}
