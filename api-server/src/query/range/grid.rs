//! The instants of a range query: `phase + index x step`, in milliseconds since the epoch. Pure.

/// Prometheus refuses more points than this per series (`web/api/v1`); so must an answer that is put together here.
pub const MAX_POINTS: i64 = 11_000;

/// Where instants lie. Two windows share points when their grids are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    step: i64,
    phase: i64,
}

/// Instants of a grid by index, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first.
    pub first: i64,
    /// The last; never before the first.
    pub last: i64,
}

impl Grid {
    /// The grid and the instants of a request; `None` where Prometheus would refuse it.
    pub fn of(start: i64, end: i64, step: i64) -> Option<(Self, Span)> {
        let points = end.checked_sub(start).filter(|length| step > 0 && *length >= 0)? / step;
        if points > MAX_POINTS {
            return None;
        }
        let first = start.div_euclid(step);
        Some((Self { step, phase: start.rem_euclid(step) }, Span { first, last: first + points }))
    }

    /// Distance of two instants.
    pub const fn step(self) -> i64 {
        self.step
    }

    /// Offset of the grid from the epoch, less than a step.
    pub const fn phase(self) -> i64 {
        self.phase
    }

    /// The instant at an index.
    pub const fn time(self, index: i64) -> i64 {
        self.phase + index * self.step
    }

    /// The index of an instant, if it is one of the grid.
    pub fn index(self, time: i64) -> Option<i64> {
        let distance = time.checked_sub(self.phase)?;
        (distance.rem_euclid(self.step) == 0).then(|| distance.div_euclid(self.step))
    }
}

impl Span {
    /// What both have.
    pub fn overlap(self, other: Self) -> Option<Self> {
        let both = Self { first: self.first.max(other.first), last: self.last.min(other.last) };
        (both.first <= both.last).then_some(both)
    }

    /// From the first of both to the last of both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// Number of instants.
    pub const fn points(self) -> i64 {
        self.last - self.first + 1
    }
}

/// An instant as Prometheus prints it in JSON: seconds, and three digits when it is not a whole second.
pub fn print_time(out: &mut Vec<u8>, time: i64) {
    if time < 0 {
        out.push(b'-');
    }
    let (seconds, millis) = (time.unsigned_abs() / 1000, time.unsigned_abs() % 1000);
    out.extend_from_slice(itoa::Buffer::new().format(seconds).as_bytes());
    if millis > 0 {
        out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10 % 10), digit(millis % 10)]);
    }
}

fn digit(value: u64) -> u8 {
    b'0' + u8::try_from(value).unwrap_or_default()
}

/// Reads what [`print_time`] prints, and nothing else.
pub fn read_time(text: &str) -> Option<i64> {
    let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (seconds, millis) = match digits.split_once('.') {
        None => (digits, 0),
        Some((seconds, fraction)) => {
            let is_plain = !fraction.is_empty() && fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
            let scale = 10_i64.pow(u32::try_from(3 - fraction.len().min(3)).ok()?);
            (seconds, is_plain.then(|| fraction.parse::<i64>().ok())?? * scale)
        }
    };
    let is_plain = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    let time = is_plain.then(|| seconds.parse::<i64>().ok())??.checked_mul(1000)?.checked_add(millis)?;
    Some(if is_negative { -time } else { time })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn windows_share_a_grid_by_phase() {
        let (grid, span) = Grid::of(1_000_007_000, 1_000_067_000, 15_000).unwrap();
        assert_eq!((grid.phase(), span.points()), (2_000, 5));
        assert_eq!(grid.time(span.first), 1_000_007_000);
        let (slid, later) = Grid::of(1_000_022_000, 1_000_090_000, 15_000).unwrap();
        assert_eq!((slid, later.first), (grid, span.first + 1));
        assert_ne!(Grid::of(1_000_008_000, 1_000_067_000, 15_000).unwrap().0, grid);
        // The end counts down to the last instant.
        assert_eq!(Grid::of(1_000_007_000, 1_000_067_001, 15_000), Some((grid, span)));
        assert_eq!(Grid::of(0, 0, 1_000).unwrap().1, Span { first: 0, last: 0 });
    }

    #[test]
    fn what_prometheus_refuses_has_no_grid() {
        assert_eq!(Grid::of(0, 10, 0), None);
        assert_eq!(Grid::of(0, 10, -5), None);
        assert_eq!(Grid::of(10, 9, 1), None);
        assert!(Grid::of(0, 11_000, 1).is_some());
        assert_eq!(Grid::of(0, 11_001, 1), None);
        assert_eq!(Grid::of(i64::MIN, i64::MAX, 1), None);
    }

    #[test]
    fn times_are_printed_as_prometheus_does() {
        let printed = |time| {
            let mut out = Vec::new();
            print_time(&mut out, time);
            String::from_utf8(out).unwrap()
        };
        for (time, text) in [
            (0, "0"),
            (1_700_000_000_000, "1700000000"),
            (1_700_000_000_250, "1700000000.250"),
            (5, "0.005"),
            (-1_500, "-1.500"),
        ] {
            assert_eq!(printed(time), text);
            assert_eq!(read_time(text), Some(time));
        }
        assert_eq!(read_time("1700000000.25"), Some(1_700_000_000_250));
        for wrong in ["", "-", "1e3", "1.", ".5", "1.2345", "+1", "1_0", "NaN", "99999999999999999999"] {
            assert_eq!(read_time(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn an_index_is_an_instant(start in -10_i64.pow(13)..10_i64.pow(13), length in 0..10_000_000_i64, step in 1_000..1_000_000_i64) {
            let (grid, span) = Grid::of(start, start + length, step).unwrap();
            prop_assert_eq!(grid.time(span.first), start);
            prop_assert!(grid.time(span.last) <= start + length && grid.time(span.last + 1) > start + length);
            for index in [span.first, span.last] {
                prop_assert_eq!(grid.index(grid.time(index)), Some(index));
                prop_assert_eq!(grid.index(grid.time(index) + 1), None);
            }
        }
    }
}
