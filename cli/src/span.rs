//! Time spans for people.

/// Seconds, for people: `8 s`, `3 min`, `2 h 5 min`.
pub(crate) fn span(seconds: f64) -> String {
    let whole =
        std::time::Duration::try_from_secs_f64(seconds.max(0.0)).map_or(0, |time| time.as_secs());
    match (whole / 3600, whole / 60 % 60) {
        (0, 0) => format!("{whole} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}
