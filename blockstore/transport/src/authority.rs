//! The cluster's own certificate authority, and how its key is kept.
//!
//! Its key lives on voters only, wrapped (AES-256-GCM) under a key of 32 bytes that the caller
//! keeps. What it signs is no admission: a certificate counts only while its key is in the table of
//! nodes.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use mooring_terms::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::fingerprint::Fingerprint;
use crate::identity::{Identity, NodeKey};
use crate::tls::verify::signed_by;

/// The first byte of wrapped bytes: the way they are wrapped.
const WRAPPED_VERSION: u8 = 1;

/// Signs the certificates of the cluster's nodes. One for the life of the cluster.
pub struct CertificateAuthority {
    key: NodeKey,
    certificate: CertificateDer<'static>,
}

impl CertificateAuthority {
    /// A new authority, for a new cluster.
    ///
    /// # Errors
    /// [`Error::Generate`].
    pub fn create() -> Result<Self, Error> {
        let key = NodeKey::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("Mooring cluster authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        // Dates are not what ends an authority: the cluster's table of nodes is.
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2999, 1, 1);
        let certificate = params.self_signed(key.pair())?.der().clone();
        Ok(Self { key, certificate })
    }

    /// The authority from its certificate (DER) and its key (PKCS#8, unwrapped).
    ///
    /// # Errors
    /// [`Error::MalformedKey`], [`Error::MalformedCertificate`], [`Error::WrongKey`] if the two
    /// don't belong together.
    pub fn from_parts(certificate: &[u8], key: &[u8]) -> Result<Self, Error> {
        let key = NodeKey::from_bytes(key)?;
        let of_certificate = Fingerprint::of_certificate(certificate)?;
        if of_certificate != key.fingerprint() || !signed_by(certificate, certificate)? {
            return Err(Error::WrongKey { certificate: of_certificate, key: key.fingerprint() });
        }
        Ok(Self { key, certificate: certificate.to_vec().into() })
    }

    /// The certificate (DER); public.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The key (PKCS#8), to be [wrapped](wrap) before it is stored.
    #[must_use]
    pub fn key_bytes(&self) -> Zeroizing<Vec<u8>> {
        self.key.to_bytes()
    }

    /// The fingerprint of the authority's key; tokens carry it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint()
    }

    /// A certificate (DER) for the key of `request` (PKCS#10, DER) as node `node`, from `now` on
    /// for `life`. `addresses` are for HTTP clients that check names; nodes check the key instead.
    /// Whatever names the request carries are ignored.
    ///
    /// # Errors
    /// [`Error::MalformedRequest`] if it isn't a request, isn't signed by its own key or is for
    /// another kind of key; [`Error::Generate`].
    pub fn sign(
        &self,
        request: &[u8],
        node: NodeId,
        addresses: &[IpAddr],
        now: SystemTime,
        life: Duration,
    ) -> Result<Vec<u8>, Error> {
        let der = CertificateSigningRequestDer::from(request);
        let request =
            CertificateSigningRequestParams::from_der(&der).map_err(|_| Error::MalformedRequest)?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(Error::MalformedRequest);
        }
        let mut params = CertificateParams::new(vec![format!("node-{node}.mooring")])?;
        params.subject_alt_names.extend(addresses.iter().map(|&a| SanType::IpAddress(a)));
        params.distinguished_name = name(&format!("Mooring node {node}"));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial()?);
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        params.not_before = date_time_ymd(1970, 1, 1) + now;
        params.not_after = params.not_before + life;
        let request = CertificateSigningRequestParams { params, public_key: request.public_key };
        let issuer = Issuer::from_ca_cert_der(&self.certificate, self.key.pair())?;
        Ok(request.signed_by(&issuer)?.der().to_vec())
    }

    /// A new key with a certificate: for the first node of a cluster, and for tests.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn issue(
        &self,
        node: NodeId,
        addresses: &[IpAddr],
        now: SystemTime,
        life: Duration,
    ) -> Result<Identity, Error> {
        let key = NodeKey::generate()?;
        let certificate = self.sign(&key.request()?, node, addresses, now, life)?;
        Identity::new(key, certificate, self.certificate.to_vec())
    }
}

/// Encrypts `secret` under `key`: `version (1) | nonce (12) | ciphertext | tag (16)`. `purpose` is
/// bound to it, so that a wrapped key opens only as what it was wrapped for.
///
/// # Errors
/// [`Error::Unwrap`] if the cipher refuses.
pub fn wrap(key: &[u8; 32], purpose: &[u8], secret: &[u8]) -> Result<Vec<u8>, Error> {
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| Error::Unwrap)?;
    let mut sealed = secret.to_vec();
    let nonce = cipher
        .seal_in_place_append_tag(Aad::from(purpose), &mut sealed)
        .map_err(|_| Error::Unwrap)?;
    let mut wrapped = vec![WRAPPED_VERSION];
    wrapped.extend_from_slice(nonce.as_ref());
    wrapped.extend_from_slice(&sealed);
    Ok(wrapped)
}

/// Opens what [`wrap`] gave.
///
/// # Errors
/// [`Error::Unwrap`] if key, purpose or bytes are not the same.
pub fn unwrap(key: &[u8; 32], purpose: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let Some((&WRAPPED_VERSION, rest)) = wrapped.split_first() else {
        return Err(Error::Unwrap);
    };
    let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(Error::Unwrap)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Unwrap)?;
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| Error::Unwrap)?;
    let mut opened = Zeroizing::new(sealed.to_vec());
    let length = cipher
        .open_in_place(nonce, Aad::from(purpose), &mut opened)
        .map_err(|_| Error::Unwrap)?
        .len();
    opened.truncate(length);
    Ok(opened)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// Random, so that a renewed certificate is told from the one before.
fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    // Positive, and of constant length.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateAuthority({:?})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + 20_000 * DAY
    }

    #[test]
    fn an_identity_survives_storing() {
        let authority = CertificateAuthority::create().unwrap();
        let identity = authority.issue(NodeId(3), &[], now(), 30 * DAY).unwrap();
        let again = Identity::from_bytes(&identity.to_bytes()).unwrap();
        assert_eq!(again.fingerprint(), identity.fingerprint());
        assert_eq!(again.certificate(), identity.certificate());
        assert!(Identity::from_bytes(&identity.to_bytes()[1..]).is_err());
        assert!(Identity::from_bytes(&[]).is_err());
    }

    #[test]
    fn an_authority_survives_storing_and_still_signs() {
        let authority = CertificateAuthority::create().unwrap();
        let parts = (authority.certificate().to_vec(), authority.key_bytes());
        let again = CertificateAuthority::from_parts(&parts.0, &parts.1).unwrap();
        assert_eq!(again.fingerprint(), authority.fingerprint());
        let identity = again.issue(NodeId(1), &[], now(), DAY).unwrap();
        assert!(signed_by(identity.certificate(), authority.certificate()).unwrap());
        let other = CertificateAuthority::create().unwrap();
        assert!(!signed_by(identity.certificate(), other.certificate()).unwrap());
        assert!(CertificateAuthority::from_parts(&parts.0, &other.key_bytes()).is_err());
    }

    #[test]
    fn an_identity_of_another_authority_or_key_is_refused() {
        let (one, two) =
            (CertificateAuthority::create().unwrap(), CertificateAuthority::create().unwrap());
        let key = NodeKey::generate().unwrap();
        let signed = one.sign(&key.request().unwrap(), NodeId(1), &[], now(), DAY).unwrap();
        let wrong_ca = Identity::new(
            NodeKey::from_bytes(&key.to_bytes()).unwrap(),
            signed.clone(),
            two.certificate().to_vec(),
        );
        assert!(matches!(wrong_ca, Err(Error::WrongAuthority(_))));
        let other_key = NodeKey::generate().unwrap();
        let wrong_key = Identity::new(other_key, signed, one.certificate().to_vec());
        assert!(matches!(wrong_key, Err(Error::WrongKey { .. })));
    }

    #[test]
    fn a_renewed_certificate_keeps_the_fingerprint_and_is_due_after_two_thirds() {
        let authority = CertificateAuthority::create().unwrap();
        let identity = authority.issue(NodeId(3), &[], now(), 30 * DAY).unwrap();
        assert!(!identity.renewal_due(now() + 19 * DAY).unwrap());
        assert!(identity.renewal_due(now() + 20 * DAY).unwrap());
        let request = identity.key().request().unwrap();
        let later = now() + 20 * DAY;
        let certificate = authority.sign(&request, NodeId(3), &[], later, 30 * DAY).unwrap();
        let renewed = identity.renewed(certificate).unwrap();
        assert_eq!(renewed.fingerprint(), identity.fingerprint());
        assert_ne!(renewed.certificate(), identity.certificate());
        assert!(!renewed.renewal_due(later + 19 * DAY).unwrap());
    }

    #[test]
    fn garbage_and_forged_requests_are_refused() {
        let authority = CertificateAuthority::create().unwrap();
        let mut request = NodeKey::generate().unwrap().request().unwrap();
        assert!(authority.sign(b"garbage", NodeId(1), &[], now(), DAY).is_err());
        // One bit of the key: the request is no longer signed by the key it is for.
        let last = request.len() - 100;
        request[last] ^= 1;
        assert!(authority.sign(&request, NodeId(1), &[], now(), DAY).is_err());
    }

    #[test]
    fn wrapped_bytes_open_only_under_the_same_key_and_purpose() {
        let wrapped = wrap(&[7; 32], b"ca", b"secret").unwrap();
        assert_eq!(unwrap(&[7; 32], b"ca", &wrapped).unwrap().as_slice(), b"secret");
        assert_ne!(wrapped, wrap(&[7; 32], b"ca", b"secret").unwrap());
        assert!(unwrap(&[8; 32], b"ca", &wrapped).is_err());
        assert!(unwrap(&[7; 32], b"gossip", &wrapped).is_err());
        for at in 0..wrapped.len() {
            let mut damaged = wrapped.clone();
            damaged[at] ^= 1;
            assert!(unwrap(&[7; 32], b"ca", &damaged).is_err(), "byte {at}");
            assert!(unwrap(&[7; 32], b"ca", &wrapped[..at]).is_err(), "length {at}");
        }
    }

    #[test]
    fn debug_output_shows_no_key() {
        let authority = CertificateAuthority::create().unwrap();
        let text = format!("{authority:?} {:?}", authority.issue(NodeId(1), &[], now(), DAY));
        assert!(text.len() < 100, "{text}");
    }
}
