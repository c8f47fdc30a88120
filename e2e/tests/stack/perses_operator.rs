//! Upstream's operator deploys our server's image in place of upstream's, and its resources become documents.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::build::go::PERSES_OPERATOR;
use e2e::images::{Config, Files, Image, product, write_archive};
use e2e::perses::Perses;
use e2e::wait::wait_for;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::Value;

use crate::world::World;

const MANIFEST: &str = include_str!("../../assets/perses-operator/operator.yaml");
const RESOURCES: &str = include_str!("../../assets/perses-operator/resources.yaml");
const DEADLINE: Duration = Duration::from_mins(3);

#[tokio::test]
async fn upstreams_operator_runs_our_image_and_never_loops() -> Result<()> {
    let world = World::enter().await?;
    load_operator(&world)?;
    let kubectl = world.cluster.kubectl();
    let crds = PERSES_OPERATOR.require()?.join("bases");
    let crds = crds.to_string_lossy();
    kubectl.run(&["apply", "--server-side", "-f", &crds]).await?;
    kubectl.run(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &crds]).await?;
    let result =
        world.cluster.with_temp_namespace("perses-operator", async |namespace| story(&world, &namespace).await).await;
    kubectl.run(&["delete", "--wait=false", "-f", &crds]).await?;
    result
}

async fn story(world: &World, namespace: &str) -> Result<()> {
    let kubectl = world.cluster.kubectl();
    let manifest = MANIFEST.replace("${IMAGE}", &product::name("perses-operator")).replace("${NAMESPACE}", namespace);
    kubectl.apply(namespace, &manifest).await?;
    let resources = RESOURCES.replace("${IMAGE}", &product::name("api-server"));
    wait_for("the resources to be taken", DEADLINE, || async { Ok(kubectl.apply(namespace, &resources).await.ok()) })
        .await?;

    let services: Api<Service> = Api::namespaced(world.stack.client.clone(), namespace);
    let address = wait_for("the Service of the server", DEADLINE, || async {
        let service = services.get_opt("perses").await?;
        Ok(service.and_then(|service| service.spec).and_then(|spec| spec.cluster_ip))
    })
    .await?;
    let server = Perses::new(&format!("http://{address}:8080"))?;
    let dashboard = format!("/api/v1/projects/{namespace}/dashboards/sample");
    let found = document(&server, &dashboard).await?;
    ensure!(found["spec"]["display"]["name"] == "Sample", "another dashboard: {found}");
    document(&server, &format!("/api/v1/projects/{namespace}/datasources/metrics")).await?;
    document(&server, "/api/v1/globaldatasources/metrics-everywhere").await?;

    // A restarted operator looks at everything anew, three documents and twice the project: it must find nothing to write.
    let (puts, gets) = (requests(&server, "PUT").await?, requests(&server, "GET").await?);
    kubectl.run(&["-n", namespace, "rollout", "restart", "deployment/perses-operator"]).await?;
    kubectl.run(&["-n", namespace, "rollout", "status", "deployment/perses-operator", "--timeout=120s"]).await?;
    wait_for("the restarted operator to have looked", DEADLINE, || async {
        Ok((requests(&server, "GET").await? >= gets + 5.0).then_some(()))
    })
    .await?;
    let again = requests(&server, "PUT").await?;
    #[expect(clippy::float_cmp, reason = "whole numbers")]
    let quiet = again == puts;
    ensure!(quiet, "the operator wrote {} documents that had not changed", again - puts);

    // A change arrives, a deletion too.
    let patch = r#"{"spec":{"config":{"display":{"name":"Changed"}}}}"#;
    kubectl.run(&["-n", namespace, "patch", "persesdashboard", "sample", "--type=merge", "-p", patch]).await?;
    wait_for("the change to arrive", DEADLINE, || async {
        let found = server.get(&dashboard).await?.ok()?.json()?;
        Ok((found["spec"]["display"]["name"] == "Changed" && found["metadata"]["version"] == 1).then_some(()))
    })
    .await?;
    kubectl.run(&["-n", namespace, "delete", "persesdashboard", "sample"]).await?;
    wait_for("the dashboard to go", DEADLINE, || async {
        Ok((server.get(&dashboard).await?.status == 404).then_some(()))
    })
    .await?;
    // What is left has finalizers that only the running operator removes.
    for kind in ["persesdatasource", "persesglobaldatasource", "perses"] {
        kubectl.run(&["-n", namespace, "delete", kind, "--all"]).await?;
    }
    Ok(())
}

async fn document(server: &Perses, path: &str) -> Result<Value> {
    wait_for(path, DEADLINE, || async {
        let answer = server.get(path).await;
        answer.ok().filter(|answer| answer.status.is_success()).map(|answer| answer.json()).transpose()
    })
    .await
}

/// Requests of this method that the server has answered, its own metrics left out.
async fn requests(server: &Perses, method: &str) -> Result<f64> {
    let answer = server.get("/metrics").await?.ok()?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let lines = text.lines().filter(|line| {
        line.starts_with("perses_http_request_total{")
            && line.contains(&format!("method=\"{method}\""))
            && line.contains("handler=\"/api/v1/")
    });
    lines
        .map(|line| {
            line.rsplit(' ').next().context("a metric without value")?.parse::<f64>().context("a metric is no number")
        })
        .sum()
}

fn load_operator(world: &World) -> Result<()> {
    let node =
        world.cluster.node().context("the image of upstream's operator can only be loaded into the local cluster")?;
    let mut layer = Files::default();
    layer.copy(PERSES_OPERATOR.require()?.join("perses-operator"), "perses-operator", 0o755).folder("tmp", 0o1777);
    let config =
        Config { entrypoint: vec!["/perses-operator".into()], user: "65532:65532".into(), ..Config::default() };
    let image = Image { name: product::name("perses-operator"), config, layers: vec![layer.finish()?] };
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("perses-operator.tar");
    write_archive(&[image], &archive)?;
    node.load_image(&archive)
}
