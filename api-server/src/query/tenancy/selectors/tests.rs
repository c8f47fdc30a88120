use serde_json::json;

use super::super::{Asker, of};
use super::*;

fn within(labels: &serde_json::Value) -> Matchers {
    of(&serde_json::from_value(json!({ "labels": labels })).unwrap(), &Asker::default()).unwrap()
}

fn limited(query: &str) -> Result<String, String> {
    limit(query, &within(&json!([{"label": "ns", "values": ["a"]}]))).map(|limited| limited.text().to_owned())
}

#[test]
fn every_selector_gets_the_matchers() {
    for (query, expected) in [
        ("up", r#"up{ns=~"a"}"#),
        ("up # {ns=\"b\"}\n", r#"up{ns=~"a"}"#),
        ("up{}", r#"up{ns=~"a"}"#),
        ("{job='x',}", r#"{ns=~"a",job="x"}"#),
        // What the caller says about the label stays: both have to fit.
        (r#"up{ns="b"}"#, r#"up{ns=~"a",ns="b"}"#),
        (r#"up{ns!~"a|",ns=~".*"}"#, r#"up{ns=~"a",ns!~"a|",ns=~".*"}"#),
        (r#"up{a="1" or b="2",c="3" or d!="4"}"#, r#"up{ns=~"a",a="1" or ns=~"a",b="2",c="3" or ns=~"a",d!="4"}"#),
        (r#"{"odd.name", a="1"}"#, r#"{ns=~"a",__name__="odd.name",a="1"}"#),
        (r#"{"odd label"="1"}"#, r#"{ns=~"a","odd label"="1"}"#),
        ("{`up{a=\"`=~`}\"`}", r#"{ns=~"a","up{a=\""=~"}\""}"#),
        (r#"up{a="\"} or up{b=\""}"#, r#"up{ns=~"a",a="\"} or up{b=\""}"#),
        ("rate(m[5m:1m] @ end() offset -1m)", r#"rate(m{ns=~"a"}[5m:1m] @ end() offset -1m)"#),
        ("m[5m] offset 1m @ 3", r#"m{ns=~"a"}[5m] @ 3.000 offset 1m"#),
        ("topk(scalar(x), y)", r#"topk(scalar(x{ns=~"a"}), y{ns=~"a"})"#),
        ("-a ^ b or c unless on (d) e", r#"-a{ns=~"a"} ^ b{ns=~"a"} or c{ns=~"a"} unless on (d) e{ns=~"a"}"#),
        ("a + ignoring() b", r#"a{ns=~"a"} + ignoring () b{ns=~"a"}"#),
        ("a and ignoring() b", r#"a{ns=~"a"} and ignoring () b{ns=~"a"}"#),
        ("sum by () (a)", r#"sum by () (a{ns=~"a"})"#),
        ("sum without () (a)", r#"sum without () (a{ns=~"a"})"#),
        ("a / on (x) group_left () b", r#"a{ns=~"a"} / on (x) group_left () b{ns=~"a"}"#),
        (r#"label_replace((a), "ns", "b", "ns", "(.*)")"#, r#"label_replace((a{ns=~"a"}), "ns", "b", "ns", "(.*)")"#),
        ("a * ignoring () group_left b", r#"a{ns=~"a"} * ignoring () group_left () b{ns=~"a"}"#),
        (
            "a > bool on (x) fill_left (1) fill_right (2) b",
            r#"a{ns=~"a"} > bool on (x) fill_left (1) fill_right (2) b{ns=~"a"}"#,
        ),
        ("sum", r#"sum{ns=~"a"}"#),
        ("1", "1"),
        ("vector(time())", "vector(time())"),
        ("\"text\"", "\"text\""),
    ] {
        assert_eq!(limited(query).as_deref(), Ok(expected), "{query}");
    }
}

#[test]
fn several_labels_hold_together() {
    let within = within(&json!([{"label": "ns", "values": ["b", "a"]}, {"label": "cluster", "values": ["é\"x"]}]));
    let limited = limit("up{a=\"1\" or b=\"2\"}", &within).unwrap();
    let both = "ns=~\"a|b\",cluster=~\"é\\\"x\"";
    assert_eq!(limited.text(), format!("up{{{both},a=\"1\" or {both},b=\"2\"}}"));
}

#[test]
fn what_is_not_understood_is_refused() {
    let long = format!("up{{a=\"{}\"}}", "x".repeat(17_000));
    for query in [
        "",
        "up{",
        "up up",
        "info(up)",
        "sum(info(up, {a=\"1\"}))",
        "up @ -5",
        "{a=~\".*\"}",
        "unknown_function(up)",
        "{__name__=\"up\"}{ns=\"b\"}",
        &long,
    ] {
        let found = limited(query);
        assert!(found.is_err(), "{query}: {found:?}");
    }
}

/// The cache knows of the limited query what it would know by reading it again.
#[test]
fn the_analysis_is_that_of_the_text() {
    for query in ["up", "rate(m[5m] offset -1m)", "m @ end()", "m[5m:1m] @ 7", "a or b offset -2m", "1"] {
        let limited = limit(query, &within(&json!([{"label": "ns", "values": ["a"]}]))).unwrap();
        assert_eq!(*limited.analysis, crate::query::promql::analyse(limited.text()), "{query}");
    }
}

#[test]
fn deep_expressions_do_not_overflow_the_stack() {
    let n = promql::MAX_OPERATORS / 2;
    let deep = [
        format!("{}m{}", "sum(".repeat(n), ")".repeat(n)),
        format!("m{}", " + m".repeat(n)),
        format!("{}m", "-".repeat(n)),
        format!("{}m{}", "max_over_time(".repeat(n), "[5m:])".repeat(n)),
    ];
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let all = move || deep.iter().for_each(|query| assert!(limited(query).is_ok(), "{query}"));
    thread.spawn(all).unwrap().join().unwrap();
}

/// A selector that was left out is noticed by the second look.
#[test]
fn the_second_look_sees_what_is_missing() {
    let enforced = enforced(&within(&json!([{"label": "ns", "values": ["a"]}]))).unwrap();
    for (query, expected) in [
        (r#"up{ns=~"a"}"#, true),
        ("1", true),
        ("up", false),
        (r#"up{ns="a"}"#, false),
        (r#"up{ns=~"a|b"}"#, false),
        (r#"sum(up{ns=~"a"}) + down"#, false),
        (r#"topk(scalar(up), down{ns=~"a"})"#, false),
        (r#"up{ns=~"a",x="1" or y="2"}"#, false),
        (r"max_over_time(rate(up[5m])[1h:1m])", false),
    ] {
        assert_eq!(has_everywhere(&parser::parse(query).unwrap(), &enforced), expected, "{query}");
    }
}
