//! An object store that counts. It knows which objects it has, and holds equal contents once.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::digest::Digest;
use futures::{StreamExt as _, stream, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, path::Path,
};

/// How often a bucket was asked for what, and how many objects it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) puts: u64,
    pub(crate) gets: u64,
    pub(crate) lists: u64,
    /// Deletions, those of objects that were not there included.
    pub(crate) deletes: u64,
    pub(crate) live: u64,
}

/// An object's folder, and its name there.
type Place = ([u8; 16], u32);

#[derive(Default)]
struct State {
    /// Sizes by place.
    objects: BTreeMap<Place, u32>,
    names: HashMap<String, u32>,
    /// By the number of a name: names have the hash of the content, except one file of the
    /// cleaner, which is alone with its name.
    contents: Vec<(String, Bytes)>,
    counts: Counts,
}

/// The store. Clones share it. It lists one task, text, job or preview at a time; what lies below
/// a shorter prefix is not listed.
#[derive(Clone, Default)]
pub(crate) struct Bucket(Arc<Mutex<State>>);

/// How many parts of a key make up its object's folder.
fn depth(key: &str) -> usize {
    match key.split('/').next() {
        // Under the key of what they show.
        Some("previews") => 4,
        Some("embeddings") => 3,
        Some("cleaner") => 1,
        _ => 2,
    }
}

/// A key's folder, and what comes after it; `None` if the key does not reach it.
fn split(key: &str) -> Option<(&str, &str)> {
    let ends = key.match_indices('/').map(|(at, _)| at).chain([key.len()]);
    let end = ends.take(depth(key)).last()?;
    let parts = key.get(..end)?.split('/').count();
    let rest = key.get(end..)?;
    (parts == depth(key)).then(|| (&key[..end], rest.strip_prefix('/').unwrap_or(rest)))
}

fn folder(name: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&Digest::of(name.as_bytes()).0[..16]);
    short
}

impl State {
    fn name(&mut self, name: &str, content: &Bytes) -> u32 {
        if let Some(number) = self.names.get(name) {
            return *number;
        }
        let number = u32::try_from(self.contents.len()).expect("few names");
        self.contents.push((name.to_owned(), content.clone()));
        self.names.insert(name.to_owned(), number);
        number
    }

    fn place(&self, key: &str) -> Option<Place> {
        let (in_folder, name) = split(key)?;
        Some((folder(in_folder), *self.names.get(name)?))
    }

    fn add(&mut self, key: &str, content: &Bytes) -> bool {
        let (in_folder, name) = split(key).expect("a farm's key");
        let place = (folder(in_folder), self.name(name, content));
        let size = u32::try_from(content.len()).expect("small");
        self.objects.insert(place, size).is_none()
    }

    /// Names and sizes of what lies in a folder.
    fn below(&self, in_folder: &str) -> Vec<(u32, u32)> {
        let of = folder(in_folder);
        self.objects.range((of, 0)..=(of, u32::MAX)).map(|(place, size)| (place.1, *size)).collect()
    }
}

impl Bucket {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an object that somebody stored without a call.
    pub(crate) fn add(&self, key: &str, content: &Bytes) {
        self.state().add(key, content);
    }

    /// Whether an object is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        let state = self.state();
        state.place(key).is_some_and(|place| state.objects.contains_key(&place))
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.state();
        Counts { live: state.objects.len() as u64, ..state.counts }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.counts()).finish()
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bucket that counts")
    }
}

fn meta(location: Path, size: u32) -> ObjectMeta {
    // All of them are very old.
    let last_modified = Default::default();
    ObjectMeta { location, last_modified, size: u64::from(size), e_tag: None, version: None }
}

fn missing(path: &Path) -> Error {
    Error::NotFound { path: path.to_string(), source: "no such object".into() }
}

fn unused() -> Error {
    Error::NotImplemented { operation: "this".into(), implementer: "a bucket that counts".into() }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let content = Bytes::from(payload);
        let mut state = self.state();
        state.counts.puts += 1;
        let place = state.place(path.as_ref());
        let is_there = place.is_some_and(|place| state.objects.contains_key(&place));
        if is_there && matches!(options.mode, PutMode::Create) {
            let (path, source) = (path.to_string(), "it is there".into());
            return Err(Error::AlreadyExists { path, source });
        }
        state.add(path.as_ref(), &content);
        if let Some((_, name)) = state.place(path.as_ref()) {
            state.contents[name as usize].1 = content;
        }
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(unused())
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let mut state = self.state();
        state.counts.gets += 1;
        let place = state.place(path.as_ref()).ok_or_else(|| missing(path))?;
        let size = *state.objects.get(&place).ok_or_else(|| missing(path))?;
        let content =
            if options.head { Bytes::new() } else { state.contents[place.1 as usize].1.clone() };
        let range: Range<u64> = 0..u64::from(size);
        let payload = GetResultPayload::Stream(stream::iter([Ok(content)]).boxed());
        let meta = meta(path.clone(), size);
        Ok(GetResult {
            payload,
            meta,
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let bucket = self.clone();
        let delete = move |path: Result<Path>| {
            let path = path?;
            let mut state = bucket.state();
            state.counts.deletes += 1;
            if let Some(place) = state.place(path.as_ref()) {
                state.objects.remove(&place);
            }
            Ok(path)
        };
        paths.map(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let mut state = self.state();
        state.counts.lists += 1;
        let prefix = prefix.map(Path::as_ref).unwrap_or_default();
        let Some((in_folder, rest)) = split(prefix) else { return stream::empty().boxed() };
        let found = state.below(in_folder).into_iter().filter_map(|(name, size)| {
            let name = state.contents.get(name as usize)?.0.as_str();
            let is_below = rest.is_empty()
                || name.strip_prefix(rest).is_some_and(|name| name.starts_with('/'));
            is_below.then(|| Ok(meta(Path::from(format!("{in_folder}/{name}")), size)))
        });
        stream::iter(found.collect::<Vec<_>>()).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(unused())
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(unused())
    }
}
