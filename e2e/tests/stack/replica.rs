//! A stack on somebody else's PostgreSQL: its read pool goes to a streaming replica, which stops and comes back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::images::product;
use e2e::perses::Perses;
use e2e::stack::{READY_DEADLINE, Stack, openshift};
use e2e::wait::wait_until;
use serde_json::json;

use crate::steady::Steady;
use crate::world::World;

const MANIFEST: &str = include_str!("../../assets/replica/stack.yaml");
const LIST: &str = "/api/v1/projects/replica/dashboards";
const DEADLINE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn no_read_fails_while_the_replica_of_the_read_pool_is_away() -> Result<()> {
    let world = World::enter().await?;
    world.cluster.with_temp_namespace("replica", async |namespace| story(&world, namespace).await).await
}

async fn story(world: &World, namespace: String) -> Result<()> {
    openshift::namespace(world.cluster.client(), &namespace).await?;
    let kubectl = world.cluster.kubectl();
    let password = format!("{:032x}", rand::random::<u128>());
    let manifest = MANIFEST.replace("${IMAGE}", &product::name(product::SERVICES)).replace("${PASSWORD}", &password);
    kubectl.apply(&namespace, &manifest).await?;
    let client = world.cluster.client().clone();
    let stack = Stack { client, kubectl: kubectl.clone(), namespace: namespace.clone(), name: "perses".to_owned() };
    stack.wait_ready(READY_DEADLINE, |message| eprintln!("      {message}")).await?;
    let perses = stack.sign_in().await?;
    perses.apply(&json!({"kind": "Project", "metadata": {"name": "replica"}, "spec": {}})).await?;
    let dashboard = json!({"kind": "Dashboard", "metadata": {"name": "d", "project": "replica"},
        "spec": {"duration": "1h", "panels": {}, "layouts": []}});
    perses.apply(&dashboard).await?;

    // Lists are read from the replica when it shows all that is known.
    let load = Steady::start(&perses, vec![LIST.to_owned()], 30);
    served(&stack, &perses, "replica", "the replica to be read").await?;
    kubectl.run(&["-n", &namespace, "scale", "deployment/replica", "--replicas=0"]).await?;
    kubectl.run(&["-n", &namespace, "wait", "pod", "-l", "server=replica", "--for=delete", "--timeout=90s"]).await?;
    served(&stack, &perses, "primary", "the primary to be read instead").await?;
    let seen = load.sent().await;
    wait_until("reads without a replica", DEADLINE, || async { Ok(load.sent().await > seen + 150) }).await?;
    kubectl.run(&["-n", &namespace, "scale", "deployment/replica", "--replicas=1"]).await?;
    served(&stack, &perses, "replica", "the replica to be read again").await?;
    load.finish().await?.all_good("replica of the read pool stopped and started")
}

/// Waits until every pod of the API has answered more lists from this server than it had at the first look.
async fn served(stack: &Stack, perses: &Perses, target: &str, what: &str) -> Result<()> {
    let pods = stack.pods("api").await?;
    ensure!(!pods.is_empty(), "no API pod is ready");
    for (_, address) in pods {
        let pod = perses.at(&format!("http://{address}:8080"));
        let before = reads(&pod, target).await?;
        // Some may still be under way when this begins.
        wait_until(what, DEADLINE, || async { Ok(reads(&pod, target).await? >= before + 10.0) }).await?;
    }
    Ok(())
}

/// Reads that this pod has sent to this server.
async fn reads(pod: &Perses, target: &str) -> Result<f64> {
    let answer = pod.get("/metrics").await?.ok()?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let name = format!("perses_db_reads_total{{target=\"{target}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name));
    value.map_or(Ok(0.0), |value| value.parse().context("a metric is no number"))
}
