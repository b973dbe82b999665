//! The verifiers of certificates, one for each way in which a peer is believed.
//!
//! Names and dates in certificates are not looked at: the key is what the cluster lists.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use mooring_terms::NodeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible,
    SignatureScheme,
};
use thiserror::Error;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::admission::Admission;
use crate::error::Error;
use crate::fingerprint::Fingerprint;

/// Why a peer's certificate is not believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error("its certificate cannot be read")]
    Malformed,
    #[error("its certificate was not signed by this cluster's authority")]
    Authority,
    #[error("its key {0} is not in the table of nodes")]
    NotAdmitted(Fingerprint),
    #[error("it is {found:?}, not {meant:?}")]
    WrongNode { meant: NodeId, found: NodeId },
    #[error("its authority is not the one that the join token names ({0})")]
    TokenAuthority(Fingerprint),
}

/// Whether the key of `authority` signed `certificate` (both DER). Only ECDSA on P-256 with
/// SHA-256, the one kind the cluster uses.
///
/// # Errors
/// [`Error::MalformedCertificate`] if either can't be read.
pub(crate) fn signed_by(certificate: &[u8], authority: &[u8]) -> Result<bool, Error> {
    let (certificate, authority) = (parse(certificate)?, parse(authority)?);
    let key = &authority.tbs_certificate.subject_pki;
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY
        || curve != Some(OID_EC_P256)
        || certificate.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256
    {
        return Ok(false);
    }
    Ok(UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.subject_public_key.data)
        .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
        .is_ok())
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Error::MalformedCertificate),
    }
}

/// The fingerprint of a certificate that the cluster's authority signed.
fn of_cluster(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'_>,
) -> Result<Fingerprint, Refusal> {
    if !signed_by(certificate, authority).map_err(|_| Refusal::Malformed)? {
        return Err(Refusal::Authority);
    }
    Fingerprint::of_certificate(certificate).map_err(|_| Refusal::Malformed)
}

fn refuse(refusal: Refusal) -> rustls::Error {
    rustls::Error::InvalidCertificate(match refusal {
        Refusal::Malformed => CertificateError::BadEncoding,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}

/// What a node that dials believes: the node it meant, and no other.
pub(crate) struct MeantNode {
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) meant: NodeId,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

/// What a node that is dialled believes: any node in the table.
pub(crate) struct AdmittedNode {
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

/// Who may come to the API: somebody without certificate, or with one that the cluster's authority signed. What such a
/// client may do is for the API to decide; a removed node still has its certificate.
pub(crate) struct ApiClient {
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

/// What a joining node believes: a node whose authority is the one that its token names.
pub(crate) struct TokenCluster {
    pub(crate) authority: Fingerprint,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl MeantNode {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Refusal> {
        let fingerprint = of_cluster(certificate, &self.authority)?;
        let found =
            self.admission.node_of(&fingerprint).ok_or(Refusal::NotAdmitted(fingerprint))?;
        if found != self.meant {
            return Err(Refusal::WrongNode { meant: self.meant, found });
        }
        Ok(())
    }
}

impl TokenCluster {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
    ) -> Result<(), Refusal> {
        let named = |der: &&CertificateDer<'_>| {
            Fingerprint::of_certificate(der).is_ok_and(|found| found == self.authority)
        };
        let authority = chain.iter().find(named).ok_or(Refusal::TokenAuthority(self.authority))?;
        of_cluster(certificate, authority).map(drop)
    }
}

/// The parts of a verifier that are the same for all: signatures of TLS 1.3 only.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, certificate, signature, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for MeantNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity).map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

impl ServerCertVerifier for TokenCluster {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates).map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for AdmittedNode {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let fingerprint = of_cluster(end_entity, &self.authority).map_err(refuse)?;
        match self.admission.node_of(&fingerprint) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(refuse(Refusal::NotAdmitted(fingerprint))),
        }
    }

    signatures!();
}

impl ClientCertVerifier for ApiClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        of_cluster(end_entity, &self.authority).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

macro_rules! opaque_debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}
opaque_debug!(MeantNode, AdmittedNode, ApiClient, TokenCluster);
