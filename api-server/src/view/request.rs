//! What a client says about its view.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::dashboard::Chosen;
use super::time::{Range, read_duration};

/// Within four thousand years of the epoch everything is exact.
const MAX_SECONDS: f64 = 1e11;
/// What Perses takes for the duration of a dashboard that has none.
const DURATION: &str = "1h";

/// The body of a request.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Body {
    variables: BTreeMap<String, Chosen>,
    start: Option<Moment>,
    end: Option<Moment>,
    duration: Option<String>,
    step: Option<Step>,
    width: Option<f64>,
    timezone_offset: f64,
    panels: Option<Vec<Wanted>>,
    /// Whether the datasources are to be asked again.
    pub refresh: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a time is a number of seconds since the epoch or a text of RFC 3339")]
enum Moment {
    Seconds(f64),
    Text(Timestamp),
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a step is a number of seconds or a duration")]
enum Step {
    Seconds(f64),
    Text(String),
}

/// A panel that the client wants.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "an entry of panels is a key or {panel, width, repeat: [name, value]}")]
pub enum Wanted {
    /// Wherever the dashboard shows it.
    Key(String),
    /// As the client shows it.
    Placed {
        /// Its key.
        panel: String,
        /// Its pixels.
        #[serde(default)]
        width: Option<f64>,
        /// Name and value of a variable that has this one value here.
        #[serde(default)]
        repeat: Option<(String, String)>,
    },
}

impl Wanted {
    /// The key of the panel.
    pub fn panel(&self) -> &str {
        match self {
            Self::Key(panel) | Self::Placed { panel, .. } => panel,
        }
    }
}

/// What a view shows.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Values by name.
    pub variables: BTreeMap<String, Chosen>,
    /// The time.
    pub range: Range,
    /// The suggested step, in place of that of a width.
    pub step_ms: Option<f64>,
    /// Pixels of the whole grid.
    pub width: Option<f64>,
    /// Seconds from the viewer's clock to UTC, as JavaScript's `getTimezoneOffset` counts.
    pub utc_offset: f64,
    /// What is wanted, most wanted first; `None`: all that is open.
    pub panels: Option<Vec<Wanted>>,
}

impl Body {
    /// What it means at `now_ms`, for a dashboard of this duration.
    pub fn view(self, now_ms: i64, duration: Option<&str>) -> Result<View, String> {
        let range = self.range(now_ms, duration)?;
        let step_ms = match self.step {
            None => None,
            Some(Step::Seconds(seconds)) => Some(seconds * 1000.0),
            Some(Step::Text(text)) => Some(read_duration(&text).ok_or_else(|| format!("step: no duration: {text:?}"))?),
        };
        let is_positive = |value: &f64| value.is_finite() && *value > 0.0;
        if step_ms.is_some_and(|step| !is_positive(&step)) {
            return Err("step: must be more than 0".to_owned());
        }
        let widths = self.panels.iter().flatten().filter_map(|wanted| match wanted {
            Wanted::Placed { width, .. } => *width,
            Wanted::Key(_) => None,
        });
        if self.width.into_iter().chain(widths).any(|width| !is_positive(&width)) {
            return Err("width: must be more than 0 pixels".to_owned());
        }
        if self.timezone_offset.abs() > 1_440.0 || self.timezone_offset.is_nan() {
            return Err("timezoneOffset: minutes from the local time to UTC, at most a day".to_owned());
        }
        Ok(View {
            variables: self.variables,
            range,
            step_ms,
            width: self.width,
            utc_offset: self.timezone_offset * 60.0,
            panels: self.panels,
        })
    }

    fn range(&self, now_ms: i64, duration: Option<&str>) -> Result<Range, String> {
        let moment = |name: &str, moment: &Moment| match moment {
            Moment::Seconds(seconds) => milliseconds(*seconds).ok_or_else(|| format!("{name}: out of range")),
            Moment::Text(time) => Ok(time.as_millisecond()),
        };
        let end_ms = self.end.as_ref().map_or(Ok(now_ms), |end| moment("end", end))?;
        let start_ms = match (&self.start, self.duration.as_deref().or(duration).filter(|text| !text.is_empty())) {
            (Some(_), _) if self.duration.is_some() => return Err("either start or duration, not both".to_owned()),
            (Some(start), _) => moment("start", start)?,
            (None, text) => {
                let text = text.unwrap_or(DURATION);
                let length = read_duration(text).and_then(|length| milliseconds(length / 1000.0));
                end_ms - length.ok_or_else(|| format!("duration: no duration: {text:?}"))?
            }
        };
        if start_ms >= end_ms {
            return Err("start: must be before end".to_owned());
        }
        Ok(Range { start_ms, end_ms })
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
fn milliseconds(seconds: f64) -> Option<i64> {
    (seconds.abs() <= MAX_SECONDS).then_some((seconds * 1000.0).round() as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn view(body: Value) -> Result<View, String> {
        let body: Body = serde_json::from_value(body).map_err(|error| error.to_string())?;
        body.view(NOW, Some("30m"))
    }

    #[test]
    fn ranges() {
        let range = |body: Value| view(body).map(|view| (view.range.start_ms - NOW, view.range.end_ms - NOW));
        assert_eq!(range(json!({})), Ok((-1_800_000, 0)));
        assert_eq!(range(json!({"duration": "5m"})), Ok((-300_000, 0)));
        assert_eq!(range(json!({"end": 1_699_999_000, "duration": "5m"})), Ok((-1_300_000, -1_000_000)));
        assert_eq!(range(json!({"start": 1_699_999_999.25, "end": "2023-11-14T22:13:20.5Z"})), Ok((-750, 500)));
        for (body, error) in [
            (json!({"start": 1, "duration": "5m"}), "not both"),
            (json!({"start": 1_700_000_000}), "before end"),
            (json!({"start": 1e300}), "out of range"),
            (json!({"duration": "0"}), "no duration"),
            (json!({"duration": "99999999y"}), "no duration"),
            (json!({"step": 0}), "more than 0"),
            (json!({"step": "x"}), "no duration"),
            (json!({"width": -1}), "more than 0"),
            (json!({"panels": [{"panel": "a", "width": 0}]}), "more than 0"),
            (json!({"timezoneOffset": 5000}), "minutes"),
            (json!({"end": "yesterday"}), "RFC 3339"),
            (json!({"variables": {"x": 1}}), "a text or a list of texts"),
            (json!({"vars": {}}), "unknown field"),
        ] {
            let refused = view(body.clone()).unwrap_err();
            assert!(refused.contains(error), "{body}: {refused}");
        }
        let step = |body: Value| view(body).unwrap().step_ms;
        assert_eq!(step(json!({"step": "1m"})), Some(60_000.0));
        assert_eq!(step(json!({"step": 0.5})), Some(500.0));
    }
}
