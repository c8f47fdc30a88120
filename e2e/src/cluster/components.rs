//! Command lines of the control plane's programs, shared by the light variant and the node.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::pki::{Authority, token_keys, write_private};

/// Where the control plane's programs find each other and their files.
pub(super) struct Layout {
    /// Folder with `pki/` (written by [`write_pki`]), `audit-policy.yaml` and `audit.log`.
    pub(super) folder: PathBuf,
    /// etcd's address, `http://host:port`.
    pub(super) etcd: String,
    /// Address that kube-apiserver binds to.
    pub(super) bind: String,
    /// Address that it publishes; with [`Self::publish`] it becomes the endpoint of the Service `kubernetes`.
    pub(super) advertise: String,
    pub(super) publish: bool,
    pub(super) port: u16,
    /// Range of the Services' addresses.
    pub(super) services: String,
    /// Range of the pods' addresses.
    pub(super) pods: String,
}

/// Every request once, when it is done; reads of the health endpoints are noise.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- {level: None, nonResourceURLs: ['/livez*', '/readyz*', '/healthz*', '/version', '/openapi/*']}
- {level: Metadata}
";

pub(super) fn etcd(data: &Path, client: &str, peer: &str) -> Vec<String> {
    vec![
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--auto-compaction-retention=5m".into(),
        "--log-level=warn".into(),
    ]
}

pub(super) fn apiserver(layout: &Layout) -> Vec<String> {
    let folder = layout.folder.display();
    let pki = format!("{folder}/pki");
    let mut arguments = vec![
        "kube-apiserver".into(),
        format!("--etcd-servers={}", layout.etcd),
        format!("--bind-address={}", layout.bind),
        format!("--advertise-address={}", layout.advertise),
        format!("--secure-port={}", layout.port),
        format!("--service-cluster-ip-range={}", layout.services),
        format!("--tls-cert-file={pki}/apiserver.crt"),
        format!("--tls-private-key-file={pki}/apiserver.key"),
        format!("--client-ca-file={pki}/ca.crt"),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        // Tests give pods the user ids that OpenShift would give them. On by default from 1.36.
        "--feature-gates=MutatingAdmissionPolicy=true".into(),
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true".into(),
        "--allow-privileged=true".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={pki}/tokens.pub"),
        format!("--service-account-signing-key-file={pki}/tokens.key"),
        format!("--kubelet-certificate-authority={pki}/ca.crt"),
        format!("--kubelet-client-certificate={pki}/apiserver-kubelet.crt"),
        format!("--kubelet-client-key={pki}/apiserver-kubelet.key"),
        "--kubelet-preferred-address-types=InternalIP".into(),
        // The aggregation layer: who may speak for users, and how kube-apiserver proves that it does.
        format!("--requestheader-client-ca-file={pki}/front-proxy-ca.crt"),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        format!("--proxy-client-cert-file={pki}/front-proxy-client.crt"),
        format!("--proxy-client-key-file={pki}/front-proxy-client.key"),
        // Straight to the pods of an aggregated API, so that it does not depend on kube-proxy.
        "--enable-aggregator-routing=true".into(),
        format!("--audit-policy-file={folder}/audit-policy.yaml"),
        format!("--audit-log-path={folder}/audit.log"),
        "--audit-log-maxsize=1000".into(),
        "--profiling=false".into(),
    ];
    if !layout.publish {
        arguments.push("--endpoint-reconciler-type=none".into());
    }
    arguments
}

pub(super) fn controller_manager(layout: &Layout, kubeconfig: &Path) -> Vec<String> {
    let folder = layout.folder.display();
    let pki = format!("{folder}/pki");
    let kubeconfig = kubeconfig.display();
    vec![
        "kube-controller-manager".into(),
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".into(),
        // Nobody asks its port, and a free one would have to be found when two clusters share the loopback.
        "--secure-port=0".into(),
        "--leader-elect=false".into(),
        "--use-service-account-credentials=true".into(),
        format!("--service-account-private-key-file={pki}/tokens.key"),
        format!("--root-ca-file={pki}/ca.crt"),
        format!("--cluster-signing-cert-file={pki}/ca.crt"),
        format!("--cluster-signing-key-file={pki}/ca.key"),
        format!("--cluster-cidr={}", layout.pods),
        format!("--service-cluster-ip-range={}", layout.services),
        // The HPA looks every 15 s by default; tests and the demo wait for it.
        "--horizontal-pod-autoscaler-sync-period=5s".into(),
        "--horizontal-pod-autoscaler-initial-readiness-delay=5s".into(),
        "--horizontal-pod-autoscaler-cpu-initialization-period=30s".into(),
        // By default 20 requests a second: with tests side by side everybody would wait for the controllers' own brake.
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
        "--profiling=false".into(),
    ]
}

/// Writes the audit policy, and every certificate that the control plane needs, into `folder`. `names` are those under
/// which kube-apiserver is reached.
pub(super) fn write_files(folder: &Path, authority: &Authority, names: &[&str]) -> Result<()> {
    let pki = &folder.join("pki");
    std::fs::create_dir_all(pki).with_context(|| format!("making {}", pki.display()))?;
    std::fs::write(folder.join("audit-policy.yaml"), AUDIT_POLICY).context("writing the audit policy")?;
    authority.pair().write(pki, "ca")?;
    authority.server("kube-apiserver", names)?.write(pki, "apiserver")?;
    authority.client("kube-apiserver-kubelet-client", Some("system:masters"))?.write(pki, "apiserver-kubelet")?;
    let front_proxy = Authority::new("front-proxy-ca")?;
    write_private(&pki.join("front-proxy-ca.crt"), &front_proxy.cert())?;
    front_proxy.client("front-proxy-client", None)?.write(pki, "front-proxy-client")?;
    let (private, public) = token_keys()?;
    write_private(&pki.join("tokens.key"), &private)?;
    write_private(&pki.join("tokens.pub"), &public)
}
