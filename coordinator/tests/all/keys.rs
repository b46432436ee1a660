//! Keys over a real server: which call lets whom in, and for how long.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::{DEADLINE, Farm, eventually};
use darkroom_artifacts::ArtifactStore;
use darkroom_coordinator::{
    Handle, add_first_key, fresh_key, server_options,
    store::{
        Store,
        keys::{Expiry, NewKey, Proof},
        postgres::{Options, PostgresStore},
    },
};
use darkroom_core::{
    error::{Code, UserError},
    key::Key,
    scope::Scope,
};
use darkroom_farm_api::{CallerLayer, grpc};
use darkroom_proto::{
    calls::CALLS,
    status::from_status,
    v1::{self, admin_client::AdminClient, farm_client::FarmClient},
};
use darkroom_queue::memory::MemoryQueue;
use darkroom_runtime::{server, tls::Privacy};
use darkroom_test_servers::postgres::Postgres;
use http::{HeaderMap, Request, header};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    body::Body,
    service::{Interceptor, Routes, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tower::ServiceExt as _;

/// A port of a coordinator that asks for keys.
pub(crate) struct Port {
    channel: Channel,
    stop: CancellationToken,
    served: JoinHandle<Result<(), server::Error>>,
}

impl Port {
    pub(crate) async fn open(handle: &Handle, callers: CallerLayer) -> Self {
        let address = "127.0.0.1:0".parse().expect("an address");
        let listener = server::listen(&address, &Privacy::Loopback).await.expect("listens");
        let url = format!("http://{}", listener.address());
        let routes = Routes::new(grpc::service(handle.calls()))
            .add_service(grpc::admin_service(handle.admin_calls()));
        let options = server_options(&["darkroom.v1.Farm", "darkroom.v1.Admin"]);
        let stop = CancellationToken::new();
        let around = |routes| grpc::behind(callers, routes);
        let serving = server::serve_within(listener, routes, around, options, stop.clone());
        let (_, serving) = serving.await.expect("serves");
        let served = tokio::spawn(serving);
        let endpoint = Endpoint::from_shared(url).expect("a URL");
        Self { channel: endpoint.connect().await.expect("connects"), stop, served }
    }

    /// Sends an empty message with this `authorization`, and reads the headers of the answer.
    async fn headers(&self, path: &str, authorization: Option<&str>) -> HeaderMap {
        let message = http_body_util::Full::from(&[0; 5][..]);
        let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/grpc");
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Body::new(message)).expect("a request");
        let response = self.channel.clone().oneshot(request).await.expect("answered");
        response.headers().clone()
    }

    /// How an empty message is refused; `None`: it is answered.
    pub(crate) async fn refused(
        &self,
        path: &str,
        authorization: Option<&str>,
    ) -> Option<UserError> {
        let status = Status::from_header_map(&self.headers(path, authorization).await)?;
        (status.code() != tonic::Code::Ok).then(|| from_status(&status))
    }

    /// Whether the caller is let in, whatever becomes of its message.
    pub(crate) async fn lets_in(&self, path: &str, key: &Key) -> bool {
        let refused = self.refused(path, Some(&bearer(key))).await;
        let by_key = |error: UserError| {
            error.code == Code::Unauthenticated || error.code == Code::PermissionDenied
        };
        !refused.is_some_and(by_key)
    }

    fn admin(&self, key: &Key) -> AdminClient<InterceptedService<Channel, Shows>> {
        AdminClient::with_interceptor(self.channel.clone(), Shows(bearer(key)))
    }

    pub(crate) fn farm(&self, key: &Key) -> FarmClient<InterceptedService<Channel, Shows>> {
        FarmClient::with_interceptor(self.channel.clone(), Shows(bearer(key)))
    }

    pub(crate) async fn close(self) {
        self.stop.cancel();
        drop(self.channel);
        self.served.await.expect("joined").expect("ended well");
    }
}

/// Shows a key with each call.
#[derive(Clone)]
pub(crate) struct Shows(String);

impl Interceptor for Shows {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.parse().expect("ASCII"));
        Ok(request)
    }
}

pub(crate) fn bearer(key: &Key) -> String {
    format!("Bearer {}", key.expose())
}

pub(crate) async fn key(store: &dyn Store, scopes: &[Scope], expiry: Expiry) -> Key {
    let needs_tenant = scopes.contains(&Scope::Read) || scopes.contains(&Scope::Submit);
    add_key(store, needs_tenant.then_some("studio"), scopes, expiry).await
}

/// A key of a tenant, without an end.
pub(crate) async fn key_of(store: &dyn Store, tenant: &str, scopes: &[Scope]) -> Key {
    add_key(store, Some(tenant), scopes, Expiry::Never).await
}

async fn add_key(store: &dyn Store, tenant: Option<&str>, scopes: &[Scope], expiry: Expiry) -> Key {
    let key = fresh_key().expect("random");
    let new = NewKey {
        id: key.id().clone(),
        proof: Proof::Secret(key.hash()),
        tenant: tenant.map(str::to_owned),
        scopes: scopes.iter().copied().collect(),
        label: String::new(),
        expiry,
    };
    store.add_key(&new).await.expect("adds");
    key
}

/// Paths of every call, and of reflection, with the scope that each needs.
fn calls() -> Vec<(String, Scope)> {
    let reflection = ["v1", "v1alpha"].map(|version| {
        (
            format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"),
            Scope::Operate,
        )
    });
    let described = CALLS.iter().map(|call| (call.path.to_owned(), call.scope));
    described.chain(reflection).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_lets_in_a_caller_without_a_key_that_lives() {
    let farm = Farm::start().await;
    let port = Port::open(&farm.handle, farm.handle.kept_door()).await;
    let all = [Scope::Submit, Scope::Operate, Scope::Admin, Scope::Member];
    let good = key(farm.store.as_ref(), &all, Expiry::Never).await;
    let revoked = key(farm.store.as_ref(), &all, Expiry::Never).await;
    farm.store.revoke_key(revoked.id()).await.expect("revokes");
    let expired = key(farm.store.as_ref(), &all, Expiry::After(1)).await;
    let strange = fresh_key().expect("random");
    let (good_text, strange_text) = (good.expose(), strange.expose());
    let secret = strange_text.rsplit('_').next().expect("a secret");
    let wrong = format!("dk_{}_{secret}", good.id());
    tokio::time::sleep(Duration::from_millis(5)).await;
    let cases = [
        (None, "NO_KEY"),
        (Some(String::new()), "MALFORMED_KEY"),
        (Some(good_text.clone()), "MALFORMED_KEY"),
        (Some(format!("Bearer {}", &good_text[..58])), "MALFORMED_KEY"),
        (Some(format!("Basic {good_text}")), "MALFORMED_KEY"),
        (Some(bearer(&strange)), "UNKNOWN_KEY"),
        (Some(format!("Bearer {wrong}")), "UNKNOWN_KEY"),
        (Some(bearer(&revoked)), "UNKNOWN_KEY"),
        (Some(bearer(&expired)), "EXPIRED_KEY"),
    ];
    for (path, _) in calls() {
        for (shown, reason) in &cases {
            let refused = port.refused(&path, shown.as_deref()).await;
            let refused = refused.unwrap_or_else(|| panic!("{path} lets {reason} in"));
            assert_eq!(
                (refused.code, refused.reason.as_str()),
                (Code::Unauthenticated, *reason),
                "{path}"
            );
            assert!(!refused.message.contains(secret), "{refused}");
        }
        assert!(port.lets_in(&path, &good).await, "{path}");
    }
    port.close().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_lets_in_only_the_scopes_that_include_its_own() {
    let farm = Farm::start().await;
    let port = Port::open(&farm.handle, farm.handle.kept_door()).await;
    let mut refusals = 0;
    for scope in Scope::ALL {
        let key = key(farm.store.as_ref(), &[scope], Expiry::Never).await;
        for (path, needed) in calls() {
            if scope.includes(needed) {
                assert!(port.lets_in(&path, &key).await, "{path} with {scope}");
                continue;
            }
            let refused = port.refused(&path, Some(&bearer(&key))).await;
            let refused = refused.unwrap_or_else(|| panic!("{path} lets {scope} in"));
            assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "SCOPE"));
            let says = format!("this call needs scope {needed}; key {} has {scope}", key.id());
            assert_eq!(refused.message, says, "{path}");
            refusals += 1;
        }
    }
    assert!(refusals > 3 * CALLS.len(), "{refusals}");
    port.close().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_open_and_what_has_no_rule_is_refused() {
    let farm = Farm::start().await;
    let port = Port::open(&farm.handle, farm.handle.kept_door()).await;
    for method in ["Check", "Watch"] {
        let path = format!("/grpc.health.v1.Health/{method}");
        assert_eq!(port.refused(&path, None).await, None, "{method}");
        assert_eq!(port.refused(&path, Some("Bearer x")).await, None, "{method}");
    }
    let good = key(farm.store.as_ref(), &[Scope::Operate, Scope::Admin], Expiry::Never).await;
    for path in ["/", "/darkroom.v1.Farm/Secret", "/darkroom.v1.Farm/GetJob/", "/x.Y/Z"] {
        let refused = port.refused(path, None).await.expect(path);
        assert_eq!(refused.code, Code::Unauthenticated, "{path}");
        let headers = port.headers(path, Some(&bearer(&good))).await;
        let status = Status::from_header_map(&headers).expect(path);
        assert_eq!(status.code(), tonic::Code::Unimplemented, "{path}");
    }
    port.close().await;
    farm.shutdown().await;
}

const GET_FARM: &str = "/darkroom.v1.Farm/GetFarm";

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_stops_working_within_seconds_on_another_coordinator() {
    let server = Postgres::shared();
    let url = server.create_database();
    let store = async || {
        let store = PostgresStore::connect(&url, Options::default()).await.expect("opens");
        Arc::new(store) as Arc<dyn Store>
    };
    let (queue, artifacts) = (Arc::new(MemoryQueue::default()), ArtifactStore::in_memory());
    let one = Farm::join(store().await, &queue, &artifacts).await;
    let two = Farm::join(store().await, &queue, &artifacts).await;
    let ports = [
        Port::open(&one.handle, one.handle.kept_door()).await,
        Port::open(&two.handle, two.handle.kept_door()).await,
    ];
    let admin = fresh_key().expect("random");
    assert!(add_first_key(one.store.as_ref(), &admin).await.expect("adds").is_some());
    let other = fresh_key().expect("random");
    assert!(add_first_key(two.store.as_ref(), &other).await.expect("asks").is_none());
    let victim = key(one.store.as_ref(), &[Scope::Read], Expiry::Never).await;
    for port in &ports {
        assert!(port.lets_in(GET_FARM, &victim).await && port.lets_in(GET_FARM, &admin).await);
        assert!(!port.lets_in(GET_FARM, &other).await);
    }
    let mut watches = Vec::new();
    for port in &ports {
        let mut client = port.farm(&victim);
        let watch = client.watch_farm(v1::WatchFarmRequest::default()).await;
        let mut watch = watch.expect("lets it in").into_inner();
        watch.message().await.expect("goes on").expect("a first event");
        watches.push(watch);
    }
    let request = v1::RevokeKeyRequest { id: victim.id().to_string() };
    let revoked = ports[0].admin(&admin).revoke_key(request).await.expect("revoked").into_inner();
    assert!(revoked.revoked.is_some());
    let began = Instant::now();
    for port in &ports {
        eventually("refused", async || !port.lets_in(GET_FARM, &victim).await).await;
    }
    for mut watch in watches {
        let refused = loop {
            match watch.message().await {
                Ok(event) => assert!(event.is_some(), "it ended without a word"),
                Err(status) => break from_status(&status),
            }
        };
        assert_eq!((refused.code, refused.reason.as_str()), (Code::Unauthenticated, "UNKNOWN_KEY"));
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let mut used = None;
    eventually("its use is recorded", async || {
        let found = two.store.find_key(victim.id()).await.expect("asks").expect("there").key;
        used = found.used_ms;
        used.is_some()
    })
    .await;
    for port in ports {
        port.close().await;
    }
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_rotated_and_revoked_by_calls_and_tells_when_it_ends() {
    let farm = Farm::start().await;
    let port = Port::open(&farm.handle, farm.handle.kept_door()).await;
    let first = fresh_key().expect("random");
    add_first_key(farm.store.as_ref(), &first).await.expect("adds").expect("the first");
    let mut admin = port.admin(&first);
    let asked = v1::CreateKeyRequest {
        tenant: "studio".to_owned(),
        scopes: vec![v1::Scope::Submit.into()],
        label: "Ana's laptop".to_owned(),
        expires_after_seconds: 3600,
        ..v1::CreateKeyRequest::default()
    };
    let made = admin.create_key(asked.clone()).await.expect("made").into_inner();
    let (told, made) = (made.key.expect("a key"), made.secret.parse::<Key>().expect("a key"));
    assert_eq!((told.id.as_str(), told.tenant.as_str()), (made.id().as_str(), "studio"));
    assert_eq!((&told.scopes, &told.label), (&asked.scopes, &asked.label));
    let expires = told.expires.expect("an end").seconds;
    let headers = port.headers(GET_FARM, Some(&bearer(&made))).await;
    assert_eq!(headers["darkroom-key-expires"], expires.to_string());
    let headers = port.headers(GET_FARM, Some(&bearer(&first))).await;
    assert!(headers.get("darkroom-key-expires").is_none(), "it never ends");

    let rotation = v1::RotateKeyRequest {
        id: told.id.clone(),
        keep_seconds: 1,
        ..v1::RotateKeyRequest::default()
    };
    let rotated = admin.rotate_key(rotation).await.expect("rotated").into_inner();
    let next: Key = rotated.secret.parse().expect("a key");
    assert!(port.lets_in(GET_FARM, &next).await);
    assert!(rotated.old.expect("the old one").expires.expect("an end").seconds < expires);
    let give_up = Instant::now() + DEADLINE;
    let refused = loop {
        if let Some(refused) = port.refused(GET_FARM, Some(&bearer(&made))).await {
            break refused;
        }
        assert!(Instant::now() < give_up, "it never ends");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(refused.reason, "EXPIRED_KEY");
    let live = v1::ListKeysRequest { tenant: "studio".to_owned(), ..Default::default() };
    let live = admin.list_keys(live).await.expect("listed").into_inner().keys;
    assert_eq!(live.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), [next.id().as_str()]);
    assert!(!format!("{live:?}").contains(next.expose().rsplit('_').next().expect("secret")));

    let past = prost_types::Timestamp { seconds: 1_000_000_000, nanos: 0 };
    let late = v1::CreateKeyRequest { expires_after_seconds: 0, expires: Some(past), ..asked };
    let refused = from_status(&admin.create_key(late).await.expect_err("in the past"));
    assert_eq!(refused.field.as_deref(), Some("expires"));
    assert!(refused.message.contains("before now by the farm's clock"), "{refused}");
    let whole = v1::RevokeKeyRequest { id: next.expose() };
    let refused = from_status(&admin.revoke_key(whole).await.expect_err("not an id"));
    assert!(!refused.message.contains(&next.expose()[20..]), "{refused}");
    port.close().await;
    farm.shutdown().await;
}
