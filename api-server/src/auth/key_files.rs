//! The files of the encryption key and of those before it, followed while the server runs (I/O).

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::crypto::SecretBox;
use crate::config::Security;
use crate::follow;

/// Upstream's built-in key: documents that a Perses without a key of its own wrote stay readable. Only without sign-in.
const UPSTREAM_DEFAULT_KEY: &[u8; 32] = b"e=dz;`M'5Pjvy^Sq3FVBkTC@N9?H/gua";

/// The bytes of all keys.
#[derive(PartialEq, Eq)]
struct Bytes {
    current: Vec<u8>,
    /// Newest first.
    previous: Vec<Vec<u8>>,
}

fn read(security: &Security) -> Result<Bytes, String> {
    let file = |name: &str, path: &Path| {
        std::fs::read(path).map_err(|error| format!("cannot read security.{name} {}: {error}", path.display()))
    };
    let current = match (&security.encryption_key_file, &security.encryption_key) {
        (Some(path), _) => file("encryption_key_file", path)?,
        (None, Some(key)) => key.expose().as_bytes().to_vec(),
        (None, None) => UPSTREAM_DEFAULT_KEY.to_vec(),
    };
    let previous = security.previous_encryption_key_files.iter();
    let previous = previous.map(|path| file("previous_encryption_key_files", path)).collect::<Result<_, _>>()?;
    Ok(Bytes { current, previous })
}

/// The encryption of secrets with the configured keys.
///
/// # Errors
/// Which file cannot be read, or that a key has not 32 bytes.
pub(crate) fn open(security: &Security) -> Result<SecretBox, String> {
    let Bytes { current, previous } = read(security)?;
    SecretBox::with_previous(&current, &previous).map_err(|error| error.to_string())
}

/// Follows the files until told to stop. What cannot be used is reported once; the keys in use go on.
pub(crate) async fn follow(security: Security, secrets: SecretBox, stop: CancellationToken) {
    if security.encryption_key_file.is_none() && security.previous_encryption_key_files.is_empty() {
        return;
    }
    // The first look takes over what was read at start, or what it became since.
    let mut is_first = true;
    let take = |found: &Result<Bytes, String>| {
        let is_first = std::mem::replace(&mut is_first, false);
        match found.as_ref().map(|bytes| secrets.replace(&bytes.current, &bytes.previous)) {
            Ok(Ok(())) if is_first => {}
            Ok(Ok(())) => tracing::info!("the encryption keys were read again"),
            Ok(Err(error)) => tracing::warn!(%error, "the changed encryption keys cannot be used; those in use go on"),
            Err(error) => tracing::warn!(%error, "the encryption keys cannot be read again; those in use go on"),
        }
    };
    follow::changes(move || read(&security), take, stop).await;
}
