//! A TCP proxy that can be cut, stalled and healed.
