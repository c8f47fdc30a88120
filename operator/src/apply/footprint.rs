//! What the built objects of a stack ask of a cluster. PURE.
//!
//! Read from the objects themselves, so that a container or a volume that somebody adds to a builder is counted too.

use serde_json::Value;

use super::inventory::Inventory;
use super::kind::Kind;
use super::order::Plan;
use super::ssa::Child;
use crate::controllers::persesstack::build::labels::{COMPONENT_KEY, Component};
use crate::controllers::persesstack::feasible::Present;
use crate::sizing::footprint::{Amount, ContainerLoad, Footprint, PodGroup, Volume};
use crate::sizing::{Bytes, Cpu};

/// The footprint of every object of `plan`.
pub fn footprint(plan: &Plan) -> Footprint {
    of(&plan.children().collect::<Vec<_>>())
}

fn of(children: &[&Child]) -> Footprint {
    let mut footprint = Footprint::default();
    for child in children {
        let spec = &child.value["spec"];
        if spec["template"]["spec"]["containers"].is_array() {
            footprint.pods.push(pods(child.kind, &child.name, spec, scale(child, children)));
        }
        match child.kind {
            Kind::PersistentVolumeClaim => footprint.volumes.push(volume(&child.name, spec, 1)),
            Kind::StatefulSet => {
                let replicas = spec["replicas"].as_i64().unwrap_or(1);
                let templates = items(&spec["volumeClaimTemplates"]).iter();
                footprint.volumes.extend(templates.map(|template| volume(&child.name, &template["spec"], replicas)));
            }
            Kind::PostgresCluster => postgres_cluster(&child.name, spec, &mut footprint),
            _ => {}
        }
    }
    footprint
}

/// What Crunchy's operator makes of a PostgresCluster, as far as its spec says so: pods of instances, of its pooler and of
/// the backup repository, and their volumes. What the spec does not size is counted as nothing.
fn postgres_cluster(name: &str, spec: &Value, footprint: &mut Footprint) {
    let part =
        |container: &str, resources: &Value| ContainerLoad { name: container.to_owned(), ..container_load(resources) };
    let group = |what: &str, count: i64, surge: i64, containers: Vec<ContainerLoad>| PodGroup {
        workload: format!("PostgresCluster {name} ({what})"),
        fewest: count,
        most: count,
        surge,
        stateless: surge > 0,
        task: false,
        containers,
    };
    let backups = &spec["backups"]["pgbackrest"];
    for instance in items(&spec["instances"]) {
        let replicas = instance["replicas"].as_i64().unwrap_or(1);
        let set = instance["name"].as_str().unwrap_or_default();
        let copy = &instance["sidecars"]["replicaCertCopy"]["resources"];
        let mut containers = vec![part("database", &instance["resources"]), part("replication-cert-copy", copy)];
        if backups.is_object() {
            containers.push(part("pgbackrest", &backups["sidecars"]["pgbackrest"]["resources"]));
            containers.push(part("pgbackrest-config", &backups["sidecars"]["pgbackrestConfig"]["resources"]));
        }
        let exporter = &spec["monitoring"]["pgmonitor"]["exporter"];
        if exporter.is_object() {
            containers.push(part("exporter", &exporter["resources"]));
        }
        footprint.pods.push(group(&format!("instances {set}"), replicas, 0, containers));
        for claim in ["dataVolumeClaimSpec", "walVolumeClaimSpec"].iter().filter_map(|claim| instance.get(*claim)) {
            footprint.volumes.push(volume(&format!("{name} ({set})"), claim, replicas));
        }
    }
    let pooler = &spec["proxy"]["pgBouncer"];
    if pooler.is_object() {
        let configuration = &pooler["sidecars"]["pgbouncerConfig"]["resources"];
        let containers = vec![part("pgbouncer", &pooler["resources"]), part("pgbouncer-config", configuration)];
        footprint.pods.push(group("pgbouncer", pooler["replicas"].as_i64().unwrap_or(1), 1, containers));
    }
    let repositories = items(&backups["repos"]).iter().filter(|repository| repository["volume"].is_object());
    for repository in repositories.clone() {
        let what = format!("{name} ({})", repository["name"].as_str().unwrap_or_default());
        footprint.volumes.push(Volume { backup: true, ..volume(&what, &repository["volume"]["volumeClaimSpec"], 1) });
    }
    if repositories.count() > 0 {
        let containers = vec![part("pgbackrest", &backups["repoHost"]["resources"])];
        footprint.pods.push(group("repository", 1, 0, containers));
    }
}

/// What the objects in `inventory` have now: pods that exist, and volumes.
pub fn present(inventory: &Inventory, quota: String) -> Present {
    let mut footprint = Footprint::default();
    let mut claims = std::collections::BTreeMap::new();
    for (kind, name, live) in inventory.iter() {
        let (spec, status) = (&live["spec"], &live["status"]);
        if spec["template"]["spec"]["containers"].is_array() {
            let count = if kind == Kind::Job { &status["active"] } else { &status["replicas"] };
            let count = count.as_i64().unwrap_or(0);
            footprint.pods.push(PodGroup { surge: 0, ..pods(kind, name, spec, (count, count)) });
        }
        if kind == Kind::PersistentVolumeClaim {
            let volume = volume(name, spec, 1);
            claims.insert(name.to_owned(), (volume.size, volume.class.clone()));
            footprint.volumes.push(volume);
        }
    }
    Present { usage: footprint.full(), claims, quota }
}

/// Whether a workload of the stack exists: then it is not held back any more.
pub fn runs(inventory: &Inventory) -> bool {
    let workload = |kind| matches!(kind, Kind::Deployment | Kind::StatefulSet);
    inventory.iter().any(|(kind, _, _)| workload(kind))
}

/// Fewest and most pods: the autoscaler's bounds where there is one.
fn scale(child: &Child, all: &[&Child]) -> (i64, i64) {
    let scaler = all.iter().find(|other| {
        let target = &other.value["spec"]["scaleTargetRef"];
        other.kind == Kind::HorizontalPodAutoscaler
            && target["kind"] == child.kind.name()
            && target["name"] == child.name.as_str()
    });
    if let Some(scaler) = scaler {
        let spec = &scaler.value["spec"];
        return (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(1));
    }
    let replicas = child.value["spec"]["replicas"].as_i64().unwrap_or(1);
    (replicas, replicas)
}

fn pods(kind: Kind, name: &str, spec: &Value, (fewest, most): (i64, i64)) -> PodGroup {
    let template = &spec["template"];
    let component = template["metadata"]["labels"][COMPONENT_KEY].as_str().unwrap_or_default();
    let stateless = [Component::Api, Component::PgBouncer].iter().any(|known| known.as_str() == component);
    PodGroup {
        workload: format!("{} {name}", kind.name()),
        fewest,
        most,
        surge: spec["strategy"]["rollingUpdate"]["maxSurge"].as_i64().unwrap_or(0),
        stateless,
        task: kind == Kind::Job,
        containers: items(&template["spec"]["containers"]).iter().map(container).collect(),
    }
}

fn container(container: &Value) -> ContainerLoad {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    ContainerLoad { name, ..container_load(&container["resources"]) }
}

fn container_load(resources: &Value) -> ContainerLoad {
    let amount = |part: &str| {
        let list = &resources[part];
        Amount {
            cpu: list["cpu"].as_str().and_then(|text| Cpu::parse(text).ok()).unwrap_or(Cpu(0)),
            memory: list["memory"].as_str().and_then(|text| Bytes::parse(text).ok()).unwrap_or(Bytes(0)),
        }
    };
    ContainerLoad { name: String::new(), requests: amount("requests"), limits: amount("limits") }
}

fn volume(name: &str, spec: &Value, count: i64) -> Volume {
    let size = spec["resources"]["requests"]["storage"].as_str().and_then(|text| Bytes::parse(text).ok());
    Volume {
        name: name.to_owned(),
        count,
        size: size.unwrap_or(Bytes(0)),
        class: spec["storageClassName"].as_str().map(str::to_owned),
        backup: false,
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apply::ssa::Lifecycle;

    fn child(kind: Kind, value: Value) -> Child {
        Child { kind, name: "a".to_owned(), lifecycle: Lifecycle::Applied, value }
    }

    #[test]
    fn the_autoscaler_the_surge_and_every_container_count() {
        let container = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}, "limits": {"cpu": "1"}}});
        let template = json!({"metadata": {"labels": {(COMPONENT_KEY): "api"}}, "spec": {"containers": [container("100m"), container("50m")]}});
        let objects = [
            child(
                Kind::Deployment,
                json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}, "template": template}}),
            ),
            child(
                Kind::HorizontalPodAutoscaler,
                json!({"spec": {"minReplicas": 2, "maxReplicas": 4, "scaleTargetRef": {"kind": "Deployment", "name": "a"}}}),
            ),
            child(Kind::PersistentVolumeClaim, json!({"spec": {"resources": {"requests": {"storage": "5Gi"}}}})),
        ];
        let footprint = of(&objects.iter().collect::<Vec<_>>());
        let (start, full) = (footprint.start(), footprint.full());
        assert_eq!((start.pods, full.pods), (3, 5));
        assert_eq!(full.requests.cpu, Cpu(750));
        assert_eq!((full.limits.cpu, full.limits.memory), (Cpu(10_000), Bytes(0)));
        assert_eq!((full.claims, full.storage), (1, Bytes::parse("5Gi").unwrap()));
        assert!(footprint.pods[0].stateless);
    }

    #[test]
    fn a_postgres_cluster_counts_with_its_instances_pooler_and_repository() {
        let resources =
            |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "1Gi"}, "limits": {"cpu": cpu, "memory": "1Gi"}});
        let claim = |size: &str| json!({"resources": {"requests": {"storage": size}}});
        let value = json!({"spec": {
            "instances": [{"name": "instance", "replicas": 3, "resources": resources("2"), "dataVolumeClaimSpec": claim("100Gi")}],
            "proxy": {"pgBouncer": {"replicas": 2, "resources": resources("100m")}},
            "backups": {"pgbackrest": {"repos": [{"name": "repo1", "volume": {"volumeClaimSpec": claim("100Gi")}}]}}}});
        let cluster = child(Kind::PostgresCluster, value);
        let footprint = of(&[&cluster]);
        let full = footprint.full();
        assert_eq!((full.pods, full.claims), (3 + 2 + 1 + 1, 4));
        assert_eq!(full.requests.cpu, Cpu(6300));
        assert_eq!(full.storage, Bytes::parse("400Gi").unwrap());
        assert_eq!(footprint.volumes.iter().filter(|volume| volume.backup).count(), 1);
        // PGO's own helpers name no resources.
        assert!(crate::controllers::persesstack::feasible::silent(&footprint, "limits.cpu").is_some());
    }
}
