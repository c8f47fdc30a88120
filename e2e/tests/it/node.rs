//! A cluster that runs pods: what it promises to workloads, that it heals, and that nothing of it stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::{Cluster, Node, State};
use e2e::images::{Config, Files, Image, write_archive};
use e2e::services::root;
use e2e::wait::{wait_for, wait_until};

const NAME: &str = "it-node";
const IMAGE: &str = "localhost/perses-stack/it-shell:dev";
const PODS: Duration = Duration::from_mins(2);

/// One story, since a cluster takes its time: up, workloads, a crash, repair, down, and the same after a worse crash.
#[tokio::test(flavor = "multi_thread")]
async fn runs_workloads_heals_and_leaves_nothing() {
    let folder = tempfile::Builder::new().prefix("pstack-it-").tempdir().unwrap();
    let state = folder.path().join("state");
    let node = Node::new(NAME, Some(state.clone())).unwrap();
    let before = Traces::take(&state);
    let result = story(&node, folder.path()).await;
    let cleaned = node.down();
    let belongings = result.unwrap();
    cleaned.unwrap();
    assert_eq!(Traces::take(&state), before, "traces are left");
    let left: Vec<_> = belongings.iter().filter(|path| path.symlink_metadata().is_ok()).collect();
    assert!(left.is_empty(), "{left:?} are left");
    assert!(!state.exists());
    assert_eq!(node.state().await.unwrap(), State::Absent);
    // Nothing to do, and no error.
    node.down().unwrap();
}

/// Returns the files outside its folder that belong to the cluster when it is killed.
async fn story(node: &Node, folder: &Path) -> Result<Vec<PathBuf>> {
    node.up().await?;
    ensure!(node.state().await? == State::Up);
    let started = std::time::Instant::now();
    node.up().await?;
    ensure!(started.elapsed() < Duration::from_secs(2), "a second `up` took {:?}", started.elapsed());

    let archive = folder.join("it-shell.tar");
    shell_image(&archive)?;
    node.load_image(&archive)?;
    let cluster = Cluster::local(Node::new(NAME, Some(node.folder().to_owned()))?).await?;
    cluster.with_temp_namespace("it", async |namespace| workloads(&cluster, &namespace).await).await?;

    // Programs that die are started again, and what was stored is there.
    let kubectl = cluster.kubectl();
    kubectl.run(&["create", "configmap", "kept"]).await?;
    kill(node, "kube-apiserver").await?;
    kill(node, "containerd").await?;
    wait_until("the crash to be seen", Duration::from_secs(10), || async { Ok(node.state().await? == State::Broken) })
        .await?;
    node.up().await?;
    kubectl.run(&["get", "configmap", "kept"]).await?;

    let belongings = belongings(node)?;
    ensure!(belongings.len() >= 7, "an interface, and for each of two pods three files: {belongings:?}");
    // And then everything that could clean up after itself is gone before `down` is called.
    for program in ["kubelet", "containerd", "kube-apiserver", "etcd"] {
        kill(node, program).await?;
    }
    Ok(belongings)
}

async fn workloads(cluster: &Cluster, namespace: &str) -> Result<()> {
    let kubectl = cluster.kubectl();
    let audit = cluster.audit()?;
    let mark = audit.mark()?;
    kubectl.apply(namespace, MANIFEST).await?;
    let writes = audit.writes_since(mark, |event| event.user.username == "admin")?;
    ensure!(writes.len() == 3, "three objects were applied: {writes:?}");
    kubectl.run(&["-n", namespace, "rollout", "status", "deployment/web", "--timeout=120s"]).await?;

    let pods = kubectl.run(&["-n", namespace, "get", "pods", "-l", "app=web", "-o", "name"]).await?;
    let pods: Vec<_> = pods.lines().collect();
    ensure!(pods.len() == 2, "{pods:?}");
    // The volume is one folder for both pods, writable by the image's user.
    kubectl.run(&["-n", namespace, "exec", pods[0], "--", "sh", "-c", "echo written > /data/file"]).await?;
    let read = kubectl.run(&["-n", namespace, "exec", pods[1], "--", "cat", "/data/file"]).await?;
    ensure!(read == "written\n", "{read:?}");
    let claim = kubectl.run(&["-n", namespace, "get", "pvc", "data", "-o", "jsonpath={.status.phase}"]).await?;
    ensure!(claim == "Bound", "{claim}");

    // A Service by its name, from a pod; a name outside does not exist, at once.
    let lookup = kubectl.run(&["-n", namespace, "exec", pods[0], "--", "getent", "ahostsv4", "web"]).await?;
    let address = kubectl.run(&["-n", namespace, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).await?;
    ensure!(lookup.starts_with(&address), "{lookup} is not {address}");
    let outside = std::time::Instant::now();
    ensure!(kubectl.run(&["-n", namespace, "exec", pods[0], "--", "getent", "hosts", "example.org"]).await.is_err());
    ensure!(outside.elapsed() < Duration::from_secs(5), "a name outside took {:?}", outside.elapsed());

    // The same Service from the host.
    let redis = format!("{address}:6379");
    wait_for("the Service from the host", PODS, || async { Ok(Some(tokio::net::TcpStream::connect(&redis).await?)) })
        .await?;

    wait_until("kubectl top to answer", PODS, || async {
        let top = kubectl.run(&["-n", namespace, "top", "pods", "--no-headers"]).await?;
        Ok(top.lines().count() == 2)
    })
    .await?;

    // The claim's folder goes with the claim.
    let volume = kubectl.run(&["-n", namespace, "get", "pvc", "data", "-o", "jsonpath={.spec.volumeName}"]).await?;
    let folder = cluster.node().context("a local cluster")?.folder().join("volumes").join(&volume);
    ensure!(folder.join("file").exists(), "{} is not the volume", folder.display());
    kubectl.run(&["-n", namespace, "delete", "deployment/web", "pvc/data", "--timeout=60s"]).await?;
    wait_until("the volume to go", PODS, || async { Ok(!folder.exists()) }).await
}

/// Ends one of the node's programs as a crash does, and waits until it is gone: a large process dies slowly.
async fn kill(node: &Node, program: &str) -> Result<()> {
    let id = node.program(program).with_context(|| format!("{program} does not run"))?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(id)?).context("no process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    wait_until(&format!("{program} to be gone"), Duration::from_secs(30), || async {
        Ok(node.program(program) != Some(id))
    })
    .await
}

/// The services' root as an image: it has a shell, `getent` and a server.
fn shell_image(archive: &Path) -> Result<()> {
    let layer = e2e::images::Layer::from_tar(&root::ensure_tar()?)?;
    let mut more = Files::default();
    more.folder("data", 0o777);
    let config = Config { env: vec![format!("PATH={}", root::PATH)], user: "999:999".into(), ..Config::default() };
    write_archive(&[Image { name: IMAGE.into(), config, layers: vec![layer, more.finish()?] }], archive)
}

/// What a cluster could leave on the machine under its name. Other clusters may come and go meanwhile.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    processes: BTreeSet<String>,
    mounts: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    groups: BTreeSet<String>,
    others: BTreeSet<String>,
}

impl Traces {
    fn take(state: &Path) -> Self {
        let state = state.to_str().unwrap();
        let names = |folder: &str, mine: &dyn Fn(&str) -> bool| -> BTreeSet<String> {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path().display().to_string()).filter(|path| mine(path)).collect()
        };
        let everything = |_: &str| true;
        let of_ours = |path: &str| path.contains(NAME);
        let mut groups = BTreeSet::new();
        for hierarchy in names("/sys/fs/cgroup", &everything) {
            groups.extend(names(&hierarchy, &of_ours));
        }
        let others = names("/var/lib/cni/results", &of_ours);
        let lines =
            |text: String, mine: &str| text.lines().filter(|line| line.contains(mine)).map(ToOwned::to_owned).collect();
        Self {
            processes: processes_with(state),
            mounts: lines(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), state),
            namespaces: names("/run/netns", &of_ours),
            groups,
            others,
        }
    }
}

/// What belongs to a running cluster without bearing its name: its interface (the routes go with it), the sockets of its
/// containers, cached answers for its pods, links to their logs.
fn belongings(node: &Node) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string(node.kubeconfig())?;
    let address = text.split("https://").nth(1).and_then(|rest| rest.split(':').next()).context("no address")?;
    let route = Command::new("ip").args(["-o", "route", "get", address]).output()?.stdout;
    let route = String::from_utf8(route)?;
    let interface = route.split_whitespace().skip_while(|word| *word != "dev").nth(1).context("no interface")?;
    let mut found = vec![Path::new("/sys/class/net").join(interface)];
    let tasks = node.folder().join("containerd/state/io.containerd.runtime.v2.task/k8s.io");
    for task in std::fs::read_dir(&tasks)?.flatten() {
        let id = task.file_name().to_string_lossy().into_owned();
        let socket = std::fs::read_to_string(task.path().join("address")).unwrap_or_default();
        found.extend(socket.trim().strip_prefix("unix://").map(PathBuf::from));
        for name in [format!("cni-loopback-{id}-lo"), format!("pstack-{NAME}-{id}-eth0")] {
            found.push(Path::new("/var/lib/cni/results").join(name));
        }
    }
    for link in std::fs::read_dir("/var/log/containers")?.flatten() {
        if std::fs::read_link(link.path()).is_ok_and(|target| target.starts_with(node.folder())) {
            found.push(link.path());
        }
    }
    found.retain(|path| path.symlink_metadata().is_ok());
    Ok(found)
}

fn processes_with(needle: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(needle)).collect()
}

const MANIFEST: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 6379}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: redis
          image: localhost/perses-stack/it-shell:dev
          command: [redis-server, --save, "", --bind, 0.0.0.0, --protected-mode, "no"]
          readinessProbe: {tcpSocket: {port: 6379}, periodSeconds: 1}
          resources: {requests: {cpu: 10m, memory: 20Mi}, limits: {cpu: 500m, memory: 100Mi}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"#;
