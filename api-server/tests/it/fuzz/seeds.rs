//! Good inputs to begin with: what this repository holds anyway, and queries of every form.

use std::path::Path;

use e2e::fixtures::dashboards;
use serde_json::Value;

/// Queries that use every part of the language.
const QUERIES: [&str; 24] = [
    "up",
    "sum by (job) (rate(http_requests_total{code=~\"5..\",job!=\"x\"}[5m])) / ignoring (code) group_left sum(up)",
    "histogram_quantile(0.99, sum by (le) (rate(x_bucket[1h] offset -5m)))",
    "max_over_time(deriv(rate(distance_covered_total[5s])[30s:5s])[10m:] @ end())",
    "topk(5, {__name__=~\"a.*\",job=\"$job\"}) or vector(1)",
    "a and on (x, y) b unless c == bool 1",
    "-1 ^ 2 ^ 3 % 4",
    "label_replace(up, \"a\", \"$1\", \"b\", \"(.*)\")",
    "count_values(\"version\", build_version)",
    "sum without (instance) (rate(a[$__rate_interval]))",
    "rate(a{b=\"${c:regex}\"}[$interval])",
    "absent(nonexistent{job=\"a\"})",
    "0x1F + 1e-9 + Inf - NaN",
    "time() - timestamp(up @ 1609746000)",
    "'single' == \"double\"",
    "predict_linear(a[1h30m], 4 * 3600) < 0",
    "quantile(0.5, a) by (b)",
    "(((((a)))))",
    "{\"quoted name\", \"label with space\"=\"x\"}",
    "# a comment\nup # and another",
    "sum(a) by () * on () group_right (x) b",
    "sort_desc(sum_over_time(a[1w]))",
    "a{b=`raw`}",
    "holt_winters(a[5m], 0.5, 0.5)",
];

fn repository(path: &str) -> String {
    let path = e2e::paths::workspace_dir().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Bodies of requests of the differential corpus.
fn corpus() -> Vec<Value> {
    let mut found = Vec::new();
    for file in ["open.yaml", "roles.yaml"] {
        let corpus: Value = serde_saphyr::from_str(&repository(&format!("api-server/tests/corpus/{file}"))).unwrap();
        found.extend(corpus["seed"].as_array().into_iter().flatten().cloned());
        let steps = corpus["steps"].as_array().into_iter().flatten();
        found.extend(steps.filter_map(|step| step.get("body").cloned()));
    }
    found
}

pub(super) fn documents() -> Vec<Vec<u8>> {
    let dashboards = (0..4).map(|seed| dashboards::dashboard("p", &format!("d{seed}"), 6_000, seed));
    corpus().into_iter().chain(dashboards).map(|document| document.to_string().into_bytes()).collect()
}

/// Also those of the fixtures.
pub(super) fn queries() -> Vec<Vec<u8>> {
    let mut queries: Vec<String> = QUERIES.map(str::to_owned).to_vec();
    collect(&dashboards::dashboard("p", "d", dashboards::SMALL, 7), &mut queries);
    queries.into_iter().map(String::into_bytes).collect()
}

fn collect(tree: &Value, queries: &mut Vec<String>) {
    match tree {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "query" => queries.push(text.clone()),
                    _ => collect(value, queries),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| collect(inner, queries)),
        _ => {}
    }
}

/// Forms and query strings as the UI sends them.
pub(super) fn requests() -> Vec<Vec<u8>> {
    let times = ["start=1700000000&end=1700003600&step=15", "time=2024-01-02T03:04:05.678Z", "time=1700000000.123", ""];
    let query = |text: &[u8]| percent_encoding::percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let requests = queries().into_iter().enumerate().map(|(at, text)| {
        let more = ["&timeout=5s", "&limit=10", "&dedup=true&max_source_resolution=0s", "&stats=all"][at % 4];
        format!("query={}&{}{more}", query(&text), times[at % times.len()]).into_bytes()
    });
    requests.collect()
}

/// The configuration of upstream's test, and the examples of the documentation.
pub(super) fn configurations() -> Vec<Vec<u8>> {
    let mut found = vec![repository("api-server/src/config/testdata/upstream.yaml").into_bytes()];
    for page in ["docs/configuration.md", "docs/database.md", "docs/validation.md", "docs/sign-in.md", "docs/proxy.md"]
    {
        let text = repository(page);
        let blocks = text.split("```yaml\n").skip(1).filter_map(|block| block.split("```").next());
        found.extend(blocks.map(|block| block.as_bytes().to_vec()));
    }
    found
}

/// Documents as people write them into provisioning folders.
pub(super) fn yaml() -> Vec<Vec<u8>> {
    let as_yaml = |document: &Value| serde_saphyr::to_string(document).unwrap();
    let corpus = corpus();
    let mut found: Vec<Vec<u8>> = corpus.iter().map(|document| as_yaml(document).into_bytes()).collect();
    let several: Vec<String> = corpus.iter().take(4).map(as_yaml).collect();
    found.push(several.join("---\n").into_bytes());
    let samples = e2e::paths::workspace_dir().join("config/samples");
    if Path::new(&samples).is_dir() {
        let files = std::fs::read_dir(samples).unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        found.extend(files.filter(|path| path.is_file()).map(|path| std::fs::read(path).unwrap()));
    }
    found
}
