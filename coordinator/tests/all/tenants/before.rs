//! Records from before tenants were kept apart.

use std::path::Path;

use darkroom_coordinator::store::{
    Store,
    postgres::{Options, PostgresStore},
    sqlite::SqliteStore,
};
use darkroom_core::{digest::Digest, sharing::Sharing};
use darkroom_test_servers::postgres::Postgres;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection, migrate::Migrator};

/// Whose SQL it is.
#[derive(Clone, Copy)]
enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// The digest of a name.
    fn digest(self, name: &str) -> String {
        let digest = Digest::of(name.as_bytes());
        self.either(&format!("'{digest}'"), &format!("decode('{digest}', 'hex')"))
    }

    fn either(self, sqlite: &str, postgres: &str) -> String {
        let text = match self {
            Self::Sqlite => sqlite,
            Self::Postgres => postgres,
        };
        text.to_owned()
    }
}

/// Rows of an old record: a picture that the first tenant has started from, in its canonical form;
/// a mask of the second one, stored as it came; and one that nobody's prompt names.
fn rows(of: Dialect, tenants: [&str; 2]) -> String {
    let no = of.either("0", "FALSE");
    let mut rows = format!(
        "INSERT INTO cascades (digest, name, encoder, cascade{registered})
         VALUES ({cascade}, 'tiny', {cascade}, '{{}}'{now});
         INSERT INTO inputs (sha256, size, width, height, is_mask, canonical, canonical_size{stored})
         VALUES ({sent}, 9, 4, 4, {no}, {upright}, 7{now}), ({upright}, 7, 4, 4, {no}, {upright}, 7{now}),
                ({mask}, 5, 4, 4, {no}, NULL, NULL{now}), ({unused}, 3, 4, 4, {no}, NULL, NULL{now});",
        cascade = of.digest("cascade"),
        sent = of.digest("sent"),
        upright = of.digest("upright"),
        mask = of.digest("mask"),
        unused = of.digest("unused"),
        registered = of.either(", registered_ms", ""),
        stored = of.either(", stored_ms", ""),
        now = of.either(", 0", ""),
    );
    let named = [("image", "upright"), ("mask", "mask")];
    for ((at, tenant), (kind, name)) in (1..).zip(tenants).zip(named) {
        let sha256 = Digest::of(name.as_bytes());
        let text = format!(
            "INSERT INTO embeddings (id, digest, encoder, prepared) VALUES ({at}, 'text {at}', 'e', 'words');"
        );
        rows += &format!(
            "INSERT INTO jobs (id, tenant, content, name, priority, state, cascade, encoder, settings, requested, seed{times})
             VALUES ('0190a000-0000-7000-8000-00000000000{at}', '{tenant}', {content}, '', 0, 'done', {cascade}, {cascade},
                     '{{}}', '{{}}', 7{now});
             {text}
             INSERT INTO prompts (job, position, text, negative, first_index, images, first_seed, text_embedding,
                                  extras{encoded})
             VALUES ({at}, 0, 'words', '', 0, 1, 7, {at},
                     '{{\"{kind}\":{{\"key\":\"inputs/x.png\",\"sha256\":\"{sha256}\",\"size\":7}}}}'{zero});",
            cascade = of.digest("cascade"),
            content = of.digest("content"),
            times = of.either(", created_ms, touched_ms", ""),
            now = of.either(", 0, 0", ""),
            text = of.either(&text, ""),
            encoded = of.either(", encoded", ""),
            zero = of.either(", 0", ""),
        );
    }
    rows
}

/// The names of the pictures that a tenant may start from.
async fn known(store: &dyn Store, tenant: &str) -> Vec<&'static str> {
    let names = ["sent", "upright", "mask", "unused"];
    let digests = names.map(|name| Digest::of(name.as_bytes()));
    let found = store.inputs(Some(tenant), &digests).await.expect("asks");
    let is_found = |digest| found.iter().any(|input| input.sha256 == digest);
    names.into_iter().zip(digests).filter(|(_, digest)| is_found(*digest)).map(|(n, _)| n).collect()
}

async fn assert_shared_out(store: &dyn Store) {
    assert_eq!(known(store, "one").await, ["sent", "upright"], "by both hashes");
    assert_eq!(known(store, "two").await, ["mask"]);
    assert_eq!(known(store, "default").await, ["sent", "upright", "mask", "unused"]);
    assert_eq!(known(store, "three").await, [""; 0]);
    assert_eq!(
        store.sharing().await.expect("asks"),
        Some(Sharing::Sealed),
        "there are two tenants"
    );
}

async fn sqlite(tenants: [&str; 2]) -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = crate::support::database(folder.path());
    let url = format!("sqlite://{}?mode=rwc", path.to_str().expect("UTF-8"));
    let mut old = SqliteConnection::connect(&url).await.expect("opens");
    let migrations = Migrator::new(Path::new("../migrations/sqlite")).await.expect("the folder");
    migrations.run_to(15, &mut old).await.expect("migrates");
    let farm = "INSERT INTO farm (one, id, created_ms)
                VALUES (1, '0190a000-0000-4000-8000-000000000001', 0);";
    let rows = farm.to_owned() + &rows(Dialect::Sqlite, tenants);
    sqlx::raw_sql(AssertSqlSafe(rows)).execute(&mut old).await.expect("rows");
    old.close().await.expect("closes");
    let store = SqliteStore::open(&path).await.expect("migrates the rest");
    (folder, store)
}

#[tokio::test]
async fn old_uploads_are_the_tenants_that_use_them_and_the_default_ones_on_sqlite() {
    let (_folder, store) = sqlite(["one", "two"]).await;
    assert_shared_out(&store).await;
}

#[tokio::test]
async fn a_record_with_one_tenant_stays_shared_with_it_alone() {
    let (_folder, store) = sqlite(["one", "one"]).await;
    let store: &dyn Store = &store;
    assert_eq!(store.sharing().await.expect("asks"), None);
    assert_eq!(store.sharing_of_new("one").await.expect("asks"), Sharing::Shared);
    assert_eq!(store.sharing_of_new("two").await.expect("asks"), Sharing::Sealed);
}

#[tokio::test]
async fn old_uploads_are_the_tenants_that_use_them_and_the_default_ones_on_postgres() {
    let server = Postgres::shared();
    let url = server.create_database();
    let mut old = PgConnection::connect(&url).await.expect("connects");
    let migrations = Migrator::new(Path::new("../migrations/postgres")).await.expect("the folder");
    migrations.run_to(22, &mut old).await.expect("migrates");
    let farm = "INSERT INTO farm (id) VALUES ('0190a000-0000-4000-8000-000000000001');";
    let rows = farm.to_owned() + &rows(Dialect::Postgres, ["one", "two"]);
    sqlx::raw_sql(AssertSqlSafe(rows)).execute(&mut old).await.expect("rows");
    old.close().await.expect("closes");
    let store = PostgresStore::connect(&url, Options::default()).await.expect("migrates the rest");
    assert_shared_out(&store).await;
}
