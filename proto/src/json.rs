//! The JSON form of every message of `darkroom.v1`, written once for the command line, HTTP and
//! scripts.
//!
//! A struct here has the name of its message, and its keys are the message's fields, with four
//! exceptions: [`Job`], [`Image`], [`GetFarmResponse`] and [`ForecastJobResponse`] are older than
//! this module, and scripts rely on them. They leave something out, and do not convert back.
//!
//! - Requests refuse keys that they do not know. Absent keys mean the same as in the protocol:
//!   empty, 0 or unset.
//! - 64-bit numbers above 2⁵³ are written as strings, because most readers of JSON would round
//!   them. Both forms are read ([`U64`]).
//! - Enums are written by their names in lower case ([`Word`]), bytes in base64 ([`Bytes`]), and
//!   times in answers as seconds since 1970 ([`Seconds`]). Times in requests may also be RFC 3339
//!   texts ([`Time`]).

mod admin;
mod encoder;
mod failures;
mod farm;
mod farmwide;
mod forecast;
mod image_commands;
mod image_views;
mod images;
mod jobs;
mod members;
mod quotas;
mod settings;
mod submit;
mod values;
mod webhooks;
mod words;

use darkroom_core::{
    error::{Code, UserError},
    shown::shown,
};
use serde::de::DeserializeOwned;

pub use self::{
    admin::{
        AuditEntry, CleanFarmRequest, CleanFarmResponse, CreateKeyRequest, CreateKeyResponse,
        DueRemoval, GetRetentionRequest, GetRetentionResponse, GetTenantRequest, Key,
        ListAuditRequest, ListAuditResponse, ListKeysRequest, ListKeysResponse, ListTenantsRequest,
        ListTenantsResponse, OrphanObjects, RetentionPolicy, RevokeKeyRequest, RotateKeyRequest,
        RotateKeyResponse, SetRetentionRequest, SetTenantRequest, Tenant,
    },
    encoder::{Embedding, EncodeRequest, EncodeResponse},
    failures::{FailureSummary, SummarizeFailuresRequest, SummarizeFailuresResponse},
    farm::{
        Cascade, CascadeStage, Coordinator, DeviceMemory, DrainWorkerRequest, DrainWorkerResponse,
        GetFarmRequest, GetFarmResponse, ListCascadesRequest, ListCascadesResponse,
        ListWorkersRequest, ListWorkersResponse, Worker, WorkerStage,
    },
    farmwide::{
        DescribeQueueRequest, DescribeQueueResponse, FarmEvent, FarmHistoryRequest,
        FarmHistoryResponse, HistoryPoint, ListUsageRequest, ListUsageResponse, PoolHistory,
        QueuePool, TenantDay, WatchFarmRequest, WorkerSnapshot,
    },
    forecast::{ClassForecast, Forecast, ForecastCheck, StageCheck, StageForecast},
    image_commands::{
        CancelImagesRequest, CancelImagesResponse, ImageFilter, IndexRange, RetryImagesRequest,
        RetryImagesResponse,
    },
    image_views::{
        Attempt, FetchSheetChunk, FetchSheetRequest, GetImageMapRequest, GetImageMapResponse,
        GetImageRequest, GetImageResponse, Sheet,
    },
    images::{
        FetchImageChunk, FetchImageRequest, FetchManifestChunk, FetchManifestRequest, Image, Link,
        ListImagesRequest, ListImagesResponse, SignImageRequest, SignImageResponse, StageSeconds,
    },
    jobs::{
        CancelJobRequest, DeleteJobRequest, DeleteJobResponse, GetJobRequest, Job, ListJobsRequest,
        ListJobsResponse, PauseJobRequest, ResumeJobRequest, RetryJobRequest, StageProgress,
        WatchEvent, WatchJobRequest,
    },
    members::{JoinRequest, JoinResponse, JoinedCascade, PoolKeys},
    quotas::{QuotaUsage, Quotas},
    settings::{Output, Settings, StageSettings},
    submit::{
        ForecastJobResponse, JobSpec, Prompt, PromptChunk, SubmitJobChunk, SubmitJobRequest,
        SubmitJobResponse, UploadInputChunk, UploadInputResponse,
    },
    values::{Bytes, Seconds, Time, U64, duration_seconds, unix_seconds},
    webhooks::{
        CreateWebhookRequest, CreateWebhookResponse, DeleteWebhookRequest, DeleteWebhookResponse,
        ListWebhooksRequest, ListWebhooksResponse, Webhook,
    },
    words::{Named, Word},
};

/// Reads a request. An error names the wrong key.
///
/// # Errors
/// If the text is not JSON, or not of this form.
pub fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, UserError> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        // "?": a place that has no name yet.
        (Some(path).filter(|path| ![".", "?"].contains(&path.as_str())), error.into_inner())
    });
    let read = read.and_then(|value| json.end().map(|()| value).map_err(|error| (None, error)));
    read.map_err(|(field, error)| {
        // Keys come from outside, and the library quotes them as they are.
        let field = field.map(|field| shown(&field).into_owned());
        let error = error.to_string();
        let message = match &field {
            Some(field) => format!("{field} cannot be read: {}", shown(&error)),
            None => format!("the request cannot be read: {}", shown(&error)),
        };
        UserError { field, ..UserError::new(Code::InvalidArgument, "INVALID_JSON", message) }
    })
}

/// Converts a value on the wire to its JSON form.
trait FromWire<W> {
    fn from_wire(wire: W) -> Self;
}

/// Converts a value in a JSON form to its value on the wire.
trait IntoWire<W> {
    fn into_wire(self) -> W;
}

/// Whether a value can be left out.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A struct with the derives that all forms have.
macro_rules! form {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(default, remote = "Self")]
        $(#[$meta])*
        #[allow(missing_docs, reason = "the .proto files document fields of these names")]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // The derived one, which is no method of the trait.
                Self::serialize(self, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                /// Takes an object alone. The derived reader would also take a list, as the fields
                /// in their order.
                struct Fields;

                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("an object, ", stringify!($name)))
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        fields: A,
                    ) -> Result<$name, A::Error> {
                        $name::deserialize(serde::de::value::MapAccessDeserializer::new(fields))
                    }
                }

                deserializer.deserialize_map(Fields)
            }
        }
    };
}

/// Converts a message to its form, field by field.
macro_rules! told {
    ($name:ident { $($field:ident)* }) => {
        impl From<crate::v1::$name> for $name {
            fn from(message: crate::v1::$name) -> Self {
                // If the form lacks a field, this does not compile.
                let crate::v1::$name { $($field,)* } = message;
                Self { $($field: crate::json::FromWire::from_wire($field),)* }
            }
        }

        impl From<&crate::v1::$name> for $name {
            fn from(message: &crate::v1::$name) -> Self {
                message.clone().into()
            }
        }

        impl crate::json::FromWire<crate::v1::$name> for $name {
            fn from_wire(message: crate::v1::$name) -> Self {
                message.into()
            }
        }
    };
}

/// Converts a form to its message, field by field.
macro_rules! asked {
    ($name:ident { $($field:ident)* }) => {
        impl From<$name> for crate::v1::$name {
            fn from(form: $name) -> Self {
                let $name { $($field,)* } = form;
                Self { $($field: crate::json::IntoWire::into_wire($field),)* }
            }
        }

        impl crate::json::IntoWire<crate::v1::$name> for $name {
            fn into_wire(self) -> crate::v1::$name {
                self.into()
            }
        }
    };
}

/// Forms of requests and their parts: unknown keys are refused, defaults are not written, and both
/// directions convert.
macro_rules! requests {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            crate::json::form! {
                $(#[$meta])*
                #[serde(deny_unknown_fields)]
                $name { $(#[serde(skip_serializing_if = "crate::json::is_default")] $field: $type,)* }
            }
            crate::json::told! { $name { $($field)* } }
            crate::json::asked! { $name { $($field)* } }
        )*
    };
}

/// Forms that have all fields of their messages, and convert in both directions.
macro_rules! answers {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            crate::json::form! { $(#[$meta])* $name { $($(#[$field_meta])* $field: $type,)* } }
            crate::json::told! { $name { $($field)* } }
            crate::json::asked! { $name { $($field)* } }
        )*
    };
}

/// Forms that have all fields of their messages, but contain a form that leaves something out. They
/// do not convert back.
macro_rules! reports {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            crate::json::form! { $(#[$meta])* $name { $($(#[$field_meta])* $field: $type,)* } }
            crate::json::told! { $name { $($field)* } }
        )*
    };
}

use {answers, asked, form, reports, requests, told};
