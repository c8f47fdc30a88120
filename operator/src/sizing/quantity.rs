//! Kubernetes quantities as numbers: CPU in millicores, memory and storage in bytes.

use std::fmt;

/// One mebibyte in bytes.
pub const MIB: i64 = 1 << 20;
/// One gibibyte in bytes.
pub const GIB: i64 = 1 << 30;

/// CPU in thousandths of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu(pub i64);

/// Memory or storage in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub i64);

/// Bytes of data, written for people in powers of ten: `228 MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataSize(pub i64);

/// A quantity that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a quantity; write for example 250m, 1, 512Mi or 2Gi")]
pub struct NotAQuantity(pub String);

impl fmt::Display for Cpu {
    /// `250m`, or `2` for whole cores: the form that the API server keeps.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 % 1000 == 0 { write!(f, "{}", self.0 / 1000) } else { write!(f, "{}m", self.0) }
    }
}

impl fmt::Display for Bytes {
    /// The largest binary suffix that divides the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, suffix) in [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
            let unit = 1_i64 << shift;
            if self.0 != 0 && self.0 % unit == 0 {
                return write!(f, "{}{suffix}", self.0 / unit);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for DataSize {
    /// Three digits and more of the largest unit that leaves them whole enough: `950 kB`, `228 MB`, `12 TB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
        match units.iter().find(|(unit, _)| self.0 >= 10 * unit || (self.0 >= *unit && self.0 % unit == 0)) {
            Some((unit, name)) => write!(f, "{} {name}", (self.0 + unit / 2) / unit),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl Cpu {
    /// Parses a CPU quantity; fractions of a millicore round up, as the API server does.
    pub fn parse(text: &str) -> Result<Self, NotAQuantity> {
        // Thousandths of a core: scale before rounding.
        parse_scaled(text, 1000.0).map(Self)
    }
}

impl Bytes {
    /// Parses a memory or storage quantity; fractions of a byte round up.
    pub fn parse(text: &str) -> Result<Self, NotAQuantity> {
        parse_scaled(text, 1.0).map(Self)
    }

    /// Whole mebibytes, rounded down.
    pub fn mib(self) -> i64 {
        self.0 / MIB
    }
}

/// Value of a quantity times `scale`, rounded up. Quantities of this project stay far below 2^53, where `f64` is exact.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "range is checked before the cast")]
fn parse_scaled(text: &str, scale: f64) -> Result<i64, NotAQuantity> {
    let bad = || NotAQuantity(text.to_owned());
    let trimmed = text.trim();
    let split =
        trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+' || c == '-')).unwrap_or(trimmed.len());
    let (number, suffix) = trimmed.split_at(split);
    let factor = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024_f64.powi(2),
        "Gi" => 1024_f64.powi(3),
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        "Ei" => 1024_f64.powi(6),
        exponent if exponent.starts_with(['e', 'E']) => 10_f64.powi(exponent[1..].parse().map_err(|_| bad())?),
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    let value = number * factor * scale;
    // Round away the noise of the multiplication before rounding up: 0.1 * 1000 must be 100, not 101.
    let value = ((value * 1e6).round() / 1e6).ceil();
    if value.is_finite() && value.abs() < 9e18 { Ok(value as i64) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_parse_as_the_api_server_reads_them() {
        for (text, millis) in [("250m", 250), ("1", 1000), ("0.1", 100), ("1.5", 1500), ("2e3m", -1), ("100u", 1)] {
            assert_eq!(Cpu::parse(text).map_or(-1, |c| c.0), millis, "{text}");
        }
        for (text, bytes) in [("2Gi", 2 * GIB), ("512Mi", 512 * MIB), ("1e3", 1000), ("1G", 1_000_000_000), ("0", 0)] {
            assert_eq!(Bytes::parse(text).map(|b| b.0), Ok(bytes), "{text}");
        }
        for text in ["", "Gi", "12 Gi", "1gi", "--1", "1.2.3"] {
            assert!(Bytes::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quantities_print_in_canonical_form() {
        assert_eq!(Cpu(250).to_string(), "250m");
        assert_eq!(Cpu(2000).to_string(), "2");
        assert_eq!(Bytes(2 * GIB).to_string(), "2Gi");
        assert_eq!(Bytes(1536 * MIB).to_string(), "1536Mi");
        let sizes = [
            (0, "0 B"),
            (999, "999 B"),
            (50_000, "50 kB"),
            (228_250_000, "228 MB"),
            (1_000_000_000, "1 GB"),
            (9_500_000, "9500 kB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(DataSize(bytes).to_string(), text);
        }
    }
}
