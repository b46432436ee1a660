//! Compiles the protocol with protox (no protoc needed) into prost types, tonic stubs, a descriptor
//! set, and a table of each method's options.
//!
//! The result is committed in `proto/src/generated`, so that building Darkroom does not compile the
//! compilers. A test here compares the committed files with the protocol.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use protox::prost_reflect::{DescriptorPool, MethodDescriptor, Value};

const FILES: [&str; 7] = [
    "darkroom/v1/options.proto",
    "darkroom/v1/types.proto",
    "darkroom/v1/farm.proto",
    "darkroom/v1/encoder.proto",
    "darkroom/v1/admin.proto",
    "darkroom/v1/members.proto",
    "darkroom/v1/webhooks.proto",
];

/// Messages with secrets. `darkroom_proto::hidden` has their `Debug`, which does not show them.
const SECRETS: [&str; 5] = [
    ".darkroom.v1.CreateKeyResponse",
    ".darkroom.v1.RotateKeyResponse",
    ".darkroom.v1.PoolKeys",
    ".darkroom.v1.SignImageResponse",
    ".darkroom.v1.CreateWebhookResponse",
];

/// The folder of the protocol.
#[must_use]
pub fn protocol() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folder of the generated files.
#[must_use]
pub fn generated() -> PathBuf {
    protocol().join("src/generated")
}

/// Every generated file by its name.
///
/// # Errors
/// If the protocol does not compile, or a method has no class or no scope.
pub fn generate() -> Result<BTreeMap<String, Vec<u8>>> {
    let mut compiler = protox::Compiler::new([protocol()])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let work = tempfile::tempdir().context("a folder for prost's files")?;
    let mut config = prost_build::Config::new();
    // The codec finds a message's limits by its name.
    config.enable_type_names();
    config.skip_debug(SECRETS);
    tonic_prost_build::configure()
        .btree_map(".")
        .codec_path("crate::codec::BoundedCodec")
        .emit_rerun_if_changed(false)
        .out_dir(work.path())
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    let types = fs::read(work.path().join("darkroom.v1.rs"))?;
    Ok(BTreeMap::from([
        ("darkroom.v1.bin".to_owned(), compiler.encode_file_descriptor_set()),
        ("calls.rs".to_owned(), calls(&compiler.descriptor_pool())?.into_bytes()),
        ("darkroom.v1.rs".to_owned(), types),
    ]))
}

/// The source of `calls::CALLS`, and a constant for each method in a module for its service.
fn calls(pool: &DescriptorPool) -> Result<String> {
    let mut all =
        String::from("/// Every method of the protocol.\npub static CALLS: &[Call] = &[\n");
    let mut modules = String::new();
    for service in pool.services() {
        let module = service.name().to_lowercase();
        writeln!(
            modules,
            "\n/// Methods of `{}`.\npub mod {module} {{\n    use super::{{Call, Class, Scope}};",
            service.full_name()
        )?;
        for method in service.methods() {
            let name = constant(method.name());
            writeln!(all, "    {module}::{name},")?;
            call(&mut modules, &name, &method)?;
        }
        modules.push_str("}\n");
    }
    Ok(all + "];\n" + &modules)
}

fn call(source: &mut String, name: &str, method: &MethodDescriptor) -> Result<()> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let class = match option(method, "call")?.as_enum_number() {
        Some(1) => "Short",
        Some(2) => "Long",
        Some(3) => "Lasting",
        _ => {
            bail!("{path} has no class; write option (call) = CALL_CLASS_… below it");
        }
    };
    let scope = match option(method, "scope")?.as_enum_number() {
        Some(1) => "Read",
        Some(2) => "Submit",
        Some(3) => "Operate",
        Some(4) => "Admin",
        Some(5) => "Member",
        _ => {
            bail!("{path} has no scope; write option (scope) = SCOPE_… below it");
        }
    };
    let is = |name| Ok::<_, anyhow::Error>(option(method, name)?.as_bool().unwrap_or(false));
    let (gathers, compressed) = (is("gathers")?, is("compressed")?);
    let (receives, sends) = (method.is_client_streaming(), method.is_server_streaming());
    writeln!(
        source,
        "    /// `{path}`.\n    pub const {name}: Call = Call {{ path: {path:?}, class: Class::{class}, \
         scope: Scope::{scope}, receives_stream: {receives}, sends_stream: {sends}, gathers: {gathers}, compressed: {compressed} }};"
    )?;
    Ok(())
}

/// A method's value of an option of `darkroom/v1/options.proto`, or the option's default.
fn option(method: &MethodDescriptor, name: &str) -> Result<Value> {
    let name = format!("darkroom.v1.{name}");
    let pool = method.parent_pool();
    let extension =
        pool.get_extension_by_name(&name).with_context(|| format!("no option {name}"))?;
    Ok(method.options().get_extension(&extension).into_owned())
}

/// `SubmitJob` as `SUBMIT_JOB`.
fn constant(name: &str) -> String {
    let mut constant = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !constant.is_empty() {
            constant.push('_');
        }
        constant.extend(letter.to_uppercase());
    }
    constant
}
