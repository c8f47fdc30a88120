//! All panels of a dashboard in one request: each answer is the proxy's, each query is asked once.

mod perses;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::services::Prometheus;
use futures::StreamExt as _;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::pod::{Pod, prometheus, until};
use crate::query::samples;
use crate::upstream::{OnDrop, Upstream};

pub const PATH: &str = "/api/v1/projects/p/dashboards/d/query";
const START: i64 = 1_700_000_000;

/// A line of an answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    panels: Vec<Value>,
    query: Option<String>,
    start: Option<Box<RawValue>>,
    end: Option<Box<RawValue>>,
    step: Option<Box<RawValue>>,
    pub status: u16,
    cache_status: Option<String>,
    data: Option<Box<RawValue>>,
    pub error: Option<Value>,
}

impl Line {
    /// `panel/index` of each query that it is for.
    pub fn names(&self) -> Vec<String> {
        let name = |one: &Value| format!("{}/{}", one["panel"].as_str().unwrap(), one["index"]);
        self.panels.iter().map(name).collect()
    }

    fn data(&self) -> &str {
        self.data.as_ref().unwrap_or_else(|| panic!("no data: {self:?}")).get()
    }

    /// The same question on the proxy's path; the text and the `Cache-Status` of its answer.
    async fn through_the_proxy(&self, pod: &Pod, base: &str) -> (u16, String, String) {
        let text = |value: &Option<Box<RawValue>>| value.as_ref().map(|value| value.get().to_owned());
        let mut form = vec![("query", self.query.clone().unwrap())];
        let endpoint = if let Some(start) = text(&self.start) {
            form.extend([("start", start), ("end", text(&self.end).unwrap()), ("step", text(&self.step).unwrap())]);
            "query_range"
        } else {
            form.push(("time", text(&self.end).unwrap()));
            "query"
        };
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = pod.post_form(&format!("{base}/api/v1/{endpoint}"), &form).await;
        let cache_status = answer.headers().get("cache-status").map_or("", |value| value.to_str().unwrap()).to_owned();
        (answer.status().as_u16(), answer.text().await.unwrap(), cache_status)
    }
}

pub fn parsed(text: &str) -> Vec<Line> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

async fn ask(pod: &Pod, body: &Value) -> Response {
    pod.client.post(format!("{}{PATH}", pod.url)).json(body).send().await.unwrap()
}

async fn lines(pod: &Pod, body: &Value) -> Vec<Line> {
    let answer = ask(pod, body).await;
    let (status, kind) = (answer.status(), answer.headers()["content-type"].to_str().unwrap().to_owned());
    let text = answer.text().await.unwrap();
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "application/x-ndjson"), "{text}");
    parsed(&text)
}

pub fn query(text: &str, more: &Value) -> Value {
    let mut spec = json!({"query": text});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"kind": "TimeSeriesQuery", "spec": {"plugin": {"kind": "PrometheusTimeSeriesQuery", "spec": spec}}})
}

pub fn panel(kind: &str, queries: &[Value]) -> Value {
    let display = json!({"name": "A panel"});
    json!({"kind": "Panel", "spec": {"display": display, "plugin": {"kind": kind, "spec": {}}, "queries": queries}})
}

pub fn grid(panels: &[&str], more: &Value) -> Value {
    let item = |(at, panel): (usize, &&str)| json!({"x": 0, "y": at, "width": 12, "height": 1, "content": {"$ref": format!("#/spec/panels/{panel}")}});
    let items: Vec<Value> = panels.iter().enumerate().map(item).collect();
    let mut spec = json!({"items": items});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"kind": "Grid", "spec": spec})
}

/// A dashboard with variables, an instant query, a query that two panels have, a repeated row, a collapsed row.
fn dashboard() -> Value {
    let prom = json!({"datasource": {"kind": "PrometheusDatasource", "name": "prom"}});
    json!({
        "duration": "1h",
        "variables": [
            {"kind": "TextVariable", "spec": {"name": "job", "value": "a"}},
            {"kind": "ListVariable", "spec": {"name": "series", "allowMultiple": true, "allowAllValue": false, "defaultValue": ["1", "2"],
                "plugin": {"kind": "StaticListVariable", "spec": {"values": ["1", "2", "3"]}}}},
        ],
        "panels": {
            "rate": panel("TimeSeriesChart", &[
                query("sum(rate(demo{job=\"$job\",series=~\"$series\"}[$__rate_interval]))", &prom),
                query("demo{job=\"$job\",series=\"3\"}", &prom),
            ]),
            "same": panel("StatChart", &[query("demo{job=\"$job\",series=\"3\"}", &prom), query("", &prom)]),
            "table": panel("TimeSeriesTable", &[query("demo{series=~\"$series\"}", &json!({"minStep": "1m"}))]),
            "row": panel("TimeSeriesChart", &[query("max(demo{series=~\"$series\"})", &prom)]),
            "hidden": panel("TimeSeriesChart", &[query("min(demo)", &prom)]),
            "broken": panel("TimeSeriesChart", &[query("min(demo", &prom)]),
            "text": panel("Markdown", &[]),
        },
        "layouts": [
            grid(&["rate", "text", "same", "table"], &json!({})),
            grid(&["row"], &json!({"repeatVariable": "series"})),
            grid(&["hidden", "broken"], &json!({"display": {"title": "More", "collapse": {"open": false}}})),
        ],
    })
}

async fn pod_with(url: &str, spec: &Value, configure: impl FnOnce(&mut perses_api_server::config::Config)) -> Pod {
    let pod = Pod::start_with(configure).await;
    let mut global = prometheus(url, Value::Null);
    global["default"] = json!(true);
    global["plugin"]["spec"]["scrapeInterval"] = json!("15s");
    pod.apply("globaldatasources", "GlobalDatasource", "prom", &global).await;
    pod.apply("projects", "Project", "p", &json!({})).await;
    pod.apply("projects/p/dashboards", "Dashboard", "d", spec).await;
    pod
}

async fn demo() -> Prometheus {
    Prometheus::start_with(&[], Some(&samples())).await.unwrap()
}

fn range() -> Value {
    json!({"start": START + 600, "end": START + 4200, "width": 1200})
}

#[tokio::test]
async fn each_line_is_the_proxys_answer() {
    let prometheus = demo().await;
    let pod = pod_with(&prometheus.url(), &dashboard(), |_| ()).await;
    let before = prometheus.query_total().await.unwrap();
    let first = lines(&pod, &range()).await;
    let names: BTreeSet<String> = first.iter().map(|line| line.names().join(",")).collect();
    assert_eq!(names.iter().collect::<Vec<_>>(), ["rate/0", "rate/1,same/0", "row/0", "table/0"]);
    assert_eq!(first.len(), 5, "the row is there twice");
    assert_eq!(prometheus.query_total().await.unwrap(), before + 5, "each distinct query once");

    let with = |part: &str| first.iter().find(|line| line.query.as_ref().unwrap().contains(part)).unwrap();
    assert_eq!(with("sum(").query.as_deref(), Some("sum(rate(demo{job=\"a\",series=~\"(1|2)\"}[1m]))"));
    assert_eq!(with("sum(").step.as_ref().unwrap().get(), "15", "an hour on 595 pixels, and the scrape interval");
    let table = first.iter().find(|line| line.names() == ["table/0"]).unwrap();
    assert!(table.start.is_none(), "a table asks for an instant");
    assert_eq!(with("max(demo{series=~\"2\"})").panels[0]["repeat"], json!(["series", "2"]));
    for line in &first {
        assert_eq!((line.status, line.cache_status.as_deref()), (200, Some("perses; fwd=miss")));
        assert!(line.data().contains("\"job\":\"a\"") || line.data().contains("\"metric\":{}"), "{}", line.data());
        let (status, text, cache_status) = line.through_the_proxy(&pod, "/proxy/globaldatasources/prom").await;
        assert_eq!((status, text.trim_end()), (200, line.data()));
        assert!(cache_status.ends_with("detail=l1"), "the proxy finds what the view has asked: {cache_status}");
    }
    // And the other way round.
    for line in lines(&pod, &range()).await {
        assert!(line.cache_status.as_ref().unwrap().ends_with("detail=l1"), "{line:?}");
    }
    assert_eq!(prometheus.query_total().await.unwrap(), before + 5);
    let mut again = range();
    again["refresh"] = json!(true);
    for line in lines(&pod, &again).await {
        assert_eq!(line.cache_status.as_deref(), Some("perses; fwd=bypass"));
    }
}

#[tokio::test]
async fn two_viewers_ask_each_query_once() {
    let prometheus = demo().await;
    let pod = pod_with(&prometheus.url(), &dashboard(), |_| ()).await;
    let before = prometheus.query_total().await.unwrap();
    prometheus.pause().await.unwrap();
    let body = range();
    let asked = async { tokio::join!(lines(&pod, &body), lines(&pod, &body)) };
    let resumed = async {
        let shared = "perses_cache_requests_total{cache=\"query\",tier=\"flight\",result=\"shared\"}";
        until("five wait for the other five", || async { pod.metric(shared).await > 4.5 }).await;
        prometheus.resume().await.unwrap();
    };
    let ((one, other), ()) = tokio::join!(asked, resumed);
    assert_eq!((one.len(), other.len()), (5, 5));
    for line in one {
        let same = other.iter().find(|other| (&other.panels, &other.query) == (&line.panels, &line.query)).unwrap();
        assert_eq!(same.data(), line.data());
    }
    assert_eq!(prometheus.query_total().await.unwrap(), before + 5);
}

#[tokio::test]
async fn the_most_wanted_comes_first() {
    let one = std::num::NonZeroUsize::MIN;
    let prometheus = demo().await;
    let pod = pod_with(&prometheus.url(), &dashboard(), |config| config.query.batch.concurrency = one).await;
    let order = |lines: Vec<Line>| lines.iter().map(|line| line.names().join(",")).collect::<Vec<_>>();
    let usual = order(lines(&pod, &range()).await);
    assert_eq!(usual, ["rate/0", "rate/1,same/0", "table/0", "row/0", "row/0"]);
    let mut body = range();
    body["panels"] = json!(["hidden", {"panel": "row", "repeat": ["series", "3"]}, "nothing", "same", "rate"]);
    let answer = lines(&pod, &body).await;
    assert_eq!(answer[1].query.as_deref(), Some("max(demo{series=~\"3\"})"));
    assert_eq!(answer[2].error, Some(json!({"message": "bad request: the dashboard has no panel \"nothing\""})));
    assert_eq!(order(answer), ["hidden/0", "row/0", "nothing/null", "same/0,rate/1", "rate/0"]);
}

#[tokio::test]
async fn a_client_that_goes_ends_the_work() {
    let left = Arc::new(AtomicBool::new(false));
    let flag = left.clone();
    let upstream = Upstream::start(move |seen| {
        let (guard, is_first) = (OnDrop(flag.clone()), seen.body.starts_with(b"query=min"));
        Box::pin(async move {
            if is_first {
                std::mem::forget(guard);
                return crate::upstream::json(r#"{"status":"success","data":1}"#);
            }
            std::future::pending().await
        })
    })
    .await;
    let one = std::num::NonZeroUsize::MIN;
    let pod = pod_with(&upstream.url(), &dashboard(), |config| config.query.batch.concurrency = one).await;
    let mut body = range();
    body["panels"] = json!(["hidden", "rate"]);
    let mut stream = ask(&pod, &body).await.bytes_stream();
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(parsed(std::str::from_utf8(&first).unwrap())[0].data(), r#"{"status":"success","data":1}"#);
    until("the second question arrives", || async { upstream.seen().len() == 2 }).await;
    drop(stream);
    until("the datasource is left alone", || async { left.load(Ordering::SeqCst) }).await;
    let gauge = "perses_upstream_queries_in_flight{endpoint=\"query_range\"}";
    until("nothing is in flight", || async { pod.metric(gauge).await < 0.5 }).await;
    assert_eq!(upstream.seen().len(), 2, "the third question is not asked");
}

#[tokio::test]
async fn a_query_that_fails_is_a_line() {
    let prometheus = demo().await;
    let pod = pod_with(&prometheus.url(), &dashboard(), |_| ()).await;
    let mut body = range();
    body["panels"] = json!(["broken", "hidden"]);
    let mut answer = lines(&pod, &body).await;
    answer.sort_by_key(Line::names);
    let (broken, fine) = (&answer[0], &answer[1]);
    assert_eq!((broken.status, fine.status), (400, 200));
    let (status, text, _) = broken.through_the_proxy(&pod, "/proxy/globaldatasources/prom").await;
    assert_eq!((status, serde_json::from_str::<Value>(&text).ok()), (400, broken.error.clone()));
    assert_eq!(broken.error.as_ref().unwrap()["errorType"], "bad_data");

    // Of which datasource a query is may change at any time.
    let mut spec = dashboard();
    spec["panels"]["hidden"] = panel(
        "TimeSeriesChart",
        &[query("demo", &json!({"datasource": {"kind": "PrometheusDatasource", "name": "other"}}))],
    );
    spec["variables"][1]["spec"].as_object_mut().unwrap().remove("defaultValue");
    pod.apply("projects/p/dashboards", "Dashboard", "d", &spec).await;
    body["panels"] = json!(["hidden", "row"]);
    let message = |line: &Line| line.error.as_ref().unwrap()["message"].as_str().unwrap().to_owned();
    let mut answer = lines(&pod, &body).await;
    answer.sort_by_key(Line::names);
    assert!(message(&answer[0]).contains("no datasource of kind \"PrometheusDatasource\" has the name \"other\""));
    assert!(message(&answer[1]).contains("variable \"series\" has no value"), "{answer:?}");
    let away = self::prometheus("http://127.0.0.1:1", Value::Null);
    pod.apply("projects/p/datasources", "Datasource", "other", &away).await;
    body["panels"] = json!(["hidden"]);
    let answer = lines(&pod, &body).await;
    assert_eq!(answer[0].status, 502, "{answer:?}");
    pod.apply("projects/p/datasources", "Datasource", "other", &self::prometheus(&prometheus.url(), Value::Null)).await;
    let answer = lines(&pod, &body).await;
    assert_eq!(answer[0].status, 200, "{answer:?}");
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_whole() {
    let four = std::num::NonZeroUsize::new(4).unwrap();
    let pod = pod_with("http://127.0.0.1:1", &dashboard(), |config| config.query.batch.max_queries = four).await;
    let refused = async |path: &str, body: Value| {
        let answer = pod.client.post(format!("{}{path}", pod.url)).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        (status, body["message"].as_str().unwrap().to_owned())
    };
    for (path, body, status, text) in [
        (PATH, range(), 400, "more than 4 queries (query.batch.max_queries)"),
        (PATH, json!({"start": 2, "end": 1}), 400, "start: must be before end"),
        (PATH, json!({"other": 2}), 400, "unknown field `other`"),
        (PATH, json!({"variables": {"job": 1}}), 400, "the value of a variable is a text or a list of texts"),
        ("/api/v1/projects/p/dashboards/none/query", range(), 404, "document not found"),
        ("/api/v1/projects/none/dashboards/d/query", range(), 400, "metadata.project \"none\" doesn't exist"),
    ] {
        let (found, message) = refused(path, body.clone()).await;
        assert_eq!(found, status, "{path} {body}: {message}");
        assert!(message.contains(text), "{path} {body}: {message}");
    }
    let plain = pod.client.post(format!("{}{PATH}", pod.url)).body("{}").send().await.unwrap();
    assert_eq!(plain.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn events_for_those_who_want_them() {
    let upstream = Upstream::saying("{\n}\n").await;
    let pod = pod_with(&upstream.url(), &dashboard(), |_| ()).await;
    let request = pod.client.post(format!("{}{PATH}", pod.url)).header("accept", "text/event-stream").json(&range());
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert_eq!(answer.headers()["x-accel-buffering"], "no");
    let text = answer.text().await.unwrap();
    let events: Vec<&str> = text.split_terminator("\n\n").collect();
    assert_eq!(events.len(), 5, "{text}");
    for event in events {
        let line: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(line["data"], json!({}), "{line}");
    }
}

/// Real dashboards of others, when they are beside the clone.
#[tokio::test]
async fn real_dashboards() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let Ok(text) = std::fs::read_to_string(folder.join("dashboards.json")) else {
        eprintln!("SKIPPED real_dashboards: no dashboards in {}", folder.display());
        return;
    };
    let prometheus = demo().await;
    let pod = pod_with(&prometheus.url(), &dashboard(), |_| ()).await;
    let global = self::prometheus(&prometheus.url(), Value::Null);
    pod.apply("globaldatasources", "GlobalDatasource", "prometheusdemo", &global).await;
    let (mut asked, mut refused) = (0, Vec::new());
    for dashboard in serde_json::from_str::<Vec<Value>>(&text).unwrap() {
        let spec = &dashboard["spec"];
        pod.apply("projects/p/dashboards", "Dashboard", "d", spec).await;
        let mut body = range();
        // Those in collapsed rows, too.
        body["panels"] = spec["panels"].as_object().unwrap().keys().cloned().collect();
        let own = spec["variables"].as_array().into_iter().flatten().filter(|one| one["kind"] == "ListVariable");
        let own = own.filter(|one| one["spec"]["defaultValue"].is_null() || one["spec"]["defaultValue"] == "$__all");
        let name = |one: &Value| one["spec"]["name"].as_str().unwrap().to_owned();
        body["variables"] = own.map(|one| (name(one), json!(["a", "b"]))).collect();
        for line in lines(&pod, &body).await {
            if line.query.is_none() {
                refused.push(line.error.unwrap()["message"].as_str().unwrap().to_owned());
                continue;
            }
            asked += 1;
            assert!(matches!(line.status, 200 | 400), "{line:?}");
            // Both datasources are the same Prometheus.
            let (status, text, _) = line.through_the_proxy(&pod, "/proxy/globaldatasources/prom").await;
            assert_eq!(status, line.status, "{line:?}");
            match &line.error {
                None => assert_eq!(text.trim_end(), line.data()),
                Some(error) => assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), error),
            }
        }
    }
    assert!(asked > 100, "{asked} queries are asked; refused: {refused:?}");
    assert!(refused.len() < 5, "{refused:?}");
}
