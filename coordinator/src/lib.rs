//! Darkroom: coordinator.
