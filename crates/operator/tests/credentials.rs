//! What `gc` shows a cluster of itself: whatever a credential is, it is trimmed, or named as what is wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use support::api::Api;
use support::{Place, Run, server};

struct Node {
    place: Place,
    api: Api,
}

impl Node {
    fn new() -> Self {
        let place = Place::new();
        place.add(&server(1));
        place.cluster_policy("orphans: {action: Delete, when: PodDeleted, gracePeriod: 1h}");
        Self { place, api: Api::start() }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.place.root().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A plugin that prints this.
    fn plugin(&self, name: &str, printed: &Value) -> Value {
        let path = self.file(name, format!("#!/bin/sh\ncat <<'END'\n{printed}\nEND\n").as_bytes());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": path, "interactiveMode": "Never",
            "env": [{"name": "PATH", "value": "/usr/bin:/bin"}],
        }})
    }

    fn gc(&self, user: &Value) -> Run {
        let kubeconfig = self.api.kubeconfig_of(self.place.root(), user);
        self.place.gc(&["--dry-run", "--kubeconfig", kubeconfig.to_str().unwrap()])
    }
}

#[test]
fn white_space_around_a_token_is_no_part_of_it_wherever_it_comes_from() {
    let node = Node::new();
    // A relative path leads from where the kubeconfig lies.
    node.file("token", b"from-file\n");
    let status = |token: &str| json!({"kind": "ExecCredential", "status": {"token": token}});
    let expiring = json!({"kind": "ExecCredential", "status": {
        "token": "from-expiring-plugin\r\n", "expirationTimestamp": "2199-01-01T00:00:00Z",
    }});
    for (user, token) in [
        (json!({"token": "inline\n"}), "inline"),
        (json!({"token": " \tinline\r\n\n"}), "inline"),
        (json!({"token": "\n", "tokenFile": "token"}), "from-file"),
        (json!({"tokenFile": "token"}), "from-file"),
        (node.plugin("plugin", &status("from-plugin\n")), "from-plugin"),
        (node.plugin("expiring", &expiring), "from-expiring-plugin"),
        (json!({"auth-provider": {"name": "oidc", "config": {"id-token": "from-oidc\n"}}}), "from-oidc"),
    ] {
        let before = node.api.requests().len();
        let run = node.gc(&user);
        assert_eq!(run.code, Some(0), "{user}: {run:?}");
        let asked = node.api.requests().split_off(before);
        assert!(!asked.is_empty(), "{user}: {run:?}");
        for request in asked {
            assert_eq!(request.authorization, format!("Bearer {token}"), "{user}");
        }
    }
}

#[test]
fn a_credential_that_cannot_be_used_is_named_and_is_wrong_usage() {
    let node = Node::new();
    node.file("empty", b"");
    node.file("blank", b" \n\n");
    node.file("split", b"first\nsecond");
    node.file("binary", b"\xff\xfe\x00");
    fs::create_dir(node.place.root().join("directory")).unwrap();
    let status = |status: Value| json!({"kind": "ExecCredential", "status": status});
    let not_json = node.plugin("not-json", &json!("no object"));
    fs::write(node.place.root().join("not-json"), "#!/bin/sh\necho token\n").unwrap();
    let failing = node.plugin("failing", &json!({}));
    fs::write(node.place.root().join("failing"), "#!/bin/sh\nexit 3\n").unwrap();
    for (user, hint) in [
        (json!({"token": "a\nb"}), "the token of the kubeconfig holds a character"),
        (json!({"token": "a\u{0}b"}), "the token of the kubeconfig holds a character"),
        (json!({"token": "a\u{1b}[2J"}), "the token of the kubeconfig holds a character"),
        (json!({"tokenFile": "missing"}), "missing cannot be read: No such file"),
        (json!({"tokenFile": "directory"}), "directory is not a file"),
        (json!({"tokenFile": "/dev/zero"}), "/dev/zero is not a file"),
        (json!({"tokenFile": "empty"}), "empty is empty"),
        (json!({"tokenFile": "blank"}), "blank is empty"),
        (json!({"tokenFile": "split"}), "split holds a character"),
        (json!({"tokenFile": "binary"}), "binary cannot be read: it is not text"),
        (json!({"client-certificate": "missing", "client-key": "missing"}), "missing cannot be read"),
        (json!({"client-certificate": "directory", "client-key": "directory"}), "directory is not a file"),
        (json!({"client-certificate": "empty", "client-key": "empty"}), "empty is empty"),
        (json!({"auth-provider": {"name": "gcp", "config": {}}}), "auth-provider gcp is not supported"),
        (
            json!({"auth-provider": {"name": "oidc", "config": {"id-token": "a\nb"}}}),
            "of the auth-provider holds",
        ),
        (
            json!({"exec": {"command": "./missing", "apiVersion": "client.authentication.k8s.io/v1"}}),
            "cannot be run",
        ),
        (json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1"}}), "is no command"),
        (node.plugin("split-token", &status(json!({"token": "a\nb"}))), "of the plugin"),
        (node.plugin("empty-token", &status(json!({"token": ""}))), "is empty"),
        (node.plugin("bad-time", &status(json!({"token": "a", "expirationTimestamp": "soon"}))), "no time"),
        (not_json, "did not print an ExecCredential"),
        (failing, "failed: exit status: 3"),
        (json!({"as": "a\nb"}), "no client can be made"),
    ] {
        let run = node.gc(&user);
        assert_eq!(run.code, Some(2), "{user}: {run:?}");
        assert!(run.stderr.contains(hint), "{user}: lacks {hint:?}: {}", run.stderr);
        assert!(!run.stderr.contains("panicked"), "{user}: {}", run.stderr);
        assert_eq!(run.stderr.lines().filter(|line| line.starts_with("error:")).count(), 1, "{}", run.stderr);
    }
    assert_eq!(node.api.requests().len(), 0, "nothing was asked with what is wrong");
}

#[test]
fn a_certificate_authority_without_a_certificate_is_wrong_usage_and_an_empty_one_is_none() {
    let node = Node::new();
    let path = node.api.kubeconfig(node.place.root());
    let with = |authority: &str| {
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        config["clusters"][0]["cluster"]["certificate-authority-data"] = authority.into();
        let changed = node.file("changed", config.to_string().as_bytes());
        node.place.gc(&["--dry-run", "--kubeconfig", changed.to_str().unwrap()])
    };
    // "no pem" in base64.
    let run = with("bm8gcGVt");
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("holds no certificate"), "{}", run.stderr);
    assert_eq!(node.api.requests().len(), 0);
    assert_eq!(with("").code, Some(0));
    assert!(!node.api.requests().is_empty());
}

#[test]
fn a_kubeconfig_is_read_with_a_bound() {
    let node = Node::new();
    for (path, hint) in
        [("/dev/zero", "more than 4 MiB"), ("/", "Is a directory"), ("/missing", "No such file")]
    {
        let run = node.place.gc(&["--dry-run", "--kubeconfig", path]);
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains(path) && run.stderr.contains(hint), "{}", run.stderr);
    }
}
