//! Answers of `query_range`, taken apart without reading a number. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::grid::{Grid, Span, read_time};

/// Values longer than this are no numbers.
const MAX_VALUE: usize = 255;

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// One for each label set; none twice.
    pub series: Vec<Series<'a>>,
    /// What the datasource had to say about the query.
    pub notes: Notes,
}

/// `warnings` and `infos`, as they were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Something may be wrong with the answer.
    pub warnings: Vec<String>,
    /// Something may be wrong with the query.
    pub infos: Vec<String>,
}

/// One series; samples are ordered by index.
#[derive(Debug, PartialEq, Eq)]
pub struct Series<'a> {
    /// The label set as JSON, as it was sent.
    pub metric: &'a str,
    /// Index on the grid and text.
    pub values: Vec<(i64, &'a str)>,
    /// Index on the grid and JSON.
    pub histograms: Vec<(i64, &'a str)>,
}

/// Why an answer cannot be put together with others. It may be right all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It has another shape than Prometheus gives.
    #[error("shape")]
    Shape,
    /// A sample is not at an instant that was asked for, or not in order.
    #[error("grid")]
    Grid,
    /// A label set stands twice.
    #[error("duplicate")]
    Duplicate,
}

// Unknown fields may say that a part is missing, or belong to one execution.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    data: Data<'a>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    infos: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Data<'a> {
    #[serde(borrow)]
    result_type: Cow<'a, str>,
    #[serde(borrow)]
    result: Vec<RawSeries<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSeries<'a> {
    #[serde(borrow)]
    metric: &'a RawValue,
    #[serde(borrow, default)]
    values: Vec<(&'a RawValue, &'a str)>,
    #[serde(borrow, default)]
    histograms: Vec<(&'a RawValue, &'a RawValue)>,
}

impl<'a> Answer<'a> {
    /// Takes the body of a successful answer to a request for `span` apart.
    pub fn read(body: &'a [u8], grid: Grid, span: Span) -> Result<Self, Unfit> {
        let envelope: Envelope<'a> = serde_json::from_slice(body).map_err(|_| Unfit::Shape)?;
        if envelope.status != "success" || envelope.data.result_type != "matrix" {
            return Err(Unfit::Shape);
        }
        let mut series = Vec::with_capacity(envelope.data.result.len());
        for raw in envelope.data.result {
            if raw.values.iter().any(|(_, text)| text.len() > MAX_VALUE) {
                return Err(Unfit::Shape);
            }
            let texts =
                |raw: Vec<(&'a RawValue, &'a RawValue)>| raw.into_iter().map(|(time, value)| (time, value.get()));
            series.push(Series {
                metric: raw.metric.get(),
                values: on_grid(raw.values.into_iter(), grid, span)?,
                histograms: on_grid(texts(raw.histograms), grid, span)?,
            });
        }
        if has_duplicates(&series)? {
            return Err(Unfit::Duplicate);
        }
        Ok(Self { series, notes: Notes { warnings: envelope.warnings, infos: envelope.infos } })
    }
}

fn on_grid<'a>(
    samples: impl ExactSizeIterator<Item = (&'a RawValue, &'a str)>,
    grid: Grid,
    span: Span,
) -> Result<Vec<(i64, &'a str)>, Unfit> {
    let mut found = Vec::with_capacity(samples.len());
    let mut least = span.first;
    for (time, text) in samples {
        let index = read_time(time.get()).and_then(|time| grid.index(time)).ok_or(Unfit::Grid)?;
        if index < least || index > span.last {
            return Err(Unfit::Grid);
        }
        least = index + 1;
        found.push((index, text));
    }
    Ok(found)
}

/// Whether two label sets are equal, however they are written.
fn has_duplicates(series: &[Series<'_>]) -> Result<bool, Unfit> {
    let mut seen = std::collections::HashSet::with_capacity(series.len());
    for one in series {
        let labels: BTreeMap<Cow<'_, str>, Cow<'_, str>> =
            serde_json::from_str(one.metric).map_err(|_| Unfit::Shape)?;
        if !seen.insert(labels) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Notes {
    /// Adds what is not there yet.
    pub fn add(&mut self, other: &Self) {
        for (all, more) in [(&mut self.warnings, &other.warnings), (&mut self.infos, &other.infos)] {
            for note in more {
                if !all.contains(note) {
                    all.push(note.clone());
                }
            }
        }
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.warnings.is_empty() && self.infos.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Answer<'_>, Unfit> {
        let (grid, span) = Grid::of(1_000_000, 1_045_000, 15_000).unwrap();
        Answer::read(body.as_bytes(), grid, span)
    }

    fn result(result: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{result}]}}}}"#)
    }

    #[test]
    fn every_part_is_found_as_it_was_sent() {
        let body = format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{},{}]}},"warnings":["w"],"infos":["i","j"]}}"#,
            r#"{"metric":{"__name__":"m","a":"\u00e9\"{"},"values":[[1000,"1"],[1030,"NaN"]]}"#,
            r#"{"metric":{},"values":[[1045,"2.5"]],"histograms":[[1015,{"count":"1","sum":"2"}]]}"#
        );
        let answer = read(&body).unwrap();
        let first = 1_000_000 / 15_000;
        assert_eq!(answer.series[0].metric, r#"{"__name__":"m","a":"\u00e9\"{"}"#);
        assert_eq!(answer.series[0].values, [(first, "1"), (first + 2, "NaN")]);
        assert_eq!(answer.series[1].values, [(first + 3, "2.5")]);
        assert_eq!(answer.series[1].histograms, [(first + 1, r#"{"count":"1","sum":"2"}"#)]);
        assert_eq!((answer.notes.warnings.len(), answer.notes.infos.len()), (1, 2));
        assert_eq!(read(&result("")).unwrap().series, []);
    }

    #[test]
    fn what_may_be_something_else_is_refused() {
        let series = |values: &str| result(&format!(r#"{{"metric":{{"a":"1"}},"values":[{values}]}}"#));
        assert!(read(&series(r#"[1000,"1"]"#)).is_ok());
        for (body, why) in [
            (series(r#"[1001,"1"]"#), Unfit::Grid),
            (series(r#"[985,"1"]"#), Unfit::Grid),
            (series(r#"[1060,"1"]"#), Unfit::Grid),
            (series(r#"[1015,"1"],[1000,"1"]"#), Unfit::Grid),
            (series(r#"[1000,"1"],[1000,"1"]"#), Unfit::Grid),
            (series(r#"[1e3,"1"]"#), Unfit::Grid),
            (series("[1000,1]"), Unfit::Shape),
            (series(r#"[1000,"\n"]"#), Unfit::Shape),
            (series(r#"[1000,"1",2]"#), Unfit::Shape),
            (result(r#"{"metric":{"a":1},"values":[]}"#), Unfit::Shape),
            (result(r#"{"metric":{"a":"1","b":"2"}},{"metric":{"b":"2","a":"1"}}"#), Unfit::Duplicate),
            (result("").replace("success", "error"), Unfit::Shape),
            (result("").replace("matrix", "vector"), Unfit::Shape),
            (result("").replace("\"status\"", r#""isPartial":true,"status""#), Unfit::Shape),
            (String::new(), Unfit::Shape),
        ] {
            assert_eq!(read(&body).unwrap_err(), why, "{body}");
        }
    }
}
