//! Durable changes of the folder: atomic writes, removals, the lock against a second process, the redo mark of a project's
//! deletion.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::StoreError;

const TEMPORARY: &str = ".perses-tmp-";
const DELETING: &str = ".perses-deleting-";

/// Turns an I/O error into one that names the file and what was tried.
pub(super) fn failed(what: &str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::Failed(format!("cannot {what} {}: {error}", path.display()))
}

/// Makes the folder, private to the user, with its parents.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Takes the folder for this process. A folder that cannot be written is used without a lock: reads work, writes fail.
pub(super) fn lock(root: &Path) -> Result<Option<File>, StoreError> {
    let path = root.join(".perses-lock");
    let mut file = match OpenOptions::new().create(true).read(true).write(true).truncate(false).mode(0o600).open(&path)
    {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => {
            tracing::warn!(folder = %root.display(), %error, "the folder of documents cannot be written: writes will fail");
            return Ok(None);
        }
        Err(error) => return Err(failed("open the lock file", &path, &error)),
    };
    match file.try_lock() {
        Ok(()) => {
            // The number is for people who wonder who holds the lock; the lock itself is the kernel's.
            let write = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            write.map_err(|error| failed("write the lock file", &path, &error))?;
            Ok(Some(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            Err(StoreError::Failed(format!(
                "the folder {} is in use by another server (process {}): stop that one, or set database.file.folder to another folder",
                root.display(),
                holder.trim()
            )))
        }
        Err(TryLockError::Error(error)) => Err(failed("lock", &path, &error)),
    }
}

/// Replaces a file so that a crash leaves the old text or the new one, whole; readable by this user only.
pub(super) fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    make_folder(folder)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(folder)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Removes a file; one that is not there is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a folder when it is empty.
pub(super) fn remove_empty_folder(path: &Path) {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            tracing::warn!(folder = %path.display(), "files that are no documents were left in the folder of a deleted project");
        }
        _ => {}
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Leaves a mark that a project is being deleted, so that a crash half way is finished at the next start.
pub(super) fn mark_deletion(root: &Path, project: &str) -> io::Result<PathBuf> {
    let path = root.join(format!("{DELETING}{project}"));
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?.sync_all()?;
    sync_folder(root)?;
    Ok(path)
}

/// Projects whose deletion a crash cut short.
pub(super) fn unfinished_deletions(root: &Path) -> io::Result<Vec<String>> {
    let mut projects = Vec::new();
    for entry in fs::read_dir(root)? {
        if let Some(project) = entry?.file_name().to_str().and_then(|name| name.strip_prefix(DELETING)) {
            projects.push(project.to_owned());
        }
    }
    Ok(projects)
}

/// Removes temporary files that a crash left; the caller holds the lock.
pub(super) fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
