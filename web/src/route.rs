//! A route: its place, the call that it makes, and how a request becomes the message of that call.

use std::sync::Arc;

use axum::routing::MethodRouter;
use darkroom_proto::calls::Call;

use crate::site::Site;

/// One route.
pub(crate) struct Route {
    /// Its method, for the description of the API.
    #[cfg(any(test, feature = "schema"))]
    pub(crate) method: http::Method,
    /// Its path behind [`API`](crate::paths::API), with parameters in braces.
    pub(crate) path: &'static str,
    /// The call that it makes, which says who may.
    pub(crate) call: &'static Call,
    /// Its handler.
    pub(crate) serve: fn() -> MethodRouter<Arc<Site>>,
    /// What it takes beside them.
    #[cfg(feature = "schema")]
    pub(crate) takes: crate::described::Takes,
    /// What it answers if all is well.
    #[cfg(feature = "schema")]
    pub(crate) gives: crate::described::Gives,
}

/// Routes that take a form and answer with one: a line for each.
///
/// `GET "/jobs/{job}" GET_JOB get_job(GetJobRequest) -> Job 200 query, "job" = id;` calls `get_job`
/// with the form that the query makes, whose field `id` is the part `{job}` of the path.
macro_rules! json_routes {
    ($service:ident: $(
        $method:ident $path:literal $call:ident
        $name:ident($Request:ident) -> $Answer:ident $status:literal $takes:ident
        $(, $param:literal = $field:ident)*;
    )*) => {
        vec![$($crate::route::Route {
            #[cfg(any(test, feature = "schema"))]
            method: http::Method::$method,
            path: $path,
            call: &darkroom_proto::calls::$service::$call,
            serve: || axum::routing::on(
                axum::routing::MethodFilter::$method,
                |axum::extract::State(site): axum::extract::State<std::sync::Arc<$crate::site::Site>>,
                 entry: $crate::entry::Entry| async move {
                    let asked = entry.reads().then(|| entry.headers().clone());
                    let caller = entry.caller.clone();
                    #[allow(unused_variables, reason = "not every route has parameters")]
                    let params = entry.params.clone();
                    #[allow(unused_mut, reason = "not every route has parameters")]
                    let mut form: darkroom_proto::json::$Request =
                        $crate::route::json_routes!(@read $takes entry);
                    $(params.fill(&mut form.$field, $param, stringify!($field))?;)*
                    let answer = site.$service.$name(&caller, form.into()).await?;
                    let answer = darkroom_proto::json::$Answer::from(answer);
                    let status = $crate::route::status($status);
                    $crate::json_answer::json(status, &answer, asked.as_ref())
                },
            ),
            #[cfg(feature = "schema")]
            takes: $crate::route::json_routes!(@takes $takes $Request),
            #[cfg(feature = "schema")]
            gives: $crate::described::Gives::json::<darkroom_proto::json::$Answer>($status),
        }),*]
    };
    (@read query $entry:ident) => { $entry.query()? };
    (@read body $entry:ident) => { $entry.body(false).await? };
    (@read maybe_body $entry:ident) => { $entry.body(true).await? };
    (@takes query $Request:ident) => {
        $crate::described::Takes::query::<darkroom_proto::json::$Request>()
    };
    (@takes body $Request:ident) => {
        $crate::described::Takes::body::<darkroom_proto::json::$Request>(true)
    };
    (@takes maybe_body $Request:ident) => {
        $crate::described::Takes::body::<darkroom_proto::json::$Request>(false)
    };
}

pub(crate) use json_routes;

/// The status with this number; the numbers are ours.
pub(crate) fn status(number: u16) -> http::StatusCode {
    http::StatusCode::from_u16(number).unwrap_or(http::StatusCode::OK)
}
