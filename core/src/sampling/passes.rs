//! Which network passes a stage's steps take. The renderer's loop and the cost model both use this,
//! so they cannot disagree about what a step costs.

/// Cost of a network pass that reuses deeper features, as a share of a whole pass. Measured with
/// the demo's base stage on a CPU (docs/performance.md: 0.22, 0.15 and 0.17 at intervals of 2, 3
/// and 5).
pub const REUSING_PASS: f64 = 0.18;

/// The network pass of one step, for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Whether both halves are computed, the unconditional and the conditional one. If not, only
    /// the conditional half.
    pub guided: bool,
    /// Whether the deeper features of an earlier step are reused.
    pub reuses: bool,
}

impl Pass {
    /// Every step's pass, from the guidance weights of all steps. The deeper features are computed
    /// at every `cache_interval`-th step. A step in between reuses the last computed features, but
    /// only if both steps are guided or both are not, because the number of rows must match.
    #[must_use]
    pub fn of_steps(weights: &[f64], cache_interval: u32) -> Vec<Self> {
        let interval = cache_interval.max(1) as usize;
        let mut computed = None;
        let pass = |(index, weight): (usize, &f64)| {
            let guided = is_guided(*weight);
            let reuses = !index.is_multiple_of(interval) && computed == Some(guided);
            if !reuses {
                computed = Some(guided);
            }
            Self { guided, reuses }
        };
        weights.iter().enumerate().map(pass).collect()
    }

    /// Its cost, in passes of one image's conditional half.
    #[must_use]
    pub fn cost(self) -> f64 {
        let halves = if self.guided { 2.0 } else { 1.0 };
        halves * if self.reuses { REUSING_PASS } else { 1.0 }
    }
}

/// Whether a step with this guidance weight needs the unconditional half: 1 means no guidance.
#[must_use]
pub fn is_guided(weight: f64) -> bool {
    weight != 1.0
}
