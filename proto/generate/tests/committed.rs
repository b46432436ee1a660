//! The committed files match the protocol.

use std::fs;

use darkroom_proto_generate::{generate, generated};

#[test]
fn the_committed_code_is_what_the_protocol_says() {
    for (name, bytes) in generate().expect("the protocol compiles") {
        let committed = fs::read(generated().join(&name)).unwrap_or_default();
        assert!(
            committed == bytes,
            "proto/src/generated/{name} is not up to date; run `cargo run -p darkroom-proto-generate`"
        );
    }
}
