//! Sheets: the thumbnails of a range of images in one PNG, so that a page with a thousand tiles
//! needs one call.
//!
//! A call reads a limited number of bytes, and makes tiles for a limited time. Tiles beyond these
//! limits are marked "later". Finished tiles are kept, so the next call makes progress. A sheet
//! whose images have all ended is stored under `sheets/2/{digest of its content}/`.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use darkroom_artifacts::{
    picture::{EXTENSION, Raster},
    sheet::Sheet,
};
use darkroom_core::{
    artifact::ArtifactRef,
    digest::{Digest, FieldHasher},
    error::UserError,
    thumbnail::check_tile,
};
use darkroom_farm_api::{Caller, Outgoing};
use darkroom_proto::v1;
use futures::{Stream, StreamExt as _, stream};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::{
    Farm,
    fetch::{chunks, position},
    refused,
    stage_names::names,
};
use crate::{
    error::Error,
    previews::Fault,
    store::records::{ImageOrder, ImageQuery, ImageRecord, JobRecord, Output},
};

/// Default edge of a tile.
const TILE: u32 = 64;
/// Most tiles of a sheet.
const MAX_TILES: u32 = 1024;
/// Most pixels of a sheet: 1,024 tiles of 64 × 64.
const MAX_PIXELS: u32 = 1 << 22;
/// Longest side of a sheet, pixels.
const MAX_SIDE: u32 = 16_384;
/// Most bytes that are read for one sheet.
const BUDGET: u64 = 256 << 20;
/// Time for making tiles, including the wait for a permit: a third of a call's time limit.
const MAKING: Duration = Duration::from_secs(10);
/// Tiles that are made at one time.
const AT_ONCE: usize = 16;

/// The requested grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    tile: u32,
    columns: u32,
    tiles: u32,
}

/// A finished sheet.
struct Made {
    png: Bytes,
    sha256: Digest,
    tiles: Vec<v1::SheetTile>,
}

impl Farm {
    pub(super) async fn sheet(
        &self,
        caller: &Caller,
        request: v1::FetchSheetRequest,
    ) -> Result<Outgoing<v1::FetchSheetChunk>, Error> {
        Grid::of(&request, request.count).map_err(refused)?;
        let id = self.job_of(caller, "job_id", &request.job_id).await?;
        let job = self.front.job(id).await?;
        let first = request.first_index;
        let Some(there) = job.images.checked_sub(first).filter(|there| *there > 0) else {
            let message =
                format!("first_index is {first}; accepted: 0 to {}", job.images.saturating_sub(1));
            return Err(refused(UserError::invalid("first_index", message)));
        };
        let count = u32::try_from(there).unwrap_or(u32::MAX).min(request.count);
        let grid = Grid::of(&request, count).map_err(refused)?;
        let stage = match request.stage.as_str() {
            "" => None,
            name => Some(position(&names(&job), name).map_err(refused)?),
        };
        let order = ImageOrder::Index(first.checked_sub(1));
        let query = ImageQuery::all(id, order, grid.tiles);
        let images = self.front.images(&query).await?.images;
        let mut shown: Vec<Option<ArtifactRef>> = vec![None; grid.tiles as usize];
        for image in &images {
            let position = usize::try_from(image.id.index - first).unwrap_or(usize::MAX);
            if let Some(tile) = shown.get_mut(position) {
                *tile = output(&job, image, (grid.tile, stage)).map(|out| out.artifact.clone());
            }
        }
        let is_final = images.len() == shown.len()
            && images.iter().all(|image| image.progress.state.terminal());
        let made = if is_final {
            self.finished_sheet(grid, &shown).await?
        } else {
            self.compose(grid, &shown).await?
        };
        let header = v1::Sheet {
            first_index: first,
            tile: grid.tile,
            columns: grid.columns,
            rows: grid.rows(),
            tiles: made.tiles.into_iter().map(i32::from).collect(),
            version: job.version,
        };
        Ok(stream_of(made.png, made.sha256, header))
    }

    /// A sheet that changes only if its job is retried. Takes the stored one, or makes and stores
    /// it.
    async fn finished_sheet(
        &self,
        grid: Grid,
        shown: &[Option<ArtifactRef>],
    ) -> Result<Made, Error> {
        let digest = grid.digest(shown);
        let prefix = format!("sheets/2/{digest}/");
        let previews = &self.shared.previews;
        let known = match previews.sheets.get(&digest).await {
            Some(known) => self.shared.artifacts.get(&known).await.ok().map(|png| (known, png)),
            None => None,
        };
        let known = match known {
            Some(known) => Some(known),
            None => self.shared.artifacts.find_content(&prefix, EXTENSION).await?,
        };
        if let Some((artifact, png)) = known {
            let sha256 = artifact.sha256;
            previews.sheets.insert(digest, artifact).await;
            let tile = |shown: &Option<ArtifactRef>| match shown {
                Some(_) => v1::SheetTile::Filled,
                None => v1::SheetTile::Empty,
            };
            return Ok(Made { png, sha256, tiles: shown.iter().map(tile).collect() });
        }
        let made = self.compose(grid, shown).await?;
        let is_whole =
            |tile: &v1::SheetTile| matches!(tile, v1::SheetTile::Filled | v1::SheetTile::Empty);
        if made.tiles.iter().all(is_whole) {
            let stored =
                self.shared.artifacts.put_content(&prefix, EXTENSION, made.png.clone()).await?;
            previews.sheets.insert(digest, stored).await;
        }
        Ok(made)
    }

    async fn compose(&self, grid: Grid, shown: &[Option<ArtifactRef>]) -> Result<Made, Error> {
        let until = Instant::now() + MAKING;
        let previews = &self.shared.previews;
        let turn = timeout_at(until, previews.composing.acquire()).await;
        // Without a permit no tile is made. All such calls wait here for their empty sheets.
        let is_late = turn.is_err();
        let _turn = match turn {
            Ok(turn) => turn.map_err(Error::other)?,
            Err(_) => previews.empty_sheets.acquire().await.map_err(Error::other)?,
        };
        let (mut tiles, mut wanted) =
            chosen(shown, |source| previews.cost(source, grid.tile), BUDGET);
        if is_late {
            wanted.clear();
        }
        let mut sheet = Sheet::new(grid.tile, grid.columns, grid.tiles);
        let making = |(position, source): (u32, ArtifactRef)| async move {
            (position, previews.tile(self.shared.source(), &source, grid.tile).await)
        };
        let making = stream::iter(wanted).map(making).buffer_unordered(AT_ONCE);
        fill(&mut sheet, &mut tiles, making, until).await?;
        let encoding = spawn_blocking(move || {
            let png = Bytes::from(sheet.to_png()?);
            let sha256 = Digest::of(&png);
            Ok::<_, darkroom_artifacts::picture::Error>((png, sha256))
        });
        let (png, sha256) = encoding.await.map_err(Error::other)?.map_err(Error::other)?;
        Ok(Made { png, sha256, tiles })
    }
}

impl Grid {
    /// The grid of a request with this many tiles.
    fn of(request: &v1::FetchSheetRequest, tiles: u32) -> Result<Self, UserError> {
        let tile = if request.tile == 0 { TILE } else { request.tile };
        check_tile(tile, TILE)?;
        let most = (MAX_PIXELS / (tile * tile)).min(MAX_TILES);
        if tiles == 0 || tiles > most {
            return Err(UserError::invalid(
                "count",
                format!("count is {tiles}; accepted: 1 to {most} with tiles of {tile} pixels"),
            ));
        }
        let wanted = request.columns;
        let square = (1..=tiles).find(|side| side * side >= tiles).unwrap_or(tiles);
        let columns = if wanted == 0 { square } else { wanted.min(tiles) };
        let side = MAX_SIDE / tile;
        let least = tiles.div_ceil(side);
        if wanted > request.count || columns > side || columns < least {
            return Err(UserError::invalid(
                "columns",
                format!(
                    "columns is {wanted}; accepted: {least} to {} with {tiles} tiles of {tile} pixels, or 0",
                    side.min(request.count)
                ),
            ));
        }
        Ok(Self { tile, columns, tiles })
    }

    fn rows(self) -> u32 {
        self.tiles.div_ceil(self.columns)
    }

    /// Identity of a sheet: equal digests, equal pixels. Outputs count by their keys, as in
    /// previews.
    fn digest(self, shown: &[Option<ArtifactRef>]) -> Digest {
        let mut hasher = FieldHasher::new("sheet/2")
            .field(&self.tile.to_le_bytes())
            .field(&self.columns.to_le_bytes());
        for source in shown {
            hasher = hasher.field(source.as_ref().map_or(&[][..], |source| source.key.as_bytes()));
        }
        hasher.finish()
    }
}

/// The state of each tile before any is made, and the tiles that a call has room for, with their
/// positions. There is always room for one, of any size.
fn chosen(
    shown: &[Option<ArtifactRef>],
    cost: impl Fn(&ArtifactRef) -> u64,
    mut budget: u64,
) -> (Vec<v1::SheetTile>, Vec<(u32, ArtifactRef)>) {
    let (mut tiles, mut wanted) = (Vec::with_capacity(shown.len()), Vec::new());
    for (position, source) in (0..).zip(shown) {
        let Some(source) = source else {
            tiles.push(v1::SheetTile::Empty);
            continue;
        };
        tiles.push(v1::SheetTile::Later);
        let cost = cost(source);
        if cost <= budget || wanted.is_empty() {
            budget = budget.saturating_sub(cost);
            wanted.push((position, source.clone()));
        }
    }
    (tiles, wanted)
}

/// Places tiles as they are made, until all are made or the time is over. Always waits for the
/// first one, so that every call with a permit makes progress.
async fn fill(
    sheet: &mut Sheet,
    tiles: &mut [v1::SheetTile],
    making: impl Stream<Item = (u32, Result<Arc<Raster>, Fault>)>,
    until: Instant,
) -> Result<(), Error> {
    let mut making = pin!(making);
    let mut next = making.next().await;
    while let Some((position, tile)) = next {
        let state = match tile {
            Ok(tile) => {
                sheet.place(position, &tile).map_err(Error::other)?;
                v1::SheetTile::Filled
            }
            Err(Fault::Lost) => v1::SheetTile::Lost,
            Err(Fault::Failed(error)) => return Err(error),
        };
        if let Some(tile) = tiles.get_mut(position as usize) {
            *tile = state;
        }
        // Tiles that are not made by then stay "later".
        if Instant::now() >= until {
            break;
        }
        next = timeout_at(until, making.next()).await.unwrap_or_default();
    }
    Ok(())
}

/// The output of an image that its tile shows: that of the requested stage. Without a request, the
/// first one at least as large as a tile, or the last.
fn output<'a>(
    job: &JobRecord,
    image: &'a ImageRecord,
    (tile, stage): (u32, Option<usize>),
) -> Option<&'a Output> {
    if let Some(stage) = stage {
        return image.outputs.iter().find(|output| output.stage == stage);
    }
    let is_enough = |output: &&Output| {
        let settings = image.settings.as_deref().unwrap_or(&job.settings);
        let extent = settings.stages.get(output.stage).map(|stage| stage.extent());
        extent.is_some_and(|extent| extent.width.max(extent.height) >= tile)
    };
    image.outputs.iter().find(is_enough).or(image.outputs.last())
}

/// The messages of a sheet; the first one describes its content.
fn stream_of(png: Bytes, sha256: Digest, header: v1::Sheet) -> Outgoing<v1::FetchSheetChunk> {
    let total = png.len() as u64;
    let mut header = Some(header);
    let messages = chunks(&png).into_iter().map(move |data| {
        let sheet = header.take();
        let is_first = sheet.is_some();
        Ok(v1::FetchSheetChunk {
            data: data.to_vec(),
            total_bytes: if is_first { total } else { 0 },
            sha256: if is_first { sha256.to_string() } else { String::new() },
            sheet,
        })
    });
    Box::pin(tokio_stream::iter(messages))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(count: u32, tile: u32, columns: u32) -> v1::FetchSheetRequest {
        v1::FetchSheetRequest { count, tile, columns, ..Default::default() }
    }

    #[test]
    fn a_grid_is_about_square_unless_columns_are_asked_for() {
        for ((count, tile, columns), (expected_tile, expected_columns, rows)) in [
            ((1, 0, 0), (64, 1, 1)),
            ((10, 0, 0), (64, 4, 3)),
            ((1024, 64, 0), (64, 32, 32)),
            ((256, 128, 0), (128, 16, 16)),
            ((10, 16, 5), (16, 5, 2)),
            ((1000, 16, 1000), (16, 1000, 1)),
        ] {
            let grid = Grid::of(&request(count, tile, columns), count).expect("accepted");
            assert_eq!(
                (grid.tile, grid.columns, grid.rows()),
                (expected_tile, expected_columns, rows)
            );
        }
        let last = Grid::of(&request(100, 0, 50), 3).expect("a job's end has fewer tiles");
        assert_eq!((last.columns, last.rows()), (3, 1));
    }

    #[test]
    fn what_is_too_much_is_refused_by_field() {
        for (count, tile, columns, field) in [
            (0, 0, 0, "count"),
            (1025, 0, 0, "count"),
            (257, 128, 0, "count"),
            (1025, 16, 0, "count"),
            (10, 15, 0, "tile"),
            (10, 129, 0, "tile"),
            (10, 0, 11, "columns"),
            (1024, 64, 1024, "columns"),
            (1024, 64, 1, "columns"),
        ] {
            let error = Grid::of(&request(count, tile, columns), count).expect_err(field);
            assert_eq!(error.field.as_deref(), Some(field), "{error}");
            assert!(error.message.contains("accepted: "), "{error}");
        }
    }

    fn source(name: &str, size: u64) -> ArtifactRef {
        ArtifactRef { key: name.to_owned(), sha256: Digest::of(name.as_bytes()), size }
    }

    #[test]
    fn tiles_beyond_the_bytes_of_a_call_are_for_later_and_one_is_always_made() {
        use v1::SheetTile::{Empty, Later};
        let sizes = [Some(90), None, Some(20), Some(10), Some(1)];
        let shown: Vec<_> = sizes.iter().map(|size| size.map(|size| source("k", size))).collect();
        let places = |budget: u64| {
            let (tiles, wanted) = chosen(&shown, |source| source.size, budget);
            assert_eq!(tiles, [Later, Empty, Later, Later, Later], "until they are made");
            wanted.iter().map(|(position, _)| *position).collect::<Vec<_>>()
        };
        assert_eq!(places(1000), [0, 2, 3, 4]);
        assert_eq!(places(100), [0, 3]);
        assert_eq!(places(5), [0], "larger than the budget");
    }

    #[tokio::test(start_paused = true)]
    async fn tiles_that_take_too_long_are_for_later() {
        use v1::SheetTile::{Empty, Filled, Later, Lost};
        let raster = Arc::new(Raster { width: 1, height: 1, rgb: vec![7; 3] });
        let made = |(position, seconds): (u32, u64)| {
            let tile = if position == 2 { Err(Fault::Lost) } else { Ok(Arc::clone(&raster)) };
            async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                (position, tile)
            }
        };
        let mut sheet = Sheet::new(16, 5, 5);
        let mut tiles = vec![Later, Later, Later, Empty, Later];
        let began = Instant::now();
        let making = stream::iter([(0, 1), (1, 3600), (2, 2), (4, 9)]).map(made);
        fill(&mut sheet, &mut tiles, making.buffer_unordered(AT_ONCE), began + MAKING)
            .await
            .expect("a sheet");
        assert_eq!(tiles, [Filled, Later, Lost, Empty, Filled]);
        assert!(began.elapsed() < MAKING + Duration::from_millis(10));

        let mut tiles = vec![Later; 2];
        let making = stream::iter([(0, 12), (1, 13)]).map(made);
        fill(&mut sheet, &mut tiles, making.buffer_unordered(AT_ONCE), Instant::now() + MAKING)
            .await
            .expect("a sheet");
        assert_eq!(tiles, [Filled, Later], "one is always made");
    }

    #[test]
    fn a_sheet_is_known_by_what_it_shows() {
        let grid = Grid { tile: 64, columns: 2, tiles: 2 };
        let shows = |name: &[u8]| {
            let key = format!("tasks/task/{}", String::from_utf8_lossy(name));
            Some(ArtifactRef { key, sha256: Digest::of(b"equal"), size: 1 })
        };
        let (a, b) = (shows(b"a"), shows(b"b"));
        let digests = [
            grid.digest(&[a.clone(), b.clone()]),
            grid.digest(&[b.clone(), a.clone()]),
            grid.digest(&[a.clone(), None]),
            grid.digest(&[None, a.clone()]),
            Grid { columns: 1, ..grid }.digest(&[a.clone(), b.clone()]),
            Grid { tile: 32, ..grid }.digest(&[a, b]),
        ];
        let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), digests.len());
    }
}
