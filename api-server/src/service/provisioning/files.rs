//! Reads provisioning folders: JSON or YAML, one resource, a list, or several YAML documents per file.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::document::Envelope;
use crate::domain::kind::Kind;

/// Folders below folders, at most; ends loops of symbolic links.
const MAX_DEPTH: usize = 8;

/// One resource of a file.
#[derive(Debug)]
pub(super) struct Entry {
    /// File and position, for messages.
    pub(super) place: String,
    pub(super) envelope: Envelope,
}

/// What the folders hold.
#[derive(Debug)]
pub(super) struct Scan {
    /// Of all names and contents: equal means that nothing changed.
    pub(super) hash: blake3::Hash,
    /// In the order in which they are to be applied.
    pub(super) entries: Vec<Entry>,
    pub(super) errors: Vec<String>,
}

/// Reads everything anew: Kubernetes swaps whole folders through a symbolic link, so times and links say little.
pub(super) fn scan(folders: &[PathBuf]) -> Scan {
    let (mut paths, mut errors) = (Vec::new(), Vec::new());
    for folder in folders {
        walk(folder, 0, &mut paths, &mut errors);
    }
    paths.sort();
    let mut hasher = blake3::Hasher::new();
    let mut entries = Vec::new();
    for path in paths {
        let place = path.display().to_string();
        hasher.update(place.as_bytes());
        match fs::read_to_string(&path) {
            Ok(text) => {
                hasher.update(&[0]).update(text.as_bytes()).update(&[0]);
                match parse(&path, &text) {
                    Ok(envelopes) => entries.extend(envelopes.into_iter().enumerate().map(|(index, envelope)| Entry {
                        place: format!("{place}, resource {}", index + 1),
                        envelope,
                    })),
                    Err(error) => errors.push(format!("{place}: {error}")),
                }
            }
            Err(error) => errors.push(format!("{place}: {error}")),
        }
    }
    entries.sort_by_key(|entry| rank(&entry.envelope.kind));
    Scan { hash: hasher.finalize(), entries, errors }
}

/// What others need comes first: projects, then secrets and variables, then what uses them.
pub(super) fn rank(kind: &str) -> u8 {
    match Kind::parse(kind) {
        Some(Kind::Project) => 0,
        Some(Kind::GlobalSecret | Kind::Secret) => 1,
        Some(Kind::GlobalVariable | Kind::Variable) => 2,
        Some(Kind::GlobalDatasource | Kind::Datasource) => 3,
        Some(Kind::Dashboard | Kind::EphemeralDashboard) => 4,
        Some(Kind::Folder) => 5,
        Some(Kind::User) => 6,
        Some(Kind::GlobalRole | Kind::Role) => 7,
        Some(Kind::GlobalRoleBinding | Kind::RoleBinding) | None => 8,
    }
}

/// The files with resources in a folder, sorted, and what could not be read.
pub(crate) fn list(folder: &Path) -> (Vec<PathBuf>, Vec<String>) {
    let (mut paths, mut errors) = (Vec::new(), Vec::new());
    walk(folder, 0, &mut paths, &mut errors);
    paths.sort();
    (paths, errors)
}

/// The resources of one file: JSON or YAML by its name.
///
/// # Errors
/// The file cannot be read, or where it is not what it should be.
pub fn read(path: &Path) -> Result<Vec<Envelope>, String> {
    parse(path, &fs::read_to_string(path).map_err(|error| error.to_string())?)
}

fn walk(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>, errors: &mut Vec<String>) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            errors.push(format!("{}: {error}", folder.display()));
            return;
        }
    };
    for entry in entries.flatten() {
        // Hidden entries are Kubernetes' own: `..data` and the folder that it points to.
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        // Follows links: every file of a mounted Secret is one.
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() && depth < MAX_DEPTH => walk(&path, depth + 1, paths, errors),
            Ok(metadata) if metadata.is_file() && is_resource_file(&path) => paths.push(path),
            Ok(_) => {}
            Err(error) => errors.push(format!("{}: {error}", path.display())),
        }
    }
}

fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

fn is_resource_file(path: &Path) -> bool {
    matches!(extension(path).as_str(), "json" | "yaml" | "yml")
}

/// JSON keeps the text of its specs; YAML is turned into JSON.
fn parse(path: &Path, text: &str) -> Result<Vec<Envelope>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    if extension(path) == "json" {
        let raw: Box<RawValue> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let envelopes = if raw.get().starts_with('[') {
            serde_json::from_str(raw.get())
        } else {
            serde_json::from_str(raw.get()).map(|one| vec![one])
        };
        return envelopes.map_err(|error| error.to_string());
    }
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    let mut envelopes = Vec::new();
    for document in documents {
        match document {
            Value::Null => {}
            Value::Array(list) => {
                for one in list {
                    envelopes.push(envelope(&one)?);
                }
            }
            one => envelopes.push(envelope(&one)?),
        }
    }
    Ok(envelopes)
}

fn envelope(value: &Value) -> Result<Envelope, String> {
    serde_json::from_str(&value.to_string()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(scan: &Scan) -> Vec<String> {
        scan.entries.iter().map(|entry| format!("{}/{}", entry.envelope.kind, entry.envelope.metadata.name)).collect()
    }

    #[test]
    fn reads_objects_lists_and_documents_projects_first() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("a.json", r#"[{"kind":"Dashboard","metadata":{"name":"d"},"spec":{"z": 1.50}}]"#);
        write(
            "b.yaml",
            "kind: Project\nmetadata: {name: p}\n---\n- kind: GlobalSecret\n  metadata: {name: s}\n  spec: {}\n",
        );
        write("c.yml", "");
        write("notes.txt", "not a resource");
        write("bad.json", "{");
        write(".hidden.json", "{");
        fs::create_dir(folder.path().join("sub")).unwrap();
        write("sub/e.json", r#"{"kind":"project","metadata":{"name":"q"}}"#);
        let found = scan(&[folder.path().to_owned()]);
        assert_eq!(names(&found), ["Project/p", "project/q", "GlobalSecret/s", "Dashboard/d"]);
        let spec = found.entries.last().unwrap().envelope.spec.as_ref().unwrap();
        assert_eq!(spec.get(), r#"{"z": 1.50}"#, "the text of JSON stays");
        assert_eq!(found.errors.len(), 1, "{:?}", found.errors);
        assert!(found.errors[0].contains("bad.json"));
        assert!(!scan(&[folder.path().join("absent")]).errors.is_empty());
    }

    #[test]
    fn a_swapped_link_of_kubernetes_changes_the_hash_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        for (version, name) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(folder.path().join(version)).unwrap();
            let text = format!(r#"{{"kind":"Project","metadata":{{"name":"{name}"}}}}"#);
            fs::write(folder.path().join(version).join("p.json"), text).unwrap();
        }
        symlink("..1", folder.path().join("..data")).unwrap();
        symlink("..data/p.json", folder.path().join("p.json")).unwrap();
        let before = scan(&[folder.path().to_owned()]);
        assert_eq!(names(&before), ["Project/one"]);
        assert_eq!(scan(&[folder.path().to_owned()]).hash, before.hash);
        symlink("..2", folder.path().join("..tmp")).unwrap();
        fs::rename(folder.path().join("..tmp"), folder.path().join("..data")).unwrap();
        let after = scan(&[folder.path().to_owned()]);
        assert_eq!(names(&after), ["Project/two"]);
        assert_ne!(after.hash, before.hash);
    }
}
