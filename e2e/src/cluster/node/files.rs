//! Certificates, kubeconfigs and configuration files of the node's programs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::network::Network;
use super::privileges;
use crate::cluster::components::{self, Layout};
use crate::cluster::kubeconfig;
use crate::cluster::pki::{Authority, write_private};

/// The node's name.
pub(super) const NODE: &str = "node1";
/// The API server's port at the node's address.
pub(super) const API_PORT: u16 = 6443;
const ETCD: &str = "http://127.0.0.1:2379";

/// Writes everything that the programs read, once in the life of a cluster.
pub(super) fn write(folder: &Path, cluster: &str, network: Network, cgroup_root: &str) -> Result<()> {
    let authority = Authority::new(&format!("perses-stack-{cluster}"))?;
    let (node, service) = (network.node_address(), network.api_service());
    let names =
        ["localhost", "127.0.0.1", &node, &service, "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    components::write_files(folder, &authority, &names)?;
    let pki = folder.join("pki");
    authority.server(&format!("system:node:{NODE}"), &[NODE, &node])?.write(&pki, "kubelet")?;
    authority.server("metrics-server", &["metrics-server.kube-system.svc"])?.write(&pki, "metrics-server")?;

    let server = format!("https://{node}:{API_PORT}");
    let kubelet = format!("system:node:{NODE}");
    for (file, user, group) in [
        ("kubeconfig", "admin", Some("system:masters")),
        ("controller-manager.kubeconfig", "system:kube-controller-manager", None),
        ("scheduler.kubeconfig", "system:kube-scheduler", None),
        ("kube-proxy.kubeconfig", "system:kube-proxy", None),
        ("kubelet.kubeconfig", kubelet.as_str(), Some("system:nodes")),
        // The provisioner makes volumes and watches claims; it is part of the cluster, as the controllers are.
        ("provisioner.kubeconfig", "perses-stack:provisioner", Some("system:masters")),
    ] {
        let pair = authority.client(user, group)?;
        let text = kubeconfig::text(cluster, &server, &authority.cert(), user, &pair);
        write_private(&folder.join(file), &text)?;
    }
    write_json(&folder.join("kubelet.json"), &kubelet_configuration(folder, network, cgroup_root))?;
    write_json(&folder.join("kube-proxy.json"), &proxy_configuration(folder, network))?;
    let cni = folder.join("cni");
    std::fs::create_dir_all(&cni)?;
    write_json(&cni.join("10-bridge.conflist"), &cni_configuration(folder, cluster, network))?;
    std::fs::write(folder.join("containerd.toml"), containerd_configuration(folder)?).context("writing containerd.toml")
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    std::fs::write(path, format!("{value:#}\n")).with_context(|| format!("writing {}", path.display()))
}

fn layout(folder: &Path, network: Network) -> Layout {
    Layout {
        folder: folder.to_owned(),
        etcd: ETCD.into(),
        bind: "0.0.0.0".into(),
        advertise: network.node_address(),
        publish: true,
        port: API_PORT,
        services: network.services(),
        pods: network.pods(),
    }
}

/// A program of the node and its arguments.
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) file: PathBuf,
    pub(super) arguments: Vec<String>,
}

/// Everything that runs on the node, in the order in which it starts. `tools` is the folder of the built programs.
pub(super) fn programs(folder: &Path, tools: &Path, network: Network) -> Vec<Program> {
    let layout = layout(folder, network);
    let text = |name: &str| folder.join(name).display().to_string();
    let controlplane = tools.join("controlplane");
    let node = tools.join("node");
    let scheduler = text("scheduler.kubeconfig");
    let program = |name, file: &Path, arguments: Vec<String>| Program { name, file: file.to_owned(), arguments };
    vec![
        program("etcd", Path::new("etcd"), components::etcd(&folder.join("etcd"), ETCD, "http://127.0.0.1:2380")),
        program("containerd", Path::new("containerd"), vec![format!("--config={}", text("containerd.toml"))]),
        program("kube-apiserver", &controlplane, components::apiserver(&layout)),
        program(
            "kube-controller-manager",
            &controlplane,
            components::controller_manager(&layout, &folder.join("controller-manager.kubeconfig")),
        ),
        program(
            "kube-scheduler",
            &controlplane,
            vec![
                "kube-scheduler".into(),
                format!("--kubeconfig={scheduler}"),
                format!("--authentication-kubeconfig={scheduler}"),
                format!("--authorization-kubeconfig={scheduler}"),
                "--leader-elect=false".into(),
                "--secure-port=0".into(),
            ],
        ),
        program(
            "kubelet",
            &node,
            vec![
                "kubelet".into(),
                format!("--config={}", text("kubelet.json")),
                format!("--kubeconfig={}", text("kubelet.kubeconfig")),
                format!("--root-dir={}", text("kubelet")),
                format!("--hostname-override={NODE}"),
                format!("--node-ip={}", network.node_address()),
            ],
        ),
        program("kube-proxy", &node, vec!["kube-proxy".into(), format!("--config={}", text("kube-proxy.json"))]),
        program(
            "provisioner",
            &node,
            vec![
                "provisioner".into(),
                format!("--kubeconfig={}", text("provisioner.kubeconfig")),
                format!("--directory={}", text("volumes")),
                format!("--node={NODE}"),
            ],
        ),
    ]
}

/// Must be there before the kubelet: it is started when kube-apiserver is ready.
pub(super) const BEFORE_API: [&str; 3] = ["etcd", "containerd", "kube-apiserver"];

fn kubelet_configuration(folder: &Path, network: Network, cgroup_root: &str) -> Value {
    let pki = folder.join("pki");
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup_root,
        // Version 1 of control groups is still what many containers offer.
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki.join("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.join("kubelet.crt"),
        "tlsPrivateKeyFile": pki.join("kubelet.key"),
        "clusterDNS": [network.dns()],
        "clusterDomain": "cluster.local",
        // Pods ask the cluster's DNS and nobody else.
        "resolvConf": "",
        "containerRuntimeEndpoint": format!("unix://{}", folder.join("containerd.sock").display()),
        "podLogsDir": folder.join("pod-logs"),
        "volumePluginDir": folder.join("volume-plugins"),
        "serializeImagePulls": false,
        // Images come from archives: one that is removed does not come back by itself.
        "imageGCHighThresholdPercent": 100,
        "imageMaximumGCAge": "0s",
        // Not by memory: the kubelet counts the page cache of the whole machine as used, so after a large build it would taint
        // the node.
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
        "nodeStatusUpdateFrequency": "5s",
        "registerNode": true,
        "maxPods": 110,
    })
}

fn proxy_configuration(folder: &Path, network: Network) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": network.node_address(),
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "hostnameOverride": NODE,
        "clusterCIDR": network.pods(),
        "clientConnection": {"kubeconfig": folder.join("kube-proxy.kubeconfig")},
        // The limits are the machine's, not the namespace's: leave them alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

/// The name also marks libcni's cached results, so that `down` can find them.
pub(super) fn cni_network(cluster: &str) -> String {
    format!("pstack-{cluster}")
}

fn cni_configuration(folder: &Path, cluster: &str, network: Network) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": cni_network(cluster),
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": folder.join("ipam"),
                    "ranges": [[{"subnet": network.pods()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn containerd_configuration(folder: &Path) -> Result<String> {
    let cni = privileges::cni_folder().context("the CNI plugins are missing")?.display();
    let folder = folder.display();
    let pause = super::PAUSE;
    Ok(format!(
        r#"version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]

[grpc]
address = "{folder}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
# Without CAP_SYS_RESOURCE nobody may lower an OOM score, and every pod would fail.
restrict_oom_score_adj = true
sandbox_image = "{pause}"
# Pods' network namespaces live and end with the cluster's folder.
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni}"
conf_dir = "{folder}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{folder}/containerd/runc"
"#
    ))
}
