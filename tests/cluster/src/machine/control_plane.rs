//! The daemons of the control plane.

use super::supervisor::Supervisor;
use super::{AUDIT_LOG, CONTROL_PLANE, MACHINE, PKI, RUN, daemon, kube_proxy};
use crate::lifecycle::Description;

/// What the API server writes down of requests: those of service accounts of namespaces, without the control
/// plane's own, and not what they said.
const AUDIT: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [
    {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
    {"level": "Metadata", "userGroups": ["system:serviceaccounts"], "omitStages": ["ResponseStarted", "ResponseComplete"]},
    {"level": "None"}
]}"#;

/// Starts them; each waits by itself for those that it needs.
pub(super) fn start(supervisor: &Supervisor, cluster: &Description) {
    let audit = format!("{RUN}/audit-policy.json");
    if let Err(error) = std::fs::write(&audit, AUDIT) {
        eprintln!("{audit}: {error}");
    }
    if let Err(error) = kube_proxy(supervisor, CONTROL_PLANE) {
        eprintln!("kube-proxy: {error:#}");
    }
    let etcd = [
        format!("--data-dir={MACHINE}/disk/etcd"),
        "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        // Its disk is memory.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    supervisor.keep("etcd", daemon("etcd", &etcd));
    let api_server = [
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        "--bind-address=0.0.0.0".to_owned(),
        "--advertise-address=10.77.0.1".to_owned(),
        "--secure-port=6443".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
        format!("--tls-cert-file={PKI}/apiserver.crt"),
        format!("--tls-private-key-file={PKI}/apiserver.key"),
        format!("--client-ca-file={PKI}/ca.crt"),
        format!("--service-account-key-file={PKI}/service-accounts.pub"),
        format!("--service-account-signing-key-file={PKI}/service-accounts.key"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--kubelet-client-certificate={PKI}/apiserver-kubelet.crt"),
        format!("--kubelet-client-key={PKI}/apiserver-kubelet.key"),
        format!("--kubelet-certificate-authority={PKI}/ca.crt"),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--audit-policy-file={audit}"),
        format!("--audit-log-path={MACHINE}/log/{AUDIT_LOG}"),
    ];
    let api_server = [&api_server[..], &cluster.api_server_flags].concat();
    supervisor.keep("kube-apiserver", daemon("kube-apiserver", &api_server));
    let credentials = |name: &str| {
        let file = format!("{PKI}/{name}.kubeconfig");
        ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
            .map(|flag| format!("--{flag}={file}"))
    };
    let controller_manager = [
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials".to_owned(),
        format!("--service-account-private-key-file={PKI}/service-accounts.key"),
        format!("--root-ca-file={PKI}/ca.crt"),
        format!("--cluster-signing-cert-file={PKI}/ca.crt"),
        format!("--cluster-signing-key-file={PKI}/ca.key"),
    ];
    let controller_manager =
        [&controller_manager[..], &credentials("controller-manager"), &cluster.controller_manager_flags]
            .concat();
    supervisor.keep("kube-controller-manager", daemon("kube-controller-manager", &controller_manager));
    let scheduler = [&["--leader-elect=false".to_owned()][..], &credentials("scheduler")].concat();
    supervisor.keep("kube-scheduler", daemon("kube-scheduler", &scheduler));
}
