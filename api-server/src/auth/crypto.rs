//! Encryption of the secret fields of `Secret` and `GlobalSecret` with the 32 bytes of `security.encryption_key`.
//!
//! New values: AES-256-GCM, a random 12-byte nonce before the ciphertext, base64url with padding: the authenticated form that
//! Perses v0.54 reads. Values that Perses itself wrote (AES-256-CFB, a 16-byte IV before the ciphertext) are still readable,
//! so that an existing folder works.
//!
//! Earlier keys (`security.previous_encryption_key_files`) only open what they sealed; everything new uses the current one.
//! All copies of a [`SecretBox`] take new keys at once ([`SecretBox::replace`]).

use std::fmt;
use std::sync::Arc;

use aes_gcm::aead::{Aead, AeadCore, Generate};
use aes_gcm::{Aes256Gcm, KeyInit, aes::Aes256};
use arc_swap::ArcSwap;
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
    /// The old form of Perses carries no check, and several keys make text of the bytes.
    #[error(
        "the stored secret can be read with more than one key, as its form (that of Perses) carries no check: enter it anew"
    )]
    Ambiguous,
    /// The cipher refused (a value beyond its limits).
    #[error("the secret cannot be encrypted")]
    Encrypt,
}

/// The current key and those before it, ready for use. Built once at start; copies share their keys.
#[derive(Clone)]
pub struct SecretBox {
    ring: Arc<ArcSwap<Ring>>,
    /// Keys of another purpose are made of these ([`Self::derive`]).
    purpose: Option<&'static str>,
}

struct Ring {
    current: Key,
    previous: Vec<Key>,
    /// Rises with each change.
    generation: u64,
}

impl Ring {
    fn new<K: AsRef<[u8]>>(key: &[u8], previous: &[K], generation: u64) -> Result<Self, CryptoError> {
        let mut ring = Self { current: Key::new(key)?, previous: Vec::new(), generation };
        for key in previous {
            let key = Key::new(key.as_ref())?;
            // Named twice, as in the middle of a change, it is one key: what it reads is not ambiguous.
            if !ring.all().any(|known| known.bytes == key.bytes) {
                ring.previous.push(key);
            }
        }
        Ok(ring)
    }

    fn all(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.previous)
    }

    fn derive(&self, purpose: &str) -> Self {
        let derive = |key: &Key| {
            let bytes = blake3::derive_key(purpose, &key.bytes);
            Key { gcm: Aes256Gcm::new(&bytes.into()), bytes }
        };
        let previous = self.previous.iter().map(derive).collect();
        Self { current: derive(&self.current), previous, generation: self.generation }
    }
}

#[derive(Clone)]
struct Key {
    gcm: Aes256Gcm,
    bytes: [u8; KEY_LENGTH],
}

impl Key {
    fn new(bytes: &[u8]) -> Result<Self, CryptoError> {
        let bytes: [u8; KEY_LENGTH] = bytes.try_into().map_err(|_| CryptoError::KeyLength(bytes.len()))?;
        Ok(Self { gcm: Aes256Gcm::new(&bytes.into()), bytes })
    }

    fn open(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = bytes.split_at_checked(GCM_NONCE)?;
        self.gcm.decrypt(nonce.try_into().ok()?, sealed).ok()
    }

    /// CFB carries no tag, so a wrong key gives noise instead of an error. Perses' values are strings: what is not UTF-8 is
    /// noise.
    fn open_cfb(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (iv, sealed) = bytes.split_at_checked(CFB_IV)?;
        let mut plain = sealed.to_vec();
        cfb_mode::Decryptor::<Aes256>::new_from_slices(&self.bytes, iv).ok()?.decrypt(&mut plain);
        std::str::from_utf8(&plain).is_ok().then_some(plain)
    }
}

impl fmt::Debug for SecretBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBox(..)")
    }
}

impl SecretBox {
    /// From the key's bytes.
    pub fn new(key: &[u8]) -> Result<Self, CryptoError> {
        Self::with_previous::<&[u8]>(key, &[])
    }

    /// From the current key and the keys before it, newest first.
    pub fn with_previous<K: AsRef<[u8]>>(key: &[u8], previous: &[K]) -> Result<Self, CryptoError> {
        Ok(Self { ring: Arc::new(ArcSwap::from_pointee(Ring::new(key, previous, 0)?)), purpose: None })
    }

    /// Takes other keys from now on, in all copies and in what was derived of them.
    ///
    /// # Errors
    /// A key has another length; then nothing changes.
    pub fn replace<K: AsRef<[u8]>>(&self, key: &[u8], previous: &[K]) -> Result<(), CryptoError> {
        let ring = Ring::new(key, previous, self.ring.load().generation + 1)?;
        self.ring.store(Arc::new(ring));
        Ok(())
    }

    /// The keys for another purpose, which tell nothing about these. `purpose` is a constant of the program.
    #[must_use]
    pub fn derive(&self, purpose: &'static str) -> Self {
        Self { ring: self.ring.clone(), purpose: Some(purpose) }
    }

    fn ring(&self) -> Arc<Ring> {
        let ring = self.ring.load_full();
        match self.purpose {
            None => ring,
            // A microsecond; only sign-ins at providers have a purpose of their own.
            Some(purpose) => Arc::new(ring.derive(purpose)),
        }
    }

    /// The keys themselves, the current one first: the sign-in tokens are signed with them, as upstream does.
    pub(crate) fn keys(&self) -> Vec<[u8; KEY_LENGTH]> {
        self.ring().all().map(|key| key.bytes).collect()
    }

    /// Changes whenever the keys do.
    pub(crate) fn generation(&self) -> u64 {
        self.ring.load().generation
    }

    /// Whether both encrypt with the same key.
    pub fn is_same(&self, other: &Self) -> bool {
        self.ring().current.bytes == other.ring().current.bytes
    }

    /// Whether a stored text is in today's form and of the current key. Empty texts hold nothing and are.
    pub fn is_current(&self, text: &str) -> bool {
        let open = |bytes: Vec<u8>| self.ring().current.open(&bytes);
        text.is_empty() || URL_SAFE.decode(text).ok().and_then(open).is_some()
    }

    /// Encrypts; the empty value stays empty, as upstream keeps it.
    pub fn encrypt(&self, plain: &[u8]) -> Result<String, CryptoError> {
        if plain.is_empty() {
            return Ok(String::new());
        }
        let nonce = aes_gcm::Nonce::<<Aes256Gcm as AeadCore>::NonceSize>::generate();
        let sealed = self.ring().current.gcm.encrypt(&nonce, plain).map_err(|_| CryptoError::Encrypt)?;
        Ok(URL_SAFE.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// Decrypts what [`Self::encrypt`] or Perses v0.54 wrote; the empty text is the empty value.
    pub fn decrypt(&self, text: &str) -> Result<Vec<u8>, CryptoError> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = URL_SAFE.decode(text).map_err(|_| CryptoError::Encoding)?;
        let ring = self.ring();
        // The authenticated form under every key first: it alone can tell that a key is wrong.
        let plain = ring.all().find_map(|key| key.open(&bytes));
        plain.or_else(|| ring.all().find_map(|key| key.open_cfb(&bytes))).ok_or(CryptoError::Decrypt)
    }

    /// As [`Self::decrypt`], but only what can be read in one way: what is encrypted again from it must not be noise.
    pub fn decrypt_surely(&self, text: &str) -> Result<Vec<u8>, CryptoError> {
        let bytes = URL_SAFE.decode(text).map_err(|_| CryptoError::Encoding)?;
        let ring = self.ring();
        if text.is_empty() || ring.all().any(|key| key.open(&bytes).is_some()) {
            return self.decrypt(text);
        }
        let mut plain = ring.all().filter_map(|key| key.open_cfb(&bytes));
        match (plain.next(), plain.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(CryptoError::Decrypt),
            (Some(_), Some(_)) => Err(CryptoError::Ambiguous),
        }
    }

    /// Decrypts what [`Self::encrypt`] wrote and nothing else: for texts that went through the hands of a client.
    pub fn decrypt_own(&self, text: &str) -> Result<Vec<u8>, CryptoError> {
        let bytes = URL_SAFE.decode(text).map_err(|_| CryptoError::Encoding)?;
        self.ring().all().find_map(|key| key.open(&bytes)).ok_or(CryptoError::Decrypt)
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
    fn a_key_that_is_named_twice_is_one_key() {
        let key = b"0123456789abcdef0123456789abcdef";
        let secrets = SecretBox::with_previous(key, &[&[7; 32], key, &[7; 32]]).unwrap();
        assert_eq!(secrets.keys(), [*key, [7; 32]]);
        assert_eq!(
            secrets.decrypt_surely("AAECAwQFBgcICQoLDA0ODzsosoHzvQREZ07oIKX53lPN3hU=").unwrap(),
            b"hunter2 from perses"
        );
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
    fn earlier_keys_read_and_never_write() {
        let (old, new) = (SecretBox::new(&[1; 32]).unwrap(), [2; 32]);
        let both = SecretBox::with_previous(&new, &[[9; 32], [1; 32]]).unwrap();
        let sealed = old.encrypt(b"a password").unwrap();
        assert_eq!(both.decrypt(&sealed).unwrap(), b"a password");
        let sealed = both.encrypt(b"a password").unwrap();
        assert_eq!(SecretBox::new(&new).unwrap().decrypt(&sealed).unwrap(), b"a password");
        assert!(old.decrypt_own(&sealed).is_err());
        assert_eq!(SecretBox::with_previous(&new, &[b"short"]).unwrap_err(), CryptoError::KeyLength(5));
    }

    #[test]
    fn keys_for_another_purpose_differ_and_take_no_form_without_a_tag() {
        let secrets = secret_box();
        let derived = secrets.derive("perses-stack test");
        let sealed = derived.encrypt(b"state").unwrap();
        assert_eq!(derived.decrypt_own(&sealed).unwrap(), b"state");
        assert_eq!(secrets.decrypt_own(&sealed), Err(CryptoError::Decrypt));
        assert!(secrets.derive("perses-stack other").decrypt_own(&sealed).is_err());
        // The form of Perses, which `decrypt` takes.
        assert!(secrets.decrypt_own("AAECAwQFBgcICQoLDA0ODzsosoHzvQREZ07oIKX53lPN3hU=").is_err());
    }

    #[test]
    fn never_prints_the_key() {
        assert_eq!(format!("{:?}", secret_box()), "SecretBox(..)");
    }
}
