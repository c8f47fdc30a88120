use std::time::Duration;

use serde_json::json;

use super::*;

fn linter(settings: Settings) -> Linter {
    Linter::new(settings).unwrap()
}

/// The plugins of a server with a UI.
fn known_plugins() -> PluginKinds {
    let plugin = |kind: &str, name: &str| json!({"kind": kind, "spec": {"name": name}});
    PluginKinds::from_modules(&json!([
        {"kind": "PluginModule", "spec": {"plugins": [
            plugin("Datasource", "PrometheusDatasource"), plugin("TimeSeriesQuery", "PrometheusTimeSeriesQuery"),
            plugin("Variable", "PrometheusPromQLVariable"), plugin("Explore", "PrometheusExplorer")]}},
        {"kind": "PluginModule", "spec": {"plugins": [plugin("Panel", "TimeSeriesChart"), plugin("Panel", "Own")]}},
        {"kind": "PluginModule", "status": {"error": "broken"}}
    ]))
}

fn panel(kind: &str, spec: &Value) -> Value {
    json!({"panels": {"p": {"kind": "Panel", "spec": {"plugin": {"kind": kind, "spec": spec}}}}})
}

fn query(text: &str) -> Value {
    json!({"kind": "TimeSeriesQuery", "spec": {"plugin": {"kind": "PrometheusTimeSeriesQuery", "spec": {"query": text}}}})
}

fn queries(all: &[Value]) -> Value {
    json!({"panels": {"p": {"kind": "Panel", "spec": {
        "plugin": {"kind": "TimeSeriesChart", "spec": {}}, "queries": all}}}})
}

fn texts(linter: &Linter, kind: Kind, spec: &Value) -> Vec<String> {
    linter.lint(kind, spec).iter().map(|found| format!("{} {found}", found.severity.as_str())).collect()
}

#[test]
fn specs_of_plugins_are_checked_field_by_field() {
    let linter = linter(Settings::default());
    let at = "error spec.panels.p.spec.plugin.spec";
    for (kind, spec, wanted) in [
        ("TimeSeriesChart", json!({"legend": {"position": "left"}}), format!("{at}.legend.position: ")),
        ("TimeSeriesChart", json!({"legend": {}}), format!("{at}.legend: \"position\" is missing")),
        ("TimeSeriesChart", json!({"visual": {"areaOpacity": 2}}), format!("{at}.visual.areaOpacity: ")),
        ("TimeSeriesChart", json!({"legnd": {}}), format!("{at}: unknown field \"legnd\"")),
        ("TimeSeriesChart", json!({"yAxis": {"format": {"unit": "furlongs"}}}), format!("{at}.yAxis.format.unit: ")),
        ("StatChart", json!({}), format!("{at}: \"calculation\" is missing")),
        ("StatChart", json!({"calculation": "median"}), format!("{at}.calculation: ")),
        (
            "StatChart",
            json!({"calculation": "last", "mappings": [{"kind": "Range", "spec": {"from": "a", "result": {"value": "x"}}}]}),
            format!("{at}.mappings[0].spec.from: "),
        ),
        ("GaugeChart", json!({"calculation": "mean", "max": "10"}), format!("{at}.max: ")),
        (
            "Table",
            json!({"columnSettings": [{"name": "a", "width": "wide"}]}),
            format!("{at}.columnSettings[0].width: "),
        ),
        ("Table", json!({"transforms": [{"kind": "Nothing", "spec": {}}]}), format!("{at}.transforms[0].kind: ")),
        ("Markdown", json!({"text": 5}), format!("{at}.text: ")),
        ("PieChart", json!({"calculation": "sum", "radius": "big"}), format!("{at}.radius: ")),
        ("ScatterChart", json!({"sizeRange": [1]}), format!("{at}.sizeRange: ")),
        ("HistogramChart", json!({"logBase": 3}), format!("{at}.logBase: ")),
    ] {
        let found = texts(&linter, Kind::Dashboard, &panel(kind, &spec));
        assert!(
            found.iter().any(|text| text.starts_with(&wanted)),
            "{kind} {spec}\nfound:  {found:?}\nwanted: {wanted}"
        );
    }
    for (kind, spec) in [
        (
            "TimeSeriesChart",
            json!({"legend": {"position": "bottom", "values": ["mean"]}, "thresholds": {"steps": [{"value": 1}]}}),
        ),
        (
            "StatChart",
            json!({"calculation": "last-number", "sparkline": {}, "mappings": [
            {"kind": "Misc", "spec": {"value": null, "result": {"value": "none", "color": "#fff"}}}]}),
        ),
        (
            "Table",
            json!({"columnSettings": [{"name": "a", "width": 100}, {"name": "b", "width": "auto"}], "transforms": [
            {"kind": "MergeSeries", "spec": {}}]}),
        ),
        ("Markdown", json!({"text": "x"})),
        ("BarChart", json!({"calculation": "sum", "mode": "percentage"})),
        ("StatusHistoryChart", json!({"legend": {"position": "right"}})),
        ("HeatMapChart", json!({"yAxisFormat": {"unit": "seconds"}})),
        ("TimeSeriesTable", json!({})),
    ] {
        assert_eq!(texts(&linter, Kind::Dashboard, &panel(kind, &spec)), Vec::<String>::new(), "{kind} {spec}");
    }
}

#[test]
fn values_are_never_told() {
    let linter = linter(Settings::default());
    let spec = json!({"plugin": {"kind": "PrometheusDatasource", "spec": {
        "proxy": {"kind": "HTTPProxy", "spec": {"url": "http://p", "headers": {"X-Key": ["hunter2"]}}}}}});
    let found = texts(&linter, Kind::GlobalDatasource, &spec);
    assert!(found[0].contains("headers.X-Key") && !found[0].contains("hunter2"), "{found:?}");
}

#[test]
fn a_datasource_goes_one_way() {
    let linter = linter(Settings::default());
    let found = |spec: Value| {
        texts(&linter, Kind::Datasource, &json!({"plugin": {"kind": "PrometheusDatasource", "spec": spec}})).join("\n")
    };
    let proxy = json!({"kind": "HTTPProxy", "spec": {"url": "http://prometheus:9090"}});
    assert_eq!(found(json!({"proxy": proxy, "scrapeInterval": "15s"})), "");
    let direct = found(json!({"directUrl": "http://prometheus:9090"}));
    assert!(
        direct.starts_with("warning spec.plugin.spec.directUrl: the browser calls this address itself"),
        "{direct}"
    );
    assert!(found(json!({"directUrl": "http://p", "proxy": proxy})).contains("exclude each other"));
    assert!(found(json!({})).contains("error spec.plugin.spec: the datasource has no address"));
    assert!(found(json!({"proxy": proxy, "scrapeInterval": "soon"})).contains("scrapeInterval"));
    let local =
        json!({"datasources": {"d": {"plugin": {"kind": "LokiDatasource", "spec": {"directUrl": "http://l"}}}}});
    assert!(texts(&linter, Kind::Dashboard, &local)[0].contains("spec.datasources.d.plugin.spec.directUrl"));
}

#[test]
fn plugins_that_nobody_has_are_told() {
    let with_ui = linter(Settings { plugins: known_plugins(), ..Settings::default() });
    let without = linter(Settings::default());
    let place = "spec.panels.p.spec.plugin.kind";
    let odd = panel("Odd", &json!({}));
    let unknown = format!("error {place}: unknown panel plugin \"Odd\": it is not among the plugins of this server");
    assert_eq!(texts(&with_ui, Kind::Dashboard, &odd), [unknown]);
    assert_eq!(
        texts(&without, Kind::Dashboard, &odd),
        [format!("warning {place}: unknown panel plugin \"Odd\": its spec is not checked")]
    );
    // Loaded, without a schema.
    assert_eq!(
        texts(&with_ui, Kind::Dashboard, &panel("Own", &json!({"any": 1}))),
        [format!("warning {place}: panel plugin \"Own\" has no schema on this server: its spec is not checked")]
    );
    // With a schema, not loaded.
    let known = texts(&with_ui, Kind::Dashboard, &panel("Markdown", &json!({"text": ""})));
    assert_eq!(known, [format!("warning {place}: panel plugin \"Markdown\" is not among the plugins of this server")]);
    // A panel is no query, and a query is of the kind that it says.
    let mut wrong = query("up");
    wrong["spec"]["plugin"]["kind"] = json!("Own");
    assert!(texts(&with_ui, Kind::Dashboard, &queries(&[wrong]))[0].contains("unknown query plugin \"Own\""));
    let mut wrong = query("up");
    wrong["kind"] = json!("TraceQuery");
    let found = texts(&with_ui, Kind::Dashboard, &queries(&[wrong]));
    assert!(
        found[0].contains("plugin \"PrometheusTimeSeriesQuery\" is a TimeSeriesQuery, not a TraceQuery"),
        "{found:?}"
    );
    assert!(texts(&with_ui, Kind::Dashboard, &queries(&[query("up")])).is_empty());
    let variable = json!({"kind": "ListVariable", "spec": {"plugin": {"kind": "Odd"}}});
    assert!(texts(&with_ui, Kind::Variable, &variable)[0].contains("spec.spec.plugin.kind: unknown variable plugin"));
}

#[test]
fn queries_stay_within_their_limits() {
    let limits = QueryLimits {
        max_time_series_per_chart: 500,
        max_lookback_window: Duration::from_secs(7 * 24 * 3600),
        max_query_length: 200,
        required_label_filters: vec!["namespace".to_owned()],
    };
    let linter = linter(Settings { limits, ..Settings::default() });
    let found = |texts_of: &[&str]| {
        let all: Vec<Value> = texts_of.iter().map(|text| query(text)).collect();
        texts(&linter, Kind::Dashboard, &queries(&all)).join("\n")
    };
    for good in [
        "sum(rate(m{namespace=\"a\"}[7d]))",
        "m{namespace=~\"$namespace\"} offset 6d",
        "rate(m{namespace=~'a|b'}[$__rate_interval])",
        "topk(500, m{namespace=\"a\"})",
        "max_over_time(rate(m{namespace=\"a\"}[5m])[6d:1h])",
        "rate(m{namespace=\"a\"}[7d] offset $shift)",
        "vector(1)",
    ] {
        assert_eq!(found(&[good]), "", "{good}");
    }
    let place = "error spec.panels.p.spec.queries[0].spec.plugin.spec.query: ";
    for (bad, wanted) in [
        ("rate(m{namespace=\"a\"}[8d])", "the query looks back 8d, at most 1w is allowed"),
        ("rate(m{namespace=\"a\"}[4d] offset 4d)", "looks back 8d"),
        ("max_over_time(rate(m{namespace=\"a\"}[1d])[7d:1h])", "looks back 8d"),
        ("up", "selector up has no filter on the label \"namespace\""),
        ("a{namespace=\"x\"} / b{namespace=~\".*\"}", "selector b has no filter"),
        ("a{namespace!=\"x\"}", "selector a has no filter"),
        ("{job=\"x\"}", "selector {...} has no filter"),
        (&format!("up{{namespace=\"{}\"}}", "x".repeat(200)), "characters, at most 200 are allowed"),
    ] {
        let text = found(&[bad]);
        assert!(text.starts_with(place) && text.contains(wanted), "{bad}: {text}");
    }
    let both = found(&["topk(300, m{namespace=\"a\"})", "(bottomk(201, m{namespace=\"a\"}))"]);
    assert_eq!(both, "error spec.panels.p: the queries ask for 501 time series, at most 500 are allowed in a chart");
    let odd = found(&["sum(("]);
    assert!(odd.starts_with("warning") && odd.contains("not understood as PromQL"), "{odd}");
    // A variable may ask for anything: it is what the filters are made of.
    let variable = json!({"kind": "ListVariable", "spec": {"plugin": {"kind": "PrometheusPromQLVariable", "spec": {"expr": "up"}}}});
    assert!(texts(&linter, Kind::Variable, &variable).is_empty());
}

#[test]
fn nothing_is_said_when_off() {
    let linter = linter(Settings { mode: Mode::Off, plugins: known_plugins(), ..Settings::default() });
    assert!(linter.lint(Kind::Dashboard, &panel("Odd", &json!({}))).is_empty());
}

fn rule(target: &str, assertion: &str) -> RuleSource {
    let [name, message] = ["r", "do better"].map(str::to_owned);
    RuleSource { name, target: target.to_owned(), assertion: assertion.to_owned(), message, disable: false }
}

fn verdict(rule: RuleSource, spec: &Value) -> Result<(), String> {
    let linter = linter(Settings { rules: vec![rule], mode: Mode::Off, ..Settings::default() });
    let tags = ["team-a".to_owned()];
    linter.custom_rules(&Subject { kind: Kind::Dashboard, project: Some("home"), name: "my-board", tags: &tags, spec })
}

#[test]
fn custom_rules_see_the_document() {
    let spec = json!({"duration": "1h", "panels": {
        "a": {"kind": "Panel", "spec": {"display": {"name": "A"}, "queries": [{"n": 1}, {"n": 2.5}]}},
        "b": {"kind": "Panel", "spec": {"display": {"name": ""}, "queries": []}}}});
    for (target, assertion) in [
        ("$.metadata.name", "value.matches('^[a-z]+(-[a-z]+)*$')"),
        ("$.metadata.project", "value == 'home'"),
        ("$.metadata.tags", "'team-a' in value && size(value) == 1"),
        ("$.kind", "value == 'Dashboard'"),
        ("$.spec.panels", "value.size() > 0"),
        ("$.spec.panels", "value.all(key, value[key].kind == 'Panel')"),
        ("$.spec.panels.a.spec.queries[*].n", "value == [1, 2.5]"),
        ("$.spec.panels.*.spec.display.name", "size(value) == 2 && value.exists(v, v == 'A')"),
        ("$..n", "value.filter(n, n > 2).size() == 1 && value.all(n, n >= 1)"),
        ("$.spec", "!has(value.datasources) && has(value.panels)"),
        ("$.spec.panels[?@.spec.display.name == '']", "size(value) == 1"),
        ("$.spec.nothing[*]", "size(value) == 0"),
        ("$['spec']['duration']", "value.endsWith('h') ? true : false"),
    ] {
        assert_eq!(verdict(rule(target, assertion), &spec), Ok(()), "{target} {assertion}");
    }
    for (target, assertion, wanted) in [
        ("$.spec.panels.*.spec.display.name", "value.all(v, v != '')", "do better"),
        (
            "$.panels",
            "value.size() > 0",
            "error while evaluating the jsonpath expression for the rule \"r\": nothing is at $.panels",
        ),
        ("$.spec.panels", "size(value)", "the returned type of the CEL program for the rule \"r\" is not a boolean"),
        ("$.spec", "value.gone == 1", "error while evaluating the CEL program for the rule \"r\": "),
    ] {
        let error = verdict(rule(target, assertion), &spec).unwrap_err();
        assert!(error.starts_with(wanted), "{target} {assertion}: {error}");
    }
    let off = RuleSource { disable: true, ..rule("$.spec", "false") };
    assert_eq!(verdict(off, &spec), Ok(()));
}

#[test]
fn broken_rules_are_refused_at_start() {
    for (bad, wanted) in [
        (rule("spec.panels", "true"), "is not a JSONPath"),
        (rule("$.a..b..c..d", "true"), "more than 2 `..`"),
        (rule("$.spec", "value ="), "cannot be used"),
        (rule("$.spec", "valeu == 1"), "unknown name \"valeu\""),
        (rule("$.spec", "value.startWith('a')"), "unknown function \"startWith\""),
        (rule("$.spec", ""), "assertion is required"),
        (RuleSource { message: String::new(), ..rule("$.spec", "true") }, "message is required"),
        (RuleSource { name: String::new(), ..rule("$.spec", "true") }, "name is required"),
        (RuleSource { disable: true, ..rule("$.spec", "value =") }, "cannot be used"),
    ] {
        let error = Linter::new(Settings { rules: vec![bad.clone()], ..Settings::default() }).unwrap_err();
        assert!(error.starts_with("dashboard.custom_lint_rules[0]") && error.contains(wanted), "{bad:?}: {error}");
    }
    let twice = vec![rule("$.spec", "true"), rule("$.spec", "true")];
    assert!(Linter::new(Settings { rules: twice, ..Settings::default() }).unwrap_err().contains("duplicate rule name"));
}

#[test]
fn a_rule_cannot_run_for_long() {
    let spec = json!({"list": vec![1; 3000]});
    let started = std::time::Instant::now();
    let cubic = rule("$.spec.list", "value.all(a, value.all(b, value.all(c, a == b && b == c)))");
    assert!(verdict(cubic, &spec).unwrap_err().contains("would take too long"));
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(verdict(rule("$.spec.list", "value.all(a, a == 1)"), &spec), Ok(()));
}
