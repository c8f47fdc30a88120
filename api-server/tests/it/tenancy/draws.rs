//! Queries as odd as a grammar can make them.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::samples::{FIRST, LAST};

const NAMES: [&str; 9] = [
    "g",
    "c_total",
    "other",
    "h_bucket",
    "{__name__=~\".+\"}",
    "{__name__=~\"g|other\"}",
    "{__name__!=\"\"}",
    "{namespace=\"b\"}",
    "nothing",
];
/// What somebody may say about labels, first about that of the tenant.
const MATCHERS: [&str; 28] = [
    "namespace=\"team-a\"",
    "namespace=\"b\"",
    "namespace='c'",
    "namespace!=\"team-a\"",
    "namespace!~\"team-a\"",
    "namespace!~\"team-a|\"",
    "namespace=~\".*\"",
    "namespace=~\".+\"",
    "namespace=~\"b|c\"",
    "namespace=~\"team.a\"",
    "namespace=~\"team[.]a|b\"",
    "namespace=~\"(?i)B\"",
    "namespace=\"\"",
    "namespace!=\"\"",
    "namespace=~\"\"",
    "namespace=\"team-a\",namespace=\"b\"",
    "namespace=`b`",
    "namespace=\"\\x62\"",
    "namespace='\\u0062'",
    "namespace=~\"te\\\\w+-a\"",
    "job=\"x\"",
    "job!=\"x\"",
    "job=~\".*\"",
    "instance=~'1|\\\\d'",
    "odd=\"é\\\"{}\\\\\"",
    "odd='é\"{}\\\\'",
    "odd=~`.*[{].*`",
    "le=\"+Inf\"",
];
const SPACES: [&str; 7] = ["", " ", "  ", "\n", "\t", " # namespace=\"b\" } or {\n", "\n#\n"];
const RANGED: [&str; 14] = [
    "rate",
    "increase",
    "irate",
    "delta",
    "avg_over_time",
    "sum_over_time",
    "count_over_time",
    "max_over_time",
    "last_over_time",
    "present_over_time",
    "changes",
    "resets",
    "deriv",
    "absent_over_time",
];
const PLAIN: [&str; 11] =
    ["abs", "ceil", "sgn", "sqrt", "exp", "timestamp", "sort", "sort_desc", "absent", "hour", "histogram_count"];
const AGGREGATORS: [&str; 8] = ["sum", "AVG", "min", "max", "count", "group", "stddev", "stdvar"];
const OPERATORS: [&str; 12] = ["+", "-", "*", "/", "%", "^", "==", "!=", ">", "<= bool", "> bool", "atan2"];
const GROUPINGS: [&str; 7] =
    ["", "by ()", "by (namespace)", "by (job, le,)", "without (namespace)", "without ()", "by (__name__)"];
const MATCHINGS: [&str; 7] = [
    "",
    "on (namespace, job)",
    "on (instance)",
    "ignoring (job, odd)",
    "ignoring ()",
    "on (namespace, instance) group_left ()",
    "on (instance) group_right (job)",
];

/// Draws queries.
#[derive(Debug)]
pub struct Draw<'r>(pub &'r mut StdRng);

impl Draw<'_> {
    fn one<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.0.random_range(0..texts.len())]
    }

    fn space(&mut self) -> &'static str {
        if self.0.random_ratio(1, 4) { self.one(&SPACES) } else { "" }
    }

    /// A query of this depth at most.
    pub fn query(&mut self) -> String {
        let depth = self.0.random_range(0..4);
        let query = self.vector(depth);
        format!("{}{query}{}", self.space(), self.space())
    }

    /// A selector of series, as `match[]` takes it.
    pub fn series(&mut self) -> String {
        let name = self.one(&NAMES);
        let more: Vec<&str> = (0..self.0.random_range(0..3)).map(|_| self.one(&MATCHERS)).collect();
        let (space, more) = (self.space(), more.join(","));
        match name.strip_suffix('}') {
            Some(open) if more.is_empty() => format!("{open},}}"),
            Some(open) => format!("{open},{space}{more}}}"),
            None if more.is_empty() => name.to_owned(),
            None => format!("{name}{space}{{{more}}}"),
        }
    }

    fn when(&mut self) -> String {
        match self.0.random_range(0..14) {
            0 => " offset 7m".to_owned(),
            1 => " offset -90s".to_owned(),
            2 => format!(" @ {}", self.0.random_range(FIRST..LAST)),
            3 => " @ start()".to_owned(),
            4 => " offset 1m @ end()".to_owned(),
            5 => format!(" @ {}.5 OFFSET -1m30s", self.0.random_range(FIRST..LAST)),
            _ => String::new(),
        }
    }

    fn range(&mut self) -> &'static str {
        self.one(&["[5m]", "[1m30s]", "[ 1h ]", "[300s]"])
    }

    fn matrix(&mut self, depth: u32) -> String {
        if depth > 0 && self.0.random_ratio(1, 3) {
            let (inner, when) = (self.vector(depth - 1), self.when());
            format!("({inner}){}{when}", self.one(&["[10m:1m]", "[5m:]", "[ 7m : 30s ]"]))
        } else {
            let (series, range, when) = (self.series(), self.range(), self.when());
            format!("{series}{range}{when}")
        }
    }

    fn scalar(&mut self, depth: u32) -> String {
        match self.0.random_range(0..5) {
            0 => "1".to_owned(),
            1 => "0x2".to_owned(),
            2 => "time()".to_owned(),
            3 => "Inf".to_owned(),
            _ => format!("scalar({})", self.vector(depth.saturating_sub(1))),
        }
    }

    fn vector(&mut self, depth: u32) -> String {
        if depth == 0 {
            let (series, when) = (self.series(), self.when());
            return format!("{series}{when}");
        }
        let (space, next) = (self.space(), depth - 1);
        match self.0.random_range(0..16) {
            0 | 1 => format!("{}({space}{})", self.one(&RANGED), self.matrix(next)),
            2 => format!("{}({space}{})", self.one(&PLAIN), self.vector(next)),
            3 | 4 => {
                let (operator, grouping, inner) = (self.one(&AGGREGATORS), self.one(&GROUPINGS), self.vector(next));
                if self.0.random() {
                    format!("{operator} {grouping}{space}({inner})")
                } else {
                    format!("{operator}({inner}){space} {grouping}")
                }
            }
            5 => {
                let (operator, scalar, inner) =
                    (self.one(&["topk", "bottomk", "quantile"]), self.scalar(next), self.vector(next));
                format!("{operator}({scalar},{space}{inner})")
            }
            6 => format!("count_values(\"{}\", {})", self.one(&["namespace", "v"]), self.vector(next)),
            7 | 8 => {
                let (one, operator, matching, other) =
                    (self.vector(next), self.one(&OPERATORS), self.one(&MATCHINGS), self.vector(next));
                format!("({one}) {operator} {matching}{space} ({other})")
            }
            9 => {
                let (one, operator, other) =
                    (self.vector(next), self.one(&["and", "or", "unless", "UNLESS"]), self.vector(next));
                let matching = self.one(&["", "on (namespace)", "ignoring ()", "on ()"]);
                format!("{one} {operator} {matching}{space} {other}")
            }
            10 => format!("label_replace({}, \"namespace\", \"b\", \"namespace\", \"(.*)\")", self.vector(next)),
            11 => format!("label_join({}, 'to', '}}{{', \"namespace\", `job`)", self.vector(next)),
            12 => format!("histogram_quantile({}, {space}rate({}))", self.scalar(next), self.matrix(0)),
            13 => format!("-{}{}", self.space(), self.vector(next)),
            14 => {
                format!("({space}{}){} {} {}", self.vector(next), self.space(), self.one(&OPERATORS), self.scalar(next))
            }
            _ => format!("clamp({}, {}, vector_of_nothing)", self.vector(next), self.scalar(0))
                .replace("vector_of_nothing", "50"),
        }
    }
}
