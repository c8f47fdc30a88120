//! What the cache must know of a PromQL expression: a canonical text, and how far into the future of the evaluation it looks.
//! Pure; the parser is promql-parser.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{AtModifier, Expr, Offset, VectorSelector};

use crate::domain::promql;

/// The facts about one expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analysis {
    /// The text that keys use: canonical when the expression was understood, else as sent.
    pub text: String,
    /// Where its newest data may come from.
    pub reach: Reach,
    /// Whether its value at an instant depends on the window that is asked for (`@ start()`, `@ end()`), as far as is known.
    pub is_window_bound: bool,
    /// The metrics that it reads.
    pub names: Arc<Names>,
}

/// The metrics that something reads, as far as their names are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Those that are written, each once.
    pub written: Vec<String>,
    /// Whether there may be others: a regular expression, a selector without a name, or a text that is not understood.
    pub others: bool,
}

impl Names {
    /// Nothing is known.
    pub fn unknown() -> Self {
        Self { written: Vec::new(), others: true }
    }

    /// Whether this metric may be among them.
    pub fn may_be(&self, name: &str) -> bool {
        self.others || self.written.iter().any(|written| written == name)
    }

    /// Adds those of others.
    pub fn extend(&mut self, more: &Self) {
        self.others |= more.others;
        for name in &more.written {
            self.add(name);
        }
    }

    fn add(&mut self, name: &str) {
        if !self.written.iter().any(|written| written == name) {
            self.written.push(name.to_owned());
        }
    }

    fn read(&mut self, selector: &VectorSelector) {
        if let Some(name) = &selector.name {
            return self.add(name);
        }
        let matchers = &selector.matchers;
        let groups = if matchers.or_matchers.is_empty() {
            std::slice::from_ref(&matchers.matchers)
        } else {
            matchers.or_matchers.as_slice()
        };
        for group in groups {
            let is_name = |matcher: &&Matcher| matcher.name == "__name__" && matcher.op == MatchOp::Equal;
            match group.iter().find(is_name) {
                Some(matcher) => self.add(&matcher.value),
                None => self.others = true,
            }
        }
    }
}

/// Up to which instant an expression may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Up to `max(evaluation time, latest @) + ahead`, in milliseconds; never too early.
    Until {
        /// Sum of the negative offsets.
        ahead: i64,
        /// The latest `@ <timestamp>`.
        latest_at: Option<i64>,
    },
    /// Not understood: assume that it reads the newest data.
    Unknown,
}

impl Reach {
    /// The newest instant read when the last evaluation is at `end` (milliseconds); `None` is "as new as can be".
    pub fn newest(self, end: i64) -> Option<i64> {
        match self {
            Self::Until { ahead, latest_at } => Some(latest_at.map_or(end, |at| at.max(end)).saturating_add(ahead)),
            Self::Unknown => None,
        }
    }
}

/// Looks at an expression. Never fails: what is not understood keeps its text.
pub fn analyse(query: &str) -> Analysis {
    let analysis = promql::parse(query, |expr| {
        let printed = expr.to_string();
        // The canonical text counts only if it means the same: it must read back as the same tree.
        let same = promql_parser::parser::parse(&printed).is_ok_and(|again| again == *expr);
        let (reach, is_window_bound, names) = look(expr);
        let text = if same { printed } else { query.to_owned() };
        Analysis { text, reach, is_window_bound, names: Arc::new(names) }
    });
    let unknown = |_| Analysis {
        text: query.to_owned(),
        reach: Reach::Unknown,
        is_window_bound: true,
        names: Arc::new(Names::unknown()),
    };
    analysis.unwrap_or_else(unknown)
}

/// A selector of `match[]` as a text that is the same whatever the order and the spelling of its matchers, and the metrics that
/// it reads. What is not understood, or is no plain selector, keeps its text.
pub fn selector(text: &str) -> (String, Names) {
    let read = promql::parse(text, |expr| {
        let Expr::VectorSelector(selector) = expr else { return None };
        let matchers = &selector.matchers;
        // Prometheus refuses a name beside a name.
        let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !matchers.matchers.iter().all(|matcher| is_plain(&matcher.name)) {
            return None;
        }
        let named_twice = selector.name.is_some() && matchers.matchers.iter().any(|matcher| matcher.name == "__name__");
        if named_twice || !matchers.or_matchers.is_empty() || selector.offset.is_some() || selector.at.is_some() {
            return None;
        }
        let mut parts: Vec<String> =
            matchers.matchers.iter().map(|one| format!("{}{}{:?}", one.name, one.op, one.value)).collect();
        parts.extend(selector.name.as_ref().map(|name| format!("__name__={name:?}")));
        parts.sort();
        let mut names = Names::default();
        names.read(selector);
        Some((format!("{{{}}}", parts.join(",")), names))
    });
    // A text of our own cannot be one that was sent and not understood: that one keeps a mark.
    read.ok().flatten().unwrap_or_else(|| (format!("?{text}"), Names::unknown()))
}

/// How far an expression reaches, whether it is bound to its window, and which metrics it reads.
pub(super) fn look(expr: &Expr) -> (Reach, bool, Names) {
    let (mut ahead, mut latest_at, mut is_window_bound) = (0_i64, None, false);
    let mut names = Names::default();
    let mut add = |offset: Option<&Offset>, at: Option<&AtModifier>| {
        if let Some(Offset::Neg(duration)) = offset {
            ahead = ahead.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
        }
        match at {
            Some(AtModifier::At(time)) => {
                if let Ok(since) = time.duration_since(UNIX_EPOCH) {
                    latest_at = latest_at.max(Some(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)));
                }
            }
            Some(AtModifier::Start | AtModifier::End) => is_window_bound = true,
            None => {}
        }
    };
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        match expr {
            Expr::Subquery(subquery) => add(subquery.offset.as_ref(), subquery.at.as_ref()),
            Expr::VectorSelector(selector) => {
                names.read(selector);
                add(selector.offset.as_ref(), selector.at.as_ref());
            }
            Expr::MatrixSelector(matrix) => {
                names.read(&matrix.vs);
                add(matrix.vs.offset.as_ref(), matrix.vs.at.as_ref());
            }
            // Nobody makes these; if somebody did, we would not know what they read.
            Expr::Extension(_) => return (Reach::Unknown, true, Names::unknown()),
            _ => {}
        }
        todo.extend(promql::parts(expr));
    }
    (Reach::Until { ahead, latest_at }, is_window_bound, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(query: &str) -> String {
        analyse(query).text
    }

    #[test]
    fn spelling_does_not_matter() {
        for (one, other) in [
            ("up", "  up\n"),
            ("up{a=\"1\"}", "up { a = '1' , }"),
            ("rate(m[60s])", "rate( m[1m] ) # comment"),
            ("sum by (a, b) (m)", "sum(m) by (a,b)"),
            ("m offset 90m", "m offset 1h30m"),
            ("a  +  b", "a+b"),
        ] {
            assert_eq!(text(one), text(other), "{one} / {other}");
        }
    }

    #[test]
    fn meaning_does() {
        for (one, other) in [
            ("up", "up1"),
            ("up{a=\"1\"}", "up{a=\"1 \"}"),
            ("up{a=\"1\"}", "up{a=~\"1\"}"),
            ("up{a=\"x  y\"}", "up{a=\"x y\"}"),
            ("m[5m:1m] offset 1m", "m[5m:1m]"),
            ("m @ 1.001", "m @ 1.002"),
            ("m @ -5", "m @ 0"),
            ("m @ start()", "m @ end()"),
            ("a > b", "a > bool b"),
            ("a / on(x) group_left(y) b", "a / on(x) group_left b"),
            ("-1", "1"),
            ("1.0000000000000002", "1"),
            ("a - (b - c)", "a - b - c"),
            ("-a ^ b", "(-a) ^ b"),
            ("sum by (a) (m)", "sum without (a) (m)"),
            ("topk(1, m)", "topk(2, m)"),
            ("m{a!=\"1\"}", "m{a=\"1\"}"),
            ("label_replace(m, \"a\", \"\\\\\", \"b\", \"c\")", "label_replace(m, \"a\", \"/\", \"b\", \"c\")"),
            ("m{a=\"1\" or b=\"2\"}", "m{a=\"1\", b=\"2\"}"),
        ] {
            assert_ne!(text(one), text(other), "{one} / {other}");
        }
    }

    #[test]
    fn what_is_not_understood_keeps_its_text() {
        for query in ["", "sum(", "WITH (x = 1) x", "m[5", "keep_metric_names()", &"(".repeat(100_000)] {
            let unknown = Analysis {
                text: query.to_owned(),
                reach: Reach::Unknown,
                is_window_bound: true,
                names: Arc::new(Names::unknown()),
            };
            assert_eq!(analyse(query), unknown, "{query:.20}");
        }
    }

    #[test]
    fn reach_counts_negative_offsets_and_at() {
        for (query, newest) in [
            ("up", 1_000),
            ("up offset 5m", 1_000),
            ("up offset -5m", 301_000),
            ("rate(up[5m] offset -1m) + up offset -1s", 62_000),
            ("max_over_time((up offset -1s)[1m:10s] offset -1m)", 62_000),
            ("up @ 500", 500_000),
            ("up @ 0.5", 1_000),
            ("up @ end()", 1_000),
            ("topk(scalar(up offset -10s), m)", 11_000),
            ("m offset -1s @ 500", 501_000),
        ] {
            assert_eq!(analyse(query).reach.newest(1_000), Some(newest), "{query}");
        }
        assert_eq!(analyse("sum(").reach.newest(1_000), None);
    }

    #[test]
    fn windows_bind_only_what_names_them() {
        for (query, is_bound) in [
            ("rate(up[5m] offset -1m)", false),
            ("up @ 500", false),
            ("up @ start()", true),
            ("topk(2, sum_over_time(up[1m] @ end()))", true),
            ("max_over_time(up[1m:10s] @ start())", true),
            ("sum(", true),
        ] {
            assert_eq!(analyse(query).is_window_bound, is_bound, "{query}");
        }
    }

    #[test]
    fn names_are_those_of_all_selectors() {
        let names = |query: &str| {
            let names = analyse(query).names;
            names.written.join(" ") + if names.others { " ?" } else { "" }
        };
        for (query, expected) in [
            ("sum(rate(a[5m])) / on (x) b + a", "b a"),
            ("{__name__=\"a\",x=\"1\"}", "a"),
            ("max_over_time(a[1m:10s])", "a"),
            ("topk(scalar(b), a)", "a b"),
            ("{__name__=~\"a|b\"}", " ?"),
            ("a or {job=\"x\"}", "a ?"),
            ("vector(1)", ""),
            ("sum(", " ?"),
        ] {
            let mut found: Vec<_> = names(query).split(' ').map(str::to_owned).collect();
            let mut wanted: Vec<_> = expected.split(' ').map(str::to_owned).collect();
            found.sort();
            wanted.sort();
            assert_eq!(found, wanted, "{query}");
        }
        assert!(analyse("a").names.may_be("a") && !analyse("a").names.may_be("b"));
        assert!(analyse("a or {job=\"x\"}").names.may_be("b"));
    }

    #[test]
    fn selectors_are_the_same_in_any_order() {
        let text = |text: &str| selector(text).0;
        for (one, other) in [
            ("up{a=\"1\",b!=\"2\"}", " {b!='2', __name__=\"up\" , a=\"1\"} # all"),
            ("{a=~\"x|y\"}", "{a=~`x|y`,}"),
            ("up", "up{}"),
        ] {
            assert_eq!(text(one), text(other), "{one} / {other}");
        }
        let all = [
            "up",
            "up offset 5m",
            "up @ 5",
            "rate(up[5m])",
            "up{a=\"1\"}",
            "up{a=~\"1\"}",
            "up{a!=\"1\"}",
            "up{a!~\"1\"}",
            "up{__name__=\"x\"}",
            "{__name__=\"up\",__name__=\"x\"}",
            "up{a=\"1\" or b=\"2\"}",
            "up{a=\"1\",b=\"2\"}",
            "up{a=\"1\\\",b=\\\"2\"}",
            "{__name__=\"up",
            "(up)",
            "",
            "{__name__=~\"up\"}",
        ];
        let texts: std::collections::BTreeSet<String> = all.iter().map(|one| text(one)).collect();
        assert_eq!(texts.len(), all.len(), "{texts:#?}");
        assert_eq!(selector("up{a=\"1\"}").1, Names { written: vec!["up".to_owned()], others: false });
        assert!(selector("{a=\"1\"}").1.others);
    }

    /// The deepest trees that are let through, on a stack as small as that of a worker thread.
    #[test]
    fn deep_expressions_do_not_overflow_the_stack() {
        let n = promql::MAX_OPERATORS;
        let deep = [
            format!("{}1{}", "(".repeat(n), ")".repeat(n)),
            format!("{}1", "-".repeat(n)),
            format!("1{}", "+1".repeat(n)),
            format!("1{}", " and 1".repeat(n)),
            format!("{}m{}", "abs(".repeat(n), ")".repeat(n)),
            format!("{}m{}", "sum(".repeat(n), ")".repeat(n)),
            format!("m{}", "[5m:]".repeat(n)),
            format!("{}m{}", "max_over_time(".repeat(n / 2), "[5m:])".repeat(n / 2)),
        ];
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        thread.spawn(move || deep.iter().for_each(|query| drop(analyse(query)))).unwrap().join().unwrap();
    }
}
