//! The disk below a folder: how much room it has, and sizes as people write them.
//!
//! Asking may block for long on a network mount, so asynchronous code asks on a blocking thread.

use std::{fmt, io, path::Path, str::FromStr};

use darkroom_core::error::UserError;
use serde::Deserialize;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// The room of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this user can still write.
    pub free_bytes: u64,
    /// Bytes that it has in all.
    pub total_bytes: u64,
    /// Files that this user can still make.
    pub free_files: u64,
    /// Files that it can have in all; 0 where it has no such limit.
    pub total_files: u64,
}

impl Space {
    /// The room of the file system that holds a file or folder.
    ///
    /// # Errors
    /// If the path does not exist or the system does not say.
    pub fn at(path: &Path) -> io::Result<Self> {
        let system = nix::sys::statvfs::statvfs(path)?;
        let fragment = system.fragment_size();
        Ok(Self {
            free_bytes: system.blocks_available().saturating_mul(fragment),
            total_bytes: system.blocks().saturating_mul(fragment),
            free_files: system.files_available(),
            total_files: system.files(),
        })
    }
}

/// A number of bytes, as people write it: `20GiB`, `512MiB`, `1.5TiB`, or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ByteSize(pub u64);

/// A most number of bytes: a [`ByteSize`], or `none` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ByteLimit {
    /// No limit.
    None,
    /// At most this.
    Bytes(ByteSize),
}

impl FromStr for ByteSize {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        let wrong = || {
            let message = format!(
                "{text:?} is not a size; accepted: a number of bytes, or a number with KiB, MiB, GiB \
                 or TiB, like 20GiB"
            );
            UserError::invalid("size", message)
        };
        let written = text.trim();
        let digits = written.find(|at: char| !at.is_ascii_digit() && at != '.');
        let (number, unit) = written.split_at(digits.unwrap_or(written.len()));
        let unit = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => KIB,
            "m" | "mib" => MIB,
            "g" | "gib" => GIB,
            "t" | "tib" => TIB,
            _ => return Err(wrong()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(unit).map(Self).ok_or_else(wrong);
        }
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let bytes = number * unit as f64;
        if unit == 1 || bytes >= u64::MAX as f64 {
            return Err(wrong());
        }
        Ok(Self(bytes as u64))
    }
}

impl FromStr for ByteLimit {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        if text.trim().eq_ignore_ascii_case("none") {
            return Ok(Self::None);
        }
        let size = text.parse().map_err(|error: UserError| {
            UserError::invalid("size", format!("{}; or none", error.message))
        })?;
        Ok(Self::Bytes(size))
    }
}

impl TryFrom<String> for ByteSize {
    type Error = UserError;

    fn try_from(text: String) -> Result<Self, UserError> {
        text.parse()
    }
}

impl TryFrom<String> for ByteLimit {
    type Error = UserError;

    fn try_from(text: String) -> Result<Self, UserError> {
        text.parse()
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..KIB => return write!(f, "{} bytes", self.0),
            KIB..MIB => (KIB, "KiB"),
            MIB..GIB => (MIB, "MiB"),
            GIB..TIB => (GIB, "GiB"),
            _ => (TIB, "TiB"),
        };
        if self.0.is_multiple_of(unit) {
            return write!(f, "{} {name}", self.0 / unit);
        }
        // Rounded down, so that what is free is never said to be enough when it is not.
        let tenths = u128::from(self.0) * 10 / u128::from(unit);
        write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_this_disk_is_known_and_of_no_folder_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let space = Space::at(folder.path()).expect("known");
        assert!(space.free_bytes <= space.total_bytes && space.total_bytes > 0, "{space:?}");
        assert!(Space::at(&folder.path().join("absent")).is_err());
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("20GiB", 20 * GIB),
            ("20 gib", 20 * GIB),
            ("512M", 512 * MIB),
            ("1.5TiB", 3 * TIB / 2),
            ("0", 0),
            ("1048576", MIB),
            ("8KiB", 8 * KIB),
        ] {
            assert_eq!(text.parse::<ByteSize>().expect("a size"), ByteSize(bytes), "{text}");
        }
        for text in ["", "GiB", "-1", "1.5", "20GB", "20 GiB!", "99999999999TiB", "1e3", "NaN"] {
            let error = text.parse::<ByteSize>().expect_err("no size");
            assert!(error.message.contains("like 20GiB"), "{text}: {error}");
        }
    }

    #[test]
    fn a_limit_may_be_none() {
        assert_eq!("None".parse::<ByteLimit>().expect("a limit"), ByteLimit::None);
        let one = "1MiB".parse::<ByteLimit>().expect("a limit");
        assert_eq!(one, ByteLimit::Bytes(ByteSize(MIB)));
        let error = "lots".parse::<ByteLimit>().expect_err("no limit");
        assert!(error.message.ends_with("like 20GiB; or none"), "{error}");
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_and_rounded_down() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (8 * MIB, "8 MiB"),
            (GIB - 1, "1023.9 MiB"),
            (20 * GIB, "20 GiB"),
            (3 * GIB / 2, "1.5 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
