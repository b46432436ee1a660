//! What is removed from object storage, in which steps, and how long each step lasts.
//!
//! An object may be removed when no row names it. The leader *marks* such objects in a transaction
//! that excludes everyone who might begin to name one. Then it deletes them in storage. A marked
//! key stays recorded for a while: no result that names it is believed meanwhile, and tasks that
//! would store under it get another prefix. So a removed key is never needed again, and deleting it
//! late or twice does no harm.

use std::{fmt, str::FromStr, time::Duration};

use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    error::UserError,
    id::JobId,
    retention::{BELIEVED, Policy},
};
use uuid::Uuid;

/// What the keys of made-up objects begin with.
pub(crate) const MADE_UP: &str = "fake/";
/// How long a deleted key stays recorded before it is deleted once more, and how long after that.
pub const TOMBSTONE: Duration = Duration::from_secs(24 * 3600);
/// Longer than any lease that this is good for: a result is believed for [`BELIEVED`] and a lease
/// after its worker got its keys, and its key must stay recorded for all of that time.
const LONGEST_LEASE: Duration = Duration::from_secs(11 * 3600);
const _: () = assert!(
    BELIEVED.as_secs() + LONGEST_LEASE.as_secs() < TOMBSTONE.as_secs(),
    "a result could be believed after its key was forgotten"
);
/// How long the farm can say that a job was deleted.
pub const JOB_TOMBSTONE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long after a rewind an object that it forgot is looked at. Mostly it is stored again by
/// then.
pub const FORGOTTEN: Duration = Duration::from_secs(3600);
/// How long after the first failure an object is deleted again, and how long at most: each failure
/// doubles the time.
pub const AGAIN: Duration = Duration::from_secs(10);
pub(crate) const AGAIN_AT_MOST: Duration = Duration::from_secs(3600);
/// How long a deleted job's own row stays at least, so that watchers of the farm see that it was
/// deleted.
pub const SEEN: Duration = Duration::from_secs(60);

/// The kinds of stored objects. Each has a rule that says when it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// What a stage stored. Removed when no image names it.
    Output,
    /// An embedding. Removed when its text is.
    Embedding,
    /// The previews of an output. Removed when no image names the output, not even as removed; old
    /// ones before, unless they are all that there is to see of a removed one.
    Preview,
    /// Sheets. Made again when somebody asks, so old ones are removed.
    Sheet,
    /// Uploaded pictures. Removed when no job uses them and no tenant's upload is kept.
    Input,
    /// A job's manifests. Removed with the job.
    Manifest,
    /// A file. Removed with its row.
    File,
    /// Cascades. The cleaner never removes them.
    Cascade,
    /// What the cleaner itself stores. It stays.
    Cleaner,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Output,
        Self::Embedding,
        Self::Preview,
        Self::Sheet,
        Self::Input,
        Self::Manifest,
        Self::File,
        Self::Cascade,
        Self::Cleaner,
    ];

    /// Its name in SQL and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Embedding => "embedding",
            Self::Preview => "preview",
            Self::Sheet => "sheet",
            Self::Input => "input",
            Self::Manifest => "manifest",
            Self::File => "file",
            Self::Cascade => "cascade",
            Self::Cleaner => "cleaner",
        }
    }

    /// What its keys begin with, after what made-up objects begin with.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Output => "tasks/",
            Self::Embedding => "embeddings/",
            Self::Preview => "previews/",
            Self::Sheet => "sheets/",
            Self::Input => "inputs/",
            Self::Manifest => "manifests/",
            Self::File => "files/",
            Self::Cascade => "cascades/",
            Self::Cleaner => "cleaner/",
        }
    }

    /// When its objects are removed. Previews are also removed when they are old.
    #[must_use]
    pub fn rule(self) -> Rule {
        match self {
            Self::Output
            | Self::Embedding
            | Self::Preview
            | Self::Input
            | Self::Manifest
            | Self::File => Rule::Needed,
            Self::Sheet => Rule::Old,
            Self::Cascade | Self::Cleaner => Rule::Never,
        }
    }

    /// The kind of a key; `None` for one that no farm stores.
    #[must_use]
    pub fn of(key: &str) -> Option<Self> {
        let key = key.strip_prefix(MADE_UP).unwrap_or(key);
        Self::ALL.into_iter().find(|kind| key.starts_with(kind.prefix()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            UserError::invalid("kind", format!("kind of a stored object is {name:?}"))
        })
    }
}

/// When objects of a kind are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// When no row needs them any more: they become candidates, and orphans are found by their key.
    Needed,
    /// When they are old, because they are made again.
    Old,
    /// Never.
    Never,
}

/// An object that may have become superfluous.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Its key; with `/` at its end, everything below it.
    pub key: String,
    /// Its kind.
    pub kind: Kind,
    /// By which those are found who need it: a preview's output, an embedding's text, a file's id.
    pub source: String,
}

impl Candidate {
    /// An output.
    #[must_use]
    pub fn output(key: String) -> Self {
        Self { source: key.clone(), key, kind: Kind::Output }
    }

    /// The previews of an output.
    #[must_use]
    pub fn previews(output: &str) -> Self {
        let key = preview_prefix(output);
        Self { key, kind: Kind::Preview, source: output.to_owned() }
    }

    /// A text's embedding.
    #[must_use]
    pub fn embedding(key: String, text: Digest) -> Self {
        Self { key, kind: Kind::Embedding, source: text.to_string() }
    }

    /// A job's manifests.
    #[must_use]
    pub fn manifests(job: JobId) -> Self {
        Self { key: format!("manifests/{job}/"), kind: Kind::Manifest, source: job.to_string() }
    }

    /// An uploaded picture with this content.
    #[must_use]
    pub fn input(key: String, content: Digest) -> Self {
        Self { key, kind: Kind::Input, source: content.to_string() }
    }

    /// The bytes of a file.
    #[must_use]
    pub fn file(key: String, file: Uuid) -> Self {
        Self { key, kind: Kind::File, source: file.to_string() }
    }

    /// A stored object that is listed, with what its key says about who may need it. `None` for
    /// kinds that no row needs, and for keys that no farm makes.
    #[must_use]
    pub fn listed(key: &str) -> Option<Self> {
        let kind = Kind::of(key)?;
        let own = key.strip_prefix(MADE_UP).unwrap_or(key);
        let source = match kind {
            Kind::Output => return Some(Self::output(key.to_owned())),
            Kind::Manifest => own.split('/').nth(1)?.parse::<JobId>().ok()?.to_string(),
            Kind::Embedding => key.to_owned(),
            // Previews of an earlier layout say nothing of their source. They are old.
            Kind::Preview => source_of_preview(key)?.to_owned(),
            Kind::Input => {
                own.rsplit('/').next()?.split('.').next()?.parse::<Digest>().ok()?.to_string()
            }
            Kind::File => own.split('/').nth(1)?.parse::<Uuid>().ok()?.to_string(),
            Kind::Sheet | Kind::Cascade | Kind::Cleaner => return None,
        };
        Some(Self { key: key.to_owned(), kind, source })
    }

    /// Under which prefix nothing is stored while this leaves storage: the key up to its last `/`,
    /// which is a task's own prefix. A picture that was uploaded has a prefix for its content, and
    /// a file one for its id, because copies of it may lie under several keys.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self.kind {
            Kind::Input | Kind::File => &self.source,
            _ => prefix_of(&self.key),
        }
    }
}

/// A key up to its last `/`.
pub(crate) fn prefix_of(key: &str) -> &str {
    key.rfind('/').and_then(|end| key.get(..=end)).unwrap_or_default()
}

/// Where the previews of all outputs are.
const PREVIEWS: &str = "previews/3/";

/// Where the previews of an output are. The key names the task, so what sealed jobs of two tenants
/// made has two previews.
pub(crate) fn preview_prefix(output: &str) -> String {
    format!("{PREVIEWS}{output}/")
}

/// The output of a preview: its key without its prefix, its edge and its name. `None` for a preview
/// of an earlier version.
pub(crate) fn source_of_preview(key: &str) -> Option<&str> {
    let (source, _edge) = key.strip_prefix(PREVIEWS)?.rsplit_once('/')?.0.rsplit_once('/')?;
    Some(source)
}

/// The edge of a preview from its key. `None` as in [`source_of_preview`].
pub(crate) fn edge_of_preview(key: &str) -> Option<u32> {
    let source = source_of_preview(key)?;
    let rest = key.strip_prefix(PREVIEWS)?.strip_prefix(source)?;
    rest.split('/').nth(1)?.parse().ok()
}

/// What became of a batch of candidates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// How many nobody needs, and are marked now.
    pub marked: u64,
    /// How many somebody needs. They are no candidates any more.
    pub needed: u64,
    /// The farm's count of removals.
    pub mark: u64,
    /// Whether there may be more candidates.
    pub more: bool,
}

/// An object that may be deleted in storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Its key; with `/` at its end, everything below it.
    pub key: String,
    /// Its kind.
    pub kind: Kind,
    /// How often that failed.
    pub tries: u64,
    /// The farm's count of removals when it was marked.
    pub mark: u64,
}

/// Texts that no job needed and that were forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// How many.
    pub texts: u64,
    /// The bytes of each of their embeddings that was stored.
    pub sizes: Vec<u64>,
    /// Whether there may be more.
    pub more: bool,
}

/// A deleted job, or a part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// How many rows of images were removed.
    pub images: u64,
    /// How many jobs were removed to the end.
    pub jobs: u64,
    /// Whether there is more to remove now.
    pub more: bool,
}

/// Outputs of a job that has ended which a policy is about to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// The policy.
    pub policy: Policy,
    /// The job.
    pub job: JobId,
    /// What its images in the range have stored and the policy removes.
    pub outputs: Vec<ArtifactRef>,
    /// Where the policy had got to.
    pub(in crate::store) reached: Reached,
    /// The job's place, and its images' range.
    pub(in crate::store) at: Reached,
    pub(in crate::store) end: i64,
    pub(in crate::store) is_last: bool,
}

/// A place in the order in which a policy looks at jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Reached {
    /// When the job ended, as the database counts.
    pub(in crate::store) ended: i64,
    pub(in crate::store) seq: i64,
    /// The next image; -1: none.
    pub(in crate::store) idx: i64,
}

/// What a policy would remove now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The policy.
    pub policy: Policy,
    /// Jobs, or texts.
    pub count: u64,
    /// What their outputs or embeddings come to, if each is needed by one job only.
    pub bytes: u64,
    /// There may be more.
    pub at_least: bool,
}

/// How many objects are in which step of removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leavings {
    /// Not looked up yet.
    pub candidates: u64,
    /// Not deleted in storage yet.
    pub marked: u64,
    /// Deleted in storage at least once.
    pub deleted: u64,
    /// Of those marked, how many could not be deleted at the last try.
    pub failing: u64,
}

/// A time span in milliseconds.
pub(crate) fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_farm_has_its_kind_and_others_have_none() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(Kind::of(&format!("{}a/b.png", kind.prefix())), Some(kind));
            assert_eq!(Kind::of(&format!("fake/{}a/b.png", kind.prefix())), Some(kind));
        }
        for key in ["", "other/a", "task/a", "xtasks/a", "tasks", "fake/other/a"] {
            assert_eq!(Kind::of(key), None, "{key}");
        }
        "gone".parse::<Kind>().expect_err("no kind");
    }

    #[test]
    fn a_prefix_is_a_key_up_to_its_last_slash() {
        assert_eq!(Candidate::output("tasks/a/b.png".to_owned()).prefix(), "tasks/a/");
        assert_eq!(prefix_of("plain"), "");
        let job = JobId(uuid::Uuid::nil());
        let manifests = Candidate::manifests(job);
        assert_eq!(manifests.prefix(), manifests.key);
    }

    #[test]
    fn a_listed_object_says_who_may_need_it() {
        let job = JobId(uuid::Uuid::now_v7());
        let manifest =
            Candidate::listed(&format!("manifests/{job}/1/x.jsonl")).expect("a manifest");
        assert_eq!((manifest.kind, manifest.source), (Kind::Manifest, job.to_string()));
        let output = "tasks/a/b.png".to_owned();
        assert_eq!(Candidate::listed(&output), Some(Candidate::output(output)));
        let preview = Candidate::listed("previews/3/fake/tasks/a/b.png/64/x.png").expect("known");
        assert_eq!((preview.kind, preview.source.as_str()), (Kind::Preview, "fake/tasks/a/b.png"));
        assert!(preview.key.starts_with(&preview_prefix(&preview.source)));
        assert_eq!(edge_of_preview(&preview.key), Some(64));
        assert_eq!(edge_of_preview("previews/2/a/64/b.png"), None);
        let content = Digest::of(b"a picture");
        for prefix in ["inputs/", "inputs/7/"] {
            let key = format!("{prefix}{content}.png");
            let input = Candidate::listed(&key).expect("an input");
            assert_eq!(input, Candidate::input(key, content));
            assert_eq!(input.prefix(), content.to_string(), "wherever it lies");
        }
        let file = Uuid::now_v7();
        for prefix in [format!("files/{file}/"), format!("files/{file}/7/")] {
            let key = format!("{prefix}{content}.jsonl");
            let listed = Candidate::listed(&key).expect("a file");
            assert_eq!(listed, Candidate::file(key, file));
            assert_eq!(listed.prefix(), file.to_string(), "wherever it lies");
        }
        let embedding = Candidate::listed("fake/embeddings/e/d/x").expect("an embedding");
        assert_eq!(embedding.kind, Kind::Embedding);
        for key in [
            "cascades/a/b",
            "cleaner/epoch.json",
            "files/a/b.jsonl",
            "inputs/a.png",
            "manifests/x/1/a",
            "previews/2/a/64/b.png",
            "sheets/2/a/b.png",
            "x/y",
        ] {
            assert_eq!(Candidate::listed(key), None, "{key}");
        }
    }
}
