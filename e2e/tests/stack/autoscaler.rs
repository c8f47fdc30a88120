//! The real autoscaler at work. What it took up is looked at again in [`crate::tapering`].

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::stack::READY_DEADLINE;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;

use crate::availability::patch;
use crate::steady::Steady;
use crate::storage::sample_paths;
use crate::world::World;

/// Lists per second: well over what two pods of the demo's size may use.
const LOAD: u32 = 600;

/// The replicas that the autoscaler wants, and the least that it may want.
pub(crate) async fn wanted_and_least(world: &World) -> Result<(i32, i32)> {
    let hpas: Api<HorizontalPodAutoscaler> = Api::namespaced(world.stack.client.clone(), &world.stack.namespace);
    let deployments: Api<Deployment> = Api::namespaced(world.stack.client.clone(), &world.stack.namespace);
    let least = hpas.get("perses-api").await?.spec.and_then(|spec| spec.min_replicas);
    let wanted = deployments.get("perses-api").await?.spec.and_then(|spec| spec.replicas);
    Ok((wanted.context("the Deployment says no replicas")?, least.context("the autoscaler says no minimum")?))
}

#[tokio::test]
async fn adds_a_pod_that_serves_within_two_minutes() -> Result<()> {
    let world = World::enter().await?;
    let before = world.api_pods_at_least(2, Duration::from_secs(60)).await?.len();
    let started = Instant::now();
    // Whole lists are work: they are read from the database and never cached.
    let load = Steady::start(&world.perses, vec!["/api/v1/dashboards".to_owned()], LOAD);
    let after = world.api_pods_at_least(before + 1, Duration::from_secs(150)).await?;
    let took = started.elapsed();
    load.finish().await?;
    for (_, pod) in &after {
        pod.get(&sample_paths()[0]).await?.ok()?;
    }
    eprintln!("      {before} -> {} pods that serve, {took:.0?} after the load began", after.len());
    ensure!(took < Duration::from_secs(120), "a new pod served only after {took:?}");
    // The operator leaves the autoscaler's number alone, also when it has something else to write.
    let (wanted, _) = wanted_and_least(&world).await?;
    patch(&world, r#"{"metadata":{"annotations":{"touched":"by-the-test"}}}"#).await?;
    world.stack.wait_ready(READY_DEADLINE, |_| {}).await?;
    let (now, _) = wanted_and_least(&world).await?;
    ensure!(now >= wanted, "replicas went from {wanted} to {now}");
    Ok(())
}
