//! The failing parts of the coordinator, with their latest errors. A failure is logged when it
//! begins and when it ends.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{error::Error, store};

/// The parts that fail now, by name.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<BTreeMap<String, Trouble>>);

/// The latest error of a failing part.
#[derive(Debug)]
struct Trouble {
    said: String,
    /// Whether the record fails or cannot be reached.
    store: bool,
}

impl Trouble {
    fn of(error: &Error) -> Self {
        let store = matches!(error, Error::Store(error) if error.retryable());
        // A store's general message has the cause as its source.
        let said = match std::error::Error::source(error) {
            Some(cause) if matches!(error, Error::Store(_)) => format!("{error}: {cause}"),
            _ => error.to_string(),
        };
        Self { said, store }
    }
}

impl Troubles {
    /// Records that a part failed. Logs the first failure, but not its repetitions.
    pub(crate) fn begin(&self, part: &str, error: &Error) {
        if let Error::Store(store::Error::NotLeading(term)) = error {
            tracing::info!(part, term, "another coordinator leads now");
            return;
        }
        if self.failing().insert(part.to_owned(), Trouble::of(error)).is_none() {
            tracing::error!(
                part,
                error = error as &dyn std::error::Error,
                "coordinator part failed; it keeps trying"
            );
        }
    }

    /// Records that a part works (again).
    pub(crate) fn end(&self, part: &str) {
        if self.failing().remove(part).is_some() {
            tracing::info!(part, "coordinator part works again");
        }
    }

    /// The latest error of the first failing part, without the `harmless` ones.
    pub(crate) fn first(&self, harmless: &str) -> Option<String> {
        let failing = self.failing();
        let mut serious = failing.iter().filter(|(part, _)| *part != harmless);
        serious.next().map(|(part, trouble)| format!("{part}: {}", trouble.said))
    }

    /// The latest error of every failing part.
    pub(crate) fn all(&self) -> Vec<String> {
        self.failing().iter().map(|(part, trouble)| format!("{part}: {}", trouble.said)).collect()
    }

    /// Whether a part fails because the record cannot be reached.
    pub(crate) fn of_store(&self) -> bool {
        self.failing().values().any(|trouble| trouble.store)
    }

    fn failing(&self) -> MutexGuard<'_, BTreeMap<String, Trouble>> {
        // A panic under the lock leaves no partial change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_in_trouble_until_it_works_and_lost_leadership_is_no_trouble() {
        let troubles = Troubles::default();
        troubles.begin("reap", &store::Error::NotLeading(3).into());
        assert_eq!(troubles.first("listen"), None);
        troubles.begin("listen", &Error::other("nobody answers"));
        assert_eq!(troubles.first("listen"), None, "a harmless part");
        troubles.begin("sweep", &store::Error::Full.into());
        assert_eq!(
            troubles.first("listen").as_deref(),
            Some(&*format!("sweep: {}", store::Error::Full))
        );
        assert!(troubles.of_store());
        assert_eq!(troubles.all().len(), 2);
        troubles.end("sweep");
        assert_eq!(troubles.first(""), Some("listen: nobody answers".to_owned()));
        assert!(!troubles.of_store());
    }
}
