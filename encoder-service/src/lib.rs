//! Darkroom: encoder-service.
