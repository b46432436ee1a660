//! Writes the files in `proto/src/generated`.

use std::fs;

use darkroom_proto_generate::{generate, generated};

fn main() -> anyhow::Result<()> {
    let folder = generated();
    fs::create_dir_all(&folder)?;
    for (name, bytes) in generate()? {
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
