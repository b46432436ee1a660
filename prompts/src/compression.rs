//! gzip and zstd, recognised by their first bytes.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder;

use crate::{Error, foreign};

/// How many bytes are needed to recognise a file.
const HEAD: usize = 512;
/// Largest window of zstd, as its exponent: what `zstd -d` accepts by default.
const WINDOW_LOG: u32 = 27;

type Whole<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// A file's bytes, decompressed.
pub(crate) enum Input<R: Read> {
    Plain(Whole<R>),
    Gzip(Box<MultiGzDecoder<Whole<R>>>),
    Zstd(Decoder<'static, Whole<R>>),
}

impl<R: Read> Input<R> {
    pub(crate) fn open(mut file: R) -> Result<Self, Error> {
        let mut head = vec![0; HEAD];
        let length = read_full(&mut file, &mut head).map_err(Error::Io)?;
        head.truncate(length);
        let gzip = head.starts_with(&[0x1f, 0x8b]);
        let zstd = is_zstd(&head);
        foreign::check(&head)?;
        let whole = BufReader::with_capacity(64 << 10, Cursor::new(head).chain(file));
        if gzip {
            return Ok(Self::Gzip(Box::new(MultiGzDecoder::new(whole))));
        }
        if zstd {
            let mut decoder = Decoder::with_buffer(whole).map_err(Error::Io)?;
            decoder.window_log_max(WINDOW_LOG).map_err(Error::Io)?;
            return Ok(Self::Zstd(decoder));
        }
        Ok(Self::Plain(whole))
    }

    pub(crate) fn is_compressed(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// Reads until `block` is full or the file ends, so that the result does not depend on how the
    /// input was split.
    pub(crate) fn read_block(&mut self, block: &mut [u8]) -> Result<usize, Error> {
        match self {
            Self::Plain(file) => read_full(file, block).map_err(Error::Io),
            Self::Gzip(file) => read_full(file, block).map_err(|error| damaged("gzip", error)),
            Self::Zstd(file) => read_full(file, block).map_err(|error| damaged("zstd", error)),
        }
    }
}

/// Whether compressed data begins here. If so in the output of a decompressor, the file was
/// compressed twice.
pub(crate) fn is_compressed(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b]) || is_zstd(head)
}

/// A frame, or a skippable frame, as parallel compressors write them.
fn is_zstd(head: &[u8]) -> bool {
    matches!(head, [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

fn damaged(kind: &str, error: io::Error) -> Error {
    let text = error.to_string();
    if error.raw_os_error().is_some() {
        Error::Io(error)
    } else if text.contains("too much memory") {
        Error::File(format!(
            "its {kind} data needs a window of more than {} MiB; compress it again without --long or --ultra",
            (1u64 << WINDOW_LOG) >> 20
        ))
    } else {
        Error::File(format!(
            "its {kind} data is damaged or cut short ({text}); make or fetch the file again"
        ))
    }
}

fn read_full(file: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
