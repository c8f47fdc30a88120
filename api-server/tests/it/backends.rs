//! Real stores to run tests on.

use std::path::PathBuf;
use std::sync::Arc;

use e2e::services::{PgBouncer, PoolSettings, Postgres, USER, shared};
use perses_api_server::config::{self, FileDatabase, FileExtension};
use perses_api_server::domain::document::{Document, Draft, Key, Origin};
use perses_api_server::domain::kind::Kind;
use perses_api_server::store::file::FileStore;
use perses_api_server::store::postgres::{self, PostgresStore};
use perses_api_server::store::{Store, StoreError};
use serde_json::value::RawValue;
use tempfile::TempDir;

/// A store under test, and what it stands on.
#[derive(Debug)]
pub struct Backend {
    pub name: &'static str,
    pub store: Arc<dyn Store>,
    _folder: Option<TempDir>,
    _pooler: Option<PgBouncer>,
}

/// Every kind of store, each empty: files in both forms; PostgreSQL directly, behind PgBouncer in transaction mode, and
/// behind one that loses prepared statements.
pub async fn all() -> Vec<Backend> {
    let mut backends = Vec::new();
    for (name, extension) in [("json files", FileExtension::Json), ("yaml files", FileExtension::Yaml)] {
        let folder = tempfile::tempdir().unwrap();
        let store = open_files(folder.path().join("db"), extension).unwrap();
        backends.push(Backend { name, store: Arc::new(store), _folder: Some(folder), _pooler: None });
    }
    let server = shared::postgres().await.unwrap();
    let direct = migrated(server).await;
    let pooled = config::Postgres { port: shared::pgbouncer().await.unwrap().port(), ..migrated(server).await };
    let forgetful = PoolSettings { max_prepared_statements: 0, default_pool_size: 5, ..PoolSettings::default() };
    let forgetful = PgBouncer::start(server, forgetful).await.unwrap();
    let unprepared = config::Postgres { port: forgetful.port(), statement_cache: 0, ..migrated(server).await };
    for (name, config, pooler) in [
        ("PostgreSQL", direct, None),
        ("PgBouncer", pooled, None),
        ("PgBouncer without prepared statements", unprepared, Some(forgetful)),
    ] {
        backends.push(Backend {
            name,
            store: Arc::new(PostgresStore::new(&config).unwrap()),
            _folder: None,
            _pooler: pooler,
        });
    }
    backends
}

pub fn open_files(folder: PathBuf, extension: FileExtension) -> Result<FileStore, StoreError> {
    FileStore::open(&FileDatabase { folder, extension, case_sensitive: false })
}

/// The configuration of a new, empty database.
pub async fn empty_database(server: &Postgres) -> config::Postgres {
    let database = server.create_database().await.unwrap();
    config::Postgres {
        host: server.host().to_owned(),
        port: server.port(),
        dbname: database.name,
        user: Some(USER.to_owned()),
        password: Some(server.password().into()),
        ..config::Postgres::default()
    }
}

/// The configuration of a new database with the schema.
pub async fn migrated(server: &Postgres) -> config::Postgres {
    let config = empty_database(server).await;
    postgres::migrate(&config).await.unwrap();
    config
}

pub fn project(name: &str) -> Key {
    Key::global(Kind::Project, name)
}

pub fn dashboard(project: &str, name: &str) -> Key {
    Key::in_project(Kind::Dashboard, project, name)
}

pub fn draft(key: &Key, spec: &str) -> Draft {
    Draft {
        key: key.clone(),
        tags: Vec::new(),
        spec: RawValue::from_string(spec.to_owned()).unwrap(),
        origin: Origin::Api,
    }
}

pub async fn create(store: &dyn Store, key: &Key, spec: &str) -> Document {
    store.create(draft(key, spec)).await.unwrap_or_else(|error| panic!("create {key:?}: {error}"))
}
