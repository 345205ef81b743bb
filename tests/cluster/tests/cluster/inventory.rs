//! What users see of archives through the API, and what they ask: holds, which outlive every object, and discards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Client, Namespace, Node, wait};
use serde_json::{Value, json};

use crate::agents::{Agent, Applied, checkpoints, copies, keep, left, policy, stays, store};
use crate::install::{self, AGENT};
use crate::support::{DEADLINE, NODES, REPOSITORY, checkpoint_alone, cluster, counting_pod, empty, files_of};

const DEFINITION: &str = "containercheckpoints.checkpoint-keeper.io";

fn path(namespace: &str) -> String {
    format!("/apis/checkpoint-keeper.io/v1alpha1/namespaces/{namespace}/containercheckpoints")
}

/// The objects of a namespace, by the files that they are about.
fn objects(namespace: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    let list = cluster().get(&path(namespace))?;
    let items = list["items"].as_array().context("no list")?;
    let file = |object: &Value| object["status"]["file"].as_str().unwrap_or_default().to_owned();
    Ok(items.iter().map(|object| (file(object), object.clone())).collect())
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The object of an archive, once it is there and its status.
fn object_of(namespace: &str, file: &str) -> anyhow::Result<Value> {
    wait::for_value("the archive's object", DEADLINE, || Ok(objects(namespace)?.remove(file)))
}

/// Waits until exactly these archives have objects.
pub(crate) fn shown(namespace: &str, files: &[String]) -> anyhow::Result<BTreeMap<String, Value>> {
    wait::for_value("an object for each archive", DEADLINE, || {
        let objects = objects(namespace)?;
        let there: Vec<&String> = objects.keys().collect();
        let mut expected: Vec<&String> = files.iter().collect();
        expected.sort();
        ensure!(there == expected, "there: {there:?}, expected: {expected:?}");
        Ok(Some(objects))
    })
}

fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == type_).unwrap_or(&Value::Null)
}

/// Waits until the archive's object says of its hold what it should.
pub(crate) fn held(namespace: &str, file: &str, status: &str, reason: &str) -> anyhow::Result<Value> {
    wait::for_value("what the object says of its hold", DEADLINE, || {
        let object = objects(namespace)?.remove(file).context("no object")?;
        let held = condition(&object, "Held");
        let is_about_this = held["observedGeneration"] == object["metadata"]["generation"];
        ensure!(is_about_this && held["status"] == status && held["reason"] == reason, "{object}");
        Ok(Some(object))
    })
}

fn change(client: &Client, namespace: &str, object: &Value, spec: &Value) -> anyhow::Result<(u16, Value)> {
    client.merge(&format!("{}/{}", path(namespace), name(object)), &json!({"spec": spec}))
}

pub(crate) fn hold(namespace: &str, object: &Value, reason: &str) -> anyhow::Result<()> {
    let spec = json!({"hold": {"reason": reason}});
    let (status, answer) = change(cluster().administrator(), namespace, object, &spec)?;
    ensure!(status == 200, "{status} {answer}");
    Ok(())
}

pub(crate) fn discard(namespace: &str, object: &Value, reason: &str) -> anyhow::Result<()> {
    let spec = json!({"discard": {"reason": reason}});
    let (status, answer) = change(cluster().administrator(), namespace, object, &spec)?;
    ensure!(status == 200, "{status} {answer}");
    Ok(())
}

/// Asks for the deletion of these files of a node, and of no others.
pub(crate) fn discard_in_store(node: Node<'_>, files: &[&str]) -> anyhow::Result<()> {
    let stores = format!("/apis/checkpoint-keeper.io/v1alpha1/nodecheckpointstores/{}", node.name());
    let (status, answer) = cluster().administrator().merge(&stores, &json!({"spec": {"discard": files}}))?;
    ensure!(status == 200, "{status} {answer}");
    Ok(())
}

/// Waits until that is what came of a file that was to be deleted so, and returns since when.
pub(crate) fn discarded(node: Node<'_>, file: &str, result: &str) -> anyhow::Result<Value> {
    wait::for_value("the result of the discard", DEADLINE, || {
        let report = store(node)?;
        let results = report["status"]["discards"].as_array().cloned().unwrap_or_default();
        let found = results.into_iter().find(|one| one["file"] == file && one["result"] == result);
        ensure!(found.is_some(), "{}", report["status"]);
        Ok(found.map(|one| one["time"].clone()))
    })
}

/// A namespace with a pod that can be checkpointed.
pub(crate) fn with_pod<'a>(prefix: &str, node: Node<'_>) -> anyhow::Result<Namespace<'a>> {
    let namespace = cluster().namespace(prefix)?;
    namespace.apply(&counting_pod("app", node, &["server"]))?;
    namespace.wait_until_running("app")?;
    Ok(namespace)
}

pub(crate) fn marker(file: &str) -> String {
    format!("{file}.keep")
}

/// The archives of a namespace, without the markers beside them.
fn archives_of(node: Node<'_>, namespace: &str) -> anyhow::Result<Vec<String>> {
    let mut files = files_of(node, namespace)?;
    files.retain(|file| !file.ends_with(".keep"));
    Ok(files)
}

pub(crate) fn has_marker(node: Node<'_>, file: &str) -> bool {
    node.run("test", &["-e", &format!("{}/{file}.keep", node.directory())]).is_ok()
}

#[test]
fn an_archive_is_an_object_while_it_is_there() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    let namespace = with_pod("shown", node)?;
    let name_of_it = namespace.name();
    // The first one waits for what the API says of the pod's namespace.
    let first = checkpoint_alone(node, name_of_it, "app", "server")?;
    object_of(name_of_it, &first)?;
    let file = checkpoint_alone(node, name_of_it, "app", "server")?;
    let begin = Instant::now();
    let object = object_of(name_of_it, &file)?;
    let appeared = begin.elapsed();
    ensure!(appeared < Duration::from_secs(2), "it took {appeared:?}");
    let status = &object["status"];
    ensure!(status["nodeName"] == node.name() && status["podName"] == "app", "{object}");
    ensure!(status["containerName"] == "server" && status["state"] == "Complete", "{object}");
    ensure!(status["runtime"].is_string() && status["podUID"].is_string(), "{object}");
    ensure!(status["image"].as_str().is_some_and(|image| image.contains("busybox")), "{object}");
    // As a user looks for it.
    let table = output(&mut cluster().kubectl(&[
        "--namespace",
        name_of_it,
        "get",
        "cckpt",
        "--field-selector",
        &format!("status.podName=app,status.nodeName={}", node.name()),
    ]))?;
    ensure!(table.lines().count() == 3 && table.contains("EXPIRES") && table.contains("Complete"), "{table}");
    println!("{table}");

    // Deleting the object deletes no archive: it comes back.
    let one = format!("{}/{}", path(name_of_it), name(&object));
    let (status, answer) = cluster().request("DELETE", &one)?;
    ensure!(status == 200, "{status} {answer}");
    let again = wait::for_value("the object made anew", DEADLINE, || {
        let object_now = objects(name_of_it)?.remove(&file);
        Ok(object_now.filter(|now| now["metadata"]["uid"] != object["metadata"]["uid"]))
    })?;
    ensure!(name(&again) == name(&object), "{again}");
    // An agent that starts anew changes none.
    held(name_of_it, &file, "False", "NotHeld")?;
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let before: Vec<Value> = objects(name_of_it)?.values().map(version).collect();
    agent.stop()?;
    let agent = Agent::start(node)?;
    crate::agents::next_round(&agent)?;
    let after: Vec<Value> = objects(name_of_it)?.values().map(version).collect();
    ensure!(before == after, "{before:?} {after:?}");

    node.run("rm", &[&format!("{}/{file}", node.directory())])?;
    let begin = Instant::now();
    shown(name_of_it, &[first])?;
    ensure!(begin.elapsed() < Duration::from_secs(2), "it took {:?}", begin.elapsed());
    agent.stop()?;
    Ok(())
}

#[test]
fn a_hold_outlives_its_object_its_agent_the_kind_and_the_namespace() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    // Of archives without a namespace only so many are named, and earlier tests left some.
    empty(node)?;
    let agent = Agent::start(node)?;
    let namespace = with_pod("held", node)?;
    let of = namespace.name().to_owned();
    let files = checkpoints(node, &of, "app", 3)?;
    let evidence = &files[0];
    let objects_now = shown(&of, &files)?;
    hold(&of, &objects_now[evidence], "incident 4711")?;
    held(&of, evidence, "True", "Held")?;
    ensure!(has_marker(node, evidence));
    policy(&namespace, "one", &keep(1))?;
    let kept = [evidence.clone(), marker(evidence), files[2].clone()];
    left(node, &of, &kept)?;
    // The object is deleted, and the agent is killed right then.
    let one = format!("{}/{}", path(&of), name(&objects_now[evidence]));
    cluster().request("DELETE", &one)?;
    agent.kill()?;
    let agent = Agent::start(node)?;
    let object = held(&of, evidence, "True", "Held")?;
    ensure!(object["spec"]["hold"]["reason"] == "incident 4711", "{object}");
    // The kind itself is deleted, with all its objects, and comes back.
    output(&mut cluster().kubectl(&["delete", "customresourcedefinition", DEFINITION]))?;
    stays(&agent, node, &of, &kept)?;
    let definition = format!("{REPOSITORY}/config/crd/checkpoint-keeper.io_containercheckpoints.yaml");
    output(&mut cluster().kubectl(&["apply", "--filename", &definition]))?;
    let established = ["wait", "--for=condition=Established", "--timeout=30s", "--filename", &definition];
    output(&mut cluster().kubectl(&established))?;
    let object = held(&of, evidence, "True", "Held")?;
    ensure!(object["spec"]["hold"]["reason"] == "incident 4711", "{object}");
    // The node's store is deleted, and the objects with it, as they are with the node; both come back.
    let uid = |object: &Value| object["metadata"]["uid"].clone();
    let owners = &object["metadata"]["ownerReferences"];
    ensure!(owners[0]["kind"] == "NodeCheckpointStore" && owners[0]["uid"] == uid(&store(node)?), "{object}");
    let one = format!("/apis/checkpoint-keeper.io/v1alpha1/nodecheckpointstores/{}", node.name());
    cluster().request("DELETE", &one)?;
    wait::until("another object to be there", DEADLINE, || {
        Ok(uid(&object_of(&of, evidence)?) != uid(&object))
    })?;
    let object = wait::for_value("the object of the new store", DEADLINE, || {
        let object = held(&of, evidence, "True", "Held")?;
        let is_owned = object["metadata"]["ownerReferences"][0]["uid"] == uid(&store(node)?);
        Ok(is_owned.then_some(object))
    })?;
    ensure!(object["spec"]["hold"]["reason"] == "incident 4711", "{object}");
    // What a user takes out ends, and the policy takes the archive.
    let (status, answer) = change(cluster().administrator(), &of, &object, &json!({"hold": null}))?;
    ensure!(status == 200, "{status} {answer}");
    left(node, &of, &kept[2..])?;
    // At last the namespace: the archive is there, held, and shown to administrators.
    let last = &kept[2];
    hold(&of, &object_of(&of, last)?, "incident 4712")?;
    held(&of, last, "True", "Held")?;
    drop(namespace);
    let listed = || -> anyhow::Result<Option<Value>> {
        let report = store(node)?;
        let archives = report["status"]["withoutNamespace"].as_array().cloned().unwrap_or_default();
        Ok(archives.into_iter().find(|archive| archive["file"] == last.as_str()))
    };
    let archive = wait::for_value("the archive among those without a namespace", DEADLINE * 2, listed)?;
    ensure!(archive["namespace"] == of.as_str(), "{archive}");
    ensure!(archives_of(node, &of)? == [last.clone()] && has_marker(node, last));
    discard_in_store(node, &[last])?;
    discarded(node, last, "Waiting")?;
    ensure!(archives_of(node, &of)? == [last.clone()], "what is held is not discarded");
    node.run("rm", &[&format!("{}/{last}.keep", node.directory())])?;
    discarded(node, last, "Deleted")?;
    ensure!(archives_of(node, &of)?.is_empty());
    discard_in_store(node, &[])?;
    agent.stop()?;
    Ok(())
}

/// The token of an account of the namespace with one of the roles that every cluster has.
pub(crate) fn user_token(namespace: &str, role: &str) -> anyhow::Result<String> {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": role, "namespace": namespace}});
    cluster().apply(&account.to_string())?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": role, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": role, "namespace": namespace}],
    });
    cluster().apply(&binding.to_string())?;
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
    let (status, answer) = cluster()
        .create(&format!("/api/v1/namespaces/{namespace}/serviceaccounts/{role}/token"), &request)?;
    ensure!(status == 201, "{status} {answer}");
    Ok(answer["status"]["token"].as_str().context("no token")?.to_owned())
}

/// Such an account, once it has its rights.
fn user(namespace: &str, role: &str) -> anyhow::Result<Client> {
    let client = cluster().with_token(&user_token(namespace, role)?)?;
    wait::until("the account's rights", DEADLINE, || client.get(&path(namespace)).map(|_| true))?;
    Ok(client)
}

#[test]
fn each_asks_only_for_what_is_theirs() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let nodes = cluster().nodes();
    let node = nodes[0];
    let agent = Agent::start(node)?;
    let namespace = with_pod("asked", node)?;
    let other = cluster().namespace("elsewhere")?;
    let of = namespace.name();
    let file = checkpoint_alone(node, of, "app", "server")?;
    let object = object_of(of, &file)?;
    let one = format!("{}/{}", path(of), name(&object));
    let (view, edit, admin) = (user(of, "view")?, user(of, "edit")?, user(of, "admin")?);
    let stranger = user(other.name(), "admin")?;
    let mine = json!({"hold": {"reason": "mine"}});
    let gone = json!({"discard": {"reason": "too much"}});
    let refuse = |(status, answer): (u16, Value), what: &str| {
        ensure!(status == 403, "{what}: {status} {answer}");
        Ok(())
    };
    refuse(change(&view, of, &object, &mine)?, "who may see holds nothing")?;
    refuse(change(&stranger, of, &object, &mine)?, "another namespace's")?;
    refuse(change(&edit, of, &object, &gone)?, "who may edit discards nothing")?;
    let forged = json!({"hold": {"reason": "mine", "by": "system:admin"}});
    refuse(change(&edit, of, &object, &forged)?, "under another name")?;
    let labels = json!({"metadata": {"labels": {"checkpoint-keeper.io/node": nodes[1].name()}}});
    refuse(edit.merge(&one, &labels)?, "another node's")?;
    refuse(edit.merge(&one, &json!({"metadata": {"finalizers": ["example.com/x"]}}))?, "a finalizer")?;
    for client in [&edit, &admin] {
        refuse(client.merge(&format!("{one}/status"), &json!({"status": {"size": "0"}}))?, "the status")?;
        let mut made = object.clone();
        made["metadata"] = json!({"name": "made", "namespace": of});
        refuse(client.create(&path(of), &made)?, "an object of their own")?;
    }
    // Another node's agent, and one whose token says no node.
    let tokens = [json!({"kind": "Node", "apiVersion": "v1", "name": nodes[1].name()}), Value::Null];
    for bound in tokens {
        let stolen = cluster().with_token(&install::token(AGENT, &bound)?)?;
        refuse(change(&stolen, of, &object, &mine)?, "a stolen token")?;
        refuse(stolen.merge(&format!("{one}/status"), &json!({"status": {"size": "0"}}))?, "its status")?;
        refuse(stolen.request("DELETE", &one)?, "its deletion")?;
    }
    let own = cluster().with_token(&install::token(
        AGENT,
        &json!({"kind": "Node", "apiVersion": "v1", "name": node.name()}),
    )?)?;
    refuse(change(&own, of, &object, &gone)?, "a discard by an agent")?;

    let named = json!({"hold": {"reason": "mine", "by": format!("system:serviceaccount:{of}:edit")}});
    let (status, answer) = change(&edit, of, &object, &named)?;
    ensure!(status == 200, "{status} {answer}");
    held(of, &file, "True", "Held")?;
    refuse(change(&own, of, &object, &json!({"hold": null}))?, "the end of a hold by an agent")?;
    refuse(
        own.merge(&one, &json!({"metadata": {"finalizers": ["example.com/x"]}}))?,
        "an agent's finalizer",
    )?;
    for owner in [
        json!({"apiVersion": "v1", "kind": "Namespace", "name": of, "uid": "0"}),
        json!({"apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "NodeCheckpointStore",
               "name": nodes[1].name(), "uid": "0"}),
    ] {
        let owned = json!({"metadata": {"ownerReferences": [owner]}});
        refuse(own.merge(&one, &owned)?, "another owner by an agent")?;
        refuse(edit.merge(&one, &owned)?, "another owner by a user")?;
    }
    // A discard beside a hold, and one that is changed or taken back, are refused by the schema.
    let (status, answer) = change(&admin, of, &object, &gone)?;
    ensure!(status == 422 && answer.to_string().contains("exclude each other"), "{status} {answer}");
    // No more is held than the cluster's administrator lets the namespace hold.
    let limit = Applied::storage_policy("held", &json!({"perNamespace": {"maxHeld": {"maxCount": 1}}}))?;
    crate::agents::next_round(&agent)?;
    let second = checkpoint_alone(node, of, "app", "server")?;
    let second_object = object_of(of, &second)?;
    let (status, answer) = change(&edit, of, &second_object, &mine)?;
    ensure!(status == 200, "{status} {answer}");
    let refused = held(of, &second, "False", "MaxHeldExceeded")?;
    ensure!(
        condition(&refused, "Held")["message"].as_str().is_some_and(|text| text.contains("at most 1")),
        "{refused}"
    );
    ensure!(!has_marker(node, &second));
    drop(limit);
    held(of, &second, "True", "Held")?;

    let (status, answer) = change(&edit, of, &object, &json!({"hold": null}))?;
    ensure!(status == 200, "{status} {answer}");
    held(of, &file, "False", "NotHeld")?;
    let (status, answer) = change(&admin, of, &object, &gone)?;
    ensure!(status == 200, "{status} {answer}");
    let (status, answer) = change(&admin, of, &object, &json!({"discard": null}))?;
    // It may be gone by then.
    ensure!([404, 422].contains(&status), "{status} {answer}");
    left(node, of, &[second.clone(), marker(&second)])?;
    shown(of, &[second])?;
    let lines = agent.stop()?;
    let audited = lines.iter().find(|line| line["file"] == file.as_str() && line["reason"] == "Discarded");
    let audited = audited.with_context(|| format!("{lines:?}"))?;
    ensure!(audited["detail"] == "too much", "{audited}");
    Ok(())
}

/// Whatever is asked in the very moment in which a policy deletes: an archive of which it is said that it is held is
/// there.
#[test]
fn a_hold_in_the_moment_of_deletion_is_in_force_or_says_that_it_is_not() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    let namespace = with_pod("race", node)?;
    let of = namespace.name();
    let file = checkpoint_alone(node, of, "app", "server")?;
    let mut files = copies(node, &file, 12)?;
    files.push(file);
    let objects_now = shown(of, &files)?;
    std::thread::scope(|scope| {
        let holds = scope.spawn(|| {
            objects_now
                .values()
                .map(|object| {
                    // One that is gone by now is answered with 404.
                    let spec = json!({"hold": {"reason": "now"}});
                    let (status, answer) = change(cluster().administrator(), of, object, &spec)?;
                    ensure!([200, 404].contains(&status), "{status} {answer}");
                    Ok(())
                })
                .collect::<anyhow::Result<Vec<()>>>()
        });
        let applied = policy(&namespace, "one", &keep(1));
        holds.join().map_err(|_| anyhow::anyhow!("the holds panicked")).flatten().and(applied)
    })?;
    wait::until("what is there to be what is said to be there", DEADLINE, || {
        let (objects, here) = (objects(of)?, archives_of(node, of)?);
        let mut shown: Vec<&String> = objects.keys().collect();
        let mut there: Vec<&String> = here.iter().collect();
        shown.sort();
        there.sort();
        ensure!(shown == there, "shown: {shown:?}, there: {there:?}");
        let is_settled = |(file, object): (&String, &Value)| {
            let held = condition(object, "Held");
            held["observedGeneration"] == object["metadata"]["generation"]
                && (held["status"] == "True") == has_marker(node, file)
        };
        Ok(objects.iter().all(is_settled))
    })?;
    agent.stop()?;
    Ok(())
}
