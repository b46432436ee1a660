//! Every message has a form, nothing gets lost in the conversion, and the output that scripts read
//! does not change.

mod messages;
mod printed;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use darkroom_core::error::{Code, UserError};
use darkroom_proto::{
    FILE_DESCRIPTOR_SET,
    json::{
        Attempt, AuditEntry, Bytes, CancelImagesRequest, CancelImagesResponse, CancelJobRequest,
        Cascade, CascadeStage, ClassForecast, CleanFarmRequest, CleanFarmResponse, Coordinator,
        CreateKeyRequest, CreateKeyResponse, CreateWebhookRequest, CreateWebhookResponse,
        DeleteJobRequest, DeleteJobResponse, DeleteWebhookRequest, DeleteWebhookResponse,
        DescribeQueueRequest, DescribeQueueResponse, DeviceMemory, DrainWorkerRequest,
        DrainWorkerResponse, DueRemoval, Embedding, EncodeRequest, EncodeResponse, FailureSummary,
        FarmEvent, FarmHistoryRequest, FarmHistoryResponse, FetchImageChunk, FetchImageRequest,
        FetchManifestChunk, FetchManifestRequest, FetchSheetChunk, FetchSheetRequest, Forecast,
        ForecastCheck, ForecastJobResponse, GetFarmRequest, GetFarmResponse, GetImageMapRequest,
        GetImageMapResponse, GetImageRequest, GetImageResponse, GetJobRequest, GetRetentionRequest,
        GetRetentionResponse, GetTenantRequest, HistoryPoint, Image, ImageFilter, IndexRange, Job,
        JobSpec, JoinRequest, JoinResponse, JoinedCascade, Key, ListAuditRequest,
        ListAuditResponse, ListCascadesRequest, ListCascadesResponse, ListImagesRequest,
        ListImagesResponse, ListJobsRequest, ListJobsResponse, ListKeysRequest, ListKeysResponse,
        ListTenantsRequest, ListTenantsResponse, ListUsageRequest, ListUsageResponse,
        ListWebhooksRequest, ListWebhooksResponse, ListWorkersRequest, ListWorkersResponse,
        OrphanObjects, Output, PauseJobRequest, PoolHistory, PoolKeys, Prompt, PromptChunk,
        QueuePool, QuotaUsage, Quotas, ResumeJobRequest, RetentionPolicy, RetryImagesRequest,
        RetryImagesResponse, RetryJobRequest, RevokeKeyRequest, RotateKeyRequest,
        RotateKeyResponse, SetRetentionRequest, SetTenantRequest, Settings, Sheet,
        SignImageRequest, SignImageResponse, StageCheck, StageForecast, StageProgress,
        StageSeconds, StageSettings, SubmitJobChunk, SubmitJobRequest, SubmitJobResponse,
        SummarizeFailuresRequest, SummarizeFailuresResponse, Tenant, TenantDay, Time, U64,
        UploadInputChunk, UploadInputResponse, WatchEvent, WatchFarmRequest, WatchJobRequest,
        Webhook, Worker, WorkerSnapshot, WorkerStage, read,
    },
    v1,
};
use proptest::prelude::*;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde::{Serialize, de::DeserializeOwned};

/// What a form promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It converts back, and refuses unknown keys.
    Request,
    /// It converts back.
    Answer,
    /// It leaves something out.
    Report,
}

/// The form of one message.
struct Form {
    kind: Kind,
    /// Its JSON.
    text: fn(&DynamicMessage) -> Option<String>,
    /// Checks that it comes back.
    round: fn(&DynamicMessage),
    /// Reads JSON of it.
    read: fn(&str) -> Result<(), UserError>,
}

fn message<M: Message + Default>(message: &DynamicMessage) -> M {
    message.transcode_to().expect("the same descriptor")
}

fn text<M: Message + Default, F: TryFrom<M> + Serialize>(
    dynamic: &DynamicMessage,
) -> Option<String> {
    let form = F::try_from(message(dynamic)).ok()?;
    Some(serde_json::to_string(&form).expect("JSON"))
}

/// Message → form → JSON → form → message.
fn there_and_back<M, F>(dynamic: &DynamicMessage)
where
    M: Message + Default + PartialEq + Debug + From<F>,
    F: TryFrom<M> + Serialize + DeserializeOwned,
{
    let before: M = message(dynamic);
    let Some(text) = text::<M, F>(dynamic) else {
        assert_eq!(before, M::default(), "only a message without content has no form");
        return;
    };
    let read: F = read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(M::from(read), before, "{text}");
}

/// JSON → form → JSON, for a form that leaves something out.
fn again<M: Message + Default, F: TryFrom<M> + Serialize + DeserializeOwned>(
    dynamic: &DynamicMessage,
) {
    let text = text::<M, F>(dynamic).expect("every message has a report");
    let read: F = read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(serde_json::to_string(&read).expect("JSON"), text);
}

fn reads<F: DeserializeOwned>(text: &str) -> Result<(), UserError> {
    read::<F>(text.as_bytes()).map(drop)
}

macro_rules! table {
    ($($kind:ident $check:ident: $($name:ident)*;)*) => {
        BTreeMap::from([$($((
            stringify!($name),
            Form {
                kind: Kind::$kind,
                text: text::<v1::$name, $name>,
                round: $check::<v1::$name, $name>,
                read: reads::<$name>,
            },
        ),)*)*])
    };
}

fn forms() -> BTreeMap<&'static str, Form> {
    table! {
        Request there_and_back:
            SubmitJobRequest SubmitJobChunk PromptChunk UploadInputChunk GetJobRequest ListJobsRequest
            WatchJobRequest CancelJobRequest DeleteJobRequest PauseJobRequest ResumeJobRequest RetryJobRequest ListImagesRequest
            FetchImageRequest SignImageRequest FetchManifestRequest ListWorkersRequest DrainWorkerRequest
            ListCascadesRequest GetFarmRequest EncodeRequest GetImageRequest GetImageMapRequest
            FetchSheetRequest WatchFarmRequest DescribeQueueRequest FarmHistoryRequest ListUsageRequest
            CancelImagesRequest RetryImagesRequest SummarizeFailuresRequest
            CreateKeyRequest ListKeysRequest RevokeKeyRequest RotateKeyRequest SetTenantRequest
            GetTenantRequest ListTenantsRequest ListAuditRequest JoinRequest
            SetRetentionRequest GetRetentionRequest CleanFarmRequest
            CreateWebhookRequest ListWebhooksRequest DeleteWebhookRequest
            JobSpec Prompt Settings StageSettings Output ImageFilter IndexRange Quotas;
        Answer there_and_back:
            UploadInputResponse FetchImageChunk SignImageResponse FetchManifestChunk ListWorkersResponse
            DrainWorkerResponse ListCascadesResponse EncodeResponse DeleteJobResponse
            Forecast StageForecast ClassForecast ForecastCheck StageCheck StageProgress StageSeconds
            Worker WorkerStage DeviceMemory Coordinator Cascade CascadeStage Embedding Attempt GetImageMapResponse FetchSheetChunk
            Sheet WorkerSnapshot DescribeQueueResponse QueuePool FarmHistoryResponse PoolHistory
            Key CreateKeyResponse ListKeysResponse RotateKeyResponse Tenant ListTenantsResponse
            AuditEntry ListAuditResponse RetentionPolicy GetRetentionResponse CleanFarmResponse
            DueRemoval OrphanObjects
            Webhook CreateWebhookResponse ListWebhooksResponse DeleteWebhookResponse
            HistoryPoint ListUsageResponse TenantDay QuotaUsage FailureSummary SummarizeFailuresResponse
            JoinResponse JoinedCascade PoolKeys;
        Report again:
            SubmitJobResponse ForecastJobResponse ListJobsResponse WatchEvent ListImagesResponse
            GetFarmResponse CancelImagesResponse RetryImagesResponse GetImageResponse FarmEvent Job Image;
    }
}

/// Fields that a form leaves out, and those below them.
const LEFT_OUT: [&str; 18] = [
    "Job.spec.client_request_id",
    "Job.spec.settings",
    "Job.spec.images_per_prompt",
    "Job.effective_settings.size",
    "Job.effective_settings.start",
    "Job.effective_settings.start_stage",
    "Job.manifest",
    "Image.job_id",
    "GetFarmResponse.cascades.digest",
    "GetFarmResponse.cascades.description",
    "GetFarmResponse.cascades.stages",
    "ForecastJobResponse.effective_settings.size",
    "ForecastJobResponse.effective_settings.width",
    "ForecastJobResponse.effective_settings.height",
    "ForecastJobResponse.effective_settings.start",
    "ForecastJobResponse.effective_settings.start_stage",
    "ForecastJobResponse.effective_settings.fit",
    "ForecastJobResponse.effective_settings.output",
];

fn pool() -> DescriptorPool {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("descriptors")
}

#[test]
fn every_message_of_the_descriptor_has_a_form() {
    let pool = pool();
    let described = pool
        .all_messages()
        .filter(|message| message.package_name() == "darkroom.v1" && !message.is_map_entry());
    let described: BTreeSet<_> = described.map(|message| message.name().to_owned()).collect();
    let forms: BTreeSet<_> = forms().keys().map(|&name| name.to_owned()).collect();
    assert_eq!(forms, described);
}

#[test]
fn what_methods_are_called_with_refuses_unknown_keys() {
    let (pool, forms) = (pool(), forms());
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let inputs = methods.map(|method| method.input().name().to_owned());
    for name in inputs
        .chain(["JobSpec", "Prompt", "Settings", "StageSettings", "Output"].map(str::to_owned))
    {
        let form = &forms[name.as_str()];
        assert_eq!(form.kind, Kind::Request, "{name}");
        let error = (form.read)(r#"{"no_such_key": 1}"#).expect_err(&name);
        assert!(error.message.contains("no_such_key"), "{name}: {error}");
    }
}

#[test]
fn each_field_is_in_the_form_unless_it_is_known_to_be_left_out() {
    let (pool, mut unused) = (pool(), BTreeSet::from(LEFT_OUT));
    for (name, form) in forms() {
        let message = pool.get_message_by_name(&format!("darkroom.v1.{name}")).expect("described");
        let full = messages::full(&message);
        let whole = (form.text)(&full).expect("a form");
        for (path, changed) in messages::changed(&full) {
            let left_out = LEFT_OUT.iter().find(|left_out| path.is_below(left_out));
            let is_told = (form.text)(&changed).expect("a form") != whole;
            assert_eq!(is_told, left_out.is_none(), "{path:?} in the form of {name}");
            if let Some(left_out) = left_out {
                unused.remove(left_out);
            }
        }
    }
    assert_eq!(unused, BTreeSet::new(), "the form does have these fields");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_message_comes_back_from_its_json(seed in any::<u64>()) {
        let (pool, mut random) = (pool(), messages::Random::new(seed));
        for (name, form) in forms() {
            let message = pool.get_message_by_name(&format!("darkroom.v1.{name}")).expect("described");
            random.nanos = form.kind == Kind::Request;
            (form.round)(&random.message(&message));
        }
    }
}

#[test]
fn numbers_above_what_floating_point_holds_are_strings_and_both_are_read() {
    for (number, text) in [
        (0, "0"),
        ((1 << 53) - 1, "9007199254740991"),
        (1 << 53, "9007199254740992"),
        ((1 << 53) + 1, "\"9007199254740993\""),
        (u64::MAX, "\"18446744073709551615\""),
    ] {
        assert_eq!(serde_json::to_string(&U64(number)).expect("JSON"), text);
        assert_eq!(read::<U64>(text.as_bytes()), Ok(U64(number)));
        assert_eq!(read::<U64>(format!("\"{number}\"").as_bytes()), Ok(U64(number)));
        assert_eq!(read::<U64>(number.to_string().as_bytes()), Ok(U64(number)));
    }
    for wrong in [
        "-1",
        "1.5",
        "\"\"",
        "\"+1\"",
        "\"-1\"",
        "\"1e3\"",
        "\"18446744073709551616\"",
        "null",
        "true",
    ] {
        let error = read::<U64>(wrong.as_bytes()).expect_err(wrong);
        assert!(error.message.contains("from 0 to 18446744073709551615"), "{wrong}: {error}");
    }
}

#[test]
fn times_are_seconds_where_those_are_exact_and_texts_where_not() {
    let time = |seconds, nanos| Time(prost_types::Timestamp { seconds, nanos });
    for (time, text) in [
        (time(0, 0), "0.0"),
        (time(1_764_378_000, 123_456_000), "1764378000.123456"),
        (time(1_764_378_000, 1), "\"2025-11-29T01:00:00.000000001Z\""),
    ] {
        assert_eq!(serde_json::to_string(&time).expect("JSON"), text);
        assert_eq!(read::<Time>(text.as_bytes()), Ok(time));
    }
    assert_eq!(read::<Time>(b"1764378000"), Ok(time(1_764_378_000, 0)));
    assert_eq!(read::<Time>(b"\"2025-11-29T02:00:00+01:00\""), Ok(time(1_764_378_000, 0)));
    for wrong in ["\"tomorrow\"", "1e300", "-1e12", "null", "[]"] {
        let error = read::<Time>(wrong.as_bytes()).expect_err(wrong);
        assert!(error.message.contains("2026-01-31T12:00:00Z"), "{wrong}: {error}");
    }
}

#[test]
fn a_list_is_no_object_wherever_it_stands() {
    for (text, field) in [
        ("[]", None),
        (r#"[{}, []]"#, None),
        (r#"{"spec": []}"#, Some("spec")),
        (r#"{"spec": {"settings": [64]}}"#, Some("spec.settings")),
        (r#"{"prompts": [["a fox"]]}"#, Some("prompts[0]")),
    ] {
        let error = read::<SubmitJobRequest>(text.as_bytes()).expect_err(text);
        assert_eq!(error.field.as_deref(), field, "{error}");
        assert!(error.message.contains("expected an object"), "{error}");
    }
}

#[test]
fn what_is_wrong_in_a_request_is_named_with_its_place() {
    let wrong = |text: &str| {
        let error = read::<SubmitJobRequest>(text.as_bytes()).expect_err(text);
        assert_eq!((error.code, error.reason.as_str()), (Code::InvalidArgument, "INVALID_JSON"));
        (error.field.unwrap_or_default(), error.message)
    };
    let (field, message) = wrong(r#"{"spec": {"settings": {"stages": [{}, {"steps": "ten"}]}}}"#);
    assert_eq!(field, "spec.settings.stages[1].steps");
    assert!(message.contains("\"ten\"") && message.contains("u32"), "{message}");
    let (field, message) = wrong(r#"{"spec": {"priority": "urgent"}}"#);
    assert_eq!(field, "spec.priority");
    assert!(
        message.contains("\"urgent\"") && message.contains("one of batch, interactive"),
        "{message}"
    );
    let (_, message) = wrong(r#"{"prompts": [{"text": "a", "prompt": "b"}]}"#);
    assert!(message.contains("prompts[0]") && message.contains("`prompt`"), "{message}");
    for broken in ["", "{", "3", "{} {}", "{\"spec\": {\"settings\": 3}}"] {
        wrong(broken);
    }
}

#[test]
fn a_chunk_of_a_stream_is_a_spec_or_prompts() {
    let chunk = |text: &str| read::<SubmitJobChunk>(text.as_bytes());
    assert!(
        matches!(chunk(r#"{"spec": {"name": "a"}}"#), Ok(SubmitJobChunk::Spec(spec)) if spec.name == "a")
    );
    let prompts = chunk(r#"{"prompts": {"prompts": [{"text": "b"}]}}"#);
    assert!(matches!(prompts, Ok(SubmitJobChunk::Prompts(chunk)) if chunk.prompts.len() == 1));
    for wrong in ["{}", r#"{"spec": {}, "prompts": {}}"#, r#""spec""#] {
        chunk(wrong).expect_err(wrong);
    }
    SubmitJobChunk::try_from(v1::SubmitJobChunk { part: None }).expect_err("neither");
}

#[test]
fn bytes_are_base64() {
    let chunk = UploadInputChunk { data: Bytes(vec![0, 255, 16]) };
    assert_eq!(serde_json::to_string(&chunk).expect("JSON"), r#"{"data":"AP8Q"}"#);
    let error = read::<UploadInputChunk>(br#"{"data": "?"}"#).expect_err("not base64");
    assert_eq!(error.field.as_deref(), Some("data"));
    assert!(error.message.contains("base64"), "{error}");
}

#[cfg(feature = "schema")]
#[test]
fn the_schema_of_a_request_tells_its_keys_and_refuses_others() {
    let schema = serde_json::to_value(schemars::schema_for!(SubmitJobRequest)).expect("JSON");
    assert_eq!(schema["additionalProperties"], false, "{schema}");
    let spec = &schema["$defs"]["JobSpec"];
    assert_eq!(
        spec["properties"]["priority"]["anyOf"][0]["enum"],
        serde_json::json!(["batch", "interactive"]),
        "{spec}"
    );
    assert!(spec["properties"]["seed"].to_string().contains("integer"), "{spec}");
}
