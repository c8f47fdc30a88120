//! Search for dashboards by name: `ILIKE`, which an index of `pg_trgm` answers where that extension could be made, and a scan
//! of the dashboards' rows where not. The statement is the same, and names nothing of the extension.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::read::{DOCUMENT_COLUMNS, document};
use crate::store::{SearchQuery, Titled};

/// Words that are looked for, at most; more say no more.
const MOST_WORDS: usize = 8;

/// A trigram index for [`find`], made by every `migrate` that may: the extension may come later than the schema. Without
/// the list of pending entries, which every search would have to read through: dashboards are sought more than written.
pub(super) const INDEX: &str = "CREATE INDEX IF NOT EXISTS resource_search ON perses.resource
    USING gin (name {schema}.gin_trgm_ops, display_name {schema}.gin_trgm_ops)
    WITH (fastupdate = off) WHERE kind = 'Dashboard'";

pub(super) async fn find(
    connection: &mut PgConnection,
    query: &SearchQuery,
    persistent: bool,
) -> Result<Vec<Titled>, sqlx::Error> {
    let words: Vec<String> = query.words.iter().take(MOST_WORDS).map(|word| format!("%{}%", escape(word))).collect();
    let sql = statement(words.len());
    let mut find = sqlx::query(AssertSqlSafe(sql))
        .persistent(persistent)
        .bind(query.projects.as_deref())
        .bind(i64::from(query.limit))
        .bind(query.words.join(" "));
    for word in words {
        find = find.bind(word);
    }
    let rows = find.fetch_all(connection).await?;
    rows.iter().map(|row| Ok(Titled { document: document(row)?, display_name: row.try_get(10)? })).collect()
}

/// Whole names first, then shorter ones: what is cut off by the limit is of the least interest.
fn statement(words: usize) -> String {
    let mut conditions = String::new();
    for number in 4..words + 4 {
        let _ = write!(conditions, " AND (name ILIKE ${number} OR display_name ILIKE ${number})");
    }
    format!(
        "SELECT {DOCUMENT_COLUMNS}, display_name FROM perses.resource
         WHERE kind = 'Dashboard' AND ($1::text[] IS NULL OR project = ANY($1)){conditions}
         ORDER BY (lower(name) = $3 OR lower(display_name) = $3) DESC NULLS LAST,
                  length(coalesce(display_name, name)), name, scope
         LIMIT $2"
    )
}

/// A word in a pattern stands for itself.
fn escape(word: &str) -> String {
    let mut escaped = String::with_capacity(word.len());
    for character in word.chars() {
        if matches!(character, '%' | '_' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
