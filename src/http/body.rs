//! A request's body: from what is sent to the bytes that were meant, within their limits.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderMap};
use async_compression::tokio::bufread::{BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::io::StreamReader;

use super::error::BodyRefusal;
use crate::intake::{BodyError, Nesting};

const CONTENT_TYPES: [&str; 3] = ["application/json", "text/plain", "application/reports+json"];
const CHARSETS: [&str; 3] = ["utf-8", "utf8", "us-ascii"];
/// The content codings that are taken, as an answer names them.
pub(super) const CODINGS: &str = "gzip, deflate, br, zstd";
/// Codings of one body, one over the other. A body with more is refused (415).
const CODINGS_MAX: usize = 2;
/// What is read of a refused body, and for how long, before the refusal is sent. Twice what actix reads ahead.
const DISCARD_BYTES_MAX: u64 = 256 * 1024;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(1);
/// What is decoded between two looks at the limit; other requests have their turn after each.
const PIECE_BYTES: usize = 32 * 1024;
/// By such pieces bodies take room. One that is smaller takes none: connections are limited elsewhere.
const ROOM_BLOCK_BYTES: usize = 64 * 1024;
/// 8 MiB: what RFC 9659 lets zstd's senders use, and what its decoder may take before it has given a byte.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The memory that bodies may have while they are read, shared by all workers. Where there is none left a body is refused
/// at once (503): what has been read of others is worth more than what has not.
#[derive(Debug, Clone)]
pub(super) struct Room {
    free: Arc<Semaphore>,
    blocks: usize,
}

/// What a body may have. A body that takes longer is refused, whatever has come of it: whoever sends it is answered in time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) bytes: u64,
    pub(super) depth: usize,
    pub(super) time: Duration,
}

/// A body on its way.
struct Body<'a> {
    bytes: BytesMut,
    bytes_max: u64,
    nesting: Nesting,
    room: &'a Room,
    /// Given back when the body is whole, and the intake counts it, or when it is refused.
    taken: Option<OwnedSemaphorePermit>,
}

/// One content coding of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

type Reader<'a> = Box<dyn AsyncBufRead + Unpin + 'a>;

/// What the headers say of a body that may be read.
#[derive(Debug)]
pub(super) struct Expected {
    codings: Vec<Coding>,
    /// As it is sent, where that is told.
    pub(super) bytes: Option<u64>,
}

/// A body is refused before it is read where its headers say enough.
pub(super) fn expect(headers: &HeaderMap, bytes_max: u64) -> Result<Expected, BodyRefusal> {
    check_type(headers)?;
    let codings = codings(headers)?;
    let bytes = declared(headers);
    if bytes.is_some_and(|declared| declared > bytes_max) {
        return Err(BodyRefusal::TooLarge(bytes_max));
    }
    Ok(Expected { codings, bytes })
}

impl Expected {
    /// The whole body, decoded. It is refused as soon as it is over its limit, which counts what is sent and what comes out
    /// of it alike.
    pub(super) async fn take<S>(self, payload: &mut S, limits: Limits, room: &Room) -> Result<Bytes, BodyRefusal>
    where
        S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
    {
        let nesting = Nesting::new(limits.depth);
        let mut body = Body { bytes: BytesMut::new(), bytes_max: limits.bytes, nesting, room, taken: None };
        let reading = async {
            match self.codings.as_slice() {
                [] => body.read(payload).await,
                codings => body.inflate(payload, codings).await,
            }
        };
        timeout(limits.time, reading).await.map_err(|_| BodyRefusal::TooSlow(limits.time))??;
        Ok(body.bytes.freeze())
    }
}

/// Reads on in a body that was refused, where its length is known and small. Then the connection goes on; else it ends
/// with the answer. (actix drops the rest of a body in chunks by itself, and goes on.)
///
/// actix would end it over any byte that is still unread, and say so, but answer what the client has sent behind the body
/// all the same if both were in its buffer: events would be appended that their producer must believe to be lost.
pub(super) async fn discard<S>(headers: &HeaderMap, payload: &mut S)
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    if declared(headers).is_none_or(|declared| declared > DISCARD_BYTES_MAX) {
        return;
    }
    let discarding = async { while let Some(Ok(_)) = payload.next().await {} };
    let _ = timeout(DISCARD_TIME_MAX, discarding).await;
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What the headers say of the body must be what is read here: JSON in UTF-8.
fn check_type(headers: &HeaderMap) -> Result<(), BodyRefusal> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut content_type = content_type.split(';').map(str::trim);
    match content_type.next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "" => return Err(BodyRefusal::NoContentType),
        "application/x-www-form-urlencoded" => return Err(BodyRefusal::Form),
        other if !CONTENT_TYPES.contains(&other) => return Err(BodyRefusal::ContentType),
        _ => {}
    }
    let parameters = content_type.filter_map(|parameter| parameter.split_once('='));
    let mut charsets = parameters.filter(|(name, _)| name.eq_ignore_ascii_case("charset"));
    let known = |charset: &str| CHARSETS.iter().any(|known| known.eq_ignore_ascii_case(charset.trim_matches('"')));
    if charsets.all(|(_, charset)| known(charset)) { Ok(()) } else { Err(BodyRefusal::Charset) }
}

/// In the order in which they were applied.
fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, BodyRefusal> {
    let mut codings = Vec::new();
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let names = value.to_str().map_err(|_| BodyRefusal::Coding)?;
        for name in names.split(',').map(str::trim) {
            match name.to_ascii_lowercase().as_str() {
                "" | "identity" => {}
                "gzip" | "x-gzip" => codings.push(Coding::Gzip),
                "deflate" => codings.push(Coding::Deflate),
                "br" => codings.push(Coding::Brotli),
                "zstd" => codings.push(Coding::Zstd),
                _ => return Err(BodyRefusal::Coding),
            }
        }
    }
    if codings.len() > CODINGS_MAX { Err(BodyRefusal::Coding) } else { Ok(codings) }
}

impl Room {
    /// 0 means that there is no limit.
    pub(super) fn new(bytes: u64) -> Self {
        let blocks = match bytes {
            0 => Semaphore::MAX_PERMITS,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX) / ROOM_BLOCK_BYTES,
        };
        let blocks = blocks.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(blocks)), blocks }
    }
}

impl Body<'_> {
    async fn read<S>(&mut self, payload: &mut S) -> Result<(), BodyRefusal>
    where
        S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
    {
        while let Some(chunk) = payload.next().await {
            self.extend(&chunk.map_err(|_| BodyRefusal::Cut)?)?;
        }
        Ok(())
    }

    async fn inflate<S>(&mut self, payload: &mut S, codings: &[Coding]) -> Result<(), BodyRefusal>
    where
        S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
    {
        let (mut sent, bytes_max) = (0, self.bytes_max);
        let payload = payload.map(move |chunk| {
            let chunk = chunk.map_err(|_| io::Error::other(BodyRefusal::Cut))?;
            // What is sent may come to nothing, such as empty members without end.
            sent += chunk.len() as u64;
            if sent > bytes_max { Err(io::Error::other(BodyRefusal::TooLarge(bytes_max))) } else { Ok(chunk) }
        });
        let mut reader: Reader<'_> = Box::new(StreamReader::new(payload));
        for coding in codings.iter().rev() {
            reader = coding.decoded(reader).await.map_err(refusal_of)?;
        }
        loop {
            let piece = reader.fill_buf().await.map_err(refusal_of)?;
            if piece.is_empty() {
                return Ok(());
            }
            self.extend(piece)?;
            let taken = piece.len();
            reader.consume(taken);
            tokio::task::yield_now().await;
        }
    }

    fn extend(&mut self, piece: &[u8]) -> Result<(), BodyRefusal> {
        let bytes = self.bytes.len() + piece.len();
        if bytes as u64 > self.bytes_max {
            return Err(BodyRefusal::TooLarge(self.bytes_max));
        }
        self.nesting.take(piece)?;
        self.take_room(bytes / ROOM_BLOCK_BYTES)?;
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// A body that has all of the room is alone: it may be larger, rather than never be taken.
    fn take_room(&mut self, blocks: usize) -> Result<(), BodyRefusal> {
        let taken = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = blocks.min(self.room.blocks).saturating_sub(taken);
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let more = self.room.free.clone().try_acquire_many_owned(more).map_err(|_| BodyError::Overloaded)?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// The reason that was sent through the decoders, or else they were not sent what they read.
fn refusal_of(error: io::Error) -> BodyRefusal {
    error.downcast().unwrap_or(BodyRefusal::Damaged)
}

impl Coding {
    async fn decoded(self, mut reader: Reader<'_>) -> io::Result<Reader<'_>> {
        let first = reader.fill_buf().await?.first().copied().unwrap_or_default();
        Ok(match self {
            // Several members, or frames, in a row are one body: so their specifications have it.
            Self::Gzip => {
                let mut decoder = GzipDecoder::new(reader);
                decoder.multiple_members(true);
                buffered(decoder)
            }
            Self::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX);
                let mut decoder = ZstdDecoder::with_params(reader, &[window]);
                decoder.multiple_members(true);
                buffered(decoder)
            }
            // The name means zlib, and there are senders who leave its two bytes out.
            Self::Deflate if is_zlib(first) => buffered(Whole::new(ZlibDecoder::new(reader), ZlibDecoder::get_mut)),
            Self::Deflate => buffered(Whole::new(DeflateDecoder::new(reader), DeflateDecoder::get_mut)),
            Self::Brotli if has_large_window(first) => return Err(io::ErrorKind::InvalidData.into()),
            Self::Brotli => buffered(Whole::new(BrotliDecoder::new(reader), BrotliDecoder::get_mut)),
        })
    }
}

fn buffered<'a>(decoder: impl AsyncRead + Unpin + 'a) -> Reader<'a> {
    Box::new(BufReader::with_capacity(PIECE_BYTES, decoder))
}

/// RFC 1950: compression method 8, window of at most 32 KiB. Raw deflate that begins like this would be a stored block
/// with padding that is not zero, which nobody writes.
fn is_zlib(first: u8) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7
}

/// An extension beyond RFC 7932, with windows of up to 1 GiB. The decoder knows it, and cannot be told not to.
fn has_large_window(first: u8) -> bool {
    first & 0x7f == 0x11
}

/// A decoder whose input must end where what it decodes ends.
struct Whole<'a, D> {
    decoder: D,
    rest: fn(&mut D) -> &mut Reader<'a>,
}

impl<'a, D> Whole<'a, D> {
    fn new(decoder: D, rest: fn(&mut D) -> &mut Reader<'a>) -> Self {
        Self { decoder, rest }
    }
}

impl<D: AsyncRead + Unpin> AsyncRead for Whole<'_, D> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        ready!(Pin::new(&mut this.decoder).poll_read(cx, into))?;
        if into.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        let rest = ready!(Pin::new((this.rest)(&mut this.decoder)).poll_fill_buf(cx))?;
        Poll::Ready(if rest.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) })
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use async_compression::Level;
    use async_compression::tokio::write::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
    use futures_util::stream;
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn take<S>(headers: &HeaderMap, payload: &mut S, limits: Limits, room: &Room) -> Result<Bytes, BodyRefusal>
    where
        S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
    {
        expect(headers, limits.bytes)?.take(payload, limits, room).await
    }

    const JSON: &[u8] = br#"{"$schema":"/test/event/1.0.0","meta":{"stream":"test.event"},"test":"test test test"}"#;
    const LIMIT: u64 = 100_000;
    const LIMITS: Limits = Limits { bytes: LIMIT, depth: 128, time: Duration::from_secs(9) };

    /// All that an encoder makes of this.
    macro_rules! encoded {
        ($encoder:ident, $bytes:expr) => {{
            let mut encoder = $encoder::with_quality(Vec::new(), Level::Fastest);
            encoder.write_all($bytes).await.expect("encodes");
            encoder.shutdown().await.expect("encodes");
            encoder.into_inner()
        }};
    }

    async fn every_coding(bytes: &[u8]) -> [(&'static str, Vec<u8>); 6] {
        [
            ("gzip", encoded!(GzipEncoder, bytes)),
            ("x-GZIP", encoded!(GzipEncoder, bytes)),
            ("deflate", encoded!(ZlibEncoder, bytes)),
            ("Deflate", encoded!(DeflateEncoder, bytes)),
            ("br", encoded!(BrotliEncoder, bytes)),
            ("zstd", encoded!(ZstdEncoder, bytes)),
        ]
    }

    fn headers(more: &[(&str, &str)]) -> HeaderMap {
        let mut request = TestRequest::post();
        for (name, value) in more {
            request = request.append_header((*name, *value));
        }
        request.to_http_request().headers().clone()
    }

    async fn taken(coding: &str, body: &[u8], piece: usize) -> Result<Bytes, BodyRefusal> {
        let headers = headers(&[("content-type", "application/json"), ("content-encoding", coding)]);
        let pieces: Vec<_> = body.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        take(&headers, &mut stream::iter(pieces), LIMITS, &Room::new(0)).await
    }

    fn form(content_type: &str) -> Result<(), BodyRefusal> {
        check_type(&headers(&[("content-type", content_type)]))
    }

    #[test]
    fn what_producers_send_today_is_taken() {
        for content_type in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "text/plain;charset=\"utf-8\"",
            "application/reports+json",
            "application/json; charset=us-ascii; odd",
        ] {
            assert_eq!(form(content_type), Ok(()), "{content_type}");
        }
    }

    #[test]
    fn what_would_be_misread_is_refused() {
        let refused = [
            ("", BodyRefusal::NoContentType),
            ("application/x-www-form-urlencoded", BodyRefusal::Form),
            ("text/xml", BodyRefusal::ContentType),
            ("application/json; charset=utf-16", BodyRefusal::Charset),
            ("application/json; charset=utf-8; charset=latin1", BodyRefusal::Charset),
        ];
        for (content_type, refusal) in refused {
            assert_eq!(form(content_type), Err(refusal), "{content_type}");
        }
    }

    #[test]
    fn codings_are_a_list_over_all_headers_and_two_at_most() {
        let of = |values: &[&str]| {
            let pairs: Vec<_> = values.iter().map(|value| ("content-encoding", *value)).collect();
            codings(&headers(&pairs))
        };
        assert_eq!(of(&[]), Ok(vec![]));
        assert_eq!(of(&["identity, , identity", ""]), Ok(vec![]));
        assert_eq!(of(&["GZip", "identity,br"]), Ok(vec![Coding::Gzip, Coding::Brotli]));
        for refused in ["compress", "gzip;q=1", "gzip, gzip, gzip", "lzma, gzip", "dcb"] {
            assert_eq!(of(&[refused]), Err(BodyRefusal::Coding), "{refused}");
        }
    }

    #[tokio::test]
    async fn every_coding_is_undone_however_it_is_cut_into_pieces() {
        for (coding, body) in every_coding(JSON).await {
            for piece in [1, 7, body.len()] {
                assert_eq!(taken(coding, &body, piece).await.as_deref(), Ok(JSON), "{coding} in {piece}");
            }
        }
        let twice = encoded!(BrotliEncoder, &encoded!(GzipEncoder, JSON));
        assert_eq!(taken("gzip, br", &twice, 5).await.as_deref(), Ok(JSON));
        assert_eq!(taken("br, gzip", &twice, 5).await, Err(BodyRefusal::Damaged));
    }

    #[tokio::test]
    async fn members_in_a_row_are_one_body() {
        let (head, tail) = JSON.split_at(20);
        let members = [encoded!(GzipEncoder, head), encoded!(GzipEncoder, b""), encoded!(GzipEncoder, tail)].concat();
        assert_eq!(taken("gzip", &members, 9).await.as_deref(), Ok(JSON));
        let frames = [encoded!(ZstdEncoder, head), encoded!(ZstdEncoder, tail)].concat();
        assert_eq!(taken("zstd", &frames, 9).await.as_deref(), Ok(JSON));
    }

    #[tokio::test]
    async fn a_body_that_is_cut_anywhere_is_damaged_and_so_is_one_that_goes_on() {
        for (coding, body) in every_coding(JSON).await {
            for length in 1..body.len() {
                assert_eq!(taken(coding, &body[..length], 16).await, Err(BodyRefusal::Damaged), "{coding} at {length}");
            }
            for more in [&b"\n"[..], b"garbage that goes on for a while", &[0; 40]] {
                for piece in [1, 4096] {
                    let longer = [&body, more].concat();
                    assert_eq!(taken(coding, &longer, piece).await, Err(BodyRefusal::Damaged), "{coding} + {more:?}");
                }
            }
            assert_eq!(taken(coding, JSON, 16).await, Err(BodyRefusal::Damaged), "{coding} that is none");
        }
    }

    #[tokio::test]
    async fn a_changed_byte_is_found_where_the_coding_has_a_checksum() {
        for (coding, body) in every_coding(JSON).await.into_iter().filter(|(coding, _)| *coding == "gzip") {
            for at in body.len() - 8..body.len() {
                let mut body = body.clone();
                body[at] ^= 1;
                assert_eq!(taken(coding, &body, 16).await, Err(BodyRefusal::Damaged), "{coding} at {at}");
            }
        }
    }

    #[tokio::test]
    async fn the_limit_counts_what_comes_out() {
        let limit = usize::try_from(LIMIT).expect("a size");
        for (coding, body) in every_coding(&vec![b' '; limit]).await {
            assert_eq!(taken(coding, &body, 999).await.map(|body| body.len()), Ok(limit), "{coding}");
        }
        for (coding, body) in every_coding(&vec![b' '; limit + 1]).await {
            assert_eq!(taken(coding, &body, 999).await, Err(BodyRefusal::TooLarge(LIMIT)), "{coding}");
        }
    }

    #[tokio::test]
    async fn what_is_sent_is_limited_too_even_if_nothing_comes_out() {
        let empty = encoded!(GzipEncoder, b"");
        let many = empty.repeat(usize::try_from(LIMIT).expect("a size") / empty.len() + 1);
        assert_eq!(taken("gzip", &many, 4096).await, Err(BodyRefusal::TooLarge(LIMIT)));
    }

    #[tokio::test]
    async fn windows_that_cost_more_than_the_body_are_refused() {
        // A zstd frame that asks for a window of 2 GiB, and one whose only segment is as large as that.
        let large = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3][..], &[0x01, 0x00, 0x00]].concat();
        assert_eq!(taken("zstd", &large, 16).await, Err(BodyRefusal::Damaged));
        let single = [&[0x28, 0xb5, 0x2f, 0xfd, 0xa0][..], &(2_u32 << 30).to_le_bytes(), &[0x01, 0x00, 0x00]].concat();
        assert_eq!(taken("zstd", &single, 16).await, Err(BodyRefusal::Damaged));
        // An empty brotli stream, whole but for its window of 30 bits, which the decoder would take.
        assert_eq!(taken("br", &[0x11, 0x1e | 0xc0], 16).await, Err(BodyRefusal::Damaged));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_refused_in_time() {
        let started = tokio::time::Instant::now();
        for coding in ["identity", "gzip"] {
            let headers = headers(&[("content-type", "text/plain"), ("content-encoding", coding)]);
            let mut body = stream::iter([Ok(Bytes::from_static(b"\x1f\x8b"))]).chain(stream::pending());
            assert_eq!(take(&headers, &mut body, LIMITS, &Room::new(0)).await, Err(BodyRefusal::TooSlow(LIMITS.time)));
        }
        assert_eq!(started.elapsed(), LIMITS.time * 2);
    }

    #[tokio::test]
    async fn what_is_nested_too_deep_is_refused_before_it_ends() {
        let headers = headers(&[("content-type", "text/plain")]);
        for piece in [&[b'['; 200][..], br#" {"a":"\"[","b":[[[["#] {
            let pieces = stream::repeat_with(|| Ok(Bytes::copy_from_slice(piece))).take(200);
            let mut body = pieces.chain(stream::pending());
            let refused = take(&headers, &mut body, LIMITS, &Room::new(0)).await;
            assert_eq!(refused, Err(BodyRefusal::Body(BodyError::TooDeep(128))));
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_told_apart_from_a_damaged_one() {
        for coding in ["identity", "gzip", "zstd"] {
            let headers = headers(&[("content-type", "text/plain"), ("content-encoding", coding)]);
            let mut broken = stream::iter([Ok(Bytes::new()), Err(PayloadError::Incomplete(None))]);
            assert_eq!(take(&headers, &mut broken, LIMITS, &Room::new(0)).await, Err(BodyRefusal::Cut), "{coding}");
        }
    }

    #[tokio::test]
    async fn bodies_that_are_read_share_their_room_and_small_ones_need_none() {
        let room = Room::new(3 * ROOM_BLOCK_BYTES as u64);
        let of = |blocks: usize| {
            let body = Bytes::from(vec![b' '; blocks * ROOM_BLOCK_BYTES]);
            let headers = headers(&[("content-type", "text/plain")]);
            let room = room.clone();
            async move {
                take(&headers, &mut stream::iter([Ok(body)]), Limits { bytes: 1 << 30, ..LIMITS }, &room)
                    .await
                    .map(|body| body.len())
            }
        };
        let overloaded = Err(BodyRefusal::Body(BodyError::Overloaded));
        let mut other =
            Body { bytes: BytesMut::new(), bytes_max: 1 << 30, nesting: Nesting::new(128), room: &room, taken: None };
        other.extend(&[0; ROOM_BLOCK_BYTES - 1]).expect("room");
        assert_eq!(of(100).await, Ok(100 * ROOM_BLOCK_BYTES), "alone it may be larger than the room");
        other.extend(&[0; 1]).expect("room");
        assert_eq!((of(2).await, of(3).await), (Ok(2 * ROOM_BLOCK_BYTES), overloaded.clone()));
        other.extend(&[0; 2 * ROOM_BLOCK_BYTES]).expect("room");
        assert_eq!((of(0).await, of(1).await), (Ok(0), overloaded));
        other.extend(&[0; 2 * ROOM_BLOCK_BYTES]).expect("it has all the room");
        drop(other);
        assert_eq!(of(3).await, Ok(3 * ROOM_BLOCK_BYTES));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_body_is_read_on_where_it_is_short_and_for_a_moment() {
        let started = tokio::time::Instant::now();
        let short = headers(&[("content-length", "262144")]);
        let mut pieces = stream::iter([Ok(Bytes::from_static(b" ")), Ok(Bytes::new())]);
        discard(&short, &mut pieces).await;
        assert_eq!(pieces.count().await, 0);
        discard(&short, &mut stream::iter([Err(PayloadError::Incomplete(None))]).chain(stream::pending())).await;
        discard(&headers(&[("content-length", "262145")]), &mut stream::pending()).await;
        discard(&headers(&[]), &mut stream::pending()).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        discard(&short, &mut stream::pending()).await;
        assert_eq!(started.elapsed(), DISCARD_TIME_MAX);
    }

    #[tokio::test]
    async fn a_length_over_the_limit_is_refused_before_anything_is_read() {
        let headers =
            headers(&[("content-type", "text/plain"), ("content-encoding", "gzip"), ("content-length", "100001")]);
        assert_eq!(
            take(&headers, &mut stream::pending(), LIMITS, &Room::new(0)).await,
            Err(BodyRefusal::TooLarge(LIMIT))
        );
    }
}
