//! Compares the kernels with libtorch. Here they are compiled for the CPU, with one thread per
//! lane; `make check-gpu` tests the rest.

use std::ffi::c_void;
use std::path::Path;
use std::sync::OnceLock;

use super::*;
use crate::device::open_library;

type RunOnHost = unsafe extern "C" fn(i32, u32, u32, *const c_void) -> usize;

/// `on_host.cpp`, compiled and loaded.
pub(super) struct Host {
    run: RunOnHost,
    /// A kernel that is not run.
    left_out: Option<usize>,
}

impl Host {
    fn kernels() -> &'static Kernels {
        static BUILT: OnceLock<Kernels> = OnceLock::new();
        BUILT.get_or_init(|| Kernels(Runner::Host(Self { run: Self::built(), left_out: None })))
    }

    fn built() -> RunOnHost {
        static BUILT: OnceLock<RunOnHost> = OnceLock::new();
        *BUILT.get_or_init(Self::build)
    }

    #[expect(unsafe_code, reason = "a function of a library built here, of the type it has there")]
    fn build() -> RunOnHost {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("on_host.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda/on_host.cpp");
        let built = std::process::Command::new("c++")
            .args(["-std=c++20", "-O1", "-Wall", "-Werror", "-fPIC", "-shared", "-pthread", "-o"])
            .args([&library, &source])
            .output()
            .expect("there is a C++ compiler");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let handle = open_library(&library.to_string_lossy()).unwrap();
        // SAFETY: the library stays loaded, and the function has this type there.
        unsafe {
            let found = libc::dlsym(handle.as_ptr(), c"darkroom_run_on_host".as_ptr());
            assert!(!found.is_null());
            std::mem::transmute::<*mut c_void, RunOnHost>(found)
        }
    }

    #[expect(unsafe_code, reason = "a function of a library built here, of the type it has there")]
    pub(super) fn run(
        &self,
        index: usize,
        [x, y]: [usize; 2],
        argument: *const c_void,
    ) -> Result<(), String> {
        if self.left_out == Some(index) {
            return Ok(());
        }
        // One kernel at a time, because its blocks share memory of the whole library.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: `argument` is what the kernel of this index takes, with addresses of tensors that
        // live.
        let size = unsafe { (self.run)(index as i32, x as u32, y as u32, argument) };
        let expected =
            if index < 6 { size_of::<NormArguments>() } else { size_of::<SumArguments>() };
        assert_eq!(size, expected, "both sides agree on the argument of {}", NAMES[index]);
        Ok(())
    }
}

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn wide(values: &Tensor) -> Tensor {
    values.unsqueeze(-1).unsqueeze(-1)
}

/// A normalisation of `own + behind` channels, and libtorch's result for the same.
struct Case {
    size: [i64; 2],
    own: i64,
    behind: i64,
    groups: i64,
    activation: Option<Activation>,
    scale_shift: bool,
    added: bool,
    bias_before: bool,
}

impl Case {
    fn of(size: [i64; 2], own: i64, groups: i64) -> Self {
        let (activation, behind) = (None, 0);
        Self {
            size,
            own,
            behind,
            groups,
            activation,
            scale_shift: false,
            added: false,
            bias_before: false,
        }
    }

    /// The results of the kernels for three rows, and libtorch's results in f64.
    fn run(&self, kind: Kind) -> (Tensor, Tensor) {
        let (rows, channels, [height, width]) = (3, self.own + self.behind, self.size);
        // Far from zero beside its spread, as pictures of one colour are.
        let picture = |channels: i64| {
            let values = Tensor::randn([rows, channels, height, width], F32) * 0.5 + 7.0;
            channels_last(&values.to_kind(kind)).unwrap()
        };
        let (x, skip) = (picture(self.own), (self.behind > 0).then(|| picture(self.behind)));
        let values = |shape: &[i64]| (Tensor::randn(shape, F32) * 0.7).to_kind(kind);
        let (weight, bias) =
            (values(&[channels]).to_kind(Kind::Float), values(&[channels]).to_kind(Kind::Float));
        let scale_shift = self.scale_shift.then(|| values(&[rows, 2 * channels]));
        let added = self.added.then(|| values(&[rows, channels]));
        let before = self.bias_before.then(|| values(&[channels]));
        let mut norm =
            CudaNorm::new(Host::kernels(), weight.copy(), bias.copy(), self.groups as usize, 1e-5)
                .unwrap();
        if let Some(before) = &before {
            norm.with_bias_before(before).unwrap();
        }
        let sources: Vec<(&Tensor, f64)> =
            [(&x, 1.0)].into_iter().chain(skip.iter().map(|skip| (skip, 0.5))).collect();
        let steer = Steer {
            scale_shift: scale_shift.as_ref(),
            added: added.as_ref(),
            activation: self.activation,
        };
        let got = norm.forward(&sources, steer).unwrap();

        // libtorch's f32 would itself be off by more than the kernels: its sums start from zero.
        let f64 = |values: &Tensor| values.to_kind(Kind::Double);
        let mut joined = match &skip {
            Some(skip) => Tensor::cat(&[f64(&x), f64(skip) * 0.5], 1),
            None => f64(&x),
        };
        for values in [before.as_ref(), added.as_ref()].into_iter().flatten() {
            joined += wide(&f64(values));
        }
        let mut expected =
            joined.group_norm(self.groups, Some(&f64(&weight)), Some(&f64(&bias)), 1e-5, true);
        if let Some(values) = &scale_shift {
            let values = f64(values);
            expected = expected * wide(&values.narrow(1, 0, channels))
                + wide(&values.narrow(1, channels, channels));
        }
        let expected =
            self.activation.map_or(Ok(expected.shallow_clone()), |a| a.apply(expected)).unwrap();
        assert_eq!((got.kind(), got.size()), (kind, expected.size()));
        (got, expected)
    }

    fn off(&self, kind: Kind) -> f64 {
        let (got, expected) = self.run(kind);
        (got.to_kind(Kind::Double) - expected).abs().max().double_value(&[])
    }
}

#[test]
fn a_norm_is_what_libtorch_makes_of_it() {
    tch::manual_seed(1);
    let silu = Some(Activation::Silu);
    let cases = [
        // Many lanes and chunks; groups that do not end with four channels; more channels than
        // threads have fours of.
        Case::of([37, 41], 16, 4),
        Case { activation: silu, ..Case::of([24, 9], 24, 4) },
        Case { activation: Some(Activation::Gelu), scale_shift: true, ..Case::of([5, 5], 192, 32) },
        Case { activation: Some(Activation::Relu), added: true, ..Case::of([3, 2], 1100, 100) },
        Case {
            activation: Some(Activation::Mish),
            bias_before: true,
            ..Case::of([1, 1], 4096, 256)
        },
        Case {
            behind: 8,
            activation: silu,
            scale_shift: true,
            added: true,
            bias_before: true,
            ..Case::of([19, 7], 24, 8)
        },
        // More chunks than there are lanes to add them up.
        Case::of([4, 5], 1024, 256),
        // The part behind is not a multiple of four.
        Case { behind: 6, ..Case::of([8, 8], 6, 3) },
    ];
    for (index, case) in cases.iter().enumerate() {
        let off = case.off(Kind::Float);
        assert!(off < 3e-5, "case {index}: {off}");
        let off = case.off(Kind::BFloat16);
        assert!(off < 0.04, "case {index} in bf16: {off}");
    }
}

/// The batch does not matter.
#[test]
fn a_rows_bits_are_its_own() {
    tch::manual_seed(2);
    let x = channels_last(&Tensor::randn([3, 16, 40, 40], F32)).unwrap();
    let ones = Tensor::ones([16], F32);
    let norm = CudaNorm::new(Host::kernels(), ones.copy(), ones, 4, 1e-5).unwrap();
    let all = norm.forward(&[(&x, 1.0)], Steer::default()).unwrap();
    for row in 0..3 {
        let alone = norm.forward(&[(&x.narrow(0, row, 1), 1.0)], Steer::default()).unwrap();
        assert_eq!(alone, all.narrow(0, row, 1));
    }
}

#[test]
fn a_sum_is_what_libtorch_makes_of_it() {
    tch::manual_seed(3);
    for kind in [Kind::Float, Kind::BFloat16] {
        let picture = || channels_last(&Tensor::randn([2, 12, 33, 17], F32).to_kind(kind)).unwrap();
        let (a, b, bias) = (picture(), picture(), Tensor::randn([12], F32));
        let got = Host::kernels().sum(&a, &b, &bias, 1.5).unwrap();
        let expected = (a.to_kind(Kind::Float) + b.to_kind(Kind::Float) + wide(&bias)) / 1.5;
        let off = (got.to_kind(Kind::Float) - &expected).abs().max().double_value(&[]);
        assert!(off < if kind == Kind::Float { 1e-6 } else { 0.02 }, "{kind:?}: {off}");
        // To the nearest, as libtorch rounds.
        if kind == Kind::BFloat16 {
            assert_eq!(got, expected.to_kind(kind));
        }
    }
    let picture = Tensor::zeros([1, 6, 2, 2], F32);
    assert!(Host::kernels().sum(&picture, &picture, &Tensor::zeros([6], F32), 1.0).is_err());
}

#[test]
fn chunks_cover_a_picture_and_are_never_many() {
    for (pixels, channels) in [
        (1, 4096),
        (35, 192),
        (64 * 64, 192),
        (256 * 256, 32),
        (1024 * 1024, 16),
        (1024 * 1024 + 1, 16),
    ] {
        let (chunk, count) = chunks(pixels, channels);
        assert!(
            count <= 256 && chunk * count >= pixels && chunk * (count - 1) < pixels,
            "{pixels}: {chunk} {count}"
        );
    }
    assert_eq!((chunks(64 * 64, 192), chunks(1024 * 1024, 16)), ((42, 98), (4096, 256)));
}

#[test]
fn kernels_are_used_only_where_they_agree() {
    tch::manual_seed(4);
    assert_eq!(Host::kernels().agree(Device::Cpu), Ok(()));
    // A kernel without what `left_out` does: where it should have written, the old values remain.
    for (left_out, name) in NAMES.iter().enumerate() {
        let kernels = Kernels(Runner::Host(Host { run: Host::built(), left_out: Some(left_out) }));
        assert!(kernels.agree(Device::Cpu).is_err(), "without {name}");
    }
}

#[test]
fn what_is_not_finite_makes_its_group_nan_and_no_other() {
    let ones = Tensor::ones([4], F32);
    for (value, activation) in
        [f64::NAN, f64::INFINITY].into_iter().zip([None, Some(Activation::Relu)])
    {
        let x = Tensor::zeros([1, 4, 4, 4], F32);
        let _ = x.get(0).get(1).get(2).get(3).fill_(value);
        let norm = CudaNorm::new(Host::kernels(), ones.copy(), ones.copy(), 2, 1e-5).unwrap();
        let got = norm.forward(&[(&x, 1.0)], Steer { activation, ..Steer::default() }).unwrap();
        assert!(got.isnan().narrow(1, 0, 2).all().int64_value(&[]) == 1, "the group that holds it");
        assert!(got.isnan().narrow(1, 2, 2).any().int64_value(&[]) == 0, "no other");
    }
}
