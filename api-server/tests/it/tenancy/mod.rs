//! Whose data: a datasource of many shows each caller the series of their projects.

mod draws;
mod oracle;
mod samples;

use axum::body::Body;
use axum::http::header;
use e2e::services::{Prometheus, Redis};
use futures::FutureExt as _;
use jiff::Timestamp;
use perses_api_server::auth::token::Claims;
use reqwest::StatusCode;
use serde_json::{Value, json};

use self::samples::{FIRST, LAST};
use crate::http::{Reply, Server};
use crate::pod::{Pod, prometheus, until};
use crate::upstream::{Upstream, json as json_answer};

async fn project(pod: &Pod, name: &str) {
    pod.apply("projects", "Project", name, &json!({})).await;
}

async fn tags(pod: &Pod, name: &str, tags: &[&str]) {
    let body = json!({"kind": "Project", "metadata": {"name": name, "tags": tags}, "spec": {}});
    let response = pod.client.put(format!("{}/api/v1/projects/{name}", pod.url)).json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{}", response.text().await.unwrap());
}

fn rule(label: &Value) -> Value {
    json!({"datasources": [{"name": "prom", "tenancy": {"labels": [label]}}]})
}

/// A server with roles where everybody may read global datasources, on a Prometheus with the series of all.
async fn with_roles(prometheus_url: &str, redis: &Redis, tenancy: &Value) -> Server {
    let server = Server::with_auth(json!({
        "security": {
            "authentication": {"disable_sign_up": true},
            "authorization": {"guest_permissions": [{"actions": ["read"], "scopes": ["GlobalDatasource"]}]},
        },
        "cache": {"redis": {"addr": redis.address()}},
        "query": {"datasources": [{"name": "prom", "tenancy": tenancy}]},
    }))
    .await;
    let admin = |method: &'static str, path: String, body: Value| {
        let server = &server;
        async move { send(server, "admin", &[], method, &path, &body).await.ok() }
    };
    for name in ["team-a", "b"] {
        let body = json!({"kind": "Project", "metadata": {"name": name}, "spec": {}});
        admin("POST", "/api/v1/projects".to_owned(), body).await;
    }
    for (user, projects) in
        [("ann", vec!["team-a"]), ("ben", vec!["b"]), ("both", vec!["team-a", "b"]), ("nobody", vec![])]
    {
        let body = json!({"kind": "User", "metadata": {"name": user}, "spec": {"nativeProvider": {"password": "p"}}});
        admin("POST", "/api/v1/users".to_owned(), body).await;
        for project in projects {
            let spec = json!({"role": "viewer", "subjects": [{"kind": "User", "name": user}]});
            let body = json!({"kind": "RoleBinding", "metadata": {"name": user, "project": project}, "spec": spec});
            admin("POST", format!("/api/v1/projects/{project}/rolebindings"), body).await;
        }
    }
    let spec = prometheus(prometheus_url, Value::Null);
    let body = json!({"kind": "GlobalDatasource", "metadata": {"name": "prom"}, "spec": spec});
    admin("POST", "/api/v1/globaldatasources".to_owned(), body).await;
    server
}

async fn send(server: &Server, user: &str, groups: &[&str], method: &str, path: &str, body: &Value) -> Reply {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    let token = server.state.tokens.access(&Claims { groups, ..Claims::native(user) }, Timestamp::now()).unwrap();
    let request = axum::http::Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {token}"));
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    server.raw(request.body(body).unwrap()).await
}

async fn ask(server: &Server, user: &str, groups: &[&str], path: &str) -> Reply {
    send(server, user, groups, "GET", &format!("/proxy/globaldatasources/prom{path}"), &Value::Null).await
}

/// Namespaces of the series in an answer.
fn namespaces(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    let answer = reply.json();
    let series = answer["data"]["result"].as_array().unwrap().iter();
    let mut found: Vec<String> =
        series.map(|one| one["metric"]["namespace"].as_str().unwrap_or_default().to_owned()).collect();
    found.sort();
    found.dedup();
    found
}

/// The same question from several people, through both pods and every tier: to each their own.
#[tokio::test]
async fn nobody_gets_the_answer_of_somebody_else() {
    let samples = samples::of(|_| true);
    let (prometheus, redis) = tokio::join!(Prometheus::start_with(&[], Some(&samples)), Redis::start());
    let (prometheus, redis) = (prometheus.unwrap(), redis.unwrap());
    let tenancy = json!({"labels": [{"label": "namespace", "values": ["{project}"], "groups": {"sre": ["c"]}}]});
    let url = prometheus.url();
    let one = with_roles(&url, &redis, &tenancy).await;
    let other = with_roles(&url, &redis, &tenancy).await;
    let none: &[&str] = &[];
    let people: [(&str, &[&str], Vec<&str>); 6] = [
        ("ann", none, vec!["team-a"]),
        ("ben", none, vec!["b"]),
        ("both", none, vec!["b", "team-a"]),
        ("ann", &["sre", "else"], vec!["c", "team-a"]),
        ("nobody", &["sre"], vec!["c"]),
        // All projects that there are.
        ("admin", none, vec!["b", "team-a"]),
    ];
    let (start, end) = (FIRST, FIRST + 900);
    let window =
        |slide: i64| format!("/api/v1/query_range?query=g&start={}&end={}&step=30", start + slide, end + slide);
    let before = prometheus.query_total().await.unwrap();
    for slide in [0, 30, 300] {
        for server in [&one, &other, &one] {
            for path in [window(slide), format!("/api/v1/query?query=sum+by+(namespace)(g)&time={}", FIRST + slide)] {
                for (user, groups, expected) in &people {
                    assert_eq!(
                        namespaces(&ask(server, user, groups, &path).await),
                        *expected,
                        "{user} {groups:?} {path}"
                    );
                }
                let refused = ask(server, "nobody", none, &path).await;
                assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
                let text = refused.json();
                assert_eq!((&text["status"], &text["errorType"]), (&json!("error"), &json!("forbidden")));
                assert!(text["error"].as_str().unwrap().contains("nothing of this datasource may be seen"), "{text}");
            }
        }
    }
    // They did come from the tiers: five different sets, three windows and three instants, and few were asked for twice.
    let asked = prometheus.query_total().await.unwrap() - before;
    assert!((5 * 6..=2 * 5 * 6).contains(&asked), "{asked}");
    let again = ask(&one, "both", none, &window(0)).await;
    assert!(again.headers["cache-status"].to_str().unwrap().ends_with("detail=l1"), "{again:?}");
    until("answers are in Redis", || async {
        redis.cli(&["--scan", "--pattern", "v1:query:result:*"]).await.unwrap().lines().count() >= 15
    })
    .await;
    let third = with_roles(&url, &redis, &tenancy).await;
    until("the third pod reaches Redis", || async {
        let mut from_redis = true;
        for (user, groups, expected) in &people {
            let reply = ask(&third, user, groups, &window(0)).await;
            assert_eq!(namespaces(&reply), *expected, "{user} {groups:?}");
            from_redis &= reply.headers["cache-status"].to_str().unwrap().contains("; hit; ");
        }
        from_redis
    })
    .await;
}

#[tokio::test]
async fn administrators_are_free_where_the_rule_says_so_and_new_projects_count_at_once() {
    let samples = samples::of(|_| true);
    let (prometheus, redis) = tokio::join!(Prometheus::start_with(&[], Some(&samples)), Redis::start());
    let (prometheus, redis) = (prometheus.unwrap(), redis.unwrap());
    let labels = json!([{"label": "namespace", "values": ["{project}"]}]);
    let path = format!("/api/v1/query?query=g&time={}", LAST - 60);
    let none: &[&str] = &[];

    let free = with_roles(&prometheus.url(), &redis, &json!({"labels": labels, "free_administrators": true})).await;
    assert_eq!(namespaces(&ask(&free, "admin", none, &path).await), ["", "b", "c", "team-a", "team.a"]);
    assert_eq!(namespaces(&ask(&free, "ann", none, &path).await), ["team-a"]);
    assert_eq!(ask(&free, "nobody", none, "/api/v1/rules").await.status, StatusCode::FORBIDDEN);
    assert_eq!(ask(&free, "admin", none, "/api/v1/rules").await.status, StatusCode::OK);

    let bound = with_roles(&prometheus.url(), &redis, &json!({ "labels": labels })).await;
    assert_eq!(namespaces(&ask(&bound, "admin", none, &path).await), ["b", "team-a"]);
    let body = json!({"kind": "Project", "metadata": {"name": "c"}, "spec": {}});
    send(&bound, "admin", none, "POST", "/api/v1/projects", &body).await.ok();
    assert_eq!(namespaces(&ask(&bound, "admin", none, &path).await), ["b", "c", "team-a"]);
    assert_eq!(
        send(&bound, "admin", none, "DELETE", "/api/v1/projects/b", &Value::Null).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(namespaces(&ask(&bound, "admin", none, &path).await), ["c", "team-a"]);
}

/// What reaches the datasource: the limited request and nothing else of the client that could change its meaning.
#[tokio::test]
async fn every_way_to_the_datasource_is_limited() {
    let upstream = Upstream::start(|seen| {
        let headers: Vec<&str> = seen.headers.keys().map(header::HeaderName::as_str).collect();
        let body = std::str::from_utf8(&seen.body).unwrap();
        let seen = json!({"uri": seen.target, "body": body, "headers": headers});
        let answer = json_answer(json!({"status": "success", "data": seen}).to_string());
        async move { answer }.boxed()
    })
    .await;
    let pod = Pod::start_with(|config| {
        let label = json!({"label": "namespace", "values": ["{project}"], "tags": "ns:"});
        config.query = serde_json::from_value(rule(&label)).unwrap();
    })
    .await;
    project(&pod, "p").await;
    let spec = prometheus(&upstream.url(), Value::Null);
    pod.apply("projects/p/datasources", "Datasource", "prom", &spec).await;
    pod.apply("projects/p/datasources", "Datasource", "free", &spec).await;
    let dashboard = json!({"duration": "1h", "panels": {}, "layouts": [], "datasources": {"prom": spec}});
    pod.apply("projects/p/dashboards", "Dashboard", "d", &dashboard).await;

    let limited = "up%7Bnamespace%3D%7E%22p%22%7D";
    for place in ["/proxy/projects/p/datasources/prom", "/proxy/projects/p/dashboards/d/datasources/prom"] {
        let request = pod.client.get(format!("{}{place}/api/v1/query?query=up&time=1", pod.url));
        let request = request.header("x-scope-orgid", "other").header("x-http-method-override", "DELETE");
        let seen: Value = request.header("cache-control", "no-store").send().await.unwrap().json().await.unwrap();
        let uri = seen["data"]["uri"].as_str().unwrap();
        assert!(uri.starts_with(&format!("/api/v1/query?query={limited}&time=1&timeout=")), "{place}: {uri}");
        let headers = seen["data"]["headers"].to_string();
        assert!(!headers.contains("x-scope-orgid") && !headers.contains("x-http-method-override"), "{headers}");

        let request =
            pod.client.post(format!("{}{place}/api/v1/series?match[]=down", pod.url)).form(&[("match[]", "up")]);
        let seen: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(seen["data"]["uri"], "/api/v1/series", "{place}");
        let both = format!("match%5B%5D={limited}&match%5B%5D=down%7Bnamespace%3D%7E%22p%22%7D");
        assert_eq!(seen["data"]["body"], both, "{place}");

        for path in ["/api/v1/rules", "/api/v1/query/", "/federate?match[]=up", "/api/v1/%71uery?query=up", "/"] {
            assert_eq!(pod.get(&format!("{place}{path}")).await.status(), StatusCode::FORBIDDEN, "{place}{path}");
        }
        assert_eq!(pod.get(&format!("{place}/-/healthy")).await.status(), StatusCode::OK);
    }
    // One that is not saved has the rule of the name that it gives itself.
    let unsaved = |name: &'static str, plugin: &'static str| {
        let mut spec = spec.clone();
        spec["display"] = json!({"name": name});
        spec["plugin"]["kind"] = json!(plugin);
        let body = json!({"method": "GET", "spec": spec});
        pod.client
            .post(format!("{}/proxy/unsaved/projects/p/datasources/api/v1/query?query=up", pod.url))
            .json(&body)
            .send()
    };
    let seen: Value = unsaved("prom", "PrometheusDatasource").await.unwrap().json().await.unwrap();
    let uri = seen["data"]["uri"].as_str().unwrap();
    assert!(uri.starts_with(&format!("/api/v1/query?query={limited}&timeout=")), "{uri}");
    assert_eq!(unsaved("prom", "TempoDatasource").await.unwrap().status(), StatusCode::FORBIDDEN);
    // No rule, no limit.
    let seen: Value = pod.get("/proxy/projects/p/datasources/free/api/v1/query?query=up").await.json().await.unwrap();
    let uri = seen["data"]["uri"].as_str().unwrap();
    assert!(uri.starts_with("/api/v1/query?query=up&timeout="), "{uri}");

    // Tags of the project count at once, and no longer once they are gone.
    let path = "/proxy/projects/p/datasources/prom/api/v1/labels";
    for (these, pattern) in [(&["ns:x", "y"][..], "p|x"), (&["ns:z.*"][..], "p|z\\\\.\\\\*"), (&[][..], "p")] {
        tags(&pod, "p", these).await;
        let seen: Value = pod.get(path).await.json().await.unwrap();
        let uri = seen["data"]["uri"].as_str().unwrap();
        let query = uri.split_once('?').unwrap().1;
        let selector = form_urlencoded::parse(query.as_bytes()).next().unwrap().1.into_owned();
        assert_eq!(selector, format!("{{namespace=~\"{pattern}\"}}"), "{these:?}");
    }

    let refused = pod.get("/proxy/projects/p/datasources/prom/api/v1/query?query=up{").await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let text: Value = refused.json().await.unwrap();
    assert_eq!((&text["status"], &text["errorType"]), (&json!("error"), &json!("bad_data")));
    // The url of a datasource may not bring selectors of its own.
    let spec = prometheus(&format!("{}/?match[]=up", upstream.url()), Value::Null);
    pod.apply("projects/p/datasources", "Datasource", "prom", &spec).await;
    assert_eq!(pod.get(path).await.status(), StatusCode::FORBIDDEN);
}
