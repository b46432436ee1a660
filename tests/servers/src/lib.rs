//! Real servers for tests, started by the test itself: Redis, its Sentinels, Postgres, PgBouncer, an S3 server, HAProxy, nginx, and a
//! proxy that cuts the network.
//!
//! Each listens on a free port of loopback, keeps its files in a folder of its own, and ends with its handle: a test
//! that panics leaves nothing behind. As root they run as an unprivileged user where the server insists on it.

pub mod clock;
pub mod haproxy;
mod http;
pub mod nginx;
pub mod pgbouncer;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod s3;
pub mod sentinel;

pub use http::http_get;
