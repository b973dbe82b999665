//! What a node is to its peers: a key pair and the cluster's word for it.
//!
//! ```text
//!   NodeKey ── request() ──▶ CertificateAuthority::sign ── certificate ──▶ Identity
//!      └───────────── the same key, a new certificate: renewal ──────────────▲
//! ```
//!
//! Invariants: an [`Identity`]'s certificate is for its key and signed by its authority, checked at
//! construction. Private keys are wiped when dropped and never appear in `Debug` output.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

use crate::error::Error;
use crate::fingerprint::Fingerprint;
use crate::tls::verify::signed_by;

/// The version of stored identities.
const STORED_VERSION: u8 = 1;

/// A node's key pair: ECDSA on P-256.
pub struct NodeKey(KeyPair);

/// A key pair with a certificate for it. Cheap to clone it is not; hand it to an endpoint.
pub struct Identity {
    key: NodeKey,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    key: Vec<u8>,
    certificate: Vec<u8>,
    authority: Vec<u8>,
}

impl NodeKey {
    /// A new key.
    ///
    /// # Errors
    /// [`Error::Generate`].
    pub fn generate() -> Result<Self, Error> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// The key from its PKCS#8 encoding.
    ///
    /// # Errors
    /// [`Error::MalformedKey`].
    pub fn from_bytes(pkcs8: &[u8]) -> Result<Self, Error> {
        KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(pkcs8),
            &PKCS_ECDSA_P256_SHA256,
        )
        .map(Self)
        .map_err(|_| Error::MalformedKey)
    }

    /// The PKCS#8 encoding: the caller stores it where only it can read.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialize_der())
    }

    /// The fingerprint under which the cluster lists this key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_public_key_info(&self.0.subject_public_key_info())
    }

    /// A request (PKCS#10, DER) for a certificate; proves possession of the key. What it is to be
    /// called is for the authority to say.
    ///
    /// # Errors
    /// [`Error::Generate`].
    pub fn request(&self) -> Result<Vec<u8>, Error> {
        Ok(CertificateParams::default().serialize_request(&self.0)?.der().to_vec())
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }
}

impl Identity {
    /// A key with its certificate, and the certificate of the authority that signed it (both DER).
    ///
    /// # Errors
    /// [`Error::WrongKey`], [`Error::WrongAuthority`], [`Error::MalformedCertificate`].
    pub fn new(key: NodeKey, certificate: Vec<u8>, authority: Vec<u8>) -> Result<Self, Error> {
        let of_certificate = Fingerprint::of_certificate(&certificate)?;
        if of_certificate != key.fingerprint() {
            return Err(Error::WrongKey { certificate: of_certificate, key: key.fingerprint() });
        }
        if !signed_by(&certificate, &authority)? {
            return Err(Error::WrongAuthority(Fingerprint::of_certificate(&authority)?));
        }
        Ok(Self { key, certificate: certificate.into(), authority: authority.into() })
    }

    /// The identity from what [`Self::to_bytes`] gave.
    ///
    /// # Errors
    /// [`Error::MalformedIdentity`], and those of [`Self::new`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let Some((&STORED_VERSION, rest)) = bytes.split_first() else {
            return Err(Error::MalformedIdentity);
        };
        let mut stored: Stored =
            postcard::from_bytes(rest).map_err(|_| Error::MalformedIdentity)?;
        let key = NodeKey::from_bytes(&stored.key);
        stored.key.zeroize();
        Self::new(key?, stored.certificate, stored.authority)
    }

    /// Key and certificates, to be stored where only the owner can read: the private key is in it.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut stored = Stored {
            key: self.key.to_bytes().to_vec(),
            certificate: self.certificate.to_vec(),
            authority: self.authority.to_vec(),
        };
        let mut bytes = Zeroizing::new(vec![STORED_VERSION]);
        bytes.extend_from_slice(&Zeroizing::new(
            postcard::to_stdvec(&stored).expect("plain byte strings always encode"),
        ));
        stored.key.zeroize();
        bytes
    }

    /// The same key with a new certificate of the same authority.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn renewed(&self, certificate: Vec<u8>) -> Result<Self, Error> {
        let key = NodeKey::from_bytes(&self.key.to_bytes())?;
        Self::new(key, certificate, self.authority.to_vec())
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// The fingerprint of the key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint()
    }

    /// The certificate (DER).
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate (DER) of the authority.
    #[must_use]
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// When a new certificate should be asked for: after two thirds of this one's life. Peers don't
    /// check dates, so nothing fails if it comes late.
    ///
    /// # Errors
    /// [`Error::MalformedCertificate`].
    pub fn renewal_at(&self) -> Result<SystemTime, Error> {
        let (_, certificate) = X509Certificate::from_der(&self.certificate)
            .map_err(|_| Error::MalformedCertificate)?;
        let validity = certificate.validity();
        let from = u64::try_from(validity.not_before.timestamp()).unwrap_or(0);
        let until = u64::try_from(validity.not_after.timestamp()).unwrap_or(0);
        let life = until.saturating_sub(from);
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(from) + Duration::from_secs(life) * 2 / 3)
    }

    /// Whether [`Self::renewal_at`] has passed at `now`.
    ///
    /// # Errors
    /// [`Error::MalformedCertificate`].
    pub fn renewal_due(&self, now: SystemTime) -> Result<bool, Error> {
        Ok(now >= self.renewal_at()?)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({:?})", self.fingerprint())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.fingerprint())
    }
}
