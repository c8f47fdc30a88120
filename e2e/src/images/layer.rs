//! One layer of an image: a tar archive of the files that it adds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// A finished layer, on disk, with the digest by which an image names it.
#[derive(Clone)]
pub struct Layer {
    file: Arc<File>,
    digest: String,
    size: u64,
}

/// What is at a path of the layer.
enum Entry {
    Folder { mode: u32 },
    File { source: Source, mode: u32 },
}

enum Source {
    Disk(std::path::PathBuf),
    Bytes(Vec<u8>),
}

/// The files of a layer to be. Folders above a file are made by themselves; everything belongs to root.
#[derive(Default)]
pub struct Files {
    entries: BTreeMap<String, Entry>,
}

impl Files {
    /// A copy of a file of this machine; links are followed.
    pub fn copy(&mut self, source: impl AsRef<Path>, path: &str, mode: u32) -> &mut Self {
        self.add(path, Entry::File { source: Source::Disk(source.as_ref().to_owned()), mode })
    }

    /// A file with this content, readable by everybody.
    pub fn text(&mut self, path: &str, content: &str) -> &mut Self {
        self.add(path, Entry::File { source: Source::Bytes(content.as_bytes().to_vec()), mode: 0o644 })
    }

    /// An empty folder.
    pub fn folder(&mut self, path: &str, mode: u32) -> &mut Self {
        self.add(path, Entry::Folder { mode })
    }

    fn add(&mut self, path: &str, entry: Entry) -> &mut Self {
        let path = path.trim_matches('/');
        for (index, _) in path.match_indices('/') {
            self.entries.entry(format!("{}/", &path[..index])).or_insert(Entry::Folder { mode: 0o755 });
        }
        let name = if matches!(entry, Entry::Folder { .. }) { format!("{path}/") } else { path.to_owned() };
        self.entries.insert(name, entry);
        self
    }

    /// Writes the layer to a temporary file.
    pub fn finish(&self) -> Result<Layer> {
        let mut archive = tar::Builder::new(Hashing::new(BufWriter::new(tempfile::tempfile()?)));
        for (path, entry) in &self.entries {
            match entry {
                Entry::Folder { mode } => {
                    append(&mut archive, path, tar::EntryType::Directory, *mode, 0, io::empty())?;
                }
                Entry::File { source: Source::Bytes(bytes), mode } => {
                    append(&mut archive, path, tar::EntryType::Regular, *mode, bytes.len() as u64, bytes.as_slice())?;
                }
                Entry::File { source: Source::Disk(source), mode } => {
                    let file = File::open(source).with_context(|| format!("opening {}", source.display()))?;
                    let size = file.metadata()?.len();
                    append(&mut archive, path, tar::EntryType::Regular, *mode, size, file.take(size))?;
                }
            }
        }
        let (writer, digest, size) = archive.into_inner()?.finish();
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error).context("writing a layer")?;
        Ok(Layer { file: Arc::new(file), digest, size })
    }
}

impl Layer {
    /// An uncompressed tar archive as it is.
    pub fn from_tar(path: &Path) -> Result<Self> {
        let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let mut hashing = Hashing::new(io::sink());
        io::copy(&mut file, &mut hashing).with_context(|| format!("reading {}", path.display()))?;
        let (_, digest, size) = hashing.finish();
        Ok(Self { file: Arc::new(file), digest, size })
    }

    /// SHA-256 of the uncompressed archive, hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The archive from its first byte.
    pub(super) fn read(&self) -> Result<impl Read> {
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }
}

/// Adds one entry whose every field is fixed by its arguments.
pub(super) fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    size: u64,
    content: impl Read,
) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive.append_data(&mut header, path, content).with_context(|| format!("adding {path} to an archive"))
}

/// Passes bytes on and computes their digest.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    fn finish(self) -> (W, String, u64) {
        (self.inner, hex(&self.hash.finalize()), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_bytes_in_any_order() {
        let mut one = Files::default();
        one.text("/etc/a", "x").text("/usr/bin/b", "y").folder("/tmp", 0o1777);
        let mut other = Files::default();
        other.folder("/tmp", 0o1777).text("/usr/bin/b", "y").text("/etc/a", "x");
        let (one, other) = (one.finish().unwrap(), other.finish().unwrap());
        assert_eq!(one.digest(), other.digest());
        let mut bytes = Vec::new();
        one.read().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!((bytes.len() as u64, hex(&Sha256::digest(&bytes))), (one.size(), one.digest().to_owned()));
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<_> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["etc/", "etc/a", "tmp/", "usr/", "usr/bin/", "usr/bin/b"]);
    }
}
