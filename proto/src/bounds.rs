//! How many elements a repeated field of a message may have, and how large a message may be.
//!
//! A message is small on the wire and large in memory: an element of two bytes may become a struct
//! of three hundred. So the [codec](crate::codec) counts before it decodes, and refuses messages
//! above these limits. Every repeated field of the protocol has a line here; a test checks that.
//!
//! Some limits here are higher than the farm's own. The farm's refusals say where in the job the
//! prompt is, so users should get those; the limits here stop hostile messages.

/// Largest message that a server of the farm takes, in bytes, compressed or not; a chunk of a
/// stream is a message.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Most prompts in one message that are decoded. The farm accepts 10,000.
const PROMPTS: u32 = 12_000;

/// Most elements of all repeated fields of one message together. A message of 10,000 prompts with
/// 16 labels and settings of their own for three stages has 200,000, plus the lists of its spec;
/// the rest is room for cascades of four stages. Decoded, they take less than 150 MiB beside their
/// texts: most are labels or stages, and only 12,000 can be prompts.
pub const MAX_ELEMENTS: u32 = 220_000;

/// Deepest nesting of messages.
pub const MAX_DEPTH: u32 = 16;

/// Limit of a repeated field that has no line of its own.
pub(crate) const DEFAULT_ELEMENTS: u32 = 16;

/// The limits: `Message.field`, most elements in one message of that type, and advice for the user.
const LIMITS: [(&str, u32, &str); 68] = [
    // Requests.
    ("CreateKeyRequest.scopes", 16, ""),
    ("CreateWebhookRequest.event_types", 16, ""),
    ("EncodeRequest.texts", 1000, ""),
    ("ImageFilter.error_codes", 200, ""),
    ("ImageFilter.labels", 64, ""),
    ("ImageFilter.ranges", 2000, ", so send the rest in another call"),
    ("ImageFilter.states", 32, ""),
    ("JobSpec.labels", 64, ""),
    ("JoinRequest.cascades", 1000, ""),
    ("JoinRequest.stages", 64, ""),
    ("ListImagesRequest.labels", 64, ""),
    ("ListImagesRequest.states", 32, ""),
    ("ListJobsRequest.labels", 64, ""),
    ("ListJobsRequest.states", 32, ""),
    ("Prompt.labels", 64, ""),
    ("PromptChunk.prompts", PROMPTS, ", so send the rest in further chunks"),
    ("SetTenantRequest.clear", 16, ""),
    ("Settings.stages", 64, ""),
    ("StageSettings.timesteps", 2000, ""),
    ("SubmitJobRequest.prompts", PROMPTS, ", more through SubmitJobStream"),
    // Answers.
    ("Key.scopes", 16, ""),
    ("ListAuditResponse.entries", 1000, ""),
    ("ListKeysResponse.keys", 1000, ""),
    ("ListTenantsResponse.tenants", 1000, ""),
    ("Cascade.stages", 64, ""),
    ("CleanFarmResponse.due", 4096, ""),
    ("CleanFarmResponse.orphans", 64, ""),
    ("DescribeQueueResponse.pools", 4096, ""),
    ("EncodeResponse.embeddings", 256, ""),
    ("Embedding.unknown_words", 4096, ""),
    ("FarmEvent.deleted_jobs", 1000, ""),
    ("FarmEvent.jobs", 1000, ""),
    ("FarmHistoryResponse.pools", 4096, ""),
    ("Forecast.stages", 64, ""),
    ("ForecastJobResponse.notes", 64, ""),
    ("ForecastCheck.stages", 64, ""),
    ("GetFarmResponse.cascades", 1000, ""),
    ("GetFarmResponse.coordinators", 1000, ""),
    ("GetFarmResponse.troubles", 1000, ""),
    ("GetRetentionResponse.policies", 4096, ""),
    ("GetImageMapResponse.codes", 65_536, ""),
    ("GetImageMapResponse.lengths", 65_536, ""),
    ("GetImageMapResponse.skips", 65_536, ""),
    ("GetImageMapResponse.stages", 64, ""),
    ("GetImageResponse.attempts", 64, ""),
    ("Image.labels", 64, ""),
    ("Image.stage_seconds", 256, ""),
    ("Job.notes", 1000, ""),
    ("Job.stages", 64, ""),
    ("JoinResponse.cascades", 1000, ""),
    ("JoinResponse.pools", 4096, ""),
    ("ListCascadesResponse.cascades", 1000, ""),
    ("ListImagesResponse.images", 1000, ""),
    ("ListJobsResponse.jobs", 1000, ""),
    ("ListUsageResponse.days", 1000, ""),
    ("ListWebhooksResponse.webhooks", 1000, ""),
    ("ListWorkersResponse.workers", 20_000, ""),
    ("DrainWorkerResponse.workers", 20_000, ""),
    ("Sheet.tiles", 2000, ""),
    ("PoolHistory.points", 1440, ""),
    ("StageForecast.classes", 1000, ""),
    ("SummarizeFailuresResponse.failures", 1000, ""),
    ("Tenant.notes", 64, ""),
    ("UploadInputResponse.notes", 64, ""),
    ("WatchEvent.images", 1000, ""),
    ("Webhook.event_types", 64, ""),
    ("Worker.stages", 256, ""),
    ("WorkerSnapshot.workers", 20_000, ""),
];

/// The limit of a repeated field, and the advice that goes with it; `None` for one without a line.
pub(crate) fn limit_of(field: &str) -> Option<(u32, &'static str)> {
    LIMITS.iter().find(|(name, ..)| *name == field).map(|(_, limit, advice)| (*limit, *advice))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::walk::Tables;

    #[test]
    fn every_repeated_field_has_a_limit_that_someone_chose() {
        let tables = Tables::get();
        let there: BTreeSet<_> = tables.repeated_fields().collect();
        let chosen: BTreeSet<_> = LIMITS.iter().map(|(name, ..)| (*name).to_owned()).collect();
        assert_eq!(
            there, chosen,
            "each repeated field of the protocol needs a line in LIMITS, and no other"
        );
    }
}
