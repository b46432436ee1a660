//! What a route takes and gives, for the description of the API.

use schemars::{JsonSchema, Schema, SchemaGenerator};

/// A form's schema, by which a route is described.
pub(crate) type Form = fn(&mut SchemaGenerator) -> Schema;

/// What a route takes beside the parameters of its path.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    /// Nothing.
    Nothing,
    /// The form's fields as a query.
    Query(Form),
    /// A JSON body. It may be absent unless `required` is set.
    Body {
        /// The form.
        form: Form,
        /// Whether it must be sent.
        required: bool,
    },
    /// A job, as JSON or JSON lines.
    Job,
    /// A picture.
    Picture,
}

impl Takes {
    pub(crate) fn query<T: JsonSchema>() -> Self {
        Self::Query(SchemaGenerator::subschema_for::<T>)
    }

    pub(crate) fn body<T: JsonSchema>(required: bool) -> Self {
        Self::Body { form: SchemaGenerator::subschema_for::<T>, required }
    }
}

/// What a route answers if all is well.
#[derive(Clone, Copy)]
pub(crate) enum Gives {
    /// JSON, with this status.
    Json(u16, Form),
    /// Server-sent events whose data is the form.
    Events(Form),
    /// A picture.
    Picture,
    /// JSON lines.
    Lines,
}

impl Gives {
    pub(crate) fn json<T: JsonSchema>(status: u16) -> Self {
        Self::Json(status, SchemaGenerator::subschema_for::<T>)
    }

    pub(crate) fn events<T: JsonSchema>() -> Self {
        Self::Events(SchemaGenerator::subschema_for::<T>)
    }
}
