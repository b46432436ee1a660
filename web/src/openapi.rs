//! The description of the API in OpenAPI 3.1, made of the routes and of the JSON forms' schemas.
//!
//! `openapi.json` beside this crate's manifest holds it, so that the program needs no schemas; a
//! test compares. `cargo run -p darkroom-web --features schema --example openapi` writes it.

use std::collections::BTreeSet;

use darkroom_core::error::Code;
use darkroom_proto::{
    problem::{MEDIA_TYPE, Problem},
    status::http_code,
};
use http::Method;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{
    admin_routes,
    described::{Form, Gives, Takes},
    farm_routes,
    paths::API,
    route::Route,
    session::{LogIn, WhoCalls},
    site::Display,
};

/// The description, as it is served.
#[must_use]
pub fn text() -> String {
    // A document of strings and maps always has a JSON form.
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
}

/// The description.
fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let mut paths = Map::new();
    for route in farm_routes::routes().iter().chain(&admin_routes::routes()) {
        let path = paths.entry(format!("{API}{}", route.path)).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route, &mut schemas);
    }
    paths.insert(format!("{API}/session"), session(&mut schemas));
    let display = schemas.subschema_for::<Display>();
    paths.insert(
        format!("{API}/display"),
        json!({"get": {
            "operationId": "GetDisplay",
            "summary": "How the page shows money",
            "responses": responses("200", json!({"application/json": {"schema": display}})),
        }}),
    );
    let problems = problems(&mut schemas);
    let schemas: Map<String, Value> = schemas.take_definitions(true).into_iter().collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Darkroom",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A render farm for Imagen-style text-to-image cascades. The messages have the fields of the .proto files, which document them.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": problems,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "bearerFormat": "dk_ID_SECRET"},
                "session": {"type": "apiKey", "in": "cookie", "name": "darkroom_session",
                    "description": "The name ends with the port, if the address has one."},
            },
        },
    })
}

fn operation(route: &Route, schemas: &mut SchemaGenerator) -> Value {
    let (service, method) = route.call.path.rsplit_once('/').unwrap_or_default();
    let service = service.trim_start_matches('/');
    let mut parameters: Vec<Value> = parts(route.path).map(path_part).collect();
    let mut operation = json!({
        "operationId": method,
        "summary": format!("{method} of {service}"),
        "tags": [service.rsplit('.').next()],
    });
    match route.takes {
        Takes::Nothing => {}
        Takes::Query(form) => {
            parameters.extend(query(form, route.path));
        }
        Takes::Body { form, required } => {
            let schema =
                if parameters.is_empty() { json!(form(schemas)) } else { rest(form, route.path) };
            operation["requestBody"] =
                json!({"required": required, "content": {"application/json": {"schema": schema}}});
        }
        Takes::Job => {
            let schema = schemas.subschema_for::<darkroom_proto::json::SubmitJobRequest>();
            operation["requestBody"] = json!({"required": true, "content": {
                "application/json": {"schema": schema},
                "application/jsonl": {"schema": {"type": "string",
                    "description": "The spec in the first line, and a prompt in each other line."}},
            }});
            if method == "SubmitJob" {
                parameters.push(json!({
                    "name": "Idempotency-Key", "in": "header",
                    "description": "The client request id: a repeated request returns the first job.",
                    "schema": {"type": "string", "minLength": 1, "maxLength": 128},
                }));
            }
        }
        Takes::Picture => {
            let picture = json!({"schema": {}});
            operation["requestBody"] = json!({"required": true, "content": {
                "image/png": picture, "image/jpeg": picture, "image/webp": picture,
            }});
        }
    }
    let (status, content) = match route.gives {
        Gives::Json(status, form) => {
            (status.to_string(), json!({"application/json": {"schema": form(schemas)}}))
        }
        Gives::Events(form) => {
            let schema = json!({"type": "string", "contentMediaType": "application/json",
                "contentSchema": form(schemas)});
            ("200".to_owned(), json!({"text/event-stream": {"schema": schema}}))
        }
        Gives::Picture => {
            let picture = json!({"schema": {}});
            let content =
                json!({"image/png": picture, "image/jpeg": picture, "image/webp": picture});
            ("200".to_owned(), content)
        }
        Gives::Lines => {
            ("200".to_owned(), json!({"application/jsonl": {"schema": {"type": "string"}}}))
        }
    };
    operation["responses"] = responses(&status, content);
    let mut also = |status: &str, description: &str| {
        operation["responses"][status] = json!({"description": description});
    };
    match route.gives {
        Gives::Json(201, _) if method == "SubmitJob" => {
            operation["responses"]["200"] = operation["responses"]["201"].clone();
        }
        Gives::Picture | Gives::Lines => {
            also("206", "The range of the file that was asked for");
            also("416", "The file has none of the bytes that were asked for");
        }
        Gives::Events(_) => also("204", "Everything was sent before"),
        Gives::Json(..) => {}
    }
    if route.method == Method::GET {
        operation["responses"]["304"] = json!({"description": "The client has it already"});
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

/// The names in braces.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn path_part(name: &str) -> Value {
    let schema = match name {
        "index" => json!({"type": "integer", "minimum": 0}),
        _ => json!({"type": "string", "minLength": 1}),
    };
    json!({"name": name, "in": "path", "required": true, "schema": schema})
}

/// The fields that a part of a path fills, in any form.
fn filled(part: &str) -> &'static [&'static str] {
    match part {
        "job" => &["id", "job_id"],
        "key" => &["id"],
        "index" => &["index"],
        "tenant" => &["name"],
        _ => &[],
    }
}

/// A form without the fields that the path fills. It is no component, because no document has it.
fn rest(form: Form, path: &str) -> Value {
    let mut apart = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let mut schema = Value::from(form(&mut apart));
    if let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for field in parts(path).flat_map(filled) {
            fields.remove(*field);
        }
    }
    schema
}

/// The rest of a form as parameters of a query.
fn query(form: Form, path: &str) -> Vec<Value> {
    let mut schema = rest(form, path);
    let Some(Value::Object(fields)) = schema.get_mut("properties").map(Value::take) else {
        return Vec::new();
    };
    fields.into_iter().map(|(name, schema)| parameter(&name, schema)).collect()
}

fn parameter(name: &str, mut schema: Value) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("default");
    }
    match name {
        "states" => json!({"name": "state", "in": "query", "explode": true, "schema": schema}),
        "labels" => json!({
            "name": "label", "in": "query", "explode": true,
            "description": "KEY=VALUE; a key only once",
            "schema": {"type": "array", "items": {"type": "string", "pattern": "^[^=]+=.*$"}},
        }),
        name => json!({"name": name, "in": "query", "schema": schema}),
    }
}

/// The answer if all is well, and the problems that any route may answer with.
fn responses(status: &str, content: Value) -> Value {
    let mut responses = json!({status: {"description": "As asked", "content": content}});
    for status in problem_statuses() {
        let status = status.to_string();
        responses[&status] = json!({"$ref": format!("#/components/responses/{status}")});
    }
    responses
}

/// Statuses of problems: those of the farm's errors, and those of HTTP's own.
fn problem_statuses() -> BTreeSet<u16> {
    let farms = Code::ALL.iter().map(|code| http_code(*code).as_u16());
    farms.chain([405, 408, 413, 415, 421]).collect()
}

/// The answers that tell a problem.
fn problems(schemas: &mut SchemaGenerator) -> Map<String, Value> {
    let schema = schemas.subschema_for::<Problem>();
    let told = |status: u16| {
        let name =
            http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        json!({"description": name, "content": {MEDIA_TYPE: {"schema": schema}}})
    };
    problem_statuses().into_iter().map(|status| (status.to_string(), told(status))).collect()
}

fn session(schemas: &mut SchemaGenerator) -> Value {
    let who = schemas.subschema_for::<WhoCalls>();
    let log_in = schemas.subschema_for::<LogIn>();
    let who = json!({"application/json": {"schema": who}});
    let mut end = responses("204", json!({}));
    end["204"] = json!({"description": "The cookie is gone"});
    json!({
        "get": {"operationId": "ShowSession", "summary": "Who calls",
            "responses": responses("200", who.clone())},
        "post": {"operationId": "BeginSession", "summary": "Log in with a key", "security": [],
            "requestBody": {"required": true, "content": {"application/json": {"schema": log_in}}},
            "responses": responses("200", who)},
        "delete": {"operationId": "EndSession", "summary": "Log out", "security": [],
            "responses": end},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_that_is_served_is_the_one_of_the_routes() {
        let kept = include_str!("../openapi.json");
        assert!(
            kept == text(),
            "openapi.json is out of date; write it with: cargo run -p darkroom-web --features schema \
             --example openapi"
        );
    }

    #[test]
    fn every_call_of_the_farm_and_its_administrators_has_a_route() {
        let routes: Vec<_> =
            farm_routes::routes().into_iter().chain(admin_routes::routes()).collect();
        for call in darkroom_proto::calls::CALLS {
            let served = call.path.starts_with("/darkroom.v1.Farm/")
                || call.path.starts_with("/darkroom.v1.Admin/");
            let count = routes.iter().filter(|route| route.call.path == call.path).count();
            // A streaming submit is a submit with another type of body.
            let expected = usize::from(served && !call.path.ends_with("/SubmitJobStream"));
            assert_eq!(count, expected, "{}", call.path);
        }
    }

    #[test]
    fn every_reference_of_the_description_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
                    Value::String(place) if name == "$ref" => found.push(place.clone()),
                    value => references(value, found),
                }),
                Value::Array(values) => values.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50, "{}", found.len());
        for place in found {
            let pointer = place.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{place}");
        }
    }
}
