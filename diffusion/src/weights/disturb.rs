//! Changes weights by about their last bit. The output of such a network differs as much as another
//! order of sums, another library or another machine would change it, because rounding in a product
//! is equivalent to slightly different factors (Wilkinson's backward analysis). Networks like T5,
//! whose attention is not scaled, can be a thousand times as sensitive as a U-Net, and no count of
//! layers shows that.

use tch::{Kind, Tensor};

use crate::layers::Torch;

/// Multiplies each value by 1 plus or minus up to two units in the last place of f32, evenly
/// distributed, with this seed. Values in other formats are not changed, because rounding does not
/// change their last bit.
pub(super) fn last_bits(values: &mut Tensor, seed: u64) -> Torch<()> {
    if values.kind() != Kind::Float {
        return Ok(());
    }
    let mut state = seed;
    let factors: Vec<f32> =
        (0..values.numel()).map(|_| 1.0 + f32::EPSILON * even(&mut state)).collect();
    let factors =
        Tensor::f_from_slice(&factors)?.f_reshape(values.size())?.f_to_device(values.device())?;
    let _ = values.f_mul_(&factors)?;
    Ok(())
}

/// The next number between −1 and 1 (splitmix64).
fn even(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^= word >> 31;
    (word >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_move_by_their_last_bits_and_the_same_way_each_time() {
        let numbers: Vec<f32> = (1..1000).map(|i| i as f32 * 0.37).collect();
        let moved = |seed| {
            let mut tensor = Tensor::from_slice(&numbers).reshape([27, 37]);
            last_bits(&mut tensor, seed).unwrap();
            Vec::<f32>::try_from(tensor.reshape([-1])).unwrap()
        };
        assert_eq!(moved(1), moved(1));
        assert_ne!(moved(1), moved(2));
        let off: Vec<f32> = moved(1)
            .iter()
            .zip(&numbers)
            .map(|(moved, value)| (moved / value - 1.0).abs())
            .collect();
        assert!(off.iter().all(|off| *off <= 3e-7) && off.iter().any(|off| *off > 5e-8), "{off:?}");
        let mut narrow = Tensor::from_slice(&numbers).to_kind(Kind::BFloat16);
        let before = narrow.copy();
        last_bits(&mut narrow, 1).unwrap();
        assert!(narrow == before);
    }
}
