//! Joining a farm that runs elsewhere: what a separate encoder or worker process must do before it
//! can work, and what it serves beside its work.
//!
//! It asks a coordinator what farm this is, connects to the farm's queue and object storage, and
//! fetches the cascades into a bounded cache. It never knows SQL or models.

mod facts;
mod health;
mod join;
mod renew;
mod work;

pub use facts::{Computes, Joining, Kind};
pub use health::serve_health;
pub use join::{JoinArgs, Member, join};
pub use work::{Face, grace, work};
