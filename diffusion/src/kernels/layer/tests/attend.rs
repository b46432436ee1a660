use tch::{Kind, Tensor};

use super::{KINDS, values, worst};
use crate::kernels::instructions::on_every_instruction_set;
use crate::kernels::{Heads, attend};

/// Queries, and keys and values in two parts, cut from a wider projection.
struct Made {
    query: Tensor,
    pairs: Vec<[Tensor; 2]>,
    heads: i64,
}

/// Parts of `[rows, length, 3 · channels]`, so that there are gaps between positions.
fn made(kind: Kind, rows: i64, heads: i64, head_dim: i64, queries: i64, keys: &[i64]) -> Made {
    let channels = heads * head_dim;
    let part = |length: i64, which: i64, seed: f64| {
        values(&[rows, length, 3 * channels], kind, seed).to_kind(kind).narrow(
            2,
            which * channels,
            channels,
        )
    };
    let pair = |(index, length): (usize, &i64)| {
        let seed = 10.0 * index as f64;
        [part(*length, 1, seed + 1.0), part(*length, 2, seed + 2.0)]
    };
    Made { query: part(queries, 0, 0.0), pairs: keys.iter().enumerate().map(pair).collect(), heads }
}

impl Made {
    fn attend(&self, heads: Heads<'_>) -> Tensor {
        let pairs: Vec<[&Tensor; 2]> = self.pairs.iter().map(|[key, value]| [key, value]).collect();
        attend(&self.query, &pairs, heads).expect("attends")
    }

    /// With libtorch's products and softmax, in f64.
    fn expected(&self, heads: Heads<'_>) -> Tensor {
        let split = |x: &Tensor| {
            x.to_kind(Kind::Double).unflatten(2, [self.heads, heads.head_dim]).transpose(1, 2)
        };
        let joined = |which: usize| {
            let parts: Vec<&Tensor> = self.pairs.iter().map(|pair| &pair[which]).collect();
            split(&Tensor::cat(&parts, 1))
        };
        let mut scores = split(&self.query).matmul(&joined(0).transpose(2, 3)) * heads.scale;
        if let Some(bias) = heads.bias {
            scores += bias.to_kind(Kind::Double);
        }
        if let Some(seen) = heads.seen {
            for (row, seen) in seen.iter().enumerate() {
                let hidden = scores.size()[3] - seen;
                let _ = scores.get(row as i64).narrow(2, *seen, hidden).fill_(f64::NEG_INFINITY);
            }
        }
        scores.softmax(-1, Kind::Double).matmul(&joined(1)).transpose(1, 2).flatten(2, 3)
    }
}

fn plain(head_dim: i64) -> Heads<'static> {
    Heads { head_dim, scale: (head_dim as f64).sqrt().recip(), bias: None, seen: None }
}

#[test]
fn attention_is_libtorchs() {
    on_every_instruction_set(|_| {
        // Keys that fill vectors and groups of vectors and that do not; a single key; more queries than
        // a block; head channels that are odd, that leave lanes idle, and that take several groups.
        for (rows, heads, head_dim, queries, keys) in [
            (1, 1, 16, 8, vec![16]),
            (2, 3, 16, 40, vec![7, 33]),
            (1, 2, 8, 5, vec![1]),
            (2, 1, 64, 130, vec![77, 130]),
            (1, 2, 24, 33, vec![50]),
            (2, 2, 9, 3, vec![4, 15]),
            (1, 1, 72, 300, vec![97]),
            (1, 2, 40, 1, vec![31, 1, 2]),
            (1, 1, 128, 9, vec![129]),
        ] {
            for (kind, tolerance) in KINDS {
                let made = made(kind, rows, heads, head_dim, queries, &keys);
                let off = worst(&made.attend(plain(head_dim)), &made.expected(plain(head_dim)));
                assert!(
                    off < tolerance,
                    "{rows} × {heads} × {head_dim}, {queries} of {keys:?}, {kind:?}: {off}"
                );
            }
        }
    });
}

#[test]
fn attention_adds_a_bias_and_sees_each_rows_first_keys() {
    on_every_instruction_set(|_| {
        for (kind, tolerance) in KINDS {
            let made = made(kind, 3, 2, 32, 21, &[21]);
            let bias = values(&[1, 2, 21, 21], Kind::Float, 5.0);
            let heads =
                Heads { head_dim: 32, scale: 0.25, bias: Some(&bias), seen: Some(&[21, 1, 17]) };
            let off = worst(&made.attend(heads), &made.expected(heads));
            assert!(off < tolerance, "{kind:?}: {off}");
        }
    });
}

#[test]
fn a_row_attends_with_the_same_bits_alone_and_by_any_number_of_threads() {
    on_every_instruction_set(|_| {
        let before = tch::get_num_threads();
        for (kind, _) in KINDS {
            let made = made(kind, 3, 2, 16, 300, &[5, 300]);
            tch::set_num_threads(1);
            let together = made.attend(plain(16));
            for threads in [1, 2, 7] {
                tch::set_num_threads(threads);
                assert_eq!(made.attend(plain(16)), together, "{threads} threads, {kind:?}");
            }
            let row = |x: &Tensor| x.narrow(0, 1, 1);
            let pairs = made.pairs.iter().map(|[key, value]| [row(key), row(value)]).collect();
            let alone = Made { query: row(&made.query), pairs, heads: 2 };
            assert_eq!(alone.attend(plain(16)), row(&together), "alone, {kind:?}");
        }
        tch::set_num_threads(before);
    });
}

#[test]
fn what_is_not_finite_is_told_and_stays_in_its_row() {
    on_every_instruction_set(|_| {
        for (kind, _) in KINDS {
            for strange in [f64::NAN, f64::INFINITY] {
                let made = made(kind, 2, 2, 16, 9, &[20]);
                let _ = made.query.get(1).get(3).narrow(0, 0, 16).fill_(strange);
                let finite = made.attend(plain(16)).isfinite();
                let line = finite.get(1).get(3);
                assert!(
                    !line.narrow(0, 0, 16).any().int64_value(&[]).is_positive(),
                    "its own head, {kind:?}"
                );
                assert_eq!(
                    finite.logical_not().sum(Kind::Int64).int64_value(&[]),
                    16,
                    "nothing else, {kind:?}"
                );
            }
        }
    });
}
