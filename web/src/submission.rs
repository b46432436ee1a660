//! The body of a job that is submitted: one JSON document, or JSON lines of any number.
//!
//! In JSON lines, the first line is the spec and each other line a prompt. Blank lines are skipped.
//! The lines become chunks, so however long the body is, little of it is in memory.

use std::{io, time::Duration};

use axum::body::Body;
use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{Answer, Incoming, while_it_stands};
use darkroom_proto::{json, v1};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use http::HeaderMap;
use tokio::time::timeout;
use tokio_util::codec::LinesCodecError;

use crate::{
    entry::{Entry, broken, media_type},
    lines::{LONGEST, numbered},
    problem::Refusal,
};

/// The media types of JSON lines.
const LINES: [&str; 3] = ["application/jsonl", "application/x-ndjson", "application/jsonlines"];
/// How long the first line may take.
const SPEC: Duration = Duration::from_secs(60);
/// Most prompts of a chunk, and bytes of lines after which a chunk ends.
const PROMPTS: usize = 1_000;
const CHUNK: usize = 256 << 10;

/// A job to submit.
pub(crate) enum Submission {
    /// All of it.
    Whole(Box<v1::SubmitJobRequest>),
    /// Its spec, and chunks of prompts that are still coming.
    Lines(Box<v1::JobSpec>, Incoming<v1::SubmitJobChunk>),
}

impl Submission {
    /// Reads a request's body, or its first line.
    pub(crate) async fn read(entry: Entry) -> Result<Self, Refusal> {
        if !is_lines(entry.headers()) {
            let request: json::SubmitJobRequest = entry.body(false).await?;
            return Ok(Self::Whole(Box::new(request.into())));
        }
        entry.no_query()?;
        let standing = entry.standing.clone();
        let mut lines = Box::pin(lines_of(entry.into_body()));
        // The prompts have a time limit of their own.
        let first = timeout(SPEC, lines.next()).await.map_err(|_| {
            UserError::new(
                Code::DeadlineExceeded,
                "SUBMIT_STALLED",
                format!(
                    "the spec (the first line) did not arrive within {} s; send the job again",
                    SPEC.as_secs()
                ),
            )
        })?;
        let spec = match first.transpose()? {
            Some((number, line)) => read_line::<json::JobSpec>(number, &line)?,
            None => {
                return Err(UserError::new(
                    Code::InvalidArgument,
                    "NO_SPEC",
                    "the body is empty; accepted: the spec of a job in the first line, and a prompt in each other one",
                )
                .into());
            }
        };
        let prompts = while_it_stands(standing, chunks(lines.boxed()));
        Ok(Self::Lines(Box::new(spec.into()), prompts))
    }

    /// The spec.
    pub(crate) fn spec_mut(&mut self) -> &mut v1::JobSpec {
        match self {
            Self::Whole(request) => request.spec.get_or_insert_default(),
            Self::Lines(spec, _) => spec,
        }
    }

    /// As a stream: the spec, then the prompts.
    pub(crate) fn into_chunks(self) -> Incoming<v1::SubmitJobChunk> {
        let (spec, prompts) = match self {
            Self::Whole(request) => {
                let v1::SubmitJobRequest { spec, prompts } = *request;
                let prompts = (!prompts.is_empty()).then(|| Ok(prompts_part(prompts)));
                (spec.unwrap_or_default(), stream::iter(prompts).boxed())
            }
            Self::Lines(spec, prompts) => (*spec, prompts),
        };
        let part = v1::submit_job_chunk::Part::Spec(spec);
        let spec = v1::SubmitJobChunk { part: Some(part) };
        stream::once(async { Ok(spec) }).chain(prompts).boxed()
    }
}

/// Whether a request's body is JSON lines.
pub(crate) fn is_lines(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|media| LINES.contains(&media.as_str()))
}

fn prompts_part(prompts: Vec<v1::Prompt>) -> v1::SubmitJobChunk {
    let part = v1::submit_job_chunk::Part::Prompts(v1::PromptChunk { prompts });
    v1::SubmitJobChunk { part: Some(part) }
}

/// The lines that are not blank, with their numbers from 1.
fn lines_of(body: Body) -> impl Stream<Item = Answer<(u64, String)>> + Send {
    let lines = numbered(body.into_data_stream().map_err(io::Error::other));
    lines.map(|(number, line)| match line {
        Ok(line) => Ok((number, line)),
        Err(error) => Err(unread(number, &error)),
    })
}

/// Why a line cannot be read.
fn unread(number: u64, error: &LinesCodecError) -> UserError {
    let wrong = |message: String| UserError::new(Code::InvalidArgument, "INVALID_LINE", message);
    match error {
        LinesCodecError::MaxLineLengthExceeded => wrong(format!(
            "line {number} has more than {LONGEST} bytes; accepted: at most {LONGEST} bytes per \
                 line"
        )),
        LinesCodecError::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            wrong(format!("line {number} is not UTF-8; save the file as UTF-8 and send it again"))
        }
        LinesCodecError::Io(error) => {
            let cause: &(dyn std::error::Error + 'static) = match error.get_ref() {
                Some(inner) => inner,
                None => error,
            };
            broken(cause).into_error()
        }
    }
}

/// Reads one line. An error names it.
fn read_line<T: serde::de::DeserializeOwned>(number: u64, line: &str) -> Answer<T> {
    json::read(line.as_bytes()).map_err(|error| UserError {
        message: format!("line {number}: {}", error.message),
        ..error
    })
}

/// Groups the prompts into chunks.
fn chunks(lines: BoxStream<'static, Answer<(u64, String)>>) -> Incoming<v1::SubmitJobChunk> {
    let prompts = lines.and_then(|(number, line)| async move {
        Ok((read_line::<json::Prompt>(number, &line)?.into(), line.len()))
    });
    gathered(prompts.boxed())
}

/// Prompts by the chunk. Each comes with about its size in bytes.
pub(crate) fn gathered(prompts: Incoming<(v1::Prompt, usize)>) -> Incoming<v1::SubmitJobChunk> {
    stream::try_unfold(prompts, |mut prompts| async move {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while chunk.len() < PROMPTS && bytes < CHUNK {
            let Some((prompt, size)) = prompts.try_next().await? else { break };
            bytes += size;
            chunk.push(prompt);
        }
        Ok((!chunk.is_empty()).then(|| (prompts_part(chunk), prompts)))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(body: impl Into<Body>) -> (Vec<usize>, Option<UserError>) {
        let mut chunks = chunks(lines_of(body.into()).boxed());
        let mut lengths = Vec::new();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(v1::SubmitJobChunk {
                    part: Some(v1::submit_job_chunk::Part::Prompts(prompts)),
                }) => lengths.push(prompts.prompts.len()),
                Ok(other) => panic!("no prompts: {other:?}"),
                Err(error) => return (lengths, Some(error)),
            }
        }
        (lengths, None)
    }

    #[tokio::test]
    async fn lines_become_chunks_of_bounded_size() {
        let line = "{\"text\": \"a fox\"}\r\n\n";
        assert_eq!(read(line.repeat(2_500)).await, (vec![1_000, 1_000, 500], None));
        let long = format!("{{\"text\": \"{}\"}}\n", "x".repeat(100 << 10));
        assert_eq!(read(long.repeat(7)).await, (vec![3, 3, 1], None));
        assert_eq!(read("").await, (vec![], None));
        assert_eq!(read("{\"text\": \"no end\"}").await, (vec![1], None));
    }

    #[tokio::test]
    async fn a_wrong_line_is_named() {
        for (body, part) in [
            (
                "{\"text\": \"a\"}\n\n{\"txt\": \"b\"}\n",
                "line 3: txt cannot be read: unknown field",
            ),
            ("{\"text\": \"a\"}\n{", "line 2: the request cannot be read"),
            ("{\"text\": 1}\n", "line 1: text cannot be read: invalid type"),
        ] {
            let (_, error) = read(body).await;
            let error = error.expect("wrong");
            assert!(error.message.starts_with(part), "{error}");
        }
        let (_, error) = read(b"{}\n\xff\n".to_vec()).await;
        assert_eq!(
            error.expect("wrong").message,
            "line 2 is not UTF-8; save the file as UTF-8 and send it again"
        );
        let (_, error) = read(vec![b'x'; LONGEST + 2]).await;
        assert_eq!(
            error.expect("long").message,
            "line 1 has more than 1048576 bytes; accepted: at most 1048576 bytes per line"
        );
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_no_end_of_a_job() {
        let parts = [Ok("{\"text\": \"a\"}\n{\"te"), Err(io::Error::other("reset"))];
        let (_, error) = read(Body::from_stream(stream::iter(parts))).await;
        assert_eq!(error.expect("broken").reason, "BODY_BROKE_OFF");
    }
}
