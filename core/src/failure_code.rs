//! Why a task failed, in one word that stays the same: images are counted, filtered and retried by
//! it.

use crate::open_name::open_names;

open_names! {
    /// Why a task failed.
    FailureCode {
        /// Values that are not finite.
        NonFinite = "non_finite",
        /// The device's memory is too small, even for the task alone.
        OutOfMemory = "out_of_memory",
        /// Our code panicked.
        Panic = "panic",
        /// libtorch returned an error.
        Torch = "torch",
        /// A bug of ours that was noticed.
        Internal = "internal",
        /// The output could not be written as a file.
        Encoding = "encoding",
        /// The worker got a task of another kind.
        WrongTask = "wrong_task",
        /// What a user sent is gone; only they can send it again.
        InputLost = "input_lost",
        /// An input cannot be used.
        InvalidInput = "invalid_input",
        /// Storage could not be used.
        Storage = "storage",
        /// The worker died while it held the task.
        WorkerDied = "worker_died",
        /// The worker's host died with several workers, so that it does not count.
        HostDied = "host_died",
        /// The worker was interrupted, where that counts.
        Interrupted = "interrupted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_what_records_and_scripts_have() {
        let names: Vec<_> = FailureCode::KNOWN.iter().map(FailureCode::name).collect();
        let kept = [
            "non_finite",
            "out_of_memory",
            "panic",
            "torch",
            "internal",
            "encoding",
            "wrong_task",
            "input_lost",
            "invalid_input",
            "storage",
            "worker_died",
            "host_died",
            "interrupted",
        ];
        assert_eq!(names, kept);
        for code in FailureCode::KNOWN {
            assert_eq!(FailureCode::from(code.name()), *code);
        }
        let unknown = FailureCode::from("a code of tomorrow");
        assert_eq!(
            (unknown.name(), FailureCode::KNOWN.contains(&unknown)),
            ("a code of tomorrow", false)
        );
        assert_eq!(format!("{:<8}|", FailureCode::Panic), "panic   |");
    }
}
