//! The manifest by which krew installs the plugin.

use anyhow::Context;
use serde_json::json;

/// It must be called as the plugin is.
pub(super) const FILE: &str = "checkpoints.yaml";

/// The plugin's archive for one kind of machine.
pub(super) struct Platform {
    /// As krew says it: `linux-amd64`.
    pub(super) os_and_architecture: String,
    pub(super) file: String,
    pub(super) digest: String,
}

/// The manifest, for archives that lie at `url`. It is JSON, which is YAML as well.
pub(super) fn manifest(version: &str, url: &str, archives: &[Platform]) -> anyhow::Result<String> {
    let mut platforms = Vec::new();
    for archive in archives {
        let platform = &archive.os_and_architecture;
        let (os, architecture) =
            platform.split_once('-').with_context(|| format!("{platform} is not OS-ARCHITECTURE"))?;
        platforms.push(json!({
            "selector": {"matchLabels": {"os": os, "arch": architecture}},
            "uri": format!("{url}/{}", archive.file),
            "sha256": archive.digest,
            "bin": super::PLUGIN,
        }));
    }
    let manifest = json!({
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": "checkpoints"},
        "spec": {
            "version": format!("v{version}"),
            "homepage": url,
            "shortDescription": "List, explain, protect and preview container checkpoints",
            "description": "Lists the container checkpoints of a cluster with their sizes and ages, says of each \
                what becomes of it and why, previews policies before they are applied, protects evidence, makes \
                checkpoints, and finds what is wrong. It needs checkpoint-keeper in the cluster.\n",
            "caveats": "The completion of names needs kubectl_complete-checkpoints in the PATH:\n\
                kubectl checkpoints completion > ~/.local/bin/kubectl_complete-checkpoints\n\
                chmod +x ~/.local/bin/kubectl_complete-checkpoints\n",
            "platforms": platforms,
        },
    });
    Ok(format!("{manifest:#}\n"))
}
