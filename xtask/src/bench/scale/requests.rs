//! What agents and controller ask of the API server, counted from what it writes down of each request.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;
use serde::Deserialize;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Agents,
    Controller,
}

impl Who {
    fn of(user: &str) -> Option<Self> {
        let account = user.strip_prefix("system:serviceaccount:checkpoint-keeper:")?;
        match account {
            "checkpoint-keeper-agent" => Some(Self::Agents),
            "checkpoint-keeper-controller" => Some(Self::Controller),
            _ => None,
        }
    }
}

/// What is asked: a verb, and a resource with its subresource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct What {
    pub(super) verb: String,
    pub(super) resource: String,
}

impl What {
    pub(super) fn is_watch(&self) -> bool {
        self.verb == "watch"
    }

    pub(super) fn is_write(&self) -> bool {
        !["watch", "list", "get"].contains(&self.verb.as_str())
    }
}

/// How many requests there were.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    counts: BTreeMap<(Who, What), u64>,
    /// But for watches, and for the lease by which the controller leads.
    per_second: BTreeMap<i64, u64>,
    watches_per_second: BTreeMap<i64, u64>,
    last: Option<Timestamp>,
}

/// What of a line is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    user: User,
    verb: String,
    object_ref: Option<ObjectRef>,
    request_received_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct ObjectRef {
    #[serde(default)]
    resource: String,
    subresource: Option<String>,
}

impl Requests {
    /// Counts a line of the API server's record.
    fn note(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let event: Event = serde_json::from_slice(line).context("the API server's record is damaged")?;
        let Some(who) = Who::of(&event.user.username) else { return Ok(()) };
        let mut resource = event.object_ref.as_ref().map_or("-", |object| &object.resource).to_owned();
        if let Some(part) = event.object_ref.and_then(|object| object.subresource) {
            resource = format!("{resource}/{part}");
        }
        let what = What { verb: event.verb, resource };
        let at = event.request_received_timestamp;
        if what.is_watch() {
            *self.watches_per_second.entry(at.as_second()).or_default() += 1;
        } else if what.resource != "leases" {
            *self.per_second.entry(at.as_second()).or_default() += 1;
            self.last = self.last.max(Some(at));
        }
        *self.counts.entry((who, what)).or_default() += 1;
        Ok(())
    }

    /// How many of them somebody made that are of this kind.
    pub(super) fn count(&self, who: Who, is_meant: impl Fn(&What) -> bool) -> u64 {
        let meant = self.counts.iter().filter(|((by, what), _)| *by == who && is_meant(what));
        meant.map(|(_, count)| count).sum()
    }

    /// The most of one second, but for watches.
    pub(super) fn most_a_second(&self) -> u64 {
        self.per_second.values().max().copied().unwrap_or_default()
    }

    /// The most watches that were begun in one second.
    pub(super) fn most_watches_a_second(&self) -> u64 {
        self.watches_per_second.values().max().copied().unwrap_or_default()
    }

    /// When the last came that was no watch.
    pub(super) fn last(&self) -> Option<Timestamp> {
        self.last
    }

    /// What there was most of, in words: `200 patch nodecheckpointstores/status, 20 list pods`.
    pub(super) fn most(&self, who: Who, kinds: usize) -> String {
        let mut counts: Vec<_> = self.counts.iter().filter(|((by, _), _)| *by == who).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let shown = counts.iter().take(kinds).map(|((_, what), count)| {
            let What { verb, resource } = what;
            format!("{count} {verb} {resource}")
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

/// Reads the API server's record on from where it was.
pub(super) struct Record {
    file: BufReader<File>,
    /// A line that is half written.
    partial: Vec<u8>,
}

impl Record {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file: BufReader::with_capacity(1 << 20, file), partial: Vec::new() })
    }

    /// Counts what came since.
    pub(super) fn advance(&mut self, requests: &mut Requests) -> anyhow::Result<()> {
        while self.file.read_until(b'\n', &mut self.partial)? > 0 && self.partial.ends_with(b"\n") {
            requests.note(&self.partial)?;
            self.partial.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(account: &str, verb: &str, resource: &str, second: u32) -> String {
        let user = format!("system:serviceaccount:checkpoint-keeper:checkpoint-keeper-{account}");
        let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
        let mut object = serde_json::json!({"resource": resource});
        if !part.is_empty() {
            object["subresource"] = part.into();
        }
        let at = format!("2026-11-27T04:00:{second:02}.000000Z");
        let event = serde_json::json!({
            "kind": "Event", "user": {"username": user}, "verb": verb, "objectRef": object,
            "requestReceivedTimestamp": at,
        });
        format!("{event}\n")
    }

    #[test]
    fn requests_are_counted_by_who_and_what_and_a_half_line_is_counted_once_it_is_whole() -> anyhow::Result<()>
    {
        let mut file = tempfile::NamedTempFile::new()?;
        let mut record = Record::open(file.path())?;
        let mut requests = Requests::default();
        let status = "nodecheckpointstores/status";
        for text in [
            line("agent", "watch", "pods", 1),
            line("agent", "patch", status, 2),
            line("agent", "patch", status, 2),
            line("agent", "list", "pods", 3),
            line("controller", "update", "leases", 9),
            line("controller", "patch", "clustercheckpointpolicies/status", 4),
            line("someone", "delete", "pods", 5),
        ] {
            file.write_all(text.as_bytes())?;
        }
        let last = line("agent", "create", "containercheckpoints", 7);
        let (half, rest) = last.split_at(40);
        file.write_all(half.as_bytes())?;
        record.advance(&mut requests)?;
        assert_eq!(requests.count(Who::Agents, |what| !what.is_watch()), 3);
        assert_eq!(requests.count(Who::Agents, What::is_write), 2);
        assert_eq!(requests.count(Who::Agents, What::is_watch), 1);
        assert_eq!(requests.count(Who::Controller, What::is_write), 2);
        assert_eq!(requests.most_a_second(), 2);
        assert_eq!(requests.most_watches_a_second(), 1);
        assert_eq!(requests.last(), Some("2026-11-27T04:00:04Z".parse()?), "a renewed lease is no news");
        assert_eq!(requests.most(Who::Agents, 1), "2 patch nodecheckpointstores/status");
        file.write_all(rest.as_bytes())?;
        record.advance(&mut requests)?;
        assert_eq!(requests.count(Who::Agents, What::is_write), 3);
        Ok(())
    }
}
