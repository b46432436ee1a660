//! JSON lines, as they come in a body or in a stored file.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tokio_util::{
    codec::{FramedRead, LinesCodec, LinesCodecError},
    io::StreamReader,
};

/// Longest line, bytes.
pub(crate) const LONGEST: usize = 1 << 20;

/// The lines that are not blank, with their numbers from 1. Nothing follows a line that cannot be
/// read.
pub(crate) fn numbered<B>(
    bytes: B,
) -> impl Stream<Item = (u64, Result<String, LinesCodecError>)> + Send
where
    B: Stream<Item = io::Result<Bytes>> + Send,
{
    let lines = FramedRead::new(StreamReader::new(bytes), LinesCodec::new_with_max_length(LONGEST));
    lines.zip(stream::iter(1_u64..)).filter_map(|(line, number)| async move {
        match line {
            Ok(line) if line.trim().is_empty() => None,
            Ok(line) if number == 1 => Some((number, Ok(without_mark(line)))),
            line => Some((number, line)),
        }
    })
}

/// Some editors start a file with a byte order mark.
fn without_mark(line: String) -> String {
    line.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(line)
}
