//! Keys, tenants and the audit.

use std::{collections::BTreeSet, sync::Arc};

use darkroom_coordinator::store::{
    Error, Store,
    keys::{
        AuditQuery, Expiry, KeyQuery, KeyRecord, NewAudit, NewKey, Proof, Rotation, TenantChange,
        USED_STEP,
    },
};
use darkroom_core::{
    error::Code,
    key::{Key, RANDOM_BYTES},
    scope::Scope,
    sharing::Sharing,
};
use futures::future::join_all;

use super::bench::Bench;

/// A key of the suite: the same for the same number.
fn key(number: u8) -> Key {
    Key::of_random(&[number; RANDOM_BYTES])
}

fn sharing(sharing: Sharing) -> TenantChange {
    TenantChange { sharing: Some(sharing), ..TenantChange::default() }
}

fn new(key: &Key, tenant: Option<&str>, scopes: &[Scope]) -> NewKey {
    NewKey {
        id: key.id().clone(),
        proof: Proof::Secret(key.hash()),
        tenant: tenant.map(str::to_owned),
        scopes: scopes.iter().copied().collect(),
        label: "a \"key\"".to_owned(),
        expiry: Expiry::Never,
    }
}

fn is_of(record: &KeyRecord, key: &Key) -> bool {
    matches!(&record.proof, Proof::Secret(hash) if hash.is_of(key))
}

async fn found(store: &Arc<dyn Store>, key: &Key) -> KeyRecord {
    store.find_key(key.id()).await.expect("asks").expect("there").key
}

fn all() -> KeyQuery {
    KeyQuery { ended: true, limit: 100, ..KeyQuery::default() }
}

async fn listed(bench: &Bench, query: &KeyQuery) -> Vec<String> {
    let keys = bench.other.list_keys(query).await.expect("lists");
    keys.into_iter().map(|key| key.id.to_string()).collect()
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_key_is_found_by_its_id_with_what_it_allows(bench: &Bench) {
    let (one, two, other) = (key(1), key(2), key(3));
    let scopes = [Scope::Submit, Scope::Read];
    let added = bench.store.add_key(&new(&one, Some("studio"), &scopes)).await.expect("adds");
    bench.store.add_key(&new(&two, None, &[Scope::Operate, Scope::Admin])).await.expect("adds");
    assert_eq!((added.used_ms, added.expires_ms, added.revoked_ms), (None, None, None));
    let now = bench.other.find_key(one.id()).await.expect("asks").expect("there");
    let found = now.key;
    assert!(is_of(&found, &one) && !is_of(&found, &two));
    assert_eq!(found.tenant.as_deref(), Some("studio"));
    assert_eq!(found.scopes, BTreeSet::from(scopes));
    assert_eq!((found.label.as_str(), found.created_ms), ("a \"key\"", added.created_ms));
    assert!((0..60_000).contains(&(now.now_ms - found.created_ms)), "the record's own clock");
    assert!(bench.store.find_key(other.id()).await.expect("asks").is_none());
    // The same id a second time is refused, whatever its secret.
    let again = NewKey { proof: Proof::Secret(two.hash()), ..new(&one, None, &[]) };
    assert!(bench.store.add_key(&again).await.expect_err("taken").is_about_the_data());
    let tenants = bench.other.list_tenants("", 10).await.expect("lists");
    let names: Vec<_> = tenants.into_iter().map(|tenant| tenant.name).collect();
    assert_eq!(names, ["studio"], "a key's tenant is added with it");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_key_that_ends_in_the_past_is_refused(bench: &Bench) {
    let now = bench.store.clock_ms().await.expect("asks");
    for expiry in [Expiry::At(now - 1), Expiry::After(0)] {
        let late = NewKey { expiry, ..new(&key(1), Some("late"), &[Scope::Read]) };
        let Err(Error::Refused(refused)) = bench.store.add_key(&late).await else {
            panic!("{expiry:?} is accepted")
        };
        assert_eq!(refused.code, Code::InvalidArgument, "{refused}");
    }
    assert!(bench.other.find_key(key(1).id()).await.expect("asks").is_none());
    assert_eq!(bench.other.list_tenants("", 10).await.expect("lists"), [], "nor its tenant");
    let timely = NewKey { expiry: Expiry::After(90_000), ..new(&key(1), None, &[Scope::Admin]) };
    let timely = bench.store.add_key(&timely).await.expect("adds");
    assert_eq!(timely.expires_ms, Some(timely.created_ms + 90_000));
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn keys_are_listed_oldest_first_in_pages_and_without_ended_ones(bench: &Bench) {
    for number in 1..=4 {
        let tenant = if number == 2 { "other" } else { "studio" };
        let new = new(&key(number), Some(tenant), &[Scope::Read]);
        bench.store.add_key(&new).await.expect("adds");
    }
    let ids: Vec<_> = (1..=4).map(|number| key(number).id().to_string()).collect();
    assert_eq!(listed(bench, &all()).await, ids);
    bench.store.revoke_key(key(1).id()).await.expect("revokes");
    assert_eq!(listed(bench, &all()).await, ids, "with those that have ended");
    let live = KeyQuery { ended: false, ..all() };
    assert_eq!(listed(bench, &live).await, ids[1..]);
    let of_tenant = KeyQuery { tenant: Some("studio".to_owned()), limit: 1, ..live };
    assert_eq!(listed(bench, &of_tenant).await, ids[2..3]);
    let after = found(&bench.store, &key(3)).await.seq;
    assert_eq!(listed(bench, &KeyQuery { after, ..of_tenant }).await, ids[3..]);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_revoked_key_stays_revoked_since_then(bench: &Bench) {
    bench.store.add_key(&new(&key(1), None, &[Scope::Admin])).await.expect("adds");
    assert!(bench.other.has_admin_key().await.expect("asks"));
    let (revoked, changed) = bench.store.revoke_key(key(1).id()).await.expect("revokes");
    let revoked = revoked.revoked_ms;
    assert!(revoked.is_some() && changed);
    assert!(!bench.other.has_admin_key().await.expect("asks"));
    let (again, changed) = bench.other.revoke_key(key(1).id()).await.expect("revokes");
    assert_eq!((again.revoked_ms, changed), (revoked, false));
    assert_eq!(found(&bench.other, &key(1)).await.revoked_ms, revoked);
    let unknown = bench.store.revoke_key(key(2).id()).await;
    assert!(matches!(unknown, Err(Error::NotFound(_))), "{unknown:?}");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_rotated_key_works_beside_the_new_one_for_a_time(bench: &Bench) {
    let first = NewKey {
        expiry: Expiry::After(1_000_000),
        ..new(&key(1), Some("studio"), &[Scope::Submit])
    };
    let first = bench.store.add_key(&first).await.expect("adds");
    let rotation = |number: u8, keep_ms| Rotation {
        id: key(number).id().clone(),
        secret: key(number).hash(),
        keep_ms,
        expiry: None,
    };
    let (second, old) =
        bench.store.rotate_key(key(1).id(), &rotation(2, 60_000)).await.expect("rotates");
    assert!(is_of(&second, &key(2)) && is_of(&old, &key(1)));
    assert_eq!((&second.tenant, &second.scopes), (&first.tenant, &first.scopes));
    assert_eq!(second.label, first.label);
    assert_eq!(second.expires_ms, Some(second.created_ms + 1_000_000), "as long as the first");
    let end = old.expires_ms.expect("an end");
    assert!((60_000..120_000).contains(&(end - first.created_ms)), "{old:?}");
    // A later end does not prolong its life.
    let (_, old) =
        bench.other.rotate_key(key(1).id(), &rotation(3, 900_000)).await.expect("rotates");
    assert_eq!(old.expires_ms, Some(end));
    bench.store.revoke_key(key(1).id()).await.expect("revokes");
    let Err(Error::Refused(refused)) = bench.other.rotate_key(key(1).id(), &rotation(4, 1)).await
    else {
        panic!("a revoked key is rotated")
    };
    assert_eq!(refused.code, Code::FailedPrecondition, "{refused}");
    assert!(bench.store.find_key(key(4).id()).await.expect("asks").is_none());
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn the_use_of_a_key_is_recorded_once_a_minute(bench: &Bench) {
    bench.store.add_key(&new(&key(1), None, &[Scope::Admin])).await.expect("adds");
    assert!(bench.store.note_key_used(key(1).id()).await.expect("notes"));
    let used = found(&bench.other, &key(1)).await.used_ms.expect("used");
    for store in [&bench.store, &bench.other] {
        assert!(!store.note_key_used(key(1).id()).await.expect("asks"), "within {USED_STEP:?}");
    }
    assert_eq!(found(&bench.store, &key(1)).await.used_ms, Some(used));
    assert!(!bench.store.note_key_used(key(2).id()).await.expect("asks"), "no such key");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_certificate_stands_for_one_live_key(bench: &Bench) {
    let of = |number: u8, subject: &str| NewKey {
        proof: Proof::Certificate(subject.to_owned()),
        ..new(&key(number), None, &[Scope::Member])
    };
    bench.store.add_key(&of(1, "CN=worker-1")).await.expect("adds");
    bench.store.add_key(&of(2, "CN=worker-2")).await.expect("adds");
    let id = async |subject: &str| {
        let found = bench.other.find_certificate(subject).await.expect("asks");
        found.map(|found| found.key.id.to_string())
    };
    assert_eq!(id("CN=worker-1").await, Some(key(1).id().to_string()));
    assert_eq!(id("CN=worker").await, None);
    let Err(Error::Refused(refused)) = bench.other.add_key(&of(3, "CN=worker-1")).await else {
        panic!("a certificate stands for two keys")
    };
    assert_eq!(refused.code, Code::AlreadyExists, "{refused}");
    let rotation =
        Rotation { id: key(4).id().clone(), secret: key(4).hash(), keep_ms: 1, expiry: None };
    let rotated = bench.store.rotate_key(key(1).id(), &rotation).await;
    assert!(matches!(rotated, Err(Error::Refused(_))), "{rotated:?}");
    bench.store.revoke_key(key(1).id()).await.expect("revokes");
    assert_eq!(id("CN=worker-1").await, None);
    bench.store.add_key(&of(3, "CN=worker-1")).await.expect("adds");
    assert_eq!(id("CN=worker-1").await, Some(key(3).id().to_string()));
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn of_first_keys_that_are_added_at_once_one_is_the_first(bench: &Bench) {
    let first = |number: u8| new(&key(number), None, &[Scope::Admin, Scope::Operate]);
    bench.store.add_key(&new(&key(99), None, &[Scope::Operate])).await.expect("adds");
    let stores = [&bench.store, &bench.other];
    let added = join_all((1..=16_u8).map(|number| {
        let store = stores[usize::from(number) % 2];
        let first = first(number);
        async move { store.add_first_key(&first).await.expect("adds or finds") }
    }));
    let added: Vec<_> = added.await.into_iter().flatten().collect();
    assert_eq!(added.len(), 1, "{added:?}");
    assert_eq!(listed(bench, &all()).await.len(), 2);
    // When no key is left that can make keys, another one may be the first.
    bench.store.revoke_key(&added[0].id).await.expect("revokes");
    assert!(bench.other.add_first_key(&first(17)).await.expect("adds").is_some());
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_tenant_keeps_its_setting_until_it_is_changed(bench: &Bench) {
    let set =
        async |change: TenantChange| bench.other.set_tenant("studio", &change).await.expect("sets");
    let (added, changed) = set(TenantChange::default()).await;
    assert!(changed, "it is new");
    assert_eq!((added.name.as_str(), added.sharing), ("studio", None));
    let (sealed, changed) = set(sharing(Sharing::Sealed)).await;
    assert!(changed);
    let of_new = async |tenant| bench.store.sharing_of_new(tenant).await.expect("asks");
    assert_eq!(of_new("studio").await, Sharing::Sealed, "its own setting");
    assert_eq!(of_new("other").await, Sharing::Sealed, "the farm has a second tenant");
    assert_eq!((sealed.created_ms, sealed.sharing), (added.created_ms, Some(Sharing::Sealed)));
    for same in [TenantChange::default(), sharing(Sharing::Sealed)] {
        assert_eq!(set(same).await, (sealed.clone(), false));
    }
    let (shared, changed) = set(sharing(Sharing::Shared)).await;
    assert!(changed);
    assert_eq!((of_new("studio").await, of_new("other").await), (Sharing::Shared, Sharing::Sealed));
    assert_eq!(bench.other.tenant("studio").await.expect("there"), shared);
    bench.store.set_tenant("Other", &TenantChange::default()).await.expect("adds");
    bench.store.set_tenant("z", &TenantChange::default()).await.expect("adds");
    let names = async |after: &str, limit: u32| {
        let tenants = bench.other.list_tenants(after, limit).await.expect("lists");
        tenants.into_iter().map(|tenant| tenant.name).collect::<Vec<_>>()
    };
    assert_eq!(names("", 2).await, ["Other", "studio"]);
    assert_eq!(names("studio", 2).await, ["z"]);
    let absent = bench.store.tenant("nobody").await;
    assert!(matches!(absent, Err(Error::NotFound(_))), "{absent:?}");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn the_audit_is_listed_newest_first_and_by_tenant_key_and_time(bench: &Bench) {
    let note = |key: Option<&str>, tenant: Option<&str>, target: &str| NewAudit {
        key: key.map(str::to_owned),
        tenant: tenant.map(str::to_owned),
        action: "job.cancel",
        target: target.to_owned(),
        peer: "192.0.2.7".parse().ok(),
    };
    let notes = [
        note(Some("k1"), Some("studio"), "one"),
        note(None, None, "two"),
        note(Some("k2"), Some("studio"), "three"),
    ];
    for note in &notes {
        bench.store.add_audit(note).await.expect("adds");
    }
    let all = AuditQuery { tenant: None, key: None, since_ms: 0, before: i64::MAX, limit: 10 };
    let rows = bench.other.list_audit(&all).await.expect("lists");
    let targets = |rows: &[darkroom_coordinator::store::keys::AuditRecord]| {
        rows.iter().map(|row| row.target.clone()).collect::<Vec<_>>()
    };
    assert_eq!(targets(&rows), ["three", "two", "one"]);
    assert_eq!((rows[0].key.as_deref(), rows[0].tenant.as_deref()), (Some("k2"), Some("studio")));
    assert_eq!((rows[1].key.as_deref(), rows[1].tenant.as_deref()), (None, None));
    assert_eq!(
        (rows[0].action.as_str(), rows[0].peer.as_deref()),
        ("job.cancel", Some("192.0.2.7"))
    );
    let asked =
        async |query: AuditQuery| targets(&bench.other.list_audit(&query).await.expect("lists"));
    let of = |text: &str| Some(text.to_owned());
    assert_eq!(asked(AuditQuery { tenant: of("studio"), ..all.clone() }).await, ["three", "one"]);
    assert_eq!(asked(AuditQuery { key: of("k1"), ..all.clone() }).await, ["one"]);
    assert_eq!(asked(AuditQuery { before: rows[1].id, ..all.clone() }).await, ["one"]);
    assert_eq!(asked(AuditQuery { limit: 1, ..all.clone() }).await, ["three"]);
    let later = rows[0].at_ms + 1;
    assert_eq!(asked(AuditQuery { since_ms: later, ..all }).await, Vec::<String>::new());
}
