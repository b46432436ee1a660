//! Darkroom: worker.
