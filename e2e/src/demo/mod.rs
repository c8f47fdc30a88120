//! `make demo`: the whole product on a real Kubernetes, with sample dashboards. Running it again changes nothing.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::paths::workspace_dir;
use crate::perses::Perses;
use crate::progress::step;
use crate::stack::{self, Kubectl, READY_DEADLINE, Stack};

/// Namespace of the demo's stack and Prometheus.
pub const NAMESPACE: &str = "perses-demo";
const SAMPLE: &str = "config/samples/persesstack-demo.yaml";
const ASSETS: &str = "e2e/assets/demo";

/// Installs operator, Prometheus and stack, and loads the sample dashboards through `reach`, which turns the stack into
/// an address that this machine can use.
pub async fn up<R, F>(client: kube::Client, kubectl: Kubectl, reach: R) -> Result<(Stack, Perses)>
where
    R: FnOnce(Stack) -> F,
    F: Future<Output = Result<String>>,
{
    step("installing the operator (config/local)");
    stack::install_operator(&kubectl).await?;

    step(format!("applying {SAMPLE} and a Prometheus in namespace {NAMESPACE}"));
    let namespace = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}");
    kubectl.apply("default", &namespace).await?;
    let sample = std::fs::read_to_string(workspace_dir().join(SAMPLE)).with_context(|| format!("reading {SAMPLE}"))?;
    kubectl.apply(NAMESPACE, &sample).await?;
    stack::install_prometheus(&kubectl, NAMESPACE).await?;

    let stack = Stack { client, kubectl, namespace: NAMESPACE.to_owned(), name: "perses".to_owned() };
    step("waiting for Ready=True");
    stack.wait_ready(READY_DEADLINE, |message| println!("      {message}")).await?;

    step("loading the sample dashboards");
    let address = reach(stack.clone()).await?;
    let (user, password) = stack.admin().await?;
    let perses = Perses::new(&address)?.sign_in(&user, &password).await?;
    load_dashboards(&perses).await?;
    Ok((stack, perses))
}

/// Creates or updates the sample project and its dashboards.
pub async fn load_dashboards(perses: &Perses) -> Result<()> {
    let assets = workspace_dir().join(ASSETS);
    let mut files = vec![assets.join("project.json")];
    let mut dashboards: Vec<_> = std::fs::read_dir(assets.join("dashboards"))
        .with_context(|| format!("reading {ASSETS}/dashboards"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    dashboards.sort();
    files.append(&mut dashboards);
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let resource: Value = serde_json::from_str(&text).with_context(|| format!("parsing {}", file.display()))?;
        let name = resource["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let written = perses.apply(&resource).await?;
        println!(
            "      {} {name}: {}",
            resource["kind"].as_str().unwrap_or_default(),
            if written { "written" } else { "unchanged" }
        );
    }
    Ok(())
}

/// What to do next, for a person.
pub fn summary(stack: &Stack, address: &str, environment: &str) -> String {
    let Stack { namespace, name, .. } = stack;
    let secret =
        format!("kubectl -n {namespace} get secret {name}-admin -o jsonpath='{{.data.password}}' | base64 -d; echo");
    format!(
        "
Perses Stack is ready.

  Web UI    {address}
  Sign-in   user `admin`, password in Secret {namespace}/{name}-admin:
            {secret}

Try:
{environment}  kubectl -n {namespace} get persesstacks,pods,hpa
  kubectl -n {namespace} get persesstack {name} -o jsonpath='{{.status.sizing}}'
  kubectl -n {namespace} patch persesstack {name} --type merge -p '{{\"spec\":{{\"users\":20}}}}'

`make demo-down` removes everything.
"
    )
}
