//! Real clients against the stack: percli, and queries compared with Prometheus itself.

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use e2e::perses::Perses;
use e2e::wait::wait_for;
use serde_json::json;

use crate::world::{World, percli};

const PROXY: &str = "/proxy/globaldatasources/prometheus/api/v1/query_range";

#[tokio::test]
async fn percli_signs_in_applies_reads_and_deletes() -> Result<()> {
    let world = World::enter().await?;
    let home = tempfile::tempdir()?;
    let (user, password) = world.stack.admin().await?;
    let program = percli()?;
    let run = async |args: &[&str]| -> Result<String> {
        let output = tokio::process::Command::new(&program)
            .args(args)
            .args(["--percliconfig", &home.path().join("config.json").to_string_lossy()])
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "percli {}: {text}", args.join(" "));
        Ok(text)
    };

    run(&["login", world.perses.base(), "--username", &user, "--password", &password]).await?;
    let files = home.path().join("resources");
    std::fs::create_dir(&files)?;
    let project =
        json!({"kind": "Project", "metadata": {"name": "percli"}, "spec": {"display": {"name": "From percli"}}});
    let dashboard = json!({"kind": "Dashboard", "metadata": {"name": "first", "project": "percli"}, "spec": {
        "duration": "1h", "panels": {}, "layouts": [], "display": {"name": "First dashboard"}}});
    std::fs::write(files.join("1-project.json"), project.to_string())?;
    std::fs::write(files.join("2-dashboard.json"), dashboard.to_string())?;
    run(&["apply", "-f", &files.join("1-project.json").to_string_lossy()]).await?;
    run(&["apply", "-f", &files.join("2-dashboard.json").to_string_lossy()]).await?;
    run(&["project", "percli"]).await?;
    let listed = run(&["get", "dashboards"]).await?;
    ensure!(listed.contains("first"), "percli get does not list the dashboard: {listed}");
    let described = run(&["describe", "dashboard", "first", "-o", "json"]).await?;
    ensure!(described.contains("First dashboard"), "percli describe: {described}");
    run(&["delete", "dashboard", "first"]).await?;
    let listed = run(&["get", "dashboards"]).await?;
    ensure!(!listed.contains("first"), "the dashboard was removed, but is listed: {listed}");
    run(&["delete", "project", "percli"]).await?;
    let gone = world.perses.get("/api/v1/projects/percli").await?;
    ensure!(gone.status == 404, "the project was removed, but answers {}", gone.status);
    Ok(())
}

#[tokio::test]
async fn a_query_equals_prometheus_and_is_asked_once() -> Result<()> {
    let world = World::enter().await?;
    let pods = world.api_pods_at_least(2, Duration::from_secs(60)).await?;
    let (first, second) = (&pods[0].1, &pods[1].1);
    // A window in the past: its samples do not change any more. A random part makes the key new in every run.
    let end = wait_for("a minute of samples", Duration::from_secs(120), || async {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let probe = query(&world.prometheus, "/api/v1/query_range", "up", now - 60, now - 30).await?;
        let series = probe.json()?["data"]["result"].as_array().map_or(0, Vec::len);
        Ok((series > 0).then_some(now - 30))
    })
    .await?;
    let text = format!("sum by (job) (up) + 0 * {}", rand::random::<u16>());
    let direct = query(&world.prometheus, "/api/v1/query_range", &text, end - 60, end).await?;
    let asked_before = range_queries(&world.prometheus).await?;

    let through = query(first, PROXY, &text, end - 60, end).await?;
    ensure!(through.cache_status.contains("fwd=miss"), "the first answer came from: {:?}", through.cache_status);
    ensure!(through.json()?["data"] == direct.json()?["data"], "the stack answers something else than Prometheus");
    let asked_once = range_queries(&world.prometheus).await?;
    ensure!(asked_once > asked_before, "Prometheus was not asked");

    let again = query(first, PROXY, &text, end - 60, end).await?;
    ensure!(again.cache_status.contains("hit") && again.cache_status.contains("l1"), "{:?}", again.cache_status);
    ensure!(again.body == through.body, "the cached body differs");

    let other = wait_for("the other pod to answer from Redis", Duration::from_secs(10), || async {
        let answer = query(second, PROXY, &text, end - 60, end).await?;
        ensure!(answer.cache_status.contains("hit"), "the other pod asked Prometheus: {:?}", answer.cache_status);
        Ok(Some(answer))
    })
    .await?;
    ensure!(other.cache_status.contains("l2"), "{:?}", other.cache_status);
    ensure!(other.body == through.body, "the body from Redis differs");
    let asked_after = range_queries(&world.prometheus).await?;
    ensure!(asked_after == asked_once, "Prometheus was asked {} more times", asked_after - asked_once);
    Ok(())
}

#[tokio::test]
async fn bad_input_is_answered_clearly_and_changes_nothing() -> Result<()> {
    let world = World::enter().await?;
    let before = world.perses.get("/api/v1/dashboards").await?.ok()?.json()?;
    let anonymous = Perses::new(world.perses.base())?;
    ensure!(anonymous.get("/api/v1/projects").await?.status == 401, "projects are readable without sign-in");
    let dashboard = |project: &str, name: &str| json!({"kind": "Dashboard", "metadata": {"name": name, "project": project}, "spec": {"panels": {}, "layouts": [], "duration": "1h"}});
    for (path, body, status, part) in [
        (
            "/api/v1/projects/nowhere/dashboards",
            dashboard("nowhere", "a"),
            400,
            "metadata.project \"nowhere\" doesn't exist",
        ),
        ("/api/v1/projects/demo/dashboards", dashboard("demo", "no/slash"), 400, "metadata.name"),
        ("/api/v1/projects/demo/dashboards", dashboard("other", "a"), 400, "does not match"),
        ("/api/v1/projects/demo/dashboards", dashboard("demo", "prometheus"), 409, "document already exists"),
        ("/api/v1/projects", json!({"kind": "Dashboard", "metadata": {"name": "x"}}), 400, "kind"),
    ] {
        let answer = world.perses.send(reqwest::Method::POST, path, Some(&body)).await?;
        let message = answer.json()?["message"].as_str().unwrap_or_default().to_owned();
        ensure!(answer.status == status && message.contains(part), "{path}: {} {message}", answer.status);
    }
    let huge = dashboard("demo", &"x".repeat(5 << 20));
    let answer = world.perses.send(reqwest::Method::POST, "/api/v1/projects/demo/dashboards", Some(&huge)).await?;
    ensure!(answer.status == 413, "a body of 5 MiB: {}", answer.status);
    let after = world.perses.get("/api/v1/dashboards").await?.ok()?.json()?;
    ensure!(before == after, "bad input changed the dashboards");
    Ok(())
}

async fn query(server: &Perses, path: &str, text: &str, start: u64, end: u64) -> Result<e2e::perses::Answer> {
    let (start, end) = (start.to_string(), end.to_string());
    let form = [("query", text), ("start", start.as_str()), ("end", end.as_str()), ("step", "5")];
    let answer = server.post_form(path, &form).await?.ok()?;
    let body = answer.json()?;
    if body["status"] != "success" {
        bail!("the query failed: {body}");
    }
    Ok(answer)
}

/// How many range queries Prometheus has answered, by its own counter.
async fn range_queries(prometheus: &Perses) -> Result<u64> {
    let text = String::from_utf8(prometheus.get("/metrics").await?.ok()?.body.to_vec())?;
    let lines = text.lines().filter(|line| {
        line.starts_with("prometheus_http_requests_total{") && line.contains(r#"handler="/api/v1/query_range""#)
    });
    let mut total = 0;
    for line in lines {
        let value: f64 = line.rsplit(' ').next().context("a metric without value")?.parse()?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter of requests")]
        let value = value as u64;
        total += value;
    }
    Ok(total)
}
