//! `persesstack.io/v1alpha1`.
//!
//! A field is in the schema only when the operator acts on it. Unions are tagged: `type` names the member that may be set.

mod quantity;
mod schema;
#[allow(unreachable_pub, reason = "`KubeSchema` makes a public helper type beside each type")]
mod spec;
mod status;

pub use quantity::Quantity;
pub use spec::{
    Access, Api, BasicAuth, BearerAuth, Cache, CacheType, Database, DatabaseKeys, DatabaseType, Datasource,
    DatasourceAuth, DeletionPolicy, Direct, External, Images, LocalReference, PersesStack, PersesStackSpec, PgBouncer,
    Pooler, PoolerType, PullPolicy, Redis, ResourceList, Resources, SizingModel, SizingSpec, SslMode, Standalone,
    Storage, Workload,
};
pub use status::{
    ApiStatus, DatabaseStatus, DerivationStatus, EndpointsStatus, PersesStackStatus, SecretsStatus, SizingStatus,
};
