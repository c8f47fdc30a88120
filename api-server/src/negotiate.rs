//! Content negotiation: which encoding a client takes, and which version it already has.

use std::io::{Read, Write};

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT_ENCODING, IF_NONE_MATCH};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// That of upstream.
const GZIP_LEVEL: u32 = 5;
/// Bodies below this many bytes are sent as they are: one packet either way.
const LEAST_COMPRESSED: usize = 1024;

/// Whether a body of this length goes out compressed to this client.
pub fn wants_gzip(headers: &HeaderMap, length: usize) -> bool {
    length >= LEAST_COMPRESSED && quality(headers, "gzip") > 0
}

/// Weight of an encoding in `Accept-Encoding` (RFC 9110 section 12.5.3), in thousandths; 0 means refused or not named.
pub fn quality(headers: &HeaderMap, token: &str) -> u32 {
    let mut any = 0;
    let accepted = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for item in accepted.flat_map(|value| value.split(',')) {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
        if name.eq_ignore_ascii_case(token) {
            return weight;
        }
        if name == "*" {
            any = weight;
        }
    }
    any
}

/// A weight as RFC 9110 section 12.4.2 writes it: `0`, `1`, or up to three digits after the point.
fn thousandths(text: &str) -> u32 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    match (whole.parse::<u32>(), fraction.parse::<u32>()) {
        (Ok(whole @ 0..=1), Ok(fraction)) => (whole * 1000 + fraction).min(1000),
        _ => 0,
    }
}

/// Whether `If-None-Match` names this strong validator, or any.
pub fn matches_any(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|value| value.split(',')).any(|item| {
        let item = item.trim();
        item == "*" || item.trim_start_matches("W/") == tag
    })
}

/// Compresses as upstream does: gzip, level 5.
pub fn gzip(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(content.len() / 3), Compression::new(GZIP_LEVEL));
    encoder.write_all(content)?;
    encoder.finish()
}

/// Undoes [`gzip`].
pub fn gunzip(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(packed.len() * 4);
    GzDecoder::new(packed).read_to_end(&mut content)?;
    Ok(content)
}
