//! What the linter has to say, in headers of an answer: `Warning: 299 perses "<path>: <text>"` (RFC 7234, section 5.5).

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::lint::Finding;

/// Headers of one answer, at most.
const MAX_HEADERS: usize = 10;
/// Characters of one text, at most.
const MAX_TEXT: usize = 240;
const WARNING: HeaderName = HeaderName::from_static("warning");

/// Adds the findings; when there are more than fit, the last header says how many are left out.
pub fn add(headers: &mut HeaderMap, findings: &[Finding]) {
    let told = if findings.len() > MAX_HEADERS { MAX_HEADERS - 1 } else { findings.len() };
    let mut texts: Vec<String> = findings[..told].iter().map(ToString::to_string).collect();
    if told < findings.len() {
        texts.push(format!("{} more findings, see perses-api-server lint", findings.len() - told));
    }
    add_texts(headers, texts);
}

/// Adds a header for each text, as many as fit.
pub fn add_texts(headers: &mut HeaderMap, texts: Vec<String>) {
    for text in texts.into_iter().take(MAX_HEADERS) {
        if let Ok(value) = HeaderValue::from_str(&format!("299 perses \"{}\"", quoted(&text))) {
            headers.append(WARNING, value);
        }
    }
}

/// The inside of a quoted string: printable ASCII.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().take(MAX_TEXT) {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lint::Severity;

    #[test]
    fn texts_are_quoted_and_few() {
        let finding =
            |text: &str| Finding { severity: Severity::Error, path: "spec".to_owned(), text: text.to_owned() };
        let mut headers = HeaderMap::new();
        add(&mut headers, &[finding("a \"b\" \\ \r\nInjected: ü")]);
        assert_eq!(headers["warning"], "299 perses \"spec: a \\\"b\\\" \\\\ ??Injected: ?\"");
        let mut headers = HeaderMap::new();
        add(&mut headers, &vec![finding(&"x".repeat(1000)); 30]);
        let all: Vec<&str> = headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(all.len(), MAX_HEADERS);
        assert!(all.iter().all(|text| text.len() < MAX_TEXT + 20));
        assert!(all[9].contains("21 more findings"));
    }
}
