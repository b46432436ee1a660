//! `darkroom`: the command line.

fn main() {}
