//! What a farm has once: its identity, its cascades, the length of its leases.

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::{cascade::Cascade, sharing::Sharing};
use darkroom_queue::signing::FarmSecret;
use uuid::Uuid;

use super::{
    Error, Record,
    rows::{column, digest_column, number, parse, to_json},
};
use crate::store::roles::Agreed;

#[async_trait]
impl Agreed for Record {
    async fn farm_id(&self) -> Result<Uuid, Error> {
        Ok(self.farm)
    }

    async fn database_identity(&self) -> Result<String, Error> {
        Ok(sql!(sqlite: String::new(), postgres: self.identity.clone()))
    }

    async fn secret(&self) -> Result<FarmSecret, Error> {
        let fresh = FarmSecret::fresh().map_err(|error| {
            Error::Corrupt(format!("the system has no random numbers: {error}"))
        })?;
        // Of coordinators that start together one is first, and all read what it wrote.
        sqlx::query("UPDATE farm SET secret = $1 WHERE secret IS NULL")
            .bind(fresh.expose())
            .execute(self.writes())
            .await?;
        let secret: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT secret FROM farm").fetch_one(self.writes()).await?;
        secret
            .and_then(|secret| FarmSecret::from_bytes(&secret))
            .ok_or_else(|| Error::Corrupt("the farm has no secret".to_owned()))
    }

    async fn set_makes_up(&self, makes_up: bool) -> Result<bool, Error> {
        sqlx::query("UPDATE farm SET makes_up = $1 WHERE makes_up IS NULL")
            .bind(makes_up)
            .execute(self.writes())
            .await?;
        let said: Option<bool> =
            sqlx::query_scalar("SELECT makes_up FROM farm").fetch_one(self.writes()).await?;
        Ok(said.unwrap_or(makes_up))
    }

    async fn register_cascade(&self, cascade: &Cascade) -> Result<(), Error> {
        sqlx::query(sql!(
            sqlite:
                "INSERT INTO cascades (digest, name, encoder, cascade, registered_ms)
                 VALUES ($1, $2, $3, $4, CAST(unixepoch('subsec') * 1000 AS INTEGER))
                 ON CONFLICT (digest) DO NOTHING",
            postgres:
                "INSERT INTO cascades (digest, name, encoder, cascade) VALUES ($1, $2, $3, $4::jsonb)
                 ON CONFLICT (digest) DO NOTHING",
        ))
        .bind(digest_column(cascade.digest()))
        .bind(&cascade.spec.name)
        .bind(digest_column(cascade.encoder_digest()))
        .bind(to_json(cascade)?)
        .execute(self.writes())
        .await?;
        Ok(())
    }

    async fn lease(&self) -> Result<Option<Duration>, Error> {
        let lease: Option<i64> =
            sqlx::query_scalar("SELECT lease_ms FROM farm").fetch_one(self.reads()).await?;
        lease.map(|lease| Ok(Duration::from_millis(number(lease)?))).transpose()
    }

    async fn set_lease(&self, from: Option<Duration>, to: Duration) -> Result<Duration, Error> {
        let milliseconds = |lease: Duration| column(lease.as_millis());
        sqlx::query(sql!(
            sqlite: "UPDATE farm SET lease_ms = $2 WHERE lease_ms IS $1",
            postgres:
                "UPDATE farm SET lease_ms = $2
                 WHERE one AND lease_ms IS NOT DISTINCT FROM $1
                   AND ($1::bigint IS NULL OR NOT EXISTS (SELECT FROM leadership WHERE until > clock_timestamp()))",
        ))
        .bind(from.map(milliseconds))
        .bind(milliseconds(to))
        .execute(self.writes())
        .await?;
        self.lease().await?.ok_or_else(|| Error::Corrupt("the farm has no lease".to_owned()))
    }

    async fn sharing(&self) -> Result<Option<Sharing>, Error> {
        let sharing: Option<String> =
            sqlx::query_scalar("SELECT sharing FROM farm").fetch_one(self.reads()).await?;
        sharing.as_deref().map(parse).transpose()
    }

    async fn set_sharing(&self, sharing: Sharing) -> Result<bool, Error> {
        let set = sqlx::query("UPDATE farm SET sharing = $1 WHERE sharing IS DISTINCT FROM $1")
            .bind(sharing.name())
            .execute(self.writes())
            .await?;
        Ok(set.rows_affected() == 1)
    }

    async fn sharing_of_new(&self, tenant: &str) -> Result<Sharing, Error> {
        // The farm's comes first: a tenant with a setting of its own is one of the farm's tenants
        // too.
        let of_farm = farm_sharing(self, tenant).await?;
        let own: Option<Option<String>> =
            sqlx::query_scalar("SELECT sharing FROM tenants WHERE name = $1")
                .bind(tenant)
                .fetch_optional(self.reads())
                .await?;
        own.flatten().as_deref().map_or(Ok(of_farm), parse)
    }

    async fn token_secret(&self, fresh: [u8; 32]) -> Result<[u8; 32], Error> {
        sqlx::query("UPDATE farm SET token_secret = $1 WHERE token_secret IS NULL")
            .bind(fresh.to_vec())
            .execute(self.writes())
            .await?;
        let secret: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT token_secret FROM farm").fetch_one(self.reads()).await?;
        let secret = secret.and_then(|secret| secret.try_into().ok());
        secret.ok_or_else(|| Error::Corrupt("the farm's token secret is not 32 bytes".to_owned()))
    }
}

/// How the farm decides for a new job of this tenant.
async fn farm_sharing(store: &Record, tenant: &str) -> Result<Sharing, Error> {
    let known: (Option<String>, Option<String>) =
        sqlx::query_as("SELECT sharing, lone_tenant FROM farm").fetch_one(store.reads()).await?;
    match known {
        (Some(decided), _) => return parse(&decided),
        (None, Some(lone)) if lone == tenant => return Ok(Sharing::Shared),
        (None, _) => {}
    }
    // Of two tenants at once, the one whose update comes second seals the farm: each update
    // sees the row that the one before has left.
    sqlx::query(
        "UPDATE farm SET lone_tenant = coalesce(lone_tenant, $1),
                         sharing = CASE WHEN lone_tenant <> $1 THEN 'sealed' END
         WHERE sharing IS NULL",
    )
    .bind(tenant)
    .execute(store.writes())
    .await?;
    Ok(store.sharing().await?.unwrap_or_default())
}
