//! A page of a job's images: which rows are read, in which order, and where the next page
//! continues. A backend reads the rows.
//!
//! With only an index or states, a page reads one more image than it returns. By version, it also
//! reads changes that it does not return, of images that have changed again since or are in other
//! states: ten for each image of its limit, but at least [`NOT_LISTED`]. With labels or a text, the
//! prompts are matched here and not in SQL, because databases disagree on upper-case letters. Then
//! a page reads at most [`LOOKED_AT`] rows. A page that stops early says where it stopped.

use std::collections::HashMap;

use async_trait::async_trait;
use darkroom_core::{image_state::ImageState, prompt_filter::PromptFilter};

use super::{
    Error,
    columns::{column, number},
    records::{ImageOrder, ImagePage, ImageQuery, ImageRecord, labels_from_json},
    roles::{LOOKED_AT, NOT_LISTED},
    row::row,
};

/// Rows per statement while it is not known how many of them match.
const CHUNK: u32 = 500;

row! {
    /// The parts of a prompt that a filter checks.
    pub(super) struct PromptWords {
        /// Index of its first image.
        pub(super) first_index: i64,
        /// Number of its images.
        pub(super) images: i64,
        text: String,
        custom_id: Option<String>,
        labels: Option<String>,
    }
}

/// An image at the time of a change.
pub(super) struct Changed {
    /// The change, and the image's index.
    pub(super) at: (i64, i64),
    /// Its state, if this is its last change.
    pub(super) state: Option<ImageState>,
}

/// The rows of one job, as of one moment.
#[async_trait]
pub(super) trait ImageRows: Send {
    /// Indices of at most this many images from an index on, in order. Only images in these
    /// distinct states; none: in any state. Reads little more than it returns.
    async fn indexes(
        &mut self,
        states: &[ImageState],
        from: i64,
        limit: u32,
    ) -> Result<Vec<i64>, Error>;

    /// At most this many changes after a version and an index, in order.
    async fn changes(&mut self, after: (i64, i64), limit: u32) -> Result<Vec<Changed>, Error>;

    /// At most this many prompts in order, from the one that has the image with this index.
    async fn prompts(&mut self, index: i64, limit: u32) -> Result<Vec<PromptWords>, Error>;

    /// The prompts of images, each once.
    async fn prompts_of(&mut self, indexes: &[i64]) -> Result<Vec<PromptWords>, Error>;

    /// The images with these indices, in this order.
    async fn read(&mut self, indexes: &[i64]) -> Result<Vec<ImageRecord>, Error>;
}

/// A page of images.
pub(super) async fn page(rows: &mut dyn ImageRows, query: &ImageQuery) -> Result<ImagePage, Error> {
    // More for a larger page, which takes longer anyway.
    let not_listed = query.limit.saturating_mul(10).max(NOT_LISTED);
    let changes = query.limit.saturating_add(not_listed).min(LOOKED_AT);
    let changes = if query.filter.is_empty() { changes } else { LOOKED_AT };
    page_within(rows, query, changes).await
}

/// The same for a watch, which cannot continue from a page without images. So it reads up to
/// [`LOOKED_AT`] changes.
pub(super) async fn watched(
    rows: &mut dyn ImageRows,
    query: &ImageQuery,
) -> Result<ImagePage, Error> {
    page_within(rows, query, LOOKED_AT).await
}

async fn page_within(
    rows: &mut dyn ImageRows,
    query: &ImageQuery,
    most_changes: u32,
) -> Result<ImagePage, Error> {
    let (indexes, next) = match query.order {
        ImageOrder::Index(after) => {
            let from = after.map_or(0, |after| column(after).saturating_add(1));
            if query.filter.is_empty() {
                by_index(rows, query, from).await?
            } else if query.states.is_empty() {
                by_prompt(rows, query, from).await?
            } else {
                by_state(rows, query, from).await?
            }
        }
        ImageOrder::Version(version, index) => {
            let after = match index {
                Some(index) => (column(version), column(index)),
                // From the first image of the next version on.
                None => (column(version).saturating_add(1), -1),
            };
            by_version(rows, query, after, most_changes).await?
        }
    };
    Ok(ImagePage { images: rows.read(&indexes).await?, next })
}

type Found = (Vec<i64>, Option<ImageOrder>);

async fn by_index(rows: &mut dyn ImageRows, query: &ImageQuery, from: i64) -> Result<Found, Error> {
    let mut indexes = rows.indexes(&query.states, from, query.limit + 1).await?;
    let more = indexes.len() > query.limit as usize;
    indexes.truncate(query.limit as usize);
    let next = indexes.last().filter(|_| more).map(|last| after(*last)).transpose()?;
    Ok((indexes, next))
}

/// Checks prompts. Their images are not checked one by one.
async fn by_prompt(
    rows: &mut dyn ImageRows,
    query: &ImageQuery,
    mut from: i64,
) -> Result<Found, Error> {
    let (mut indexes, mut left) = (Vec::new(), LOOKED_AT);
    while left > 0 {
        let chunk = CHUNK.min(left);
        let prompts = rows.prompts(from, chunk).await?;
        for prompt in &prompts {
            let end = prompt.first_index + prompt.images;
            if prompt.is_meant(&query.filter)? {
                for index in from.max(prompt.first_index)..end {
                    indexes.push(index);
                    if indexes.len() == query.limit as usize {
                        return Ok((indexes, Some(after(index)?)));
                    }
                }
            }
            from = end;
        }
        if prompts.len() < chunk as usize {
            return Ok((indexes, None));
        }
        left -= chunk;
    }
    Ok((indexes, Some(after(from - 1)?)))
}

/// Checks images in some states, and their prompts.
async fn by_state(
    rows: &mut dyn ImageRows,
    query: &ImageQuery,
    mut from: i64,
) -> Result<Found, Error> {
    let (mut indexes, mut left) = (Vec::new(), LOOKED_AT);
    while left > 0 {
        let chunk = CHUNK.min(left);
        let looked_at = rows.indexes(&query.states, from, chunk).await?;
        for index in meant(rows, &query.filter, &looked_at).await? {
            indexes.push(index);
            if indexes.len() == query.limit as usize {
                return Ok((indexes, Some(after(index)?)));
            }
        }
        match looked_at.last() {
            Some(last) if looked_at.len() == chunk as usize => from = last + 1,
            _ => return Ok((indexes, None)),
        }
        left -= chunk;
    }
    Ok((indexes, Some(after(from - 1)?)))
}

/// Checks at most `left` changes. Those that are no longer their image's last count as well.
async fn by_version(
    rows: &mut dyn ImageRows,
    query: &ImageQuery,
    mut from: (i64, i64),
    mut left: u32,
) -> Result<Found, Error> {
    let mut indexes = Vec::new();
    let mut chunk = query.limit + 1;
    while left > 0 {
        chunk = chunk.min(left);
        let looked_at = rows.changes(from, chunk).await?;
        let is_wanted = |change: &&Changed| {
            change
                .state
                .is_some_and(|state| query.states.is_empty() || query.states.contains(&state))
        };
        let wanted: Vec<i64> =
            looked_at.iter().filter(is_wanted).map(|change| change.at.1).collect();
        let meant = meant(rows, &query.filter, &wanted).await?;
        let mut meant = meant.into_iter().peekable();
        for change in looked_at.iter().filter(is_wanted) {
            if meant.next_if_eq(&change.at.1).is_none() {
                continue;
            }
            if indexes.len() == query.limit as usize {
                return Ok((indexes, Some(version(from)?)));
            }
            indexes.push(change.at.1);
            from = change.at;
        }
        match looked_at.last() {
            Some(last) if looked_at.len() == chunk as usize => from = last.at,
            _ => return Ok((indexes, None)),
        }
        if indexes.len() == query.limit as usize {
            break;
        }
        left -= chunk;
        chunk = (2 * chunk).clamp(1, CHUNK);
    }
    Ok((indexes, Some(version(from)?)))
}

/// The images whose prompts match a filter, in the same order.
async fn meant(
    rows: &mut dyn ImageRows,
    filter: &PromptFilter,
    indexes: &[i64],
) -> Result<Vec<i64>, Error> {
    if filter.is_empty() || indexes.is_empty() {
        return Ok(indexes.to_vec());
    }
    let mut prompts = rows.prompts_of(indexes).await?;
    prompts.sort_unstable_by_key(|prompt| prompt.first_index);
    let mut known: HashMap<usize, bool> = HashMap::new();
    let mut meant = Vec::new();
    for index in indexes {
        let place = prompts.partition_point(|prompt| prompt.first_index <= *index);
        let place = place.checked_sub(1);
        let place = place.ok_or_else(|| Error::Corrupt(format!("image {index} has no prompt")))?;
        let is_meant = match known.get(&place) {
            Some(is_meant) => *is_meant,
            None => prompts[place].is_meant(filter)?,
        };
        known.insert(place, is_meant);
        if is_meant {
            meant.push(*index);
        }
    }
    Ok(meant)
}

impl PromptWords {
    fn is_meant(&self, filter: &PromptFilter) -> Result<bool, Error> {
        let labels = labels_from_json(self.labels.as_deref())?;
        Ok(filter.accepts(&self.text, self.custom_id.as_deref(), &labels))
    }
}

fn after(index: i64) -> Result<ImageOrder, Error> {
    Ok(ImageOrder::Index(Some(number(index)?)))
}

fn version((version, index): (i64, i64)) -> Result<ImageOrder, Error> {
    Ok(if index < 0 {
        ImageOrder::Version(number(version - 1)?, None)
    } else {
        ImageOrder::Version(number(version)?, Some(number(index)?))
    })
}
