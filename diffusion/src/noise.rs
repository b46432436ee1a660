//! Noise that depends only on its name: a counter-based generator, the same on every machine and in
//! every batch.
//!
//! Philox 4×32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
//! 2011) turns a key and a counter into four random words, without any state. Here the key is the
//! image's seed. The counter contains the position in the field, the purpose and step, and a hash
//! of the stage's name. Words become normal variates by Box–Muller in f64 on the host, with a libm
//! in pure Rust, because the last bits of the platform's own `log` and `sin` differ. Any change
//! here changes every picture ever rendered from a seed; the tests compare with known values.

use libm::{log, sincos, sqrt};

/// The purpose of a field of noise. It is part of the name, so that two uses never share values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The starting point x at the first timestep.
    Init,
    /// The noise that a stochastic sampler adds in one step.
    Step,
    /// The noise that noise-conditioning augmentation adds to the low-resolution input.
    Augmentation,
    /// The noise that is added to a given picture that will be changed.
    ImageToImage,
}

/// The full name of one field of noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoiseKey<'a> {
    /// The image's seed.
    pub seed: u64,
    /// The stage's name, for example `sr256`.
    pub stage: &'a str,
    /// The purpose of the noise.
    pub purpose: Purpose,
    /// Its step, from 0; 0 if there are no steps. Below 2²⁴.
    pub step: u32,
}

/// Fills `field` (row-major, at most 2³⁴ values) with independent standard normal variates.
///
/// Block `b` of the counter gives the values `4b … 4b + 3`. The largest possible magnitude is 6.77.
pub fn fill_normal(key: NoiseKey<'_>, field: &mut [f32]) {
    fill_normals(vec![(key, field)]);
}

/// The same for several fields at once; the threads divide the values of all of them.
pub fn fill_normals(fields: Vec<(NoiseKey<'_>, &mut [f32])>) {
    /// Starting a thread is not worth it for fewer values.
    const LEAST_PER_THREAD: usize = 1 << 14;
    const MOST_THREADS: usize = 16;
    let values: usize = fields.iter().map(|(_, field)| field.len()).sum();
    let threads =
        std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST_THREADS));
    let share = values.div_ceil(threads).max(LEAST_PER_THREAD).next_multiple_of(4);
    let mut shares: Vec<Vec<Part<'_>>> = Vec::new();
    let mut room = 0;
    for (key, mut rest) in fields {
        let mut block = 0;
        while !rest.is_empty() {
            if room == 0 {
                shares.push(Vec::new());
                room = share;
            }
            // Whole blocks, except at the end of a field.
            let (part, later) = rest.split_at_mut(room.min(rest.len()));
            room -= part.len().next_multiple_of(4).min(room);
            let blocks = part.len() / 4;
            if let Some(parts) = shares.last_mut() {
                parts.push(Part { key, block, values: part });
            }
            block += blocks;
            rest = later;
        }
    }
    std::thread::scope(|scope| {
        let own = shares.pop();
        for parts in shares {
            scope.spawn(|| parts.into_iter().for_each(Part::fill));
        }
        own.into_iter().flatten().for_each(Part::fill);
    });
}

/// Consecutive values of a field, from a given block on.
struct Part<'a> {
    key: NoiseKey<'a>,
    block: usize,
    values: &'a mut [f32],
}

impl Part<'_> {
    fn fill(self) {
        fill_part(self.key, self.block, self.values);
    }
}

fn fill_part(key: NoiseKey<'_>, first_block: usize, part: &mut [f32]) {
    let words = [key.seed as u32, (key.seed >> 32) as u32];
    let stage = fnv1a(key.stage);
    let purpose = match key.purpose {
        Purpose::Init => 0,
        Purpose::Step => 1,
        Purpose::Augmentation => 2,
        Purpose::ImageToImage => 3,
    };
    let use_word = (purpose << 24) | (key.step & 0x00ff_ffff);
    for (offset, values) in part.chunks_mut(4).enumerate() {
        let block = (first_block + offset) as u32;
        let random = philox4x32_10([block, use_word, stage as u32, (stage >> 32) as u32], words);
        let (first, second) = box_muller(random[0], random[1]);
        let (third, fourth) = box_muller(random[2], random[3]);
        for (value, normal) in values.iter_mut().zip([first, second, third, fourth]) {
            *value = normal;
        }
    }
}

/// Philox 4×32 with ten rounds: four random words from a 128-bit counter and a 64-bit key.
fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let left = u64::from(counter[0]) * 0xD251_1F53;
        let right = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (right >> 32) as u32 ^ counter[1] ^ key[0],
            right as u32,
            (left >> 32) as u32 ^ counter[3] ^ key[1],
            left as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// Two independent normal variates from two words. Each word stands for the middle of its 2⁻³² wide
/// cell of (0, 1).
fn box_muller(radius: u32, angle: u32) -> (f32, f32) {
    const CELL: f64 = 1.0 / 4_294_967_296.0;
    let radius = sqrt(-2.0 * log((f64::from(radius) + 0.5) * CELL));
    let (sine, cosine) = sincos((f64::from(angle) + 0.5) * (CELL * std::f64::consts::TAU));
    ((radius * cosine) as f32, (radius * sine) as f32)
}

/// The 64-bit FNV-1a hash, which gives each stage's name its own part of the counter's range.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: NoiseKey<'static> =
        NoiseKey { seed: 42, stage: "base", purpose: Purpose::Init, step: 0 };

    fn field(key: NoiseKey<'_>, count: usize) -> Vec<f32> {
        let mut field = vec![0.0; count];
        fill_normal(key, &mut field);
        field
    }

    /// The published answers of Random123 1.14 (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_gives_its_published_answers() {
        assert_eq!(
            philox4x32_10([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn the_hash_of_a_stage_name_is_fnv1a() {
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
    }

    /// Bit patterns that a second implementation of this file in Python computed.
    #[test]
    fn fields_have_their_known_answers() {
        for (seed, stage, purpose, step, expected) in [
            (
                42,
                "base",
                Purpose::Init,
                0,
                [0x3e84_1a16, 0xbf81_54a0, 0x3f86_fe2d, 0xbf5e_67bb, 0x4029_164c, 0xbf09_d393],
            ),
            (
                0,
                "sr256",
                Purpose::Step,
                7,
                [0xbf21_e5f6, 0x3f58_5445, 0xbdca_6f6f, 0x3fc5_d18c, 0x3f07_2999, 0x3e4d_90c2],
            ),
            (
                (1 << 63) + 5,
                "sr1024",
                Purpose::Augmentation,
                0,
                [0x3fc3_2427, 0x3f76_fedf, 0x3e9d_3dc3, 0xbf81_e500, 0xbdb9_b44f, 0x3fd2_2d52],
            ),
            (
                42,
                "base",
                Purpose::ImageToImage,
                0,
                [0x3eff_c2f0, 0x3fa7_a129, 0x3eb9_a0ed, 0x3e9f_5622, 0xbfed_b1a8, 0xbf71_dab7_u32],
            ),
        ] {
            let field = field(NoiseKey { seed, stage, purpose, step }, 6);
            let bits: Vec<u32> = field.iter().map(|value| value.to_bits()).collect();
            assert_eq!(bits, expected, "{stage} {purpose:?}");
        }
    }

    #[test]
    fn a_field_is_the_same_however_it_is_split_over_threads() {
        let whole = field(KEY, 300_003);
        assert_eq!(whole[..1000], field(KEY, 1000)[..]);
        let mut serial = vec![0.0; 300_003];
        fill_part(KEY, 0, &mut serial);
        assert_eq!(whole, serial);
        // Several fields at once, none of which ends with a block, a share or another field.
        let lengths = [5, 70_001, 16_384, 3, 40_002];
        let keys: Vec<NoiseKey<'_>> =
            (0..).map(|seed| NoiseKey { seed, ..KEY }).take(lengths.len()).collect();
        let mut together: Vec<Vec<f32>> = lengths.iter().map(|length| vec![0.0; *length]).collect();
        fill_normals(
            keys.iter().copied().zip(together.iter_mut().map(Vec::as_mut_slice)).collect(),
        );
        for ((key, length), got) in keys.iter().zip(lengths).zip(&together) {
            let mut serial = vec![0.0; length];
            fill_part(*key, 0, &mut serial);
            assert_eq!(*got, serial, "{length} values");
        }
    }

    #[test]
    fn every_part_of_the_name_matters() {
        let base = field(KEY, 8);
        for other in [
            NoiseKey { seed: 43, ..KEY },
            NoiseKey { seed: 42 | 1 << 40, ..KEY },
            NoiseKey { stage: "sr256", ..KEY },
            NoiseKey { purpose: Purpose::Step, ..KEY },
            NoiseKey { purpose: Purpose::Augmentation, ..KEY },
            NoiseKey { purpose: Purpose::ImageToImage, ..KEY },
            NoiseKey { step: 1, ..KEY },
        ] {
            let field = field(other, 8);
            assert!(base.iter().zip(&field).all(|(a, b)| a != b), "{other:?}");
        }
    }

    #[test]
    fn the_variates_are_standard_normal() {
        let field = field(NoiseKey { seed: 7, ..KEY }, 1 << 20);
        let count = field.len() as f64;
        let moment = |power: i32| {
            field.iter().map(|value| f64::from(*value).powi(power)).sum::<f64>() / count
        };
        assert!(moment(1).abs() < 0.004, "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.006, "variance {}", moment(2));
        assert!(moment(3).abs() < 0.02, "skew {}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.04, "fourth moment {}", moment(4));
        let beyond_two = field.iter().filter(|value| value.abs() > 2.0).count() as f64 / count;
        assert!((beyond_two - 0.0455).abs() < 0.001, "beyond two sigma {beyond_two}");
    }
}
