//! `frontend`: what the web UI shows. The server only passes it on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `frontend`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Frontend {
    /// No UI is served.
    pub disable: bool,
    /// Whether the UI reacts to keyboard shortcuts.
    pub enable_keyboard_shortcuts: bool,
    /// Explore page.
    pub explorer: Explorer,
    /// A text (Markdown) for the home page.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub information: String,
    /// Dashboards that the home page shows first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub important_dashboards: Vec<DashboardSelector>,
    /// The time range picker.
    pub time_range: TimeRange,
    /// A message over every page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub banner: Option<Banner>,
    /// What users see before they choose for themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_user_preferences: Option<UserPreferences>,
}

/// `frontend.explorer`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Explorer {
    /// Whether it is offered.
    pub enable: bool,
}

impl Default for Explorer {
    fn default() -> Self {
        Self { enable: true }
    }
}

/// One of `frontend.important_dashboards`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DashboardSelector {
    /// Project of the dashboard.
    pub project: String,
    /// Its name.
    pub dashboard: String,
}

/// `frontend.time_range`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TimeRange {
    /// Only the listed ranges can be chosen.
    pub disable_custom: bool,
    /// No zoom buttons.
    pub disable_zoom: bool,
    /// The ranges offered, as durations.
    pub options: Vec<String>,
}

impl Default for TimeRange {
    fn default() -> Self {
        let options = ["5m", "15m", "30m", "1h", "6h", "12h", "24h", "7d", "14d"];
        Self { disable_custom: false, disable_zoom: false, options: options.map(str::to_owned).to_vec() }
    }
}

/// `frontend.banner`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Banner {
    /// Its colour.
    pub severity: Severity,
    /// Its text (Markdown).
    pub message: String,
}

/// `frontend.banner.severity`.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// To know.
    Info,
    /// To be careful.
    Warning,
    /// Something is broken.
    Error,
}

/// `frontend.default_user_preferences` (Perses after v0.54).
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UserPreferences {
    /// Time zone of charts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub timezone: String,
    /// Rows of a page of a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_per_page: Option<u32>,
    /// `light` or `dark`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub theme: String,
}
