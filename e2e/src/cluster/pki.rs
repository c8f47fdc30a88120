//! A certificate authority that lives as long as a test cluster, and the certificates that it signs.

use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

/// A certificate with its private key, both PEM.
#[derive(Clone)]
pub(super) struct Pair {
    /// The certificate.
    pub(super) cert: String,
    /// The private key (PKCS 8).
    pub(super) key: String,
}

impl Pair {
    /// Writes `<name>.crt` and `<name>.key` (mode 600) into `folder`.
    pub(super) fn write(&self, folder: &Path, name: &str) -> Result<()> {
        write_private(&folder.join(format!("{name}.crt")), &self.cert)?;
        write_private(&folder.join(format!("{name}.key")), &self.key)
    }
}

/// Writes a file that only its owner can read.
pub(super) fn write_private(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}

/// The authority.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority; `name` becomes its common name.
    pub(super) fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, new_key()?).context("making a certificate authority")?;
        Ok(Self { issuer })
    }

    /// The authority's own certificate, PEM.
    pub(super) fn cert(&self) -> String {
        self.issuer.pem()
    }

    /// Certificate and key of the authority, for a program that signs by itself (kube-controller-manager).
    pub(super) fn pair(&self) -> Pair {
        Pair { cert: self.issuer.pem(), key: self.issuer.key().serialize_pem() }
    }

    /// A server's certificate for the given DNS names and addresses.
    pub(super) fn server(&self, name: &str, names: &[&str]) -> Result<Pair> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.sign(CertificateParams::new(names)?, name, None, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate: Kubernetes reads the user from `user` (CN) and its group from `group` (O).
    pub(super) fn client(&self, user: &str, group: Option<&str>) -> Result<Pair> {
        self.sign(CertificateParams::default(), user, group, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        name: &str,
        group: Option<&str>,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Pair> {
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = new_key()?;
        let cert =
            params.signed_by(&key, &self.issuer).with_context(|| format!("signing the certificate of {name}"))?;
        Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
    }
}

/// The key pair that signs service account tokens: (private, public), PEM.
pub(super) fn token_keys() -> Result<(String, String)> {
    let key = new_key()?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making a key pair")
}
