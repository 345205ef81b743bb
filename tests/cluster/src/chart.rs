//! The manifests of `config/deploy`, which the chart renders: each file is one template with the default values.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::process::output;

/// Each file of `config/deploy`, and the template that it is rendered from. They are applied in this order.
pub const MANIFESTS: [(&str, &str); 10] = [
    ("0-namespace.yaml", "namespace.yaml"),
    ("0-priority-quota.yaml", "priority-quota.yaml"),
    ("1-accounts.yaml", "accounts.yaml"),
    ("2-agent-rights.yaml", "agent-rights.yaml"),
    ("3-controller-rights.yaml", "controller-rights.yaml"),
    ("4-admission.yaml", "admission.yaml"),
    ("5-agent.yaml", "agent.yaml"),
    ("6-controller.yaml", "controller.yaml"),
    ("7-user-roles.yaml", "user-roles.yaml"),
    ("8-operator-roles.yaml", "operator-roles.yaml"),
];

/// The namespace and the release that the plain manifests are of.
const RELEASE: &str = "checkpoint-keeper";

/// Labels that are about a release of helm, and so say nothing of plain manifests.
const OF_HELM: [&str; 3] = ["app.kubernetes.io/instance:", "app.kubernetes.io/managed-by:", "helm.sh/chart:"];

/// Where the chart is, below the repository.
pub const CHART: &str = "charts/checkpoint-keeper";

/// Renders a chart with these arguments, such as `--set`.
pub fn template(helm: &Path, chart: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(helm);
    command.args(["template", RELEASE, "--namespace", RELEASE]).arg(chart).args(arguments);
    output(&mut command)
}

/// The files of `config/deploy` as the chart in this repository renders them: each name, and its content.
pub fn manifests(helm: &Path, repository: &Path) -> anyhow::Result<Vec<(&'static str, String)>> {
    let render = |(file, template): (&'static str, &str)| {
        let only = format!("templates/{template}");
        let arguments = ["--set", "namespace.create=true,crds.enabled=false", "--show-only", &only];
        let rendered = self::template(helm, &repository.join(CHART), &arguments)?;
        let content = plain(&rendered).with_context(|| format!("{template} renders nothing"))?;
        Ok((file, content))
    };
    MANIFESTS.into_iter().map(render).collect()
}

/// A rendered template without what helm adds to it; none if nothing is left.
fn plain(rendered: &str) -> Option<String> {
    let mut content = String::new();
    let is_helms = |line: &str| {
        line.starts_with("# Source: ") || OF_HELM.iter().any(|label| line.trim_start().starts_with(label))
    };
    for line in rendered.lines().filter(|line| !is_helms(line)) {
        // What conditions of templates leave behind: lines of nothing, and documents of nothing.
        let is_empty = line.trim().is_empty();
        let is_second_start = line == "---" && (content.is_empty() || content.ends_with("---\n"));
        if !is_empty && !is_second_start {
            content.push_str(line.trim_end());
            content.push('\n');
        }
    }
    (!content.is_empty()).then_some(content)
}

/// Copies the chart elsewhere as another version of itself.
pub fn copy_as(chart: &Path, folder: &Path, version: &str) -> anyhow::Result<()> {
    output(Command::new("cp").args(["-r"]).arg(chart).arg(folder))?;
    let file = folder.join("Chart.yaml");
    let text = std::fs::read_to_string(&file)?;
    let line = text.lines().find(|line| line.starts_with("version: ")).context("the chart has no version")?;
    Ok(std::fs::write(&file, text.replacen(line, &format!("version: {version}"), 1))?)
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn what_helm_adds_is_left_out() {
        let rendered = "---\n# Source: a/templates/b.yaml\n\n---\n# Ours.\nkind: A\nmetadata:\n  labels:\n    \
                        app.kubernetes.io/name: a\n    app.kubernetes.io/instance: r\n    helm.sh/chart: a-1\n";
        let expected = "# Ours.\nkind: A\nmetadata:\n  labels:\n    app.kubernetes.io/name: a\n";
        assert_eq!(plain(rendered).as_deref(), Some(expected));
        assert_eq!(plain("---\n# Source: a\n---\n"), None);
    }
}
