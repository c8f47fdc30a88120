//! The values of one series in one chunk, packed. Pure.
//!
//! Values are texts, as Prometheus prints them, and come back exactly. Most texts are decimals: they are kept as whole
//! numbers of one scale, each as the difference from what the last two would continue to (counters and gauges: one or two
//! bytes each). Others are kept as doubles where printing the double gives the text back, else as text.

/// Places of a chunk.
pub const SLOTS: u8 = 128;

/// Digits of a decimal that is kept as a whole number.
const MAX_DIGITS: usize = 17;

/// Values by slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Column {
    /// Bit n: slot n has a value. Bytes, for their alignment.
    present: [u8; 16],
    /// The form (first byte) and the values in it.
    bytes: Box<[u8]>,
}

const FORM_TEXT: u8 = 0;
const FORM_DOUBLE: u8 = 1;
/// And above: decimals with `form - FORM_DECIMAL` digits after the point.
const FORM_DECIMAL: u8 = 2;

impl Column {
    /// Packs values, ordered by slot.
    pub fn pack(values: &[(u8, &str)]) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        let present = values.iter().fold(0_u128, |present, (slot, _)| present | 1 << slot);
        let decimals = decimals(values);
        let bytes = match decimals {
            // Doubles take at most nine bytes each.
            Some(packed) if packed.len() <= values.len() * 5 => packed,
            Some(packed) => doubles(values).filter(|doubles| doubles.len() < packed.len()).unwrap_or(packed),
            None => doubles(values).unwrap_or_else(|| texts(values)),
        };
        Self { present: present.to_le_bytes(), bytes: bytes.into() }
    }

    /// Whether no slot has a value.
    pub fn is_empty(&self) -> bool {
        self.present == [0; 16]
    }

    /// Whether a slot from `first` to `last` has a value.
    pub fn has_any(&self, first: u8, last: u8) -> bool {
        self.present() & mask(first, last) != 0
    }

    /// Calls `take` with each slot and text, in order of the slots.
    pub fn each(&self, mut take: impl FnMut(u8, &[u8])) {
        let mut text = Vec::with_capacity(32);
        let mut reader = Reader::new(&self.bytes);
        let mut present = self.present();
        while present != 0 {
            let slot = u8::try_from(present.trailing_zeros()).unwrap_or_default();
            present &= present - 1;
            text.clear();
            reader.next(&mut text);
            take(slot, &text);
        }
    }

    /// Bytes on the heap.
    pub fn heap(&self) -> usize {
        self.bytes.len()
    }

    /// Bit n: slot n has a value.
    pub(super) fn present(&self) -> u128 {
        u128::from_le_bytes(self.present)
    }

    /// The form and the values in it.
    pub(super) fn packed(&self) -> &[u8] {
        &self.bytes
    }

    /// From what [`Self::present`] and [`Self::packed`] gave.
    pub(super) fn from_packed(present: u128, bytes: &[u8]) -> Self {
        Self { present: present.to_le_bytes(), bytes: bytes.into() }
    }
}

/// The bits of the slots from `first` to `last`.
pub(super) fn mask(first: u8, last: u8) -> u128 {
    (u128::MAX << first) & (u128::MAX >> (SLOTS - 1 - last))
}

/// Reads packed values one by one.
struct Reader<'a> {
    form: u8,
    rest: &'a [u8],
    /// The last value and the one before; of doubles the last one's bits.
    last: (i64, i64),
    bits: u64,
    is_first: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let (form, rest) = bytes.split_first().map_or((FORM_TEXT, bytes), |(form, rest)| (*form, rest));
        Self { form, rest, last: (0, 0), bits: 0, is_first: true }
    }

    fn next(&mut self, out: &mut Vec<u8>) {
        // Bytes of [`Column::pack`] are all there.
        let _: Option<()> = match self.form {
            FORM_TEXT => self.text(out),
            FORM_DOUBLE => self.double(out),
            form => self.decimal(form - FORM_DECIMAL, out),
        };
    }

    fn text(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let (length, rest) = self.rest.split_first()?;
        let (text, rest) = rest.split_at_checked(usize::from(*length))?;
        out.extend_from_slice(text);
        self.rest = rest;
        Some(())
    }

    fn double(&mut self, out: &mut Vec<u8>) -> Option<()> {
        // How many bytes of the difference are kept, from the top; the others are zero.
        let (kept, rest) = self.rest.split_first()?;
        let (bytes, rest) = rest.split_at_checked(usize::from(*kept))?;
        let mut all = [0_u8; 8];
        all.get_mut(..bytes.len())?.copy_from_slice(bytes);
        self.bits ^= u64::from_be_bytes(all).rotate_right(ROTATION);
        self.rest = rest;
        print_double(out, f64::from_bits(self.bits));
        Some(())
    }

    fn decimal(&mut self, scale: u8, out: &mut Vec<u8>) -> Option<()> {
        let difference = unzigzag(self.varint()?);
        let expected = if self.is_first { 0 } else { expected(self.last) };
        let value = expected.wrapping_add(difference);
        self.last = if self.is_first { (value, value) } else { (value, self.last.0) };
        self.is_first = false;
        print_decimal(out, value, scale);
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// What the last two values continue to.
fn expected((last, before): (i64, i64)) -> i64 {
    last.wrapping_add(last.wrapping_sub(before))
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn texts(values: &[(u8, &str)]) -> Vec<u8> {
    let mut out = vec![FORM_TEXT];
    for (_, text) in values {
        // No number is longer; a longer text is none, and `samples` has refused it.
        let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
        out.push(length);
        out.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
    }
    out
}

/// The low bytes of neighbouring doubles differ more than the high ones: turned so, the equal ones come last.
const ROTATION: u32 = 32;

fn doubles(values: &[(u8, &str)]) -> Option<Vec<u8>> {
    let mut out = vec![FORM_DOUBLE];
    let (mut before, mut printed) = (0_u64, Vec::new());
    for (_, text) in values {
        let value: f64 = text.parse().ok()?;
        printed.clear();
        print_double(&mut printed, value);
        if printed != text.as_bytes() {
            return None;
        }
        let difference = (value.to_bits() ^ before).rotate_left(ROTATION).to_be_bytes();
        let kept = difference.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        out.push(u8::try_from(kept).unwrap_or(8));
        out.extend_from_slice(&difference[..kept]);
        before = value.to_bits();
    }
    Some(out)
}

fn decimals(values: &[(u8, &str)]) -> Option<Vec<u8>> {
    let parsed: Option<Vec<(i64, u8)>> = values.iter().map(|(_, text)| parse_decimal(text)).collect();
    let parsed = parsed?;
    let scale = parsed.iter().map(|(_, scale)| *scale).max()?;
    let mut out = vec![FORM_DECIMAL + scale];
    let mut last = None;
    for (digits, own) in parsed {
        let value = digits.checked_mul(10_i64.checked_pow(u32::from(scale - own))?)?;
        let difference = value.wrapping_sub(last.map_or(0, expected));
        let mut rest = zigzag(difference);
        while rest >= 0x80 {
            out.push(u8::try_from(rest & 0x7f).unwrap_or_default() | 0x80);
            rest >>= 7;
        }
        out.push(u8::try_from(rest).unwrap_or_default());
        last = Some((value, last.map_or(value, |(before, _)| before)));
    }
    Some(out)
}

/// A decimal as digits and their number after the point; only spellings that [`print_decimal`] gives back.
fn parse_decimal(text: &str) -> Option<(i64, u8)> {
    let (is_negative, number) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_canonical = !whole.is_empty()
        && (whole == "0" || !whole.starts_with('0'))
        && is_number(whole)
        && is_number(fraction)
        && !fraction.ends_with('0')
        && fraction.is_empty() != number.contains('.')
        && whole.len() + fraction.len() <= MAX_DIGITS;
    if !is_canonical {
        return None;
    }
    let digits = whole.bytes().chain(fraction.bytes()).fold(0_i64, |sum, byte| sum * 10 + i64::from(byte - b'0'));
    // "-0" is a number of its own.
    if is_negative && digits == 0 {
        return None;
    }
    Some((if is_negative { -digits } else { digits }, u8::try_from(fraction.len()).ok()?))
}

fn print_decimal(out: &mut Vec<u8>, value: i64, scale: u8) {
    if value < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value.unsigned_abs()).as_bytes();
    let scale = usize::from(scale);
    if scale == 0 {
        out.extend_from_slice(digits);
        return;
    }
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(scale));
    out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
    out.push(b'.');
    out.extend(std::iter::repeat_n(b'0', scale - fraction.len()));
    out.extend_from_slice(fraction);
    while out.last() == Some(&b'0') {
        out.pop();
    }
    if out.last() == Some(&b'.') {
        out.pop();
    }
}

/// A double as Prometheus prints it: shortest digits; with an exponent below 1e-6 and from 1e21 (`util/jsonutil`).
fn print_double(out: &mut Vec<u8>, value: f64) {
    use std::io::Write as _;

    let size = value.abs();
    // Writing to memory does not fail.
    let _ = if value.is_nan() {
        out.write_all(b"NaN")
    } else if value.is_infinite() {
        out.write_all(if value > 0.0 { b"+Inf" } else { b"-Inf" })
    } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        write!(out, "{digits}e{sign}{exponent:0>2}")
    } else {
        write!(out, "{value}")
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(texts: &[String]) -> Column {
        let values: Vec<(u8, &str)> =
            texts.iter().enumerate().map(|(n, text)| (u8::try_from(n).unwrap(), text.as_str())).collect();
        let column = Column::pack(&values);
        let mut found = Vec::new();
        column.each(|slot, text| found.push((slot, String::from_utf8(text.to_vec()).unwrap())));
        assert_eq!(found, values.iter().map(|(slot, text)| (*slot, (*text).to_owned())).collect::<Vec<_>>());
        column
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn numbers_of_all_kinds_come_back_as_they_were() {
        for texts in [
            &["0", "1", "-1", "10", "100"][..],
            &["0.1", "0.01", "12.5", "-3.25", "7"],
            &["NaN", "+Inf", "-Inf", "-0", "0"],
            &["1e-07", "1e+21", "1.5e-09", "123456789012345680000", "0.000001"],
            &["0.0033333333333333335", "0.30000000000000004", "5e-324", "1.7976931348623157e+308"],
            // Not as Prometheus prints: kept as text.
            &["01", "1.0", "1e5", "+1", "", "0x1p-2", "1."],
            &["99999999999999999", "-99999999999999999", "0.00000000000000001"],
        ] {
            there_and_back(&strings(texts));
        }
        assert!(Column::pack(&[]).is_empty());
    }

    #[test]
    fn a_counter_takes_little_more_than_a_byte_a_value() {
        let mut sum = 1_234_567_u64;
        let counter: Vec<String> = (0..128_u64)
            .map(|n| {
                sum += 450 + n * 7_919 % 61;
                sum.to_string()
            })
            .collect();
        let column = there_and_back(&counter);
        assert!(column.heap() < 128 * 3 / 2, "{}", column.heap());
        let constant = there_and_back(&vec!["0.75".to_owned(); 128]);
        assert!(constant.heap() < 135, "{}", constant.heap());
    }

    #[test]
    fn slots_are_known() {
        let column = Column::pack(&[(0, "1"), (5, "2"), (127, "3")]);
        for (first, last, has) in
            [(0, 0, true), (1, 4, false), (1, 5, true), (6, 126, false), (6, 127, true), (127, 127, true)]
        {
            assert_eq!(column.has_any(first, last), has, "{first} to {last}");
        }
    }

    proptest! {
        #[test]
        fn doubles_come_back(values in prop::collection::vec(any::<u64>().prop_map(f64::from_bits), 1..128)) {
            let texts: Vec<String> = values.iter().map(|value| {
                let mut out = Vec::new();
                print_double(&mut out, *value);
                String::from_utf8(out).unwrap()
            }).collect();
            let column = there_and_back(&texts);
            prop_assert!(column.heap() <= 1 + 9 * texts.len());
        }

        #[test]
        fn decimals_come_back(values in prop::collection::vec((any::<i32>(), 0..9_u32), 1..128)) {
            let texts: Vec<String> = values.iter().map(|(digits, scale)| {
                let mut out = Vec::new();
                print_decimal(&mut out, i64::from(*digits), u8::try_from(*scale).unwrap());
                String::from_utf8(out).unwrap()
            }).collect();
            there_and_back(&texts);
        }

        #[test]
        fn texts_come_back(texts in prop::collection::vec("[-+.0-9eInfNa]{0,24}", 1..128)) {
            there_and_back(&texts);
        }
    }
}
