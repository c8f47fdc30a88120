//! `timeout` of a query: a client's own ends its own wait; the datasource is told what is left of ours. Pure.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::domain::duration;

/// The parameter.
const TIMEOUT: &str = "timeout";

/// A timeout as Prometheus reads it: seconds, or a duration. `None` for what it refuses, or reads in another way.
pub fn parse(text: &str) -> Option<Duration> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_plain && let Ok(seconds) = text.parse() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    duration::parse(text).ok()
}

/// What the datasource is told: a little less than is left, so that its own words about a query that takes too long arrive.
pub fn told(left: Duration) -> Duration {
    left.saturating_sub((left / 10).min(Duration::from_secs(1)))
}

/// Query string and form with this timeout in the place of the client's; without one it is added to the query string. One
/// that Prometheus refuses stays.
pub fn put<'a>(query_string: &'a str, form: &'a str, timeout: Duration) -> (Cow<'a, str>, Cow<'a, str>) {
    let millis = Duration::from_millis(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    let seconds = format!("{TIMEOUT}={}", millis.as_secs_f64());
    let (query_string, in_query) = replace(query_string, &seconds);
    let (form, in_form) = replace(form, &seconds);
    if in_query || in_form {
        return (query_string, form);
    }
    let and = if query_string.is_empty() { "" } else { "&" };
    (Cow::Owned(format!("{query_string}{and}{seconds}")), form)
}

/// The parameters with another timeout; whether there was one.
fn replace<'a>(parameters: &'a str, timeout: &str) -> (Cow<'a, str>, bool) {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = || parameters.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    if !pairs().any(|(name, _)| decoded(name) == TIMEOUT) {
        return (Cow::Borrowed(parameters), false);
    }
    let pairs = parameters.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decoded(name) == TIMEOUT && parse(&decoded(value)).is_some() { timeout } else { pair }
    });
    (Cow::Owned(pairs.collect::<Vec<_>>().join("&")), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_takes_the_place_of_the_clients() {
        let put = |query: &'static str, form: &'static str| {
            let (query, form) = put(query, form, Duration::from_millis(8_500));
            format!("{query} | {form}")
        };
        assert_eq!(put("query=a&timeout=5s&x=%3Dtimeout%3D1", ""), "query=a&timeout=8.5&x=%3Dtimeout%3D1 | ");
        assert_eq!(put("", "query=a&%74imeout=30"), " | query=a&timeout=8.5");
        assert_eq!(put("timeout=1", "timeout=2"), "timeout=8.5 | timeout=8.5");
        assert_eq!(put("query=a", ""), "query=a&timeout=8.5 | ");
        assert_eq!(put("", "query=a"), "timeout=8.5 | query=a");
        assert_eq!(put("query=a&timeout=x", ""), "query=a&timeout=x | ", "Prometheus refuses it in its own words");
    }

    #[test]
    fn reads_what_prometheus_reads() {
        for (text, millis) in [("5", 5000), ("0.25", 250), ("5s", 5000), ("1m30s", 90_000), ("0", 0)] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for refused in ["", "x", "-1", "5 s", "1e3", "inf", "."] {
            assert_eq!(parse(refused), None, "{refused}");
        }
        assert_eq!(told(Duration::from_secs(60)), Duration::from_secs(59));
        assert_eq!(told(Duration::from_millis(100)), Duration::from_millis(90));
    }
}
