//! Makes the page's files (`page/dist`) part of the program: a table of their paths and types.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

/// Types of files, by the end of their names.
const MEDIA: [(&str, &str); 9] = [
    ("html", "text/html; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("ico", "image/x-icon"),
    ("json", "application/json"),
    ("webmanifest", "application/manifest+json"),
    ("txt", "text/plain; charset=utf-8"),
];

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    let dist = root.join("page/dist");
    println!("cargo::rerun-if-changed=page/dist");
    let mut files = Vec::new();
    if dist.is_dir() {
        collect(&dist, &mut files)?;
    }
    files.sort();
    let out = PathBuf::from(env::var("OUT_DIR").unwrap_or_default());
    let mut table = String::from("static FILES: &[File] = &[\n");
    for (number, file) in files.iter().enumerate() {
        let inside = file.strip_prefix(&dist).map_err(io::Error::other)?;
        let path = format!("/{}", inside.to_string_lossy().replace('\\', "/"));
        let end = inside.extension().and_then(|end| end.to_str()).unwrap_or_default();
        let Some((_, media)) = MEDIA.iter().find(|(known, _)| *known == end) else {
            return Err(io::Error::other(format!("no media type is known for {path}")));
        };
        // A copy, since the page may be built anew while the program is compiled.
        let copy = format!("page-{number}");
        fs::copy(file, out.join(&copy))?;
        let _ = writeln!(
            table,
            "    File {{ path: {path:?}, media: {media:?}, \
             bytes: include_bytes!(concat!(env!(\"OUT_DIR\"), {:?})) }},",
            format!("/{copy}"),
        );
    }
    table.push_str("];\n");
    fs::write(out.join("page.rs"), table)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
