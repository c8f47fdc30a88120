//! What is asked equals what Perses' own code asks: recorded answers of it, and the code itself where the packages of the
//! web UI are installed (`npm ci` in `api-server/ui` and in its folder `plugins`).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use perses_api_server::view::dashboard::Dashboard;
use perses_api_server::view::plan::plan;
use perses_api_server::view::request::Body;
use perses_api_server::view::source::{Source, Sources};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng, seq::IndexedRandom as _};
use serde_json::{Map, Value, json};

const CASES: usize = 800;
const RECORDED: &str = "tests/it/view/perses.json";

const PIECES: [&str; 44] = [
    "up",
    "{job=~\"",
    "\"}",
    "[$__interval]",
    "[$__rate_interval]",
    "$__interval_ms",
    "${__interval}",
    "${__rate_interval:csv}",
    "$__range",
    "${__range_s}",
    "$__range_ms",
    "$__from",
    "${__to:raw}",
    "$__project",
    "${__dashboard}",
    "$",
    "$$",
    "${",
    "}",
    " ",
    "ü",
    "$x",
    "${x}",
    "$xy",
    "${x.field}",
    "${x.field:json}",
    "${x.}",
    "${x:}",
    "${x:nope}",
    "${x:CSV}",
    "${x:csv}",
    "${x:regex}",
    "${x:json}",
    "${y:distributed}",
    "${y:doublequote}",
    "${y:glob}",
    "${y:lucene}",
    "${y:percentencode}",
    "${y:pipe}",
    "${y:queryparam}",
    "${x:singlequote}",
    "${x:sqlstring}",
    "${x:text}",
    "${y:prometheus}",
];
const VALUES: [&str; 16] = [
    "",
    "a",
    "a.b-c",
    "$&",
    "$$",
    "$`",
    "$'",
    "$1",
    "$y",
    "${y}",
    "ü x/y?z=1&w",
    "it's",
    "\"q\"\\",
    "a|b",
    "line\nend\u{1}",
    "(~!*')",
];
const DURATIONS: [&str; 14] =
    ["", "15s", "30s", "1m", "5m", "500ms", "1s1ms", "1h30m", "2w", "1y", "0", "x", "$d", "1m30s500ms"];

fn pick(rng: &mut SmallRng, from: &[&str]) -> String {
    (*from.choose(rng).unwrap()).to_owned()
}

/// A case as both sides read it.
fn case(rng: &mut SmallRng) -> Value {
    let mut text = String::new();
    for _ in 0..8 {
        text.push_str(&pick(rng, &PIECES));
    }
    let (min_step, scrape) = (pick(rng, &DURATIONS), pick(rng, &DURATIONS[..9]));
    let mut variables = Map::new();
    for name in ["x", "y", "xy"] {
        let values = [pick(rng, &VALUES), pick(rng, &VALUES), pick(rng, &VALUES)];
        let value = match rng.random_range(0..6) {
            0 => continue,
            1..=3 => json!(values[0]),
            _ => json!(values[..rng.random_range(0..=3)]),
        };
        variables.insert(name.to_owned(), value);
    }
    variables.insert("d".to_owned(), json!(pick(rng, &["1m", "10s", ""])));
    let start = rng.random_range(1_500_000_000_000_i64..1_800_000_000_000);
    let length =
        *[1_i64, 999, 60_000, 3_600_000, 3_723_004, 86_400_000, 604_800_000, 40_000_000_000].choose(rng).unwrap();
    let length = length + rng.random_range(0..length);
    let step = *[None, None, None, Some(10_000), Some(123_456)].choose(rng).unwrap();
    let width = *[None, Some(1), Some(37), Some(400), Some(1200), Some(5000)].choose(rng).unwrap();
    let offset = *[0, -330, 420, -345, 60].choose(rng).unwrap();
    let mode = *["range", "instant"].choose(rng).unwrap();
    json!({
        "spec": {"query": text, "minStep": (rng.random_range(0..2) == 0).then_some(min_step)},
        "scrapeInterval": (rng.random_range(0..2) == 0).then_some(scrape),
        "start": start,
        "end": start + length,
        "step": step,
        "width": width,
        "offset": offset,
        "mode": mode,
        "variables": variables,
    })
}

fn cases() -> Vec<Value> {
    let mut rng = SmallRng::seed_from_u64(9);
    (0..CASES).map(|_| case(&mut rng)).collect()
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of this century")]
fn seconds(milliseconds: &Value) -> f64 {
    milliseconds.as_i64().unwrap() as f64 / 1000.0
}

/// What we ask.
fn ours(case: &Value) -> Value {
    let panel = if case["mode"] == "instant" { "TimeSeriesTable" } else { "TimeSeriesChart" };
    let mut spec = case["spec"].clone();
    spec["datasource"] = json!({"kind": "PrometheusDatasource", "name": "prom"});
    let dashboard: Dashboard = serde_json::from_value(json!({
        "metadata": {"project": "p", "name": "d"},
        "spec": {"panels": {"one": {"kind": "Panel", "spec": {
            "plugin": {"kind": panel, "spec": {}},
            "queries": [{"kind": "TimeSeriesQuery", "spec": {"plugin": {"kind": "PrometheusTimeSeriesQuery", "spec": spec}}}],
        }}}},
    }))
    .unwrap();
    let mut source = json!({"plugin": {"kind": "PrometheusDatasource", "spec": {}}});
    if !case["scrapeInterval"].is_null() {
        source["plugin"]["spec"]["scrapeInterval"] = case["scrapeInterval"].clone();
    }
    let sources = Sources { global: [Source::of("prom", &source)].into(), ..Sources::default() };
    let mut body = json!({
        "variables": case["variables"],
        "start": seconds(&case["start"]),
        "end": seconds(&case["end"]),
        "timezoneOffset": case["offset"],
        "panels": [{"panel": "one", "width": case["width"]}],
    });
    if !case["step"].is_null() {
        body["step"] = json!(seconds(&case["step"]));
    }
    let body: Body = serde_json::from_value(body).unwrap();
    let entries = plan(&dashboard, &sources, &body.view(0, None).unwrap(), 10, str::to_owned).unwrap();
    let Some(entry) = entries.first() else { return json!("nothing") };
    match &entry.question {
        Ok(question) => {
            question.parameters().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
        }
        Err(_) => json!("error"),
    }
}

/// What Perses asks, from its own code.
fn theirs(ui: &Path, cases: &[Value]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/view/perses.cjs");
    let mut node = Command::new("node")
        .args([&script, ui])
        .env("NODE_PATH", ui.join("node_modules"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    node.stdin.take().unwrap().write_all(Value::from(cases.to_vec()).to_string().as_bytes()).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "node fails");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn asks_what_perses_asks() {
    let cases = cases();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORDED);
    // PSTACK_UI: where the packages are installed, when not beside the sources.
    let ui =
        std::env::var_os("PSTACK_UI").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("ui"), PathBuf::from);
    let recorded = || -> Vec<Value> { serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap() };
    let expected = if ui.join("plugins/node_modules").is_dir() && ui.join("node_modules").is_dir() {
        let theirs = theirs(&ui, &cases);
        if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
            let lines: Vec<String> = theirs.iter().map(Value::to_string).collect();
            std::fs::write(&file, format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
        }
        assert_eq!(theirs, recorded(), "{RECORDED} is not what the installed packages answer: run with UPDATE=1");
        theirs
    } else {
        eprintln!(
            "SKIPPED asks_what_perses_asks: the packages of the web UI are not installed; recorded answers are used"
        );
        recorded()
    };
    assert_eq!(expected.len(), cases.len());
    let asked = expected.iter().filter(|answer| answer.is_object()).count();
    assert!(asked > CASES / 2, "too few cases ask anything: {asked}");
    for (case, expected) in cases.iter().zip(&expected) {
        // Where the plugin would send a step of zero (NaN for its times) we refuse.
        if expected["step"] == "0" || expected["time"] == "NaN" {
            assert_eq!(ours(case), "error", "{case}");
            continue;
        }
        assert_eq!(ours(case), *expected, "{case}");
    }
}
