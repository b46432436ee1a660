//! The runtime's tests, in one program: each program of tests takes long to compile and link.

mod attacks;
mod tls;
