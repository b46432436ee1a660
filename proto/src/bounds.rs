//! How many elements a repeated field of a message may have, and how large a message may be.
//!
//! A message is small on the wire and large in memory: an element of two bytes may become a struct of three hundred. So
//! the [codec](crate::codec) counts before it decodes, and refuses what is above these limits. Every repeated field of
//! the protocol has a line here; a test fails for one that has none.
//!
//! Some limits are above what the farm accepts in the end: its own refusals know a prompt's place in the job, and so they
//! come first in all but hostile messages.

/// Largest message that a server of the farm takes, in bytes, compressed or not; a chunk of a stream is a message.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Most prompts that are decoded of one message; 10,000 are accepted.
const PROMPTS: u32 = 12_000;

/// Most elements of all repeated fields of one message together: 10,000 prompts with 16 labels each, and some.
pub const MAX_ELEMENTS: u32 = 200_000;

/// Most submessages within each other.
pub const MAX_DEPTH: u32 = 16;

/// Limit of a repeated field that has no line of its own.
pub(crate) const DEFAULT_ELEMENTS: u32 = 16;

/// The limits: `Message.field`, most elements in one message of that type, and what else the user could do.
const LIMITS: [(&str, u32, &str); 27] = [
    // Requests.
    ("EncodeRequest.texts", 1000, ""),
    ("ListImagesRequest.states", 32, ""),
    ("ListJobsRequest.states", 32, ""),
    ("Prompt.labels", 64, ""),
    ("PromptChunk.prompts", PROMPTS, ", more in further chunks"),
    ("Settings.stages", 64, ""),
    ("StageSettings.timesteps", 2000, ""),
    ("SubmitJobRequest.prompts", PROMPTS, ", more through SubmitJobStream"),
    // Answers.
    ("Cascade.stages", 64, ""),
    ("EncodeResponse.embeddings", 256, ""),
    ("Embedding.unknown_words", 4096, ""),
    ("Forecast.stages", 64, ""),
    ("ForecastCheck.stages", 64, ""),
    ("GetFarmResponse.cascades", 1000, ""),
    ("Image.labels", 64, ""),
    ("Image.stage_seconds", 256, ""),
    ("Job.notes", 1000, ""),
    ("Job.stages", 64, ""),
    ("ListCascadesResponse.cascades", 1000, ""),
    ("ListImagesResponse.images", 1000, ""),
    ("ListJobsResponse.jobs", 1000, ""),
    ("ListWorkersResponse.workers", 20_000, ""),
    ("DrainWorkerResponse.workers", 20_000, ""),
    ("StageForecast.classes", 1000, ""),
    ("UploadInputResponse.notes", 64, ""),
    ("WatchEvent.images", 1000, ""),
    ("Worker.stages", 256, ""),
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
        assert_eq!(there, chosen, "each repeated field of the protocol needs a line in LIMITS, and no other");
    }
}
