//! Messages of the protocol as they arrive: counted, decoded, and converted to JSON and back.

use std::{fmt::Debug, sync::LazyLock};

use darkroom_core::error::UserError;
use darkroom_proto::{
    codec::decode,
    json,
    status::{from_status, to_status},
    v1,
};
use prost::{Message, Name, bytes::Bytes};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Code, Status};

use crate::{mutation::Messages, verdict::Verdict};

/// A message that a server or a client gets.
struct Kind {
    name: &'static str,
    read: fn(&[u8]) -> Verdict,
    /// Reads its JSON; only for requests.
    read_json: fn(&[u8]) -> Verdict,
}

macro_rules! kinds {
    ($read:ident, $json:ident: $($name:ident)*) => {
        &[$(Kind {
            name: stringify!($name),
            read: $read::<v1::$name, json::$name>,
            read_json: $json::<v1::$name, json::$name>,
        },)*]
    };
}

/// What methods are called with. A test compares it with the descriptor.
const REQUESTS: &[Kind] = kinds! { request, json_request:
    SubmitJobRequest SubmitJobChunk UploadInputChunk GetJobRequest ListJobsRequest WatchJobRequest
    CancelJobRequest PauseJobRequest ResumeJobRequest RetryJobRequest CancelImagesRequest
    RetryImagesRequest ListImagesRequest SummarizeFailuresRequest GetImageRequest
    GetImageMapRequest FetchImageRequest FetchSheetRequest SignImageRequest FetchManifestRequest
    ListWorkersRequest DrainWorkerRequest ListCascadesRequest WatchFarmRequest DescribeQueueRequest
    FarmHistoryRequest ListUsageRequest GetFarmRequest EncodeRequest
    CreateKeyRequest ListKeysRequest RevokeKeyRequest RotateKeyRequest SetTenantRequest
    GetTenantRequest ListTenantsRequest ListAuditRequest JoinRequest
    DeleteJobRequest SetRetentionRequest GetRetentionRequest CleanFarmRequest
    CreateWebhookRequest ListWebhooksRequest DeleteWebhookRequest
};

/// What methods answer with.
const ANSWERS: &[Kind] = kinds! { answer, no_json:
    SubmitJobResponse UploadInputResponse ForecastJobResponse Job ListJobsResponse WatchEvent
    CancelImagesResponse RetryImagesResponse ListImagesResponse SummarizeFailuresResponse
    GetImageResponse GetImageMapResponse FetchImageChunk FetchSheetChunk SignImageResponse
    FetchManifestChunk ListWorkersResponse DrainWorkerResponse ListCascadesResponse FarmEvent
    DescribeQueueResponse FarmHistoryResponse ListUsageResponse GetFarmResponse EncodeResponse
    CreateKeyResponse ListKeysResponse Key RotateKeyResponse Tenant ListTenantsResponse
    ListAuditResponse JoinResponse DeleteJobResponse RetentionPolicy GetRetentionResponse
    CleanFarmResponse CreateWebhookResponse ListWebhooksResponse DeleteWebhookResponse
};

fn types(kinds: &[Kind]) -> Messages {
    Messages::of(&kinds.iter().map(|kind| kind.name).collect::<Vec<_>>())
}

pub(super) fn request_types() -> &'static Messages {
    static TYPES: LazyLock<Messages> = LazyLock::new(|| types(REQUESTS));
    &TYPES
}

pub(super) fn answer_types() -> &'static Messages {
    static TYPES: LazyLock<Messages> = LazyLock::new(|| types(ANSWERS));
    &TYPES
}

/// A request as a server gets it.
pub(super) fn requests(data: &[u8]) -> Verdict {
    let Some((number, bytes)) = request_types().split(data) else { return Verdict::accepted("") };
    (REQUESTS[number].read)(bytes)
}

/// An answer as a client gets it.
pub(super) fn answers(data: &[u8]) -> Verdict {
    let Some((number, bytes)) = answer_types().split(data) else { return Verdict::accepted("") };
    (ANSWERS[number].read)(bytes)
}

/// The JSON of a request: its name, a line for nothing, and the document.
pub(super) fn json_requests(data: &[u8]) -> Verdict {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let (name, text) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
    let named = REQUESTS.iter().find(|kind| kind.name.as_bytes() == name);
    let number = name.iter().fold(0, |sum, byte| sum + usize::from(*byte)) % REQUESTS.len();
    (named.unwrap_or(&REQUESTS[number]).read_json)(text)
}

/// Decodes a message. What was decoded is encoded and decoded again.
fn decoded<M: Message + Name + Default>(bytes: &[u8], fault: Code) -> Result<M, Verdict> {
    let message: M = decode(bytes).map_err(|status| {
        assert_eq!(status.code(), fault, "{status:?}");
        Verdict::refused(status.message(), bytes)
    })?;
    let encoded = message.encode_to_vec();
    let again: M =
        decode(&encoded).unwrap_or_else(|status| panic!("what we write is refused: {status:?}"));
    assert_eq!(again.encode_to_vec(), encoded, "what we write is read as something else");
    Ok(message)
}

fn request<M, F>(bytes: &[u8]) -> Verdict
where
    M: Message + Name + Default + Clone + Debug + From<F>,
    F: TryFrom<M> + Serialize + DeserializeOwned,
{
    let message: M = match decoded(bytes, Code::InvalidArgument) {
        Ok(message) => message,
        Err(refused) => return refused,
    };
    if let Ok(form) = F::try_from(message.clone()) {
        let text = serde_json::to_string(&form).expect("a form has a JSON");
        assert!(text.len() <= 64 * bytes.len() + 4096, "the JSON has {} bytes", text.len());
        comes_back::<M, F>(&message, &text);
    }
    Verdict::accepted(format_args!("{} {}", M::NAME, bytes.len().ilog2_or_zero()))
}

/// JSON of a form is read as the same message, unless it has numbers that JSON does not have.
fn comes_back<M, F>(message: &M, text: &str)
where
    M: Message + Debug + From<F>,
    F: DeserializeOwned,
{
    let shown = format!("{message:?}");
    if ["NaN", "inf", "Timestamp"].iter().any(|word| shown.contains(word)) {
        return;
    }
    let read: F = json::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(M::from(read).encode_to_vec(), message.encode_to_vec(), "{text}");
}

fn answer<M, F>(bytes: &[u8]) -> Verdict
where
    M: Message + Name + Default + Debug,
    F: TryFrom<M> + Serialize,
{
    let message: M = match decoded(bytes, Code::Internal) {
        Ok(message) => message,
        Err(refused) => return refused,
    };
    if let Ok(form) = F::try_from(message) {
        let text = serde_json::to_string(&form).expect("a form has a JSON");
        // A message of two bytes has all its keys in JSON.
        assert!(text.len() <= 1000 * bytes.len() + 8192, "the JSON has {} bytes", text.len());
    }
    Verdict::accepted(format_args!("{} {}", M::NAME, bytes.len().ilog2_or_zero()))
}

fn json_request<M, F>(text: &[u8]) -> Verdict
where
    M: Message + Name + Default + From<F> + Debug,
    F: TryFrom<M> + Serialize + DeserializeOwned,
{
    let form: F = match json::read(text) {
        Ok(form) => form,
        Err(error) => return refusal(&error, text),
    };
    let written = serde_json::to_string(&form).expect("a form has a JSON");
    let message = M::from(form);
    let read: F =
        json::read(written.as_bytes()).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(M::from(read).encode_to_vec(), message.encode_to_vec(), "{written}");
    Verdict::accepted(format_args!("{} {}", M::NAME, text.len().ilog2_or_zero()))
}

#[expect(clippy::extra_unused_type_parameters, reason = "it stands where others read JSON")]
fn no_json<M, F>(_: &[u8]) -> Verdict {
    Verdict::accepted("answers have no JSON that is read")
}

/// A refusal for a caller: it fits into headers, and is the same on the other side.
pub(super) fn refusal(error: &UserError, input: &[u8]) -> Verdict {
    let status = to_status(error);
    let headers = status.clone().into_http::<()>();
    let bytes: usize =
        headers.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(bytes < 8 << 10, "{bytes} bytes of headers");
    let back = from_status(&status);
    assert_eq!((back.code, &back.reason), (error.code, &error.reason), "{error:?}");
    Verdict::refused(&error.message, input)
}

/// The error of a farm, as a client gets it: a line of message, and the details.
pub(super) fn statuses(data: &[u8]) -> Verdict {
    let (code, rest) = data.split_first().unwrap_or((&0, &[]));
    let code = Code::from(i32::from(*code));
    let text = String::from_utf8_lossy(rest.get(..rest.len().min(40)).unwrap_or_default());
    let status = Status::with_details(code, text.trim(), Bytes::copy_from_slice(rest));
    let error = from_status(&status);
    assert!(!error.message.is_empty());
    let again = from_status(&to_status(&error));
    assert_eq!(again.code, error.code);
    let parts = (error.field.is_some(), error.retry_after.is_some(), error.reason == "UNKNOWN");
    Verdict::accepted(format_args!("{:?} {parts:?}", error.code))
}

/// A rough size.
pub(super) trait Rough {
    /// The number's logarithm, 0 for 0.
    fn ilog2_or_zero(self) -> u32;
}

impl Rough for usize {
    fn ilog2_or_zero(self) -> u32 {
        self.checked_ilog2().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost_reflect::DescriptorPool;

    use super::*;

    #[test]
    fn every_method_is_called_with_a_request_and_answers_with_an_answer_of_these() {
        let pool = DescriptorPool::decode(darkroom_proto::FILE_DESCRIPTOR_SET).unwrap();
        let methods = || pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let names = |kinds: &[Kind]| kinds.iter().map(|kind| kind.name.to_owned()).collect();
        let requests: BTreeSet<String> =
            methods().map(|one| one.input().name().to_owned()).collect();
        let answers: BTreeSet<String> =
            methods().map(|one| one.output().name().to_owned()).collect();
        assert_eq!(requests, names(REQUESTS), "add the message to REQUESTS, and a seed");
        assert_eq!(answers, names(ANSWERS), "add the message to ANSWERS, and a seed");
    }
}
