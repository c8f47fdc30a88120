//! Search for dashboards: the store finds, this ranks.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::domain::search::{self, Match};
use crate::error::ApiError;
use crate::store::{SearchQuery, Store, Titled};

/// What is ranked, at most.
const CANDIDATES: u32 = 500;
/// What is answered, at most.
const RESULTS: usize = 100;

/// Finds dashboards whose names fit the query, best first, as one JSON array of
/// `{metadata, displayName, original, intervals, score}` (Perses after v0.54). `projects` are those that may be seen; all
/// when `None`. An empty query finds nothing.
pub async fn dashboards(
    store: &Arc<dyn Store>,
    query: &str,
    projects: Option<Vec<String>>,
) -> Result<String, ApiError> {
    let words = search::words(query);
    let query = SearchQuery { words, projects, limit: CANDIDATES };
    if query.words.is_empty() || query.projects.as_ref().is_some_and(Vec::is_empty) {
        return Ok("[]\n".to_owned());
    }
    let mut found: Vec<(Match, Titled)> = store
        .search(&query)
        .await?
        .into_iter()
        .filter_map(|one| {
            let fit = search::best(&query.words, &one.document.key.name, one.display_name.as_deref())?;
            Some((fit, one))
        })
        .collect();
    found.sort_by(|(fit, one), (other_fit, other)| {
        other_fit.score.total_cmp(&fit.score).then_with(|| one.document.key.cmp(&other.document.key))
    });
    found.truncate(RESULTS);
    let mut out = String::from("[");
    for (fit, Titled { document, display_name }) in &found {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str("{\"metadata\":");
        document.write_metadata(&mut out);
        let title = display_name.as_deref().filter(|title| !title.is_empty()).unwrap_or(&document.key.name);
        let rest = serde_json::to_string(fit).map_err(|error| ApiError::Internal(error.to_string()))?;
        let _ = write!(out, ",\"displayName\":{},{}", serde_json::Value::from(title), rest.trim_start_matches('{'));
    }
    out.push_str("]\n");
    Ok(out)
}
