//! Darkroom: artifacts.
