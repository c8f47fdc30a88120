use serde_json::json;

use super::*;

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap()
}

fn normalised(kind: Kind, text: &RawValue) -> Option<Box<RawValue>> {
    check(kind, text).unwrap().normalised
}

fn refusal(kind: Kind, value: &Value) -> String {
    check(kind, &raw(value)).unwrap_err().to_string()
}

fn panel() -> Value {
    json!({"kind": "Panel", "spec": {"plugin": {"kind": "Markdown", "spec": {"text": "x"}}}})
}

fn grid(reference: &str) -> Value {
    json!({"duration": "1h", "panels": {"a": panel()}, "layouts": [{"kind": "Grid", "spec": {"items": [
        {"x": 0, "y": 0, "width": 12, "height": 6, "content": {"$ref": reference}}]}}]})
}

#[test]
fn a_missing_duration_is_spliced_in_and_the_rest_stays_as_sent() {
    for (sent, stored) in [
        ("{}", r#"{"duration":"1h"}"#),
        (r#" { "panels" : {},  "z": 1.50 } "#, r#"{"duration":"1h", "panels" : {},  "z": 1.50 }"#),
        (r#"{"a":1, "duration": "" }"#, r#"{"a":1, "duration": "1h" }"#),
        (r#"{"duration":null}"#, r#"{"duration":"1h"}"#),
    ] {
        let raw: Box<RawValue> = serde_json::from_str(sent).unwrap();
        let text = normalised(Kind::Dashboard, &raw).unwrap();
        assert_eq!(text.get(), stored);
        assert!(normalised(Kind::Dashboard, &text).is_none(), "the second time nothing changes");
    }
    assert!(normalised(Kind::Dashboard, &raw(&grid("#/spec/panels/a"))).is_none());
}

#[test]
fn a_single_default_value_becomes_a_string() {
    let sent = concat!(
        r#"{"variables": [{"kind":"TextVariable","spec":{"name":"t","value":"x"}}, {"kind":"ListVariable","spec":"#,
        r#"{"name":"l", "defaultValue": [ "a\"b" ], "plugin":{"kind":"P"}}}]}"#
    );
    let found = normalised(Kind::Dashboard, &RawValue::from_string(sent.to_owned()).unwrap()).unwrap();
    let stored = sent.replace(r#"[ "a\"b" ]"#, r#""a\"b""#).replacen('{', r#"{"duration":"1h","#, 1);
    assert_eq!(found.get(), stored);

    let variable = r#"{"kind":"ListVariable","spec":{"defaultValue":["one"],"plugin":{"kind":"P"}}}"#;
    let found = normalised(Kind::Variable, &RawValue::from_string(variable.to_owned()).unwrap()).unwrap();
    assert_eq!(found.get(), variable.replace(r#"["one"]"#, r#""one""#));

    let many = json!({"kind": "ListVariable", "spec": {"defaultValue": ["a"], "allowMultiple": true, "plugin": {"kind": "P"}}});
    assert!(normalised(Kind::Variable, &raw(&many)).is_none());
}

#[test]
fn layouts_refer_to_panels() {
    let text = |reference| refusal(Kind::Dashboard, &grid(reference));
    let place = "spec.layouts[0].spec.items[0].content";
    assert_eq!(text("#/spec/panels/b"), format!("{place}: no panel found for ref \"b\""));
    assert_eq!(text("#/spec/panels"), format!("{place}: reference \"#/spec/panels\" is pointing to the void"));
    assert_eq!(text("spec/panels/a"), format!("{place}: ref \"spec/panels/a\" is not accepted"));
    assert_eq!(text("#/spec/panels/a.b"), format!("{place}: ref \"#/spec/panels/a.b\" is not accepted"));
    assert_eq!(
        text("#/spec/panel/a"),
        format!("{place}: reference \"#/spec/panel/a\" at position 1 doesn't have the expected element \"panels\"")
    );
    assert_eq!(
        refusal(Kind::Dashboard, &json!({"layouts": [{"kind": "Rows"}]})),
        "spec.layouts[0]: unknown layout.kind \"Rows\" used"
    );
    // Upstream does not follow references of tabs.
    let tabs = json!({"duration": "1h", "layouts": [{"kind": "Tabs", "spec": {"tabs": [{"name": "t", "items": [
        {"content": {"$ref": "#/spec/panels/none"}}]}]}}]});
    assert!(check(Kind::Dashboard, &raw(&tabs)).is_ok());
}

#[test]
fn dashboards_refuse_what_upstream_refuses() {
    let text = |name: &str| json!({"kind": "TextVariable", "spec": {"name": name, "value": "v"}});
    let list = |spec: Value| json!({"variables": [{"kind": "ListVariable", "spec": spec}]});
    for (spec, error) in [
        (json!(null), "spec: spec cannot be empty"),
        (json!([]), "spec: must be an object, not an array"),
        (json!({"duration": "1x"}), "spec.duration: not a valid duration string: \"1x\""),
        (json!({"refreshInterval": "5"}), "spec.refreshInterval: not a valid duration string"),
        (json!({"duration": 5}), "spec.duration: must be a string, not a number"),
        (json!({"timezone": "Mars/Base"}), "spec.timezone: \"Mars/Base\" is not a valid timezone"),
        (json!({"panels": {"a/b": panel()}}), "spec.panels.a/b: \"a/b\" is not a correct name"),
        (json!({"panels": {"a": null}}), "spec.panels.a: must be an object, not null"),
        (json!({"panels": {"a": {"spec": {}}}}), "spec.panels.a.spec.plugin: kind cannot be empty"),
        (json!({"variables": [text("a"), text("a")]}), "variable \"a\" (index 1) already exists"),
        (json!({"variables": [text("42")]}), "variable name '42' is not valid"),
        (json!({"variables": [text("a-b-c")]}), "variable name 'a-b-c' is not valid"),
        (json!({"variables": [text("__x")]}), "can not have builtin variable prefix: __"),
        (json!({"variables": [text("")]}), "name cannot be empty"),
        (json!({"variables": [{"kind": "Other", "spec": {}}]}), "unknown variable.kind \"Other\" used"),
        (json!({"variables": [{"spec": {}}]}), "spec.variables[0]: variable.kind cannot be empty"),
        (list(json!({"name": "l"})), "spec.variables[0].spec.plugin: kind cannot be empty"),
        (
            list(json!({"name": "l", "plugin": {"kind": "P"}, "defaultValue": ["a", "b"]})),
            "spec.variables[0].spec.defaultValue: you can not use a list of default values",
        ),
        (list(json!({"name": "l", "plugin": {"kind": "P"}, "defaultValue": 3})), "Only string or array of string"),
        (list(json!({"name": "l", "plugin": {"kind": "P"}, "customAllValue": "*"})), "customAllValue cannot be set"),
        (list(json!({"name": "l", "plugin": {"kind": "P"}, "sort": "up"})), "unknown sort method \"up\" used"),
        (
            json!({"variables": [{"kind": "TextVariable", "spec": {"name": "c", "constant": true}}]}),
            "value for a constant text variable cannot be empty",
        ),
        (
            json!({"variables": [
                {"kind": "ListVariable", "spec": {"name": "a", "plugin": {"kind": "P", "spec": {"m": ["x{y=\"$b\"}"]}}}},
                {"kind": "TextVariable", "spec": {"name": "b", "value": "$a"}}]}),
            "circular dependency detected (among a, b)",
        ),
        (json!({"annotations": [{"display": {}}]}), "annotation name cannot be empty"),
        (
            json!({"datasources": {"a": {"default": true, "plugin": {"kind": "K"}}, "b": {"default": true, "plugin": {"kind": "K"}}}}),
            "there is already a default defined for kind \"K\"",
        ),
    ] {
        let found = refusal(Kind::Dashboard, &spec);
        assert!(found.contains(error), "{spec}\nfound:  {found}\nwanted: {error}");
    }
    for good in [
        json!({}),
        json!({"timezone": "Europe/Berlin"}),
        json!({"variables": [text("a-b"), text("x1")]}),
        json!({"panels": null}),
    ] {
        check(Kind::Dashboard, &raw(&good)).unwrap();
    }
}

#[test]
fn undefined_variables_are_found_wherever_they_are_used() {
    use references::{Place, undefined};
    let query =
        |text: &str| json!({"kind": "TimeSeriesQuery", "spec": {"plugin": {"kind": "P", "spec": {"query": text}}}});
    let spec = json!({
        "variables": [
            {"kind": "ListVariable", "spec": {"name": "a", "plugin": {"kind": "P", "spec": {"expr": "x{b=\"$b\",c=\"$__range\",d=\"$1\",e=\"$gone\"}", "m": ["${far:csv}"]}}}},
            {"kind": "TextVariable", "spec": {"name": "b", "value": "v"}}],
        "panels": {"p": {"kind": "Panel", "spec": {
            "display": {"name": "of ${b} and $title"},
            "plugin": {"kind": "Markdown", "spec": {"text": "costs $5, ${unclosed, $text"}},
            "links": [{"url": "/$off"}, {"url": "/$on", "renderVariables": true}],
            "queries": [query("up{a=\"$a\"}[$__rate_interval]"), query("up{x=\"${q.label}\"} + up{x=\"$q\"}")]}}},
        "annotations": [{"display": {"name": "n"}, "plugin": {"kind": "P", "spec": {"expr": "$event"}}}],
        "layouts": [{"kind": "Grid", "spec": {"repeatVariable": "row", "items": [{"repeatVariable": {"value": "b"}}, {"repeatVariable": {"value": "cell"}}]}}]
    });
    let found: Vec<(String, String, bool)> =
        undefined(&spec).into_iter().map(|one| (one.name, one.path, one.braced)).collect();
    let wanted = [
        ("gone", "spec.variables[0].spec.plugin.spec.expr", false),
        ("far", "spec.variables[0].spec.plugin.spec.m[0]", true),
        ("title", "spec.panels.p.spec.display.name", false),
        ("text", "spec.panels.p.spec.plugin.spec.text", false),
        ("on", "spec.panels.p.spec.links[1].url", false),
        ("q", "spec.panels.p.spec.queries[1].spec.plugin.spec.query", true),
        ("event", "spec.annotations[0].plugin.spec.expr", false),
        ("row", "spec.layouts[0].spec.repeatVariable", false),
        ("cell", "spec.layouts[0].spec.items[1].repeatVariable.value", false),
    ];
    let wanted: Vec<(String, String, bool)> =
        wanted.map(|(name, path, braced)| (name.to_owned(), path.to_owned(), braced)).to_vec();
    assert_eq!(found, wanted);
    assert_eq!(undefined(&spec)[0].place, Place::Variable("a".to_owned()));
    assert_eq!(undefined(&spec)[5].place, Place::Request);
}

#[test]
fn datasources_need_a_plugin_and_a_usable_proxy() {
    let proxy = |spec: Value| json!({"plugin": {"kind": "PrometheusDatasource", "spec": {"proxy": {"kind": "httpproxy", "spec": spec}}}});
    for kind in [Kind::Datasource, Kind::GlobalDatasource] {
        for (spec, error) in [
            (json!({}), "spec: spec cannot be empty"),
            (json!({"default": true}), "spec.plugin: kind cannot be empty"),
            (json!({"default": "yes", "plugin": {"kind": "K"}}), "spec.default: must be true or false, not a string"),
            (proxy(json!({})), "spec.plugin.spec.proxy.spec.url: url cannot be empty"),
            (proxy(json!({"url": "prometheus"})), "spec.plugin.spec.proxy.spec.url: not a URL"),
            (proxy(json!({"url": "file:///etc/passwd"})), "the scheme must be http or https, not \"file\""),
            (proxy(json!({"url": "http://p", "headers": {"a": 1}})), "headers.a: must be a string"),
            (
                proxy(json!({"url": "http://p", "allowedEndpoints": [{"method": "GET", "endpointPattern": "("}]})),
                "allowedEndpoints[0].endpointPattern: not a regular expression",
            ),
            (
                proxy(json!({"url": "http://p", "allowedEndpoints": [{"method": "get", "endpointPattern": "/"}]})),
                "\"get\" is not a valid http method",
            ),
            (
                json!({"plugin": {"kind": "S", "spec": {"proxy": {"kind": "SQLProxy", "spec": {"host": "h"}}}}}),
                "database cannot be empty",
            ),
        ] {
            let found = refusal(kind, &spec);
            assert!(found.contains(error), "{spec}\nfound:  {found}\nwanted: {error}");
        }
        check(kind, &raw(&proxy(json!({"url": "http://prometheus:9090/base", "secret": "s"})))).unwrap();
        check(kind, &raw(&json!({"plugin": {"kind": "K", "spec": {"directUrl": "http://x"}}}))).unwrap();
    }
    let spec = json!({"a": {"deep": {"kind": "HTTPPROXY", "spec": {"url": "u"}}}});
    assert_eq!(find_proxy(&spec).unwrap()["spec"]["url"], "u");
    assert!(find_proxy(&json!({"kind": "x"})).is_none());
}

#[test]
fn folders_hold_a_dashboard_once() {
    let item = |name: &str| json!({"kind": "Dashboard", "name": name});
    let folder = |items: Value| json!({"kind": "Folder", "name": "f", "items": items});
    check(Kind::Folder, &raw(&json!({"items": [item("a"), folder(json!([item("b"), folder(json!([]))]))]}))).unwrap();
    assert_eq!(
        refusal(Kind::Folder, &json!({"items": [item("a"), folder(json!([item("a")]))]})),
        "spec.items[1].items[0]: dashboard \"a\" is referenced multiple times in the folder"
    );
    assert!(
        refusal(Kind::Folder, &json!({"items": [{"kind": "Panel", "name": "a"}]})).contains("unknown kind \"Panel\"")
    );
    assert!(refusal(Kind::Folder, &json!({"items": [{"kind": "Folder"}]})).contains("name is required"));
    let nested = json!({"items": [{"kind": "Dashboard", "name": "a", "items": [item("b")]}]});
    assert!(refusal(Kind::Folder, &nested).contains("then items must be empty"));
}

#[test]
fn secrets_have_one_way_to_authenticate() {
    for (spec, error) in [
        (json!({"basicAuth": {"username": "u", "password": "p"}, "authorization": {}}), "mutually exclusive"),
        (json!({"basicAuth": {"username": "u"}}), "spec.basicAuth: when using basicAuth"),
        (json!({"basicAuth": {"username": "u", "password": "p", "passwordFile": "f"}}), "at most one of basicAuth"),
        (json!({"authorization": {"credentials": "c", "credentialsFile": "f"}}), "at most one of authorization"),
        (json!({"oauth": {"clientID": "x"}}), "spec.oauth: when using oauth"),
        (json!({"tlsConfig": {"minVersion": "SSL3"}}), "unknown TLS version"),
        (json!({"basicAuth": {"username": "u", "password": 5}}), "spec.basicAuth.password: must be a string"),
    ] {
        let found = refusal(Kind::GlobalSecret, &spec);
        assert!(found.contains(error), "{spec}\nfound:  {found}\nwanted: {error}");
    }
    check(Kind::Secret, &raw(&json!({"authorization": {"credentials": "c"}, "tlsConfig": {"ca": "pem"}}))).unwrap();
    let both = json!({"nativeProvider": {"password": "p"}, "oauthProviders": [{"issuer": "i"}]});
    assert!(refusal(Kind::User, &both).contains("mutually exclusive"));
    check(Kind::User, &raw(&json!({"firstName": "A", "nativeProvider": {}}))).unwrap();
}
