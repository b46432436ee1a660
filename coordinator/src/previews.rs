//! Previews of stages' outputs, made on request: a tensor becomes a PNG, and a large picture a
//! thumbnail.
//!
//! A preview is kept in object storage under `previews/3/{its source's key}/{edge}/`, and made
//! again if it is missing. The key names the task, so what sealed jobs of two tenants made has
//! two previews, even if it is equal: a preview that is there at once tells nothing. If many calls
//! ask for the same preview at once, a process makes it once. If a source is gone, the call fails,
//! and the image is not affected.
//!
//! Memory is bounded by the limit for decoding pictures, and work by permits for half of the cores.

use std::sync::Arc;

use bytes::Bytes;
use darkroom_artifacts::{
    Error as ArtifactError,
    picture::{self, EXTENSION, MAX_FILE_BYTES, Raster},
    tensor::{self, FloatTensor},
};
use darkroom_core::{artifact::ArtifactRef, digest::Digest, thumbnail::EDGES};
use moka::future::Cache;
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{
    decoding::{DECODING_MIB, Source},
    error::Error,
    store::{self, removal::preview_prefix},
};

/// Longer edge, in pixels, of the previews that are kept when their output is removed. Nothing else
/// of it can be seen then.
pub(crate) const KEPT_EDGE: u32 = 64;
/// Previews whose key is remembered.
const REMEMBERED: u64 = 20_000;
/// Most bytes of tiles that are kept in memory.
const TILES: u64 = 32 << 20;
/// Largest source, in bytes, that becomes a tile without a preview in between.
const DIRECT: u64 = 256 << 10;
/// Approximate bytes of a preview.
const PREVIEW: u64 = 32 << 10;
/// Sheets that are composed at one time.
const SHEETS: usize = 4;
/// Smallest memory that is reserved to decode a picture's file, in bytes, because a small file may
/// decode to much more.
const LEAST: u64 = 16 << 20;

/// Why there is no preview.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Its source is gone from storage, or damaged there.
    Lost,
    /// Anything else.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        match error.into() {
            Error::Artifacts(ArtifactError::Missing { .. } | ArtifactError::Corrupt { .. }) => {
                Self::Lost
            }
            error => Self::Failed(error),
        }
    }
}

/// The requested size of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// Its own size.
    Own,
    /// With a longer edge of at most this many pixels.
    Within(u32),
    /// With a longer edge of exactly this many pixels.
    Exactly(u32),
}

/// The known previews, and permits to make others.
pub(crate) struct Previews {
    /// By source and longer edge; 0: the source's own.
    known: Cache<(Digest, u32), ArtifactRef>,
    tiles: Cache<(Digest, u32), Arc<Raster>>,
    /// Finished sheets by their content.
    pub(crate) sheets: Cache<Digest, ArtifactRef>,
    turns: Arc<Semaphore>,
    /// Permits to compose sheets.
    pub(crate) composing: Semaphore,
    /// Permits for calls that got no other permit in time, and answer with an empty sheet.
    pub(crate) empty_sheets: Semaphore,
}

impl Default for Previews {
    fn default() -> Self {
        let turns = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2).max(1);
        let weight = |_: &(Digest, u32), tile: &Arc<Raster>| {
            u32::try_from(tile.rgb.len()).unwrap_or(u32::MAX)
        };
        Self {
            known: Cache::new(REMEMBERED),
            tiles: Cache::builder().max_capacity(TILES).weigher(weight).build(),
            sheets: Cache::new(REMEMBERED),
            turns: Arc::new(Semaphore::new(turns)),
            composing: Semaphore::new(SHEETS),
            empty_sheets: Semaphore::new(1),
        }
    }
}

/// Identity of a source. Its key names its task and its content.
pub(crate) fn identity(source: &ArtifactRef) -> Digest {
    Digest::of(source.key.as_bytes())
}

impl Previews {
    /// The bytes of a source's preview, and its artifact. `edge` 0: not scaled; a PNG source is
    /// then its own preview.
    pub(crate) async fn read(
        &self,
        storage: Source<'_>,
        source: &ArtifactRef,
        edge: u32,
    ) -> Result<(ArtifactRef, Bytes), Fault> {
        let preview = self.find(storage, source, edge).await?;
        match storage.artifacts.get(&preview).await {
            Ok(bytes) => Ok((preview, bytes)),
            // It was deleted meanwhile.
            Err(error) if preview != *source && !error.retryable() => {
                let preview = self.find_anew(storage, source, edge).await?;
                let bytes = storage.artifacts.get(&preview).await?;
                Ok((preview, bytes))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The artifact of a source's preview, checked to exist.
    pub(crate) async fn place(
        &self,
        storage: Source<'_>,
        source: &ArtifactRef,
        edge: u32,
    ) -> Result<ArtifactRef, Fault> {
        let preview = self.find(storage, source, edge).await?;
        match storage.artifacts.size_of(&preview.key).await {
            Ok(size) if size == preview.size => Ok(preview),
            Err(error) if error.retryable() => Err(error.into()),
            _ if preview == *source => Err(Fault::Lost),
            _ => self.find_anew(storage, source, edge).await,
        }
    }

    /// A source as a tile of a sheet, with a longer edge of `edge` pixels.
    pub(crate) async fn tile(
        &self,
        storage: Source<'_>,
        source: &ArtifactRef,
        edge: u32,
    ) -> Result<Arc<Raster>, Fault> {
        let making = async {
            let size = Size::Exactly(edge);
            if source.size <= DIRECT {
                return self.pixels(storage, source, size).await.map(Arc::new);
            }
            let preview = self.find(storage, source, edge_for(edge)).await.map_err(unless_lost)?;
            match self.pixels(storage, &preview, size).await {
                Err(Error::Artifacts(error)) if !error.retryable() => {
                    let anew = self.find_anew(storage, source, edge_for(edge)).await;
                    self.pixels(storage, &anew.map_err(unless_lost)?, size).await.map(Arc::new)
                }
                made => made.map(Arc::new),
            }
        };
        let made = self.tiles.try_get_with((identity(source), edge), making).await;
        made.map_err(|error| told(&error))
    }

    /// About how many bytes must be read to make a tile.
    pub(crate) fn cost(&self, source: &ArtifactRef, edge: u32) -> u64 {
        if self.tiles.contains_key(&(identity(source), edge)) {
            0
        } else if self.known.contains_key(&(identity(source), edge_for(edge))) {
            source.size.min(PREVIEW)
        } else {
            source.size
        }
    }

    async fn find_anew(
        &self,
        storage: Source<'_>,
        source: &ArtifactRef,
        edge: u32,
    ) -> Result<ArtifactRef, Fault> {
        self.known.invalidate(&(identity(source), edge)).await;
        self.find(storage, source, edge).await
    }

    /// The artifact of a source's preview; it existed when this process last checked.
    async fn find(
        &self,
        storage: Source<'_>,
        source: &ArtifactRef,
        edge: u32,
    ) -> Result<ArtifactRef, Fault> {
        if edge == 0 && !is_tensor(source) {
            return Ok(source.clone());
        }
        let making = async {
            let prefix = format!("{}{edge}/", preview_prefix(&source.key));
            let found = storage.artifacts.find_content(&prefix, EXTENSION).await?;
            if let Some((preview, _)) = found {
                return Ok(preview);
            }
            let size = if edge == 0 { Size::Own } else { Size::Within(edge) };
            let pixels = self.pixels(storage, source, size).await?;
            let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(Error::other)?;
            let encoding = spawn_blocking(move || {
                let png = pixels.to_png();
                drop(turn);
                png
            });
            let png = encoding.await.map_err(Error::other)?.map_err(Error::other)?;
            Ok(storage.artifacts.put_content(&prefix, EXTENSION, png.into()).await?)
        };
        let made = self.known.try_get_with((identity(source), edge), making).await;
        made.map_err(|error: Arc<Error>| told(&error))
    }

    /// Reads an artifact's pixels, within the memory limit for decoding.
    async fn pixels(
        &self,
        storage: Source<'_>,
        artifact: &ArtifactRef,
        size: Size,
    ) -> Result<Raster, Error> {
        if artifact.size > MAX_FILE_BYTES {
            let reason = format!("{} bytes are more than a picture has", artifact.size);
            return Err(ArtifactError::Corrupt { key: artifact.key.clone(), reason }.into());
        }
        let memory = if is_tensor(artifact) {
            // Memory for the file, its values, and the resulting bytes.
            3 * artifact.size
        } else {
            (8 * artifact.size).max(LEAST)
        };
        let mib = u32::try_from((memory >> 20).clamp(1, DECODING_MIB as u64)).unwrap_or(u32::MAX);
        let memory = Arc::clone(storage.decoding).acquire_many_owned(mib);
        let memory = memory.await.map_err(Error::other)?;
        let bytes = storage.artifacts.get(artifact).await?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(Error::other)?;
        let key = artifact.key.clone();
        let tensor = is_tensor(artifact);
        let decoding = spawn_blocking(move || {
            // The permits move into the task, because decoding continues even if the call ends.
            let made = decoded(&bytes, tensor, size);
            drop((memory, turn));
            made
        });
        let decoded = decoding.await.map_err(Error::other)?;
        decoded.map_err(|reason| ArtifactError::Corrupt { key, reason }.into())
    }
}

/// Whether it is a tensor for the next stage; otherwise it is a picture.
pub(crate) fn is_tensor(artifact: &ArtifactRef) -> bool {
    artifact.key.strip_suffix(tensor::EXTENSION).is_some_and(|rest| rest.ends_with('.'))
}

fn decoded(bytes: &[u8], is_tensor: bool, size: Size) -> Result<Raster, String> {
    let rgb = if is_tensor {
        let (tensor, _) = FloatTensor::from_bytes(bytes).map_err(|error| error.to_string())?;
        Raster::of(&tensor)
    } else {
        picture::decode(bytes).map(Raster::from)
    };
    let scaled = rgb.and_then(|rgb| match size {
        Size::Own => Ok(rgb),
        Size::Within(edge) => rgb.within(edge),
        Size::Exactly(edge) => rgb.scaled(edge),
    });
    scaled.map_err(|error| error.to_string())
}

/// The smallest preview edge that is at least the tile's edge.
fn edge_for(tile: u32) -> u32 {
    EDGES.into_iter().find(|edge| *edge >= tile).unwrap_or(0)
}

/// An error that is shared by several waiting calls.
fn told(error: &Arc<Error>) -> Fault {
    match &**error {
        Error::Artifacts(ArtifactError::Missing { .. } | ArtifactError::Corrupt { .. }) => {
            Fault::Lost
        }
        error => Fault::Failed(Error::Store(store::Error::Refused(error.to_user()))),
    }
}

/// Converts a fault to the same error.
fn unless_lost(fault: Fault) -> Error {
    match fault {
        Fault::Failed(error) => error,
        Fault::Lost => ArtifactError::Missing { key: String::new() }.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_is_made_of_the_least_preview_that_is_no_smaller() {
        for (tile, edge) in [(16, 16), (17, 32), (64, 64), (65, 128), (128, 128)] {
            assert_eq!(edge_for(tile), edge);
        }
    }

    #[test]
    fn what_is_handed_on_between_stages_is_told_by_its_extension() {
        let artifact =
            |key: &str| ArtifactRef { key: key.to_owned(), sha256: Digest::of(b""), size: 1 };
        assert!(is_tensor(&artifact("tasks/a/b.safetensors")));
        for key in ["tasks/a/b.png", "tasks/a/bsafetensors", "safetensors"] {
            assert!(!is_tensor(&artifact(key)), "{key}");
        }
    }
}
