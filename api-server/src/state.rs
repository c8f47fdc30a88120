//! What handlers share: built once at start, cheap to clone.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::audit::{self, AuditLog};
use crate::auth::address::TrustedProxies;
use crate::auth::authorize::Authorizer;
use crate::auth::crypto::SecretBox;
use crate::auth::key_files;
use crate::auth::kubernetes::Cluster;
use crate::auth::limit::SignInLimits;
use crate::auth::provider::Providers;
use crate::auth::rbac::{Rbac, Rules};
use crate::auth::seal::Sealer;
use crate::auth::token::Tokens;
use crate::cache::DocumentCache;
use crate::cache::redis::RedisTier;
use crate::cache::tail::Follower;
use crate::config::{self, Config};
use crate::metrics::Metrics;
use crate::proxy::{self, Proxy};
use crate::query::QueryService;
use crate::service::admin;
use crate::service::datasources::Datasources;
use crate::service::ephemeral;
use crate::service::limits_file::{self, LimitsFile};
use crate::service::provisioning::Provisioner;
use crate::service::resources::Resources;
use crate::service::validation::Checks;
use crate::store::file::FileStore;
use crate::store::postgres::PostgresStore;
use crate::store::{Store, StoreError};
use crate::ui::{self, Assets};

/// Version in `/api/v1/health` and `perses_build_info`; semantic, as percli demands.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Shared state; derefs to its parts.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Parts>);

/// The parts of the state.
#[derive(Debug)]
pub struct Parts {
    /// The configuration as it is in force.
    pub config: Config,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Where documents live.
    pub store: Arc<dyn Store>,
    /// Encoded documents.
    pub cache: Arc<DocumentCache>,
    /// The connection to Redis.
    pub redis: Option<Arc<RedisTier>>,
    /// Follows the changes tail; other parts subscribe to it.
    pub follower: Arc<Follower>,
    /// Reads and writes of documents.
    pub resources: Arc<Resources>,
    /// Checks of documents.
    pub checks: Arc<Checks>,
    /// The file with limits, which is followed.
    limits_file: Option<LimitsFile>,
    /// `query` as it would hold without that file.
    pub configured_queries: config::Query,
    /// Requests to datasources.
    pub proxy: Arc<Proxy>,
    /// The cache of their answers.
    pub query: QueryService,
    /// Which datasources there are.
    pub datasources: Arc<Datasources>,
    /// Encryption of secrets.
    pub secrets: Arc<SecretBox>,
    /// Who did what; nothing when it is off.
    pub audit: Option<Arc<AuditLog>>,
    /// What seals specs for the store: secrets encrypted, passwords hashed.
    pub sealer: Arc<Sealer>,
    /// Tokens of signed-in users.
    pub tokens: Arc<Tokens>,
    /// Who may do what.
    pub authorizer: Authorizer,
    /// Where else users sign in.
    pub providers: Providers,
    /// How many failed sign-ins are taken.
    pub limits: SignInLimits,
    /// Who may say which address a request comes from.
    pub trusted_proxies: TrustedProxies,
    /// The web UI and its plugins.
    pub assets: Arc<Assets>,
    /// Whether the server was told to stop.
    draining: AtomicBool,
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl AppState {
    /// Opens the store and the caches. A database that is away is no error: the server waits for it unready.
    pub fn build(config: Config, ui_dir: Option<PathBuf>) -> Result<Self, String> {
        let store = open_store(&config).map_err(|error| error.to_string())?;
        Self::with_store(config, ui_dir, store)
    }

    /// As [`Self::build`], on a store of the caller's.
    pub fn with_store(config: Config, ui_dir: Option<PathBuf>, store: Arc<dyn Store>) -> Result<Self, String> {
        let metrics = Arc::new(Metrics::new(VERSION));
        let limits_file = LimitsFile::of(&config);
        let mut config = config;
        let configured_queries = config.query.clone();
        if let Some(file) = &limits_file {
            let applied = file.read()?;
            config.validation = applied.limits.validation;
            config.security.authentication.rate_limit = applied.limits.security.authentication.rate_limit;
            config.query = applied.limits.query.over(&configured_queries);
            metrics.limits_in_force(&applied.sha256);
        }
        store.attach_metrics(metrics.clone());
        let (plugin_path, api_prefix) = (config.plugin.path.clone(), config.api_prefix.clone());
        let assets =
            Assets::new(&ui::Options { ui_dir, plugin_path, api_prefix }).map_err(|error| error.to_string())?;
        let secrets = Arc::new(open_secrets(&config)?);
        let sealer = Arc::new(Sealer::new((*secrets).clone()));
        let authentication = &config.security.authentication;
        let tokens =
            Arc::new(Tokens::new(&secrets, authentication.access_token_ttl.0, authentication.refresh_token_ttl.0));
        let providers = Providers::new(&authentication.providers, &secrets)?;
        let limits = SignInLimits::new(authentication.rate_limit);
        let trusted_proxies = TrustedProxies::parse(&config.server.trusted_proxies)?;
        let redis = match &config.cache.redis {
            Some(redis) => Some(Arc::new(RedisTier::new(redis).map_err(|error| error.to_string())?)),
            None => None,
        };
        // Half for documents, half for query results.
        // Files belong to one process: there is nobody to share documents with.
        let shared = redis.clone().filter(|_| config.database.postgres.is_some());
        let cache = Arc::new(DocumentCache::new(
            config.cache.l1_max_bytes / 2,
            config.cache.dashboard_ttl.0,
            shared,
            metrics.clone(),
        ));
        let authorizer = authorizer(&config, &store, redis.clone(), &metrics);
        let audit = AuditLog::new(&config.audit, store.clone(), metrics.clone());
        let follower = Arc::new(Follower::new(store.clone(), cache.clone()));
        let checks = Arc::new(Checks::new(&config, assets.plugin_kinds())?);
        let resources = Resources::new(
            store.clone(),
            cache.clone(),
            sealer.clone(),
            metrics.clone(),
            checks.clone(),
            case_sensitive(&config),
        );
        let resources = Arc::new(resources.with_rights(authorizer.native().cloned()));
        let query = QueryService::new(&config.query, config.cache.l1_max_bytes / 2, redis.clone(), metrics.clone());
        let parts = proxy::Parts {
            store: store.clone(),
            secrets: secrets.clone(),
            query: query.clone(),
            case_sensitive: case_sensitive(&config),
        };
        let proxy = Arc::new(Proxy::new(&config, parts));
        cache.listen(proxy.clone());
        let datasources = Arc::new(Datasources::new(&config, store.clone()));
        cache.listen(datasources.clone());
        if let Some(rbac) = authorizer.native() {
            cache.listen(rbac.clone());
        }
        Ok(Self(Arc::new(Parts {
            config,
            proxy,
            query,
            datasources,
            metrics,
            store,
            cache,
            redis,
            follower,
            resources,
            checks,
            limits_file,
            configured_queries,
            secrets,
            audit,
            sealer,
            tokens,
            providers,
            limits,
            trusted_proxies,
            authorizer,
            assets: Arc::new(assets),
            draining: AtomicBool::new(false),
        })))
    }

    /// Turns the server unready: it is about to stop.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the server is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

fn authorizer(
    config: &Config,
    store: &Arc<dyn Store>,
    redis: Option<Arc<RedisTier>>,
    metrics: &Arc<Metrics>,
) -> Authorizer {
    let kubernetes = &config.security.authorization.provider.kubernetes;
    if config.security.enable_auth && kubernetes.enable {
        let cluster = Cluster::new(kubernetes, store.clone(), metrics.clone());
        return Authorizer::Kubernetes(Arc::new(cluster.sharing(redis, config.cache.authz_ttl.0)));
    }
    if !config.native_authorization() {
        return Authorizer::Everyone;
    }
    let authorization = &config.security.authorization;
    let rules = Rules {
        guest: authorization.guest_permissions().map(Into::into).collect(),
        mappings: authorization.provider.native.role_mappings.clone(),
        case_sensitive: case_sensitive(config),
    };
    Authorizer::Native(Arc::new(Rbac::new(store.clone(), rules, metrics.clone())))
}

/// The store of the configuration.
pub(crate) fn open_store(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    match (&config.database.postgres, &config.database.file) {
        (Some(postgres), _) => Ok(Arc::new(PostgresStore::new(postgres)?)),
        (None, file) => Ok(Arc::new(FileStore::open(&file.clone().unwrap_or_default())?)),
    }
}

/// Whether names keep their letter case.
pub(crate) fn case_sensitive(config: &Config) -> bool {
    match (&config.database.postgres, &config.database.file) {
        (Some(postgres), _) => postgres.case_sensitive,
        (None, file) => file.as_ref().is_some_and(|file| file.case_sensitive),
    }
}

/// The encryption of secrets with the configured key.
pub(crate) fn open_secrets(config: &Config) -> Result<SecretBox, String> {
    key_files::open(&config.security)
}

/// Starts what runs beside requests, until the token is cancelled.
pub fn spawn_background(state: &AppState, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    let (follower, token) = (state.follower.clone(), stop.clone());
    tasks.push(tokio::spawn(async move { follower.run(token).await }));
    if let Some(rbac) = state.authorizer.native() {
        tasks.push(tokio::spawn(rbac.clone().run(stop.clone())));
    }
    tasks.push(tokio::spawn(state.query.clone().follow_flushes(stop.clone())));
    let keys = key_files::follow(state.config.security.clone(), (*state.secrets).clone(), stop.clone());
    tasks.push(tokio::spawn(keys));
    if let Some(file) = state.limits_file.clone() {
        tasks.push(tokio::spawn(limits_file::follow(file, state.clone(), stop.clone())));
    }
    if let Some(audit) = &state.audit {
        tasks.push(tokio::spawn(audit.clone().run(stop.clone())));
    }
    if let Some(config) = state.config.security.authentication.initial_admin.clone() {
        let (resources, metrics) = (state.resources.clone(), state.metrics.clone());
        let with_roles = state.authorizer.native().is_some();
        let work = admin::run(resources, metrics, config, with_roles, stop.clone());
        tasks.push(tokio::spawn(audit::as_system(state.audit.clone(), "(first user)", work)));
    }
    let config = &state.config.provisioning;
    if !config.folders.is_empty() {
        let provisioner = Provisioner::new(state.resources.clone(), state.metrics.clone(), config);
        let work = provisioner.run(stop.clone());
        tasks.push(tokio::spawn(audit::as_system(state.audit.clone(), "(provisioning)", work)));
    }
    let ephemeral = &state.config.ephemeral_dashboard;
    if ephemeral.enable {
        let interval = state.config.ephemeral_dashboards_cleanup_interval.unwrap_or(ephemeral.cleanup_interval).0;
        let holder = format!("{:016x}", rand::random::<u64>());
        let work = ephemeral::run(state.resources.clone(), interval, holder, stop.clone());
        tasks.push(tokio::spawn(audit::as_system(state.audit.clone(), "(clean-up)", work)));
    }
    tasks
}
