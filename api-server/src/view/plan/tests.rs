use serde_json::json;

use super::*;
use crate::view::request::Body;
use crate::view::source::Source;

fn query(text: &str) -> Json {
    json!({"kind": "TimeSeriesQuery", "spec": {"plugin": {"kind": "PrometheusTimeSeriesQuery", "spec": {"query": text}}}})
}

fn dashboard(texts: &[&str]) -> Dashboard {
    let panels: serde_json::Map<String, Json> = texts
        .iter()
        .enumerate()
        .map(|(at, text)| {
            let other = json!({"kind": "TraceQuery", "spec": {"plugin": {"kind": "TempoTraceQuery", "spec": {}}}});
            let plugin = json!({"kind": "TimeSeriesChart", "spec": {}});
            (format!("p{at}"), json!({"kind": "Panel", "spec": {"plugin": plugin, "queries": [other, query(text)]}}))
        })
        .collect();
    let item = |at: usize| json!({"x": 0, "y": at, "width": 24 / (at + 1), "content": {"$ref": format!("#/spec/panels/p{at}")}});
    let items: Vec<Json> = (0..texts.len()).map(item).collect();
    serde_json::from_value(json!({"metadata": {"project": "p", "name": "d"}, "spec": {
        "panels": panels,
        "layouts": [{"kind": "Grid", "spec": {"items": items}}],
        "variables": [
            {"kind": "ListVariable", "spec": {"name": "all", "defaultValue": "$__all", "customAllValue": ".*", "plugin": null}},
            {"kind": "ListVariable", "spec": {"name": "some", "defaultValue": ["$__all"], "plugin": null}},
            {"kind": "ListVariable", "spec": {"name": "none", "plugin": null}},
            {"kind": "TextVariable", "spec": {"name": "text", "value": "t"}},
        ],
    }}))
    .unwrap()
}

fn planned(texts: &[&str], body: Json, max: usize) -> Result<Vec<Entry>, TooMany> {
    let spec = json!({"default": true, "plugin": {"kind": "PrometheusDatasource", "spec": {"scrapeInterval": "5s"}}});
    let sources = Sources { global: [Source::of("prom", &spec)].into(), ..Sources::default() };
    let body: Body = serde_json::from_value(body).unwrap();
    plan(&dashboard(texts), &sources, &body.view(1_700_000_000_000, Some("1h")).unwrap(), max, str::to_owned)
}

fn asked(text: &str, variables: &Json) -> Result<String, Refusal> {
    let entry = planned(&[text], json!({"variables": variables}), 10).unwrap().remove(0);
    entry.question.map(|question| question.query)
}

#[test]
fn values_are_those_that_were_sent_else_the_dashboards_own() {
    let no_value = |name: &str| Err(Refusal::NoValue(name.to_owned()));
    assert_eq!(asked("$all $text", &json!({})).unwrap(), ".* t");
    assert_eq!(asked("$all $text", &json!({"all": "a", "text": "b"})).unwrap(), "a b");
    assert_eq!(asked("$all", &json!({"all": ["$__all"]})).unwrap(), ".*");
    assert_eq!(asked("$some", &json!({"some": ["a", "b"]})).unwrap(), "(a|b)");
    assert_eq!(asked("$some", &json!({})), no_value("some"));
    assert_eq!(asked("$none", &json!({})), no_value("none"));
    assert_eq!(asked("$other", &json!({"other": "$__all"})), no_value("other"));
    assert_eq!(asked("$other $__project", &json!({"other": "x", "__project": "y"})).unwrap(), "x p");
    assert_eq!(asked("$unknown", &json!({})).unwrap(), "$unknown", "as Perses leaves it");
}

#[test]
fn widths_make_steps_and_equal_questions_are_one() {
    let steps = |body: Json| -> Vec<(usize, f64)> {
        let entries = planned(&["up", "up", "up"], body, 10).unwrap();
        entries.iter().map(|entry| (entry.panels.len(), entry.question.as_ref().unwrap().instants.step)).collect()
    };
    assert_eq!(steps(json!({})), [(3, 5.0)]);
    // 1200, 595 and 393 pixels for an hour.
    assert_eq!(steps(json!({"width": 1200})), [(2, 5.0), (1, 10.0)]);
    assert_eq!(steps(json!({"width": 1200, "step": "1m"})), [(3, 60.0)]);
    assert_eq!(steps(json!({"panels": [{"panel": "p0", "width": 10}, "p1"]})), [(1, 300.0), (1, 5.0)]);
}

#[test]
fn there_are_limits() {
    assert_eq!(planned(&["a", "b"], json!({}), 2).map(|entries| entries.len()), Ok(2));
    assert_eq!(planned(&["a", "b"], json!({}), 1), Err(TooMany(1)));
    assert_eq!(planned(&["a"], json!({"panels": ["x", "y"]}), 1), Err(TooMany(1)));
    let long = "x".repeat(MAX_TEXT / 2 + 1);
    let entries = planned(&["$a", "$a + 1", "b"], json!({"variables": {"a": long}}), 10).unwrap();
    let fine: Vec<bool> = entries.iter().map(|entry| entry.question.is_ok()).collect();
    assert_eq!(fine, [true, false, true]);
}
