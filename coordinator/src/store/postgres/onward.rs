//! Dispatches images in the transaction that makes them ready, if the leader granted credit for
//! their next pool: nothing else waits there, and it has room. So their rows and the log of changes
//! are written once for two steps.
//!
//! Without credit, and for a suspect or an image that lacks an input, the image stays ready, and
//! the leader dispatches it later.

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

/// The inputs of the next stage, by (job, idx). They were read under the lock of their jobs, and
/// only for jobs that are active and have no limit of workers.
pub(super) type Inputs = HashMap<(i64, i64), InputRow>;

/// Turns moves to ready into moves to dispatched. The moves are of locked jobs, and not written
/// yet. Returns the dispatched tasks.
pub(super) fn hand_on(
    plans: &Plans,
    moves: &mut [Move],
    mut inputs: Inputs,
    onward: &[Onward],
) -> Result<Vec<(PoolId, Dispatched)>, Error> {
    moves.sort_unstable_by_key(|one| (one.job, one.idx));
    let mut room: HashMap<&PoolId, u64> =
        onward.iter().map(|credit| (&credit.pool, credit.room)).collect();
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
