//! `darkroom get --stage` and `--max-edge`: what a stage made, and thumbnails.

use std::path::PathBuf;

use darkroom_core::{output::Format, thumbnail::check_edge};
use darkroom_proto::{json, v1};
use darkroom_runtime::terminal::shown_path;
use serde_json::json;

use crate::{
    args::{GetArgs, Place},
    client::Pages,
    failure::Result,
    farm,
    lost::Lost,
    name_template::{self, BY_INDEX, NameTemplate},
    output::{self, Beside},
    pictures::{Folder, Taken},
};

/// Downloads a preview of every image that has one.
pub(crate) async fn get(place: &Place, args: GetArgs, as_json: bool) -> Result<()> {
    let template = NameTemplate::parse(args.name.as_deref().unwrap_or(BY_INDEX))?;
    let max_edge = args.max_edge.unwrap_or(0);
    check_edge(max_edge)?;
    let client = &farm::find(place)?;
    let stage = args.stage.unwrap_or_default();
    let out = args.out.unwrap_or_else(|| folder_of(&args.job, &stage, max_edge));
    let job = client.job(&args.job).await?;
    if args.name.is_some() {
        name_template::check(client, &args.job, |image| {
            // Pictures of two formats may both have PNGs for previews.
            template.name(image).and_then(|_| template.name_of(image, Format::Png))
        })
        .await?;
    }
    let taken = if args.overwrite { Taken::Overwrite } else { Taken::Refuse };
    let folder = Folder::open(&out, taken)?;
    let (mut pictures, mut lost, mut told) = (Vec::new(), Lost::default(), Beside::default());
    // What a stage made is there before its image is done.
    let states: &[v1::ImageState] = if stage.is_empty() { &[v1::ImageState::Done] } else { &[] };
    let (mut pages, mut token) = (Pages::default(), String::new());
    loop {
        let page = client.images(&args.job, states, token).await?;
        for image in page.images.iter().filter(|image| has_passed(image, &stage)) {
            let request = v1::FetchImageRequest {
                job_id: image.job_id.clone(),
                index: image.index,
                stage: stage.clone(),
                max_edge,
                ..Default::default()
            };
            let fetched = client.fetch_shown(&request).await;
            let written = fetched.and_then(|bytes| {
                folder.write_named(&name_by_bytes(&template, image, &bytes)?, &bytes)
            });
            match written {
                Ok(path) => {
                    lost.found();
                    if as_json {
                        let document = json!({"index": image.index, "custom_id": image.custom_id});
                        pictures.push(output::with_path(document, "path", &path));
                    } else {
                        told.print(|| output::line(&shown_path(&path)));
                    }
                }
                Err(failure) => lost.note(image.index, failure)?,
            }
        }
        match pages.next(page.next_page_token)? {
            Some(next) => token = next,
            None => break,
        }
    }
    if as_json {
        let document = json!({
            "job": json::Job::from(&job), "stage": stage, "max_edge": max_edge, "pictures": pictures,
            "missing": lost.documents(),
        });
        told.print(|| output::json(&document));
    } else {
        lost.tell();
    }
    lost.end(&job.id).and(told.end())
}

/// A preview's file name: its extension is that of what came, since most are PNGs whatever the
/// picture is stored as.
fn name_by_bytes(template: &NameTemplate, image: &v1::Image, bytes: &[u8]) -> Result<String> {
    let format = Format::of_bytes(bytes).unwrap_or_else(|| image.format().known());
    template.name_of(image, format)
}

/// Whether an image has what is asked for; no stage is the last one.
fn has_passed(image: &v1::Image, stage: &str) -> bool {
    stage.is_empty() || image.stage_seconds.iter().any(|passed| passed.stage == stage)
}

/// Previews of different kinds have the same names, so each kind has a folder.
fn folder_of(job: &str, stage: &str, max_edge: u32) -> PathBuf {
    let kind = match (stage, max_edge) {
        ("", edge) => edge.to_string(),
        (stage, 0) => stage.to_owned(),
        (stage, edge) => format!("{stage}-{edge}"),
    };
    PathBuf::from("renders").join(job).join(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_is_named_by_its_bytes_and_not_by_its_images_format() {
        let template = NameTemplate::parse("{index}.webp").expect("a template");
        let jpeg = v1::Image { format: v1::PictureFormat::Jpeg.into(), ..Default::default() };
        let cases: [(&[u8], &str); 4] = [
            (b"\x89PNG\r\n\x1a\n", "0.png"),
            (b"\xff\xd8\xff\xe0", "0.jpg"),
            (b"RIFF\0\0\0\0WEBP", "0.webp"),
            (b"of a later version", "0.jpg"),
        ];
        for (bytes, name) in cases {
            assert_eq!(name_by_bytes(&template, &jpeg, bytes).expect("a name"), name);
        }
    }

    #[test]
    fn each_kind_of_preview_has_a_folder_of_its_own() {
        assert_eq!(folder_of("J", "base", 0), PathBuf::from("renders/J/base"));
        assert_eq!(folder_of("J", "", 64), PathBuf::from("renders/J/64"));
        assert_eq!(folder_of("J", "base", 32), PathBuf::from("renders/J/base-32"));
    }
}
