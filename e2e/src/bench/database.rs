//! What the database costs: our server on PostgreSQL behind PgBouncer with all its caches off, beside Perses on files.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    bench::cases::{self, Contest, PROJECT, bearer, gets, mean},
    fixtures::dashboards,
    load::{Failure, Plan, Request, expect_status},
    perses::Perses,
};

/// Other projects, beside the one that is listed, and the dashboards of each.
const OTHERS: (usize, usize) = (19, 500);
/// Documents that are written again and again.
const REWRITTEN: usize = 64;
/// Clients that read single dashboards.
const CONNECTIONS: usize = 4;
/// Requests that create at a time.
const CREATORS: usize = 16;

/// Dashboards of other projects, and what is rewritten.
pub(super) fn others() -> Vec<Value> {
    let project = |name: &str| json!({"kind": "Project", "metadata": {"name": name}, "spec": {}});
    let mut documents = vec![project(REWRITTEN_PROJECT)];
    for index in 0..OTHERS.0 {
        let name = format!("other-{index:02}");
        documents.push(project(&name));
        for dashboard in 0..OTHERS.1 {
            documents.push(dashboards::without_panels(&name, &format!("dashboard-{dashboard:04}"), dashboards::SMALL));
        }
    }
    documents.extend([DASHBOARDS, FOLDERS].into_iter().flat_map(rewritten));
    documents
}

const REWRITTEN_PROJECT: &str = "rewritten";

const DASHBOARDS: &str = "dashboards";
/// Perses takes no dashboard when it has no plugins, whose schemas it needs. A folder costs it as much, save that check.
const FOLDERS: &str = "folders";

fn rewritten(plural: &str) -> Vec<Value> {
    let document = |index: usize| {
        let name = format!("rewritten-{index:02}");
        if plural == DASHBOARDS {
            return dashboards::without_panels(REWRITTEN_PROJECT, &name, dashboards::SMALL);
        }
        let item = |index: usize| json!({"kind": "Dashboard", "name": format!("dashboard-of-the-folder-{index:04}")});
        let items: Vec<_> = (0..dashboards::SMALL / (item(0).to_string().len() + 1)).map(item).collect();
        json!({
            "kind": "Folder",
            "metadata": {"name": name, "project": REWRITTEN_PROJECT},
            "spec": {"display": {"name": name}, "items": items},
        })
    };
    (0..REWRITTEN).map(document).collect()
}

/// Creates documents, projects first.
pub(super) async fn create(client: &Perses, documents: &[Value]) -> Result<()> {
    let (projects, rest): (Vec<_>, Vec<_>) = documents.iter().partition(|document| document["kind"] == "Project");
    for documents in [projects, rest] {
        let creations = documents.into_iter().map(async |document| {
            let collection = match document["metadata"]["project"].as_str() {
                Some(project) if document["kind"] == "Folder" => format!("/api/v1/projects/{project}/folders"),
                Some(project) => format!("/api/v1/projects/{project}/dashboards"),
                None => "/api/v1/projects".to_owned(),
            };
            let created = client.send(Method::POST, &collection, Some(document)).await?.ok();
            created.with_context(|| format!("create {}", document["metadata"])).map(drop)
        });
        futures::stream::iter(creations).buffer_unordered(CREATORS).try_collect::<()>().await?;
    }
    Ok(())
}

/// GETs of single dashboards, each read from the primary through the pooler.
pub(super) async fn cold_reads(client: &Perses, door: &Plan, dashboards: usize) -> Result<Contest> {
    let indices: Arc<[usize]> = (0..dashboards).collect();
    let authorization = bearer(client)?;
    let some = client.get(&cases::path(0)).await?.ok()?;
    anyhow::ensure!(
        some.cache_status.contains("fwd=miss"),
        "a read of the server without caches says Cache-Status {:?}",
        some.cache_status
    );
    let door = Plan { connections: CONNECTIONS, ..door.clone() };
    let plans = vec![gets(&door, &indices, cases::path, &[("Authorization", &authorization)])];
    let name = format!("cold GET of a dashboard through PgBouncer, {CONNECTIONS} clients");
    Ok(Contest { name, body_bytes: 61_000.0, bound_by_server: false, plans })
}

/// Lists of one project's dashboards out of all, from the database.
pub(super) async fn lists(client: &Perses, door: &Plan, metadata_only: bool) -> Result<Contest> {
    let path =
        format!("/api/v1/projects/{PROJECT}/dashboards{}", if metadata_only { "?metadata_only=true" } else { "" });
    let body_bytes = mean(client.get(&path).await?.ok()?.body.len() as u64, 1);
    let authorization = bearer(client)?;
    let requests = [Request::get(&door.address.to_string(), &path, &[("Authorization", &authorization)])].into();
    let what = if metadata_only { "list of metadata" } else { "list of whole dashboards" };
    let name = format!("{what} from PostgreSQL, {:.0} KB, one client", body_bytes / 1000.0);
    let plans = vec![Plan { requests, connections: 1, ..door.clone() }];
    Ok(Contest { name, body_bytes, bound_by_server: false, plans })
}

/// PUTs of dashboards into PostgreSQL.
pub(super) fn dashboard_writes(client: &Perses, door: &Plan) -> Result<Contest> {
    writes("PUT of a dashboard", DASHBOARDS, client, door, None)
}

/// PUTs of folders: ours into PostgreSQL, Perses into files.
pub(super) fn folder_writes(client: &Perses, door: &Plan, perses: Option<&(Plan, String)>) -> Result<Contest> {
    writes("PUT of a folder", FOLDERS, client, door, perses)
}

fn writes(what: &str, plural: &str, client: &Perses, door: &Plan, perses: Option<&(Plan, String)>) -> Result<Contest> {
    let authorization = bearer(client)?;
    let documents = rewritten(plural);
    let plan = |door: &Plan, authorization: &str| -> Plan {
        let host = door.address.to_string();
        let headers = [("Authorization", authorization), ("Content-Type", "application/json")];
        let requests = documents.iter().enumerate().map(|(index, document)| {
            let path = format!("/api/v1/projects/{REWRITTEN_PROJECT}/{plural}/rewritten-{index:02}");
            Request::new("PUT", &host, &path, &headers, Some(document.to_string().as_bytes()))
        });
        Plan {
            requests: requests.collect(),
            // Perses answers 500 now and then when two write at a time.
            connections: 1,
            check: Arc::new(|_, response| {
                expect_status(response, 200)?;
                let version =
                    cases::version(response.body).ok_or_else(|| Failure::Check("no metadata.version".to_owned()))?;
                if version == 0 { Err(Failure::Check("the version did not rise".to_owned())) } else { Ok(()) }
            }),
            ..door.clone()
        }
    };
    let mut plans = vec![plan(door, &authorization)];
    plans.extend(perses.map(|(door, token)| plan(door, token)));
    let body_bytes = mean(documents.iter().map(|document| document.to_string().len() as u64).sum(), documents.len());
    let name = format!("{what}, {:.0} KB, one client", body_bytes / 1000.0);
    Ok(Contest { name, body_bytes, bound_by_server: false, plans })
}
