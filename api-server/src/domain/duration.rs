//! Durations in the form of Prometheus: `1h30m`, largest unit first.

use std::time::Duration;

const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid duration string: \"{0}\" (expected for example 30s, 5m, 1h30m or 0)")]
pub struct DurationError(pub String);

/// Reads a duration: `([0-9]+y)?(w)?(d)?(h)?(m)?(s)?(ms)?`, or `0`. The empty text is refused.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError(text.to_owned());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(error());
    }
    let (mut rest, mut units, mut millis) = (text, UNITS.iter(), 0_u64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| error())?;
        let tail = &rest[digits..];
        let unit_length = tail.bytes().take_while(u8::is_ascii_lowercase).count();
        let (_, factor) = units.find(|(name, _)| *name == &tail[..unit_length]).ok_or_else(error)?;
        millis = number.checked_mul(*factor).and_then(|part| millis.checked_add(part)).ok_or_else(error)?;
        rest = &tail[unit_length..];
    }
    Ok(Duration::from_millis(millis))
}

/// Prints a duration as upstream normalises it: `24h` becomes `1d`, `14d` becomes `2w`.
pub fn format(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, factor) in UNITS {
        // Years and weeks only when they divide exactly, as Prometheus prints them.
        if matches!(name, "y" | "w") && !millis.is_multiple_of(factor) {
            continue;
        }
        let count = millis / factor;
        if count > 0 {
            text.push_str(&count.to_string());
            text.push_str(name);
            millis -= count * factor;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_like_prometheus() {
        for (text, millis, printed) in [
            ("0", 0, "0s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("24h", 86_400_000, "1d"),
            ("14d", 1_209_600_000, "2w"),
            ("10d", 864_000_000, "10d"),
            ("1s500ms", 1_500, "1s500ms"),
            ("90m", 5_400_000, "1h30m"),
        ] {
            let duration = parse(text).unwrap();
            assert_eq!(duration.as_millis(), millis, "{text}");
            assert_eq!(format(duration), printed, "{text}");
        }
        for bad in ["", "5", "m", "1m1h", "1h1h", "-1s", "1.5h", "1 h", "1H", "99999999999999y"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
