//! No failed request while pods come and go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::wait::wait_until;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, EvictParams};

use crate::steady::Steady;
use crate::storage::sample_paths;
use crate::world::World;

const RATE: u32 = 50;

#[tokio::test]
async fn no_request_fails_while_a_pod_is_evicted_or_scaled_away() -> Result<()> {
    let world = World::enter().await?;
    let pods: Api<Pod> = Api::namespaced(world.stack.client.clone(), &world.stack.namespace);
    let before = world.api_pods_at_least(2, Duration::from_secs(90)).await?;

    let load = Steady::start(&world.perses, sample_paths(), RATE);
    let (name, _) = &before[0];
    pods.evict(name, &EvictParams::default()).await.context("evicting as a drain does")?;
    gone(&pods, name).await?;
    world.api_pods_at_least(before.len(), Duration::from_secs(90)).await?;
    load.finish().await?.all_good("pod drained")?;

    let pods_now = world.api_pods().await?;
    let load = Steady::start(&world.perses, sample_paths(), RATE);
    // What scaling down does to a pod: it is deleted gracefully.
    let (name, _) = &pods_now[0];
    pods.delete(name, &DeleteParams::default()).await?;
    gone(&pods, name).await?;
    world.api_pods_at_least(before.len(), Duration::from_secs(90)).await?;
    load.finish().await?.all_good("pod deleted")
}

#[tokio::test]
async fn a_killed_pod_costs_only_its_requests_in_flight() -> Result<()> {
    let world = World::enter().await?;
    let before = world.api_pods_at_least(2, Duration::from_secs(90)).await?;
    let load = Steady::start(&world.perses, sample_paths(), RATE);
    wait_until("some reads", Duration::from_secs(30), || async { Ok(load.sent().await > 50) }).await?;
    let killed = Instant::now();
    let pods: Api<Pod> = Api::namespaced(world.stack.client.clone(), &world.stack.namespace);
    let restarts = restarts(&pods, &before[0].0).await?;
    world.kill_server(&before[0].0).await?;
    wait_until("the kubelet to start it again", Duration::from_secs(90), || async {
        Ok(self::restarts(&pods, &before[0].0).await? > restarts)
    })
    .await?;
    world.api_pods_at_least(before.len(), Duration::from_secs(90)).await?;
    let report = load.finish().await?;
    eprintln!(
        "      pod killed: {} reads, {} failed, all pods ready after {:.1?}",
        report.sent,
        report.failures.len(),
        killed.elapsed()
    );
    // Until the kubelet has seen the death and the endpoint is gone, new connections are refused as well: at most what
    // reaches half of the pods in a few seconds.
    let longest = report
        .failures
        .iter()
        .map(|failure| failure.at)
        .max()
        .unwrap_or_default()
        .saturating_sub(report.failures.iter().map(|failure| failure.at).min().unwrap_or_default());
    ensure!(longest < Duration::from_secs(3), "failures went on for {longest:?}: {}", report.listing());
    Ok(())
}

/// How often the container of a pod was started again.
async fn restarts(pods: &Api<Pod>, name: &str) -> Result<i32> {
    let statuses = pods.get(name).await?.status.and_then(|status| status.container_statuses).unwrap_or_default();
    Ok(statuses.iter().map(|status| status.restart_count).sum())
}

pub(crate) async fn patch(world: &World, patch: &str) -> Result<()> {
    let args = ["-n", &world.stack.namespace, "patch", "persesstack", &world.stack.name, "--type=merge", "-p", patch];
    world.stack.kubectl.run(&args).await.map(drop)
}

pub(crate) async fn gone(pods: &Api<Pod>, name: &str) -> Result<()> {
    wait_until(&format!("pod {name} to be gone"), Duration::from_secs(120), || async {
        Ok(pods.get_opt(name).await?.is_none())
    })
    .await
}
