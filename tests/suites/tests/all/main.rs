//! The tests of the suites, in one program.

mod every_check;
