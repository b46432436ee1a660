//! Settings around a process that change bits: the libraries' version, and their settings in the
//! environment.
//!
//! oneDNN, MKL, libtorch, the C library and NVIDIA's libraries choose kernels by the CPU. Each has
//! variables that make it choose as for another CPU, or with less exactness. Such a variable, if
//! set, is part of the class of device, by name and value. Which of them really change something
//! depends on the network. Those that never do are excluded by name, so that variables of later
//! releases are included and not forgotten.

use tch::Device;

/// Prefixes of names that change bits on any device.
const EVERYWHERE: &[&str] = &[
    "ATEN_",
    "DNNL_",
    "ONEDNN_",
    "MKL_",
    "TORCH_",
    "GLIBC_TUNABLES",
    "LD_HWCAP_MASK",
    "OMP_DYNAMIC",
    "OMP_THREAD_LIMIT",
    "KMP_DYNAMIC_MODE",
];
/// The same for NVIDIA's devices alone.
const ON_CUDA: &[&str] = &[
    "NVIDIA_TF32_OVERRIDE",
    "CUBLAS",
    "CUDNN_",
    "CUDA_FORCE_",
    "CUDA_DISABLE_PTX_JIT",
    "PYTORCH_CUDA_",
];
/// Exceptions: prefixes of names that change no number, such as logs, caches, paths, memory
/// management, and settings for Python and builds.
const HARMLESS: &[&str] = &[
    "ATEN_THREADING",
    "CUBLAS_LOG",
    "CUBLASLT_LOG",
    "CUDNN_LOG",
    "CUDNN_ERRATA_JSON",
    "CUDNN_HOME",
    "CUDNN_PATH",
    "CUDNN_ROOT",
    "CUDNN_VERSION",
    "CUBLAS_VERSION",
    "CUDA_FORCE_PTX_JIT_CACHE",
    "DNNL_GRAPH_",
    "DNNL_JIT_DUMP",
    "DNNL_JIT_PROFILE",
    "DNNL_PRIMITIVE_CACHE",
    "DNNL_VERBOSE",
    "MKL_VERBOSE",
    "MKL_PROGRESS",
    "MKL_ROOT",
    "MKL_FAST_MEMORY_LIMIT",
    "MKL_DISABLE_FAST_MM",
    "ONEDNN_CACHE_CONTEXT_UNSAFE",
    "ONEDNN_GRAPH_",
    "ONEDNN_JIT_DUMP",
    "ONEDNN_JIT_PROFILE",
    "ONEDNN_PRIMITIVE_CACHE",
    "ONEDNN_VERBOSE",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TORCH_ADDR2LINE",
    "TORCH_AUTOGRAD_SHUTDOWN",
    "TORCH_CPP_LOG",
    "TORCH_CUDA_ARCH_LIST",
    "TORCH_DISABLE_ADDR2LINE",
    "TORCH_DISTRIBUTED",
    "TORCH_EXTENSIONS_DIR",
    "TORCH_FR_",
    "TORCH_GLOO",
    "TORCH_HOME",
    "TORCH_INDUCTOR",
    "TORCH_LOGS",
    "TORCH_NCCL",
    "TORCH_PROFILER",
    "TORCH_SHOW_",
    "TORCH_SYMBOLIZE",
    "TORCH_VERSION",
    "TORCH_VITAL",
];
/// Longer values are shortened.
const LONGEST: usize = 40;

/// libtorch's version, as part of a class.
pub(super) fn library() -> String {
    format!("libtorch={}", env!("DARKROOM_LIBTORCH"))
}

/// Settings of this process, as part of a class: `NAME=value`, separated by commas; empty if there
/// are none.
pub(super) fn settings(device: Device) -> String {
    let variables = std::env::vars_os();
    of(
        device,
        variables.map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        }),
    )
}

fn of(device: Device, variables: impl Iterator<Item = (String, String)>) -> String {
    let begins = |name: &str, list: &[&str]| list.iter().any(|begin| name.starts_with(begin));
    let counts = |name: &str| {
        let known = begins(name, EVERYWHERE) || (device.is_cuda() && begins(name, ON_CUDA));
        known && !begins(name, HARMLESS)
    };
    let mut told: Vec<String> = variables
        .filter(|(name, value)| counts(name) && !value.is_empty())
        .map(|(name, value)| format!("{}={}", plain(&name), plain(&value)))
        .collect();
    told.sort();
    told.join(",")
}

/// Letters, digits and a few signs stay, all others become codes, so different values have
/// different texts. A long value becomes its beginning and a checksum of all of it.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for character in text.chars() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' | ':' | '+' => {
                plain.push(character)
            }
            other => plain.push_str(&format!("%{:X}", u32::from(other))),
        }
    }
    if plain.len() <= LONGEST {
        return plain;
    }
    // FNV-1a is enough: different values must give different texts.
    let sum = plain.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{}~{sum:016x}", &plain[..LONGEST])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(device: Device, variables: &[(&str, &str)]) -> String {
        of(device, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn what_changes_bits_is_told_and_the_rest_is_not() {
        let cpu = |name: &str, value: &str| told(Device::Cpu, &[(name, value)]);
        for name in [
            "ONEDNN_MAX_CPU_ISA",
            "DNNL_MAX_CPU_ISA",
            "ONEDNN_DEFAULT_FPMATH_MODE",
            "DNNL_DEFAULT_FPMATH_MODE",
            "ONEDNN_CPU_ISA_HINTS",
            "ONEDNN_SOMETHING_NEW",
            "ATEN_CPU_CAPABILITY",
            "MKL_CBWR",
            "MKL_ENABLE_INSTRUCTIONS",
            "MKL_NUM_THREADS",
            "OMP_DYNAMIC",
            "OMP_THREAD_LIMIT",
            "TORCH_MKLDNN_MATMUL_MIN_DIM",
            "GLIBC_TUNABLES",
        ] {
            assert_eq!(cpu(name, "x"), format!("{name}=x"));
            assert_eq!(cpu(name, ""), "", "an empty one counts as unset");
        }
        for name in [
            "ONEDNN_VERBOSE",
            "DNNL_VERBOSE",
            "MKL_VERBOSE",
            "TORCH_HOME",
            "PATH",
            "OMP_WAIT_POLICY",
        ] {
            assert_eq!(cpu(name, "1"), "", "{name}");
        }
        // The count of libtorch's own threads is included elsewhere, where it matters.
        assert_eq!(cpu("OMP_NUM_THREADS", "3"), "");
        let of_cuda = [
            ("NVIDIA_TF32_OVERRIDE", "0"),
            ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
            ("CUDNN_CONV_WSCAP_DBG", "1"),
            ("PYTORCH_CUDA_ALLOC_CONF", "x"),
        ];
        assert_eq!(told(Device::Cpu, &of_cuda), "");
        assert_eq!(
            told(Device::Cuda(0), &of_cuda),
            "CUBLAS_WORKSPACE_CONFIG=:4096:8,CUDNN_CONV_WSCAP_DBG=1,NVIDIA_TF32_OVERRIDE=0"
        );
    }

    #[test]
    fn other_values_are_told_apart() {
        let of = |value: &str| told(Device::Cpu, &[("MKL_CBWR", value)]);
        let values = [
            "AVX2",
            "avx2",
            "AVX2,STRICT",
            "AVX2/STRICT",
            "AVX2 STRICT",
            &"x".repeat(99),
            &"x".repeat(98),
        ];
        let told: std::collections::BTreeSet<String> =
            values.iter().map(|value| of(value)).collect();
        assert_eq!(told.len(), values.len(), "{told:?}");
        assert!(told.iter().all(|told| !told.contains(['/', ' ']) && told.len() < 80), "{told:?}");
    }
}
