//! Tenants are kept apart: what belongs to another tenant looks exactly like what does not exist.

mod before;
mod calling;
mod inputs;
mod listings;
mod sharing;
mod walk;
mod webhooks;
