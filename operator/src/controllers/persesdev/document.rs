//! PURE: the documents that a resource becomes, and what a stored document needs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::kind::DocumentKind;
use super::source::Source;

/// Ending of the name of the document with a datasource's credentials (upstream's contract).
const SECRET_SUFFIX: &str = "-secret";
/// Beginning of the tag that says whose copy a document is.
const MARK: &str = "k8s:";
/// Beginning of the tag that says which credentials a secret holds.
const SEAL: &str = "seal:";

/// Where a document is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Kind.
    pub kind: DocumentKind,
    /// Project; `None` for global kinds.
    pub project: Option<String>,
    /// Name.
    pub name: String,
}

impl Place {
    /// The place of a resource's document.
    pub fn of(source: &Source) -> Self {
        Self { kind: source.kind.document(), project: source.namespace.clone(), name: source.name.clone() }
    }

    /// The place of the document with its credentials; `None` for what has none.
    pub fn of_secret(source: &Source) -> Option<Self> {
        let name = format!("{}{SECRET_SUFFIX}", source.name);
        source.kind.secret().map(|kind| Self { kind, project: source.namespace.clone(), name })
    }

    /// The place of a project.
    pub fn of_project(name: &str) -> Self {
        Self { kind: DocumentKind::Project, project: None, name: name.to_owned() }
    }

    /// The name of the resource whose document this is: of a secret, that of its datasource.
    pub fn source_name(&self) -> &str {
        match self.kind {
            DocumentKind::Secret | DocumentKind::GlobalSecret => {
                self.name.strip_suffix(SECRET_SUFFIX).unwrap_or(&self.name)
            }
            _ => &self.name,
        }
    }

    /// Path of the collection.
    pub fn collection(&self) -> String {
        match &self.project {
            Some(project) => format!("/api/v1/projects/{project}/{}", self.kind.plural()),
            None => format!("/api/v1/{}", self.kind.plural()),
        }
    }

    /// Path of the document. Names of Kubernetes need no escape in it.
    pub fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }

    /// For people: `Dashboard shop/cpu`.
    pub fn describe(&self) -> String {
        let project = self.project.as_ref().map(|project| format!("{project}/")).unwrap_or_default();
        format!("{} {project}{}", self.kind.name(), self.name)
    }

    /// The tag that marks the copy of a resource. It is bound to the place, so that a dashboard that somebody duplicates
    /// under another name, tags included, is not taken for a copy.
    pub fn mark(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in [self.kind.name(), self.project.as_deref().unwrap_or_default(), &self.name] {
            hasher.update(part.as_bytes());
            hasher.update(&[0]);
        }
        format!("{MARK}{}", &hasher.finalize().to_hex()[..12])
    }
}

/// A document as it should be.
#[derive(Clone)]
pub struct Document {
    /// Where.
    pub place: Place,
    /// Tags without those that say what is ours.
    pub tags: BTreeSet<String>,
    /// `spec`.
    pub spec: Value,
    /// Whether a document that somebody else made is taken over.
    pub adopt: bool,
    /// For credentials: their fingerprint. They cannot be read back, so this is what is compared.
    pub fingerprint: Option<String>,
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The spec may hold credentials.
        f.debug_struct("Document").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Document {
    /// The document of a resource.
    pub fn of(source: &Source) -> Self {
        Self {
            place: Place::of(source),
            tags: source.tags.clone(),
            spec: source.config.clone(),
            adopt: source.adopt,
            fingerprint: None,
        }
    }

    /// The project of a namespace, as upstream's operator makes it.
    pub fn project(name: &str) -> Self {
        let spec = json!({"display": {"name": name}});
        Self { place: Place::of_project(name), tags: BTreeSet::new(), spec, adopt: false, fingerprint: None }
    }

    /// The request body for a document that will have this version.
    pub fn body(&self, version: u64) -> Value {
        let mut metadata = json!({"name": self.place.name, "tags": self.all_tags(version)});
        if let Some(project) = &self.place.project {
            metadata["project"] = json!(project);
        }
        json!({"kind": self.place.kind.name(), "metadata": metadata, "spec": self.spec})
    }

    /// Digest of everything that is compared.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.body(0).to_string().as_bytes());
        hasher.finalize().to_hex().to_string()
    }

    fn all_tags(&self, version: u64) -> BTreeSet<String> {
        let mut tags = self.tags.clone();
        if self.place.kind != DocumentKind::Project {
            tags.insert(self.place.mark());
        }
        if let Some(fingerprint) = &self.fingerprint {
            // With the version: a secret that somebody else wrote since keeps its tags and has a higher one.
            tags.insert(format!("{SEAL}{fingerprint}:{version}"));
        }
        tags
    }
}

/// What a stored document needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as wanted.
    Same,
    /// It is ours and differs; it will have this version.
    Update(u64),
    /// Somebody else made it.
    Foreign,
}

/// Whether a stored document carries the mark of its place.
pub fn is_marked(place: &Place, stored: &Value) -> bool {
    let mark = place.mark();
    stored["metadata"]["tags"].as_array().into_iter().flatten().any(|tag| tag.as_str() == Some(&mark))
}

/// Compares a stored document with the wanted one.
pub fn judge(wanted: &Document, stored: &Value) -> Verdict {
    let version = stored["metadata"]["version"].as_u64().unwrap_or_default();
    if !is_marked(&wanted.place, stored) {
        return if wanted.adopt { Verdict::Update(version + 1) } else { Verdict::Foreign };
    }
    let tags = stored["metadata"]["tags"].as_array().into_iter().flatten();
    let tags: BTreeSet<_> = tags.filter_map(Value::as_str).map(str::to_owned).collect();
    // Of credentials only the seal can be compared: the server never shows them.
    let same = tags == wanted.all_tags(version) && (wanted.fingerprint.is_some() || stored["spec"] == wanted.spec);
    if same { Verdict::Same } else { Verdict::Update(version + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dashboard() -> Document {
        let place = Place { kind: DocumentKind::Dashboard, project: Some("shop".to_owned()), name: "cpu".to_owned() };
        let spec = json!({"duration": "1h", "panels": {}, "layouts": []});
        Document { place, tags: ["slo".to_owned()].into(), spec, adopt: false, fingerprint: None }
    }

    fn secret(fingerprint: &str) -> Document {
        let place =
            Place { kind: DocumentKind::Secret, project: Some("shop".to_owned()), name: "prom-secret".to_owned() };
        let spec = json!({"basicAuth": {"username": "a", "password": "hidden"}});
        Document { place, tags: BTreeSet::new(), spec, adopt: false, fingerprint: Some(fingerprint.to_owned()) }
    }

    /// As the server stores a body.
    fn stored(body: Value, version: u64) -> Value {
        let mut stored = body;
        stored["metadata"]["version"] = json!(version);
        stored["metadata"]["createdAt"] = json!("2026-01-01T00:00:00Z");
        stored
    }

    #[test]
    fn paths_are_those_of_the_api() {
        let global =
            Place { kind: DocumentKind::GlobalDatasource, project: None, name: "metrics-everywhere".to_owned() };
        assert_eq!(dashboard().place.path(), "/api/v1/projects/shop/dashboards/cpu");
        assert_eq!(secret("x").place.path(), "/api/v1/projects/shop/secrets/prom-secret");
        assert_eq!(secret("x").place.source_name(), "prom");
        assert_eq!(global.path(), "/api/v1/globaldatasources/metrics-everywhere");
        assert_eq!(Place::of_project("shop").path(), "/api/v1/projects/shop");
    }

    #[test]
    fn a_written_document_needs_nothing() {
        let wanted = dashboard();
        assert_eq!(judge(&wanted, &stored(wanted.body(0), 0)), Verdict::Same);
        assert_eq!(judge(&wanted, &stored(wanted.body(5), 5)), Verdict::Same);
    }

    #[test]
    fn an_edit_of_spec_or_tags_is_a_difference() {
        let wanted = dashboard();
        let mut spec = stored(wanted.body(0), 4);
        spec["spec"]["duration"] = json!("6h");
        assert_eq!(judge(&wanted, &spec), Verdict::Update(5));
        let mut tags = stored(wanted.body(0), 4);
        tags["metadata"]["tags"] = json!([wanted.place.mark()]);
        assert_eq!(judge(&wanted, &tags), Verdict::Update(5));
    }

    #[test]
    fn what_has_no_mark_of_its_place_is_somebody_elses() {
        let wanted = dashboard();
        let mut made_in_the_ui = stored(wanted.body(0), 0);
        made_in_the_ui["metadata"]["tags"] = json!(["slo"]);
        assert_eq!(judge(&wanted, &made_in_the_ui), Verdict::Foreign);
        let adopting = Document { adopt: true, ..wanted.clone() };
        assert_eq!(judge(&adopting, &made_in_the_ui), Verdict::Update(1));
        let duplicate = Place { name: "cpu-copy".to_owned(), ..wanted.place.clone() };
        assert!(!is_marked(&duplicate, &stored(wanted.body(0), 0)), "a duplicate keeps the tags of the original");
    }

    #[test]
    fn credentials_are_compared_by_their_seal() {
        let wanted = secret("aa");
        let mut masked = stored(wanted.body(3), 3);
        masked["spec"]["basicAuth"]["password"] = json!("<secret>");
        assert_eq!(judge(&wanted, &masked), Verdict::Same);
        assert_eq!(judge(&secret("bb"), &masked), Verdict::Update(4), "rotated");
        masked["metadata"]["version"] = json!(4);
        assert_eq!(judge(&wanted, &masked), Verdict::Update(5), "somebody wrote it since");
        assert!(!format!("{wanted:?}").contains("hidden"));
    }

    #[test]
    fn tags_fit_the_limits_of_the_server() {
        for tag in secret(&"f".repeat(24)).all_tags(u64::from(u32::MAX)) {
            assert!(tag.len() <= 50, "{tag}");
        }
    }
}
