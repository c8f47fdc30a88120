//! HTTPS: certificate and key from files, which are read again when they change (certificates are renewed under a server that
//! runs).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::ServerTls;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The TLS side of a listener.
#[derive(Debug)]
pub struct Tls {
    options: ServerTls,
    rules: Rules,
    current: ArcSwap<ServerConfig>,
    /// Digest of the files when they were last read, good or not.
    seen: Mutex<blake3::Hash>,
}

/// Versions and cipher suites.
#[derive(Debug, Clone)]
struct Rules {
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
}

impl Tls {
    /// Reads the files; the error says which key of `server.tls` is wrong.
    pub fn open(options: &ServerTls) -> Result<Self, String> {
        let rules = Rules::read(options)?;
        let files = Files::read(options)?;
        let current = ArcSwap::from_pointee(files.config(&rules)?);
        Ok(Self { options: options.clone(), rules, current, seen: Mutex::new(files.digest()) })
    }

    /// For the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Follows the files until told to stop. What cannot be used is reported once; the last good pair goes on.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let this = self.clone();
            // Files may be on a network.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    /// Takes the files over when they changed.
    fn look(&self) {
        let files = match Files::read(&self.options) {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(%error, "the certificate cannot be read again; the one in use goes on");
                return;
            }
        };
        let digest = files.digest();
        if std::mem::replace(&mut *self.seen.lock(), digest) == digest {
            return;
        }
        match files.config(&self.rules) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!(file = %self.options.cert_file.display(), "the certificate was read again");
            }
            // A pair that is being replaced may not match for a moment.
            Err(error) => tracing::warn!(%error, "the changed certificate cannot be used; the one in use goes on"),
        }
    }
}

struct Files<'a> {
    options: &'a ServerTls,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl<'a> Files<'a> {
    fn read(options: &'a ServerTls) -> Result<Self, String> {
        let read = |key: &str, path: &Path| {
            std::fs::read(path).map_err(|error| format!("server.tls.{key}: cannot read {}: {error}", path.display()))
        };
        let (cert, key) = (read("cert_file", &options.cert_file)?, read("key_file", &options.key_file)?);
        Ok(Self { options, cert, key })
    }

    fn digest(&self) -> blake3::Hash {
        let mut digest = blake3::Hasher::new();
        digest.update(&(self.cert.len() as u64).to_le_bytes()).update(&self.cert).update(&self.key);
        digest.finalize()
    }

    fn config(&self, rules: &Rules) -> Result<ServerConfig, String> {
        let wrong = |key: &str, path: &Path, what: &str| format!("server.tls.{key}: {} {what}", path.display());
        let cert_file = |what: &str| wrong("cert_file", &self.options.cert_file, what);
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&self.cert)
            .collect::<Result<_, _>>()
            .map_err(|_| cert_file("is not PEM"))?;
        if chain.is_empty() {
            return Err(cert_file("has no certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| wrong("key_file", &self.options.key_file, "has no private key in PEM"))?;
        let mut config = ServerConfig::builder_with_provider(rules.provider.clone())
            .with_protocol_versions(&rules.versions)
            .map_err(|error| format!("server.tls: {error}"))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| cert_file(&format!("and its key cannot be used: {error}")))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl Rules {
    fn read(options: &ServerTls) -> Result<Self, String> {
        let (min, max) = (
            minor("min_version", options.min_version.as_deref())?,
            minor("max_version", options.max_version.as_deref())?,
        );
        // What is too old for rustls is raised to 1.2, as a floor; as a ceiling it leaves nothing.
        let (min, max) = (min.unwrap_or(2).max(2), max.unwrap_or(3));
        let mut versions = Vec::new();
        for (number, version) in [(3, &version::TLS13), (2, &version::TLS12)] {
            if (min..=max).contains(&number) {
                versions.push(version);
            }
        }
        let mut provider = ring::default_provider();
        if !options.cipher_suites.is_empty() {
            choose_suites(&mut provider, &options.cipher_suites)?;
        }
        let has_12 = provider.cipher_suites.iter().any(|suite| suite.tls13().is_none());
        versions.retain(|version| has_12 || *version != &version::TLS12);
        if versions.is_empty() {
            return Err("server.tls: min_version, max_version and cipher_suites leave no TLS version that is served (1.2 and 1.3 are)".to_owned());
        }
        Ok(Self { provider: Arc::new(provider), versions })
    }
}

/// The minor number of a version: `VersionTLS12`, `TLS12`, `TLS1.2` and `1.2` are 2.
fn minor(key: &str, text: Option<&str>) -> Result<Option<u8>, String> {
    let Some(text) = text else { return Ok(None) };
    let upper = text.to_ascii_uppercase();
    let digits = upper.strip_prefix("VERSION").unwrap_or(&upper);
    match digits.strip_prefix("TLS").unwrap_or(digits) {
        "10" | "1.0" => Ok(Some(0)),
        "11" | "1.1" => Ok(Some(1)),
        "12" | "1.2" => Ok(Some(2)),
        "13" | "1.3" => Ok(Some(3)),
        _ => Err(format!("server.tls.{key}: {text:?} is no TLS version such as VersionTLS12 or VersionTLS13")),
    }
}

/// Leaves the suites of TLS 1.2 that are named; those of 1.3 cannot be chosen, as in Go.
fn choose_suites(provider: &mut CryptoProvider, names: &[String]) -> Result<(), String> {
    let names: Vec<&str> = names.iter().map(|name| name.trim()).collect();
    if let Some(odd) = names.iter().find(|name| !name.starts_with("TLS_")) {
        return Err(format!(
            "server.tls.cipher_suites: {odd:?} is no name of a cipher suite such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
        ));
    }
    let mut used = Vec::new();
    provider.cipher_suites.retain(|suite| {
        if suite.tls13().is_some() {
            return true;
        }
        let full = format!("{:?}", suite.suite());
        // Go has two names for those with ChaCha20.
        let found = names.iter().find(|name| full == **name || full.strip_suffix("_SHA256") == Some(**name));
        used.extend(found.copied());
        found.is_some()
    });
    let is_13 = |name: &str| name.starts_with("TLS_AES_") || name.starts_with("TLS_CHACHA20_");
    for name in names.iter().filter(|name| !used.contains(name) && !is_13(name)) {
        tracing::warn!(%name, "server.tls.cipher_suites: this suite is not served here (too weak, or unknown)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(options: &ServerTls, name: &str) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(&options.cert_file, made.cert.pem()).unwrap();
        std::fs::write(&options.key_file, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().to_vec()
    }

    fn options(folder: &tempfile::TempDir) -> ServerTls {
        let (cert_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        ServerTls { cert_file, key_file, ..ServerTls::default() }
    }

    #[test]
    fn a_changed_pair_is_taken_over_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(&folder);
        write(&options, "a.test");
        let tls = Tls::open(&options).unwrap();
        let first = tls.current.load_full();
        tls.look();
        assert!(Arc::ptr_eq(&first, &tls.current.load_full()), "nothing changed");
        let key = std::fs::read(&options.key_file).unwrap();
        write(&options, "b.test");
        let other = std::fs::read(&options.key_file).unwrap();
        std::fs::write(&options.key_file, key).unwrap();
        tls.look();
        assert!(Arc::ptr_eq(&first, &tls.current.load_full()), "the key is not that of the certificate");
        std::fs::write(&options.key_file, other).unwrap();
        tls.look();
        let second = tls.current.load_full();
        assert!(!Arc::ptr_eq(&first, &second));
        std::fs::remove_file(&options.cert_file).unwrap();
        tls.look();
        assert!(Arc::ptr_eq(&second, &tls.current.load_full()));
    }

    #[test]
    fn says_what_is_wrong_with_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(&folder);
        let error = || Tls::open(&options).unwrap_err();
        assert!(error().starts_with("server.tls.cert_file: cannot read "), "{}", error());
        write(&options, "a.test");
        std::fs::write(&options.key_file, "no key").unwrap();
        assert!(error().starts_with("server.tls.key_file: "), "{}", error());
        std::fs::write(&options.cert_file, "no certificate").unwrap();
        assert!(error().contains("has no certificate"), "{}", error());
    }

    fn rules(min: Option<&str>, max: Option<&str>, suites: &[&str]) -> Result<(usize, usize), String> {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let options = ServerTls {
            min_version: text(min),
            max_version: text(max),
            cipher_suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
            ..ServerTls::default()
        };
        let rules = Rules::read(&options)?;
        let of_12 = rules.provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).count();
        Ok((rules.versions.len(), of_12))
    }

    #[test]
    fn versions_and_suites_as_go_spells_them() {
        let all = rules(None, None, &[]).unwrap().1;
        for (min, max, versions) in [
            (None, None, 2),
            (Some("VersionTLS12"), None, 2),
            (Some("VersionTLS10"), Some("1.3"), 2),
            (Some("TLS13"), None, 1),
            (None, Some("VersionTLS12"), 1),
        ] {
            assert_eq!(rules(min, max, &[]), Ok((versions, all)), "{min:?} {max:?}");
        }
        let suite = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        assert_eq!(rules(None, None, &[suite]), Ok((2, 1)));
        assert_eq!(
            rules(None, None, &[suite, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_AES_128_GCM_SHA256"]),
            Ok((2, 2))
        );
        assert_eq!(rules(None, None, &["TLS_RSA_WITH_AES_128_CBC_SHA"]), Ok((1, 0)), "1.3 is left");
        for (min, max, suites) in [
            (Some("SSL3"), None, &[][..]),
            (Some("TLS13"), Some("TLS12"), &[]),
            (None, Some("TLS11"), &[]),
            (None, Some("TLS12"), &["TLS_RSA_WITH_AES_128_CBC_SHA"]),
            (None, None, &["ECDHE-RSA"]),
        ] {
            assert!(rules(min, max, suites).unwrap_err().starts_with("server.tls"), "{min:?} {max:?}");
        }
    }
}
