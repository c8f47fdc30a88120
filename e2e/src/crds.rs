//! Definitions of other projects (Crunchy, OpenShift's Route, Prometheus operator, Gateway API), against which the operator
//! is tested. They are not part of this repository: `PSTACK_CRDS` names the folder that has them, one
//! `<group>_<plural>.yaml` each; without it `../shared/crds` beside the repository is used.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};

use crate::paths;
use crate::wait::wait_until;

/// Until a definition is served, or gone.
const DEADLINE: Duration = Duration::from_secs(60);

/// The folder with the definitions; `None`, said on standard error, where they are not: then the cases that need them are
/// skipped.
///
/// # Errors
/// They are not there and `PSTACK_REQUIRE_CRDS` is set, as it is where nothing may be skipped; or `PSTACK_CRDS` names no
/// folder.
pub fn folder() -> Result<Option<PathBuf>> {
    if let Some(named) = std::env::var_os("PSTACK_CRDS").filter(|value| !value.is_empty()).map(PathBuf::from) {
        if !named.is_dir() {
            bail!("PSTACK_CRDS names {}, which is no folder", named.display());
        }
        return Ok(Some(named));
    }
    let beside = paths::workspace_dir().join("../shared/crds");
    if beside.is_dir() {
        return Ok(Some(beside));
    }
    if std::env::var_os("PSTACK_REQUIRE_CRDS").is_some_and(|value| !value.is_empty()) {
        bail!("no third-party CRDs in {}: set PSTACK_CRDS to a folder that has them", beside.display());
    }
    // Not by a macro: the test harness would keep what a test prints that passes.
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED {test}: no third-party CRDs in {} (PSTACK_CRDS names another folder)",
        beside.display()
    );
    Ok(None)
}

/// Installs the definition of `<plural>.<group>` and waits until it is served.
pub async fn install(client: &Client, folder: &Path, plural: &str, group: &str) -> Result<()> {
    let file = folder.join(format!("{group}_{plural}.yaml"));
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let definition: serde_json::Value =
        serde_saphyr::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    let name = format!("{plural}.{group}");
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions
        .patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&definition))
        .await
        .with_context(|| format!("installing {name}"))?;
    served(client, plural, group, true).await
}

/// Removes the definition of `<plural>.<group>` and waits until it is no longer served.
pub async fn remove(client: &Client, plural: &str, group: &str) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = format!("{plural}.{group}");
    definitions.delete(&name, &DeleteParams::default()).await.with_context(|| format!("removing {name}"))?;
    served(client, plural, group, false).await
}

async fn served(client: &Client, plural: &str, group: &str, wanted: bool) -> Result<()> {
    let what = format!("{plural}.{group} to be {}", if wanted { "served" } else { "gone" });
    wait_until(&what, DEADLINE, || async {
        let groups = client.list_api_groups().await?;
        let versions = groups.groups.into_iter().find(|found| found.name == group).map(|found| found.versions);
        for version in versions.unwrap_or_default() {
            let Ok(list) = client.list_api_group_resources(&version.group_version).await else { continue };
            if list.resources.iter().any(|resource| resource.name == plural) {
                return Ok(wanted);
            }
        }
        Ok(!wanted)
    })
    .await
}
