//! The tests of whole programs, in one test program, because each takes long to compile and link.

mod api;
mod attacks;
mod bad_input;
mod between;
mod databases;
mod farm_script;
mod finding;
mod forecast;
mod image_commands;
mod import;
mod lies;
mod masks;
mod mounts;
mod names;
mod outputs;
mod overrides;
mod pictures;
mod processes;
mod prompt_files;
mod render;
mod results;
mod settings;
mod strangers;
mod survival;
mod terminals;
mod tls;
