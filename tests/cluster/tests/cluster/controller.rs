//! Replicas of the controller on the control plane: what became of every policy stands in its status,
//! whichever replica lives, and nothing is written while nothing changes.

use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::machine::{CONTROL_PLANE, PKI};
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::wait;
use serde_json::{Value, json};

use crate::support::{DEADLINE, NODES, cluster, install_crds, keeper, smuggle};

/// How long a lease holds.
const LEASE: Duration = Duration::from_secs(15);

/// A replica that runs on the control plane as a program, with the administrator's rights.
pub(crate) struct Replica {
    name: String,
    port: u16,
    process: Child,
}

impl Replica {
    pub(crate) fn start(namespace: &str, name: &str, port: u16) -> anyhow::Result<Self> {
        let mut command = cluster().command(CONTROL_PLANE, keeper())?;
        let (kubeconfig, listen) = (format!("{PKI}/admin-inside.kubeconfig"), format!("127.0.0.1:{port}"));
        let name = format!("{namespace}-{name}");
        command.args(["controller", "--kubeconfig", &kubeconfig, "--namespace", namespace]);
        command.args(["--listen", &listen, "--identity", &name]);
        let process = command.stdin(Stdio::null()).spawn()?;
        let replica = Self { name, port, process };
        wait::until("the replica to be ready", DEADLINE, || Ok(replica.page("readyz")?.trim() == "ok"))?;
        Ok(replica)
    }

    fn page(&self, path: &str) -> anyhow::Result<String> {
        let address = format!("http://127.0.0.1:{}/{path}", self.port);
        output(cluster().command(CONTROL_PLANE, "curl")?.args(["--silent", "--max-time", "5", &address]))
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pattern = format!("--identity {}$", self.name);
        output(cluster().command(CONTROL_PLANE, "pkill")?.args([signal, "--full", "--", &pattern])).map(drop)
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.signal("-KILL")?;
        self.process.wait()?;
        Ok(())
    }

    /// Stops it as a node does.
    pub(crate) fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.signal("-TERM")?;
        Ok(self.process.wait()?)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.signal("-KILL");
            let _ = self.process.wait();
        }
    }
}

fn lease(namespace: &str) -> anyhow::Result<Value> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/checkpoint-keeper");
    Ok(cluster().get(&path)?["spec"].clone())
}

fn leads(namespace: &str, replica: &Replica) -> anyhow::Result<bool> {
    let lease = lease(namespace)?;
    ensure!(lease["holderIdentity"] == replica.name.as_str(), "the lease: {lease}");
    Ok(true)
}

/// Applies an object of ours.
fn apply(kind: &str, namespace: &str, name: &str, spec: &Value) -> anyhow::Result<String> {
    let version = match kind {
        "CheckpointRestoreOperator" => "criu.org/v1",
        _ => "checkpoint-keeper.io/v1alpha1",
    };
    let object = json!({"apiVersion": version, "kind": kind, "spec": spec,
                        "metadata": {"namespace": namespace, "name": name}});
    cluster().apply(&object.to_string())?;
    let plural = match kind {
        "CheckpointPolicy" => "checkpointpolicies",
        _ => "checkpointrestoreoperators",
    };
    Ok(format!("/apis/{version}/namespaces/{namespace}/{plural}/{name}"))
}

/// Waits until an object says that about itself, and gives its status.
fn told(path: &str, status: &str, reason: &str) -> anyhow::Result<Value> {
    let mut last = Value::Null;
    wait::until(&format!("{path} to be {reason}"), DEADLINE, || {
        let object = cluster().get(path)?;
        last = object["status"].clone();
        let accepted = condition(&last, "Accepted");
        let is_current = last["observedGeneration"] == object["metadata"]["generation"]
            && accepted["observedGeneration"] == object["metadata"]["generation"];
        ensure!(
            accepted["status"] == status && accepted["reason"] == reason && is_current,
            "it says: {last}"
        );
        Ok(true)
    })?;
    Ok(last)
}

fn condition(status: &Value, kind: &str) -> Value {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

fn add_store(name: &str, policies: &Value) -> anyhow::Result<String> {
    let store = json!({"apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "NodeCheckpointStore", "spec": {},
                       "metadata": {"name": name}});
    cluster().apply(&store.to_string())?;
    // Only an agent may write it, and only of its own node.
    let key = format!("/registry/checkpoint-keeper.io/nodecheckpointstores/{name}");
    let ready = json!({"type": "Ready", "status": "True", "reason": "Collecting", "message": "",
                       "lastTransitionTime": "2026-01-01T00:00:00Z"});
    smuggle(&key, |store| store["status"] = json!({"policies": policies, "conditions": [ready]}))?;
    Ok(format!("/apis/checkpoint-keeper.io/v1alpha1/nodecheckpointstores/{name}"))
}

#[test]
fn every_policy_is_told_what_became_of_it() -> anyhow::Result<()> {
    // Two controllers of different namespaces would not agree on whose objects govern the cluster, and nobody
    // is to change anything meanwhile.
    let _alone = NODES.write();
    install_crds()?;
    let (own, team) = (cluster().namespace("keeper")?, cluster().namespace("team")?);
    let (own, team) = (own.name(), team.name());
    let replicas = [Replica::start(own, "a", 9471)?, Replica::start(own, "b", 9472)?];
    let retention = |count: i64| json!({"retention": {"perContainer": {"maxCount": count}}});
    let legacy = "CheckpointRestoreOperator";
    let good = apply("CheckpointPolicy", team, "good", &retention(3))?;
    told(&good, "True", "Accepted")?;
    apply("CheckpointPolicy", team, "good", &retention(4))?;
    let status = told(&good, "True", "Accepted")?;
    ensure!(condition(&status, "DeletionPending")["status"] == "False", "{status}");
    let none = json!({"nodes": 0, "archives": 0, "size": "0", "deletionPending": 0, "partial": false});
    ensure!(status["totals"] == none, "{status}");
    let dry = apply("CheckpointPolicy", team, "dry", &json!({"mode": "DryRun"}))?;
    told(&dry, "True", "DryRun")?;
    told(&apply(legacy, own, "a-first", &json!({}))?, "True", "Accepted")?;
    let second = told(&apply(legacy, own, "b-second", &json!({}))?, "False", "Superseded")?;
    ensure!(condition(&second, "Accepted")["message"].to_string().contains("a-first"), "{second}");
    let entry = |namespace: &str, size: &str| json!({"namespacePolicies": [{"namespace": namespace, "maxTotalSize": size}]});
    let foreign = apply(legacy, team, "a-foreign", &entry("elsewhere", "5Gi"))?;
    told(&foreign, "False", "ForeignNamespace")?;
    output(&mut cluster().kubectl(&[
        "delete",
        "--namespace",
        team,
        "checkpointrestoreoperators",
        "a-foreign",
    ]))?;
    // What no rule of the API can afford to refuse.
    let invalid = apply(legacy, team, "invalid", &entry(team, "00.5Ki"))?;
    let status = told(&invalid, "False", "Invalid")?;
    ensure!(condition(&status, "Accepted")["message"].to_string().contains("below 1Ki"), "{status}");
    // What was stored by another version.
    let broken = apply("CheckpointPolicy", team, "broken", &json!({}))?;
    told(&broken, "True", "Accepted")?;
    smuggle(&format!("/registry/checkpoint-keeper.io/checkpointpolicies/{team}/broken"), |object| {
        object["spec"]["mode"] = "Gently".into();
    })?;
    let status = told(&broken, "False", "Invalid")?;
    ensure!(condition(&status, "Accepted")["message"].to_string().contains("Gently"), "{status}");
    wait::until("the events", DEADLINE, || {
        let listed = cluster().get(&format!("/apis/events.k8s.io/v1/namespaces/{team}/events"))?;
        let events = listed["items"].as_array().context("no list")?;
        let told = |name: &str, reason: &str| {
            events.iter().any(|event| event["regarding"]["name"] == name && event["reason"] == reason)
        };
        ensure!(told("a-foreign", "ForeignNamespace") && told("broken", "Invalid"), "{events:?}");
        Ok(true)
    })?;
    let metrics: Vec<String> =
        replicas.iter().map(|replica| replica.page("metrics")).collect::<anyhow::Result<_>>()?;
    let leading = |page: &&String| page.contains("\ncheckpoint_keeper_leader 1\n");
    ensure!(metrics.iter().filter(leading).count() == 1, "{metrics:#?}");
    let page = metrics.iter().find(leading).context("nobody leads")?;
    for line in [
        r#"checkpoint_keeper_policies{kind="CheckpointPolicy",reason="Accepted"} "#,
        r#"checkpoint_keeper_policies{kind="CheckpointPolicy",reason="Invalid"} "#,
        r#"checkpoint_keeper_status_writes_total{result="written"} "#,
    ] {
        let value: f64 = page.lines().find_map(|said| said.strip_prefix(line)).context(line)?.parse()?;
        ensure!(value >= 1.0, "{line}: {page}");
    }
    Ok(())
}

#[test]
fn the_store_of_a_node_that_is_gone_goes_and_the_totals_follow() -> anyhow::Result<()> {
    // Two controllers of different namespaces would not agree on whose objects govern the cluster, and nobody
    // is to change anything meanwhile.
    let _alone = NODES.write();
    install_crds()?;
    let (own, team) = (cluster().namespace("keeper")?, cluster().namespace("team")?);
    let (own, team) = (own.name(), team.name());
    let policy = apply("CheckpointPolicy", team, "good", &json!({}))?;
    let reference = json!({"kind": "CheckpointPolicy", "namespace": team, "name": "good"});
    let usage = json!({"policyRef": reference, "generation": 1, "mode": "Enforce", "archives": 5, "size": "5Ki",
                       "deletionPending": 2});
    let gone = format!("gone-{own}");
    let store = add_store(&gone, &json!([usage]))?;
    // As its agent does it.
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": gone}});
    cluster().apply(&node.to_string())?;
    let node = cluster().get(&format!("/api/v1/nodes/{gone}"))?;
    let reference = json!({"apiVersion": "v1", "kind": "Node", "name": gone, "uid": node["metadata"]["uid"]});
    let owned = json!({"metadata": {"ownerReferences": [reference]}}).to_string();
    let patch = ["patch", "nodecheckpointstore", &gone, "--type=merge", "--patch", &owned];
    output(&mut cluster().kubectl(&patch))?;
    let _replica = Replica::start(own, "a", 9473)?;
    let status = told(&policy, "True", "Accepted")?;
    ensure!(condition(&status, "DeletionPending")["status"] == "True", "{status}");
    ensure!(condition(&status, "Enforced")["reason"] == "AllNodes", "{status}");
    ensure!(condition(&status, "Ready")["status"] == "True", "{status}");
    let totals = json!({"nodes": 1, "archives": 5, "size": "5Ki", "deletionPending": 2, "partial": false});
    ensure!(status["totals"] == totals, "{status}");
    output(&mut cluster().kubectl(&["delete", "node", &gone]))?;
    wait::until("the store to be collected", DEADLINE, || Ok(cluster().request("GET", &store)?.0 == 404))?;
    wait::until("the totals to follow", DEADLINE, || {
        let status = cluster().get(&policy)?["status"].clone();
        ensure!(status["totals"]["nodes"] == 0, "{status}");
        ensure!(condition(&status, "DeletionPending")["status"] == "False", "{status}");
        Ok(true)
    })
}

#[test]
fn whichever_replica_dies_the_other_goes_on() -> anyhow::Result<()> {
    // Two controllers of different namespaces would not agree on whose objects govern the cluster, and nobody
    // is to change anything meanwhile.
    let _alone = NODES.write();
    install_crds()?;
    let (own, team) = (cluster().namespace("keeper")?, cluster().namespace("team")?);
    let (own, team) = (own.name(), team.name());
    let first = Replica::start(own, "a", 9474)?;
    wait::until("a to lead", DEADLINE, || leads(own, &first))?;
    let second = Replica::start(own, "b", 9475)?;
    told(&apply("CheckpointPolicy", team, "early", &json!({}))?, "True", "Accepted")?;
    first.kill()?;
    let late = apply("CheckpointPolicy", team, "late", &json!({}))?;
    // Its lease, looking at it, and the work itself.
    let limit = LEASE + Duration::from_secs(5);
    wait::until("b to lead", limit, || leads(own, &second))?;
    told(&late, "True", "Accepted")?;
    // Whoever is told to stop hands over.
    let third = Replica::start(own, "c", 9476)?;
    let begin = Instant::now();
    let status = second.stop()?;
    ensure!(status.code() == Some(0), "it ended with {status}");
    wait::until("c to lead", Duration::from_secs(5), || leads(own, &third))?;
    ensure!(begin.elapsed() < LEASE / 2, "handing over took {:?}", begin.elapsed());
    told(&apply("CheckpointPolicy", team, "latest", &json!({}))?, "True", "Accepted")?;
    // Somebody else takes the lease: what began may be under way, and so the process ends.
    let path = ["--namespace", own, "patch", "lease", "checkpoint-keeper", "--type=merge", "--patch"];
    let thief = r#"{"spec": {"holderIdentity": "thief"}}"#;
    output(&mut cluster().kubectl(&[&path[..], &[thief]].concat()))?;
    let mut third = third;
    let status = wait::for_value("c to end", LEASE, || Ok(third.process.try_wait()?))?;
    ensure!(status.code() == Some(1), "it ended with {status}");
    Ok(())
}
