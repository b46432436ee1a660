//! The coordinator's tests, in one program, because each test program takes long to compile and
//! link.

mod audit;
mod callers;
mod coordinators;
mod edges;
mod finding;
mod flow;
mod forecast;
mod image_commands;
mod inputs;
mod isolation;
mod keys;
mod labels;
mod limits;
mod links;
mod outputs;
mod overrides;
mod postgres;
mod previews;
mod recovery;
mod sqlite_store;
mod submit;
mod support;
mod watch;
mod whole_farm;
mod worker_health;
