//! Redis, PostgreSQL or a pooler away: dashboards go on, and all heals by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::perses::Perses;
use e2e::stack::{OPERATOR_NAMESPACE, READY_DEADLINE};
use e2e::wait::wait_until;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, EvictParams};
use reqwest::Method;
use serde_json::{Value, json};

use crate::availability::gone;
use crate::steady::Steady;
use crate::world::World;

/// Dashboards of the sample project, read through the Service.
pub(crate) fn sample_paths() -> Vec<String> {
    ["prometheus", "perses-stack"].iter().map(|name| format!("/api/v1/projects/demo/dashboards/{name}")).collect()
}

#[tokio::test]
async fn a_pooler_that_is_drained_costs_no_request() -> Result<()> {
    let world = World::enter().await?;
    let pods: Api<Pod> = Api::namespaced(world.stack.client.clone(), &world.stack.namespace);
    let before = world.stack.pods("pgbouncer").await?;
    ensure!(before.len() > 1, "one pooler has no other to take over: {before:?}");
    // Lists are read from the database each time.
    let load = Steady::start(&world.perses, vec!["/api/v1/projects/demo/dashboards".to_owned()], 20);
    let (name, _) = &before[0];
    pods.evict(name, &EvictParams::default()).await?;
    // It serves on until the last connection of the API's pools is old enough to be replaced.
    gone(&pods, name).await?;
    load.finish().await?.all_good("pooler drained")?;
    wait_until("another pooler", Duration::from_secs(60), || async {
        Ok(world.stack.pods("pgbouncer").await?.len() >= before.len())
    })
    .await
}

#[tokio::test]
async fn redis_killed_costs_no_read() -> Result<()> {
    let world = World::enter().await?;
    let load = Steady::start(&world.perses, sample_paths(), 50);
    for (pod, _) in world.stack.pods("redis").await? {
        world
            .stack
            .kubectl
            .run(&["-n", &world.stack.namespace, "delete", "pod", &pod, "--force", "--grace-period=0"])
            .await?;
    }
    // Writes go on as well while Redis is away.
    write(&world.perses, "while-redis-is-away").await?.ok()?;
    wait_until("Redis to be back", Duration::from_secs(90), || async {
        Ok(!world.stack.pods("redis").await?.is_empty())
    })
    .await?;
    wait_until("reads for a while after", Duration::from_secs(60), || async { Ok(load.sent().await > 500) }).await?;
    let report = load.finish().await?;
    report.all_good("Redis killed")?;
    ensure!(report.percentile(0.95) < Duration::from_millis(500), "p95 was {:?}", report.percentile(0.95));
    Ok(())
}

#[tokio::test]
async fn postgresql_away_cached_dashboards_are_served_and_writes_wait() -> Result<()> {
    let world = World::enter().await?;
    let (kubectl, namespace) = (&world.stack.kubectl, world.stack.namespace.as_str());
    // Every pod has the dashboards in its cache.
    for (_, pod) in world.api_pods().await? {
        for path in sample_paths() {
            pod.get(&path).await?.ok()?;
        }
    }
    let before = world.api_pods().await?.len();
    // The operator would start the database again at once: it rests meanwhile.
    kubectl.run(&["-n", OPERATOR_NAMESPACE, "scale", "deployment", "--all", "--replicas=0"]).await?;
    kubectl.run(&["-n", OPERATOR_NAMESPACE, "wait", "pod", "--all", "--for=delete", "--timeout=60s"]).await?;
    kubectl.run(&["-n", namespace, "scale", "statefulset/perses-db", "--replicas=0"]).await?;
    kubectl.run(&["-n", namespace, "wait", "pod/perses-db-0", "--for=delete", "--timeout=90s"]).await?;

    let load = Steady::start(&world.perses, sample_paths(), 20);
    wait_until("a write to be refused with 503", Duration::from_secs(30), || async {
        let answer = write(&world.perses, "while-the-database-is-away").await?;
        ensure!(answer.status == 503, "a write was answered {} {:?}", answer.status, answer.body);
        ensure!(answer.headers.contains_key("retry-after"), "the 503 has no Retry-After");
        Ok(true)
    })
    .await?;
    wait_until("reads without the database", Duration::from_secs(60), || async { Ok(load.sent().await > 300) }).await?;
    ensure!(world.api_pods().await?.len() == before, "pods lost their readiness with the database");
    load.finish().await?.all_good("PostgreSQL away")?;

    kubectl.run(&["-n", OPERATOR_NAMESPACE, "scale", "deployment", "--all", "--replicas=1"]).await?;
    world.stack.wait_ready(READY_DEADLINE, |message| eprintln!("      {message}")).await?;
    wait_until("writes to work again", Duration::from_secs(60), || async {
        Ok(write(&world.perses, "after-the-outage").await?.ok()?.status == 200)
    })
    .await
}

/// Creates or replaces a dashboard of the sample project.
pub(crate) async fn write(perses: &Perses, text: &str) -> Result<e2e::perses::Answer> {
    let body: Value = json!({"kind": "Dashboard", "metadata": {"name": "scratch", "project": "demo"},
        "spec": {"display": {"name": text}, "duration": "1h", "panels": {}, "layouts": []}});
    let answer = perses.send(Method::PUT, "/api/v1/projects/demo/dashboards/scratch", Some(&body)).await?;
    if answer.status == 404 {
        return perses.send(Method::POST, "/api/v1/projects/demo/dashboards", Some(&body)).await;
    }
    Ok(answer)
}
