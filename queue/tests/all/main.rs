//! The queue's tests, in one program, because each test program takes long to compile and link.

mod memory;
#[cfg(feature = "redis")]
mod redis;
mod reports;
mod stage_loop;
