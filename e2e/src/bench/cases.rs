//! What is asked for: random dashboards while somebody edits them, and a cached range query.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    fixtures::dashboards,
    load::{Failure, Plan, Request, Response, Sent, expect_status},
    perses::Perses,
    services::Prometheus,
};

pub(super) const PROJECT: &str = "bench";
const SEED: u64 = 42;

/// Series and points of the range query; with these its answer has about 77 KB.
const SERIES: usize = 20;
const POINTS: usize = 164;
const STEP: usize = 15;
const START: usize = 1_700_000_000;

/// The plans of one kind of request, ours first.
pub(super) struct Contest {
    pub(super) name: String,
    pub(super) body_bytes: f64,
    /// Whether the server's core is the limit.
    pub(super) bound_by_server: bool,
    pub(super) plans: Vec<Plan>,
}

/// How the servers are asked: where, as whom, over how many connections.
pub(super) struct Doors {
    pub(super) ours: Plan,
    pub(super) nginx: Plan,
    /// The real Perses, when it takes part, and the token of its user.
    pub(super) perses: Option<(Plan, String)>,
}

/// The dashboards of the benchmark, with the newest version of each that anybody was told of.
pub(super) struct Dashboards {
    documents: Vec<Value>,
    versions: Arc<[AtomicU64]>,
}

impl Dashboards {
    /// Creates `count` dashboards and writes their bytes as files for nginx.
    pub(super) async fn create(client: &Perses, count: usize, files: &Path) -> Result<Self> {
        client.apply(&json!({"kind": "Project", "metadata": {"name": PROJECT}, "spec": {}})).await?;
        let documents = dashboards::set(PROJECT, count, SEED);
        fs::create_dir_all(files.join("dashboards")).context("create nginx' files")?;
        for (index, document) in documents.iter().enumerate() {
            client.apply(document).await?;
            let stored = client.get(&path(index)).await?.ok()?;
            fs::write(file(files, index), &stored.body).context("write a file for nginx")?;
        }
        Ok(Self { documents, versions: (0..count).map(|_| AtomicU64::new(0)).collect() })
    }

    /// GETs of the dashboards of one size: every second one is large.
    pub(super) fn reads(&self, client: &Perses, doors: &Doors, large: bool, files: &Path) -> Result<Contest> {
        let indices: Arc<[usize]> = (usize::from(large)..self.documents.len()).step_by(2).collect();
        let sizes = indices.iter().map(|index| Ok(fs::metadata(file(files, *index))?.len()));
        let sizes = sizes.sum::<std::io::Result<u64>>().context("read the sizes of nginx' files")?;
        let body_bytes = mean(sizes, indices.len());
        let mut plans = vec![
            self.ours(client, &doors.ours, &indices)?,
            gets(&doors.nginx, &indices, |index| format!("/dashboards/{index}"), &[]),
        ];
        if let Some((perses, token)) = &doors.perses {
            plans.push(gets(perses, &indices, path, &[("Authorization", token)]));
        }
        Ok(Contest {
            name: format!("GET of a dashboard, {:.0} KB", body_bytes / 1000.0),
            body_bytes,
            bound_by_server: true,
            plans,
        })
    }

    /// GETs of all dashboards by clients who take gzip.
    pub(super) async fn compressed_reads(&self, client: &Perses, doors: &Doors, files: &Path) -> Result<Contest> {
        let indices: Arc<[usize]> = (0..self.documents.len()).collect();
        let authorization = bearer(client)?;
        let mut sizes = 0;
        for index in indices.iter() {
            let packed = client.packed(&path(*index)).await?;
            sizes += packed.len() as u64;
            fs::write(file(files, *index).with_extension("gz"), &packed).context("write a file for nginx")?;
        }
        let gzip = ("Accept-Encoding", "gzip");
        let check: crate::load::Check = Arc::new(|_, response| {
            expect_status(response, 200)?;
            let packed =
                response.header("content-encoding") == Some("gzip") && response.body.starts_with(&[0x1f, 0x8b]);
            if packed { Ok(()) } else { Err(Failure::Check("the body is not compressed".to_owned())) }
        });
        let plan = |door: &Plan, path: fn(usize) -> String, headers: &[(&str, &str)]| Plan {
            check: Arc::clone(&check),
            ..gets(door, &indices, path, headers)
        };
        let plans = vec![
            plan(&doors.ours, path, &[gzip, ("Authorization", &authorization)]),
            plan(&doors.nginx, |index| format!("/dashboards/{index}"), &[gzip]),
        ];
        let body_bytes = mean(sizes, indices.len());
        Ok(Contest {
            name: format!("GET of a dashboard as gzip, {:.0} KB", body_bytes / 1000.0),
            body_bytes,
            bound_by_server: true,
            plans,
        })
    }

    /// Lists of all dashboards of the project, whole or only their metadata.
    pub(super) async fn lists(client: &Perses, doors: &Doors, metadata_only: bool) -> Result<Contest> {
        let path =
            format!("/api/v1/projects/{PROJECT}/dashboards{}", if metadata_only { "?metadata_only=true" } else { "" });
        let body_bytes = mean(client.get(&path).await?.ok()?.body.len() as u64, 1);
        let authorization = bearer(client)?;
        let list = |door: &Plan, token: &str| Plan {
            requests: [Request::get(&door.address.to_string(), &path, &[("Authorization", token)])].into(),
            // Whole lists have tens of megabytes.
            connections: door.connections.min(4),
            timeout: Duration::from_mins(1),
            ..door.clone()
        };
        let mut plans = vec![list(&doors.ours, &authorization)];
        plans.extend(doors.perses.iter().map(|(door, token)| list(door, token)));
        let what = if metadata_only { "list of metadata" } else { "list of whole dashboards" };
        Ok(Contest { name: format!("{what}, {:.0} KB", body_bytes / 1000.0), body_bytes, bound_by_server: true, plans })
    }

    fn ours(&self, client: &Perses, door: &Plan, indices: &Arc<[usize]>) -> Result<Plan> {
        let authorization = bearer(client)?;
        let versions = Arc::clone(&self.versions);
        let mark_versions = Arc::clone(&self.versions);
        let (marked, checked) = (Arc::clone(indices), Arc::clone(indices));
        Ok(Plan {
            // Whoever asks after an edit was answered must see that edit or a later one.
            mark: Arc::new(move |request| mark_versions[marked[request]].load(Ordering::SeqCst)),
            check: Arc::new(move |sent, response| {
                check_dashboard(sent, response, versions[checked[sent.request]].load(Ordering::SeqCst))
            }),
            ..gets(door, indices, path, &[("Authorization", &authorization)])
        })
    }

    /// Edits a random dashboard once a second, for ever.
    pub(super) async fn keep_editing(&self, client: &Perses) -> Result<()> {
        let mut random = SmallRng::seed_from_u64(SEED);
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        for revision in 1.. {
            ticks.tick().await;
            let index = random.random_range(0..self.documents.len());
            let mut document = self.documents[index].clone();
            dashboards::edit(&mut document, revision);
            let answer =
                client.send(Method::PUT, &path(index), Some(&document)).await?.ok().context("edit a dashboard")?;
            let version =
                answer.json()?["metadata"]["version"].as_u64().context("no version in the answer of a PUT")?;
            self.versions[index].fetch_max(version, Ordering::SeqCst);
        }
        Ok(())
    }

    /// The dashboards as they were created, after their project.
    pub(super) fn with_project(&self) -> Vec<Value> {
        let project = json!({"kind": "Project", "metadata": {"name": PROJECT}, "spec": {}});
        std::iter::once(project).chain(self.documents.iter().cloned()).collect()
    }

    /// How many edits were answered.
    pub(super) fn edits(&self) -> u64 {
        self.versions.iter().map(|version| version.load(Ordering::SeqCst)).sum()
    }
}

/// A Prometheus with the samples that the range query asks for.
pub(super) async fn prometheus() -> Result<Prometheus> {
    let mut random = SmallRng::seed_from_u64(SEED);
    let mut samples = "# TYPE bench gauge\n".to_owned();
    for series in 0..SERIES {
        for point in 0..POINTS {
            let (value, time) = (f64::from(random.random_range(100_000..999_999)) / 1000.0, START + point * STEP);
            _ = writeln!(samples, "bench{{instance=\"host-{series:03}:9100\"}} {value} {time}");
        }
    }
    samples += "# EOF\n";
    Prometheus::start_with(&[], Some(&samples)).await
}

/// The range query through the server's datasource proxy, and its answer as a file. It is in the cache afterwards.
pub(super) async fn queries(client: &Perses, prometheus: &Prometheus, doors: &Doors, files: &Path) -> Result<Contest> {
    let datasource = json!({
        "kind": "GlobalDatasource",
        "metadata": {"name": "prometheus"},
        "spec": {"default": true, "plugin": {"kind": "PrometheusDatasource", "spec": {
            "proxy": {"kind": "HTTPProxy", "spec": {"url": prometheus.url()}},
        }}},
    });
    client.apply(&datasource).await?;
    let end = START + (POINTS - 1) * STEP;
    let path = format!(
        "/proxy/globaldatasources/prometheus/api/v1/query_range?query=bench&start={START}&end={end}&step={STEP}"
    );
    client.get(&path).await?.ok().context("the first range query")?;
    let cached = client.get(&path).await?.ok().context("the second range query")?;
    ensure!(
        cached.cache_status.contains("hit"),
        "the second range query is no hit: Cache-Status {:?}",
        cached.cache_status
    );
    let body = cached.body;
    fs::write(files.join("query"), &body).context("write a file for nginx")?;

    let one = |door: &Plan, path: &str, headers: &[(&str, &str)]| Plan {
        requests: [Request::get(&door.address.to_string(), path, headers)].into(),
        check: check_bytes(body.clone()),
        ..door.clone()
    };
    let plans = vec![one(&doors.ours, &path, &[("Authorization", &bearer(client)?)]), one(&doors.nginx, "/query", &[])];
    let body_bytes = mean(body.len() as u64, 1);
    Ok(Contest {
        name: format!("cached query_range, {:.0} KB", body_bytes / 1000.0),
        body_bytes,
        bound_by_server: true,
        plans,
    })
}

/// GETs of these documents that check the form of each answer.
pub(super) fn gets(door: &Plan, indices: &Arc<[usize]>, path: fn(usize) -> String, headers: &[(&str, &str)]) -> Plan {
    let host = door.address.to_string();
    Plan {
        requests: indices.iter().map(|index| Request::get(&host, &path(*index), headers)).collect(),
        check: Arc::new(|sent, response| check_dashboard(sent, response, u64::MAX)),
        ..door.clone()
    }
}

pub(super) fn path(index: usize) -> String {
    format!("/api/v1/projects/{PROJECT}/dashboards/dashboard-{index:04}")
}

fn file(files: &Path, index: usize) -> std::path::PathBuf {
    files.join(format!("dashboards/{index}"))
}

pub(super) fn bearer(client: &Perses) -> Result<String> {
    Ok(format!("Bearer {}", client.token().context("the client is not signed in")?))
}

/// The version must be at least the one known when the request went out. It cannot be above the newest one known by
/// more than the edit that is on its way.
fn check_dashboard(sent: Sent, response: &Response<'_>, newest: u64) -> Result<(), Failure> {
    expect_status(response, 200)?;
    let version = version(response.body).ok_or_else(|| Failure::Check("no metadata.version".to_owned()))?;
    if version < sent.mark {
        return Err(Failure::Check(format!("version {version} after version {} was known", sent.mark)));
    }
    if version > newest.saturating_add(1) {
        return Err(Failure::Check(format!("version {version}, but only {newest} edits were made")));
    }
    if !response.body.trim_ascii_end().ends_with(b"}") {
        return Err(Failure::Check("the body does not end as a document does".to_owned()));
    }
    Ok(())
}

/// `metadata.version`, by looking for it in the beginning: parsing each body would cost more than serving it.
pub(super) fn version(body: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"version\":";
    let start = &body[..body.len().min(1024)];
    let at = start.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let digits = start[at..].iter().take_while(|byte| byte.is_ascii_digit());
    std::str::from_utf8(&start[at..at + digits.count()]).ok()?.parse().ok()
}

/// The whole body, byte for byte.
fn check_bytes(expected: bytes::Bytes) -> crate::load::Check {
    Arc::new(move |_, response| {
        expect_status(response, 200)?;
        if response.body == expected {
            Ok(())
        } else {
            Err(Failure::Check("other bytes than the first answer".to_owned()))
        }
    })
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
pub(super) fn mean(sum: u64, count: usize) -> f64 {
    sum as f64 / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_found_in_the_metadata() {
        assert_eq!(
            version(br#"{"kind":"Dashboard","metadata":{"name":"a","version":17,"project":"b"},"spec":{}}"#),
            Some(17)
        );
        assert_eq!(version(br#"{"kind":"Dashboard"}"#), None);
        assert_eq!(version(br#"{"metadata":{"version":"x"}}"#), None);
    }
}
