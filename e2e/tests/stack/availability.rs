//! No failed request while pods come and go, and the autoscaler at work.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::stack::READY_DEADLINE;
use e2e::wait::{wait_for, wait_until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, EvictParams};

use crate::outage::sample_paths;
use crate::steady::Steady;
use crate::world::World;

/// A second name of the same image, so that a roll of the image can be seen.
const OTHER_IMAGE: &str = "localhost/perses-stack/api-server:roll";
const IMAGE: &str = "localhost/perses-stack/api-server:dev";
const RATE: u32 = 50;

#[tokio::test]
async fn no_request_fails_while_the_image_rolls() -> Result<()> {
    let world = World::enter().await?;
    let node = world.cluster.node().context("a second name for an image needs the local cluster")?;
    node.tag_image(IMAGE, OTHER_IMAGE)?;
    let load = Steady::start(&world.perses, sample_paths(), RATE);
    patch(&world, &format!(r#"{{"spec":{{"images":{{"apiServer":"{OTHER_IMAGE}"}}}}}}"#)).await?;
    rolled_to(&world, OTHER_IMAGE).await?;
    load.finish().await?.all_good("image rolled")?;

    let load = Steady::start(&world.perses, sample_paths(), RATE);
    patch(&world, r#"{"spec":{"images":{"apiServer":null}}}"#).await?;
    rolled_to(&world, IMAGE).await?;
    load.finish().await?.all_good("image rolled back")
}

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

    patch(&world, r#"{"spec":{"api":{"minReplicas":3}}}"#).await?;
    let three = world.api_pods_at_least(3, Duration::from_secs(120)).await?;
    let load = Steady::start(&world.perses, sample_paths(), RATE);
    // What scaling down does to a pod: it is deleted gracefully.
    let (name, _) = &three[0];
    pods.delete(name, &DeleteParams::default()).await?;
    gone(&pods, name).await?;
    load.finish().await?.all_good("pod deleted")?;
    patch(&world, r#"{"spec":{"api":{"minReplicas":null}}}"#).await
}

#[tokio::test]
async fn a_killed_pod_costs_only_its_requests_in_flight() -> Result<()> {
    let world = World::enter().await?;
    let before = world.api_pods_at_least(2, Duration::from_secs(90)).await?;
    let load = Steady::start(&world.perses, sample_paths(), RATE);
    wait_until("some reads", Duration::from_secs(30), || async { Ok(load.sent().await > 50) }).await?;
    let killed = Instant::now();
    world.kill_server(&before[0].0).await?;
    world.api_pods_at_least(before.len(), Duration::from_secs(90)).await?;
    let report = load.finish().await?;
    eprintln!("      pod killed: {} reads, {} failed, all pods ready after {:.1?}", report.sent, report.failures.len(), killed.elapsed());
    // Until the kubelet has seen the death and the endpoint is gone, new connections are refused as well: at most what
    // reaches half of the pods in a few seconds.
    let longest = report.failures.iter().map(|failure| failure.at).max().unwrap_or_default()
        .saturating_sub(report.failures.iter().map(|failure| failure.at).min().unwrap_or_default());
    ensure!(longest < Duration::from_secs(3), "failures went on for {longest:?}: {:#?}", report.failures);
    Ok(())
}

#[tokio::test]
async fn the_autoscaler_adds_a_pod_that_serves_within_two_minutes() -> Result<()> {
    let world = World::enter().await?;
    let hpas: Api<HorizontalPodAutoscaler> = Api::namespaced(world.stack.client.clone(), &world.stack.namespace);
    let deployments: Api<Deployment> = Api::namespaced(world.stack.client.clone(), &world.stack.namespace);
    let minimum = hpas.get("perses-api").await?.spec.and_then(|spec| spec.min_replicas).unwrap_or(1);
    let settled = usize::try_from(minimum)?;
    wait_for("the pods that the HPA starts from", Duration::from_secs(60), || async {
        let pods = world.api_pods().await?;
        Ok((pods.len() >= settled).then_some(()))
    })
    .await?;
    let before = world.api_pods().await?.len();
    let started = Instant::now();
    // Whole lists are work: they are read from the database and never cached.
    let load = Steady::start(&world.perses, vec!["/api/v1/dashboards".to_owned()], 200);
    let after = world.api_pods_at_least(before + 1, Duration::from_secs(150)).await?;
    let took = started.elapsed();
    load.finish().await?;
    for (_, pod) in &after {
        pod.get(&sample_paths()[0]).await?.ok()?;
    }
    eprintln!("      {before} -> {} pods that serve, {took:.0?} after the load began", after.len());
    ensure!(took < Duration::from_secs(120), "a new pod served only after {took:?}");
    // The operator leaves the autoscaler's number alone, also when it has something else to write.
    let wanted = deployments.get("perses-api").await?.spec.and_then(|spec| spec.replicas);
    patch(&world, r#"{"metadata":{"annotations":{"touched":"by-the-test"}}}"#).await?;
    world.stack.wait_ready(READY_DEADLINE, |_| {}).await?;
    let now = deployments.get("perses-api").await?.spec.and_then(|spec| spec.replicas);
    ensure!(now >= wanted, "replicas went from {wanted:?} to {now:?}");
    Ok(())
}

async fn patch(world: &World, patch: &str) -> Result<()> {
    let args = ["-n", &world.stack.namespace, "patch", "persesstack", &world.stack.name, "--type=merge", "-p", patch];
    world.stack.kubectl.run(&args).await.map(drop)
}

/// Waits until every API pod runs this image and the roll is over.
async fn rolled_to(world: &World, image: &str) -> Result<()> {
    let namespace = &world.stack.namespace;
    let jsonpath = "jsonpath={.spec.template.spec.containers[0].image}";
    wait_until(&format!("the Deployment to name {image}"), Duration::from_secs(60), || async {
        let named = world.stack.kubectl.run(&["-n", namespace, "get", "deployment/perses-api", "-o", jsonpath]).await?;
        Ok(named == image)
    })
    .await?;
    world.stack.kubectl.run(&["-n", namespace, "rollout", "status", "deployment/perses-api", "--timeout=180s"]).await?;
    world.stack.wait_ready(READY_DEADLINE, |_| {}).await
}

async fn gone(pods: &Api<Pod>, name: &str) -> Result<()> {
    wait_until(&format!("pod {name} to be gone"), Duration::from_secs(90), || async { Ok(pods.get_opt(name).await?.is_none()) }).await
}
