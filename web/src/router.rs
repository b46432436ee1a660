//! The whole site: the API, links and the page, behind the layers that every request passes.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    middleware,
    response::Response,
    routing::{MethodRouter, delete, get, post},
};
use darkroom_farm_api::{AdminCalls, Batches, CallerLayer, Calls, HttpRoute, Rule, Seals};
use http::{Extensions, HeaderMap, StatusCode, Version, header};
use tower_http::compression::{
    CompressionLayer,
    predicate::{NotForContentType, Predicate, SizeAbove},
};

use crate::{
    admin_routes, farm_routes, gate,
    json_answer::header_value,
    links, openai,
    openai::batches::{BatchRunner, Bell},
    page,
    paths::{API, LINKS},
    problem::Refusal,
    public_url::PublicUrl,
    session,
    settings::SiteSettings,
    site::Site,
    tasks::Tasks,
    unread,
};

/// Answers from this size on are compressed, if that helps.
const COMPRESSED_FROM: u16 = 1024;

/// What a site is made of.
pub struct Parts {
    /// The farm's calls.
    pub farm: Arc<dyn Calls>,
    /// The calls about keys, tenants and the audit.
    pub admin: Arc<dyn AdminCalls>,
    /// Files and batches.
    pub batches: Arc<dyn Batches>,
    /// Says who calls.
    pub callers: CallerLayer,
    /// Signs the links that the farm serves itself.
    pub seals: Arc<dyn Seals>,
    /// Whether the port speaks TLS.
    pub tls: bool,
    /// How the farm is reached and shown.
    pub settings: SiteSettings,
}

/// The routes of a site, the work that goes on beside their answers, and what works on its batches.
pub fn router(parts: Parts) -> (Router, Tasks, BatchRunner) {
    let Parts { farm, admin, batches, callers, seals, tls, settings } = parts;
    let public = settings.public_url.clone();
    // Browsers may speak TLS with a proxy.
    let tls = tls || public.as_ref().is_some_and(PublicUrl::is_secure);
    let layers = callers.clone();
    let needing = |needs| layers.clone().over_http(HttpRoute { needs, tls });
    let mut routes = Router::new();
    for route in farm_routes::routes().into_iter().chain(admin_routes::routes()) {
        let serve: MethodRouter<Arc<Site>> = (route.serve)();
        let serve = serve.layer(needing(Rule::Scope(route.call.scope)));
        routes = routes.route(&format!("{API}{}", route.path), serve);
    }
    let anybody = needing(Rule::Anybody);
    let own = get(session::show).layer(anybody.clone());
    let own = own.merge(post(session::begin)).merge(delete(session::end));
    let tasks = Tasks::default();
    let openai = openai::Desk::new(&farm, settings.aliases(), tasks.clone());
    let site = Arc::new(Site {
        farm,
        admin,
        batches,
        bell: Bell::default(),
        callers,
        seals,
        tls,
        public,
        openai,
        display: settings.display(),
    });
    // Its pictures are compressed already, and its events must not wait in a compressor.
    let like_openai = openai::routes(needing)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(&site));
    let hosts = Arc::new(settings.hosts());
    let runner = BatchRunner::new(Arc::clone(&site));
    let site = routes
        .route(&format!("{API}/session"), own)
        .route(&format!("{API}/display"), get(show_display).layer(anybody))
        .route(&format!("{API}/openapi.json"), get(description))
        .route(&format!("{LINKS}/{{link}}"), get(links::follow))
        .method_not_allowed_fallback(wrong_method)
        .fallback(page::serve)
        .with_state(site)
        .layer(CompressionLayer::new().compress_when(worth_compressing()))
        .layer(middleware::map_response(weaken))
        .merge(like_openai)
        .layer(middleware::from_fn(move |request, next| {
            gate::pass(Arc::clone(&hosts), request, next)
        }))
        .layer(middleware::map_response(gate::harden))
        .layer(middleware::from_fn(openai::dialect::speak))
        .layer(middleware::from_fn(unread::close));
    (site, tasks, runner)
}

/// JSON and the page's files. Pictures are compressed already, events must not wait in a compressor,
/// and manifests have ranges.
fn worth_compressing() -> impl Predicate {
    SizeAbove::new(COMPRESSED_FROM)
        .and(NotForContentType::IMAGES)
        .and(NotForContentType::SSE)
        // A range is of the file as it is, and so is the tag that it comes with.
        .and(|_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions| {
            !headers.contains_key(header::ACCEPT_RANGES)
        })
}

/// Makes the tag of an answer that was compressed a weak one: its bytes are others than those of the
/// same answer without compression (RFC 9110 §8.8.3).
async fn weaken(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    if headers.contains_key(header::CONTENT_ENCODING)
        && let Some(tag) = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok())
        && !tag.starts_with("W/")
    {
        let tag = header_value(&format!("W/{tag}"));
        headers.insert(header::ETAG, tag);
    }
    answer
}

async fn show_display(State(site): State<Arc<Site>>) -> Json<crate::site::Display> {
    Json(site.display.clone())
}

/// The description of the API, which a test keeps up to date.
async fn description() -> ([(http::HeaderName, &'static str); 1], &'static str) {
    const TEXT: &str = include_str!("../openapi.json");
    ([(http::header::CONTENT_TYPE, "application/json")], TEXT)
}

async fn wrong_method(request: axum::extract::Request) -> Refusal {
    Refusal::http(
        http::StatusCode::METHOD_NOT_ALLOWED,
        "METHOD",
        format!(
            "this route does not accept {}; the Allow header lists the accepted methods",
            request.method()
        ),
    )
}
