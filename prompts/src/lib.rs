//! Reading prompt files.
