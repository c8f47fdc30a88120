//! The operator among others: what they put on its objects stays, and one bad stack is nobody else's trouble.

use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::conditions::{find, is_true};
use serde_json::{Value, json};

use crate::cluster::{DEADLINE, Operator, REPAIR, Space, World, within};
use crate::lifecycle::quiet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_put_on_our_objects_stays() {
    const TRACKING: &str = "argocd.argoproj.io/tracking-id";
    const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";
    let space = Space::new("others").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    space.settled().await;

    // `kubectl rollout restart`: a strategic merge patch.
    let restart = Patch::Strategic(json!({"spec": {"template": {"metadata": {"annotations": {(RESTARTED): "now"}}}}}));
    let kubectl = PatchParams { field_manager: Some("kubectl-rollout".to_owned()), ..PatchParams::default() };
    let workloads = [
        (Kind::Deployment, "perses-api"),
        (Kind::Deployment, "perses-pgbouncer"),
        (Kind::Deployment, "perses-redis"),
        (Kind::StatefulSet, "perses-db"),
    ];
    for (kind, name) in workloads {
        space.api(kind).patch(name, &kubectl, &restart).await.unwrap();
    }
    // Argo CD: server-side apply of its tracking annotation and label.
    let tracked = [(Kind::Service, "perses-api"), (Kind::ConfigMap, "perses-db")].into_iter().chain(workloads);
    let tracked: Vec<_> = tracked.collect();
    for (kind, name) in &tracked {
        let resource = kind.resource();
        let metadata =
            json!({"name": name, "annotations": {(TRACKING): "a"}, "labels": {"argocd.argoproj.io/instance": "a"}});
        let body = json!({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata});
        let params = PatchParams::apply("argocd-controller");
        space.api(*kind).patch(name, &params, &Patch::Apply(&body)).await.unwrap();
    }
    space.settled().await;
    // The vertical autoscaler changes pods, which are the ReplicaSet's and not ours.
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), &space.namespace);
    let selector = ListParams::default().labels("app.kubernetes.io/component=redis");
    let pod = within("the restarted pod of Redis", DEADLINE, async || {
        let found = pods.list(&selector).await.unwrap().items;
        let alive = found.iter().find(|pod| pod.metadata.deletion_timestamp.is_none())?;
        Some(alive.name_any())
    })
    .await;
    space.settled().await;
    let note = Patch::Merge(json!({"metadata": {"annotations": {"vpaUpdates": "Pod resources updated"}}}));
    pods.patch(&pod, &PatchParams::default(), &note).await.unwrap();
    let before = operator.faults.count();
    quiet(&space, &operator).await;
    assert_eq!(operator.faults.count(), before);

    // A change that is applied to each of them takes nothing of it away.
    let image = json!({"images": {"apiServer": "example.com/api:2", "redis": "example.com/redis:2",
        "pgbouncer": "example.com/pgbouncer:2", "postgres": "example.com/postgres:2"}});
    space.change(&image).await;
    space.settled().await;
    for (kind, name) in workloads {
        let live = space.get(kind, name).await.unwrap();
        let template = &live["spec"]["template"];
        let image = template["spec"]["containers"][0]["image"].as_str().unwrap();
        assert!(image.starts_with("example.com/"), "{kind:?} {name} runs {image}");
        assert_eq!(template["metadata"]["annotations"][RESTARTED], "now", "{kind:?} {name}");
    }
    for (kind, name) in tracked {
        let live = space.get(kind, name).await.unwrap();
        assert_eq!(live["metadata"]["annotations"][TRACKING], "a", "{kind:?} {name}");
        assert_eq!(live["metadata"]["labels"]["argocd.argoproj.io/instance"], "a", "{kind:?} {name}");
    }
    within("the pod of the old image to be replaced", DEADLINE, async || {
        pods.get_opt(&pod).await.unwrap().is_none().then_some(())
    })
    .await;
}

/// An admission webhook that never answers, for everything of the stack `bad`: each write of it hangs, then fails.
async fn hang(space: &Space) -> ValidatingWebhookConfiguration {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            open.push(connection);
        }
    });
    let webhook = json!({
        "metadata": {"name": space.namespace},
        "webhooks": [{
            "name": "hangs.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "failurePolicy": "Fail", "timeoutSeconds": 5, "clientConfig": {"url": url},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space.namespace}},
            "objectSelector": {"matchLabels": {"app.kubernetes.io/instance": "bad"}},
            "rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE", "DELETE"],
                       "resources": ["services", "deployments", "secrets", "statefulsets", "configmaps"]}],
        }],
    });
    let webhook: ValidatingWebhookConfiguration = serde_json::from_value(webhook).unwrap();
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(space.client.clone());
    webhooks.create(&PostParams::default(), &webhook).await.unwrap();
    webhook
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_stack_delays_nobody() {
    let space = Space::new("neighbours").await;
    let webhook = hang(&space).await;
    let agent = format!("operator-of-{}", space.namespace);
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    let create = async |name: &str| {
        let stack = json!({"metadata": {"name": name}, "spec": {"users": 5, "pooler": {"type": "None"}}});
        space.stacks().create(&PostParams::default(), &serde_json::from_value(stack).unwrap()).await.unwrap();
    };
    create("bad").await;
    let log = space.plane.audit();
    let mark = log.mark().unwrap();
    let good = ["a", "b", "c", "d", "e"];
    for name in good {
        create(name).await;
    }
    let is = async |name: &str, type_: &str, reason: &str| {
        let conditions = space.stacks().get(name).await.unwrap().status.unwrap_or_default().conditions;
        find(&conditions, type_).is_some_and(|found| found.status == "True" && found.reason == reason)
    };
    within("the bad one to say what is wrong", DEADLINE, async || {
        is("bad", "Reconciling", "RequestFailed").await.then_some(())
    })
    .await;
    within("all good ones to be ready", DEADLINE, async || {
        for name in good {
            let conditions = space.stacks().get(name).await.unwrap().status.unwrap_or_default().conditions;
            if !is_true(&conditions, "Ready") {
                return None;
            }
        }
        Some(())
    })
    .await;
    assert!(!is("bad", "Ready", "PodsReady").await);
    // While the bad one hangs or waits, the others are repaired as ever.
    for name in good {
        let service = format!("{name}-api");
        let began = Instant::now();
        space.api(Kind::Service).delete(&service, &DeleteParams::default()).await.unwrap();
        within("the repair", REPAIR, async || space.get(Kind::Service, &service).await).await;
        assert!(began.elapsed() < REPAIR);
    }
    // Its pauses grow: it does not ask again and again.
    let of_bad =
        |event: &e2e::cluster::audit::Event| event.user_agent == agent && event.object_ref.name.starts_with("bad-");
    let writes = log.writes_since(mark, of_bad).unwrap();
    assert!(!writes.is_empty() && writes.len() < 60, "{} writes for the bad stack", writes.len());

    // It goes on by itself when what was wrong is gone.
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(space.client.clone());
    webhooks.delete(&webhook.name_any(), &DeleteParams::default()).await.unwrap();
    // Somebody's change of the spec is not made to wait for the end of a pause.
    let nudge = Patch::Merge(json!({"spec": {"users": 6}}));
    space.stacks().patch("bad", &PatchParams::default(), &nudge).await.unwrap();
    within("the bad one to get well", DEADLINE + Duration::from_secs(30), async || {
        let conditions = space.stacks().get("bad").await.unwrap().status.unwrap_or_default().conditions;
        is_true(&conditions, "Ready").then_some(())
    })
    .await;
    drop(operator);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_shape_of_openshift_no_pod_asks_for_a_user() {
    let space = Space::new("anyuid").await;
    // As the SCC restricted-v2 refuses ids outside the namespace's range: here every fixed one is refused.
    let fixed = |spec: &str| {
        format!(
            "!has({spec}.securityContext) || (!has({spec}.securityContext.runAsUser) && \
             !has({spec}.securityContext.runAsGroup) && !has({spec}.securityContext.fsGroup))"
        )
    };
    let containers = "object.spec.containers.all(c, !has(c.securityContext) || (!has(c.securityContext.runAsUser) && \
                      !has(c.securityContext.runAsGroup)))";
    let name = &space.namespace;
    let policy: Value = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["pods"]}]},
            "validations": [
                {"expression": fixed("object.spec"), "message": "a fixed user or group of the pod"},
                {"expression": containers, "message": "a fixed user or group of a container"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"],
                 "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}},
    });
    for object in [&policy, &binding] {
        let kind = object["kind"].as_str().unwrap();
        let gvk = kube::core::GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let resource = match kind {
            "ValidatingAdmissionPolicy" => {
                kube::core::ApiResource::from_gvk_with_plural(&gvk, "validatingadmissionpolicies")
            }
            _ => kube::core::ApiResource::from_gvk_with_plural(&gvk, "validatingadmissionpolicybindings"),
        };
        let api: Api<kube::api::DynamicObject> = Api::all_with(space.client.clone(), &resource);
        api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await.unwrap();
    }
    // The policy is in force when it refuses a pod that it must refuse.
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), name);
    let refused: Pod = serde_json::from_value(json!({"metadata": {"name": "fixed"}, "spec": {
        "securityContext": {"runAsUser": 999}, "containers": [{"name": "a", "image": "a"}]}}))
    .unwrap();
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(space.client.clone(), name);
    within("the account of the pods", DEADLINE, async || accounts.get_opt("default").await.unwrap()).await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    within("the policy", DEADLINE, async || pods.create(&dry, &refused).await.is_err().then_some(())).await;

    // Every pod template of the stack, as it is built for OpenShift and, to see that the policy bites, for elsewhere.
    let input = json!({"apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack", "metadata": {"name": "perses"},
                       "spec": {"users": 10}});
    for openshift in [true, false] {
        let apis: &[_] = if openshift { &[persesstack_operator::cli::OptionalApi::Openshift] } else { &[] };
        let capabilities = persesstack_operator::cli::OptionalApi::capabilities(apis);
        let settings = persesstack_operator::settings::Settings::default();
        let rendered = persesstack_operator::render::render(&input.to_string(), &settings, capabilities).unwrap();
        let (mut seen, mut denied) = (0, Vec::new());
        for object in rendered.iter().flat_map(|stack| {
            serde_saphyr::from_multiple::<Value>(&persesstack_operator::render::yaml(stack).unwrap()).unwrap()
        }) {
            let template = &object["spec"]["template"];
            if template["spec"]["containers"].is_null() {
                continue;
            }
            seen += 1;
            let mut pod = json!({"metadata": {"name": object["metadata"]["name"]}, "spec": template["spec"]});
            pod["spec"]["serviceAccountName"] = Value::Null;
            if let Err(error) = pods.create(&dry, &serde_json::from_value(pod).unwrap()).await {
                denied.push(format!("{} {error}", object["kind"]));
            }
        }
        assert!(seen >= 5, "{seen} templates");
        assert_eq!(denied.is_empty(), openshift, "{denied:#?}");
    }
}
