//! How many threads an operation has, and libtorch's kept at one meanwhile.

#![expect(
    unsafe_code,
    reason = "omp_set_num_threads is looked up by name; libtorch brings the library it lies in"
)]

use std::cell::Cell;

thread_local! {
    /// What this thread's operations may use while libtorch itself has one; 0 otherwise.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// Threads of one operation called from this thread.
pub(crate) fn count() -> usize {
    match COUNT.get() {
        0 => tch::get_num_threads().max(1) as usize,
        count => count,
    }
}

/// While it lives, libtorch's operations on this thread run on this thread alone.
///
/// Threads of OpenMP spin for milliseconds after each of its operations, on the cores that this crate's own threads
/// need. And what runs on one thread has the same bits however many there are.
pub(crate) struct OneThread {
    before: usize,
}

impl OneThread {
    pub(crate) fn enter() -> Self {
        let before = COUNT.get();
        if before == 0 {
            COUNT.set(count());
            set_openmp_threads(1);
        }
        Self { before }
    }
}

impl Drop for OneThread {
    fn drop(&mut self) {
        if self.before == 0 {
            let count = COUNT.replace(0);
            set_openmp_threads(count as libc::c_int);
        }
    }
}

/// Of the calling thread only, unlike libtorch's own setting.
fn set_openmp_threads(count: libc::c_int) {
    // SAFETY: the name is a C string; the default handle needs no closing.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"omp_set_num_threads".as_ptr()) };
    if symbol.is_null() {
        return;
    }
    // SAFETY: OpenMP defines this function of one int without a result, callable from any thread.
    let set = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn(libc::c_int)>(symbol) };
    set(count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtorch_has_one_thread_meanwhile_and_what_it_had_after() {
        let before = tch::get_num_threads();
        {
            let _outer = OneThread::enter();
            let _inner = OneThread::enter();
            assert_eq!((tch::get_num_threads(), count()), (1, before as usize));
        }
        assert_eq!((tch::get_num_threads(), count()), (before, before as usize));
    }
}
