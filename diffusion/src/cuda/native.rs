//! The functions of `shim.cpp` in Rust, each behind a handle that owns what the function made.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::os::fd::AsRawFd as _;
use std::ptr::{self, NonNull};

use super::Memory;
use super::kernels::{NAMES, SOURCE, THREADS};
use crate::device::open_library;

type Object = *mut c_void;

/// The functions of `shim.cpp`, with its names. The library stays loaded for the rest of the
/// process.
pub(super) struct Shim {
    recorder_new: unsafe extern "C" fn(c_int, *mut Object, *mut c_char, usize) -> c_int,
    recorder_drop: unsafe extern "C" fn(Object),
    enter: unsafe extern "C" fn(Object, *mut c_char, usize) -> c_int,
    leave: unsafe extern "C" fn(Object, *mut c_char, usize) -> c_int,
    begin: unsafe extern "C" fn(Object, *mut Object, *mut c_char, usize) -> c_int,
    end: unsafe extern "C" fn(Object, *mut c_char, usize) -> c_int,
    abandon: unsafe extern "C" fn(Object),
    replay: unsafe extern "C" fn(Object, *mut c_char, usize) -> c_int,
    recording_drop: unsafe extern "C" fn(Object),
    give_back: unsafe extern "C" fn(*mut c_char, usize) -> c_int,
    be_exact: unsafe extern "C" fn(*mut c_char, usize) -> c_int,
    memory: unsafe extern "C" fn(c_int, *mut usize, *mut usize, *mut c_char, usize) -> c_int,
    kernels_new: KernelsNew,
    launch: Launch,
}

/// Device, NVRTC, driver, source, names and their number.
type KernelsNew = unsafe extern "C" fn(
    c_int,
    Object,
    Object,
    *const c_char,
    *const *const c_char,
    usize,
    *mut Object,
    *mut c_char,
    usize,
) -> c_int;
/// Which kernel, two extents of the grid, threads per block, shared bytes, the argument.
type Launch = unsafe extern "C" fn(
    Object,
    usize,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    *const c_void,
    *mut c_char,
    usize,
) -> c_int;

impl Shim {
    pub(super) fn load(bytes: &[u8]) -> Result<Self, String> {
        let file =
            in_memory(bytes).map_err(|error| format!("no file in memory for it: {error}"))?;
        let library = open_library(&format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: `library` is what dlopen returned and stays loaded; the name is a C
                // string; the function has this type in shim.cpp, from which this very library was
                // built.
                unsafe {
                    let symbol = libc::dlsym(
                        library.as_ptr(),
                        concat!("darkroom_", $name, "\0").as_ptr().cast(),
                    );
                    if symbol.is_null() {
                        return Err(format!("it has no function {}", $name));
                    }
                    std::mem::transmute_copy(&symbol)
                }
            };
        }
        Ok(Self {
            recorder_new: function!("recorder_new"),
            recorder_drop: function!("recorder_drop"),
            enter: function!("enter"),
            leave: function!("leave"),
            begin: function!("begin"),
            end: function!("end"),
            abandon: function!("abandon"),
            replay: function!("replay"),
            recording_drop: function!("recording_drop"),
            give_back: function!("give_back"),
            be_exact: function!("be_exact"),
            memory: function!("memory"),
            kernels_new: function!("kernels_new"),
            launch: function!("launch"),
        })
    }

    pub(super) fn memory(&self, device: usize) -> Result<Memory, String> {
        let (mut free, mut total) = (0_usize, 0_usize);
        // SAFETY: both numbers outlive the call.
        said(|text, size| unsafe {
            (self.memory)(number(device), &mut free, &mut total, text, size)
        })?;
        Ok(Memory { free: free as u64, total: total as u64 })
    }

    pub(super) fn give_back(&self) -> Result<(), String> {
        // SAFETY: it takes nothing but the place for its message.
        said(|text, size| unsafe { (self.give_back)(text, size) })
    }

    pub(super) fn be_exact(&self) -> Result<(), String> {
        // SAFETY: it takes nothing but the place for its message.
        said(|text, size| unsafe { (self.be_exact)(text, size) })
    }

    pub(super) fn recorder(&'static self, device: usize) -> Result<RecorderHandle, String> {
        let mut object = ptr::null_mut();
        // SAFETY: `object` outlives the call.
        said(|text, size| unsafe { (self.recorder_new)(number(device), &mut object, text, size) })?;
        let object = NonNull::new(object).ok_or("it made no recorder")?;
        Ok(RecorderHandle { shim: self, object })
    }
}

impl Shim {
    /// Compiles the kernels for a device and loads them there.
    pub(super) fn kernels(&'static self, device: usize) -> Result<KernelsHandle, String> {
        let nvrtc = nvrtc()?;
        let driver = open_library("libcuda.so.1")?;
        let names = NAMES.map(|name| name.as_ptr().cast::<c_char>());
        let mut object = ptr::null_mut();
        // SAFETY: source and names are C strings that live for ever, both libraries stay loaded,
        // `object` outlives the call.
        said(|text, size| unsafe {
            (self.kernels_new)(
                number(device),
                nvrtc.as_ptr(),
                driver.as_ptr(),
                SOURCE.as_ptr().cast(),
                names.as_ptr(),
                names.len(),
                &mut object,
                text,
                size,
            )
        })?;
        let object = NonNull::new(object).ok_or("it made no kernels")?;
        Ok(KernelsHandle { shim: self, object })
    }
}

/// libtorch's path to NVRTC. Also loads the part that NVRTC itself would search for in other
/// places.
fn nvrtc() -> Result<NonNull<c_void>, String> {
    let library = open_library("libcaffe2_nvrtc.so")?;
    let mut found = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: the library stays loaded, the name is a C string, and dladdr fills `found` where it
    // returns other than 0; the path in it then is a C string that lives as long as the library.
    let path = unsafe {
        let symbol = libc::dlsym(library.as_ptr(), c"nvrtcCreateProgram".as_ptr());
        if symbol.is_null() || libc::dladdr(symbol, found.as_mut_ptr()) == 0 {
            return Err("libtorch's NVRTC has no function to create a program".to_owned());
        }
        CStr::from_ptr(found.assume_init().dli_fname).to_string_lossy().into_owned()
    };
    let folder =
        std::path::Path::new(&path).parent().map(std::path::Path::to_path_buf).unwrap_or_default();
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = file.file_name();
        if name.to_string_lossy().starts_with("libnvrtc-builtins.so") {
            open_library(&file.path().to_string_lossy())?;
        }
    }
    Ok(library)
}

/// Kernels loaded on a device. They stay there for the rest of the process.
pub(super) struct KernelsHandle {
    shim: &'static Shim,
    object: NonNull<c_void>,
}

// SAFETY: the object holds a device's number and functions, which any thread may launch and nobody
// changes.
unsafe impl Send for KernelsHandle {}
// SAFETY: the same.
unsafe impl Sync for KernelsHandle {}

impl KernelsHandle {
    /// Launches a kernel on the current stream. `argument` is that kernel's argument, with
    /// addresses on the device.
    pub(super) fn launch(
        &self,
        index: usize,
        [x, y, shared]: [usize; 3],
        argument: *const c_void,
    ) -> Result<(), String> {
        let small =
            |value: usize| c_uint::try_from(value).map_err(|_| format!("a grid of {x} and {y}"));
        let (x, y, shared, threads) = (small(x)?, small(y)?, small(shared)?, small(THREADS)?);
        // SAFETY: the object lives for ever; `argument` is read during the call alone, as the type
        // that the kernel of this index has in norm.cu, which kernels.rs mirrors; what its
        // addresses point to is freed in this stream's order, after the kernel ran.
        said(|text, size| unsafe {
            (self.shim.launch)(
                self.object.as_ptr(),
                index,
                x,
                y,
                threads,
                shared,
                argument,
                text,
                size,
            )
        })
    }
}

/// An anonymous file with these bytes.
#[cfg(target_os = "linux")]
fn in_memory(bytes: &[u8]) -> std::io::Result<std::fs::File> {
    use std::{io::Write as _, os::fd::FromRawFd as _};
    // SAFETY: the name is a C string; the descriptor that comes back, if one does, is nobody
    // else's.
    let mut file = unsafe {
        let descriptor = libc::memfd_create(c"darkroom-cuda".as_ptr(), libc::MFD_CLOEXEC);
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error());
        }
        std::fs::File::from_raw_fd(descriptor)
    };
    file.write_all(bytes)?;
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_bytes: &[u8]) -> std::io::Result<std::fs::File> {
    Err(std::io::ErrorKind::Unsupported.into())
}

fn number(device: usize) -> c_int {
    c_int::try_from(device).unwrap_or(c_int::MAX)
}

/// Calls a function that returns 0, or 1 with a message.
fn said(call: impl FnOnce(*mut c_char, usize) -> c_int) -> Result<(), String> {
    let mut text = [0_u8; 512];
    if call(text.as_mut_ptr().cast(), text.len()) == 0 {
        return Ok(());
    }
    let text = CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy();
    Err(text.lines().next().unwrap_or_default().to_owned())
}

pub(super) struct RecorderHandle {
    shim: &'static Shim,
    object: NonNull<c_void>,
}

// SAFETY: the object holds numbers that name a device and a stream, which any thread may use; only
// one at a time does.
unsafe impl Send for RecorderHandle {}

impl RecorderHandle {
    /// Sends this thread's operations to the recorder's stream until the guard is dropped.
    pub(super) fn enter(&self) -> Result<Side<'_>, String> {
        // SAFETY: the object lives as long as the handle.
        said(|text, size| unsafe { (self.shim.enter)(self.object.as_ptr(), text, size) })?;
        Ok(Side { recorder: self, left: false, _here: PhantomData })
    }

    /// Begins to record; between `enter` and `leave`.
    pub(super) fn begin(&self) -> Result<Open, String> {
        let mut object = ptr::null_mut();
        // SAFETY: the recorder lives as long as the handle, `object` outlives the call.
        let begun = said(|text, size| unsafe {
            (self.shim.begin)(self.object.as_ptr(), &mut object, text, size)
        });
        // A recording that did not begin is abandoned like any other.
        let open =
            NonNull::new(object).map(|object| Open { shim: self.shim, object: Some(object) });
        begun?;
        open.ok_or_else(|| "it made no recording".to_owned())
    }
}

impl Drop for RecorderHandle {
    fn drop(&mut self) {
        // SAFETY: the object was made by the shim and is not used again.
        unsafe { (self.shim.recorder_drop)(self.object.as_ptr()) }
    }
}

/// While this lives, this thread's operations go to the recorder's stream.
pub(super) struct Side<'a> {
    recorder: &'a RecorderHandle,
    left: bool,
    /// Each thread has its own current stream.
    _here: PhantomData<*const ()>,
}

impl Side<'_> {
    pub(super) fn leave(mut self) -> Result<(), String> {
        self.left = true;
        self.go()
    }

    fn go(&self) -> Result<(), String> {
        let RecorderHandle { shim, object } = self.recorder;
        // SAFETY: the recorder lives longer than this.
        said(|text, size| unsafe { (shim.leave)(object.as_ptr(), text, size) })
    }
}

impl Drop for Side<'_> {
    fn drop(&mut self) {
        if !self.left {
            // The first error is already being reported.
            let _ = self.go();
        }
    }
}

/// An unfinished recording; it is abandoned if it is dropped unfinished.
pub(super) struct Open {
    shim: &'static Shim,
    object: Option<NonNull<c_void>>,
}

impl Open {
    pub(super) fn end(mut self) -> Result<RecordingHandle, String> {
        let object = self.object.ok_or("it was ended before")?;
        // SAFETY: the object lives until it is given up or dropped by its handle.
        said(|text, size| unsafe { (self.shim.end)(object.as_ptr(), text, size) })?;
        self.object = None;
        Ok(RecordingHandle { shim: self.shim, object })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            // SAFETY: the object is not used again.
            unsafe { (self.shim.abandon)(object.as_ptr()) }
        }
    }
}

pub(super) struct RecordingHandle {
    shim: &'static Shim,
    object: NonNull<c_void>,
}

// SAFETY: as for RecorderHandle; a graph may be launched from any thread, and only one at a time
// does.
unsafe impl Send for RecordingHandle {}

impl RecordingHandle {
    pub(super) fn replay(&self) -> Result<(), String> {
        // SAFETY: the object lives as long as the handle.
        said(|text, size| unsafe { (self.shim.replay)(self.object.as_ptr(), text, size) })
    }
}

impl Drop for RecordingHandle {
    fn drop(&mut self) {
        let _alone = super::alone();
        // SAFETY: the object was made by the shim and is not used again.
        unsafe { (self.shim.recording_drop)(self.object.as_ptr()) }
    }
}
