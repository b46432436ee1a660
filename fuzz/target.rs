//! The driver for libFuzzer, which sees coverage. One program per target, all of this file: the
//! program's name is the target's. Mutations are libFuzzer's own and ours, half and half.

#![no_main]

use std::sync::LazyLock;

use darkroom_fuzz::{
    measure,
    mutation::change,
    targets::{self, Target},
};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use mutatis::Session;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = env!("CARGO_BIN_NAME");
    targets::find(name).unwrap_or_else(|| panic!("there is no target {name}"))
});

fuzz_target!(|data: &[u8]| {
    if let Err(why) = measure::run(&TARGET, data) {
        panic!("{why}");
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 2 == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let mut input = data[..size].to_vec();
    let material = TARGET.material(&[]);
    change(&mut Session::new().seed(u64::from(seed)), TARGET.form, &material, &mut input);
    let length = input.len().min(max_size);
    data[..length].copy_from_slice(&input[..length]);
    length
});
