//! Encryption of the secret fields of `Secret` and `GlobalSecret` with the 32 bytes of `security.encryption_key`.
//!
//! New values: AES-256-GCM, a random 12-byte nonce before the ciphertext, base64url with padding: the authenticated form that
//! Perses v0.54 reads. Values that Perses itself wrote (AES-256-CFB, a 16-byte IV before the ciphertext) are still readable,
//! so that an existing folder works.

use std::fmt;

use aes_gcm::aead::{Aead, AeadCore, Generate};
use aes_gcm::{Aes256Gcm, KeyInit, aes::Aes256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use cfb_mode::cipher::KeyIvInit as _;

/// Bytes of an encryption key.
pub const KEY_LENGTH: usize = 32;

const GCM_NONCE: usize = 12;
const CFB_IV: usize = 16;

/// Why a value could not be encrypted or decrypted. Holds neither the value nor the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The key has another length.
    #[error("security.encryption_key must be {KEY_LENGTH} bytes, not {0}")]
    KeyLength(usize),
    /// The stored text is not base64url.
    #[error("the stored secret is not base64url: it was not written with encryption")]
    Encoding,
    /// The stored bytes were made with another key, or changed since.
    #[error("the stored secret cannot be decrypted: is security.encryption_key the key that it was written with?")]
    Decrypt,
    /// The cipher refused (a value beyond its limits).
    #[error("the secret cannot be encrypted")]
    Encrypt,
}

/// The key, ready for use. Cheap enough to build once at start and share.
#[derive(Clone)]
pub struct SecretBox {
    gcm: Aes256Gcm,
    key: [u8; KEY_LENGTH],
}

impl fmt::Debug for SecretBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBox(..)")
    }
}

impl SecretBox {
    /// From the key's bytes.
    pub fn new(key: &[u8]) -> Result<Self, CryptoError> {
        let key: [u8; KEY_LENGTH] = key.try_into().map_err(|_| CryptoError::KeyLength(key.len()))?;
        Ok(Self { gcm: Aes256Gcm::new(&key.into()), key })
    }

    /// The key itself: the sign-in tokens are signed with it, as upstream does.
    pub(crate) fn key(&self) -> &[u8; KEY_LENGTH] {
        &self.key
    }

    /// Whether both have the same key.
    pub fn is_same(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// Encrypts; the empty value stays empty, as upstream keeps it.
    pub fn encrypt(&self, plain: &[u8]) -> Result<String, CryptoError> {
        if plain.is_empty() {
            return Ok(String::new());
        }
        let nonce = aes_gcm::Nonce::<<Aes256Gcm as AeadCore>::NonceSize>::generate();
        let sealed = self.gcm.encrypt(&nonce, plain).map_err(|_| CryptoError::Encrypt)?;
        Ok(URL_SAFE.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// Decrypts what [`Self::encrypt`] or Perses v0.54 wrote; the empty text is the empty value.
    pub fn decrypt(&self, text: &str) -> Result<Vec<u8>, CryptoError> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = URL_SAFE.decode(text).map_err(|_| CryptoError::Encoding)?;
        if let Some((nonce, sealed)) = bytes.split_at_checked(GCM_NONCE)
            && let Ok(nonce) = nonce.try_into()
            && let Ok(plain) = self.gcm.decrypt(nonce, sealed)
        {
            return Ok(plain);
        }
        self.decrypt_cfb(&bytes)
    }

    /// CFB carries no tag, so a wrong key gives noise instead of an error. Perses' values are strings: what is not UTF-8 is
    /// noise.
    fn decrypt_cfb(&self, bytes: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let (iv, sealed) = bytes.split_at_checked(CFB_IV).ok_or(CryptoError::Decrypt)?;
        let mut plain = sealed.to_vec();
        cfb_mode::Decryptor::<Aes256>::new_from_slices(&self.key, iv)
            .map_err(|_| CryptoError::Decrypt)?
            .decrypt(&mut plain);
        if std::str::from_utf8(&plain).is_err() {
            return Err(CryptoError::Decrypt);
        }
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret_box() -> SecretBox {
        SecretBox::new(b"0123456789abcdef0123456789abcdef").unwrap()
    }

    #[test]
    fn decrypts_what_it_encrypted() {
        let secrets = secret_box();
        for plain in ["", "a", "complex!@#$%^&*()", "line\nline", "パスワード", &"x".repeat(10_000)] {
            let sealed = secrets.encrypt(plain.as_bytes()).unwrap();
            assert!(plain.len() < 8 || !sealed.contains(plain));
            assert_eq!(secrets.decrypt(&sealed).unwrap(), plain.as_bytes());
        }
        assert_ne!(secrets.encrypt(b"same").unwrap(), secrets.encrypt(b"same").unwrap(), "nonces must differ");
    }

    #[test]
    fn reads_the_cfb_form_of_perses() {
        // `openssl enc -aes-256-cfb` of "hunter2 from perses" with IV 000102..0f, IV prepended, base64url.
        let sealed = "AAECAwQFBgcICQoLDA0ODzsosoHzvQREZ07oIKX53lPN3hU=";
        assert_eq!(secret_box().decrypt(sealed).unwrap(), b"hunter2 from perses");
    }

    #[test]
    fn refuses_other_keys_and_changed_bytes() {
        let sealed = secret_box().encrypt(b"a password that is long enough to make noise").unwrap();
        let other = SecretBox::new(&[7; 32]).unwrap();
        assert_eq!(other.decrypt(&sealed), Err(CryptoError::Decrypt));
        let mut changed = URL_SAFE.decode(&sealed).unwrap();
        changed[20] ^= 1;
        assert_eq!(secret_box().decrypt(&URL_SAFE.encode(changed)), Err(CryptoError::Decrypt));
        assert_eq!(secret_box().decrypt("not base64!"), Err(CryptoError::Encoding));
        assert_eq!(secret_box().decrypt("AAAA"), Err(CryptoError::Decrypt));
        assert_eq!(SecretBox::new(b"short").unwrap_err(), CryptoError::KeyLength(5));
    }

    #[test]
    fn never_prints_the_key() {
        assert_eq!(format!("{:?}", secret_box()), "SecretBox(..)");
    }
}
