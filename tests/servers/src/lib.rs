//! Real servers for tests, started by the test itself: Redis, its Sentinels, Postgres, PgBouncer,
//! an S3 server, HAProxy, nginx, a receiver of webhooks, and a proxy that cuts the network.
//!
//! Each listens on a free port of loopback, keeps its files in its own folder, and ends with its
//! handle, so a test that panics leaves nothing behind. If the tests run as root and a server
//! refuses that, it runs as an unprivileged user.

pub mod certificates;
pub mod clock;
pub mod disk;
pub mod haproxy;
mod http;
pub mod http2;
pub mod nginx;
pub mod pgbouncer;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod redis;
pub mod s3;
pub mod sentinel;

pub use http::http_get;
