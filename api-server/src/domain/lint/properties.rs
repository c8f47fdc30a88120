//! No document that a client can send makes the checks panic, and what they fill in they fill in once.

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::*;
use crate::domain::spec;
use crate::domain::spec::references::undefined;

const KEYS: [&str; 44] = [
    "kind",
    "spec",
    "plugin",
    "panels",
    "layouts",
    "variables",
    "datasources",
    "annotations",
    "links",
    "queries",
    "query",
    "expr",
    "display",
    "name",
    "items",
    "content",
    "$ref",
    "repeatVariable",
    "value",
    "defaultValue",
    "allowMultiple",
    "duration",
    "refreshInterval",
    "timezone",
    "ttl",
    "proxy",
    "directUrl",
    "url",
    "permissions",
    "actions",
    "scopes",
    "role",
    "subjects",
    "basicAuth",
    "oauth",
    "tabs",
    "default",
    "legend",
    "thresholds",
    "steps",
    "mappings",
    "matchers",
    "renderVariables",
    "a",
];
const TEXTS: [&str; 32] = [
    "",
    "a",
    "$a",
    "${a:csv}",
    "${",
    "$",
    "1h",
    "1h1h",
    "Europe/Berlin",
    "#/spec/panels/a",
    "#/",
    "Grid",
    "Tabs",
    "Panel",
    "TextVariable",
    "ListVariable",
    "HTTPProxy",
    "sqlproxy",
    "TimeSeriesChart",
    "StatChart",
    "Table",
    "PrometheusDatasource",
    "PrometheusTimeSeriesQuery",
    "PrometheusPromQLVariable",
    "rate(up{a=~\"$b\"}[$__rate_interval])",
    "topk(9e99, up)",
    "up offset 9999y",
    "sum((",
    "http://p:9090",
    "Dashboard",
    "*",
    "\u{0}é$é",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(&TEXTS[..]).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((proptest::sample::select(&KEYS[..]), inner), 0..6).prop_map(|members| {
                Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
            }),
        ]
    })
}

/// Valid documents to break in one place.
fn samples() -> Vec<(Kind, Value)> {
    let proxy = json!({"kind": "HTTPProxy", "spec": {"url": "http://p", "allowedEndpoints": [{"method": "GET", "endpointPattern": "/"}]}});
    let plugin = json!({"kind": "PrometheusDatasource", "spec": {"proxy": proxy}});
    let dashboard = json!({
        "ttl": "1h", "display": {"name": "n"}, "refreshInterval": "30s", "timezone": "UTC",
        "variables": [
            {"kind": "TextVariable", "spec": {"name": "t", "value": "v"}},
            {"kind": "ListVariable", "spec": {"name": "l", "defaultValue": ["one"], "plugin": {"kind": "PrometheusPromQLVariable", "spec": {"expr": "up{a=\"$t\"}"}}}}],
        "panels": {"a": {"kind": "Panel", "spec": {"display": {"name": "of $l"},
            "plugin": {"kind": "TimeSeriesChart", "spec": {"legend": {"position": "right"}}},
            "queries": [{"kind": "TimeSeriesQuery", "spec": {"plugin": {"kind": "PrometheusTimeSeriesQuery", "spec": {"query": "topk(5, up[5m])"}}}}]}}},
        "layouts": [{"kind": "Grid", "spec": {"items": [{"x": 0, "y": 0, "width": 1, "height": 1, "content": {"$ref": "#/spec/panels/a"}}]}}],
        "datasources": {"d": {"default": true, "plugin": plugin}},
        "annotations": [{"display": {"name": "e"}, "plugin": {"kind": "PrometheusPromQLAnnotation", "spec": {"expr": "up"}}}]
    });
    vec![
        (Kind::Dashboard, dashboard.clone()),
        (Kind::EphemeralDashboard, dashboard),
        (Kind::GlobalDatasource, json!({"default": true, "plugin": plugin})),
        (
            Kind::Variable,
            json!({"kind": "ListVariable", "spec": {"defaultValue": ["one"], "plugin": {"kind": "StaticListVariable", "spec": {"values": ["a"]}}}}),
        ),
        (
            Kind::Secret,
            json!({"oauth": {"clientID": "i", "clientSecret": "s", "tokenURL": "t", "scopes": ["a"], "endpointParams": {"a": ["b"]}}}),
        ),
        (Kind::GlobalRole, json!({"permissions": [{"actions": ["read"], "scopes": ["*"]}]})),
        (Kind::RoleBinding, json!({"role": "r", "subjects": [{"kind": "User", "name": "u"}]})),
        (
            Kind::Folder,
            json!({"items": [{"kind": "Folder", "name": "f", "items": [{"kind": "Dashboard", "name": "d"}]}]}),
        ),
    ]
}

/// Puts a value in the place of the `nth` one, counted depth first.
fn replace(value: &mut Value, nth: &mut usize, with: &Value) -> bool {
    if *nth == 0 {
        *value = with.clone();
        return true;
    }
    *nth -= 1;
    match value {
        Value::Array(values) => values.iter_mut().any(|inner| replace(inner, nth, with)),
        Value::Object(members) => members.values_mut().any(|inner| replace(inner, nth, with)),
        _ => false,
    }
}

fn linter() -> Linter {
    let rules = [("$..spec", "value.all(v, v != 1)"), ("$.spec.panels", "size(value) > 0")];
    let rules = rules.map(|(target, assertion)| RuleSource {
        name: assertion.to_owned(),
        target: target.to_owned(),
        assertion: assertion.to_owned(),
        message: "m".to_owned(),
        disable: false,
    });
    let limits = QueryLimits { required_label_filters: vec!["ns".to_owned()], ..QueryLimits::default() };
    Linter::new(Settings { rules: rules.to_vec(), limits, ..Settings::default() }).unwrap()
}

fn examine(linter: &Linter, kind: Kind, value: &Value) {
    let text = RawValue::from_string(value.to_string()).unwrap();
    // Whatever it is: this must come back.
    let _ = (linter.lint(kind, value), undefined(value));
    let _ = linter.custom_rules(&Subject { kind, project: None, name: "n", tags: &[], spec: value });
    let Ok(checked) = spec::check(kind, &text) else { return };
    let stored = checked.normalised.unwrap_or(text);
    let again = spec::check(kind, &stored).expect("what is stored is accepted again");
    assert!(again.normalised.is_none(), "{kind}: filled in twice\n{stored}");
    assert_eq!(again.value, checked.value);
}

#[test]
fn broken_samples_are_refused_or_stored_as_they_are() {
    let linter = linter();
    for (kind, sample) in samples() {
        examine(&linter, kind, &sample);
        assert!(spec::check(kind, &RawValue::from_string(sample.to_string()).unwrap()).is_ok(), "{kind}");
    }
    proptest!(ProptestConfig::with_cases(600), |(sample in proptest::sample::select(samples()), nth in 0_usize..90, with in any_json())| {
        let (kind, mut value) = sample;
        replace(&mut value, &mut { nth }, &with);
        examine(&linter, kind, &value);
    });
}

#[test]
fn any_json_at_all_comes_back() {
    let linter = linter();
    proptest!(ProptestConfig::with_cases(400), |(value in any_json(), kind in proptest::sample::select(&Kind::ALL[..]))| {
        examine(&linter, kind, &value);
    });
}

#[test]
fn any_text_can_stand_in_a_query() {
    let linter = linter();
    proptest!(ProptestConfig::with_cases(600), |(text in "[a-z0-9$\\{\\}\\[\\]\\(\\)\"'`=~!,:# \\\\é]{0,40}")| {
        let query = json!({"kind": "Q", "spec": {"plugin": {"kind": "PrometheusTimeSeriesQuery", "spec": {"query": text}}}});
        let spec = json!({"panels": {"p": {"spec": {"plugin": {"kind": "Markdown", "spec": {"text": text}}, "queries": [query]}}}});
        examine(&linter, Kind::Dashboard, &spec);
    });
}
