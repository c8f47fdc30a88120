//! One answer as a line: a frame of ours around the bytes of the datasource.

use axum::http::StatusCode;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::plan::{Entry, For};
use super::time::number;

/// How a client takes lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `application/x-ndjson`.
    Lines,
    /// `text/event-stream`.
    Events,
}

/// What came of a query.
#[derive(Debug)]
pub struct Outcome {
    /// The status that the proxy would have answered.
    pub status: StatusCode,
    /// Its `Cache-Status`.
    pub cache_status: Option<String>,
    /// Its `Age`, in seconds.
    pub age: Option<u64>,
    /// Its body.
    pub body: Bytes,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    panels: &'a [For],
    #[serde(flatten)]
    asked: Option<Asked<'a>>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<u64>,
}

#[derive(Serialize)]
struct Asked<'a> {
    query: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Number>,
    end: Number,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<Number>,
}

/// Printed as the datasource was asked.
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match RawValue::from_string(number(self.0)) {
            Ok(text) => text.serialize(serializer),
            Err(error) => Err(serde::ser::Error::custom(error)),
        }
    }
}

/// The line of an entry; a body that is no JSON gives a line that says so.
pub fn line(entry: &Entry, outcome: &Outcome, form: Form) -> Bytes {
    let asked = entry.question.as_ref().ok().map(|question| {
        let (instants, range) = (question.instants, !question.instant);
        Asked {
            query: &question.query,
            start: range.then_some(Number(instants.start)),
            end: Number(instants.end),
            step: range.then_some(Number(instants.step)),
        }
    });
    let (status, body) = match serde_json::from_slice::<&RawValue>(&outcome.body) {
        Ok(body) => (outcome.status, body.get()),
        Err(_) => (StatusCode::BAD_GATEWAY, r#"{"message":"bad gateway: the datasource's answer is no JSON"}"#),
    };
    let frame = Line {
        panels: &entry.panels,
        asked,
        status: status.as_u16(),
        cache_status: outcome.cache_status.as_deref(),
        age: outcome.age,
    };
    let mut out = Vec::with_capacity(body.len() + 512);
    if form == Form::Events {
        out.extend_from_slice(b"data: ");
    }
    // Texts and numbers are always written.
    let _ = serde_json::to_writer(&mut out, &frame);
    out.pop();
    out.extend_from_slice(if status.is_success() { b",\"data\":" } else { b",\"error\":" });
    let from = out.len();
    out.extend_from_slice(body.as_bytes());
    // Within JSON a line can end only between two words.
    for byte in out[from..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
        *byte = b' ';
    }
    out.extend_from_slice(if form == Form::Events { b"}\n\n" } else { b"}\n" });
    out.into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::proxy::DatasourceRef;
    use crate::view::Refusal;
    use crate::view::plan::Question;
    use crate::view::time::Instants;

    #[test]
    fn the_datasources_bytes_are_in_it_as_they_came() {
        let question = Question {
            datasource: DatasourceRef::Global { name: "prom".to_owned() },
            query: "up{a=\"b\"}".to_owned(),
            instants: Instants { start: 1_700_000_000.0, end: 1_700_003_600.0, step: 0.36 },
            instant: false,
        };
        let target = For { panel: "p".to_owned(), index: Some(1), repeat: None };
        let entry = Entry { panels: vec![target], question: Ok(question) };
        let outcome = |status, body: &'static [u8]| Outcome {
            status,
            cache_status: Some("perses; hit".to_owned()),
            age: Some(3),
            body: Bytes::from_static(body),
        };
        let ok = line(&entry, &outcome(StatusCode::OK, b"{\"b\":1e2,\n \"a\":1.50}\n"), Form::Lines);
        assert_eq!(
            std::str::from_utf8(&ok).unwrap(),
            "{\"panels\":[{\"panel\":\"p\",\"index\":1}],\"query\":\"up{a=\\\"b\\\"}\",\"start\":1700000000,\
             \"end\":1700003600,\"step\":0.36,\"status\":200,\"cacheStatus\":\"perses; hit\",\"age\":3,\
             \"data\":{\"b\":1e2,  \"a\":1.50}}\n"
        );
        let event = line(&entry, &outcome(StatusCode::OK, b"{\r}"), Form::Events);
        assert!(event.starts_with(b"data: {") && event.ends_with(b"}\n\n"));

        let seen = |status, body| -> Value {
            serde_json::from_slice(&line(&entry, &outcome(status, body), Form::Lines)).unwrap()
        };
        let failed = seen(StatusCode::BAD_REQUEST, br#"{"status":"error","errorType":"bad_data","error":"x"}"#);
        assert_eq!((&failed["status"], &failed["error"]["error"]), (&json!(400), &json!("x")));
        assert_eq!(failed.get("data"), None);
        for broken in [&b"<html>"[..], b"{\"a\":1}{", b"", b"\xff"] {
            let broken = seen(StatusCode::OK, broken);
            assert_eq!((&broken["status"], broken.get("data")), (&json!(502), None));
        }
        let refused = Entry { panels: entry.panels.clone(), question: Err(Refusal::TooLong) };
        let refused = line(&refused, &outcome(StatusCode::BAD_REQUEST, b"{}"), Form::Lines);
        assert!(refused.starts_with(b"{\"panels\":[{\"panel\":\"p\",\"index\":1}],\"status\":400,"), "{refused:?}");
    }
}
