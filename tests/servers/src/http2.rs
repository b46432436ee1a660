//! Frames of HTTP/2 as bytes, to send what no client would send.

/// The beginning of a connection: the preface, and empty settings.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Kinds of frames.
pub const DATA: u8 = 0;
/// See [`DATA`].
pub const HEADERS: u8 = 1;
/// See [`DATA`].
pub const RST_STREAM: u8 = 3;
/// See [`DATA`].
pub const SETTINGS: u8 = 4;
/// See [`DATA`].
pub const PING: u8 = 6;
/// See [`DATA`].
pub const GOAWAY: u8 = 7;
/// See [`DATA`].
pub const WINDOW_UPDATE: u8 = 8;
/// See [`DATA`].
pub const CONTINUATION: u8 = 9;

/// Flag of a frame that ends its stream.
pub const END_STREAM: u8 = 1;
/// Flag of a frame that ends its headers.
pub const END_HEADERS: u8 = 4;

/// Most bytes of headers in one frame.
const PIECE: usize = 16_000;

/// One frame.
///
/// # Panics
/// When the payload is too long for a frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).ok().filter(|length| *length < 1 << 24);
    let mut bytes = length.expect("a frame has less than 16 MiB").to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Encoded headers, with each name and value as a literal.
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.extend(length(text.len()));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A number with a prefix of seven bits, as HPACK writes lengths.
fn length(mut number: usize) -> Vec<u8> {
    let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    if number < 127 {
        return vec![byte(number)];
    }
    number -= 127;
    let mut bytes = vec![127];
    while number >= 128 {
        bytes.push(byte(number % 128 + 128));
        number /= 128;
    }
    bytes.push(byte(number));
    bytes
}

/// A block of headers, in as many frames as it needs. The first frame has `flags`, and the last one
/// the flag that ends the headers.
#[must_use]
pub fn headers_of(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let pieces: Vec<_> = block.chunks(PIECE).collect();
    let mut frames = Vec::new();
    for (place, piece) in pieces.iter().enumerate() {
        let (kind, flags) = if place == 0 { (HEADERS, flags) } else { (CONTINUATION, 0) };
        let ends = if place + 1 == pieces.len() { END_HEADERS } else { 0 };
        frames.extend(frame(kind, flags | ends, stream, piece));
    }
    frames
}

/// The same for these fields.
#[must_use]
pub fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    headers_of(stream, flags, &block(fields))
}

/// Headers of a call to this path.
#[must_use]
pub fn call(path: &str) -> Vec<(&str, &str)> {
    vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "farm"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
}

/// The complete frames in these bytes: kind, flags and payload.
#[must_use]
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some((payload, after)) = rest.split_at_checked(length) else { break };
        frames.push((*kind, *flags, payload.to_vec()));
        bytes = after;
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_rfc_7541_says() {
        assert_eq!(length(10), [10]);
        assert_eq!(length(127), [127, 0]);
        assert_eq!(length(1337 + 96), [127, 0x9a, 0x0a]);
        let block = block(&[("a", &"b".repeat(40_000))]);
        let sent = headers_of(1, END_STREAM, &block);
        let kinds: Vec<_> = frames(&sent).iter().map(|(kind, flags, _)| (*kind, *flags)).collect();
        assert_eq!(kinds, [(HEADERS, END_STREAM), (CONTINUATION, 0), (CONTINUATION, END_HEADERS)]);
    }
}
