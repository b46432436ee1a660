//! Darkroom: runtime.
