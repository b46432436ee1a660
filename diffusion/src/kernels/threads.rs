//! The number of threads of an operation. libtorch is kept at one thread meanwhile.

#![expect(
    unsafe_code,
    reason = "omp_set_num_threads is looked up by name; libtorch brings the library it lies in"
)]

use std::cell::Cell;

thread_local! {
    /// The threads that this thread's operations may use while libtorch itself has one; 0
    /// otherwise.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// Threads of an operation that this thread calls.
pub(crate) fn count() -> usize {
    match COUNT.get() {
        0 => tch::get_num_threads().max(1) as usize,
        count => count,
    }
}

/// While it exists, libtorch's operations on this thread use only this thread.
///
/// OpenMP's threads spin for milliseconds after each operation, on the cores that this crate's own
/// threads need. Also, an operation on one thread has the same bits whatever the thread count.
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

/// Only for the calling thread, unlike libtorch's own setting.
fn set_openmp_threads(count: libc::c_int) {
    // SAFETY: the name is a C string; the default handle needs no closing.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"omp_set_num_threads".as_ptr()) };
    if symbol.is_null() {
        return;
    }
    // SAFETY: OpenMP defines this function of one int without a result, callable from any thread.
    let set =
        unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn(libc::c_int)>(symbol) };
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
