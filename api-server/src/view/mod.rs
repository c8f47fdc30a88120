//! What a view of a dashboard asks: from the document, the values of its variables, a time range and what is on the screen to
//! distinct queries, the same that Perses' packages would send from a browser. Pure.
//!
//! ```text
//! dashboard -> places (layout order) -> datasource (dashboard, project, global) -> step, instants -> text -> distinct queries
//! ```

pub mod dashboard;
pub mod interpolate;
pub mod line;
pub mod plan;
pub mod request;
pub mod source;
pub mod time;

/// Why a query is not asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request names a panel that the dashboard does not have.
    #[error("the dashboard has no panel {0:?}")]
    NoPanel(String),
    /// Nobody is to be asked.
    #[error("no datasource of kind {kind:?} {}", .name.as_ref().map_or_else(|| "is the default".to_owned(), |name| format!("has the name {name:?}")))]
    NoDatasource {
        /// The wanted kind.
        kind: String,
        /// The wanted name.
        name: Option<String>,
    },
    /// The value of a list whose options only the client knows.
    #[error("variable {0:?} has no value: send it in \"variables\", with all values where it stands for all")]
    NoValue(String),
    /// `query` or `minStep` of the plugin, or `scrapeInterval` of the datasource.
    #[error("{0}")]
    Spec(String),
    /// Variables make too much of it.
    #[error("with its variables put in, the texts of the view's queries are longer than {} bytes", plan::MAX_TEXT)]
    TooLong,
}
