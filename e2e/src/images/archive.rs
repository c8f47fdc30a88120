//! An image archive in the form of `docker save`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::layer::{Layer, append, hex};

/// How containers of an image start.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The program and the arguments that always come first.
    pub entrypoint: Vec<String>,
    /// Arguments when none are given.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// User id, or user and group id with a colon; empty is root.
    pub user: String,
}

/// An image: a name, how it starts, and its layers from the lowest.
pub struct Image {
    /// Repository and tag.
    pub name: String,
    /// How containers of it start.
    pub config: Config,
    /// Layers, the lowest first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// The image's configuration; its digest is the image's id.
    fn configuration(&self) -> Vec<u8> {
        let Config { entrypoint, cmd, env, user } = &self.config;
        let layers: Vec<_> = self.layers.iter().map(|layer| format!("sha256:{}", layer.digest())).collect();
        json!({
            "architecture": architecture(),
            "os": "linux",
            // A date that says nothing: the digest stands for the content.
            "created": "1970-01-01T00:00:00Z",
            "config": {"Entrypoint": entrypoint, "Cmd": cmd, "Env": env, "User": user, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": layers},
            "history": self.layers.iter().map(|_| json!({"created_by": "pstack images"})).collect::<Vec<_>>(),
        })
        .to_string()
        .into_bytes()
    }
}

/// The name that images have for this machine's processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Writes images into one archive at `path`, which appears when it is complete.
pub fn write_archive(images: &[Image], path: &Path) -> Result<()> {
    let folder = path.parent().context("an archive needs a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let temporary = tempfile::NamedTempFile::new_in(folder)?;
    write(images, BufWriter::new(temporary.as_file())).with_context(|| format!("writing {}", path.display()))?;
    set_readable(temporary.as_file())?;
    temporary.persist(path).with_context(|| format!("renaming to {}", path.display()))?;
    Ok(())
}

fn set_readable(file: &File) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(file.set_permissions(std::fs::Permissions::from_mode(0o644))?)
}

fn write(images: &[Image], writer: impl Write) -> Result<()> {
    let mut archive = tar::Builder::new(writer);
    let mut manifest = Vec::new();
    let mut written = BTreeSet::new();
    for image in images {
        for layer in &image.layers {
            if written.insert(layer.digest()) {
                let name = format!("{}.tar", layer.digest());
                append(&mut archive, &name, tar::EntryType::Regular, 0o644, layer.size(), layer.read()?)?;
            }
        }
        let configuration = image.configuration();
        let name = format!("{}.json", hex(&Sha256::digest(&configuration)));
        append(
            &mut archive,
            &name,
            tar::EntryType::Regular,
            0o644,
            configuration.len() as u64,
            configuration.as_slice(),
        )?;
        let layers: Vec<_> = image.layers.iter().map(|layer| format!("{}.tar", layer.digest())).collect();
        manifest.push(json!({"Config": name, "RepoTags": [image.name], "Layers": layers}));
    }
    let manifest = serde_json::to_vec(&manifest)?;
    append(&mut archive, "manifest.json", tar::EntryType::Regular, 0o644, manifest.len() as u64, manifest.as_slice())?;
    archive.into_inner()?.flush()?;
    Ok(())
}
