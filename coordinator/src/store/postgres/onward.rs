//! Images that a transaction makes ready are dispatched by it too, where the leader has given
//! leave: nothing else waits for their next pool and it has room. Their rows are written once for
//! two steps, and the log of changes too.
//!
//! What has no leave, is a suspect or lacks an input stays ready and goes the usual way.

use std::collections::HashMap;

use darkroom_core::image_state::{ImageEvent, ImageState, transition};
use darkroom_queue::task::PoolId;

use super::{
    Error,
    both::input_row::{InputRow, dispatched_image},
    plans::Plans,
};
use crate::store::{
    change::Move,
    records::{Dispatched, Onward},
};

/// What the next stage of images needs, by (job, idx); read under the lock of their jobs, and only
/// of those that are active and have no limit of their own.
pub(super) type Inputs = HashMap<(i64, i64), InputRow>;

/// Changes moves to ready, of locked jobs and not yet written, to moves to dispatched; returns what
/// they dispatch.
pub(super) fn hand_on(
    plans: &Plans,
    moves: &mut [Move],
    mut inputs: Inputs,
    onward: &[Onward],
) -> Result<Vec<(PoolId, Dispatched)>, Error> {
    moves.sort_unstable_by_key(|one| (one.job, one.idx));
    let mut room: HashMap<&PoolId, u64> =
        onward.iter().map(|leave| (&leave.pool, leave.room)).collect();
    let mut dispatched = Vec::new();
    for one in moves.iter_mut().filter(|one| one.to.state == ImageState::Ready && !one.to.suspect) {
        let Some(plan) = plans.get(&one.job) else { continue };
        let Some(pool) = plan.pool(one.to.stage) else { continue };
        let Some(room) = room.get_mut(pool).filter(|room| **room > 0) else { continue };
        let Some(row) = inputs.remove(&(one.job, one.idx)).filter(InputRow::encoded) else {
            continue;
        };
        let settings = plan.settings(row.variant())?;
        let stages = settings.stages.len();
        let Ok(to) = transition(&one.to, &ImageEvent::Dispatch, stages) else { continue };
        *room -= 1;
        one.to = to;
        let task = dispatched_image(plan.id, pool, settings, (one.idx, &one.to), row)?;
        dispatched.push((pool.clone(), task));
    }
    Ok(dispatched)
}
