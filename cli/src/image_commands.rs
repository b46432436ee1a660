//! `darkroom cancel` and `darkroom retry` of a whole job, of some of its images, and of pictures
//! that are lost.

use darkroom_core::{error::UserError, prompt::is_blank};
use darkroom_proto::{json, v1};

use crate::{
    args::{CancelArgs, Place, RetryArgs, SomeImagesArgs},
    client::Pages,
    deadline,
    failure::Result,
    farm,
    jobs::show,
    listing::{labels, states},
    output, view,
};

/// The states that a cancel changes, and a retry.
const OPEN: [v1::ImageState; 3] =
    [v1::ImageState::Waiting, v1::ImageState::Ready, v1::ImageState::Dispatched];
const ENDED: [v1::ImageState; 2] = [v1::ImageState::Dead, v1::ImageState::Cancelled];

/// `darkroom cancel`.
pub(crate) async fn cancel(place: &Place, args: &CancelArgs, as_json: bool) -> Result<()> {
    let filter = filter(&args.some, &OPEN)?;
    let client = farm::find(place)?;
    let Some(filter) = filter else {
        return show(&client.cancel(&args.job).await?, as_json);
    };
    let dry_run = args.some.dry_run;
    let request =
        v1::CancelImagesRequest { job_id: args.job.clone(), filter: Some(filter), dry_run };
    let answer = client.cancel_images(request).await?;
    if as_json {
        return output::json(&json::CancelImagesResponse::from(&answer));
    }
    let done = if dry_run { "would be cancelled" } else { "cancelled" };
    tell(&format!("{}: {done}", images(answer.images, answer.at_least)), answer.job.as_ref())
}

/// `darkroom retry`.
pub(crate) async fn retry(place: &Place, args: &RetryArgs, as_json: bool) -> Result<()> {
    let whole = deadline::retry(args)?;
    let filter = filter(&args.some, changed(args))?;
    let client = farm::find(place)?;
    if filter.is_none() && !args.lost {
        return show(&client.retry(whole).await?, as_json);
    }
    let mut request = v1::RetryImagesRequest {
        job_id: args.job.clone(),
        filter,
        dry_run: args.some.dry_run,
        deadline: whole.deadline,
        no_deadline: whole.no_deadline,
        lost: args.lost,
        page_token: String::new(),
    };
    let mut all = v1::RetryImagesResponse::default();
    let mut pages = Pages::of_parts();
    loop {
        let part = client.retry_images(request.clone()).await?;
        all.job = part.job;
        all.images = all.images.saturating_add(part.images);
        all.skipped_intact = all.skipped_intact.saturating_add(part.skipped_intact);
        all.checked = all.checked.saturating_add(part.checked);
        all.at_least |= part.at_least;
        match pages.next(part.next_page_token)? {
            Some(token) => request.page_token = token,
            None => break,
        }
    }
    if as_json {
        return output::json(&json::RetryImagesResponse::from(&all));
    }
    let done = if request.dry_run { "would run again" } else { "run again" };
    let told = if args.lost {
        format!("{} checked, {} lost: {done}", pictures(all.checked), all.images)
    } else {
        retried(&all, done)
    };
    tell(&told, all.job.as_ref())
}

/// What became of the images of a retry without --lost.
fn retried(all: &v1::RetryImagesResponse, done: &str) -> String {
    let told = format!("{}: {done}", images(all.images, all.at_least));
    match all.skipped_intact {
        0 => told,
        done_already => {
            format!("{told} ({}{done_already} done already)", least(all.at_least))
        }
    }
}

/// The states that a retry changes; with --lost none that can be named.
fn changed(args: &RetryArgs) -> &'static [v1::ImageState] {
    if args.lost { &[] } else { &ENDED }
}

fn tell(told: &str, job: Option<&v1::Job>) -> Result<()> {
    output::line(told)?;
    job.map_or(Ok(()), |job| output::line(&view::job_text(job)))
}

fn images(count: u64, at_least: bool) -> String {
    format!("{}{count} {}", least(at_least), if count == 1 { "image" } else { "images" })
}

/// What stands before a number that may be too small.
fn least(at_least: bool) -> &'static str {
    if at_least { "at least " } else { "" }
}

fn pictures(count: u64) -> String {
    format!("{count} {}", if count == 1 { "picture" } else { "pictures" })
}

/// The filter that flags make; `None` without any. A dry run alone is about every image that the
/// command changes.
fn filter(args: &SomeImagesArgs, changed: &[v1::ImageState]) -> Result<Option<v1::ImageFilter>> {
    if args.text.as_deref().is_some_and(is_blank) {
        let message = "text is blank; accepted: a text that prompts contain";
        return Err(UserError::invalid("text", message));
    }
    let named = if changed.is_empty() { &ENDED[..] } else { changed };
    let filter = v1::ImageFilter {
        ranges: args.images.iter().map(|text| range(text)).collect::<Result<_>>()?,
        states: states(&args.states, named)?,
        error_codes: args.codes.clone(),
        labels: labels(&args.labels)?,
        text: args.text.clone().unwrap_or_default(),
    };
    if filter != v1::ImageFilter::default() {
        return Ok(Some(filter));
    }
    let all = changed.iter().map(|state| (*state).into()).collect();
    Ok(args.dry_run.then_some(v1::ImageFilter { states: all, ..filter }))
}

/// `7`, or `10-20`.
fn range(text: &str) -> Result<v1::IndexRange> {
    let index = |text: &str| text.trim().parse().ok();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = index(first).zip(index(last)).filter(|(first, last)| first <= last);
    let (first, last) = range.ok_or_else(|| {
        let message = format!("images has {text:?}; accepted: indices and ranges like 3,7,10-20");
        UserError::invalid("images", message)
    })?;
    Ok(v1::IndexRange { first, last })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn asked(line: &[&str]) -> Result<Option<v1::ImageFilter>> {
        let line = ["darkroom", "retry", "j"].iter().chain(line);
        let Command::Retry(args) = Cli::try_parse_from(line).expect("parses").command else {
            panic!("a retry")
        };
        filter(&args.some, changed(&args))
    }

    #[test]
    fn flags_name_images_and_none_means_the_whole_job() {
        assert_eq!(asked(&[]), Ok(None));
        assert_eq!(asked(&["--lost"]), Ok(None));
        let index = |first, last| v1::IndexRange { first, last };
        let given = asked(&[
            "--images=3,10-20",
            "--state-is",
            "dead",
            "--code",
            "panic",
            "--label",
            "a=b=c",
            "--label",
            "d=",
            "--text",
            "-x",
        ]);
        let given = given.expect("parses").expect("a filter");
        assert_eq!(given.ranges, [index(3, 3), index(10, 20)]);
        assert_eq!(given.states, [i32::from(v1::ImageState::Dead)]);
        assert_eq!(given.error_codes, ["panic"]);
        assert_eq!((given.labels["a"].as_str(), given.labels["d"].as_str()), ("b=c", ""));
        assert_eq!(given.text, "-x");
        let all = asked(&["--dry-run"]).expect("parses").expect("a filter");
        assert_eq!(all.states, ENDED.map(i32::from));
        let lost = asked(&["--dry-run", "--lost"]).expect("parses");
        assert_eq!(lost.expect("a filter"), v1::ImageFilter::default());
    }

    #[test]
    fn a_count_that_is_not_whole_says_at_least() {
        assert_eq!(images(1, false), "1 image");
        assert_eq!(images(20_000, true), "at least 20000 images");
        let whole = v1::RetryImagesResponse { images: 3, ..Default::default() };
        assert_eq!(retried(&whole, "run again"), "3 images: run again");
        let some = v1::RetryImagesResponse { skipped_intact: 2, at_least: true, ..whole };
        assert_eq!(
            retried(&some, "run again"),
            "at least 3 images: run again (at least 2 done already)"
        );
    }

    #[test]
    fn what_names_no_images_is_refused_by_its_flag() {
        let wrong: [(&[&str], &str); 8] = [
            (&["--images=x"], "images"),
            (&["--images=7-3"], "images"),
            (&["--images=-3"], "images"),
            (&["--label=x"], "label"),
            (&["--label==x"], "label"),
            (&["--label=a=1", "--label=a=2"], "label"),
            (&["--state-is=done"], "state-is"),
            (&["--text= "], "text"),
        ];
        for (flags, field) in wrong {
            let error = asked(flags).expect_err(field);
            assert_eq!(error.field.as_deref(), Some(field), "{flags:?}: {error:?}");
        }
    }
}
