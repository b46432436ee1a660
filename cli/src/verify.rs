//! `darkroom verify`: fetches a finished job's manifest and every picture in it, and checks that
//! everything is there.
//!
//! The manifest must have the hash in the farm's record, and be consistent (its last line hashes
//! the lines above; the indices have no gaps; the totals are right). Every picture must have the
//! hash in its line.

use std::{
    fs::File,
    io::{BufReader, Read, Seek},
};

use darkroom_artifacts::manifest::{self, ImageLine, ImageOutcome, Totals};
use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
    shown::shown,
};
use futures::{StreamExt as _, stream};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    args::VerifyArgs,
    client::Client,
    failure::{self, Result},
    output,
};

/// Most problems that are listed one by one.
const MOST_FAULTS: usize = 20;

/// Most bytes of a line of a manifest: texts of the longest that there are, labels and settings.
const MOST_LINE: u64 = 256 << 10;

/// A picture as the manifest describes it.
struct Promised {
    index: u64,
    sha256: Option<Digest>,
    size: u64,
}

/// What a check of a picture found.
enum Found {
    /// It is as the manifest states.
    Whole,
    /// A policy or the disk budget removed it; so many bytes.
    Removed(u64),
    /// What is wrong with it.
    Fault(String),
}

/// Succeeds if a job is whole, or fails with what is not.
pub(crate) async fn verify(client: &Client, args: &VerifyArgs, as_json: bool) -> Result<()> {
    // A missing farm or an unknown job is reported at once; the streams that follow retry for
    // longer.
    let job = client.job(&args.job).await?;
    let mut file = tempfile::tempfile().map_err(failure::internal)?;
    let most = most_bytes(&file, job.images)?;
    let stated = client.fetch_manifest(&args.job, &mut file, most).await?;
    let (totals, promised) = tokio::task::spawn_blocking(move || read(file, &stated))
        .await
        .map_err(failure::internal)??;

    let check = |picture: &Promised| {
        let (client, job) = (client.clone(), args.job.clone());
        let (index, sha256, size) = (picture.index, picture.sha256, picture.size);
        async move {
            match client.fetch(&job, index).await {
                Ok(bytes) if Some(Digest::of(&bytes)) == sha256 && bytes.len() as u64 == size => {
                    Found::Whole
                }
                Ok(_) => {
                    Found::Fault(format!("image {index} has other bytes than the manifest states"))
                }
                // After the manifest was written.
                Err(error) if error.reason == "PICTURE_REMOVED" => Found::Removed(size),
                Err(error) => Found::Fault(format!("image {index}: {}", error.message)),
            }
        }
    };
    let checks = stream::iter(&promised).map(check).buffer_unordered(args.at_once.max(1));
    let found: Vec<Found> = checks.collect().await;
    let (mut totals, mut faults) = (totals, Vec::new());
    for one in found {
        match one {
            Found::Whole => {}
            Found::Removed(size) => {
                totals.removed += 1;
                totals.bytes = totals.bytes.saturating_sub(size);
            }
            Found::Fault(fault) => faults.push(fault),
        }
    }
    if !faults.is_empty() {
        let more = faults.len().saturating_sub(MOST_FAULTS);
        if as_json {
            // A failed write changes nothing: the error below is the command's result.
            let _ = output::json(&json!({"job": args.job, "whole": false, "faults": faults}));
        } else {
            faults.iter().take(MOST_FAULTS).for_each(|fault| output::tell(&shown(fault)));
            if more > 0 {
                output::tell(&format!("and {more} more"));
            }
        }
        return Err(damaged(format!(
            "{} of the {} pictures of job {} are not as its manifest states; `darkroom retry {} --lost` \
             renders those again that storage has lost",
            faults.len(),
            promised.len(),
            args.job,
            args.job
        )));
    }
    tell(&args.job, &totals, as_json)
}

/// The most bytes that a manifest with this number of images may have: a bounded line per image,
/// and never more than the disk has room for.
fn most_bytes(file: &File, images: u64) -> Result<u64> {
    let disk = nix::sys::statvfs::fstatvfs(file).map_err(failure::internal)?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    Ok(images.saturating_add(2).saturating_mul(MOST_LINE).min(free / 2))
}

/// Checks the manifest itself, and returns its totals and its pictures.
fn read(mut file: File, stated: &str) -> Result<(Totals, Vec<Promised>)> {
    file.rewind().map_err(failure::internal)?;
    let mut hasher = Sha256::new();
    let mut part = vec![0; 1 << 16];
    loop {
        match file.read(&mut part).map_err(failure::internal)? {
            0 => break,
            length => hasher.update(&part[..length]),
        }
    }
    let found = Digest(hasher.finalize().into());
    if found.to_string() != stated {
        return Err(damaged(format!(
            "the manifest's SHA-256 is {found}, the farm's record states {stated}"
        )));
    }
    file.rewind().map_err(failure::internal)?;
    let mut promised = Vec::new();
    let keep = |image: ImageLine| {
        if image.state == ImageOutcome::Done && !image.is_removed() {
            let size = image.size.unwrap_or(0);
            promised.push(Promised { index: image.index, sha256: image.sha256, size });
        }
    };
    let (_, totals) =
        manifest::verify(BufReader::new(file), keep).map_err(|error| damaged(error.to_string()))?;
    Ok((totals, promised))
}

fn damaged(message: String) -> UserError {
    UserError::new(Code::FailedPrecondition, "NOT_WHOLE", message)
}

fn tell(job: &str, totals: &Totals, as_json: bool) -> Result<()> {
    let Totals { images, done, dead, cancelled, bytes, removed } = totals;
    if as_json {
        return output::json(&json!({
            "job": job, "whole": true, "images": images, "done": done, "dead": dead, "cancelled": cancelled,
            "bytes": bytes, "removed": removed,
        }));
    }
    let gone = match removed {
        0 => String::new(),
        removed => format!(
            ", {removed} done and their pictures removed by a policy or the disk budget (`darkroom retry {} --lost` renders them again)",
            shown(job)
        ),
    };
    let done = done.saturating_sub(*removed);
    output::line(&format!(
        "job {} is whole: {images} images, {done} done and verified ({bytes} bytes), {dead} dead, {cancelled} cancelled{gone}",
        shown(job)
    ))
}
