//! Which instruction set the kernels use, chosen when the process runs.

use super::vector::{Avx2, Avx512, Simd};

/// An instruction set for which kernels are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InstructionSet {
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 without its bf16 instructions.
    Avx512,
    /// AVX-512 with them.
    Avx512Bf16,
}

/// An expression in which a type is the given instruction set's.
macro_rules! on {
    ($set:expr, $simd:ident => $run:expr) => {
        match $set {
            $crate::kernels::instructions::InstructionSet::Avx2 => {
                type $simd = $crate::kernels::vector::Avx2;
                $run
            }
            $crate::kernels::instructions::InstructionSet::Avx512 => {
                type $simd = $crate::kernels::vector::Avx512<false>;
                $run
            }
            $crate::kernels::instructions::InstructionSet::Avx512Bf16 => {
                type $simd = $crate::kernels::vector::Avx512<true>;
                $run
            }
        }
    };
}

pub(super) use on;

impl InstructionSet {
    /// Those that this CPU has, the best one last.
    pub(crate) fn here() -> impl Iterator<Item = Self> {
        [
            (Self::Avx2, Avx2::runs_here()),
            (Self::Avx512, Avx512::<false>::runs_here()),
            (Self::Avx512Bf16, Avx512::<true>::runs_here()),
        ]
        .into_iter()
        .filter_map(|(set, runs)| runs.then_some(set))
    }

    /// The best one that this CPU has and that `ATEN_CPU_CAPABILITY` allows, which limits libtorch
    /// too; `None` if there is none. It is the same for the whole process.
    pub(crate) fn chosen() -> Option<Self> {
        #[cfg(test)]
        if let Some(set) = alone::get() {
            return Some(set);
        }
        static CHOSEN: std::sync::OnceLock<Option<InstructionSet>> = std::sync::OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let limit = std::env::var("ATEN_CPU_CAPABILITY").unwrap_or_default();
            Self::here().filter(|set| set.is_within(&limit)).last()
        })
    }

    /// Whether libtorch's limit allows this. It ignores values that it does not know.
    fn is_within(self, limit: &str) -> bool {
        match limit {
            "default" => false,
            "avx2" => self == Self::Avx2,
            _ => true,
        }
    }
}

#[cfg(test)]
pub(crate) use alone::on_every_instruction_set;

/// Tests choose an instruction set for what they call.
#[cfg(test)]
mod alone {
    use std::cell::Cell;

    use super::InstructionSet;

    thread_local! {
        static ALONE: Cell<Option<InstructionSet>> = const { Cell::new(None) };
    }

    pub(super) fn get() -> Option<InstructionSet> {
        ALONE.get()
    }

    /// Runs a test's body on each instruction set that this CPU has.
    pub(crate) fn on_every_instruction_set(body: impl Fn(InstructionSet)) {
        struct Again;
        impl Drop for Again {
            fn drop(&mut self) {
                ALONE.set(None);
            }
        }
        for set in InstructionSet::here() {
            let _again = Again;
            ALONE.set(Some(set));
            eprintln!("{set:?}");
            body(set);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtorchs_limit_is_this_crates_too() {
        use InstructionSet::{Avx2, Avx512, Avx512Bf16};
        for set in [Avx2, Avx512, Avx512Bf16] {
            assert!(!set.is_within("default"));
            assert_eq!(set.is_within("avx2"), set == Avx2);
            assert!(["", "avx512", "nonsense"].iter().all(|limit| set.is_within(limit)));
        }
    }

    #[test]
    fn a_wider_set_has_the_narrower_ones() {
        let here: Vec<InstructionSet> = InstructionSet::here().collect();
        let all = [InstructionSet::Avx2, InstructionSet::Avx512, InstructionSet::Avx512Bf16];
        assert_eq!(here, all[..here.len()]);
    }
}
