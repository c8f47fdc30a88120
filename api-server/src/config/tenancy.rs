//! `query.datasources[].tenancy`: whose data a datasource shows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Query;

/// What stands in `values` for the name of the project.
pub const PROJECT: &str = "{project}";

/// `query.datasources[].tenancy`: of the datasource everybody sees the series with these labels, and no others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tenancy {
    /// Labels that a series must have; with several all must fit.
    pub labels: Vec<TenantLabel>,
    /// Whether administrators see everything.
    #[serde(default)]
    pub free_administrators: bool,
    /// Further paths below the datasource that are let through as GET although what they answer is not limited, such as
    /// `/api/v1/metadata`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_paths: Vec<String>,
}

/// One of `labels`: the values that count are those of all its sources together. No value means no data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TenantLabel {
    /// Name of the label, such as `namespace`.
    pub label: String,
    /// Values; `{project}` in one stands for the name of the project.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Values from `metadata.tags` of the project: what follows this text in the tags that start with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<String>,
    /// Values by project.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub projects: BTreeMap<String, Vec<String>>,
    /// Values by a group of the user.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Vec<String>>,
}

impl Tenancy {
    /// Whether it depends on the projects that there are.
    pub fn asks_for_projects(&self) -> bool {
        self.labels.iter().any(|label| {
            label.tags.is_some()
                || !label.projects.is_empty()
                || label.values.iter().any(|value| value.contains(PROJECT))
        })
    }

    /// Whether it depends on what the documents of the projects say.
    pub fn asks_for_tags(&self) -> bool {
        self.labels.iter().any(|label| label.tags.is_some())
    }
}

impl Query {
    /// The groups that some datasource's tenancy names.
    pub fn tenant_groups(&self) -> impl Iterator<Item = &str> {
        let labels = self.datasources.iter().filter_map(|rule| rule.tenancy.as_ref()).flat_map(|rule| &rule.labels);
        labels.flat_map(|label| label.groups.keys().map(String::as_str))
    }
}

/// What is wrong, and what to do. A rule that says nothing would show nothing, or more than was meant.
pub(super) fn check(query: &Query) -> Result<(), String> {
    for (at, rule) in query.datasources.iter().enumerate() {
        let Some(tenancy) = &rule.tenancy else { continue };
        let place = format!("query.datasources[{at}].tenancy");
        if tenancy.labels.is_empty() {
            return Err(format!("{place}: labels is empty; leave tenancy out when all data may be seen"));
        }
        for TenantLabel { label, values, tags, projects, groups } in &tenancy.labels {
            if !is_label(label) {
                return Err(format!("{place}: {label:?} is no name of a label, such as namespace"));
            }
            if values.is_empty() && tags.is_none() && projects.is_empty() && groups.is_empty() {
                return Err(format!("{place}: label {label:?} has none of values, tags, projects, groups"));
            }
            let lists = projects.iter().chain(groups).flat_map(|(name, values)| std::iter::once(name).chain(values));
            if values.iter().chain(lists).chain(tags).any(|text| text.is_empty() || text.chars().any(char::is_control))
            {
                return Err(format!("{place}: label {label:?}: a text is empty or has control characters"));
            }
        }
        if let Some(path) = tenancy.open_paths.iter().find(|path| !path.starts_with('/') || path.contains(['?', '%'])) {
            return Err(format!("{place}: open_paths: {path:?} is no path, such as /api/v1/metadata"));
        }
    }
    Ok(())
}

/// Whether a text is a name of a label that every Prometheus knows, and not that of the metric.
fn is_label(text: &str) -> bool {
    text != "__name__"
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(tenancy: &Value) -> Result<(), String> {
        let query = json!({"datasources": [{"name": "a"}, {"name": "b", "tenancy": tenancy}]});
        check(&serde_json::from_value(query).unwrap())
    }

    #[test]
    fn rules_that_say_nothing_are_refused() {
        for (tenancy, part) in [
            (json!({"labels": []}), "datasources[1].tenancy: labels is empty"),
            (json!({"labels": [{"values": ["a"]}]}), "no name of a label"),
            (json!({"labels": [{"label": "1a", "values": ["a"]}]}), "no name of a label"),
            (json!({"labels": [{"label": "a\"", "values": ["a"]}]}), "no name of a label"),
            (json!({"labels": [{"label": "__name__", "values": ["a"]}]}), "no name of a label"),
            (json!({"labels": [{"label": "ns"}]}), "has none of"),
            (json!({"labels": [{"label": "ns", "values": [""]}]}), "empty"),
            (json!({"labels": [{"label": "ns", "tags": ""}]}), "empty"),
            (json!({"labels": [{"label": "ns", "groups": {"g\u{1f}": ["a"]}}]}), "control"),
            (json!({"labels": [{"label": "ns", "projects": {"p": [""]}}]}), "empty"),
            (json!({"labels": [{"label": "ns", "values": ["a"]}], "open_paths": ["api"]}), "no path"),
        ] {
            let error = checked(&tenancy).unwrap_err();
            assert!(error.contains(part), "{tenancy}: {error}");
        }
        let good = json!({"labels": [{"label": "ns", "values": ["{project}"], "tags": "ns:", "groups": {"g": ["a"]}}]});
        assert_eq!(checked(&good), Ok(()));
    }
}
