//! The form in Redis of a chunk whose points change no more. Pure.
//!
//! ```text
//! form, digest of what follows (16 bytes), packed or not, content
//! content: key, number, notes, parts, series (labels, present, values, histograms)
//! ```
//!
//! What is read back has the digest of what was written under the same key, or it is nothing at all.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::chunk::{Chunk, Histograms, Line, Part};
use super::column::{Column, SLOTS};
use super::samples::Notes;

/// First byte; another form gets another number.
const FORM: u8 = 1;
const DIGEST: usize = 16;
/// Content shorter than this is not packed.
const LEAST_PACKED: usize = 512;
/// Labels pack well at any level, values at none.
const LEVEL: u32 = 3;
/// Larger values are not written, and larger contents not read.
const MAX_BLOB: usize = 1 << 20;
const MAX_CONTENT: u64 = 16 << 20;
/// No notes.
const NONE: u8 = u8::MAX;

/// The value for a chunk; `None` for one that is too large to be shared.
pub fn encode(key: &str, chunk: &Chunk) -> Option<Vec<u8>> {
    let mut content = Vec::with_capacity(key.len() + 64 + chunk.weight() / 2);
    put_bytes(&mut content, key.as_bytes())?;
    content.extend_from_slice(&chunk.number.to_be_bytes());
    let mut notes: Vec<&Arc<Notes>> = Vec::new();
    for said in chunk.parts.iter().filter_map(|part| part.notes.as_ref()) {
        if !notes.contains(&said) {
            notes.push(said);
        }
    }
    content.push(u8::try_from(notes.len()).ok().filter(|count| *count < NONE)?);
    for said in &notes {
        put_bytes(&mut content, serde_json::to_string(&(&said.warnings, &said.infos)).ok()?.as_bytes())?;
    }
    content.push(u8::try_from(chunk.parts.len()).ok()?);
    for part in &chunk.parts {
        let said = part.notes.as_ref().and_then(|said| notes.iter().position(|known| *known == said));
        let said = said.and_then(|at| u8::try_from(at).ok()).unwrap_or(NONE);
        content.extend_from_slice(&[part.first, part.last, u8::from(part.is_settled), said]);
        content.extend_from_slice(&part.fetched_at.to_be_bytes());
    }
    content.extend_from_slice(&u32::try_from(chunk.lines.len()).ok()?.to_be_bytes());
    for line in &chunk.lines {
        put_bytes(&mut content, line.metric.as_bytes())?;
        content.extend_from_slice(&line.values.present().to_be_bytes());
        put_bytes(&mut content, line.values.packed())?;
        let histograms = line.histograms.as_deref().unwrap_or_default();
        content.push(u8::try_from(histograms.len()).ok()?);
        for (slot, text) in histograms {
            content.push(*slot);
            put_bytes(&mut content, text.as_bytes())?;
        }
    }
    let packed = (content.len() >= LEAST_PACKED).then(|| pack(&content)).flatten();
    let packed = packed.filter(|packed| packed.len() < content.len() - content.len() / 8);
    let (is_packed, rest) = (packed.is_some(), packed.unwrap_or(content));
    let mut body = Vec::with_capacity(2 + DIGEST + rest.len());
    body.push(FORM);
    body.extend_from_slice(&[0; DIGEST]);
    body.push(u8::from(is_packed));
    body.extend_from_slice(&rest);
    let digest = blake3::hash(&body[1 + DIGEST..]);
    body[1..=DIGEST].copy_from_slice(&digest.as_bytes()[..DIGEST]);
    (body.len() <= MAX_BLOB).then_some(body)
}

/// Reads what [`encode`] wrote for this key and number; `None` for anything else.
pub fn decode(value: &[u8], key: &str, number: i64) -> Option<Chunk> {
    let (form, rest) = value.split_first()?;
    let (digest, rest) = rest.split_at_checked(DIGEST)?;
    if *form != FORM || digest != &blake3::hash(rest).as_bytes()[..DIGEST] {
        return None;
    }
    let (is_packed, rest) = rest.split_first()?;
    let unpacked = if *is_packed == 1 { Some(unpack(rest)?) } else { None };
    let mut content = Content(unpacked.as_deref().unwrap_or(rest));
    if content.bytes()? != key.as_bytes() || i64::from_be_bytes(*content.array()?) != number {
        return None;
    }
    let mut notes = Vec::new();
    for _ in 0..content.byte()? {
        let (warnings, infos) = serde_json::from_slice(content.bytes()?).ok()?;
        notes.push(Arc::new(Notes { warnings, infos }));
    }
    let mut chunk = Chunk::new(number);
    let mut next = 0;
    for _ in 0..content.byte()? {
        let [first, last, is_settled, said] = *content.array()?;
        let fetched_at = i64::from_be_bytes(*content.array()?);
        if first < next || last < first || last >= SLOTS {
            return None;
        }
        next = last + 1;
        let notes = if said == NONE { None } else { Some(notes.get(usize::from(said))?.clone()) };
        chunk.parts.push(Part { first, last, fetched_at, is_settled: is_settled == 1, notes });
    }
    for _ in 0..u32::from_be_bytes(*content.array()?) {
        let metric = Arc::from(std::str::from_utf8(content.bytes()?).ok()?);
        let present = u128::from_be_bytes(*content.array()?);
        let values = Column::from_packed(present, content.bytes()?);
        let mut histograms = Vec::new();
        for _ in 0..content.byte()? {
            let slot = content.byte().filter(|slot| *slot < SLOTS)?;
            histograms.push((slot, Box::from(std::str::from_utf8(content.bytes()?).ok()?)));
        }
        let histograms: Option<Histograms> = (!histograms.is_empty()).then(|| histograms.into());
        chunk.lines.push(Line { metric, values, histograms });
    }
    content.0.is_empty().then_some(chunk)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_be_bytes());
    out.extend_from_slice(bytes);
    Some(())
}

fn pack(content: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = DeflateEncoder::new(Vec::with_capacity(content.len() / 2), Compression::new(LEVEL));
    encoder.write_all(content).ok()?;
    encoder.finish().ok()
}

fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::with_capacity(packed.len() * 3);
    let mut decoder = DeflateDecoder::new(packed).take(MAX_CONTENT + 1);
    decoder.read_to_end(&mut content).ok()?;
    (content.len() as u64 <= MAX_CONTENT).then_some(content)
}

/// What is left to read.
struct Content<'a>(&'a [u8]);

impl<'a> Content<'a> {
    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (found, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(found)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| *byte)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(u32::from_be_bytes(*self.array()?)).ok()?;
        let (found, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(found)
    }
}
