//! Errors, in words that a person can act on.
//!
//! There are two families: [`LoadError`] when a model folder is read, and [`RenderError`] when it
//! is run. Each error has a stable code and says whether a retry can help. Nothing in this crate
//! panics on a bad file or input.

use std::path::{Path, PathBuf};

use tch::TchError;

use crate::foreign;

/// Why a model folder could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be opened or read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A JSON file is not valid.
    #[error("{path} is not valid: {message}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// An option has an unsupported value.
    #[error("{path}: `{key}` is {value}, which is not supported; accepted: {accepted}")]
    Unsupported {
        /// The configuration file.
        path: PathBuf,
        /// The option's name.
        key: String,
        /// The value found, as JSON.
        value: String,
        /// What is accepted.
        accepted: String,
    },
    /// A weights file is truncated or not a safetensors file.
    #[error("{path} is not a complete safetensors file: {message}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The only weights in the folder are pickled.
    #[error(
        "{path} is a pickle, which can run code when it is read, and is not opened; convert it with \
         `model.save_pretrained(folder, safe_serialization=True)` of diffusers or transformers, which writes {wanted}"
    )]
    Pickle {
        /// The pickled file.
        path: PathBuf,
        /// The name of the file to read instead.
        wanted: String,
    },
    /// There are shards, but no index that says what they contain.
    #[error("{index} is missing, and without it the shards beside it ({shard}) cannot be read")]
    NoIndex {
        /// One of the shards.
        shard: PathBuf,
        /// The index.
        index: PathBuf,
    },
    /// There are no weights under any supported name.
    #[error("{path} has no weights, such as {wanted}: {found}")]
    Absent {
        /// The folder.
        path: PathBuf,
        /// The name of a file that would be read.
        wanted: String,
        /// What is in the folder instead.
        found: String,
    },
    /// There are several files, and any of them could be meant.
    #[error("{path} holds {found}; accepted: {wanted}")]
    Ambiguous {
        /// The folder.
        path: PathBuf,
        /// What is in the folder.
        found: String,
        /// What should be in it.
        wanted: String,
    },
    /// A download of the file is not finished.
    #[error(
        "{path} is not finished: {beside} beside it belongs to a download that is under way or broke off"
    )]
    Unfinished {
        /// The weights file, or the index of its shards.
        path: PathBuf,
        /// The file that the downloading program left.
        beside: PathBuf,
    },
    /// The folder does not have the requested variant.
    #[error("{path} has no weights of the variant {variant:?}; accepted: {accepted}")]
    NoVariant {
        /// The folder.
        path: PathBuf,
        /// The requested variant.
        variant: String,
        /// The variants there are.
        accepted: String,
    },
    /// A tensor that the network needs is absent.
    #[error("{path} has no tensor `{tensor}`")]
    Missing {
        /// The weights file, or the index of its shards.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// A tensor has another shape than the configuration requires.
    #[error("tensor `{tensor}` in {path} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
    },
    /// A tensor's element type is not supported.
    #[error("tensor `{tensor}` in {path} is {dtype}; accepted: F32, F16, BF16")]
    Dtype {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The element type in the file.
        dtype: String,
    },
    /// A tensor contains infinities or NaN.
    #[error("tensor `{tensor}` in {path} holds a value that is not finite")]
    NonFinite {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// The configured network does not use some of the tensors.
    #[error(
        "{path} holds {count} tensors that the configured network does not use, for example `{tensor}`"
    )]
    Unexpected {
        /// The weights file.
        path: PathBuf,
        /// How many there are.
        count: usize,
        /// The first of them by name.
        tensor: String,
    },
    /// The tokenizer could not be read or set up.
    #[error("tokenizer {path}: {message}")]
    Tokenizer {
        /// The tokenizer's file or folder.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The requested device cannot be used here.
    #[error("device {device} is not usable: {message}")]
    Device {
        /// The requested device.
        device: String,
        /// Why not.
        message: String,
    },
    /// The weights do not fit into memory.
    #[error("out of memory while loading {path}")]
    OutOfMemory {
        /// The folder being loaded.
        path: PathBuf,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(String),
}

impl LoadError {
    /// A stable word for logs, metrics and the wire.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::Absent { .. } | Self::Unfinished { .. } => "model-unreadable",
            Self::Config { .. } | Self::Tokenizer { .. } => "model-config-invalid",
            Self::Unsupported { .. } => "model-option-unsupported",
            Self::Corrupt { .. } => "weights-corrupt",
            Self::Pickle { .. } => "weights-pickled",
            Self::Missing { .. }
            | Self::Shape { .. }
            | Self::Dtype { .. }
            | Self::Unexpected { .. }
            | Self::NoIndex { .. }
            | Self::Ambiguous { .. }
            | Self::NoVariant { .. } => "weights-mismatch",
            Self::NonFinite { .. } => "weights-not-finite",
            Self::Device { .. } => "device-unusable",
            Self::OutOfMemory { .. } => "out-of-memory",
            Self::Torch(_) => "torch",
        }
    }

    /// Whether a retry with the same files, here or elsewhere, can succeed.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Read { source, .. } => source.kind() != std::io::ErrorKind::NotFound,
            Self::OutOfMemory { .. } | Self::Device { .. } => true,
            _ => false,
        }
    }

    /// A file that cannot be read. If it is a link that leads nowhere, the error says so.
    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        let source = match foreign::dangling(path) {
            Some(said) => std::io::Error::new(source.kind(), said),
            None => source,
        };
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn torch(path: &Path, error: TchError) -> Self {
        Self::from(error).in_folder(path)
    }

    /// An error of the model in a folder. If libtorch reports lack of memory, the error says so.
    pub(crate) fn in_folder(self, folder: &Path) -> Self {
        match self {
            Self::Torch(message) if is_out_of_memory(&message) => {
                Self::OutOfMemory { path: folder.to_owned() }
            }
            error => error,
        }
    }
}

impl From<TchError> for LoadError {
    fn from(error: TchError) -> Self {
        Self::Torch(first_line(&error))
    }
}

/// Why a stage or a text could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The caller asked to stop between two steps.
    #[error("interrupted")]
    Interrupted,
    /// The device does not have enough memory for this batch.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// A row's result contains NaN or an infinity.
    #[error("row {row} came out with values that are not finite")]
    NonFinite {
        /// The row's position in the call.
        row: usize,
    },
    /// A setting or an input does not fit the stage.
    #[error("{field}: {message}")]
    Invalid {
        /// The setting or input.
        field: &'static str,
        /// The value, and what is accepted.
        message: String,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(String),
}

impl RenderError {
    /// A stable word for logs, metrics and the wire.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::OutOfMemory(_) => "out-of-memory",
            Self::NonFinite { .. } => "not-finite",
            Self::Invalid { .. } => "invalid-input",
            Self::Torch(_) => "torch",
        }
    }

    /// Whether a retry of the same work can succeed (smaller, later or elsewhere).
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Interrupted | Self::OutOfMemory(_) | Self::Torch(_))
    }

    pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { field, message: message.into() }
    }
}

impl From<TchError> for RenderError {
    fn from(error: TchError) -> Self {
        let message = first_line(&error);
        if is_out_of_memory(&message) { Self::OutOfMemory(message) } else { Self::Torch(message) }
    }
}

/// libtorch's messages carry a C++ backtrace after the first line.
fn first_line(error: &TchError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("Internal torch error: ").to_owned()
}

fn is_out_of_memory(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("out of memory")
        || message.contains("can't allocate memory")
        || message.contains("not enough memory")
        // Messages of cuBLAS and cuDNN about their handles and workspaces.
        || message.contains("status_alloc_failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_memory_is_told_apart_from_other_failures() {
        let cpu = TchError::Torch(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried…\nat f()".into(),
        );
        assert!(matches!(RenderError::from(cpu), RenderError::OutOfMemory(_)));
        let cuda = TchError::Torch("CUDA out of memory. Tried to allocate 2 GiB".into());
        assert!(matches!(RenderError::from(cuda), RenderError::OutOfMemory(_)));
        let cublas = TchError::Torch(
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`".into(),
        );
        assert!(matches!(RenderError::from(cublas), RenderError::OutOfMemory(_)));
        let other = TchError::Torch("shape '[2]' is invalid\nException raised from".into());
        match RenderError::from(other) {
            RenderError::Torch(message) => assert_eq!(message, "shape '[2]' is invalid"),
            other => panic!("{other:?}"),
        }
    }
}
