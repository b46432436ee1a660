//! Who may do what over HTTP: every route with every kind of caller, and sessions of browsers.

use std::collections::BTreeMap;

use bytes::Bytes;
use darkroom_core::{key::Key, scope::Scope};
use darkroom_proto::calls::CALLS;
use darkroom_tests::{
    eventually_async,
    http::{Http, Reply},
};
use serde_json::{Value, json};

use super::{ended, kept, kept_with, submit};

/// An id that no job has.
const NO_JOB: &str = "01a22d33-0000-7000-8000-000000000000";

/// A route, and the scope that its call needs; none for a route that needs only a caller.
struct Route {
    method: String,
    path: String,
    scope: Option<Scope>,
}

/// The routes that the farm's own description lists.
async fn routes(http: &Http) -> Vec<Route> {
    let described = http.get("/api/v1/openapi.json").await.json();
    let scopes: BTreeMap<_, _> = CALLS
        .iter()
        .map(|call| (call.path.rsplit('/').next().unwrap_or_default(), call.scope))
        .collect();
    let mut routes = Vec::new();
    for (path, operations) in described["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            if operation["security"] == json!([]) {
                continue;
            }
            let id = operation["operationId"].as_str().expect("an id");
            let scope = scopes.get(id).copied();
            assert!(scope.is_some() || ["ShowSession", "GetDisplay"].contains(&id), "{id}");
            routes.push(Route { method: method.to_uppercase(), path: path.clone(), scope });
        }
    }
    assert!(routes.len() > 40, "{}", routes.len());
    routes
}

impl Route {
    /// Sends a request to it, about this job.
    async fn ask(&self, http: &Http, job: &str) -> Reply {
        let path = self.path.replace("{job}", job).replace("{index}", "0");
        let path = path.replace("{key}", "0123456789ab").replace("{tenant}", "nobody");
        let path = path.replace("{webhook}", "wh_0123456789abcdef0123456789abcdef");
        let path = if path.ends_with("/sheet") { format!("{path}?count=1") } else { path };
        let json = http.clone().with("content-type", "application/json");
        let body = match (self.method.as_str(), self.path.rsplit('/').next()) {
            ("GET" | "DELETE", _) => "",
            (_, Some("image-cancellations" | "image-retries")) => {
                r#"{"filter": {"ranges": [{"first": 0, "last": 0}]}, "dry_run": true}"#
            }
            _ => "{}",
        };
        let answer = json.open(&self.method, &path, body).await;
        if answer.status() == 200 && path.ends_with("/events") {
            // Such a stream has no end.
            let (parts, _) = answer.into_parts();
            return Reply { status: parts.status, headers: parts.headers, body: Bytes::new() };
        }
        Reply::of(answer).await
    }
}

async fn new_key(owner: &Http, tenant: &str, scopes: &[&str]) -> (String, String) {
    let made = json!({"tenant": tenant, "scopes": scopes});
    let made = owner.post("/api/v1/keys", &made).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    (text(&made["key"]["id"]), text(&made["secret"]))
}

#[tokio::test]
async fn every_route_refuses_whoever_may_not_use_it() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, owner, _) = kept(folder.path());
    let nobody = Http::new(&farm.address);
    let routes = routes(&owner).await;
    let strange = Key::of_random(&[9; darkroom_core::key::RANDOM_BYTES]).expose();
    let (revoked_id, revoked) = new_key(&owner, "studio", &["read"]).await;
    owner.send("DELETE", &format!("/api/v1/keys/{revoked_id}"), "").await;
    let mut small = Vec::new();
    for scope in [Scope::Read, Scope::Submit, Scope::Member, Scope::Admin] {
        let of_all = [Scope::Admin, Scope::Member].contains(&scope);
        let tenant = if of_all { "" } else { "studio" };
        let (_, key) = new_key(&owner, tenant, &[scope.name()]).await;
        small.push((scope, nobody.clone().with_key(&key)));
    }
    let port = farm.address.rsplit(':').next().expect("a port");
    let session = darkroom_core::session::Session::new(
        "0123456789ab".parse().expect("an id"),
        4_000_000_000,
        |_| [7; darkroom_core::session::SEAL],
    );
    let forged = format!("darkroom_session_{port}={}", session.expose());
    for route in &routes {
        let name = format!("{} {}", route.method, route.path);
        for (http, reason) in [
            (nobody.clone(), "NO_KEY"),
            (nobody.clone().with_key("dk_short"), "MALFORMED_KEY"),
            (nobody.clone().with_key(&strange), "UNKNOWN_KEY"),
            (nobody.clone().with_key(&revoked), "UNKNOWN_KEY"),
            (nobody.clone().with("cookie", "darkroom_session=x"), "NO_KEY"),
            (nobody.clone().with("cookie", &forged), "UNKNOWN_SESSION"),
        ] {
            let refused = route.ask(&http, NO_JOB).await.problem();
            assert_eq!((refused.0, refused.1.as_str()), (401, reason), "{name}");
        }
        for (scope, http) in &small {
            let Some(needed) = route.scope else { continue };
            let refused = route.ask(http, NO_JOB).await;
            let is_scope = refused.status == 403 && refused.problem().1 == "SCOPE";
            assert_eq!(is_scope, !scope.includes(needed), "{name} with {scope}: {refused:?}");
        }
    }
    for (method, path, needed) in [
        ("GET", "/v1/models", Scope::Read),
        ("GET", "/v1/models/demo", Scope::Read),
        ("POST", "/v1/images/generations", Scope::Submit),
        ("POST", "/v1/images/edits", Scope::Submit),
        ("POST", "/v1/files", Scope::Submit),
        ("GET", "/v1/files", Scope::Read),
        ("GET", "/v1/files/file-0", Scope::Read),
        ("GET", "/v1/files/file-0/content", Scope::Read),
        ("DELETE", "/v1/files/file-0", Scope::Submit),
        ("POST", "/v1/batches", Scope::Submit),
        ("GET", "/v1/batches", Scope::Read),
        ("GET", "/v1/batches/batch_0", Scope::Read),
        ("POST", "/v1/batches/batch_0/cancel", Scope::Submit),
    ] {
        let ask = async |http: &Http| {
            let json = http.clone().with("content-type", "application/json");
            let answer = json.send(method, path, "{}").await;
            let code = answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
            (answer.status.as_u16(), code)
        };
        for http in [
            nobody.clone(),
            nobody.clone().with_key("dk_short"),
            nobody.clone().with_key(&strange),
            nobody.clone().with_key(&revoked),
            nobody.clone().with("cookie", "darkroom_session=x"),
            nobody.clone().with("cookie", &forged),
        ] {
            assert_eq!(ask(&http).await, (401, "invalid_api_key".to_owned()), "{method} {path}");
        }
        for (scope, http) in &small {
            let refused = ask(http).await == (403, "scope".to_owned());
            assert_eq!(refused, !scope.includes(needed), "{method} {path} with {scope}");
        }
    }
}

#[tokio::test]
async fn another_tenants_job_is_none_on_every_route() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, owner, _) = kept(folder.path());
    let (_, one) = new_key(&owner, "studio", &["submit"]).await;
    let (_, other) = new_key(&owner, "agency", &["submit"]).await;
    let one = Http::new(&farm.address).with_key(&one);
    let other = Http::new(&farm.address).with_key(&other);
    let theirs = submit(&one, "a red circle", 1).await;
    ended(&one, &theirs).await;
    let mut asked = 0;
    for route in routes(&owner).await {
        if !route.path.contains("{job}") {
            continue;
        }
        asked += 1;
        let name = format!("{} {}", route.method, route.path);
        let foreign = route.ask(&other, &theirs).await;
        let none = route.ask(&other, NO_JOB).await;
        assert_eq!(foreign.status, 404, "{name}: {foreign:?}");
        let text = |reply: &Reply| String::from_utf8_lossy(&reply.body).into_owned();
        assert_eq!(text(&foreign).replace(&theirs, NO_JOB), text(&none), "{name}");
    }
    assert!(asked > 15, "{asked}");
    assert_eq!(other.get("/api/v1/jobs").await.json()["jobs"], json!([]));
    assert_eq!(one.get(&format!("/api/v1/jobs/{theirs}")).await.status, 200);
}

#[tokio::test]
async fn a_browser_logs_in_with_a_key_and_keeps_only_a_session() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, owner, _) = kept(folder.path());
    let (id, key) = new_key(&owner, "studio", &["submit"]).await;
    let nobody = Http::new(&farm.address);
    let wrong = nobody.post("/api/v1/session", &json!({"key": "dk_x"})).await.problem();
    assert_eq!((wrong.0, wrong.1.as_str()), (401, "MALFORMED_KEY"));
    let begun = nobody.post("/api/v1/session", &json!({ "key": key })).await;
    let who = json!({
        "open": false, "tenant": "studio", "scopes": ["read", "submit"], "key": id,
        "expires_at": begun.json()["expires_at"],
    });
    assert_eq!((begun.status.as_u16(), begun.json()), (200, who.clone()));
    let cookie = begun.header("set-cookie").to_owned();
    let secret = key.rsplit('_').next().expect("a secret");
    assert!(!cookie.contains(secret), "no key is kept in the browser");
    for word in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    let pair = cookie.split(';').next().expect("a pair");
    let browser = nobody.clone().with("cookie", &format!("theme=dark; {pair}"));
    assert_eq!(browser.get("/api/v1/session").await.json(), who);
    assert_eq!(browser.get("/api/v1/jobs").await.status, 200);
    assert_eq!(browser.get("/api/v1/keys").await.problem().1, "SCOPE");

    // A page of a stranger has the browser send the cookie, but says where it is from.
    let evil = browser.clone().with("origin", "http://evil.example");
    let refused = evil.post("/api/v1/jobs", &json!({})).await.problem();
    assert_eq!((refused.0, refused.1.as_str()), (403, "FOREIGN_ORIGIN"));
    let own = browser.clone().with("origin", &format!("http://{}", farm.address));
    let job = json!({"spec": {}, "prompts": [{"text": "a"}]});
    let accepted = own.post("/api/v1/jobs", &job).await;
    assert_eq!(accepted.status, 201, "{accepted:?}");
    let form = own.clone().with("content-type", "text/plain");
    let refused = form.send("POST", "/api/v1/jobs", "{}").await.problem();
    assert_eq!((refused.0, refused.1.as_str()), (415, "MEDIA_TYPE"), "no form can send it");

    let forged = pair.replace("ds_", "ds_x");
    let refused = nobody.clone().with("cookie", &forged).get("/api/v1/jobs").await.problem();
    assert_eq!((refused.0, refused.1.as_str()), (401, "MALFORMED_SESSION"));
    let (start, end) = pair.split_at(pair.len() - 1);
    let forged = format!("{start}{}", if end == "0" { "1" } else { "0" });
    let refused = nobody.clone().with("cookie", &forged).get("/api/v1/jobs").await.problem();
    assert_eq!((refused.0, refused.1.as_str()), (401, "UNKNOWN_SESSION"));

    let over = browser.send("DELETE", "/api/v1/session", "").await;
    assert_eq!(over.status, 204);
    assert!(over.header("set-cookie").contains("Max-Age=0"), "{over:?}");
    owner.send("DELETE", &format!("/api/v1/keys/{id}"), "").await;
    let refused = eventually_async("it ends with its key", async || {
        let asked = browser.get("/api/v1/jobs").await;
        (asked.status == 401).then_some(asked)
    });
    assert_eq!(refused.await.problem().1, "UNKNOWN_SESSION");
}

#[tokio::test]
async fn behind_a_proxy_links_and_cookies_are_those_of_the_address_that_browsers_see() {
    let folder = tempfile::tempdir().expect("folder");
    let public = "https://farm.example.com";
    let (farm, owner, key) = kept_with(folder.path(), &[("DARKROOM_PUBLIC_URL", public)]);
    let id = submit(&owner, "a red circle", 1).await;
    ended(&owner, &id).await;
    let made = owner.post(&format!("/api/v1/jobs/{id}/images/0/links"), &json!({})).await;
    let url = made.json()["url"].as_str().expect("a link").to_owned();
    let path = url.strip_prefix(public).expect("the address that others see").to_owned();
    assert!(path.starts_with("/links/"), "{url}");
    // What the proxy sends on.
    let nobody = Http::new(&farm.address);
    let proxied = nobody.clone().with("host", "farm.example.com");
    let shown = proxied.get(&path).await;
    assert_eq!((shown.status.as_u16(), shown.header("content-type")), (200, "image/png"));
    let begun = proxied.post("/api/v1/session", &json!({ "key": key })).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    let cookie = begun.header("set-cookie");
    assert!(cookie.starts_with("__Host-darkroom_session=ds_"), "{cookie}");
    assert!(cookie.ends_with("; Secure") && cookie.contains("Path=/;"), "{cookie}");
    let pair = cookie.split(';').next().expect("a pair");
    let browser = proxied.with("cookie", pair);
    assert_eq!(browser.get("/api/v1/session").await.status, 200);
    let job = json!({"spec": {}, "prompts": [{"text": "a"}]});
    let own = browser.clone().with("origin", public).post("/api/v1/jobs", &job).await;
    assert_eq!(own.status, 201, "{own:?}");
    let evil = browser.with("origin", "https://evil.example").post("/api/v1/jobs", &job).await;
    assert_eq!(evil.problem().1, "FOREIGN_ORIGIN");
    let other = nobody.with("host", "other.example.com").get("/api/v1/farm").await;
    assert_eq!(other.problem().1, "HOST");
}
