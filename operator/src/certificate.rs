//! Certificates that the operator makes itself (randomness and clock): one authority for one certificate.

use jiff::{Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

use crate::settings::Certificate;

/// How long a certificate is valid. Its key never leaves the namespace; deleting the Secret makes a new one.
const YEARS: i32 = 10;

/// A server's certificate for these DNS names, signed by an authority of its own whose key is thrown away.
///
/// # Errors
/// A name that is no DNS name, or no randomness.
pub fn make(names: &[String]) -> Result<Certificate, rcgen::Error> {
    let today = TimeZone::UTC.to_datetime(Timestamp::now()).date();
    let valid = |params: &mut CertificateParams| {
        // From the first of the last year on: clocks of nodes differ.
        params.not_before = date_time_ymd(i32::from(today.year()) - 1, 1, 1);
        params.not_after = date_time_ymd(i32::from(today.year()) + YEARS, 1, 1);
    };
    let name = names.first().map(String::as_str).unwrap_or_default();
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, format!("authority of {name}"));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut authority);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;

    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, &authority)?;
    Ok(Certificate { authority: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_of_its_own_each_time() {
        let names = ["perses-pgbouncer".to_owned(), "perses-pgbouncer.n.svc".to_owned()];
        let (one, other) = (make(&names).unwrap(), make(&names).unwrap());
        assert!(one.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(one.key.contains("PRIVATE KEY") && one.key != other.key);
        assert_ne!(one.authority, one.certificate);
        assert!(make(&["not a name \u{e9}".to_owned()]).is_err());
    }
}
