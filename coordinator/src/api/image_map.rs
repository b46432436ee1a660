//! The states of all images of a job as runs, and changes since a version.

use darkroom_core::{error::UserError, id::JobId};
use darkroom_farm_api::Caller;
use darkroom_proto::v1;

use super::{Farm, convert, refused};
use crate::{
    error::Error,
    store::image_map::{MAP_PART, MapRun, Runs},
};

/// Images per answer.
const MAX_IMAGES: u64 = 1 << 20;
/// Runs per answer: as many as one read can have, so that each answer makes progress.
const MAX_RUNS: usize = MAP_PART as usize;
/// Most changed images that are reported alone. With more, the whole map is sent.
const MAX_CHANGES: u32 = 20_000;
/// Factor of a stage's position in a code.
const STATES: u32 = 8;

impl Farm {
    pub(super) async fn image_map(
        &self,
        caller: &Caller,
        request: v1::GetImageMapRequest,
    ) -> Result<v1::GetImageMapResponse, Error> {
        let id = self.job_of(caller, "job_id", &request.job_id).await?;
        let (first, since) = (request.first_index, request.since_version);
        if since > 0 {
            let changes = self.front.map_changes(id, since, MAX_CHANGES).await?;
            if let Some(part) = changes {
                if since > part.version {
                    let message =
                        format!("since_version is {since}; accepted: 0 to {}", part.version);
                    return Err(refused(UserError::invalid("since_version", message)));
                }
                check_first(first, part.images)?;
                let told = v1::GetImageMapResponse {
                    version: part.version,
                    images: part.images,
                    first_index: first,
                    stages: self.names(id).await?,
                    ..Default::default()
                };
                return Ok(packed(told, &behind(part.runs, first)));
            }
        }
        self.shared.maps.get((id, first), since, || self.read_map(id, first)).await
    }

    /// Reads a map in parts. Each part is consistent, and at least as new as the reported version.
    async fn read_map(&self, id: JobId, first: u64) -> Result<v1::GetImageMapResponse, Error> {
        let mut part = self.front.map_part(id, first).await?;
        let (version, images) = (part.version, part.images);
        check_first(first, images)?;
        let end = images.min(first.saturating_add(MAX_IMAGES));
        let (mut runs, mut next) = (Runs::default(), first);
        loop {
            if runs.len() + part.runs.len() > MAX_RUNS {
                break;
            }
            part.runs.into_iter().for_each(|run| runs.push(run));
            next += u64::from(MAP_PART);
            if next >= end {
                break;
            }
            part = self.front.map_part(id, next).await?;
        }
        let told = v1::GetImageMapResponse {
            version,
            images,
            first_index: first,
            whole: true,
            stages: self.names(id).await?,
            next_index: if next < images { next } else { 0 },
            ..Default::default()
        };
        Ok(packed(told, &runs.into_vec()))
    }

    async fn names(&self, id: JobId) -> Result<Vec<String>, Error> {
        let names = self.stage_names.of(self.front.as_ref(), id).await?;
        Ok(names.iter().map(ToString::to_string).collect())
    }
}

fn check_first(first: u64, images: u64) -> Result<(), Error> {
    if first <= images {
        return Ok(());
    }
    let message = format!("first_index is {first}; accepted: 0 to {images}");
    Err(refused(UserError::invalid("first_index", message)))
}

/// The part of these runs from an index on.
fn behind(runs: Vec<MapRun>, first: u64) -> Vec<MapRun> {
    let cut = |run: MapRun| {
        let start = run.first.max(first);
        let count = (run.first + run.count).checked_sub(start).filter(|count| *count > 0)?;
        Some(MapRun { first: start, count, ..run })
    };
    runs.into_iter().filter_map(cut).collect()
}

/// The answer with its runs.
fn packed(mut told: v1::GetImageMapResponse, runs: &[MapRun]) -> v1::GetImageMapResponse {
    let mut next = told.first_index;
    for run in runs {
        told.skips.push(run.first.saturating_sub(next));
        told.lengths.push(run.count);
        told.codes.push(code(run));
        next = run.first + run.count;
    }
    if told.skips.iter().all(|skip| *skip == 0) {
        told.skips.clear();
    }
    told
}

fn code(run: &MapRun) -> u32 {
    let state = u32::try_from(convert::image_state(run.state) as i32).unwrap_or(0);
    state + STATES * u32::try_from(run.stage).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use darkroom_core::image_state::ImageState;
    use darkroom_proto::json;
    use flate2::{Compression, write::GzEncoder};
    use prost::Message as _;

    use super::*;

    fn run(first: u64, count: u64, state: ImageState, stage: usize) -> MapRun {
        MapRun { first, count, state, stage }
    }

    #[test]
    fn codes_say_state_and_stage_and_skips_what_did_not_change() {
        use ImageState::{Dead, Done, Ready};
        let runs = [run(2, 3, Done, 0), run(5, 1, Dead, 2), run(9, 4, Ready, 1)];
        let told = packed(v1::GetImageMapResponse::default(), &runs);
        assert_eq!(told.codes, [4, 5 + 16, 2 + 8]);
        assert_eq!((&told.lengths[..], &told.skips[..]), (&[3, 1, 4][..], &[2, 0, 3][..]));
        let whole =
            packed(v1::GetImageMapResponse { first_index: 2, ..Default::default() }, &runs[..2]);
        assert_eq!((whole.lengths.len(), whole.skips.len()), (2, 0));
        assert_eq!(behind(runs.to_vec(), 4), [run(4, 1, Done, 0), runs[1], runs[2]]);
    }

    /// A running job of three stages with a million images. Most of the first half are done, with
    /// some failures. Then come batches of eight in different stages, then ready images, and last
    /// those whose texts are being encoded.
    fn in_full_swing() -> Vec<MapRun> {
        let mut state = 7_u64;
        let mut roll = |sides: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % sides
        };
        let mut runs = Runs::default();
        let mut index = 0;
        while index < 1_000_000_u64 {
            let (count, state, stage) = match index {
                0..500_000 if roll(200) == 0 => (1, ImageState::Dead, 2),
                0..500_000 => (1, ImageState::Done, 0),
                500_000..700_000 => {
                    let stage = usize::try_from(roll(3)).expect("small");
                    let state = [ImageState::Done, ImageState::Ready, ImageState::Dispatched];
                    let state = state[usize::try_from(roll(3)).expect("small")];
                    (1 + roll(8), state, stage)
                }
                700_000..900_000 => (1, ImageState::Ready, 0),
                _ if roll(2) == 0 => (4, ImageState::Ready, 0),
                _ => (4, ImageState::Waiting, 0),
            };
            let count = count.min(1_000_000 - index);
            runs.push(run(index, count, state, stage));
            index += count;
        }
        runs.into_vec()
    }

    #[test]
    fn a_million_images_take_at_most_200_kb_compressed() {
        let runs = in_full_swing();
        assert!(runs.len() > 40_000, "{} runs are too easy", runs.len());
        assert_eq!(runs.iter().map(|run| run.count).sum::<u64>(), 1_000_000);
        let told = packed(
            v1::GetImageMapResponse {
                version: 123_456,
                images: 1_000_000,
                whole: true,
                stages: ["base", "sr256", "sr1024"].map(str::to_owned).to_vec(),
                ..Default::default()
            },
            &runs,
        );
        let zipped = |bytes: &[u8]| {
            let mut zip = GzEncoder::new(Vec::new(), Compression::default());
            zip.write_all(bytes).expect("in memory");
            zip.finish().expect("in memory").len()
        };
        let on_the_wire = zipped(&told.encode_to_vec());
        assert!(on_the_wire <= 200_000, "{on_the_wire} bytes");
        let form = json::GetImageMapResponse::from(told);
        let as_json = zipped(&serde_json::to_vec(&form).expect("JSON"));
        assert!(as_json <= 200_000, "{as_json} bytes");
    }
}
