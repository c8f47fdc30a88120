//! Later releases of the server come with other schemas, and the way back over one that it cannot work with is refused.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::images::product;
use e2e::stack::{READY_DEADLINE, Stack, value};
use e2e::wait::{wait_for, wait_until};
use serde_json::Value;

use crate::availability::patch;
use crate::steady::Steady;
use crate::storage::{sample_paths, write};
use crate::world::World;

const RATE: u32 = 40;

#[tokio::test]
async fn later_schemas_cost_no_request_and_the_way_back_is_refused() -> Result<()> {
    let world = World::enter().await?;
    let now = product::name("api-server");
    let (next, after_next) = (product::later(1), product::later(2));
    // Documents come from caches, lists from the database each time.
    let paths = [sample_paths(), vec!["/api/v1/projects/demo/dashboards".to_owned()]].concat();
    let load = Steady::start(&world.perses, paths, RATE);

    // The first adds to the schema, the second takes away what the first no longer uses.
    for (image, version) in [(&next, "4"), (&after_next, "5")] {
        let before = load.sent().await;
        roll(&world, Some(image)).await?;
        ensure!(schema(&world).await? == version, "{image} serves on schema {}", schema(&world).await?);
        write(&world.perses, image).await?.ok()?;
        ensure!(load.sent().await > before, "nobody read while {image} was rolled out");
    }

    let (deployment, pods) = (generation(&world).await?, names(&world).await?);
    patch(&world, &format!(r#"{{"spec":{{"images":{{"apiServer":"{now}"}}}}}}"#)).await?;
    let message = wait_for("the way back to be refused", Duration::from_secs(90), || async {
        let resource = world.stack.resource().await?;
        let current = resource["status"]["observedGeneration"] == resource["metadata"]["generation"];
        let stalled = Stack::condition(&resource, "Stalled").filter(|(status, _)| current && status == "True");
        Ok(stalled.map(|(_, message)| message))
    })
    .await?;
    eprintln!("      {message}");
    ensure!(message.starts_with("SchemaTooNew") && message.contains(&now), "{message}");
    let resource = world.stack.resource().await?;
    ensure!(Stack::condition(&resource, "Ready").is_some_and(|(status, _)| status == "True"), "{resource:#}");
    ensure!((generation(&world).await?, names(&world).await?) == (deployment, pods), "something was rolled out");
    let log = migration_log(&world).await?;
    ensure!(log.contains("needs a server that knows schema 4"), "the migration does not say why: {log}");
    write(&world.perses, "refused, and all goes on").await?.ok()?;

    // A backup from before is restored, as far as the schema can tell.
    sql(&world, "DELETE FROM perses.schema_version WHERE version > 3").await?;
    roll(&world, None).await?;
    write(&world.perses, "back").await?.ok()?;
    load.finish().await?.all_good("two releases forward, a refused and an allowed way back")
}

/// Changes the server's image, or leaves it to the operator, and waits until the roll is over.
async fn roll(world: &World, image: Option<&str>) -> Result<()> {
    let wished = image.map_or_else(|| product::name("api-server"), str::to_owned);
    let spec = image.map_or(Value::Null, |image| image.into());
    patch(world, &format!(r#"{{"spec":{{"images":{{"apiServer":{spec}}}}}}}"#)).await?;
    let (kubectl, namespace) = (&world.stack.kubectl, &world.stack.namespace);
    let path = "jsonpath={.spec.template.spec.containers[0].image}";
    // A refused migration is tried again after a minute.
    wait_until(&format!("the Deployment to name {wished}"), Duration::from_secs(150), || async {
        Ok(kubectl.run(&["-n", namespace, "get", "deployment/perses-api", "-o", path]).await? == wished)
    })
    .await?;
    kubectl.run(&["-n", namespace, "rollout", "status", "deployment/perses-api", "--timeout=180s"]).await?;
    world.stack.wait_ready(READY_DEADLINE, |_| {}).await
}

async fn generation(world: &World) -> Result<String> {
    let args = ["-n", &world.stack.namespace, "get", "deployment/perses-api", "-o", "jsonpath={.metadata.generation}"];
    world.stack.kubectl.run(&args).await
}

async fn names(world: &World) -> Result<Vec<String>> {
    Ok(world.api_pods().await?.into_iter().map(|(name, _)| name).collect())
}

/// What the newest pod of a migration printed.
async fn migration_log(world: &World) -> Result<String> {
    let (kubectl, namespace) = (&world.stack.kubectl, &world.stack.namespace);
    let label = "app.kubernetes.io/component=migration";
    let pods = kubectl
        .run(&["-n", namespace, "get", "pods", "-l", label, "--sort-by=.metadata.creationTimestamp", "-o", "name"])
        .await?;
    kubectl.run(&["-n", namespace, "logs", pods.lines().last().context("no pod of a migration")?]).await
}

/// The schema of the database.
async fn schema(world: &World) -> Result<String> {
    Ok(sql(world, "SELECT max(version) FROM perses.schema_version").await?.trim().to_owned())
}

async fn sql(world: &World, statement: &str) -> Result<String> {
    let database = value(&world.stack.secret("perses-db").await?, "dbname")?;
    let psql = ["psql", "-X", "-A", "-t", "-h", "/tmp", "-U", "postgres", "-d", &database, "-c", statement];
    let args = [&["-n", &world.stack.namespace, "exec", "perses-db-0", "--"], &psql[..]].concat();
    world.stack.kubectl.run(&args).await
}
