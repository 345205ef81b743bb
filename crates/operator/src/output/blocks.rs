//! What `inspect` shows people: a block of lines for each archive.

use std::fmt::{self, Write as _};
use std::io;

use anstyle::Style;
use checkpoint_keeper_core::checkpoint_time::is_possible;
use checkpoint_keeper_core::quantity;

use super::inspection::Inspected;
use super::text::{print, safe};

/// Prints what was inspected, a block for each archive.
pub fn inspected(inspected: &[Inspected]) -> io::Result<()> {
    let mut text = String::new();
    render_inspected(&mut text, inspected).map_err(io::Error::other)?;
    print(&text)
}

fn render_inspected(out: &mut String, inspected: &[Inspected]) -> fmt::Result {
    let (name, dim) = (Style::new().bold(), Style::new().dimmed());
    for (place, archive) in inspected.iter().enumerate() {
        if place > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{name}{}{name:#}", archive.shown)?;
        for (key, value) in facts(archive) {
            writeln!(out, "  {dim}{key:<13}{dim:#} {}", safe(&value))?;
        }
    }
    Ok(())
}

fn facts(archive: &Inspected) -> Vec<(&'static str, String)> {
    let container = match (&archive.namespace, &archive.pod, &archive.container) {
        (Some(namespace), Some(pod), Some(container)) => format!("{namespace}/{pod}/{container}"),
        _ => "unknown".to_owned(),
    };
    let mut facts = vec![("container", container)];
    let mut add = |key, value: Option<String>| facts.extend(value.map(|value| (key, value)));
    add("pod UID", archive.pod_uid.clone());
    let state = format!("{:?}", archive.state);
    add(
        "state",
        Some(archive.problem.as_ref().map_or(state.clone(), |problem| format!("{state}: {problem}"))),
    );
    let at = archive.checkpointed_at;
    let possible = if is_possible(at) { "" } else { ", which cannot be" };
    add("checkpointed", Some(format!("{at:.3}{possible}")));
    add("size", Some(format!("{} ({} bytes)", quantity::human(archive.size_bytes), archive.size_bytes)));
    add("members", Some(format!("{} ({:?})", archive.members, archive.format)));
    add("pinned", archive.pinned.then(|| "by the file beside it".to_owned()));
    add("image", archive.image.clone());
    add("image ref", archive.image_ref.clone());
    add("engine", archive.engine.map(|engine| engine.to_string()));
    add("runtime", archive.runtime.clone());
    add("container ID", archive.container_id.clone());
    add("created", archive.created_at.map(|created| format!("{created:.3}")));
    add("restarts", archive.restart_count.map(|count| count.to_string()));
    add("restored", archive.restored_at.map(|restored| format!("{restored:.3}")));
    add("CRIU", archive.statistics.as_ref().map(criu));
    facts
}

/// CRIU's figures in one line: for how long the container stood still, and how much was written.
fn criu(statistics: &checkpoint_keeper_core::archive::Statistics) -> String {
    let milliseconds = |microseconds: u32| format!("{:.1}ms", f64::from(microseconds) / 1_000.0);
    format!(
        "frozen for {}, memory dumped in {}, {} pages written",
        milliseconds(statistics.frozen_time),
        milliseconds(statistics.memdump_time),
        statistics.pages_written
    )
}
