//! Calls to the C library that neither std nor tch offers.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::Once;

/// Loads a shared library for the rest of the process, with its symbols visible to the
/// libraries loaded before.
pub(crate) fn open_library(name: &str) -> Result<NonNull<c_void>, String> {
    let name = CString::new(name).map_err(|error| error.to_string())?;
    // SAFETY: `name` is a valid C string for the whole call. The library's initialisers
    // register libtorch's CUDA half and touch nothing of ours. The handle is never closed: the
    // library stays loaded.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if let Some(handle) = NonNull::new(handle) {
        return Ok(handle);
    }
    // SAFETY: after a failed dlopen, dlerror gives a C string that stays valid until the next
    // dl call.
    let message = unsafe {
        let message = libc::dlerror();
        if message.is_null() {
            None
        } else {
            Some(CStr::from_ptr(message).to_string_lossy().into_owned())
        }
    };
    Err(message.unwrap_or_else(|| "unknown reason".to_owned()))
}

/// The name of the GPU with this index, from the driver, which is this library.
pub(super) fn gpu_name(library: &str, index: usize) -> Result<String, String> {
    let driver = open_library(library)?;
    let function = |name: &CStr| {
        // SAFETY: `driver` is what dlopen returned and stays loaded; the name is a C string.
        let symbol = unsafe { libc::dlsym(driver.as_ptr(), name.as_ptr()) };
        NonNull::new(symbol)
            .ok_or_else(|| format!("{library} has no function {}", name.to_string_lossy()))
    };
    let (init, get, name) =
        (function(c"cuInit")?, function(c"cuDeviceGet")?, function(c"cuDeviceGetName")?);
    let said = |what: &str, result: c_int| match result {
        0 => Ok(()),
        code => Err(format!("{what} says {code}")),
    };
    let index = c_int::try_from(index).map_err(|_| format!("there is no device {index}"))?;
    let mut device: c_int = 0;
    let mut text = [0_u8; 256];
    // SAFETY: the driver's documentation gives its functions these types. The number and the
    // text outlive the calls, and the driver writes at most the number of bytes that it is
    // given.
    unsafe {
        let init: unsafe extern "C" fn(c_uint) -> c_int = std::mem::transmute(init);
        let get: unsafe extern "C" fn(*mut c_int, c_int) -> c_int = std::mem::transmute(get);
        let name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int =
            std::mem::transmute(name);
        said("cuInit", init(0))?;
        said("cuDeviceGet", get(&mut device, index))?;
        said("cuDeviceGetName", name(text.as_mut_ptr().cast(), text.len() as c_int, device))?;
    }
    let text = CStr::from_bytes_until_nul(&text).map_err(|_| "its name has no end".to_owned())?;
    match text.to_string_lossy().trim() {
        "" => Err("its name is empty".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// Tells glibc to keep large freed blocks for the next allocation instead of giving them back
/// to the system.
///
/// A denoising step allocates and frees the same few large blocks hundreds of times. If they
/// were given back each time, each would cost a page fault per 4 KiB: on two cores that made
/// element-wise operations five to eight times slower. If the process sets `MALLOC_MMAP_MAX_`
/// or `MALLOC_TRIM_THRESHOLD_` itself, nothing is changed.
pub(super) fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let set = |name| std::env::var_os(name).is_some();
            if set("MALLOC_MMAP_MAX_") || set("MALLOC_TRIM_THRESHOLD_") {
                return;
            }
            // SAFETY: mallopt takes plain integers and is safe to call at any time.
            unsafe {
                libc::mallopt(libc::M_MMAP_MAX, 0);
                libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
                libc::mallopt(libc::M_TOP_PAD, 64 << 20);
            }
        });
    }
}

/// Gives back what [`keep_freed_memory`] has kept so far.
pub(super) fn give_freed_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: malloc_trim takes a plain integer and is safe to call at any time, from any
        // thread.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A driver with two cards, whose functions have NVIDIA's names.
    const DRIVER: &str = r#"
        #include <string.h>
        static const char *cards[] = { "NVIDIA A100-SXM4-80GB", "NVIDIA H200 MIG 1g.18gb" };
        static int started;
        int cuInit(unsigned flags) { started = 1; return 0; }
        int cuDeviceGet(int *device, int index) {
            if (!started) return 3;
            if (index < 0 || index > 1) return 101;
            *device = 7 - index;
            return 0;
        }
        int cuDeviceGetName(char *name, int length, int device) {
            strncpy(name, cards[7 - device], length);
            return 0;
        }
    "#;

    fn driver(folder: &std::path::Path, name: &str, source: &str) -> String {
        let (source_file, library) =
            (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
        std::fs::write(&source_file, source).expect("written");
        let mut compiler = std::process::Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-w", "-o"]).arg(&library).arg(source_file);
        assert!(compiler.status().expect("a C compiler").success());
        library.to_str().expect("UTF-8").to_owned()
    }

    #[test]
    fn the_driver_says_which_card_an_index_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let library = driver(folder.path(), "driver", DRIVER);
        let name = |index: usize| gpu_name(&library, index);
        assert_eq!(name(0).as_deref(), Ok("NVIDIA A100-SXM4-80GB"));
        assert_eq!(name(1).as_deref(), Ok("NVIDIA H200 MIG 1g.18gb"));
        assert_eq!(name(2), Err("cuDeviceGet says 101".to_owned()));
        assert!(name(usize::MAX).is_err());
        assert_eq!(name(1).as_deref(), Ok("NVIDIA H200 MIG 1g.18gb"));
        let bare = driver(folder.path(), "bare", "int cuInit(unsigned flags) { return 0; }");
        assert!(gpu_name(&bare, 0).expect_err("no driver").contains("cuDeviceGet"));
        assert!(gpu_name("libnowhere.so.1", 0).is_err());
    }
}
