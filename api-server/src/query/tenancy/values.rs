//! From a rule and who asks to the matchers that hold. Pure.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::util::escape_string;

use super::Refused;
use crate::config::{PROJECT, Tenancy, TenantLabel};

/// Who asks, and for which projects.
#[derive(Debug, Clone, Default)]
pub struct Asker<'a> {
    /// The projects whose data it is about, each with its tags.
    pub projects: BTreeMap<&'a str, &'a [String]>,
    /// Groups of the caller.
    pub groups: &'a [String],
}

/// The matchers that every selector gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matchers(String);

impl Matchers {
    /// As they stand between the braces of a selector.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// A selector of everything that they let through.
    pub fn selector(&self) -> String {
        format!("{{{}}}", self.0)
    }
}

/// The matchers of a rule for who asks; without a value for each label there is nothing to see.
pub fn of(rule: &Tenancy, asker: &Asker<'_>) -> Result<Matchers, Refused> {
    let mut texts = Vec::with_capacity(rule.labels.len());
    for label in &rule.labels {
        let values = values(label, asker);
        if values.is_empty() {
            return Err(Refused::Forbidden(format!(
                "nothing of this datasource may be seen: query.datasources[].tenancy gives no value of label {:?} here; an \
                 administrator of the server can say which (its projects, tags of the project, groups of the user)",
                label.label
            )));
        }
        // One value, too, as an expression: absent() would take a label from `=`, and differ from what the tenant's own
        // Prometheus says.
        let values: Vec<String> = values.iter().map(|value| regex::escape(value)).collect();
        texts.push(format!("{}=~\"{}\"", label.label, escape_string(&values.join("|"))));
    }
    if texts.is_empty() {
        return Err(Refused::Forbidden("query.datasources[].tenancy names no label".to_owned()));
    }
    Ok(Matchers(texts.join(",")))
}

fn values(label: &TenantLabel, asker: &Asker<'_>) -> BTreeSet<String> {
    let mut values = BTreeSet::new();
    for value in &label.values {
        if value.contains(PROJECT) {
            values.extend(asker.projects.keys().map(|project| value.replace(PROJECT, project)));
        } else {
            values.insert(value.clone());
        }
    }
    for (project, tags) in &asker.projects {
        values.extend(label.projects.get(*project).into_iter().flatten().cloned());
        if let Some(start) = &label.tags {
            values.extend(tags.iter().filter_map(|tag| tag.strip_prefix(start.as_str())).map(str::to_owned));
        }
    }
    values.extend(asker.groups.iter().filter_map(|group| label.groups.get(group)).flatten().cloned());
    // A series without the label belongs to nobody.
    values.remove("");
    values
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn text(label: &Value, projects: &[(&str, &[&str])], groups: &[&str]) -> Result<String, Refused> {
        let rule: Tenancy = serde_json::from_value(json!({"labels": [label]})).unwrap();
        let owned = |texts: &[&str]| -> Vec<String> { texts.iter().map(|text| (*text).to_owned()).collect() };
        let projects: Vec<(&str, Vec<String>)> = projects.iter().map(|(name, tags)| (*name, owned(tags))).collect();
        let groups = owned(groups);
        let projects = projects.iter().map(|(name, tags)| (*name, tags.as_slice())).collect();
        of(&rule, &Asker { projects, groups: &groups }).map(|matchers| matchers.text().to_owned())
    }

    #[test]
    fn values_come_from_all_sources_together() {
        let label = json!({
            "label": "namespace", "values": ["{project}-prod", "shared"], "tags": "ns:",
            "projects": {"a": ["more"], "z": ["hidden"]}, "groups": {"sre": ["infra"], "dev": ["sandbox"]},
        });
        assert_eq!(
            text(&label, &[("a", &["ns:tagged", "ns:", "other"]), ("b", &[])], &["sre", "unknown"]).unwrap(),
            r#"namespace=~"a\\-prod|b\\-prod|infra|more|shared|tagged""#
        );
        assert_eq!(text(&label, &[], &[]).unwrap(), r#"namespace=~"shared""#);
    }

    #[test]
    fn no_value_is_nothing_and_never_all() {
        for label in [
            json!({"label": "namespace", "values": ["{project}"]}),
            json!({"label": "namespace", "tags": "ns:"}),
            json!({"label": "namespace", "projects": {"other": ["x"]}}),
            json!({"label": "namespace", "groups": {"other": ["x"]}}),
        ] {
            let refused = text(&label, &[], &["mine"]).unwrap_err();
            assert!(matches!(&refused, Refused::Forbidden(text) if text.contains("\"namespace\"")), "{refused}");
        }
        let label = json!({"label": "namespace", "tags": "ns:"});
        assert!(
            text(&label, &[("p", &["ns:"])], &[]).is_err(),
            "an empty value would be every series without the label"
        );
        let rule: Tenancy = serde_json::from_value(json!({"labels": []})).unwrap();
        assert!(of(&rule, &Asker::default()).is_err());
    }

    #[test]
    fn values_are_texts_and_no_expressions() {
        let label = json!({"label": "l", "tags": "t="});
        let text = text(&label, &[("p", &["t=.*", "t=a|b", "t=\"}\\", "t=(?i)x"])], &[]).unwrap();
        let selector = promql_parser::parser::parse(&format!("{{{text}}}")).unwrap();
        let promql_parser::parser::Expr::VectorSelector(selector) = selector else { panic!("{selector}") };
        let [matcher] = selector.matchers.matchers.as_slice() else { panic!("{selector:?}") };
        for (value, fits) in
            [(".*", true), ("a|b", true), ("\"}\\", true), ("(?i)x", true), ("", false), ("a", false), ("x", false)]
        {
            assert_eq!(matcher.is_match(value), fits, "{value}");
        }
    }
}
