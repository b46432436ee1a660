//! Guards taken out, one at a time, each in a process of its own.

mod artifacts;
mod coordinator;
mod page;
mod queue;
mod sqlite;
mod store;
mod worker;
