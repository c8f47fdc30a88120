//! Where a document lives: `<folder>/<plural>/[<project>/]<name>.<json|yaml>`, upstream's layout.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::FileExtension;
use crate::domain::document::Key;
use crate::domain::kind::Kind;
use crate::domain::name;
use crate::store::StoreError;

/// Both extensions; the order does not matter.
pub(super) const EXTENSIONS: [FileExtension; 2] = [FileExtension::Json, FileExtension::Yaml];

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signature {
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

impl Signature {
    fn of(metadata: &Metadata) -> Self {
        Self { modified: (metadata.mtime(), metadata.mtime_nsec()), size: metadata.size(), inode: metadata.ino() }
    }

    /// Of the file at `path`; `None` when there is none.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// When the file was last written, in microseconds since the epoch.
    pub(super) const fn modified_micros(&self) -> i64 {
        self.modified.0.saturating_mul(1_000_000).saturating_add(self.modified.1 / 1000)
    }
}

/// A file that a scan found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) key: Key,
    pub(super) extension: FileExtension,
    pub(super) path: PathBuf,
    pub(super) signature: Signature,
}

pub(super) const fn suffix(extension: FileExtension) -> &'static str {
    match extension {
        FileExtension::Json => "json",
        FileExtension::Yaml => "yaml",
    }
}

/// The folder of a key. Names are checked again here although callers did: a path is built of them.
pub(super) fn directory(root: &Path, key: &Key) -> Result<PathBuf, StoreError> {
    let refuse =
        |part: &str, error: name::NameError| StoreError::Failed(format!("{part} cannot be a file name: {error}"));
    name::validate(&key.name).map_err(|error| refuse("the name", error))?;
    let folder = root.join(key.kind.plural());
    match (&key.project, key.kind.is_project_scoped()) {
        (Some(project), true) => {
            name::validate(project).map_err(|error| refuse("the project", error))?;
            Ok(folder.join(project))
        }
        (None, false) => Ok(folder),
        (Some(_), false) => Err(StoreError::Failed(format!("a {} has no project", key.kind))),
        (None, true) => Err(StoreError::Failed(format!("a {} needs a project", key.kind))),
    }
}

/// The file of a key.
pub(super) fn path(root: &Path, key: &Key, extension: FileExtension) -> Result<PathBuf, StoreError> {
    Ok(directory(root, key)?.join(format!("{}.{}", key.name, suffix(extension))))
}

/// Every file that is named like a document. Other files are left alone.
pub(super) fn scan(root: &Path) -> io::Result<Vec<Found>> {
    // An unmounted or removed folder must not look like an empty one.
    fs::metadata(root)?;
    let mut found = Vec::new();
    for kind in Kind::ALL {
        let folder = root.join(kind.plural());
        if !kind.is_project_scoped() {
            scan_folder(&folder, kind, None, &mut found)?;
            continue;
        }
        for entry in read_dir(&folder)? {
            let entry = entry?;
            let Some(project) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if name::validate(&project).is_ok() && fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir()) {
                scan_folder(&entry.path(), kind, Some(&project), &mut found)?;
            }
        }
    }
    Ok(found)
}

fn scan_folder(folder: &Path, kind: Kind, project: Option<&str>, found: &mut Vec<Found>) -> io::Result<()> {
    for entry in read_dir(folder)? {
        let path = entry?.path();
        let (Some(stem), Some(ending)) = (path.file_stem().and_then(|s| s.to_str()), path.extension()) else {
            continue;
        };
        let Some(extension) = EXTENSIONS.into_iter().find(|extension| ending == suffix(*extension)) else { continue };
        if name::validate(stem).is_err() {
            continue;
        }
        // A file that went since the directory was read is no error.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_file() {
            let key = Key { kind, project: project.map(str::to_owned), name: stem.to_owned() };
            found.push(Found { key, extension, signature: Signature::of(&metadata), path });
        }
    }
    Ok(())
}

/// `read_dir` where a missing folder is an empty one.
fn read_dir(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        Err(error) => Err(error),
    }
}
