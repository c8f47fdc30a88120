//! What the installed CRD of PostgresCluster can express (I/O): read from the API server's OpenAPI documents, which everybody
//! who is signed in may read.

use std::time::Instant;

use parking_lot::Mutex;

use super::capabilities::CapabilityCache;
use super::crunchy::CrunchySchema;
use crate::apply::kind::Kind;

/// What the CRD of PostgresCluster can express: read anew when the API server's own document of it has changed.
#[derive(Debug, Default)]
pub struct CrunchySchemaCache(Mutex<Option<Known>>);

/// An answer, when it was confirmed, and the address of the document that it is from (with a hash of its content).
#[derive(Clone, Debug)]
struct Known {
    since: Instant,
    address: String,
    schema: Option<CrunchySchema>,
}

impl CrunchySchemaCache {
    /// The schema now; `None` when it is not served. When the API server does not answer, the last answer stays.
    pub async fn get(&self, client: &kube::Client) -> Option<CrunchySchema> {
        let known = self.0.lock().clone();
        if let Some(known) = &known
            && known.since.elapsed() < CapabilityCache::TTL
        {
            return known.schema;
        }
        match Self::ask(client, known.as_ref()).await {
            Ok(found) => {
                let schema = found.as_ref().and_then(|found| found.schema);
                *self.0.lock() = found;
                schema
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the schema of PostgresCluster; the last answer stays");
                known.and_then(|known| known.schema)
            }
        }
    }

    async fn ask(client: &kube::Client, known: Option<&Known>) -> kube::Result<Option<Known>> {
        let get = async |path: &str| {
            let request = hyper::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
            client.request::<serde_json::Value>(request).await
        };
        let index = get("/openapi/v3").await?;
        let entry = &index["paths"][format!("apis/{}", Kind::PostgresCluster.resource().api_version)];
        let Some(address) = entry["serverRelativeURL"].as_str() else { return Ok(None) };
        let since = Instant::now();
        if let Some(known) = known.filter(|known| known.address == address) {
            return Ok(Some(Known { since, ..known.clone() }));
        }
        let schema = CrunchySchema::of(&get(address).await?);
        Ok(Some(Known { since, address: address.to_owned(), schema }))
    }
}
