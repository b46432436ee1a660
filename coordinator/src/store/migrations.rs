//! The steps that bring a record's tables up to this version, from `migrations/` at the project's
//! root.
//!
//! sqlx's macro could read the folder, but it compiles both databases' drivers a second time. So
//! each file is listed here, and a test compares the lists with the folders.

use std::{borrow::Cow, sync::LazyLock};

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

/// The names and contents of files.
macro_rules! files {
    ($folder:literal: $($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../../migrations/", $folder, "/", $name, ".sql")))),*]
    };
}

const OF_SQLITE: &[(&str, &str)] = files!("sqlite":
    "0001_farm"
    "0002_limits"
    "0003_agreed"
    "0004_inputs"
    "0005_forecasts"
    "0006_overlooked"
    "0007_labels"
    "0008_canonical_inputs"
    "0009_spared_deaths"
    "0010_job_labels"
    "0011_attempts"
    "0012_reuse"
    "0013_history"
    "0014_overrides"
    "0015_stopped"
    "0016_keys"
    "0017_secret"
    "0018_isolation"
    "0019_quotas"
    "0020_removal"
    "0021_changes_of_tenant"
    "0022_inputs"
    "0023_deletions_told"
    "0024_kinds"
    "0025_batches"
    "0026_webhooks"
    "0027_reused_texts"
);

#[cfg(feature = "cluster")]
const OF_POSTGRES: &[(&str, &str)] = files!("postgres":
    "0001_farm"
    "0002_limits"
    "0003_plans"
    "0004_agreed"
    "0005_inputs"
    "0006_forecasts"
    "0007_room"
    "0008_dispatched_for"
    "0009_overlooked"
    "0010_labels"
    "0011_canonical_inputs"
    "0012_spared_deaths"
    "0013_job_labels"
    "0014_attempts"
    "0015_reuse"
    "0016_history"
    "0017_overrides"
    "0018_image_variants"
    "0019_mix"
    "0020_image_errors"
    "0021_block_bits"
    "0022_stopped"
    "0023_keys"
    "0024_secret"
    "0025_isolation"
    "0026_quotas"
    "0027_removal"
    "0028_changes_of_tenant"
    "0029_inputs"
    "0030_deletions_told"
    "0031_kinds"
    "0032_batches"
    "0033_webhooks"
    "0034_reused_texts"
);

/// The migrations of SQLite.
pub(super) static SQLITE: LazyLock<Migrator> = LazyLock::new(|| migrator(OF_SQLITE));

/// The migrations of Postgres.
#[cfg(feature = "cluster")]
pub(super) static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| migrator(OF_POSTGRES));

fn migrator(files: &'static [(&'static str, &'static str)]) -> Migrator {
    Migrator::with_migrations(files.iter().map(|(name, sql)| migration(name, sql)).collect())
}

/// `0001_farm` is version 1, described as "farm".
fn migration(name: &'static str, sql: &'static str) -> Migration {
    let (version, description) = name.split_once('_').expect("a number, _ and a description");
    Migration::new(
        version.parse().expect("the version is a number"),
        Cow::Owned(description.replace('_', " ")),
        MigrationType::Simple,
        sql.into_sql_str(),
        false,
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Version, description and hash of each migration, from sqlx's reading of the folder and from
    /// the list here.
    async fn compare(folder: &str, listed: &Migrator) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(folder);
        let read = Migrator::new(folder).await.expect("the folder is read");
        let all = |migrator: &Migrator| -> Vec<_> {
            migrator
                .iter()
                .map(|one| (one.version, one.description.clone(), one.checksum.clone(), one.no_tx))
                .collect()
        };
        assert!(!all(&read).is_empty());
        assert_eq!(all(listed), all(&read));
    }

    #[tokio::test]
    async fn every_file_of_the_folders_is_listed() {
        compare("sqlite", &SQLITE).await;
        #[cfg(feature = "cluster")]
        compare("postgres", &POSTGRES).await;
    }
}
