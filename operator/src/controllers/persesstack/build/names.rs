//! Names of a stack's objects: a contract with people, tests and the server's configuration.

/// Names of one stack's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    stack: String,
}

impl Names {
    /// Names for the stack called `stack`.
    pub fn new(stack: impl Into<String>) -> Self {
        Self { stack: stack.into() }
    }

    /// The stack's own name.
    pub fn stack(&self) -> &str {
        &self.stack
    }

    /// Deployment, Service, HPA, PDB and ServiceAccount of the API server.
    pub fn api(&self) -> String {
        format!("{}-api", self.stack)
    }

    /// Route, HTTPRoute or Ingress: a router builds the host name from it.
    pub fn exposure(&self) -> String {
        self.stack.clone()
    }

    /// PrometheusRule with the alerts of the stack.
    pub fn rules(&self) -> String {
        format!("{}-rules", self.stack)
    }

    /// Immutable Secret with the server's configuration whose content hashes to `hash`.
    pub fn api_config(&self, hash: &str) -> String {
        format!("{}-api-config-{hash}", self.stack)
    }

    /// Secret with the certificate that OpenShift's service CA makes for the API pods.
    pub fn api_tls(&self) -> String {
        format!("{}-api-tls", self.stack)
    }

    /// Secret with datasources to provision.
    pub fn provisioning(&self) -> String {
        format!("{}-provisioning", self.stack)
    }

    /// ConfigMap into which OpenShift writes the authority of its services.
    pub fn service_ca(&self) -> String {
        format!("{}-service-ca", self.stack)
    }

    /// Binding of the API pods' account to a cluster role. No name of a namespace or stack has a colon, so no two stacks
    /// share one.
    pub fn cluster_binding(&self, namespace: &str, role: &str) -> String {
        format!("persesstack:{namespace}:{}:{role}", self.stack)
    }

    /// Secret with the encryption key; generated once.
    pub fn keys(&self) -> String {
        format!("{}-keys", self.stack)
    }

    /// Secret with the first administrator; generated once.
    pub fn admin(&self) -> String {
        format!("{}-admin", self.stack)
    }

    /// Deployment or StatefulSet, Service and PDB of Redis, and its Secret, generated once.
    pub fn redis(&self) -> String {
        format!("{}-redis", self.stack)
    }

    /// Service that names the pods of Redis with sentinels, and the Secret with which they sign in to each other, generated
    /// once.
    pub fn redis_peers(&self) -> String {
        format!("{}-redis-peers", self.stack)
    }

    /// Configuration Secret of Redis with sentinels.
    pub fn redis_config(&self) -> String {
        format!("{}-redis-config", self.stack)
    }

    /// StatefulSet, Service, ConfigMap and volume claim of the standalone database, and its Secret, generated once; or the
    /// PostgresCluster.
    pub fn database(&self) -> String {
        format!("{}-db", self.stack)
    }

    /// Secret that Crunchy's operator makes for the database's user.
    pub fn cluster_user(&self) -> String {
        format!("{}-pguser-{}", self.database(), crate::controllers::persesstack::crunchy::USER)
    }

    /// Secret that Crunchy's operator makes with the certificate of the cluster and its authority.
    pub fn cluster_certificate(&self) -> String {
        format!("{}-cluster-cert", self.database())
    }

    /// Secret with the credentials of PgBouncer's clients; generated once.
    pub fn pgbouncer_client(&self) -> String {
        format!("{}-pgbouncer-client", self.stack)
    }

    /// Secret with the certificate of PgBouncer and its authority; generated once.
    pub fn pgbouncer_tls(&self) -> String {
        format!("{}-pgbouncer-tls", self.stack)
    }

    /// Deployment, Service, PDB and configuration Secret of PgBouncer.
    pub fn pgbouncer(&self) -> String {
        format!("{}-pgbouncer", self.stack)
    }

    /// Migration Job and its configuration Secret.
    pub fn migration(&self, hash: &str) -> String {
        format!("{}-migrate-{hash}", self.stack)
    }

    /// Job of a rotation and its configuration Secret.
    pub fn rotation(&self, hash: &str) -> String {
        format!("{}-rotate-{hash}", self.stack)
    }

    /// ConfigMap with limits that the running server reads again.
    pub fn limits(&self) -> String {
        format!("{}-limits", self.stack)
    }

    /// ResourceQuota of the namespace.
    pub fn quota(&self) -> String {
        format!("{}-quota", self.stack)
    }

    /// NetworkPolicy of the migration's pods.
    pub fn migrations(&self) -> String {
        format!("{}-migrate", self.stack)
    }
}
