//! Writes all documents of the store to a folder in upstream's layout.

use super::{ExportOptions, read_key};
use crate::config::{Config, FileDatabase, FileExtension};
use crate::domain::kind::Kind;
use crate::domain::secret;
use crate::state;
use crate::store::file::FileStore;
use crate::store::{ListQuery, Store};

/// Exports; how many documents were written.
pub async fn export(config: &Config, options: &ExportOptions) -> Result<usize, String> {
    let from = state::open_secrets(config)?;
    let to = options.target_encryption_key_file.as_deref().map(read_key).transpose()?;
    let store = state::open_store(config).map_err(|error| error.to_string())?;
    store.ready().await.map_err(|error| error.to_string())?;
    let extension = if options.format == "json" { FileExtension::Json } else { FileExtension::Yaml };
    let folder = FileDatabase { folder: options.to.clone(), extension, case_sensitive: state::case_sensitive(config) };
    let target = tokio::task::spawn_blocking(move || FileStore::open(&folder)).await;
    let target = target.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let mut count = 0;
    // Projects come first: the rest is in them.
    for kind in Kind::ALL {
        let query = ListQuery { kind, project: None, name_prefix: None, metadata_only: false };
        let failed = |error: crate::store::StoreError| format!("{kind}: {error}");
        if !target.list(&query).await.map_err(failed)?.is_empty() {
            return Err(format!("{} holds documents already: give another folder", options.to.display()));
        }
        for mut document in store.list_primary(&query).await.map_err(failed)? {
            let place = format!("{kind} {}", document.key.path());
            if let Some(to) = &to {
                let reseal = |sealed: &str| to.encrypt(&from.decrypt(sealed)?);
                let spec = secret::reseal(kind, document.spec.raw(), reseal);
                document.spec = spec.map_err(|error| format!("{place}: {error}"))?.into();
            }
            target.put(document).await.map_err(|error| format!("{place}: {error}"))?;
            count += 1;
        }
    }
    Ok(count)
}
