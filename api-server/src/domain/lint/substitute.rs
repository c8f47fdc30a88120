//! PromQL with Perses variables in it is no PromQL yet: something that parses is put in their place.

/// What a variable outside strings stands for where only the author knows.
#[derive(Debug, Clone, Copy)]
struct Guess {
    /// For a variable that stands alone.
    operand: &'static str,
    /// For a variable before a parenthesis.
    call: &'static str,
}

const GUESSES: [Guess; 4] = [
    Guess { operand: "x", call: "sum" },
    Guess { operand: "1", call: "sum" },
    Guess { operand: "x", call: "rate" },
    Guess { operand: "1", call: "rate" },
];

/// Short enough to change no sum of durations that is counted in seconds.
const DURATION: &str = "1ms";

/// Functions and aggregations whose first argument is a number.
const NUMBER_FIRST: [&str; 7] =
    ["topk(", "bottomk(", "limitk(", "limit_ratio(", "quantile(", "histogram_quantile(", "quantile_over_time("];

/// Texts to parse instead of the query, best guess first; one when it has no variables outside strings. Regular
/// expressions become plain texts, unless they match everything: compiling them takes longer than all the rest.
pub(super) fn candidates(query: &str) -> impl Iterator<Item = String> {
    let (first, has_variables) = replace(query, GUESSES[0]);
    let more = if has_variables { &GUESSES[1..] } else { &[] };
    std::iter::once(first).chain(more.iter().map(|guess| replace(query, *guess).0))
}

fn replace(query: &str, guess: Guess) -> (String, bool) {
    let (mut out, mut rest, mut has_variables) = (String::with_capacity(query.len()), query, false);
    let (mut brackets, mut braces) = (0_usize, 0_usize);
    while let Some(next) = rest.chars().next() {
        match next {
            '"' | '\'' | '`' => {
                let (content, length) = string_at(rest);
                let operator = out.trim_end().strip_suffix('~').filter(|before| before.ends_with(['=', '!']));
                match operator.map(str::len) {
                    Some(end) if !matches!(content, "" | ".*" | ".+") => {
                        let negated = out[..end].ends_with('!');
                        out.truncate(end);
                        out.push_str(if negated { "=\"x\"" } else { "\"x\"" });
                    }
                    _ => out.push_str(&rest[..length]),
                }
                rest = &rest[length..];
                continue;
            }
            '#' => {
                rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
                continue;
            }
            '$' => {
                if let Some(length) = variable_length(rest) {
                    has_variables = true;
                    let after = &rest[length..];
                    let place = Place { in_brackets: brackets > 0, in_braces: braces > 0, before: &out, after };
                    let text = place.fill(guess);
                    out.push_str(text);
                    rest = after;
                    continue;
                }
            }
            '[' => brackets += 1,
            ']' => brackets = brackets.saturating_sub(1),
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            _ => {}
        }
        out.push(next);
        rest = &rest[next.len_utf8()..];
    }
    (out, has_variables)
}

struct Place<'a> {
    in_brackets: bool,
    in_braces: bool,
    before: &'a str,
    after: &'a str,
}

impl Place<'_> {
    fn fill(&self, guess: Guess) -> &'static str {
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
        let (before, after) = (self.before.trim_end(), self.after.trim_start());
        if self.in_brackets || before.ends_with("offset") {
            return DURATION;
        }
        if self.before.ends_with(is_word) || self.after.starts_with(is_word) {
            return "x";
        }
        if self.in_braces && before.ends_with(['{', ',']) && after.starts_with(['}', ',']) {
            return "x=\"x\"";
        }
        if after.starts_with('(') {
            return guess.call;
        }
        if NUMBER_FIRST.iter().any(|function| before.ends_with(function)) {
            return "1";
        }
        guess.operand
    }
}

/// Content of a string literal at the start, and its length with the quotes; up to the end when it is not closed.
fn string_at(text: &str) -> (&str, usize) {
    let bytes = text.as_bytes();
    let (quote, mut at) = (bytes[0], 1);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote != b'`' => at += 1,
            byte if byte == quote => return (&text[1..at], at + 1),
            _ => {}
        }
        at += 1;
    }
    (&text[1..], bytes.len())
}

/// Length of `$name` or `${...}` at the start.
fn variable_length(text: &str) -> Option<usize> {
    let inner = &text[1..];
    if inner.starts_with('{') {
        return inner.find('}').map(|at| at + 2);
    }
    let length = inner.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    (length > 0).then_some(length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_become_something_that_parses() {
        for query in [
            "up",
            "sum(rate(http_requests_total{pod=~\"$pod\", code=~'5..'}[$__rate_interval]))",
            "rate(m[${__rate_interval}] offset $shift)",
            "max_over_time(up[$__range:$step])",
            "topk($n, $metric)",
            "histogram_quantile($q, sum by (le, $label) (rate(m_bucket[5m])))",
            "${metric}_total + job:$name:rate5m",
            "$metric",
            "sum by (${labels:csv}) (up) > $threshold",
            "clamp_max(up, $max)",
            "up{$filters}",
            "up{a=\"b\", ${filters:raw}}",
            "$agg(rate(m[5m]))",
            "$func(m[5m])",
            "up{re=~\"(unclosed ${x:regex}\"} # $comment",
            "label_replace(up, \"a\", \"$1\", \"b\", \"(.*)\")",
            "m{a=~`\\d+`}",
        ] {
            let parsed = candidates(query).any(|text| promql_parser::parser::parse(&text).is_ok());
            assert!(parsed, "{query}: {:?}", candidates(query).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_matches_everything_stays() {
        let first = |query: &str| candidates(query).next().unwrap();
        assert_eq!(first("up{a=~\".*\",b=~\"a|b\",c=\"$d\"}"), "up{a=~\".*\",b=\"x\",c=\"$d\"}");
        assert_eq!(first("up{a !~ '(b'}"), "up{a !=\"x\"}");
        for odd in ["\"", "'\\", "$", "${", "up{a=~\"", "\"é$\"é$é", "'é", "a=~\"é"] {
            assert!(candidates(odd).count() >= 1);
        }
    }
}
