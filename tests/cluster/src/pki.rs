//! The cluster's certificates and kubeconfigs.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::lifecycle::Description;
use crate::paths::State;

/// The API server as the machines see it.
pub const API_SERVER: &str = "https://10.77.0.1:6443";

/// The first address of the Services' network: the API server's as pods see it.
pub const SERVICE_ADDRESS: [u8; 4] = [10, 96, 0, 1];

/// Who certificates are for: a file's name, the user's name and groups.
const CLIENTS: &[(&str, &str, Option<&str>)] = &[
    ("admin", "admin", Some("system:masters")),
    ("apiserver-kubelet", "apiserver-kubelet", Some("system:masters")),
    ("controller-manager", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
    ("kube-proxy", "system:kube-proxy", None),
];

/// Issues everything. `api_port` is where the host reaches the API server.
pub fn issue(state: &State, description: &Description, api_port: u16) -> anyhow::Result<()> {
    let folder = state.pki();
    std::fs::create_dir_all(&folder)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name("checkpoint-keeper-test", None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?, folder };
    authority.write("ca.crt", &authority.issuer.pem())?;
    authority.write("ca.key", &authority.issuer.key().serialize_pem())?;

    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let addresses = [[127, 0, 0, 1], SERVICE_ADDRESS, [10, 77, 0, 1]];
    authority.serving("apiserver", "kube-apiserver", &names, &addresses)?;
    for (file, user, group) in CLIENTS {
        authority.client(file, user, *group)?;
    }
    authority.kubeconfig("admin", "admin", &format!("https://127.0.0.1:{api_port}"))?;
    authority.kubeconfig("admin-inside", "admin", API_SERVER)?;
    for user in ["controller-manager", "scheduler", "kube-proxy"] {
        authority.kubeconfig(user, user, API_SERVER)?;
    }
    for node in &description.nodes {
        let name = &node.name;
        authority.serving(
            &format!("kubelet-{name}"),
            name,
            &["localhost", name],
            &[[127, 0, 0, 1], node.address()],
        )?;
        let client = format!("node-{name}");
        authority.client(&client, &format!("system:node:{name}"), Some("system:nodes"))?;
        authority.kubeconfig(&format!("kubelet-{name}"), &client, API_SERVER)?;
    }
    let accounts = KeyPair::generate()?;
    authority.write("service-accounts.key", &accounts.serialize_pem())?;
    authority.write("service-accounts.pub", &accounts.public_key_pem())
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn serving(
        &self,
        file: &str,
        common_name: &str,
        names: &[&str],
        addresses: &[[u8; 4]],
    ) -> anyhow::Result<()> {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.subject_alt_names.extend(addresses.iter().map(|ip| SanType::IpAddress(IpAddr::from(*ip))));
        self.issue(file, params, common_name, None, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn client(&self, file: &str, user: &str, group: Option<&str>) -> anyhow::Result<()> {
        let params = CertificateParams::default();
        self.issue(file, params, user, group, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(
        &self,
        file: &str,
        mut params: CertificateParams,
        common_name: &str,
        organisation: Option<&str>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<()> {
        params.distinguished_name = name(common_name, organisation);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        self.write(&format!("{file}.crt"), &certificate.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())
    }

    fn kubeconfig(&self, file: &str, client: &str, server: &str) -> anyhow::Result<()> {
        // Data, not paths: the host and the machines see the files at different places.
        let read = |name: &str| {
            let bytes = std::fs::read(self.folder.join(name))?;
            anyhow::Ok(BASE64.encode(&bytes))
        };
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": client}}],
            "clusters": [{"name": "test", "cluster": {
                "server": server, "certificate-authority-data": read("ca.crt")?,
            }}],
            "users": [{"name": client, "user": {
                "client-certificate-data": read(&format!("{client}.crt"))?,
                "client-key-data": read(&format!("{client}.key"))?,
            }}],
        });
        self.write(&format!("{file}.kubeconfig"), &serde_json::to_string_pretty(&config)?)
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.folder.join(file);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn name(common_name: &str, organisation: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(organisation) = organisation {
        name.push(DnType::OrganizationName, organisation);
    }
    name
}
