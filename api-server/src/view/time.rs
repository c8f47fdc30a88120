//! Ranges, steps and durations as Perses' core and its Prometheus plugin compute them (0.52, 0.53): in doubles, as JavaScript
//! does, so that a server asks for the same instants as a browser. Pure.

use std::fmt::Write as _;

/// Milliseconds of year, week, day, hour and minute in printed durations.
const PRINTED: [(&str, f64); 5] =
    [("y", 31_536_000_000.0), ("w", 604_800_000.0), ("d", 86_400_000.0), ("h", 3_600_000.0), ("m", 60_000.0)];
/// Units of durations that are read.
const UNITS: [&str; 7] = ["y", "w", "d", "h", "m", "s", "ms"];
/// Days of a year where durations are read (date-fns).
const DAYS_IN_YEAR: f64 = 365.2425;
const MAX_POINTS: f64 = 10_000.0;
/// Steps by the milliseconds that one pixel stands for: the first whose bound is above them.
const LADDER: [(f64, f64); 28] = [
    (15.0, 10.0),
    (35.0, 20.0),
    (75.0, 50.0),
    (150.0, 100.0),
    (350.0, 200.0),
    (750.0, 500.0),
    (1_500.0, 1_000.0),
    (3_500.0, 2_000.0),
    (7_500.0, 5_000.0),
    (12_500.0, 10_000.0),
    (17_500.0, 15_000.0),
    (25_000.0, 20_000.0),
    (45_000.0, 30_000.0),
    (90_000.0, 60_000.0),
    (210_000.0, 120_000.0),
    (450_000.0, 300_000.0),
    (750_000.0, 600_000.0),
    (1_500_000.0, 1_200_000.0),
    (2_700_000.0, 1_800_000.0),
    (5_400_000.0, 3_600_000.0),
    (9_000_000.0, 7_200_000.0),
    (16_200_000.0, 10_800_000.0),
    (32_400_000.0, 21_600_000.0),
    (86_400_000.0, 43_200_000.0),
    (604_800_000.0, 86_400_000.0),
    (1_814_400_000.0, 604_800_000.0),
    (3_628_800_000.0, 2_592_000_000.0),
    (63_072_000_000.0, 31_536_000_000.0),
];
/// What comes after the ladder's end.
const DEFAULT_STEP_MS: f64 = 15_000.0;

/// What a view shows, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Its beginning.
    pub start_ms: i64,
    /// Its end.
    pub end_ms: i64,
}

#[allow(clippy::cast_precision_loss, reason = "times since the epoch are far below 2^53 ms")]
impl Range {
    /// Its length in milliseconds.
    pub fn length_ms(self) -> f64 {
        (self.end_ms - self.start_ms) as f64
    }

    fn seconds(self) -> (f64, f64) {
        // `getUnixTime` of date-fns cuts off.
        ((self.start_ms as f64 / 1000.0).trunc(), (self.end_ms as f64 / 1000.0).trunc())
    }

    /// The step that Perses suggests for a chart of so many pixels.
    pub fn suggested_step_ms(self, width: f64) -> f64 {
        let wanted = (self.length_ms() / width).floor();
        LADDER.into_iter().find(|(bound, _)| wanted < *bound).map_or(DEFAULT_STEP_MS, |(_, step)| step)
    }
}

/// The instants that a range query asks for, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Instants {
    /// The first.
    pub start: f64,
    /// The last.
    pub end: f64,
    /// Between two.
    pub step: f64,
}

impl Instants {
    /// Those of a range: at least `min_step` seconds apart, on whole steps of the viewer's clock (`offset`: JavaScript's
    /// `getTimezoneOffset`, in seconds). `None` when there is no step to go by.
    pub fn of(range: Range, min_step: f64, suggested_ms: f64, offset: f64) -> Option<Self> {
        let (start, end) = range.seconds();
        let mut safe = (end - start) / MAX_POINTS;
        if safe > 1.0 {
            safe = safe.ceil();
        }
        let step = (suggested_ms / 1000.0).max(min_step).max(safe);
        if step <= 0.0 {
            return None;
        }
        let aligned = |time: f64| ((time + offset) / step).floor() * step - offset;
        let (start, mut end) = (aligned(start), aligned(end));
        #[allow(clippy::float_cmp, reason = "as the plugin asks it: equal texts would be sent")]
        if start == end {
            end = start + step;
        }
        Some(Self { start, end, step })
    }
}

/// A number as JavaScript prints it, within the range of times and steps.
pub fn number(value: f64) -> String {
    // Without the sign of a negative zero.
    format!("{}", value + 0.0)
}

/// A duration in Prometheus' form; nothing of it gives the empty text.
pub fn print_duration(milliseconds: f64) -> String {
    let (mut rest, mut out) = (milliseconds, String::new());
    for (unit, length) in PRINTED {
        let count = (rest / length).trunc();
        if count > 0.0 {
            rest -= count * length;
            let _ = write!(out, "{count}{unit}");
        }
    }
    let seconds = rest / 1000.0;
    let whole = seconds.trunc();
    if whole > 0.0 {
        let _ = write!(out, "{whole}s");
    }
    let millis = ((seconds - whole) * 1000.0 + 0.5).floor();
    if millis > 0.0 {
        let _ = write!(out, "{millis}ms");
    }
    out
}

/// Reads a duration as Perses' core does, into milliseconds: nothing is none, and `0` is no duration.
pub fn read_duration(text: &str) -> Option<f64> {
    let (mut counts, mut next, mut rest) = ([0.0; UNITS.len()], 0, text);
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
        let (unit, tail) = tail.split_at(tail.bytes().take_while(u8::is_ascii_lowercase).count());
        let at = next + UNITS[next..].iter().position(|known| *known == unit)?;
        counts[at] = number.parse::<f64>().ok()?;
        (next, rest) = (at + 1, tail);
    }
    let [years, weeks, days, hours, minutes, seconds, millis] = counts;
    let days = years * DAYS_IN_YEAR + weeks * 7.0 + days;
    let seconds = days * 24.0 * 60.0 * 60.0 + hours * 3_600.0 + minutes * 60.0 + (seconds + millis / 1000.0);
    Some((seconds * 1000.0).trunc()).filter(|milliseconds| milliseconds.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds, printed) in [
            ("", 0.0, ""),
            ("15s", 15_000.0, "15s"),
            ("1h30m", 5_400_000.0, "1h30m"),
            ("90m", 5_400_000.0, "1h30m"),
            ("1s500ms", 1_500.0, "1s500ms"),
            ("2w", 1_209_600_000.0, "2w"),
            // As date-fns has it.
            ("1y", 31_556_951_999.0, "1y5h49m11s999ms"),
        ] {
            let read = read_duration(text).unwrap();
            assert!((read - milliseconds).abs() < 0.5, "{text}: {read}");
            assert_eq!(print_duration(read), printed);
        }
        for wrong in ["0", "5", "1m1h", "-1s", "1.5h", "1s ", "1s\n"] {
            assert_eq!(read_duration(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    #[allow(clippy::float_cmp, reason = "whole numbers")]
    fn the_viewers_clock_decides_on_which_instants_coarse_steps_lie() {
        let range = Range { start_ms: 1_700_000_000_123, end_ms: 1_700_090_000_999 };
        let hour = Instants::of(range, 15.0, 3_600_000.0, 0.0).unwrap();
        assert_eq!((hour.start, hour.end, hour.step), (1_699_999_200.0, 1_700_089_200.0, 3600.0));
        let kolkata = Instants::of(range, 15.0, 3_600_000.0, -330.0 * 60.0).unwrap();
        assert_eq!((kolkata.start, kolkata.end), (1_699_997_400.0, 1_700_087_400.0));
        let minute = Range { start_ms: 0, end_ms: 60_000 };
        assert_eq!(Instants::of(minute, 300.0, 0.0, 0.0).unwrap().end, 300.0, "a step after the start at least");
        assert_eq!(Instants::of(Range { start_ms: 0, end_ms: 1 }, 0.0, 0.0, 0.0), None);
    }
}
