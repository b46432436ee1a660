//! Quotas as people write and read them.

use std::str::FromStr;

use darkroom_core::{error::UserError, quota::Quota, shown::shown};
use darkroom_proto::v1;

use crate::{args::QuotaArgs, failure::Result, span::span};

/// What ends a quota.
const NONE: &str = "none";

/// The quotas that flags set, and the names of those that they end.
pub(crate) fn change(args: &QuotaArgs) -> Result<(v1::Quotas, Vec<String>)> {
    let mut clear = Vec::new();
    let count = "a whole number, or none";
    let amount = "a number, or none";
    let quotas = v1::Quotas {
        images_waiting: read(
            ("max-waiting", &args.max_waiting),
            (Quota::ImagesWaiting, &mut clear),
            count,
            number,
        )?,
        images_per_day: read(
            ("images-per-day", &args.images_per_day),
            (Quota::ImagesPerDay, &mut clear),
            count,
            number,
        )?,
        device_seconds_per_day: read(
            ("device-seconds-per-day", &args.device_seconds_per_day),
            (Quota::DeviceSecondsPerDay, &mut clear),
            amount,
            finite,
        )?,
        stored_bytes: read(
            ("stored-bytes", &args.stored_bytes),
            (Quota::StoredBytes, &mut clear),
            "a size like 50GiB, 800MB or 1000000, or none",
            bytes,
        )?,
        requests_per_second: read(
            ("requests-per-second", &args.requests_per_second),
            (Quota::RequestsPerSecond, &mut clear),
            amount,
            finite,
        )?,
        burst: read(("burst", &args.burst), (Quota::Burst, &mut clear), count, number)?,
        workers: read(
            ("max-workers", &args.max_workers),
            (Quota::Workers, &mut clear),
            count,
            number,
        )?,
        weight: read(("weight", &args.weight), (Quota::Weight, &mut clear), amount, finite)?,
    };
    Ok((quotas, clear))
}

fn read<T>(
    (flag, text): (&str, &Option<String>),
    (quota, clear): (Quota, &mut Vec<String>),
    accepted: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>> {
    let Some(text) = text else { return Ok(None) };
    if text == NONE {
        clear.push(quota.name().to_owned());
        return Ok(None);
    }
    parse(text).map(Some).ok_or_else(|| {
        let message = format!("{flag} is {text:?}; accepted: {accepted}");
        UserError::invalid(flag, message)
    })
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Units of sizes; the longer names first.
const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

fn bytes(text: &str) -> Option<u64> {
    let unit = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
    let (digits, unit) = unit.unwrap_or((text, 1));
    digits.trim_end().parse::<u64>().ok()?.checked_mul(unit)
}

/// Bytes, for people: `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    let binary = UNITS[..4].iter().rev().find(|(_, unit)| bytes >= *unit);
    match binary {
        #[expect(clippy::cast_precision_loss, reason = "a rounded number")]
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// Lines about a tenant's quotas and what it uses of them; empty if it has none.
pub(crate) fn lines(quotas: &v1::Quotas, usage: &v1::QuotaUsage) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(most) = quotas.images_waiting {
        lines.push(format!("images waiting: {} of {most}", usage.images_waiting));
    }
    let ends = usage.day_ends.as_ref().map(|ends| format!(" until {ends}")).unwrap_or_default();
    if let Some(most) = quotas.images_per_day {
        lines.push(format!("images today: {} of {most}{ends}", usage.images_today));
    }
    if let Some(most) = quotas.device_seconds_per_day {
        let (used, most) = (span(usage.device_seconds_today), span(most));
        lines.push(format!("device time today: {used} of {most}{ends}"));
    }
    if let Some(most) = quotas.stored_bytes {
        lines.push(format!("stored: {} of {}", size(usage.stored_bytes), size(most)));
    }
    if let Some(rate) = quotas.requests_per_second {
        let burst = quotas.burst.map(|burst| format!(", {burst} at once")).unwrap_or_default();
        lines.push(format!("calls: {rate} a second{burst}"));
    }
    if let Some(workers) = quotas.workers {
        lines.push(format!("workers in use: at most {workers} in each stage"));
    }
    if let Some(weight) = quotas.weight {
        lines.push(format!("weight: {weight}"));
    }
    lines
}

/// The notes of an answer, as lines.
pub(crate) fn notes(notes: &[String]) -> impl Iterator<Item = String> + '_ {
    notes.iter().map(|note| format!("note: {}", shown(note)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> QuotaArgs {
        QuotaArgs {
            max_waiting: None,
            images_per_day: None,
            device_seconds_per_day: None,
            stored_bytes: None,
            requests_per_second: None,
            burst: None,
            max_workers: None,
            weight: None,
        }
    }

    #[test]
    fn flags_set_quotas_end_them_or_leave_them() {
        let args = QuotaArgs {
            max_waiting: Some("100".to_owned()),
            stored_bytes: Some("50GiB".to_owned()),
            weight: Some("0.5".to_owned()),
            burst: Some("none".to_owned()),
            ..none()
        };
        let (set, clear) = change(&args).expect("fine");
        let expected = v1::Quotas {
            images_waiting: Some(100),
            stored_bytes: Some(50 << 30),
            weight: Some(0.5),
            ..v1::Quotas::default()
        };
        assert_eq!((set, clear), (expected, vec!["burst".to_owned()]));
        for (wrong, flag) in [
            (QuotaArgs { max_waiting: Some("-1".to_owned()), ..none() }, "max-waiting"),
            (QuotaArgs { images_per_day: Some("1.5".to_owned()), ..none() }, "images-per-day"),
            (QuotaArgs { stored_bytes: Some("50 giga".to_owned()), ..none() }, "stored-bytes"),
            (QuotaArgs { weight: Some("NaN".to_owned()), ..none() }, "weight"),
            (QuotaArgs { max_workers: Some("None".to_owned()), ..none() }, "max-workers"),
        ] {
            let error = change(&wrong).expect_err(flag);
            assert_eq!(error.field.as_deref(), Some(flag));
            assert!(error.message.contains("accepted: "), "{error}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_for_people() {
        for (text, expected) in [
            ("7", Some(7)),
            ("7B", Some(7)),
            ("2KB", Some(2000)),
            ("2 KiB", Some(2048)),
            ("3MB", Some(3_000_000)),
            ("1TiB", Some(1 << 40)),
            ("", None),
            ("GiB", None),
            ("1.5GiB", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
        let shown = [0, 1023, 1024, 1_610_612_736].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 GiB"]);
    }

    #[test]
    fn a_tenant_is_told_what_it_uses_of_its_quotas_only() {
        let usage =
            v1::QuotaUsage { images_waiting: 3, stored_bytes: 2048, ..v1::QuotaUsage::default() };
        assert!(lines(&v1::Quotas::default(), &usage).is_empty());
        let quotas = v1::Quotas {
            images_waiting: Some(5),
            stored_bytes: Some(4096),
            requests_per_second: Some(20.0),
            burst: Some(40),
            ..v1::Quotas::default()
        };
        assert_eq!(
            lines(&quotas, &usage),
            [
                "images waiting: 3 of 5",
                "stored: 2.0 KiB of 4.0 KiB",
                "calls: 20 a second, 40 at once"
            ]
        );
    }
}
