//! `persesstack.io/v1alpha1`.
//!
//! A field is in the schema only when the operator acts on it. Unions are tagged: `type` names the member that may be set.

#[allow(unreachable_pub, reason = "`KubeSchema` makes a public helper type beside each type")]
mod auth;
#[allow(unreachable_pub, reason = "`KubeSchema` makes a public helper type beside each type")]
mod crunchy;
#[allow(unreachable_pub, reason = "`KubeSchema` makes a public helper type beside each type")]
mod database;
#[allow(unreachable_pub, reason = "`KubeSchema` makes a public helper type beside each type")]
mod datasource;
#[allow(unreachable_pub, reason = "`KubeSchema` makes a public helper type beside each type")]
mod exposure;
mod limits;
#[allow(unreachable_pub, reason = "`KubeSchema` makes a public helper type beside each type")]
mod monitoring;
#[allow(unreachable_pub, reason = "`KubeSchema` makes a public helper type beside each type")]
mod pods;
mod quantity;
mod schema;
#[allow(unreachable_pub, reason = "`KubeSchema` makes a public helper type beside each type")]
mod services;
#[allow(unreachable_pub, reason = "`KubeSchema` makes a public helper type beside each type")]
mod spec;
mod status;

pub use auth::{
    Auth, KubernetesAuth, NativeAuth, OauthAuth, OidcAuth, OpenShiftAuth, Permission, ProviderClient, RoleMapping,
};
pub use crunchy::{BackupType, Backups, Crunchy, Exporter, GrowingStorage, S3, Schedules};
pub use database::{
    Database, DatabaseKeys, DatabaseType, DeletionPolicy, Direct, External, SecretKey, SslMode, Standalone, Storage,
};
pub use datasource::{
    Access, BasicAuth, BearerAuth, ClientCertificate, Datasource, DatasourceAuth, DatasourceTls, DatasourceType,
    KeyReference, PemSource,
};
pub use exposure::{Exposure, ExposureTls, ExposureType, Gateway, HttpRoute, Ingress};
pub use limits::{LimitMode, Limits, NetworkPolicyMode, QueryLimits, QuotaMode, RateLimits};
pub use monitoring::{Monitoring, Switch};
pub use pods::{Autoscaling, PodMetric, ServingTls, ServingTlsType, Spread};
pub use quantity::Quantity;
pub use services::{
    Cache, CacheType, ExternalRedis, PgBouncer, Pooler, PoolerTls, PoolerType, Redis, RedisAuth, RedisMode, RedisTls,
    Sentinel,
};
pub use spec::{
    Api, Images, LocalReference, PersesStack, PersesStackSpec, PullPolicy, ResourceList, Resources, SizingModel,
    SizingSpec, Workload,
};
pub use status::{
    ApiStatus, AuthStatus, DatabaseStatus, DerivationStatus, EndpointsStatus, ExposureStatus, PersesStackStatus,
    SecretsStatus, SizingStatus, SuspensionStatus,
};
