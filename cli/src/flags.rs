//! This program's flags for the farm's names of fields, so that a refusal names what its user
//! wrote: `--since` where the farm says `created_from`.
//!
//! A name of the farm with a capital, a dot or an underscore is found anywhere in a sentence. One
//! that is a word of English too (`from`, `to`, `id`) is found where something is said about it.

use darkroom_core::error::UserError;

use crate::args::Command;

/// A field of a request, and the flag that sets it.
type Name = (&'static str, &'static str);

const CLEAN: &[Name] = &[("dry_run", "dry-run")];
const JOB: &[Name] = &[("id", "job"), ("job_id", "job")];
const SUBMIT: &[Name] = &[
    ("spec.cascade", "cascade"),
    ("spec.client_request_id", "request-id"),
    ("spec.deadline", "deadline"),
    ("spec.images_per_prompt", "images"),
    ("spec.labels", "label"),
    ("spec.max_failed_images", "max-failed"),
    ("spec.max_workers", "max-workers"),
    ("spec.name", "name"),
    ("spec.no_reuse", "no-reuse"),
    ("spec.priority", "interactive"),
    ("spec.seed", "seed"),
    ("spec.tenant", "tenant"),
    ("spec.settings.fit", "fit"),
    ("spec.settings.height", "height"),
    ("spec.settings.output", "output-format"),
    ("spec.settings.output.format", "output-format"),
    ("spec.settings.output.compression_level", "output-format"),
    ("spec.settings.output.quality", "output-format"),
    ("spec.settings.size", "size"),
    ("spec.settings.start", "image"),
    ("spec.settings.start_stage", "from"),
    ("spec.settings.width", "width"),
    ("cache_interval", "cache-interval"),
    ("guidance_scale", "guidance"),
    ("guidance_schedule", "guidance-schedule"),
    ("noise_level", "noise-level"),
    ("spec.settings.stages.cache_interval", "cache-interval"),
    ("spec.settings.stages.eta", "eta"),
    ("spec.settings.stages.guidance_scale", "guidance"),
    ("spec.settings.stages.guidance_schedule", "guidance-schedule"),
    ("spec.settings.stages.noise_level", "noise-level"),
    ("spec.settings.stages.preset", "preset"),
    ("spec.settings.stages.sampler", "sampler"),
    ("spec.settings.stages.spacing", "spacing"),
    ("spec.settings.stages.steps", "steps"),
    ("spec.settings.stages.strength", "strength"),
    ("spec.settings.stages.thresholding", "thresholding"),
    ("spec.settings.stages.timesteps", "timesteps"),
];
const SOME_IMAGES: &[Name] = &[
    ("id", "job"),
    ("job_id", "job"),
    ("dry_run", "dry-run"),
    ("no_deadline", "no-deadline"),
    ("filter.error_codes", "code"),
    ("filter.labels", "label"),
    ("filter.ranges", "images"),
    ("filter.states", "state-is"),
    ("filter.text", "text"),
];
const LS: &[Name] = &[
    ("job_id", "job"),
    ("changed_since", "changed-since"),
    ("created_from", "since"),
    ("created_to", "until"),
    ("labels", "label"),
    ("link_seconds", "links"),
    ("oldest_first", "oldest-first"),
    ("page_size", "limit"),
    ("start_index", "from"),
    ("states", "state-is"),
];
const WATCH: &[Name] = &[("id", "job"), ("after_version", "after")];
const MAP: &[Name] = &[("job_id", "job"), ("since_version", "changed-since")];
const GET: &[Name] = &[("id", "job"), ("job_id", "job"), ("max_edge", "max-edge")];
const SHEET: &[Name] = &[("job_id", "job"), ("first_index", "from")];
const DRAIN: &[Name] = &[("host", "all-of")];
const HISTORY: &[Name] = &[
    ("cascade_digest", "cascade-digest"),
    ("from", "since"),
    ("step_seconds", "step"),
    ("to", "until"),
];
const KEY: &[Name] =
    &[("expires_after_seconds", "expires"), ("keep_seconds", "keep"), ("scopes", "scope")];
const TENANT: &[Name] = &[
    ("quotas.burst", "burst"),
    ("quotas.device_seconds_per_day", "device-seconds-per-day"),
    ("quotas.images_per_day", "images-per-day"),
    ("quotas.images_waiting", "max-waiting"),
    ("quotas.requests_per_second", "requests-per-second"),
    ("quotas.stored_bytes", "stored-bytes"),
    ("quotas.weight", "weight"),
    ("quotas.workers", "max-workers"),
];
const WEBHOOK: &[Name] = &[("event_types", "event")];
const AUDIT: &[Name] = &[("page_size", "limit")];
const USAGE: &[Name] = &[("from_day", "since"), ("to_day", "until")];

/// What follows a field of which something is said.
const SAID: [&str; 4] = [" is ", " has ", " contains ", "["];

/// The flags of a command that the farm knows by other names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags(&'static [Name]);

impl Flags {
    pub(crate) fn of(command: &Command) -> Self {
        Self(match command {
            Command::Render(_) | Command::Submit(_) => SUBMIT,
            Command::Status(_)
            | Command::Rm(_)
            | Command::Image(_)
            | Command::Failures(_)
            | Command::Verify(_)
            | Command::Pause(_)
            | Command::Resume(_) => JOB,
            Command::Cancel(_) | Command::Retry(_) => SOME_IMAGES,
            Command::Ls(_) => LS,
            Command::Watch(_) => WATCH,
            Command::Map(_) => MAP,
            Command::Get(_) => GET,
            Command::Sheet(_) => SHEET,
            Command::Drain(_) => DRAIN,
            Command::History(_) => HISTORY,
            Command::Usage(_) => USAGE,
            Command::Key(_) => KEY,
            Command::Tenant(_) => TENANT,
            Command::Clean(_) => CLEAN,
            Command::Audit(_) => AUDIT,
            Command::Webhook(_) => WEBHOOK,
            Command::Up(_)
            | Command::Login
            | Command::Logout
            | Command::Retention(_)
            | Command::Queue
            | Command::Workers
            | Command::Cascades
            | Command::Farm
            | Command::Rerender(_)
            | Command::Model(_)
            | Command::Completions { .. } => &[],
        })
    }

    /// The same refusal, with flags in place of fields.
    pub(crate) fn name(self, failure: UserError) -> UserError {
        let field = failure.field.as_deref().map(|field| match self.at(field) {
            Some((flag, length)) => format!("{flag}{}", &field[length..]),
            None => field.to_owned(),
        });
        UserError { field, message: self.sentence(&failure.message), ..failure }
    }

    /// A sentence in which fields have the names of their flags. What is quoted stays.
    fn sentence(self, text: &str) -> String {
        let mut named = String::with_capacity(text.len());
        let (mut rest, mut before, mut quoted) = (text, ' ', false);
        while let Some(next) = rest.chars().next() {
            let found = self.at(rest).filter(|_| !quoted && !is_of_name(before));
            let found = found.filter(|(_, length)| {
                let (field, after) = rest.split_at(*length);
                field.contains(['_', '.']) || SAID.iter().any(|said| after.starts_with(said))
            });
            let taken = match found {
                Some((flag, length)) => {
                    named += flag;
                    &rest[..length]
                }
                // In a quotation, what a backslash escapes does not end it.
                None if quoted && next == '\\' => {
                    let taken = rest.char_indices().nth(2).map_or(rest, |(end, _)| &rest[..end]);
                    named += taken;
                    taken
                }
                None => {
                    quoted ^= next == '"';
                    named.push(next);
                    &rest[..next.len_utf8()]
                }
            };
            before = taken.chars().next_back().unwrap_or(before);
            rest = &rest[taken.len()..];
        }
        named
    }

    /// The flag of the field with which a text begins, and how long that field is there. Positions
    /// in lists of flags (`filter.error_codes[3]`) belong to it, keys (`spec.labels["a"]`) do not.
    fn at(self, text: &str) -> Option<(&'static str, usize)> {
        let fits = |(field, flag): &Name| Some((*flag, length_at(text, field)?));
        self.0.iter().filter_map(fits).max_by_key(|(_, length)| *length)
    }
}

/// Length of the field's path at the beginning of `text`, with its positions (`prompts[3].seed`).
fn length_at(text: &str, field: &str) -> Option<usize> {
    let mut rest = text;
    for (position, part) in field.split('.').enumerate() {
        if position > 0 {
            rest = rest.strip_prefix('.')?;
        }
        rest = without_position(rest.strip_prefix(part)?);
    }
    let more = rest.strip_prefix('.').unwrap_or(rest);
    let ends = !more.starts_with(is_of_name);
    ends.then_some(text.len() - rest.len())
}

/// What follows `[3]`.
fn without_position(text: &str) -> &str {
    let inner = text.strip_prefix('[').and_then(|text| text.split_once(']'));
    match inner {
        Some((number, rest)) if number.parse::<u64>().is_ok() => rest,
        _ => text,
    }
}

/// Whether a character can be a part of a field's name.
fn is_of_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '.' | '-')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{CommandFactory as _, Parser as _};
    use darkroom_proto::FILE_DESCRIPTOR_SET;
    use prost::Message as _;
    use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Label};

    use super::*;
    use crate::args::Cli;

    fn flags(line: &[&str]) -> Flags {
        let line = ["darkroom"].iter().chain(line);
        Flags::of(&Cli::try_parse_from(line).expect("parses").command)
    }

    #[test]
    fn a_refusal_of_the_farm_names_the_flags() {
        let history = &["history"][..];
        let cases = [
            (
                history,
                "from",
                "from is X and to is Y; accepted: from far",
                "since",
                "since is X and until is Y; accepted: from far",
            ),
            (
                history,
                "step_seconds",
                "step_seconds is 90; accepted: from 60 to 80",
                "step",
                "step is 90; accepted: from 60 to 80",
            ),
            (
                &["ls"],
                "created_to",
                "created_to is not later than created_from",
                "until",
                "until is not later than since",
            ),
            (
                &["ls"],
                "labels[\"labels[2]\"]",
                "labels[\"labels[2]\"] has 300 characters",
                "label[\"labels[2]\"]",
                "label[\"labels[2]\"] has 300 characters",
            ),
            (
                &["ls", "J"],
                "text",
                "text contains \"a\\\" start_index is\"",
                "text",
                "text contains \"a\\\" start_index is\"",
            ),
            (
                &["retry", "J"],
                "filter.error_codes[3]",
                "filter.error_codes[3] has 0 characters",
                "code",
                "code has 0 characters",
            ),
            (
                &["retry", "J"],
                "filter.labels",
                "a key of filter.labels is blank",
                "label",
                "a key of label is blank",
            ),
            (
                &["submit", "p"],
                "spec.settings.stages[1].guidance_schedule",
                "spec.settings.stages[1].guidance_schedule is \"é\"; accepted: …",
                "guidance-schedule",
                "guidance-schedule is \"é\"; accepted: …",
            ),
            (
                &["submit", "p"],
                "spec.settings.start_stage",
                "spec.settings.start_stage is \"x\"",
                "from",
                "from is \"x\"",
            ),
            (
                &["submit", "p"],
                "prompts[0].settings.size",
                "prompts[0].settings.size is 3; accepted: 64",
                "prompts[0].settings.size",
                "prompts[0].settings.size is 3; accepted: 64",
            ),
            (
                &["status", "x"],
                "id",
                "id is \"x\"; accepted: a UUID",
                "job",
                "job is \"x\"; accepted: a UUID",
            ),
            // What names a flag already is left alone.
            (
                &["submit", "p"],
                "from",
                "from is \"x\" beside --mask",
                "from",
                "from is \"x\" beside --mask",
            ),
        ];
        for (line, field, message, flag, said) in cases {
            let named = flags(line).name(UserError::invalid(field, message));
            let expected = (Some(flag), said);
            assert_eq!((named.field.as_deref(), named.message.as_str()), expected);
        }
    }

    /// The fields of a message, and of our own messages inside it.
    fn fields(messages: &[DescriptorProto], name: &str) -> Vec<String> {
        let message = messages.iter().find(|message| message.name() == name);
        let message = message.unwrap_or_else(|| panic!("no message {name}"));
        let within = |field: &prost_types::FieldDescriptorProto| {
            let whole = vec![field.name().to_owned()];
            let Some(inner) = field.type_name().strip_prefix(".darkroom.v1.") else { return whole };
            let known = messages.iter().any(|message| message.name() == inner);
            // A range of indices is one flag.
            if !known || field.label() == Label::Repeated && inner == "IndexRange" {
                return whole;
            }
            let within = |name| format!("{}.{name}", field.name());
            fields(messages, inner).into_iter().map(within).collect()
        };
        message.field.iter().flat_map(within).collect()
    }

    /// What no flag sets.
    const NO_FLAG: [&str; 6] =
        ["clear", "first_index", "offset", "page_size", "page_token", "spec.settings.stages.stage"];

    #[test]
    fn every_field_of_a_request_has_a_flag_and_every_flag_is_there() {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors");
        let ours = set.file.into_iter().filter(|file| file.package() == "darkroom.v1");
        let messages: Vec<_> = ours.flat_map(|file| file.message_type).collect();
        let cases: [(&[&str], &[&str]); 29] = [
            (&["render", "p"], &["SubmitJobRequest"]),
            (&["submit", "p"], &["SubmitJobRequest"]),
            (&["status", "J"], &["GetJobRequest"]),
            (&["watch"], &["WatchFarmRequest", "WatchJobRequest"]),
            (&["ls", "J"], &["ListJobsRequest", "ListImagesRequest"]),
            (&["image", "J", "0"], &["GetImageRequest"]),
            (&["map", "J"], &["GetImageMapRequest"]),
            (&["failures", "J"], &["SummarizeFailuresRequest"]),
            (&["get", "J"], &["GetJobRequest"]),
            (&["sheet", "J"], &["FetchSheetRequest"]),
            (&["verify", "J"], &["FetchManifestRequest"]),
            (&["cancel", "J"], &["CancelJobRequest", "CancelImagesRequest"]),
            (&["rm", "J"], &["DeleteJobRequest"]),
            (&["pause", "J"], &["PauseJobRequest"]),
            (&["retry", "J"], &["RetryJobRequest", "RetryImagesRequest"]),
            (&["drain", "w"], &["DrainWorkerRequest"]),
            (&["history"], &["FarmHistoryRequest"]),
            (&["usage"], &["ListUsageRequest"]),
            (&["key", "create", "--scope=read"], &["CreateKeyRequest"]),
            (&["key", "list"], &["ListKeysRequest"]),
            (&["key", "revoke", "0123456789ab"], &["RevokeKeyRequest"]),
            (&["key", "rotate", "0123456789ab"], &["RotateKeyRequest"]),
            (&["tenant", "set", "t"], &["SetTenantRequest"]),
            (&["tenant", "show", "t"], &["GetTenantRequest"]),
            (&["tenant", "list"], &["ListTenantsRequest"]),
            (&["audit"], &["ListAuditRequest"]),
            (&["retention", "set", "jobs", "30d"], &["SetRetentionRequest"]),
            (&["retention", "list"], &["GetRetentionRequest"]),
            (&["clean"], &["CleanFarmRequest"]),
        ];
        let program = Cli::command();
        for (line, requests) in cases {
            let command = program.find_subcommand(line[0]).expect("a command");
            let command =
                line.get(1).and_then(|word| command.find_subcommand(word)).unwrap_or(command);
            let arguments = command.get_arguments();
            let there: BTreeSet<_> = arguments
                .map(|argument| argument.get_long().unwrap_or(argument.get_id().as_str()))
                .collect();
            let flags = flags(line);
            for (field, flag) in flags.0 {
                // They have fewer flags than others that share their names.
                let there = there.contains(flag)
                    || ["render", "cancel", "key", "tenant"].contains(&line[0]);
                assert!(there, "{line:?} has no flag {flag} for {field}");
            }
            let fields = requests.iter().flat_map(|request| fields(&messages, request));
            for field in fields.filter(|field| !field.starts_with("prompts")) {
                let named = flags.at(&field).is_some_and(|(_, length)| length == field.len());
                let same = there.contains(field.as_str());
                let none = NO_FLAG.contains(&field.as_str());
                assert!(named || same || none, "{line:?}: {field} is no flag's");
            }
        }
    }
}
