//! Darkroom: tests.
