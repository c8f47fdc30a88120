//! Parameters of a Prometheus query request: form body and query string, decoded strictly. Pure.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::range::grid::print_time;

/// A parameter of ours: the datasource is asked, whatever is cached. It goes no further.
pub const NO_CACHE: &str = "nocache";

/// Decoded parameters, those of the body first, as Go's `Request.Form` orders them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl FromIterator<(String, String)> for Params {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// A parameter that may stand once stands more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated;

impl Params {
    /// Decodes both sources. `None` when they are not exactly decodable (broken escapes, not UTF-8, `;`): a lenient decoder
    /// would give two different requests the same parameters.
    pub fn parse(query_string: Option<&str>, form: Option<&[u8]>) -> Option<Self> {
        let form = std::str::from_utf8(form.unwrap_or_default()).ok()?;
        let mut pairs = Vec::new();
        for source in [form, query_string.unwrap_or_default()] {
            for pair in source.split('&').filter(|pair| !pair.is_empty()) {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                pairs.push((decode(name)?, decode(value)?));
            }
        }
        Some(Self(pairs))
    }

    /// The value of a parameter that may stand at most once.
    pub fn single(&self, name: &str) -> Result<Option<&str>, Repeated> {
        let mut values = self.0.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (first, None) => Ok(first),
            _ => Err(Repeated),
        }
    }

    /// All values of a parameter, in their order.
    pub fn all<'p>(&'p self, name: &'p str) -> impl Iterator<Item = &'p str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// All of them, in their order.
    pub fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    /// Takes out [`NO_CACHE`]: `None` when it is not there, else whether one of its values means yes.
    pub fn take_no_cache(&mut self) -> Option<bool> {
        let before = self.0.len();
        let means_yes = self.all(NO_CACHE).any(|value| !matches!(value, "" | "0" | "false"));
        self.0.retain(|(name, _)| name != NO_CACHE);
        (self.0.len() < before).then_some(means_yes)
    }

    /// All parameters but those named, ordered by name; values of one name keep their order.
    pub fn others(&self, known: &[&str]) -> Vec<(&str, &str)> {
        let mut others: Vec<_> = self
            .0
            .iter()
            .filter(|(name, _)| !known.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        others.sort_by_key(|(name, _)| *name);
        others
    }
}

/// A query string or form without a parameter; the rest stays as it is.
pub fn without(parameters: &str, name: &str) -> String {
    let is_it = |pair: &&str| decode(pair.split_once('=').map_or(*pair, |(name, _)| name)).as_deref() == Some(name);
    parameters.split('&').filter(|pair| !is_it(pair)).collect::<Vec<_>>().join("&")
}

/// The instants that a request to the datasource asks for, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first.
    pub start: i64,
    /// The last.
    pub end: i64,
}

impl Bounds {
    /// The parameters of a query string or form with these bounds in the place of `start` and `end`; the rest stays as it is.
    pub fn put_into(self, parameters: &str) -> String {
        let pairs = parameters.split('&').map(|pair| {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            let time = match decode(name).as_deref() {
                Some("start") => self.start,
                Some("end") => self.end,
                _ => return Cow::Borrowed(pair),
            };
            let mut text = Vec::new();
            print_time(&mut text, time);
            Cow::Owned(format!("{name}={}", String::from_utf8_lossy(&text)))
        });
        pairs.collect::<Vec<_>>().join("&")
    }
}

/// Whether each `%` starts an escape.
pub fn escapes_are_complete(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    bytes.iter().enumerate().all(|(at, byte)| *byte != b'%' || is_hex(at + 1) && is_hex(at + 2))
}

fn decode(text: &str) -> Option<String> {
    if !escapes_are_complete(text) || text.contains(';') {
        return None;
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_comes_before_query_string() {
        let params = Params::parse(Some("query=b&limit=2"), Some(b"query=a+b%2B&limit=1&x")).unwrap();
        assert_eq!(params.single("query"), Err(Repeated));
        assert_eq!(params.single("none"), Ok(None));
        assert_eq!(params.single("x"), Ok(Some("")));
        assert_eq!(params.others(&["query"]), [("limit", "1"), ("limit", "2"), ("x", "")]);
    }

    #[test]
    fn bounds_take_the_place_of_others() {
        let bounds = Bounds { start: 1_700_000_000_250, end: 1_700_000_060_000 };
        assert_eq!(
            bounds.put_into("query=up%7Ba%3D%22start%3D1%22%7D&start=2025-01-01T00%3A00%3A00Z&%65nd=5&step=15s"),
            "query=up%7Ba%3D%22start%3D1%22%7D&start=1700000000.250&%65nd=1700000060&step=15s"
        );
        assert_eq!(bounds.put_into(""), "");
    }

    #[test]
    fn no_cache_is_for_us() {
        for (text, said) in [
            ("query=up", None),
            ("nocache=1&query=up", Some(true)),
            ("query=up&nocache=0", Some(false)),
            ("query=up&%6eocache", Some(false)),
        ] {
            let mut params = Params::parse(Some(text), None).unwrap();
            assert_eq!(params.take_no_cache(), said, "{text}");
            assert_eq!(params, Params::parse(Some("query=up"), None).unwrap(), "{text}");
            assert_eq!(without(text, NO_CACHE), "query=up", "{text}");
        }
    }

    #[test]
    fn refuses_what_a_lenient_decoder_would_guess() {
        for broken in ["a=%", "a=%2", "a=%zz", "a=%ff", "a=1;b=2", "%=1"] {
            assert_eq!(Params::parse(Some(broken), None), None, "{broken}");
        }
        assert_eq!(Params::parse(None, Some(b"a=\xff")), None);
        assert_eq!(Params::parse(None, None), Some(Params::default()));
    }
}
