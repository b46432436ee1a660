//! The tests of artifacts, in one program: each program of tests takes long to compile and link.

mod imagemagick;
mod outputs;
