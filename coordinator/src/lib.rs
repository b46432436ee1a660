//! The coordinator: gRPC API, job store, dispatcher, result committer, reaper and finisher.
//!
//! SQL is the only truth; the queue and the object store are read and written, never believed. This crate never
//! links libtorch and never computes a picture.

pub mod store;
