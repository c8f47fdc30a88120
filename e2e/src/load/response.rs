//! HTTP/1.1 responses from bytes (RFC 9112): pure, no I/O.

/// What the head of a response says about the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The status code.
    pub(super) status: u16,
    /// Bytes of the head, with the empty line.
    pub(super) length: usize,
    /// How long the body is.
    pub(super) body: Body,
    /// Whether the server closes the connection after this response.
    pub(super) close: bool,
}

/// Framing of a body, RFC 9112 section 6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// That many bytes.
    Length(usize),
    /// Chunks until an empty one.
    Chunked,
    /// Everything until the connection is closed.
    UntilClose,
}

/// Reads the head at the start of `bytes`; `None` when it is not complete yet.
pub(super) fn parse_head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("not an HTTP response: {error}")),
    };
    let status = response.code.unwrap_or(0);
    let mut close = response.version == Some(0);
    // 1xx is never sent without an Expect header, which this client does not use.
    let bodiless = matches!(status, 204 | 304);
    let mut body = if bodiless { Body::Length(0) } else { Body::UntilClose };
    for header in response.headers.iter() {
        let name = header.name;
        if name.eq_ignore_ascii_case("connection") {
            close = has_token(header.value, "close") || (close && !has_token(header.value, "keep-alive"));
        } else if name.eq_ignore_ascii_case("transfer-encoding") && !bodiless {
            body = Body::Chunked;
        } else if name.eq_ignore_ascii_case("content-length") && body == Body::UntilClose {
            let text = std::str::from_utf8(header.value).unwrap_or_default();
            body = Body::Length(text.trim().parse().map_err(|_| format!("bad Content-Length {text:?}"))?);
        }
    }
    Ok(Some(Head { status, length, close: close || body == Body::UntilClose, body }))
}

/// The value of a header in a complete head.
pub(super) fn find_header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(head).ok()?;
    let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok()
}

/// Appends the content of all chunks in `bytes` to `body`; `None` when the last chunk is not there yet, else how many
/// bytes the chunks took. Starts anew on each call: responses of this kind are small here.
pub(super) fn decode_chunks(bytes: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>, String> {
    body.clear();
    let mut at = 0;
    loop {
        let Ok(size) = httparse::parse_chunk_size(&bytes[at..]) else {
            return Err("bad size of a chunk".to_owned());
        };
        let httparse::Status::Complete((line, size)) = size else { return Ok(None) };
        let size = usize::try_from(size).map_err(|_| "a chunk is too long".to_owned())?;
        let start = at + line;
        // Trailers are not used by any server here: the last chunk ends with an empty line, as each other one.
        let Some(chunk) = bytes.get(start..start + size + 2) else { return Ok(None) };
        let Some(content) = chunk.strip_suffix(b"\r\n") else { return Err("a chunk without its end".to_owned()) };
        body.extend_from_slice(content);
        at = start + size + 2;
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

fn has_token(value: &[u8], token: &str) -> bool {
    value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let cases: &[(&str, Head)] = &[
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n",
                Head { status: 200, length: 39, body: Body::Length(12), close: false },
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nConnection: keep-alive, Close\r\n\r\n",
                Head { status: 200, length: 78, body: Body::Chunked, close: true },
            ),
            (
                "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                Head { status: 204, length: 46, body: Body::Length(0), close: false },
            ),
            ("HTTP/1.1 500 X\r\n\r\n", Head { status: 500, length: 18, body: Body::UntilClose, close: true }),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n",
                Head { status: 200, length: 38, body: Body::Length(1), close: true },
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_head(text.as_bytes()), Ok(Some(*expected)), "{text:?}");
            for end in 0..text.len() {
                assert_eq!(parse_head(&text.as_bytes()[..end]), Ok(None), "{:?}", &text[..end]);
            }
        }
        assert!(parse_head(b"ICY 200 OK\r\n\r\n").is_err());
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").is_err());
    }

    #[test]
    fn header_by_name() {
        let head = b"HTTP/1.1 200 OK\r\nCache-Status: perses; hit\r\n\r\n";
        assert_eq!(find_header(head, "cache-status"), Some("perses; hit"));
        assert_eq!(find_header(head, "age"), None);
    }

    #[test]
    fn chunks() {
        let text = b"4\r\nwiki\r\nA;x=y\r\n0123456789\r\n0\r\n\r\nrest";
        let mut body = Vec::new();
        assert_eq!(decode_chunks(text, &mut body), Ok(Some(text.len() - 4)));
        assert_eq!(body, b"wiki0123456789");
        for end in 0..text.len() - 4 {
            assert_eq!(decode_chunks(&text[..end], &mut body), Ok(None), "{end}");
        }
        assert!(decode_chunks(b"4\r\nwikixx", &mut body).is_err());
        assert!(decode_chunks(b"zz\r\n", &mut body).is_err());
    }
}
