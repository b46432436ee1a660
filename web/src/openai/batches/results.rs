//! The results of a batch: one line of JSON for each request, in the order of its file. Those with
//! pictures are in one file, and those that failed in another.
//!
//! Whoever writes the results of a batch a second time, after a crash, writes the same bytes under
//! the same ids, unless somebody has retried or deleted a job since.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{Answer, Outgoing};
use darkroom_proto::{json, v1};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::{
    super::{
        answer::{About, Usage, begun, final_picture, inline, inner, text, written},
        order::{Delivery, Order},
        progress::failed_picture,
    },
    plan::{Read, Request, Work},
    progress::{Key, Progress},
    result_file::{ResultFile, Stored, forget},
    result_line::{Name, Unfinished},
};
use crate::links::of_the_farm;

/// Images that are listed at one time.
const PAGE: u32 = 1000;
/// How long links in results work: until most people have fetched them, seconds.
const LINKS: i64 = 7 * 24 * 3600;

/// What was written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Requests whose pictures are all done.
    pub(super) completed: u64,
    /// Requests that were never done.
    pub(super) cut_off: u64,
    /// The file of those with pictures; none if there are none.
    pub(super) output: Option<uuid::Uuid>,
    /// The file of all others; none if there are none.
    pub(super) errors: Option<uuid::Uuid>,
}

impl Work {
    /// Writes the results. `began_ms`: when that was decided, milliseconds since 1970. `None`: an
    /// earlier step has stored other ones, because somebody has retried or deleted a job since. Those
    /// are deleted now, and the next step has new ids.
    pub(super) async fn write_results(
        &self,
        progress: &Progress,
        unfinished: Unfinished,
        began_ms: i64,
    ) -> Answer<Option<Written>> {
        let mut jobs = self.images(progress).await?;
        let mut output = ResultFile::of(self.clone(), progress.output, "output");
        let mut errors = ResultFile::of(self.clone(), progress.errors, "errors");
        let mut lines = self.lines(progress.models.clone()).await?;
        let (mut completed, mut cut_off) = (0, 0);
        let refused_lines = progress.refused_lines();
        let ends = began_ms / 1000 + LINKS;
        while let Some((_, read)) = lines.next().await {
            // The file was read before, so each line can be.
            let Read { number, custom_id, request } = read?;
            let name = Name::of(self, number, custom_id);
            let Request { key, order, .. } = match request {
                Ok(request) => request,
                Err(error) => {
                    errors.line(name.refusal(&error)).await;
                    continue;
                }
            };
            let group = progress.jobs.iter().find(|group| group.key == key);
            let refused = group.and_then(|group| group.refused.as_ref());
            if let Some(fault) = refused_lines.get(&number).copied().or(refused) {
                errors.line(name.refusal(&fault.error(number))).await;
                continue;
            }
            let images = match jobs.get_mut(&key) {
                Some(images) => images.of_line(self, number).await?,
                None => Vec::new(),
            };
            match outcome(&images, &order, unfinished) {
                Outcome::Done => {
                    let job = jobs.get(&key).and_then(|images| images.job.as_ref());
                    match self.answer((&order, &images), job, ends).await {
                        Ok(body) => {
                            output.parts(name.answer(body)).await?;
                            completed += 1;
                        }
                        Err(error) if is_lost(&error) => errors.line(name.refusal(&error)).await,
                        Err(error) => return Err(error),
                    }
                }
                Outcome::Failed(error) => errors.line(name.refusal(&error)).await,
                Outcome::Unfinished(why) => {
                    errors.line(name.unfinished(why)).await;
                    cut_off += 1;
                }
            }
        }
        let (output, errors) = (output.finish().await?, errors.finish().await?);
        if let (Stored::Same(output), Stored::Same(errors)) = (&output, &errors) {
            return Ok(Some(Written { completed, cut_off, output: *output, errors: *errors }));
        }
        for id in [progress.output, progress.errors].into_iter().flatten() {
            forget(self, id).await?;
        }
        Ok(None)
    }

    /// The images of the batch's jobs.
    async fn images(&self, progress: &Progress) -> Answer<BTreeMap<Key, Images>> {
        let mut jobs = BTreeMap::new();
        for group in &progress.jobs {
            let Some(id) = &group.job else { continue };
            let job = self.job(id).await?;
            jobs.insert(group.key.clone(), Images { job, ..Images::default() });
        }
        Ok(jobs)
    }

    /// The body of a request's answer.
    async fn answer(
        &self,
        (order, images): (&Order, &[v1::Image]),
        job: Option<&v1::Job>,
        ends: i64,
    ) -> Answer<Vec<Outgoing<Bytes>>> {
        let mut parts = vec![text("{\"data\":[")];
        for (position, image) in images.iter().enumerate() {
            if position > 0 {
                parts.push(text(","));
            }
            match order.delivery {
                Delivery::Links => {
                    let url = of_the_farm(
                        &self.site,
                        &self.batch.origin,
                        image,
                        (&self.batch.tenant, ends),
                    )?;
                    let linked = Linked { url, seed: json::U64(image.seed) };
                    parts.push(text(written(&linked)));
                }
                Delivery::Inline => {
                    let asked = final_picture(image);
                    let (farm, caller) = (self.site.farm.clone(), self.caller.clone());
                    let opened = async move {
                        let parts = farm.fetch_image(&caller, asked).await?;
                        Answer::Ok(parts.map_ok(|part| Bytes::from(part.data)))
                    };
                    let picture = begun(opened.into_stream().try_flatten().boxed()).await?;
                    parts.extend(inline(picture, image.seed));
                }
            }
        }
        let tail = Tail {
            created: job.and_then(|job| job.created_at).map_or(0, |at| at.seconds),
            about: About::of_image(order, images.first(), job),
            usage: Usage::of_images(images),
        };
        parts.push(text(format!("],{}", inner(&tail))));
        Ok(parts)
    }
}

/// Whether a picture cannot be had any more, however often it is asked for.
fn is_lost(error: &UserError) -> bool {
    error.code == Code::NotFound || error.reason == "ARTIFACT_CORRUPT"
}

/// The last part of an answer.
#[derive(Serialize)]
struct Tail {
    created: i64,
    #[serde(flatten)]
    about: About,
    usage: Usage,
}

#[derive(Serialize)]
struct Linked {
    url: String,
    seed: json::U64,
}

/// What became of a request.
enum Outcome {
    Done,
    Failed(UserError),
    Unfinished(Unfinished),
}

/// All of a request's pictures are in its answer, or none is.
fn outcome(images: &[v1::Image], order: &Order, unfinished: Unfinished) -> Outcome {
    let is = |state: v1::ImageState| move |image: &&v1::Image| image.state() == state;
    if let Some(dead) = images.iter().find(is(v1::ImageState::Dead)) {
        return Outcome::Failed(failed_picture(dead));
    }
    let done = images.iter().filter(is(v1::ImageState::Done)).count();
    if done == order.pictures as usize {
        return Outcome::Done;
    }
    Outcome::Unfinished(unfinished)
}

/// The images of a job, in the order of its prompts.
#[derive(Default)]
struct Images {
    /// None: it was deleted.
    job: Option<v1::Job>,
    listed: VecDeque<v1::Image>,
    token: String,
    /// Whether a page was asked for. An empty token then means the end.
    is_begun: bool,
}

impl Images {
    /// The images of the prompt in this line. Callers must ask for lines in ascending order.
    async fn of_line(&mut self, work: &Work, line: u64) -> Answer<Vec<v1::Image>> {
        let mut own = Vec::new();
        loop {
            own.extend(taken(&mut self.listed, line));
            if !self.listed.is_empty() || (self.is_begun && self.token.is_empty()) {
                return Ok(own);
            }
            let Some(job) = &self.job else { return Ok(own) };
            let asked = v1::ListImagesRequest {
                job_id: job.id.clone(),
                page_size: PAGE,
                page_token: std::mem::take(&mut self.token),
                ..Default::default()
            };
            let page = work.site.farm.list_images(&work.caller, asked).await?;
            self.is_begun = true;
            self.token = page.next_page_token;
            self.listed.extend(page.images);
        }
    }
}

/// Takes the images of a line from the beginning of a list, and drops those of lines before it.
fn taken(listed: &mut VecDeque<v1::Image>, line: u64) -> Vec<v1::Image> {
    let count = listed.iter().take_while(|image| image.line <= line).count();
    listed.drain(..count).filter(|image| image.line == line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_belong_to_the_line_that_they_name_and_not_to_their_place() {
        let image = |(index, line)| v1::Image { index, line, ..Default::default() };
        let mut listed: VecDeque<_> = [(0, 1), (1, 3), (2, 3), (3, 7)].map(image).into();
        let mut of = |line| -> Vec<u64> {
            taken(&mut listed, line).into_iter().map(|image| image.index).collect()
        };
        assert_eq!(of(1), [0]);
        assert_eq!(of(2), [0; 0], "it has none");
        assert_eq!(of(3), [1, 2]);
        assert_eq!(of(9), [0; 0], "those of line 7 are not its own");
    }

    #[test]
    fn a_request_is_done_with_its_last_picture_and_failed_with_its_first_dead_one() {
        let order = |n: u32| {
            let body = serde_json::json!({"prompt": "a", "n": n});
            let fields = super::super::super::fields::Fields::of_json(
                serde_json::from_value(body).expect("an object"),
            );
            let endpoint = super::super::super::order::Endpoint::Generations;
            Order::read(fields, endpoint).expect("an order")
        };
        let image = |state: v1::ImageState| v1::Image { state: state.into(), ..Default::default() };
        use v1::ImageState as State;
        let of = |states: &[State], n: u32| {
            let images: Vec<_> = states.iter().map(|state| image(*state)).collect();
            match outcome(&images, &order(n), Unfinished::Expired) {
                Outcome::Done => "done",
                Outcome::Failed(_) => "failed",
                Outcome::Unfinished(_) => "unfinished",
            }
        };
        assert_eq!(of(&[State::Done, State::Done], 2), "done");
        assert_eq!(of(&[State::Done], 2), "unfinished", "the job has fewer");
        assert_eq!(of(&[State::Done, State::Dead], 2), "failed");
        assert_eq!(of(&[State::Cancelled, State::Dead], 2), "failed");
        assert_eq!(of(&[State::Done, State::Cancelled], 2), "unfinished");
        assert_eq!(of(&[], 1), "unfinished");
    }
}
