//! Pages of a listing. The client stops if they do not end, or if one comes twice in a row.

use darkroom_core::error::UserError;

use crate::failure::{self, Result};

/// Most pages of a listing. The client asks for a thousand rows a page, and a job has at most ten
/// million images.
const MOST_PAGES: u32 = 20_000;
/// Most answers of a call that works for some seconds and tells where to go on.
const MOST_PARTS: u32 = 1_000_000;

/// Where the next page begins.
pub(crate) struct Pages {
    left: u32,
    token: String,
}

impl Default for Pages {
    fn default() -> Self {
        Self { left: MOST_PAGES, token: String::new() }
    }
}

impl Pages {
    /// Of a call that does a part of its work each time.
    pub(crate) fn of_parts() -> Self {
        Self { left: MOST_PARTS, ..Self::default() }
    }

    /// The token for the next page; `None` after the last one.
    ///
    /// # Errors
    /// The farm gives a token again, or goes on without end.
    pub(crate) fn next(&mut self, token: String) -> Result<Option<String>> {
        if token.is_empty() {
            return Ok(None);
        }
        if token == self.token {
            return Err(endless("the farm keeps sending the same page"));
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            return Err(endless("the farm sends more pages than are possible"));
        }
        self.token.clone_from(&token);
        Ok(Some(token))
    }

    /// The same for a listing that goes on at an index. The index must grow; 0 means that there is
    /// no further page.
    ///
    /// # Errors
    /// As for [`next`](Self::next).
    pub(crate) fn next_index(&mut self, before: u64, next: u64) -> Result<Option<u64>> {
        if next != 0 && next <= before {
            return Err(endless("the farm keeps sending the same page"));
        }
        let token = if next == 0 { String::new() } else { next.to_string() };
        Ok(self.next(token)?.map(|_| next))
    }
}

fn endless(message: &str) -> UserError {
    failure::unbelievable(format!("{message}; ask its operator, or name another with --farm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_end() {
        let mut pages = Pages::default();
        assert_eq!(pages.next("a".to_owned()).expect("fine").as_deref(), Some("a"));
        assert_eq!(pages.next("b".to_owned()).expect("fine").as_deref(), Some("b"));
        assert!(pages.next("b".to_owned()).is_err(), "again");
        assert_eq!(pages.next(String::new()).expect("the end"), None);

        let mut pages = Pages::default();
        let refused = (0_u64..).find_map(|number| pages.next(number.to_string()).err());
        assert!(refused.expect("refused").message.contains("more pages than are possible"));

        let mut pages = Pages::default();
        assert_eq!(pages.next_index(0, 5).expect("fine"), Some(5));
        assert!(pages.next_index(5, 5).is_err() && pages.next_index(5, 3).is_err());
        assert_eq!(pages.next_index(5, 0).expect("the end"), None);
    }
}
