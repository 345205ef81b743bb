//! What people read when their manifest is wrong, word for word.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use checkpoint_keeper_api::manifest;

/// All messages about one file named `p.yaml`.
fn told(text: &str) -> String {
    match manifest::load(&[("p.yaml", text)]) {
        Ok(loaded) => panic!("accepted: {loaded:?}"),
        Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n") + "\n",
    }
}

/// A cluster policy with this text below `spec:`, which begins in line 5.
fn cluster(spec: &str) -> String {
    format!(
        "apiVersion: checkpoint-keeper.io/v1alpha1\nkind: ClusterCheckpointPolicy\nmetadata: {{name: default}}\nspec:\n{spec}"
    )
}

fn check(text: &str, expected: &str) {
    let told = told(text);
    assert_eq!(told.trim_end(), expected.trim(), "\n--- told:\n{told}");
}

fn check_spec(spec: &str, expected: &str) {
    let expected: Vec<_> = expected
        .trim()
        .lines()
        .map(|line| match line.trim_start().split_once(' ') {
            Some(("hint:", _)) | None => format!("  {}", line.trim_start()),
            Some((number, rest)) => format!("p.yaml:{number}: ClusterCheckpointPolicy/default: {rest}"),
        })
        .collect();
    check(&cluster(spec), &expected.join("\n"));
}

#[test]
fn everything_wrong_is_told_at_once_in_the_order_of_the_file() {
    let text = r#"
apiVersion: checkpoint-keeper.io/v1alpha1
kind: ClusterCheckpointPolicy
metadata: {name: default}
spec:
  retention:
    maxAgee: 30d
    perPod: {maxCount: "10", maxTotalSize: 10}
  orphans:
    action: delete
    gracePeriod: 7 days
---
kind: [
---
apiVersion: criu.org/v1
kind: ClusterCheckpointPolicy
metadata: {name: default}
"#;
    check(
        text,
        r#"
p.yaml:7: ClusterCheckpointPolicy/default: spec.retention.maxAgee: unknown field
  hint: did you mean "maxAge"?
p.yaml:8: ClusterCheckpointPolicy/default: spec.retention.perPod.maxCount: is the text "10"; a whole number is wanted
  hint: write 10 without quotes
p.yaml:8: ClusterCheckpointPolicy/default: spec.retention.perPod.maxTotalSize: 10 is below 1Ki: the value is in bytes, and so small a limit would delete every archive; write a unit, for example 10Mi (0 turns the limit off)
  hint: did you mean "10Mi"?
p.yaml:10: ClusterCheckpointPolicy/default: spec.orphans.action: "delete" is none of Retain, Delete
  hint: did you mean "Delete"?
p.yaml:11: ClusterCheckpointPolicy/default: spec.orphans.gracePeriod: "7 days" has the unknown unit " days"; known are ns, us, ms, s, m, h, d (24 h) and w (7 d)
  hint: did you mean "7d"?
p.yaml:13: not valid YAML: unclosed bracket '['
p.yaml:15: ClusterCheckpointPolicy/default: apiVersion: "criu.org/v1" has no ClusterCheckpointPolicy
  hint: did you mean "checkpoint-keeper.io/v1alpha1"?
p.yaml:15: ClusterCheckpointPolicy/default: spec: is required
"#,
    );
}

#[test]
fn unknown_fields_say_what_was_meant() {
    check_spec("  maxAge: 3d", "5 spec.maxAge: unknown field\n hint: \"maxAge\" belongs in spec.retention");
    check_spec(
        "  retention: {maxCount: 3}",
        "5 spec.retention.maxCount: unknown field\n hint: \"maxCount\" belongs in spec.retention.perContainer or \
         spec.retention.perNamespace or spec.retention.perPod or spec.retention.perWorkload",
    );
    check_spec(
        "  selector: {namespaces: [shop]}",
        "5 spec.selector.namespaces: unknown field\n hint: select a namespace by its name with \
         namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: <namespace>}}",
    );
    check_spec(
        "  incomplete: {xyz: 3}",
        "5 spec.incomplete.action: is required\n5 spec.incomplete.xyz: unknown field\n hint: known here: action, gracePeriod",
    );
    check(
        "apiVersion: checkpoint-keeper.io/v1alpha1\nkind: ClusterCheckpointPolicy\nmetdata: {name: a}\nspec: {}\n",
        "p.yaml:3: ClusterCheckpointPolicy: metdata: unknown field\n  hint: did you mean \"metadata\"?",
    );
    check(
        "apiVersion: checkpoint-keeper.io/v1alpha1\nkind: ClusterCheckpointPolicy\nmetadata: {name: a, lables: {}}\nspec: {}\n",
        "p.yaml:3: ClusterCheckpointPolicy/a: metadata.lables: unknown field\n  hint: did you mean \"labels\"?",
    );
}

#[test]
fn wrong_types_say_which_is_wanted() {
    check_spec(
        "  retention: {maxAge: 30}",
        "5 spec.retention.maxAge: is the number 30; a length of time is wanted\n \
         hint: did you mean \"30d\" (days) or \"30h\" (hours)?",
    );
    check_spec(
        "  retention: {perPod: {maxCount: 010}}",
        "5 spec.retention.perPod.maxCount: is the text \"010\"; a whole number is wanted\n \
         hint: kubectl reads a leading 0 as octal; write the number without it",
    );
    check_spec(
        "  retention: {perPod: {maxCount: 1.5}}",
        "5 spec.retention.perPod.maxCount: is the number 1.5; a whole number is wanted",
    );
    check_spec("  retention: [maxAge]", "5 spec.retention: is a list; a group of fields is wanted");
    check_spec("  selector: {pods: db-0}", "5 spec.selector.pods: is the text \"db-0\"; a list is wanted");
    check_spec(
        "  retention: {maxArchiveSize: true}",
        "5 spec.retention.maxArchiveSize: is true; a size such as 20Gi is wanted",
    );
    check_spec("  mode: true", "5 spec.mode: is true; text is wanted");
    check_spec("  selector: {pods: [~]}", "5 spec.selector.pods[0]: is null; text is wanted");
    check_spec(
        "  selector: {pods: [12, on]}",
        "5 spec.selector.pods[0]: is the number 12; text is wanted\n hint: put it in quotes: \"12\"\n\
         5 spec.selector.pods[1]: is the bare word on, which kubectl reads as true or false\n \
         hint: put it in quotes: \"on\"",
    );
}

#[test]
fn values_out_of_bounds_are_refused() {
    check_spec("  retention: {perPod: {maxCount: -1}}", "5 spec.retention.perPod.maxCount: -1 is negative");
    check_spec("  retention: {keepLatest: 20000}", "5 spec.retention.keepLatest: 20000 is more than 10000");
    check_spec("  retention: {maxAge: -1h}", "5 spec.retention.maxAge: \"-1h\" is negative");
    check_spec(
        "  retention: {maxAge: 1y}",
        "5 spec.retention.maxAge: \"1y\" has the unknown unit \"y\"; known are ns, us, ms, s, m, h, d (24 h) and w (7 d)\n \
         hint: did you mean \"365d\"?",
    );
    check_spec(
        "  retention: {maxArchiveSize: 10GB}",
        "5 spec.retention.maxArchiveSize: \"10GB\" has the unknown suffix \"GB\"; known are Ki Mi Gi Ti Pi Ei and \
         k M G T P E\n hint: did you mean \"10G\"?",
    );
    check_spec(
        "  retention: {maxArchiveSize: 10%}",
        "5 spec.retention.maxArchiveSize: \"10%\" is a share, and this limit takes only a size such as 20Gi",
    );
    check_spec(
        "  retention: {perPod: {maxTotalSize: 101%}}",
        "5 spec.retention.perPod.maxTotalSize: \"101%\" is not a share between 0% and 100%",
    );
    check_spec(
        "  retention: {keepLatestFor: forever}",
        "5 spec.retention.keepLatestFor: must be a length of time such as 24h, 7d or 2w, or Forever\n \
         hint: did you mean \"Forever\"?",
    );
    check_spec(
        "  retention:\n    tiers: {hourly: 0}\n    maxAge: 1d",
        "6 spec.retention.tiers: tiers and maxAge exclude each other: tiers already say how long archives stay\n\
         6 spec.retention.tiers: tiers that are all 0 keep nothing; set at least one of hourly, daily, weekly, \
         monthly, yearly, or leave tiers out",
    );
    check_spec(
        "  selector: {pods: [db-*]}",
        "5 spec.selector.pods[0]: \"db-*\" must be an exact name (lower-case letters, digits, '-' and '.'); it can \
         neither be empty nor a pattern\n hint: names are compared as they are; to select many pods, use podSelector \
         with a label",
    );
    check_spec(
        "  selector:\n    podSelector:\n      matchExpressions:\n      - {key: app, operator: in, values: [a]}\n      - {key: app, operator: In}",
        "8 spec.selector.podSelector.matchExpressions[0].operator: \"in\" is none of In, NotIn, Exists, DoesNotExist\n \
         hint: did you mean \"In\"?\n\
         9 spec.selector.podSelector.matchExpressions[1]: In and NotIn need at least one value; Exists and \
         DoesNotExist take none",
    );
    check_spec(
        "  selector:\n    podSelector:\n      matchExpressions:\n      - {key: app, operator: In}",
        "8 spec.selector.podSelector.matchExpressions[0]: In and NotIn need at least one value; Exists and \
         DoesNotExist take none",
    );
}

#[test]
fn storage_policies_are_checked_as_a_whole() {
    let storage = |spec: &str| {
        format!(
            "apiVersion: checkpoint-keeper.io/v1alpha1\nkind: CheckpointStoragePolicy\nmetadata: {{name: a}}\nspec: {spec}\n"
        )
    };
    check(
        &storage("{highWatermark: 88, lowWatermark: 90%}"),
        "p.yaml:4: CheckpointStoragePolicy/a: spec.highWatermark: is the number 88; a share is wanted\n  \
         hint: did you mean \"88%\"?\n\
         p.yaml:4: CheckpointStoragePolicy/a: spec.lowWatermark: lowWatermark must be below highWatermark",
    );
    check(
        &storage("{lowWatermark: 90%}"),
        "p.yaml:4: CheckpointStoragePolicy/a: spec.lowWatermark: lowWatermark says where the deletions end that \
         highWatermark begins: set highWatermark as well, or leave lowWatermark out",
    );
    check(
        &storage(
            "{highWatermark: 80%, lowWatermark: 90%, deletionLimit: {burst: 0, percent: 0, period: 0s}}",
        ),
        "p.yaml:4: CheckpointStoragePolicy/a: spec.lowWatermark: lowWatermark must be below highWatermark\n\
         p.yaml:4: CheckpointStoragePolicy/a: spec.deletionLimit: burst 0 and percent 0 together would never allow a \
         deletion; leave deletionLimit out for the default\n\
         p.yaml:4: CheckpointStoragePolicy/a: spec.deletionLimit.period: must be longer than 0, for example 1m",
    );
    check(
        &storage("{highWatermark: \"88\"}"),
        "p.yaml:4: CheckpointStoragePolicy/a: spec.highWatermark: \"88\" is not a share between 0% and 100%\n  \
         hint: did you mean \"88%\"?",
    );
}

#[test]
fn the_older_kind_is_checked_in_its_own_terms() {
    check(
        "apiVersion: criu.org/v1\nkind: CheckpointRestoreOperator\nmetadata: {name: a, namespace: b}\nspec:\n  \
         applyPoliciesImmediately: yes\n  globalPolicy:\n    maxCheckpointSize: 10\n  containerPolicies:\n  \
         - {namespace: shop, pod: web-0}\n  - {namespace: shop, pod: web-0, container: '*'}\n",
        "p.yaml:5: CheckpointRestoreOperator/b/a: spec.applyPoliciesImmediately: is yes; write true or false\n\
         p.yaml:9: CheckpointRestoreOperator/b/a: spec.containerPolicies[0].container: is required",
    );
    check(
        "apiVersion: criu.org/v1\nkind: CheckpointRestoreOperator\nmetadata: {name: a, namespace: b}\nspec:\n  \
         globalPolicy:\n    maxCheckpointSize: 10\n  podPolicies:\n  - {namespace: shop, pod: '', maxTotalSize: 5}\n",
        "p.yaml:6: CheckpointRestoreOperator/b/a: spec.globalPolicy.maxCheckpointSize: 10 is below 1Ki: the value is in \
         bytes, and so small a limit would delete every archive; write a unit, for example 10Mi (0 turns the limit \
         off)\n  hint: did you mean \"10Mi\"?\n\
         p.yaml:8: CheckpointRestoreOperator/b/a: spec.podPolicies[0].pod: \"\" must be an exact name (lower-case \
         letters, digits, '-' and '.'); it can neither be empty nor a pattern\n\
         p.yaml:8: CheckpointRestoreOperator/b/a: spec.podPolicies[0].maxTotalSize: 5 is below 1Ki: the value is in \
         bytes, and so small a limit would delete every archive; write a unit, for example 10Mi (0 turns the limit \
         off)\n  hint: did you mean \"5Mi\"?",
    );
}

#[test]
fn other_kinds_are_not_taken() {
    let only = "only retention kinds are taken here: ClusterCheckpointPolicy, CheckpointPolicy, \
        CheckpointStoragePolicy (checkpoint-keeper.io/v1alpha1) and CheckpointRestoreOperator (criu.org/v1)";
    for kind in ["ConfigMap", "CheckpointSchedule", "ContainerCheckpoint", "CheckpointQuota"] {
        check(
            &format!("kind: {kind}\napiVersion: v1\n"),
            &format!(
                "p.yaml:1: {kind}: kind: \"{kind}\" is not a kind that says what is kept\n  hint: {only}"
            ),
        );
    }
    check(
        "kind: ClusterCheckpointPolicies\n",
        "p.yaml:1: ClusterCheckpointPolicies: kind: \"ClusterCheckpointPolicies\" is not a kind that says what is \
         kept\n  hint: did you mean \"ClusterCheckpointPolicy\"?",
    );
    check(
        "a: 1\n",
        &format!("p.yaml:1: kind: is required\n  hint: one of {}", only.split_once(": ").unwrap().1),
    );
    check("- a\n", "p.yaml:1: is no Kubernetes object: apiVersion, kind, metadata and spec are wanted");
}

#[test]
fn names_and_namespaces_are_checked() {
    check(
        "apiVersion: checkpoint-keeper.io/v1alpha1\nkind: CheckpointPolicy\nmetadata: {generateName: a}\nspec: {}\n",
        "p.yaml:3: CheckpointPolicy: metadata.name: is required\n  hint: generateName is for a cluster; a file's \
         objects need names\n\
         p.yaml:3: CheckpointPolicy: metadata.namespace: is required\n  hint: a file has no current namespace; write \
         the one that the policy is for",
    );
    check(
        "apiVersion: checkpoint-keeper.io/v1alpha1\nkind: ClusterCheckpointPolicy\nmetadata:\n  name: Default_1\n  namespace: shop\nspec: {}\n",
        "p.yaml:4: ClusterCheckpointPolicy/shop/Default_1: metadata.name: \"Default_1\" must be an exact name \
         (lower-case letters, digits, '-' and '.'); it can neither be empty nor a pattern\n\
         p.yaml:5: ClusterCheckpointPolicy/shop/Default_1: metadata.namespace: ClusterCheckpointPolicy is for the \
         whole cluster and has no namespace\n  hint: for one namespace, use the kind CheckpointPolicy or \
         spec.selector.namespaceSelector",
    );
}

#[test]
fn repeated_keys_and_objects_name_the_first() {
    check_spec("  mode: Enforce\n  mode: DryRun", "6 spec.mode: is there twice; the first is in line 5");
    let one = cluster("  {}\n");
    let errors = manifest::load(&[("a.yaml", one.clone()), ("b.yaml", one)]).unwrap_err();
    assert_eq!(
        errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "b.yaml:3: ClusterCheckpointPolicy/default: metadata.name: is there twice; the first is in a.yaml:3"
        ]
    );
}

#[test]
fn a_file_without_a_policy_says_so() {
    for text in ["", "# nothing\n", "---\n---\n", "~\n", "---\nnull\n"] {
        check(
            text,
            "p.yaml: no policy in this file\n  hint: a policy begins with apiVersion: checkpoint-keeper.io/v1alpha1 and kind: \
             ClusterCheckpointPolicy",
        );
    }
    check("kind: List\napiVersion: v1\nitems: []\n", "p.yaml:1: the list holds no policy");
    assert_eq!(manifest::load::<&str, &str>(&[]).unwrap_err()[0].to_string(), "policy: no file given");
}

#[test]
fn broken_yaml_has_a_place() {
    check(
        "kind: ClusterCheckpointPolicy\nspec:\n\tmode: a\n",
        "p.yaml:3: not valid YAML: tabs disallowed within this context (block indentation)\n  hint: YAML is indented \
         with spaces, not with tabs",
    );
    check("a: &x {b: *x}\n", "p.yaml:1: not valid YAML: an alias stands inside what it refers to");
    for text in ["a: b: c\n", "a: 'b\n", "{a", "a: *b\n", "\u{0}", "a: &x {b: *x}\n", "? a\n- b\n"] {
        let errors = manifest::load(&[("p.yaml", text)]).unwrap_err();
        assert!(errors[0].line >= 1, "{text:?}: {errors:?}");
    }
}

#[test]
fn no_input_is_too_much() {
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
        c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
        e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    assert!(told(bomb).contains("its aliases stand for more than 5000 values"), "{}", told(bomb));
    for deep in
        ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000), "[".repeat(80) + &"]".repeat(80)]
    {
        assert!(told(&deep).contains("it is nested deeper than 24 levels"), "{}", told(&deep));
    }
    let nested = (0..5_000).fold(String::new(), |text, depth| text + &" ".repeat(depth % 200) + "a:\n");
    assert!(told(&nested).contains("p.yaml:"));
    let large = format!("a: {}", "x".repeat(manifest::LARGEST_FILE));
    assert_eq!(told(&large), "p.yaml: has 4194307 bytes; policies are read from files of at most 4 MiB\n");
    let many = "---\na: 1\n".repeat(1_001);
    assert_eq!(told(&many), "p.yaml: has 1001 documents; at most 1000 are read\n");
    let wrong = "---\na: 1\n".repeat(1_000);
    assert_eq!(manifest::load(&[("p.yaml", wrong)]).unwrap_err().len(), 200);
    let long = format!("a: [{}]", "x,".repeat(1_000_000));
    assert!(told(&long).contains("it has more than 200000 values"), "{}", told(&long));
    // As many fields as a document may have: what is wrong with each is not sought when nobody is told,
    // and no field is compared with all others.
    let fields = |shown: fn(usize) -> String| (0..60_000).map(shown).collect::<String>();
    for wrong in [
        cluster(&fields(|index| format!("  a{index}: 1\n"))),
        cluster(&fields(|_| "  mode: Enforce\n".to_owned())),
        cluster("  selector: {").trim_end().to_owned() + &fields(|index| format!("a{index}: ,")) + "}\n",
        "apiVersion: v1\nkind: List\nitems:\n".to_owned() + &fields(|_| "- {a: }\n".to_owned()),
        "---\n".to_owned() + &cluster(&"  a: 1\n  b: 1\n".repeat(150)),
    ] {
        let errors = manifest::load(&[("p.yaml", wrong)]).unwrap_err();
        assert_eq!(errors.len(), 201);
        assert_eq!(errors[200].to_string(), "p.yaml: and more errors");
    }
    let labels = fields(|index| format!("    a{index}: b\n"));
    let labels = format!("metadata:\n  name: default\n  labels:\n{labels}");
    let labelled = cluster("  mode: Enforce\n").replace("metadata: {name: default}\n", &labels);
    assert_eq!(manifest::load(&[("p.yaml", labelled)]).unwrap().policies.retention.len(), 1);
    let chain = (1..10).fold("a0: &a0 []\n".to_owned(), |text, index| {
        text + &format!("a{index}: &a{index} {}*a{}{}\n", "[".repeat(20), index - 1, "]".repeat(20))
    });
    assert!(told(&chain).contains("it is nested deeper than 24 levels"), "{}", told(&chain));
}
