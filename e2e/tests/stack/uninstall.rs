//! Delete the stack and apply it again: what holds data survives.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::stack::{READY_DEADLINE, base64};
use e2e::wait::wait_until;
use reqwest::Method;
use serde_json::json;

use crate::world::World;

const USER: &str = "reader";
const PASSWORD: &str = "correct horse";
/// bcrypt of [`PASSWORD`], cost 4: the least that Prometheus takes.
const HASH: &str = "$2b$04$kNP9V4ZeqdZsYbEfqoLCKOYc25RLOkaDkXFFDct/F6ri5XH88yS9S";

#[tokio::test]
async fn a_deleted_and_reapplied_stack_has_its_dashboards_and_secrets() -> Result<()> {
    let world = World::enter().await?;
    let (stack, perses) = (&world.stack, &world.perses);
    let guarded = guarded_prometheus();
    stack.kubectl.apply(&stack.namespace, &guarded).await?;
    stack.kubectl.run(&["-n", &stack.namespace, "rollout", "status", "deployment/guarded", "--timeout=120s"]).await?;
    perses.apply(&json!({"kind": "Project", "metadata": {"name": "kept"}, "spec": {}})).await?;
    for (path, body) in [
        (
            "secrets",
            json!({"kind": "Secret", "metadata": {"name": "reader", "project": "kept"},
            "spec": {"basicAuth": {"username": USER, "password": PASSWORD}}}),
        ),
        (
            "datasources",
            json!({"kind": "Datasource", "metadata": {"name": "guarded", "project": "kept"}, "spec": {"default": true,
            "plugin": {"kind": "PrometheusDatasource", "spec": {"proxy": {"kind": "HTTPProxy",
                "spec": {"url": format!("http://guarded.{}.svc:9090", stack.namespace), "secret": "reader"}}}}}}),
        ),
        (
            "dashboards",
            json!({"kind": "Dashboard", "metadata": {"name": "kept", "project": "kept"},
            "spec": {"duration": "6h", "panels": {}, "layouts": [], "future": {"field": [1, 2.50, "é"]}}}),
        ),
    ] {
        let answer = perses.send(Method::POST, &format!("/api/v1/projects/kept/{path}"), Some(&body)).await?;
        ensure!(answer.status.is_success() || answer.status == 409, "{path}: {} {:?}", answer.status, answer.body);
    }
    let query = "/proxy/projects/kept/datasources/guarded/api/v1/query?query=vector(1)";
    wait_until("the guarded Prometheus to answer through the stack", Duration::from_secs(30), || async {
        Ok(perses.get(query).await?.ok()?.json()?["status"] == "success")
    })
    .await?;
    let before = perses.get("/api/v1/projects/kept/dashboards/kept").await?.ok()?.json()?;
    let credentials = stack.secret("perses-admin").await?.data;

    stack.kubectl.run(&["-n", &stack.namespace, "delete", "persesstack", &stack.name, "--timeout=120s"]).await?;
    wait_until("the API pods to be gone", Duration::from_secs(120), || async {
        let left = stack
            .kubectl
            .run(&[
                "-n",
                &stack.namespace,
                "get",
                "pods",
                "-o",
                "name",
                "-l",
                "app.kubernetes.io/instance=perses,app.kubernetes.io/component=api",
            ])
            .await?;
        Ok(left.trim().is_empty())
    })
    .await?;
    let sample = std::fs::read_to_string(e2e::paths::workspace_dir().join("config/samples/persesstack-demo.yaml"))?;
    stack.kubectl.apply(&stack.namespace, &sample).await?;
    stack.wait_ready(READY_DEADLINE, |message| eprintln!("      {message}")).await?;

    ensure!(stack.secret("perses-admin").await?.data == credentials, "the administrator's credentials changed");
    let perses = stack.sign_in().await?;
    let after = perses.get("/api/v1/projects/kept/dashboards/kept").await?.ok()?.json()?;
    ensure!(before == after, "the dashboard changed: {before} -> {after}");
    wait_until("the datasource with the stored secret to authenticate", Duration::from_secs(30), || async {
        Ok(perses.get(&format!("{query}&nonce={}", rand::random::<u32>())).await?.ok()?.json()?["status"] == "success")
    })
    .await?;
    perses.send(Method::DELETE, "/api/v1/projects/kept", None).await?.ok()?;
    stack
        .kubectl
        .run(&["-n", &stack.namespace, "delete", "deployment/guarded", "service/guarded", "secret/guarded"])
        .await?;
    Ok(())
}

/// A Prometheus that answers nobody without user and password.
fn guarded_prometheus() -> String {
    let web = base64(format!("basic_auth_users: {{{USER}: {HASH}}}\n").as_bytes());
    let config = base64(b"global: {scrape_interval: 1h}\n");
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: guarded}}
data: {{web.yml: {web}, prometheus.yml: {config}}}
---
apiVersion: v1
kind: Service
metadata: {{name: guarded}}
spec: {{selector: {{app: guarded}}, ports: [{{port: 9090}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: guarded}}
spec:
  selector: {{matchLabels: {{app: guarded}}}}
  template:
    metadata: {{labels: {{app: guarded}}}}
    spec:
      securityContext: {{runAsNonRoot: true}}
      containers:
        - name: prometheus
          image: localhost/perses-stack/services:dev
          command: [prometheus, --config.file=/etc/guarded/prometheus.yml, --web.config.file=/etc/guarded/web.yml, --storage.tsdb.path=/data]
          readinessProbe: {{tcpSocket: {{port: 9090}}, periodSeconds: 1}}
          volumeMounts: [{{name: config, mountPath: /etc/guarded}}, {{name: data, mountPath: /data}}]
      volumes: [{{name: config, secret: {{secretName: guarded}}}}, {{name: data, emptyDir: {{}}}}]
"
    )
}
